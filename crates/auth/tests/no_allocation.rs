//! The body of a message passes without an allocation, whatever its length.

#![cfg(all(feature = "dkim", any(feature = "aws-lc-rs", feature = "ring")))]

use std::time::SystemTime;

use allocation_counter::measure;
use posthaste_auth::dkim::{Canonicalization, KeyRing, Signer, SignerOptions, SigningKey};

#[test]
fn a_body_passes_without_an_allocation() {
    for form in [Canonicalization::Simple, Canonicalization::Relaxed] {
        let mut keys = KeyRing::new();
        let key = SigningKey::new("example.org", "s", include_bytes!("keys/ed25519.pem"));
        keys.add(key.expect("a key")).expect("the only one");
        let mut options = SignerOptions::default();
        options.body = form;
        let mut signing = Signer::new(keys, options).begin();
        signing.update(b"From: me@example.org\r\n\r\nx\r\n");
        let (lines, ends, blanks) = (b"some  words \r\n".repeat(10_000), b"\r\n".repeat(70_000), b" ".repeat(100_000));
        let found = measure(|| {
            for piece in [&lines, &ends, &blanks, &lines].into_iter().cycle().take(40) {
                signing.update(piece);
            }
        });
        assert_eq!(found.count_total, 0, "{form:?}");
        assert_eq!(signing.finish(SystemTime::UNIX_EPOCH).map(|signed| signed.len()), Ok(1));
    }
}
