#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

pub mod client;
mod error;
pub mod sasl;
pub mod server;
pub mod table;
mod tick;

#[doc = include_str!("../STATES.md")]
pub mod states {}

pub use client::{ClientNext, ClientSession, ClientSettings, Ticket};
pub use error::{ApiMisuse, PeerMisbehaved};
pub use server::Protocol;
pub use server::{Ask, QuestionId, ServerNext, ServerSession, ServerSettings, Verdict};
pub use tick::Tick;

pub use posthaste_wire as wire;

/// What one call did: how much of the input is done with, and what comes next.
///
/// The session has moved on when this comes back. Take the consumed octets off the input before anything else; the
/// rest is shown again, at the front, with whatever was read in between.
#[must_use = "ignoring the next step deadlocks the conversation"]
#[derive(Debug)]
pub struct Step<N> {
    /// Octets from the front of the input that must not be shown again.
    pub consumed: usize,
    /// What to do.
    pub next: N,
}

/// The most octets that a session puts into an output buffer before it asks for a flush: 16 KiB, plus one reply.
pub const MAX_OUTPUT: usize = 16 * 1_024;
