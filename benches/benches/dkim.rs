//! DKIM signatures of whole messages, beside the hash of the same octets. The key is one of a ring
//! of one.

mod settings;

use std::{hint::black_box, time::SystemTime};

use criterion::Throughput;
use posthaste_auth::dkim::{Canonicalization, KeyRing, Signer, SignerOptions, SigningKey};
use sha2::{Digest as _, Sha256};

const KEYS: [(&str, &[u8]); 2] = [
    ("Ed25519", include_bytes!("../../crates/auth/tests/keys/ed25519.pem")),
    ("RSA-2048", include_bytes!("../../crates/auth/tests/keys/rsa-2048.pem")),
];

fn main() {
    let mut criterion = settings::criterion();
    for kib in [1, 10, 1_024] {
        let message = message(kib * 1_024);
        let mut group = criterion.benchmark_group(format!("DKIM, {kib} KiB"));
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: message.len() as u64 });
        for (name, key) in KEYS {
            for body in [Canonicalization::Relaxed, Canonicalization::Simple] {
                let signer = signer(key, body);
                group.bench_function(format!("{name}, {}", body.as_str()), |bencher| {
                    bencher.iter(|| signer.sign(black_box(&message), SystemTime::UNIX_EPOCH).expect("a signature"));
                });
            }
        }
        group.bench_function("floor: SHA-256", |bencher| bencher.iter(|| Sha256::digest(black_box(&message))));
        group.finish();
    }
    criterion.final_summary();
}

fn signer(key: &[u8], body: Canonicalization) -> Signer {
    let mut keys = KeyRing::new();
    keys.add(SigningKey::new("example.org", "s", key).expect("a key")).expect("the only one");
    let mut options = SignerOptions::default();
    options.body = body;
    Signer::new(keys, options)
}

/// A message with a header as programs write it, and a text of this many octets.
fn message(octets: usize) -> Vec<u8> {
    let mut message = b"Received: from client.example.org by mx.example.org with ESMTPS;\r\n\
        \tMon, 1 Jan 2024 00:00:00 +0000\r\n\
        From: Me <me@example.org>\r\nTo: You <you@example.net>\r\nSubject: a message of some length\r\n\
        Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\r\n"
        .to_vec();
    let line = b"Some words of a text, which has blanks between them and ends after 70.\r\n";
    let length = message.len() + octets;
    while message.len() < length {
        message.extend_from_slice(line);
    }
    message
}
