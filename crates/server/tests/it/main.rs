//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

#[cfg(feature = "aws-lc-rs")]
mod certificates;
mod chunks_and_lmtp;
mod full_server;
mod handlers;
mod handshakes;
mod harness;
mod hazards;
mod idle;
mod layers;
mod limits_and_drain;
mod limits_table;
mod login;
mod password_keys;
mod provided_layers;
mod proxy;
mod serialized;
#[cfg(unix)]
mod sockets;
mod spool;
mod support;
mod tls_login;
mod tolerance;
mod verdicts;
mod what_the_log_says;
mod xclient;
