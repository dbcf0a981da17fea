//! DKIM signatures of posthaste-auth verify with dkimpy and with OpenDKIM, at every corner of
//! canonicalization, and of a message that was changed they do not. So do those of the relay
//! program.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use posthaste::auth::dkim::{Canonicalization, KeyRing, Signature, Signer, SignerOptions, SigningKey};
use posthaste_testkit::rows::{Row, rows};
use serde_json::Value;
use support::client::Smtp;
use support::next_hops::installed;
use support::relay::{Config, Relay};
use support::sink::Sink;
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

/// What the relay program signs on its way verifies, whatever its form. The size of a message costs
/// no memory.
#[test]
fn mail_through_the_relay_verifies_with_two_other_implementations() {
    const BLOCK: usize = 1 << 20;
    let mut sink = Sink::start();
    sink.rule("ehlo", &serde_json::json!(["ext", ["PIPELINING", "8BITMIME", "SIZE 300000000"]]), None, None);
    let relay = Config { next_hops: vec![sink.port], message_size: 200 << 20, ..Config::default() };
    let mut relay = Relay::prepare(&relay);
    let mut text = fs::read_to_string(relay.config()).expect("it was written");
    for (selector, key) in KEYS {
        let file = relay.folder().join(selector);
        fs::write(&file, key).expect("the folder is ours");
        text.push_str(&format!("[[dkim]]\ndomain = \"dkim.test\"\nselector = \"{selector}\"\nkey = {file:?}\n"));
    }
    text.push_str("[submission]\nsign = \"trusted\"\nadd_fields = \"trusted\"\n");
    fs::write(relay.config(), text).expect("the folder is ours");
    relay.start_again();
    let large = format!("{}\r\n", "x".repeat(510)).repeat(BLOCK / 512);
    let bodies: [(&str, Vec<&str>); 6] = [
        ("Subject: x\r\n\r\n", vec!["Hello.\r\n"]),
        ("Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\n\r\n", vec!["..  \r\n", "\r\n\r\n"]),
        ("Subject: a\r\n\tb\r\nReceived: from x by y; z\r\n", vec![]),
        ("\r\n", vec![]),
        ("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", vec!["\u{fc} \t \u{fc}\r\n"]),
        ("Subject: large\r\n\r\n", vec![&large; 40]),
    ];
    let folder = folder();
    // Signed before a crash, and sent after it.
    let token = support::token();
    sink.down();
    let mut client = Smtp::ehlo(relay.port);
    client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@dest.test"));
    client.send(format!("From: a@dkim.test\r\nTo: {token}@dest.test\r\n\r\nHello.\r\n.\r\n"));
    assert_eq!(client.reply().code, 250, "{}", client.log());
    relay.kill();
    sink.up();
    relay.start_again();
    fs::write(folder.path().join("crash.eml"), sink.one(&token).data).expect("the folder is ours");
    let mut peaks = Vec::new();
    for (number, (head, body)) in bodies.iter().enumerate() {
        let token = support::token();
        let mut client = Smtp::ehlo(relay.port);
        client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@dest.test"));
        client.send(format!("From: \"A, b\" <a@DKIM.test>\r\nTo: {token}@dest.test\r\n{head}"));
        for piece in body {
            // Dots are stuffed.
            client.send(piece.strip_prefix('.').map_or((*piece).to_owned(), |rest| format!("..{rest}")));
        }
        client.send(".\r\n");
        assert_eq!(client.reply().code, 250, "{}", client.log());
        let taken = sink.one(&token);
        assert!(taken.data.starts_with(b"DKIM-Signature: "), "{number}");
        fs::write(folder.path().join(format!("{number}.eml")), taken.data).expect("the folder is ours");
        relay.wait_queued(0);
        peaks.push(relay.memory("VmHWM"));
    }
    let found = verify(folder.path());
    assert_eq!(found.len(), bodies.len() + 1);
    for (name, results) in found {
        for by in ["dkimpy", "opendkim"] {
            assert_eq!(results[by], serde_json::json!(["pass", "pass"]), "{name} {by}");
        }
    }
    let [.., small, large] = peaks[..] else { panic!("{peaks:?}") };
    println!("at most {} KiB with small messages, {} KiB with 40 MiB under way", small / 1024, large / 1024);
    assert!(large < small + (24 << 20), "{peaks:?}");
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
