//! The field that a signature is, and the messages that get none.

use std::time::Duration;

use posthaste_auth::{
    dkim::{MAX_SIGNED, SignError, SignedFields, Signer, SignerOptions, SigningKey},
    wire::Domain,
};

use crate::{ED25519, at, ring, signer};

fn sign(options: SignerOptions, message: &str) -> Result<Vec<String>, SignError> {
    let signed = signer(options).sign(message.as_bytes(), at(1_700_000_000))?;
    Ok(signed.iter().map(ToString::to_string).collect())
}

/// The value of a tag, without blanks.
fn tag(field: &str, name: &str) -> Option<String> {
    let value: String = field.split_once(':')?.1.split_whitespace().collect();
    value.split(';').find_map(|tag| tag.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[test]
fn a_signature_is_a_folded_field() {
    let mut options = SignerOptions::default();
    options.fields = SignedFields::from_alone().always("Subject").unwrap();
    let signed = sign(options, "From: me@example.org\r\nSubject: Hi\r\n\r\nHello!\r\n").unwrap();
    assert_eq!(
        signed[1],
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=ed;\r\n\
         \tt=1700000000; h=From:From:Subject:Subject;\r\n\
         \tbh=EVfAHeUMDygbJe0SkMWJHjgXGjtiTLZnMQbyWqzsrCY=; b=9+WdbQOMFlROX9Cx8WAVb5Inv5\r\n\
         \t/asw3DWS0+rS0zC0jcZ79G/hJLvOJfRwyi/aSFlgBwUc+4AfBkK313fRdGCA==\r\n"
    );
    assert_eq!(tag(&signed[0], "a").as_deref(), Some("rsa-sha256"));
    assert_eq!(tag(&signed[0], "s").as_deref(), Some("rsa"));
    for field in &signed {
        assert!(field.ends_with("\r\n"));
        let lines: Vec<&str> = field.split("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= 78 && line.is_ascii()), "{field}");
        assert!(lines[1..lines.len() - 1].iter().all(|line| line.starts_with('\t')), "{field}");
        assert!(!field.contains("l="), "{field}");
    }
}

#[test]
fn every_field_that_is_signed_is_named_once_more_than_it_is_there() {
    let message = "To: a@b\r\nfrom: me@example.org\r\nX-Other: x\r\nTO: c@d\r\nList-Id: <x>\r\nReceived: x\r\n\r\n";
    let signed = sign(SignerOptions::default(), message).unwrap();
    assert_eq!(
        tag(&signed[0], "h").unwrap(),
        "From:From:To:To:To:Cc:Subject:Reply-To:In-Reply-To:References:MIME-Version:Content-Type:\
         Content-Transfer-Encoding:List-Id:List-Id"
    );
}

#[test]
fn expiry_and_identity_are_said_if_they_are_set() {
    let mut key = SigningKey::new("example.org", "s", ED25519).unwrap();
    key.identity = Some("\"a;b\"@news.example.org".into());
    let mut options = SignerOptions::default();
    options.expires_after = Some(Duration::from_millis(86_400_500));
    let signer = Signer::new(ring([key]), options);
    let signed = signer.sign(b"From: me@example.org\r\n\r\n", at(1_000)).unwrap();
    let field = signed[0].as_str();
    let found = ["t", "x", "i"].map(|name| tag(field, name).unwrap());
    assert_eq!(found, ["1000", "87400", "\"a=3Bb\"@news.example.org"]);
    let signed = sign(SignerOptions::default(), "From: me@example.org\r\n\r\n").unwrap();
    assert_eq!((tag(&signed[0], "x"), tag(&signed[0], "i")), (None, None));
}

#[test]
fn a_signature_that_expires_at_once_is_valid_for_a_second() {
    let mut options = SignerOptions::default();
    options.expires_after = Some(Duration::ZERO);
    let signed = sign(options, "From: me@example.org\r\n\r\n").unwrap();
    assert_eq!(tag(&signed[0], "x").as_deref(), Some("1700000001"));
}

#[test]
fn a_message_that_can_be_understood_in_two_ways_gets_no_signature() {
    for (message, expected) in [
        ("", SignError::FromFields { count: 0 }),
        ("\r\nbody", SignError::FromFields { count: 0 }),
        ("Subject: x\r\n\r\nFrom: me@example.org\r\n", SignError::FromFields { count: 0 }),
        ("From: me@example.org\r\nFrom: me@example.org\r\n\r\n", SignError::FromFields { count: 2 }),
        ("From: me@example.org\r\nFrom : ceo@bank.test\r\n\r\n", SignError::BlankBeforeColon { line: 2 }),
        ("From: me@example.org\r\n \r\nno field\r\n\r\n", SignError::NotAField { line: 3 }),
        ("From: me@example.org\r\nBcc\u{0}: x\r\n\r\n", SignError::Nul { line: 2 }),
        ("From: me@example.org\nSubject: x\r\n\r\n", SignError::BareLineEnd { line: Some(1) }),
        ("From: me@example.org\r\nSubject: x\rFrom: ceo@bank.test\r\n\r\n", SignError::BareLineEnd { line: Some(2) }),
        ("From: me@example.org\r\n\r\na\nb\r\n", SignError::BareLineEnd { line: None }),
        ("From: me@example.org\r\n\r\na\r", SignError::BareLineEnd { line: None }),
        ("From: me@example.org\r", SignError::BareLineEnd { line: Some(1) }),
        ("From: me@example.org <x@y> z\r\n\r\n", SignError::From),
    ] {
        for length in 1..=message.len().max(1) {
            let mut signing = signer(SignerOptions::default()).begin();
            message.as_bytes().chunks(length).for_each(|piece| signing.update(piece));
            assert_eq!(signing.finish(at(1)), Err(expected.clone()), "{message:?} {length}");
        }
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn a_long_header_is_refused_before_it_is_held() {
    let mut options = SignerOptions::default();
    options.max_header = 100;
    let header = format!("From: me@example.org\r\nX: {}\r\n\r\n", "x".repeat(71));
    for (header, fits) in [(header.clone(), true), (header.replace("X:", "XX:"), false)] {
        for length in [1, 7, header.len()] {
            let mut signing = signer(options.clone()).begin();
            header.as_bytes().chunks(length).for_each(|piece| signing.update(piece));
            signing.update(&[b'x'; 1_000]);
            let found = signing.finish(at(1));
            assert_eq!(found.is_ok(), fits, "{found:?}");
            assert!(fits || found == Err(SignError::HeaderTooLong { limit: 100 }), "{found:?}");
        }
    }
    // The end of the header never comes.
    let mut signing = signer(options).begin();
    for _ in 0..1_000 {
        signing.update(b"X: no end\r\n");
    }
    assert_eq!(signing.finish(at(1)), Err(SignError::HeaderTooLong { limit: 100 }));
}

#[test]
fn a_message_with_too_many_fields_to_sign_is_refused() {
    let with = |count: usize| format!("From: me@example.org\r\n{}\r\n", "To: x@y\r\n".repeat(count));
    assert!(sign(SignerOptions::default(), &with(MAX_SIGNED - 1)).is_ok());
    assert_eq!(sign(SignerOptions::default(), &with(MAX_SIGNED)), Err(SignError::TooManyFields { limit: MAX_SIGNED }));
}

#[test]
fn from_is_signed_alone_even_if_the_caller_names_the_domains() {
    let mut signing = signer(SignerOptions::default()).begin_for([Domain::parse("example.org").unwrap()]);
    signing.update(b"Subject: x\r\n\r\n");
    assert_eq!(signing.finish(at(1)), Err(SignError::FromFields { count: 0 }));
}

#[test]
fn a_message_without_an_empty_line_has_an_empty_body() {
    let of = |message: &str| sign(SignerOptions::default(), message).unwrap();
    let expected = of("From: me@example.org\r\nSubject: x\r\n\r\n");
    assert_eq!(of("From: me@example.org\r\nSubject: x\r\n"), expected);
    assert_eq!(of("From: me@example.org\r\nSubject: x"), expected);
}
