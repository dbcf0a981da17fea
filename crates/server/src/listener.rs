//! A listening socket with the settings of its sessions.

use std::{io, net::SocketAddr, sync::Arc};

use posthaste_tokio::{
    rustls::ServerConfig,
    session::ServerSettings,
    tls::{Pem, TlsError, server_config},
};
use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

use crate::Accept;

/// The TLS of a listener. Several certificates, their exchange while the server runs and
/// certificates of clients come with [`Certificates`](crate::tls::Certificates).
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// None.
    #[default]
    Off,
    /// STARTTLS is offered (RFC 3207).
    StartTls(Arc<ServerConfig>),
    /// TLS from the first octet (RFC 8314).
    Implicit(Arc<ServerConfig>),
}

impl Tls {
    /// STARTTLS with this certificate, its chain and its key. Needs a crypto provider: feature
    /// `aws-lc-rs` or `ring`.
    ///
    /// ```
    /// use posthaste_server::tls::{Pem, TlsError};
    /// # fn tls() -> Result<posthaste_server::Tls, TlsError> {
    /// posthaste_server::Tls::start_tls(&Pem::file("cert.pem")?, &Pem::file("key.pem")?)
    /// # }
    /// # assert!(tls().unwrap_err().to_string().contains("cert.pem"));
    /// ```
    ///
    /// # Errors
    /// [`TlsError`], which names the file and the remedy.
    pub fn start_tls(certificate: &Pem, key: &Pem) -> Result<Self, TlsError> {
        server_config(certificate, key).map(Self::StartTls)
    }

    /// TLS from the first octet; in all else as [`start_tls`](Self::start_tls).
    ///
    /// # Errors
    /// [`TlsError`], which names the file and the remedy.
    pub fn implicit(certificate: &Pem, key: &Pem) -> Result<Self, TlsError> {
        server_config(certificate, key).map(Self::Implicit)
    }
}

/// A source of connections with the settings of its sessions, for
/// [`Server::listen`](crate::Server::listen).
#[derive(Debug)]
pub struct Listener<A = TcpListener> {
    pub(crate) socket: A,
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) tls: Tls,
}

impl Listener<TcpListener> {
    /// Binds a TCP address, without TLS. If a name has several addresses, the first one that can be
    /// bound is used. The future may be dropped.
    ///
    /// Up to 4,096 clients wait to be accepted, if the system allows it (on Linux
    /// `net.core.somaxconn`, by default 4,096).
    ///
    /// # Errors
    /// [`io::Error`] with the address in its text.
    pub async fn bind(address: impl ToSocketAddrs, settings: ServerSettings) -> io::Result<Self> {
        let mut failure = None;
        for address in lookup_host(address).await? {
            match listen(address) {
                Ok(socket) => return Ok(Self::new(socket, settings)),
                Err(error) => {
                    let text = format!("cannot listen on {address}: {error}");
                    failure.get_or_insert(io::Error::new(error.kind(), text));
                }
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name to listen on has no address")))
    }

    /// The address, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl<A: Accept> Listener<A> {
    /// A listener on an open socket, without TLS: a `TcpListener`, a `UnixListener`, or an
    /// [`Accept`] of the application's own.
    pub fn new(socket: A, settings: ServerSettings) -> Self {
        Self { socket, settings: Arc::new(settings), tls: Tls::Off }
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The source of connections.
    pub const fn socket(&self) -> &A {
        &self.socket
    }
}

/// Clients that wait to be accepted. The system drops a burst beyond it, and such a client may wait
/// in vain for the greeting.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does. Elsewhere the option lets two programs share a port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
