//! A server's driver on any stream.

use std::sync::Arc;

use posthaste_tokio::{
    Connection, ServerDriver,
    session::{ServerSession, ServerSettings, Transport},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) fn settings() -> ServerSettings {
    ServerSettings::new("mx.test".parse().expect("a domain"))
}

pub(crate) fn driver<S: AsyncRead + AsyncWrite + Unpin>(stream: S, settings: ServerSettings) -> ServerDriver<S> {
    ServerDriver::new(Connection::new(stream), ServerSession::new(Arc::new(settings), Transport::StartTls))
}
