//! How the stream to a server is made.

use std::{future::Future, io};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::Server;

/// Makes the streams to servers. An application may bring its own, for a tunnel or for a stream
/// that it wraps.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A stream to a server.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Returns `true` if it takes the names of hosts as they are, such as a proxy that looks them
    /// up itself. Default: `false`, and [`dial`](Self::dial) gets addresses.
    fn resolves_names(&self) -> bool {
        false
    }

    /// Makes a stream to the server. The caller sets the timeout, and drops the future when it is
    /// over.
    ///
    /// # Errors
    /// [`io::Error`]. The server counts as failed, unless the error is of
    /// [`ErrorKind::Other`](io::ErrorKind::Other) around one of the dialer's own.
    fn dial(&self, server: &Server) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// TCP, as the system routes it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Tcp;

impl Dial for Tcp {
    type Stream = TcpStream;

    async fn dial(&self, server: &Server) -> io::Result<TcpStream> {
        let Server::Address(address) = server else { return Err(io::Error::other(NoAddress)) };
        let stream = TcpStream::connect(*address).await?;
        // Commands are small and the client waits for each reply: Nagle's algorithm would delay
        // them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// A server that has no address was given to [`Tcp`].
#[derive(Debug, Error)]
#[error("TCP needs an address; a Unix socket needs the dialer `Unix`, and a name one that resolves names")]
struct NoAddress;
