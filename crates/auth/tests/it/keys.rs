//! Keys in every form, and what is wrong with others.

use posthaste_auth::dkim::{Algorithm, KeyError, KeyFault, KeyRing, MAX_KEY_FILE, SigningKey};

use crate::{ED25519, RSA, at};

const SEED: &str = "KteR+q2kmOJ4gM+/Fyf5hxHG6rNv66/nyy1HX84jUco=";
const PUBLIC: &str = "6249UqPUNev7OuhkLegkP04ZK9V04jdFFqoulfLqhIw=";
/// The seed and its public half.
const BOTH: &str = "KteR+q2kmOJ4gM+/Fyf5hxHG6rNv66/nyy1HX84jUcrrbj1So9Q16/s66GQt6CQ/Thkr1XTiN0UWqi6V8uqEjA==";

fn key(text: impl AsRef<[u8]>) -> Result<SigningKey, KeyFault> {
    SigningKey::new("example.org", "2026a", text).map_err(|error| error.fault)
}

#[test]
fn a_key_is_read_in_every_form() {
    let record = key(ED25519).unwrap().record_text();
    assert_eq!(record, format!("v=DKIM1; k=ed25519; p={PUBLIC}"));
    let with_text = [b"A comment.\n", ED25519, b"\nMore.\n"].concat();
    let folded = format!("\r\n {}\n{}\n", &SEED[..20], &SEED[20..]);
    for text in [SEED.as_bytes(), folded.as_bytes(), BOTH.as_bytes(), &with_text] {
        let key = key(text).unwrap();
        assert_eq!((key.algorithm(), key.record_text()), (Algorithm::Ed25519Sha256, record.clone()));
    }
    let pkcs8 = key(RSA).unwrap();
    let pkcs1 = key([b"Key:\n", &include_bytes!("../keys/rsa-2048-pkcs1.pem")[..]].concat()).unwrap();
    assert_eq!(pkcs8.algorithm(), Algorithm::RsaSha256);
    assert_eq!(pkcs8.record_text(), pkcs1.record_text());
    assert!(pkcs8.record_text().starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"));
    assert_eq!(pkcs8.record_name(), "2026a._domainkey.example.org");
}

#[test]
fn a_text_that_is_no_key_is_refused() {
    for text in [
        &b""[..],
        b"\n",
        b"secret",
        include_bytes!("../keys/public.pem"),
        &SEED.as_bytes()[..40],
        &SEED.as_bytes()[1..],
        &BOTH.as_bytes()[..80],
    ] {
        assert!(matches!(key(text), Err(KeyFault::NoKey)), "{:?}", key(text));
    }
    let swapped = BOTH.replace("jA==", "jQ==");
    assert!(matches!(key(swapped), Err(KeyFault::Ed25519)));
    assert!(matches!(key(include_bytes!("../keys/encrypted.pem")), Err(KeyFault::Encrypted)));
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
    assert!(matches!(key(old), Err(KeyFault::Encrypted)));
    assert!(matches!(key(include_bytes!("../keys/p256.pem")), Err(KeyFault::Kind)));
    let cut = String::from_utf8_lossy(RSA).replace("-----END PRIVATE KEY-----", "");
    assert!(matches!(key(cut), Err(KeyFault::NotPem(_))));
    let wrong = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert!(matches!(key(wrong), Err(KeyFault::Rsa(_))));
    assert!(matches!(key(vec![b'A'; MAX_KEY_FILE + 1]), Err(KeyFault::TooLong)));
}

#[test]
fn an_rsa_key_that_is_short_or_long_is_refused() {
    for text in [&include_bytes!("../keys/rsa-1024.pem")[..], include_bytes!("../keys/rsa-5120.pem")] {
        let error = key(text).unwrap_err();
        assert!(matches!(error, KeyFault::Rsa(_)), "{error}");
        assert!(error.to_string().contains("2,048 to 4,096 bits"), "{error}");
    }
}

#[test]
fn no_text_makes_a_key_panic() {
    for length in 0..ED25519.len() {
        assert!(key(&ED25519[..length]).is_err() || length >= ED25519.len() - 1);
    }
    for at in 0..ED25519.len() {
        let mut text = ED25519.to_vec();
        text[at] ^= 1;
        drop(key(text));
    }
    for length in (0..RSA.len()).step_by(7) {
        drop(key(&RSA[..length]));
    }
}

#[test]
fn a_domain_and_a_selector_are_names() {
    let of = |domain: &str, selector: &str| SigningKey::new(domain, selector, SEED).map_err(|error| error.fault);
    for domain in ["", ".", "a..b", "[192.0.2.1]", "a b", "a;b", "a\r\nb", &"a.".repeat(130)] {
        assert!(matches!(of(domain, "s"), Err(KeyFault::Domain)), "{domain:?}");
    }
    for selector in ["", "a;b", "a b", "a.", "[192.0.2.1]", "\u{e4}", &"a".repeat(64)] {
        assert!(matches!(of("example.org", selector), Err(KeyFault::Selector)), "{selector:?}");
    }
    let long = vec!["a".repeat(60); 4].join(".");
    assert!(matches!(of(&long, "s"), Err(KeyFault::RecordName { octets: 256 })));
    let key = of("B\u{fc}cher.Example", "a.b_c").unwrap();
    assert_eq!(key.record_name(), "a.b_c._domainkey.xn--bcher-kva.example");
}

#[test]
fn an_error_names_the_domain_the_selector_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p256.pem");
    std::fs::write(&file, include_bytes!("../keys/p256.pem")).unwrap();
    let error = SigningKey::file("example.org", "2026a", &file).unwrap_err().to_string();
    let start = format!("the DKIM key of \"example.org\" with selector \"2026a\" in {}: it is neither", file.display());
    assert!(error.starts_with(&start) && error.contains("openssl genpkey"), "{error}");
    let missing = SigningKey::file("example.org", "2026a", folder.path().join("none")).unwrap_err();
    assert!(matches!(missing.fault, KeyFault::File(_)), "{missing}");
    std::fs::write(&file, vec![b'A'; MAX_KEY_FILE + 1]).unwrap();
    assert!(matches!(SigningKey::file("example.org", "2026a", &file).unwrap_err().fault, KeyFault::TooLong));
    std::fs::write(&file, SEED).unwrap();
    let key = SigningKey::file("example.org", "2026a", &file).unwrap();
    assert!(!format!("{key:?}").contains(&SEED[..8]), "{key:?}");
    let twice = add([key, SigningKey::new("EXAMPLE.org", "2026A", SEED).unwrap()]).unwrap_err();
    assert!(matches!(twice.fault, KeyFault::Twice), "{twice}");
}

#[test]
fn what_was_assigned_to_a_key_is_checked() {
    let mut with_window = key(SEED).unwrap();
    (with_window.begins, with_window.ends) = (Some(at(5)), Some(at(5)));
    assert!(matches!(add([with_window]).unwrap_err().fault, KeyFault::Window));
    for (identity, is_right) in [
        ("@example.org", true),
        ("me@example.org", true),
        ("@News.Example.org", true),
        ("\"a b\"@a.b.example.org", true),
        ("example.org", false),
        ("@example.net", false),
        ("@notexample.org", false),
        ("me@org", false),
        ("@", false),
        ("", false),
        ("a b@example.org", false),
        ("@example.org; x=1", false),
        ("m\u{e9}@example.org", false),
    ] {
        let mut key = key(SEED).unwrap();
        key.identity = Some(identity.into());
        assert_eq!(add([key]).is_ok(), is_right, "{identity}");
    }
}

fn add(keys: impl IntoIterator<Item = SigningKey>) -> Result<(), KeyError> {
    let mut ring = KeyRing::new();
    keys.into_iter().try_for_each(|key| ring.add(key))
}
