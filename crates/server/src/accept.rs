//! Where connections come from.

use std::{future::Future, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

use crate::{Peer, PeerAddress};

/// A source of connections: a TCP or Unix listener, or an application's own.
///
/// ```
/// use std::io;
/// use posthaste_server::{Accept, Peer, PeerAddress};
/// use tokio::{io::DuplexStream, sync::mpsc};
///
/// /// Streams that another part of the application hands over.
/// struct HandedOver(mpsc::Receiver<DuplexStream>);
///
/// impl Accept for HandedOver {
///     type Stream = DuplexStream;
///
///     async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
///         match self.0.recv().await {
///             Some(stream) => Ok((stream, Peer::new(PeerAddress::Local, PeerAddress::Local))),
///             None => std::future::pending().await, // No more clients will come.
///         }
///     }
///
///     fn local_address(&self) -> io::Result<PeerAddress> {
///         Ok(PeerAddress::Local)
///     }
///
///     fn takes_descriptors(&self) -> bool {
///         false
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of connections",
    label = "this accepts no connections",
    note = "use a `TcpListener` or `UnixListener` of tokio, or implement `Accept`"
)]
pub trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next client. The server may drop the future; dropping it must lose no
    /// connection. The server accepts one client at a time, so do not read from a client here: the
    /// others would wait.
    ///
    /// The headers of proxies are the server's, not a source's: see
    /// [`Listener::with_proxies`](crate::Listener::with_proxies).
    ///
    /// # Errors
    /// [`io::Error`]. The server logs it, waits 100 ms and goes on.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;

    /// The address that clients connect to, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    fn local_address(&self) -> io::Result<PeerAddress>;

    /// Returns `true` if each connection takes a descriptor of an open file. Default `true`. For a
    /// source whose connections are in memory `false` is right: the server then serves as many as
    /// its options say, however few files the process may open.
    fn takes_descriptors(&self) -> bool {
        true
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // Replies are small and the client waits for them; Nagle's algorithm would delay each.
        let _ = stream.set_nodelay(true);
        let local = match stream.local_addr() {
            Ok(local) => local,
            Err(_) => self.local_addr()?,
        };
        Ok((stream, Peer::new(address, local)))
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        self.local_addr().map(PeerAddress::Ip)
    }
}

#[cfg(unix)]
impl Accept for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<(tokio::net::UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, Peer::new(PeerAddress::Local, PeerAddress::Local)))
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }
}
