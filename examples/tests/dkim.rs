//! DKIM signatures of posthaste-auth verify with dkimpy and with OpenDKIM, at every corner of
//! canonicalization, and of a message that was changed they do not.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use posthaste::auth::dkim::{Canonicalization, KeyRing, Signature, Signer, SignerOptions, SigningKey};
use posthaste_testkit::rows::{Row, rows};
use serde_json::Value;
use support::next_hops::installed;
use support::{json, python, run};

const ROWS: &str = include_str!("../../crates/auth/tests/canonicalization.txt");
const KEYS: [(&str, &[u8]); 2] = [
    ("rsa", include_bytes!("../../crates/auth/tests/keys/rsa-2048.pem")),
    ("ed25519", include_bytes!("../../crates/auth/tests/keys/ed25519.pem")),
];
const FORMS: [Canonicalization; 2] = [Canonicalization::Simple, Canonicalization::Relaxed];

#[test]
fn two_other_implementations_verify_every_row() {
    let rows = rows(ROWS);
    assert!(rows.len() >= 40, "{}", rows.len());
    let folder = folder();
    for (number, row) in rows.iter().enumerate() {
        for header in FORMS {
            for body in FORMS {
                let signatures = sign(&row.input, header, body);
                assert_eq!(signatures.len(), KEYS.len());
                write(folder.path(), &name(number, header, body), &signatures, &row.input);
            }
        }
    }
    let found = verify(folder.path());
    assert_eq!(found.len(), rows.len() * FORMS.len() * FORMS.len());
    let failed: Vec<String> = found.iter().filter_map(|(name, results)| failure(name, results, &rows)).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), found.len(), failed.join("\n"));
}

#[test]
fn a_parents_signature_with_expiry_and_identity_verifies_until_it_expires() {
    const MESSAGE: &[u8] = b"From: a@news.dkim.test\r\nSubject: x\r\n\r\nHello.\r\n";
    let mut ring = KeyRing::new();
    for (selector, text) in KEYS {
        let mut key = SigningKey::new("dkim.test", selector, text).expect("a key");
        key.covers_subdomains = true;
        key.identity = Some("\"a;b=c\"@news.dkim.test".into());
        ring.add(key).expect("the first of its name");
    }
    let mut options = SignerOptions::default();
    options.expires_after = Some(Duration::from_secs(3_600));
    let signer = Signer::new(ring, options);
    let folder = folder();
    let now = SystemTime::now();
    // dkimpy allows for ten hours of a wrong clock.
    for (name, time) in [("valid", now), ("expired", now - Duration::from_secs(2 * 86_400))] {
        write(folder.path(), &format!("{name}.eml"), &signer.sign(MESSAGE, time).expect("it can be signed"), MESSAGE);
    }
    let found = verify(folder.path());
    for by in ["dkimpy", "opendkim"] {
        let passed = |name: &str| found[name][by].as_array().map(|all| all.iter().filter(|one| *one == "pass").count());
        assert_eq!((passed("valid.eml"), passed("expired.eml")), (Some(2), Some(0)), "{by}: {found:?}");
    }
}

#[test]
fn no_other_implementation_verifies_a_message_that_was_changed() {
    const MESSAGE: &str = "From: a@dkim.test\r\nTo: b@dest.test\r\nSubject: x\r\n\r\nHello,\r\nyou.\r\n";
    let folder = folder();
    let mut count = 0;
    for header in FORMS {
        for body in FORMS {
            let signatures = sign(MESSAGE.as_bytes(), header, body);
            for (what, changed) in [
                ("a word", MESSAGE.replace("you", "You")),
                ("a line", format!("{MESSAGE}More.\r\n")),
                ("a field", MESSAGE.replace("Subject: x", "Subject: y")),
                ("a second From", MESSAGE.replace("From:", "From: c@other.test\r\nFrom:")),
                ("a second Subject", MESSAGE.replace("Subject:", "Subject: y\r\nSubject:")),
                ("a Subject in front", format!("Subject: y\r\n{MESSAGE}")),
                ("a Content-Type", MESSAGE.replace("Subject:", "Content-Type: text/html\r\nSubject:")),
                ("a Cc", MESSAGE.replace("Subject:", "Cc: c@dest.test\r\nSubject:")),
            ] {
                count += 1;
                write(folder.path(), &format!("{what}, {}", name(0, header, body)), &signatures, changed.as_bytes());
            }
        }
    }
    let found = verify(folder.path());
    assert_eq!(found.len(), count);
    for (name, results) in found {
        for by in ["dkimpy", "opendkim"] {
            let results = results[by].as_array().expect("a list");
            assert!(!results.iter().any(|result| result == "pass"), "{name}: {by} {results:?}");
        }
    }
}

fn name(number: usize, header: Canonicalization, body: Canonicalization) -> String {
    format!("{number:03} {}-{}.eml", header.as_str(), body.as_str())
}

fn sign(message: &[u8], header: Canonicalization, body: Canonicalization) -> Vec<Signature> {
    let mut options = SignerOptions::default();
    (options.header, options.body) = (header, body);
    Signer::new(keys(), options).sign(message, SystemTime::now()).expect("it can be signed")
}

fn keys() -> KeyRing {
    let mut ring = KeyRing::new();
    for (selector, text) in KEYS {
        ring.add(SigningKey::new("dkim.test", selector, text).expect("a key")).expect("the first of its name");
    }
    ring
}

/// A folder with the records of the keys.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ring = keys();
    let domain = posthaste::wire::Domain::parse("dkim.test").expect("a name");
    let records = ring.find(&domain, SystemTime::now());
    let lines = records.iter().map(|key| format!("{} {}\n", key.record_name(), key.record_text()));
    fs::write(folder.path().join("records"), lines.collect::<String>()).expect("the folder is ours");
    folder
}

/// Writes the message as it arrives: SMTP ends its last line.
fn write(folder: &Path, name: &str, signatures: &[Signature], message: &[u8]) {
    let mut whole: Vec<u8> = signatures.iter().flat_map(|signature| signature.as_str().bytes()).collect();
    whole.extend_from_slice(message);
    if !whole.ends_with(b"\r\n") {
        whole.extend_from_slice(b"\r\n");
    }
    fs::write(folder.join(name), whole).expect("the folder is ours");
}

fn verify(folder: &Path) -> BTreeMap<String, Value> {
    installed("python/dkim");
    let found = run(python("peers/verify_dkim.py").env("PYTHONPATH", installed("python")).arg(folder));
    json(&found).as_object().expect("an object").clone().into_iter().collect()
}

/// What is wrong, with its row.
fn failure(name: &str, results: &Value, rows: &[Row]) -> Option<String> {
    let passed = |by: &str| results[by].as_array().filter(|all| all.iter().filter(|one| *one == "pass").count() >= 2);
    if passed("dkimpy").is_some() && passed("opendkim").is_some() {
        return None;
    }
    let row: usize = name.split(' ').next()?.parse().ok()?;
    Some(format!("{name}: {results}\n    {:.200}", rows[row].text))
}
