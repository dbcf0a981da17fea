//! The crate as its users see it.

#![cfg(all(feature = "dkim", any(feature = "aws-lc-rs", feature = "ring")))]

mod choice;
mod cuts;
mod keys;
mod signatures;

use std::time::{Duration, SystemTime};

use posthaste_auth::dkim::{KeyRing, Signer, SignerOptions, SigningKey};

pub(crate) const RSA: &[u8] = include_bytes!("../keys/rsa-2048.pem");
pub(crate) const ED25519: &[u8] = include_bytes!("../keys/ed25519.pem");

/// A time, in seconds.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn ring(keys: impl IntoIterator<Item = SigningKey>) -> KeyRing {
    let mut ring = KeyRing::new();
    keys.into_iter().for_each(|key| ring.add(key).expect("a key that fits"));
    ring
}

/// A signer of example.org with both algorithms.
pub(crate) fn signer(options: SignerOptions) -> Signer {
    let key = |selector, text| SigningKey::new("example.org", selector, text).expect("a key");
    Signer::new(ring([key("ed", ED25519), key("rsa", RSA)]), options)
}
