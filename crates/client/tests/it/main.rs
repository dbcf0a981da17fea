//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

#[cfg(feature = "hickory")]
mod authentic_data;
#[cfg(all(feature = "dane", feature = "mta-sts"))]
mod bad_certificates;
mod batch;
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
mod dialers;
#[cfg(feature = "hickory")]
mod dns;
#[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
mod dnssec;
#[cfg(all(feature = "dane", feature = "mta-sts"))]
mod downgrade;
mod exchange;
mod front_door;
mod hostile_servers;
mod http_connect;
#[cfg(unix)]
mod injection;
mod login;
#[cfg(feature = "mta-sts")]
mod mta_sts;
mod odd_replies;
#[cfg(all(feature = "dane", feature = "mta-sts"))]
mod pinned_certificates;
mod pool;
mod race;
#[cfg(feature = "socks5")]
mod socks5;
mod support;
mod tcp;
mod tls_policy;
#[cfg(feature = "tls-rpt")]
mod tls_rpt;
mod trace;
mod transactions;
#[cfg(unix)]
mod unix;
