//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).

mod client;
mod key;
mod message;
mod server;

pub(super) use client::{Binding, ScramClient};
pub use key::{KeyError, SALT_LENGTH, ScramKey, UnknownUsers};
pub use message::{Nonce, NonceError};
pub(super) use server::ScramServer;

/// The fewest iterations of PBKDF2 that either side goes along with (RFC 7677 section 4).
pub const MIN_ITERATIONS: u32 = 4_096;
/// The most iterations of PBKDF2 that either side goes along with: above it a server could keep its client busy. At
/// SHA-256's usual speeds these take a client from a quarter of a second to one second, in one go; OWASP asks for 600,000 of
/// stored passwords.
pub const MAX_ITERATIONS: u32 = 1_000_000;
