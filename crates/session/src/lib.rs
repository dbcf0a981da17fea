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
pub use server::{Ask, Protocol, ServerNext, ServerSession, ServerSettings, Transport, Verdict};
pub use tick::Tick;

pub use posthaste_wire as wire;

/// The result of one call: how much of the input is consumed, and what comes next.
///
/// The session has moved on when the call returns. Remove the consumed octets from the input before
/// anything else. Show the rest again, at the front, with what was read since then.
#[must_use = "ignoring the next step deadlocks the conversation"]
#[derive(Debug)]
pub struct Step<N> {
    /// Octets to remove from the front of the input.
    pub consumed: usize,
    /// What to do.
    pub next: N,
}

/// The most octets that a session appends to an output buffer before it asks for a flush: 16 KiB,
/// plus one reply.
pub const MAX_OUTPUT: usize = 16 * 1_024;
