//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod dropped_futures;
mod ends;
#[cfg(feature = "aws-lc-rs")]
mod resumption;
mod secrets;
mod support;
mod tls;
#[cfg(feature = "aws-lc-rs")]
mod tls_setup;
