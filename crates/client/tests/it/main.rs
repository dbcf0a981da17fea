//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

#[cfg(feature = "hickory")]
mod authentic_data;
#[cfg(feature = "blocking")]
mod blocking;
mod chunking_fails;
mod content;
#[cfg(feature = "dane")]
mod dane_certificates;
#[cfg(all(feature = "dane", feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
mod dane_delivery;
#[cfg(feature = "dane")]
mod dane_policy;
#[cfg(feature = "hickory")]
mod dns;
#[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
mod dnssec;
mod front_door;
mod login;
mod odd_replies;
mod pool;
mod race;
mod support;
mod tls_policy;
mod transactions;
