//! Which key signs.

use posthaste_auth::{
    dkim::{Algorithm, KeyRing, SignError, Signer, SignerOptions, SigningKey},
    wire::Domain,
};

use crate::{ED25519, RSA, at, ring};

/// A key with its window, in seconds.
fn key(domain: &str, selector: &str, text: &[u8], begins: Option<u64>, ends: Option<u64>) -> SigningKey {
    let mut key = SigningKey::new(domain, selector, text).expect("a key");
    (key.begins, key.ends) = (begins.map(at), ends.map(at));
    key
}

/// The selectors of the keys that sign.
fn chosen(ring: &KeyRing, domain: &str, seconds: u64) -> Vec<String> {
    let domain = Domain::parse(domain).expect("a name");
    ring.find(&domain, at(seconds)).iter().map(|key| key.selector().to_owned()).collect()
}

#[test]
fn of_two_keys_the_one_that_begins_last_signs() {
    let ring = ring([
        key("example.org", "new", ED25519, Some(100), None),
        key("example.org", "old", ED25519, None, None),
        key("example.org", "rsa", RSA, Some(50), Some(150)),
        key("example.org", "later", ED25519, Some(200), Some(300)),
    ]);
    for (seconds, expected) in [
        (0, &["old"][..]),
        (49, &["old"]),
        (50, &["rsa", "old"]),
        (99, &["rsa", "old"]),
        (100, &["rsa", "new"]),
        (149, &["rsa", "new"]),
        (150, &["new"]),
        (200, &["later"]),
        (299, &["later"]),
        (300, &["new"]),
    ] {
        assert_eq!(chosen(&ring, "example.org", seconds), expected, "{seconds}");
    }
}

#[test]
fn among_equals_the_key_that_was_added_last_signs() {
    let ring = ring([key("example.org", "a", ED25519, None, None), key("example.org", "b", ED25519, None, None)]);
    assert_eq!(chosen(&ring, "example.org", 1), ["b"]);
}

#[test]
fn a_parent_signs_only_if_its_key_says_so_and_no_nearer_one_is_valid() {
    let mut parent = key("example.org", "parent", ED25519, None, None);
    parent.covers_subdomains = true;
    let ring = ring([
        parent,
        key("example.org", "own", RSA, None, None),
        key("news.example.org", "news", ED25519, Some(10), Some(20)),
        key("org", "org", ED25519, None, None),
    ]);
    for (domain, seconds, expected) in [
        ("example.org", 1, &["own", "parent"][..]),
        ("Example.ORG", 1, &["own", "parent"]),
        ("a.example.org", 1, &["parent"]),
        ("a.b.c.example.org", 1, &["parent"]),
        ("news.example.org", 1, &["parent"]),
        ("news.example.org", 10, &["news"]),
        ("news.example.org", 20, &["parent"]),
        ("a.news.example.org", 10, &["parent"]),
        ("notexample.org", 1, &[]),
        ("example.net", 1, &[]),
        ("other.org", 1, &[]),
        ("[192.0.2.1]", 1, &[]),
    ] {
        assert_eq!(chosen(&ring, domain, seconds), expected, "{domain} {seconds}");
    }
}

#[test]
fn a_name_outside_ascii_is_found_by_its_a_labels() {
    let ring = ring([key("b\u{fc}cher.example", "a", ED25519, None, None)]);
    assert_eq!(chosen(&ring, "B\u{dc}CHER.example", 1), ["a"]);
    assert_eq!(chosen(&ring, "xn--bcher-kva.example", 1), ["a"]);
    let signer = Signer::new(ring, SignerOptions::default());
    let signed = signer.sign("From: me@b\u{fc}cher.example\r\n\r\n".as_bytes(), at(1)).unwrap();
    assert_eq!(signed[0].domain(), "xn--bcher-kva.example");
}

#[test]
fn the_domain_of_from_decides_unless_the_caller_does() {
    let ring = ring([
        key("example.org", "a", ED25519, None, None),
        key("example.org", "b", RSA, None, None),
        key("service.test", "c", ED25519, None, None),
        key("later.test", "d", ED25519, Some(1_000), None),
    ]);
    let signer = Signer::new(ring, SignerOptions::default());
    let by_from = |from: &str| {
        let signed = signer.sign(format!("From: {from}\r\n\r\nx\r\n").as_bytes(), at(1))?;
        Ok::<_, SignError>(signed.iter().map(|one| one.selector().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(by_from("Me <me@example.org>"), Ok(vec!["b".into(), "a".into()]));
    assert_eq!(by_from("me@example.org (c@service.test)"), Ok(vec!["b".into(), "a".into()]));
    assert_eq!(by_from("me@other.test"), Ok(vec![]));
    assert_eq!(by_from("me@later.test"), Ok(vec![]));
    assert!(matches!(by_from("me@example.org, you@service.test"), Err(SignError::Domains { .. })));

    let for_domains = |domains: &[&'static str]| {
        let mut signing = signer.begin_for(domains.iter().map(|name| Domain::parse(name).unwrap()));
        signing.update(b"From: me@other.test, you@example.org\r\n\r\nx\r\n");
        let signed = signing.finish(at(1)).unwrap();
        signed.iter().map(|one| one.selector().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(for_domains(&["service.test"]), ["c"]);
    assert_eq!(for_domains(&["example.org", "service.test", "EXAMPLE.org"]), ["b", "a", "c"]);
    assert_eq!(for_domains(&["other.test"]), [""; 0]);
    assert_eq!(for_domains(&[]), [""; 0]);
}

#[test]
fn without_a_key_nothing_is_demanded_of_a_message() {
    let empty = Signer::new(KeyRing::new(), SignerOptions::default());
    assert_eq!(empty.sign(b"no header\nat all", at(1)), Ok(vec![]));
    let signer = crate::signer(SignerOptions::default());
    let mut signing = signer.begin_for([Domain::parse("other.test").unwrap()]);
    signing.update(b"no header\nat all");
    assert_eq!(signing.finish(at(1)), Ok(vec![]));
}

#[test]
fn a_message_tells_which_algorithms_will_sign_it() {
    let signer = Signer::new(
        ring([
            key("example.org", "ed", ED25519, None, None),
            key("example.org", "rsa", RSA, Some(100), None),
            key("example.net", "ed", ED25519, None, None),
        ]),
        SignerOptions::default(),
    );
    for (message, seconds, expected) in [
        ("From: a@example.org\r\n\r\n", 99, [false, true]),
        ("From: a@example.org\r\n\r\n", 100, [true, true]),
        ("From: a@example.net\r\n\r\n", 100, [false, true]),
        ("From: a@other.test\r\n\r\n", 100, [false, false]),
        ("Subject: no author\r\n\r\n", 100, [false, false]),
        // The header has not ended.
        ("From: a@other.test\r\n", 0, [true, true]),
    ] {
        let mut signing = signer.begin();
        signing.update(message.as_bytes());
        let used = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256].map(|one| signing.will_use(one, at(seconds)));
        assert_eq!(used, expected, "{message:?} {seconds}");
    }
    assert!(!Signer::new(KeyRing::new(), SignerOptions::default()).begin().will_use(Algorithm::RsaSha256, at(0)));
}
