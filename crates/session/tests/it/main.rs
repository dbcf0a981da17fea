//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod back_to_back;
mod client_chunks;
mod client_codes;
mod client_downgrade;
mod client_lmtp;
mod client_misuse;
mod client_replies;
mod client_transactions;
mod cost;
mod early_chunks;
mod endings;
mod every_sequence;
mod forwarded;
mod hostile_clients;
mod hostile_servers;
mod invariants;
mod octets_after_starttls;
mod pipelining;
mod sasl;
mod server_bounds;
mod support;
mod timers;
mod tolerance;
mod transcripts;
mod withheld_mechanisms;
