//! How the stream to a server is made.

use std::{future::Future, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Makes the streams to servers. An application may bring its own, for a tunnel or for a stream
/// that it wraps.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A stream to a server.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes a stream to the server at this address. The caller sets the timeout, and drops the
    /// future when it is over.
    fn dial(&self, server: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// TCP, as the system routes it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Tcp;

impl Dial for Tcp {
    type Stream = TcpStream;

    async fn dial(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(server).await?;
        // Commands are small and the client waits for each reply: Nagle's algorithm would delay
        // them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}
