//! The bodies of the fuzz targets. Each panics if an invariant does not hold. The targets and the
//! replay of their corpora call the same functions. Bodies without a session are in
//! [`wire`](crate::wire).

mod client_session;
#[cfg(feature = "auth")]
mod dkim;
mod incidents;
mod pair;
mod queue;
mod sasl;
mod server_session;

pub use client_session::client_session;
#[cfg(feature = "auth")]
pub use dkim::dkim;
pub use pair::pair;
pub use queue::queue;
pub use sasl::sasl;
pub use server_session::server_session;

pub use crate::wire::{
    framing::framer,
    lines::{address, command, round_trip},
    replies::reply,
    tolerance::tolerance,
};
