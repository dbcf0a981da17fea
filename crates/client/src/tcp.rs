//! TCP, from a source that the options name.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use crate::{Dial, Server};

/// TCP, as the system routes it unless something is set. Start from [`default`](Self::default) and
/// assign what differs.
///
/// With a source address, at most as many connections are open at once as the system has ephemeral
/// ports, some 28,000 on Linux.
///
/// ```no_run
/// use posthaste_client::{Client, ClientOptions, Tcp};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ClientOptions::new("client.example.org".parse()?);
/// let mut tcp = Tcp::default();
/// tcp.source_v4 = Some([192, 0, 2, 7].into());
/// let client = Client::connect_by(&tcp, "mx.example.net:25", &options).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tcp {
    /// The address from which connections to IPv4 addresses come. Default: the system's choice. An
    /// address that this machine does not have is an error with each connection.
    pub source_v4: Option<Ipv4Addr>,
    /// The same for connections to IPv6 addresses.
    pub source_v6: Option<Ipv6Addr>,
    /// The name of the network interface through which connections go, such as `eth1`, whatever the
    /// routes say (`SO_BINDTODEVICE`). Linux alone has it. Default: the system's choice. An
    /// interface that does not exist is an error with each connection.
    #[cfg(target_os = "linux")]
    pub interface: Option<Arc<str>>,
}

impl Tcp {
    fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        match to {
            SocketAddr::V4(_) => self.source_v4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.source_v6.map(IpAddr::V6),
        }
    }

    /// Binds the socket to the interface, if the options name one.
    #[cfg(target_os = "linux")]
    fn on_interface(&self, socket: &TcpSocket) -> io::Result<()> {
        let Some(name) = &self.interface else { return Ok(()) };
        // The system reads a name up to a NUL, and takes an empty one for none.
        let is_name = !name.is_empty() && !name.contains('\0');
        let bound =
            if is_name { socket.bind_device(Some(name.as_bytes())) } else { Err(io::ErrorKind::NotFound.into()) };
        bound.map_err(|error| io::Error::other(BadSource::Interface(Arc::clone(name), error)))
    }

    #[cfg(not(target_os = "linux"))]
    fn on_interface(&self, _: &TcpSocket) -> io::Result<()> {
        Ok(())
    }

    #[cfg(target_os = "linux")]
    const fn has_interface(&self) -> bool {
        self.interface.is_some()
    }

    #[cfg(not(target_os = "linux"))]
    const fn has_interface(&self) -> bool {
        false
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let source = self.source(to);
        if source.is_none() && !self.has_interface() {
            return TcpStream::connect(to).await;
        }
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.on_interface(&socket)?;
        let Some(source) = source else { return socket.connect(to).await };
        let bad = |error| io::Error::other(BadSource::Address(source, error));
        socket.bind(SocketAddr::new(source, 0)).map_err(bad)?;
        socket.connect(to).await.map_err(|error| match error.kind() {
            // From a loopback address, say, to one beyond it.
            io::ErrorKind::InvalidInput | io::ErrorKind::AddrNotAvailable => bad(error),
            _ => error,
        })
    }
}

impl Dial for Tcp {
    type Stream = TcpStream;

    async fn dial(&self, server: &Server) -> io::Result<TcpStream> {
        let Server::Address(address) = server else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NoAddress));
        };
        let stream = self.connect(*address).await?;
        // Commands are small and the client waits for each reply: Nagle's algorithm would delay
        // them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// The options name a source that cannot be used. The server is not at fault.
#[derive(Debug, Error)]
enum BadSource {
    #[error(
        "the source address {0} cannot be used: {1}; name one that this machine has and from which the server is reached"
    )]
    Address(IpAddr, io::Error),
    #[cfg(target_os = "linux")]
    #[error("the interface {0:?} cannot be used: {1}; name one that `ip link` lists")]
    Interface(Arc<str>, io::Error),
}

/// A server that has no address was given to [`Tcp`].
#[derive(Debug, Error)]
#[error("TCP needs an address; a Unix socket needs the dialer `Unix`, and a name one that resolves names")]
struct NoAddress;
