//! How a connection ends, and at which level the log says so.

use std::io;

use posthaste_tokio::session::server::CloseReason;
use tracing::{debug, info};

/// A connection that failed.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: io::Error,
    /// A transaction or a TLS handshake was under way. Without one nothing is lost: load balancers
    /// connect and reset every few seconds.
    pub(crate) was_at_work: bool,
}

/// A line for the end of a connection, at info if an operator may be asked about it.
pub(crate) fn tell(ending: &Result<CloseReason, Lost>) {
    match ending {
        Ok(reason) if reason.is_clients_fault() => info!(?reason, "session ended"),
        Ok(reason) => debug!(?reason, "session ended"),
        Err(Lost { error, was_at_work: true }) => info!(%error, "connection lost"),
        Err(Lost { error, was_at_work: false }) => debug!(%error, "connection lost"),
    }
}

/// Says of an error that it comes from a TLS handshake.
pub(crate) fn handshake_failed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the TLS handshake failed: {error}"))
}
