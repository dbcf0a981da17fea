//! Unix sockets.

use std::io;

use thiserror::Error;
use tokio::net::UnixStream;

use crate::{Dial, Server};

/// Unix sockets: for a server on this machine, such as Dovecot's LMTP.
///
/// ```no_run
/// use posthaste_client::{Client, ClientOptions, Protocol, Unix};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut options = ClientOptions::new("client.example.org".parse()?);
/// options.protocol = Protocol::Lmtp;
/// let mut client = Client::connect_by(&Unix, "unix:/run/dovecot/lmtp", &options).await?;
/// let sent = client.send("me@example.org", ["you@example.net"], "Subject: hello\r\n\r\nHello!\r\n").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Unix;

impl Dial for Unix {
    type Stream = UnixStream;

    /// So that a host and port costs no look-up before it is refused.
    fn resolves_names(&self) -> bool {
        true
    }

    async fn dial(&self, server: &Server) -> io::Result<UnixStream> {
        match server {
            Server::Path(path) => UnixStream::connect(path).await,
            Server::Address(_) | Server::Name(..) => Err(io::Error::new(io::ErrorKind::InvalidInput, NoPath)),
        }
    }
}

/// A server that is no path was given to [`Unix`].
#[derive(Debug, Error)]
#[error("a Unix socket has a path and no port; write it as in unix:/run/dovecot/lmtp")]
struct NoPath;
