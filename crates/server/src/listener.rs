//! A listening socket with the settings of its sessions.

#[cfg(unix)]
use std::path::Path;
use std::{io, net::SocketAddr, sync::Arc};

use posthaste_tokio::{
    rustls::ServerConfig,
    session::ServerSettings,
    tls::{Pem, TlsError, server_config},
};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

use crate::{Accept, NetworkSet};

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
    pub(crate) trusted: Trusted,
}

/// The networks whose clients may say that they are others.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    pub(crate) proxies: NetworkSet,
    pub(crate) xclient: NetworkSet,
    pub(crate) xforward: NetworkSet,
}

impl<A> Listener<A> {
    /// The settings of its sessions. [`Service::settings`](crate::Service::settings) finds the same
    /// `Arc` in its context, and knows the listener by it.
    pub const fn settings(&self) -> &Arc<ServerSettings> {
        &self.settings
    }
}

impl Listener<TcpListener> {
    /// Binds a TCP address, without TLS. If a name has several addresses, the first one that can be
    /// bound is used. The future may be dropped.
    ///
    /// `[::]:25` takes clients of IPv4 too, and shows their addresses as IPv4. It takes the port
    /// `0.0.0.0:25` with it, so do not bind both. A system may be set up otherwise (Linux:
    /// `net.ipv6.bindv6only`).
    ///
    /// Up to 4,096 clients wait to be accepted, if the system allows it (on Linux
    /// `net.core.somaxconn`, by default 4,096).
    ///
    /// # Errors
    /// [`io::Error`] that says which address cannot be had, or that the text is none.
    pub async fn bind(address: impl ToSocketAddrs, settings: ServerSettings) -> io::Result<Self> {
        let mut failure = None;
        let not_found = |error: io::Error| {
            let text = format!("no address to listen on: {error}; it has a port, as in `0.0.0.0:25`");
            io::Error::new(error.kind(), text)
        };
        for address in lookup_host(address).await.map_err(not_found)? {
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

    /// A listener on an open TCP socket, which is made nonblocking: one that systemd has handed
    /// over, say, found by the crate `listenfd`. Call it within a tokio runtime.
    ///
    /// ```
    /// # use posthaste_server::{Listener, session::ServerSettings};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let listener = Listener::from_tcp(socket, ServerSettings::new("mx.example.org".parse()?))?;
    /// assert_ne!(listener.local_address()?.port(), 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    pub fn from_tcp(socket: std::net::TcpListener, settings: ServerSettings) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(TcpListener::from_std(socket)?, settings))
    }

    /// The address, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

#[cfg(unix)]
impl Listener<UnixListener> {
    /// Binds a path for a Unix socket, which gets these permissions before it takes a client:
    /// `0o660` for the owner and the group. Only a client that may write to it can connect.
    ///
    /// A socket at the path on which no program listens is removed, as a server that was killed
    /// leaves it. Use a folder in which no other user may create files. The socket stays there
    /// after the server's end.
    ///
    /// Clients have no address; rules about networks and proxies take them for `127.0.0.1`. Up to
    /// 4,096 clients wait to be accepted, as for [`bind`](Listener::bind). The future may be
    /// dropped.
    ///
    /// # Errors
    /// [`io::Error`] with the path in its text: a program listens there, a file that is no socket
    /// is there, or the system refuses.
    pub async fn bind_unix(path: impl AsRef<Path>, mode: u32, settings: ServerSettings) -> io::Result<Self> {
        let path = path.as_ref();
        unix::listen(path, mode).await.map(|socket| Self::new(socket, settings)).map_err(|error| {
            let text = format!("cannot listen on {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })
    }

    /// A listener on an open Unix socket; in all else as [`from_tcp`](Listener::from_tcp).
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    pub fn from_unix(socket: std::os::unix::net::UnixListener, settings: ServerSettings) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(UnixListener::from_std(socket)?, settings))
    }
}

impl<A: Accept> Listener<A> {
    /// A listener on an open socket, without TLS: a `TcpListener`, a `UnixListener`, or an
    /// [`Accept`] of the application's own.
    pub fn new(socket: A, settings: ServerSettings) -> Self {
        Self { socket, settings: Arc::new(settings), tls: Tls::Off, trusted: Trusted::default() }
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The same behind proxies in these networks, such as HAProxy or a load balancer. They have to
    /// send a header of the PROXY protocol, version 1 or 2, in front of all else. Limits, handlers
    /// and logs then have the address in the header for the client's, and
    /// [`Peer::proxy`](crate::Peer::proxy) has the proxy's. Default: no network.
    ///
    /// A connection from these networks without a header is closed, with a line in the log. So it
    /// is if the header takes more than 5 seconds or has more than 4,096 octets. Until then it
    /// counts in [`ServerOptions::connections`](crate::ServerOptions::connections), and not by
    /// network. No header of another client is read: `PROXY` is then an unknown command.
    ///
    /// A header without an address (LOCAL, UNKNOWN, or a Unix socket) leaves the proxy's own: with
    /// one the proxy looks if the server is alive. Take care that a rule which trusts the proxy's
    /// network trusts no more than that.
    ///
    /// If the header says that the client has spoken TLS with the proxy, it counts as
    /// [TLS](crate::Peer::tls): no STARTTLS is offered, and passwords may cross the connection.
    ///
    /// ```no_run
    /// # use posthaste_server::{Listener, session::ServerSettings};
    /// # async fn listen() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind("[::]:25", ServerSettings::new("mx.example.org".parse()?)).await?;
    /// let listener = listener.with_proxies("192.0.2.7, 2001:db8::/64".parse()?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_proxies(mut self, networks: NetworkSet) -> Self {
        self.trusted.proxies = networks;
        self
    }

    /// The same with XCLIENT for clients from these networks, as Postfix defines it. A proxy that
    /// speaks SMTP, such as nginx, or a content filter says with it which client it speaks for.
    /// Default: no network. To others it is not offered, and XCLIENT is refused with 550.
    ///
    /// Trust only programs that pass on no XCLIENT of their own clients: it may claim any address,
    /// and a login that counts as [`Peer::identity`](crate::Peer::identity). After the address
    /// neither it nor XFORWARD is taken on that connection. A client whose address the proxy does
    /// not know (`ADDR=[UNAVAILABLE]`) has `0.0.0.0`, and such clients count as one network.
    ///
    /// With the facts of the named client in its [`Peer`](crate::Peer) the server begins again: it
    /// counts that client by its network, asks the service's
    /// [`connect`](crate::Service::connect) for another handler, and greets. The client is in clear
    /// or in TLS as its proxy is. The proxy itself is not counted by network. Log lines have both
    /// addresses. The [settings](crate::Service::settings) stay those that the service chose for
    /// the proxy.
    #[must_use]
    pub fn with_xclient(mut self, networks: NetworkSet) -> Self {
        self.trusted.xclient = networks;
        self
    }

    /// The same with XFORWARD for clients from these networks, as Postfix defines it: a content
    /// filter says where a message came from. It changes no decision of the server's own; a handler
    /// finds it in [`Context::forwarded`](crate::Context::forwarded), and log lines of the
    /// transaction have the address as `forwarded_for`. Default: no network. To others it is not
    /// offered, and XFORWARD is refused with 550.
    #[must_use]
    pub fn with_xforward(mut self, networks: NetworkSet) -> Self {
        self.trusted.xforward = networks;
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

#[cfg(unix)]
mod unix {
    use std::{
        fs::{self, Permissions},
        io,
        os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
        path::Path,
    };

    use tokio::net::{UnixListener, UnixSocket, UnixStream};

    pub(super) async fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Before `listen` no client can connect.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(super::BACKLOG)
    }

    /// Removes a socket on which no program listens.
    async fn remove_stale(path: &Path) -> io::Result<()> {
        let is_socket = match fs::symlink_metadata(path) {
            Ok(file) => file.file_type().is_socket(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !is_socket {
            let text = "a file that is no socket is there; remove it, or choose another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        // A full backlog is an error of another kind.
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there; stop it first")),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does. Elsewhere the option lets two programs share a port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
