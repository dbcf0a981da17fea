//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod batch;
#[cfg(feature = "blocking")]
mod blocking;
mod chunking_fails;
mod content;
#[cfg(feature = "hickory")]
mod dns;
mod exchange;
mod front_door;
mod login;
mod odd_replies;
mod pool;
mod race;
mod support;
mod tls_policy;
mod transactions;
