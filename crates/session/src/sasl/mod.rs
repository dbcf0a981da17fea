//! SASL exchanges (RFC 4954) as values without I/O: each takes what the other side said and gives what to say next.
//!
//! Credentials are data here; whether they are right is the application's to say.

mod client;
mod server;

pub use client::ClientMechanism;
pub use server::{Credentials, SaslError, ServerMechanism, ServerStep};
