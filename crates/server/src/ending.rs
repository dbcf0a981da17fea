//! How a connection ends, and at which level the log says so.

use std::io;

use posthaste_tokio::{
    session::{ServerSession, server::CloseReason},
    wire::Reply,
};
use tracing::{debug, field, info};

/// A session that has ended.
#[derive(Debug)]
pub(crate) struct Over {
    pub(crate) reason: CloseReason,
    /// What was refused last, if refusals are the reason.
    last_refusal: Option<Reply>,
}

impl Over {
    pub(crate) fn of(session: &ServerSession, reason: CloseReason) -> Self {
        let last_refusal = session.last_refusal().filter(|_| reason == CloseReason::TooManyErrors);
        Self { last_refusal: last_refusal.cloned(), reason }
    }
}

/// A session that never began.
impl From<CloseReason> for Over {
    fn from(reason: CloseReason) -> Self {
        Self { reason, last_refusal: None }
    }
}

/// A connection that failed.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: io::Error,
    /// A transaction or a TLS handshake was under way. Without one nothing is lost: load balancers
    /// connect and reset every few seconds.
    pub(crate) was_at_work: bool,
}

/// A line for the end of a connection, at info if an operator may be asked about it.
pub(crate) fn tell(ending: &Result<Over, Lost>) {
    match ending {
        Ok(Over { reason, last_refusal }) if reason.is_clients_fault() => {
            info!(?reason, last_refusal = last_refusal.as_ref().map(field::display), "session ended");
        }
        Ok(Over { reason, .. }) => debug!(?reason, "session ended"),
        Err(Lost { error, was_at_work: true }) => info!(%error, "connection lost"),
        Err(Lost { error, was_at_work: false }) => debug!(%error, "connection lost"),
    }
}

/// Says of an error that it comes from a TLS handshake.
pub(crate) fn handshake_failed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the TLS handshake failed: {error}"))
}
