//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).

mod client;
mod key;
mod message;
mod server;

pub(super) use client::{Binding, ScramClient};
pub use key::{KeyError, SALT_LENGTH, ScramKey, UnknownUsers};
pub use message::{Nonce, NonceError};
pub(super) use server::ScramServer;

/// The fewest iterations of PBKDF2 that either side accepts (RFC 7677 section 4).
pub const MIN_ITERATIONS: u32 = 4_096;
/// The most iterations of PBKDF2 that either side accepts. Without it a server could keep its
/// client busy. They take a client 0.25 to 1 second at the usual speeds of SHA-256. OWASP asks for
/// 600,000 for stored passwords.
pub const MAX_ITERATIONS: u32 = 1_000_000;
