//! The facts about a connection that a handler gets.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use posthaste_tokio::{
    Certificate, Connection, TlsParameters,
    rustls::{CipherSuite, ProtocolVersion},
    session::{ServerSettings, server::ClientFacts},
    wire::{AddressError, EhloName, Mail, Rcpt},
};

use crate::Networks;

/// The facts about a connection when a handler decides.
///
/// Later versions may add fields. Tests of handlers make one with [`Context::new`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    /// The client.
    pub peer: Peer,
    /// The offers to this client, and its limits.
    pub settings: Arc<ServerSettings>,
    /// The number of this connection: unique in the process, counted from 1. Log lines have it.
    pub connection: u64,
    /// The transaction so far: MAIL and the recipients accepted so far. `None`: no transaction is
    /// open, or its envelope went to [`Handler::message`](crate::Handler::message).
    pub envelope: Option<Envelope>,
    /// What a trusted client has said by XFORWARD about the client of this transaction, for logs:
    /// see [`Listener::with_xforward`](crate::Listener::with_xforward). `None`: it has said no such
    /// thing, or no transaction is open.
    pub forwarded: Option<Arc<ClientFacts>>,
}

/// The client, with the facts that it has given so far.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// Its address.
    pub address: PeerAddress,
    /// The first address of its network, which is the [prefix](Networks) of its address. Limits
    /// count clients by network. Clients of a local socket share `127.0.0.1`.
    pub network: IpAddr,
    /// The address of ours that it connected to.
    pub local: PeerAddress,
    /// The name from EHLO, HELO or LHLO. `None`: the client has not said it since the connection or
    /// TLS began.
    pub hello: Option<EhloName>,
    /// `true` after EHLO or LHLO, `false` after HELO.
    pub extended: bool,
    /// What TLS has agreed on. `None`: the connection is in clear.
    pub tls: Option<Arc<PeerTls>>,
    /// The identity that the client has logged in as. `None`: it has not logged in.
    pub identity: Option<String>,
    /// The proxy that has connected for this client, and said who it is. `None`: the client has
    /// connected itself.
    pub proxy: Option<Arc<Proxy>>,
}

/// A proxy that has connected for a client: see
/// [`Listener::with_proxies`](crate::Listener::with_proxies) and
/// [`Listener::with_xclient`](crate::Listener::with_xclient).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxy {
    /// Its own address.
    pub address: PeerAddress,
    /// The host name of the client, as the proxy has looked it up. `None`: it has said none.
    pub client_name: Option<String>,
}

/// What the TLS handshake with a client has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerTls {
    /// The version of TLS.
    pub version: ProtocolVersion,
    /// The cipher suite. `None`: a proxy has done the handshake, and names it in another way.
    pub cipher_suite: Option<CipherSuite>,
    /// The host name that the client asked for (SNI, RFC 6066 section 3), in lower case. `None`: it
    /// asked for none.
    pub server_name: Option<String>,
    /// The certificate that the client has shown and the TLS configuration's verifier accepted.
    /// `None`: it has shown none.
    pub certificate: Option<Certificate>,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A process of this machine, over a Unix domain socket or a stream of the application's own.
    Local,
}

/// The envelope of a message: MAIL and the accepted RCPTs, with all their parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// MAIL.
    pub mail: Mail,
    /// The RCPTs that were accepted, in their order.
    pub recipients: Vec<Rcpt>,
}

impl Context {
    /// The context of a client that has just connected.
    pub fn new(peer: Peer, settings: Arc<ServerSettings>) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self { peer, settings, connection, envelope: None, forwarded: None }
    }
}

impl Peer {
    /// A client that has just connected, in a network of the default size.
    pub fn new(address: impl Into<PeerAddress>, local: impl Into<PeerAddress>) -> Self {
        let address = address.into();
        Self {
            address,
            network: Networks::default().of(address.ip_or_loopback()),
            local: local.into(),
            hello: None,
            extended: false,
            tls: None,
            identity: None,
            proxy: None,
        }
    }

    /// Forgets what the client has said in clear, after a TLS handshake (RFC 3207 section 4.2).
    pub(crate) fn start_over(&mut self, tls: Option<Arc<PeerTls>>) {
        let Self { address: _, network: _, local: _, hello, extended, tls: own, identity, proxy: _ } = self;
        (*hello, *extended, *own, *identity) = (None, false, tls, None);
    }

    /// Becomes the client that a proxy has named, which has said no EHLO yet.
    pub(crate) fn take_facts(&mut self, facts: &ClientFacts) {
        let proxy = self.proxy.as_ref().map_or(self.address, |proxy| proxy.address);
        if let Some(address) = facts.address {
            self.address = SocketAddr::new(address, facts.port.unwrap_or_default()).into();
            self.network = Networks::default().of(address);
        }
        if let Some(address) = facts.local_address {
            self.local = SocketAddr::new(address, facts.local_port.unwrap_or_default()).into();
        }
        self.hello = facts.hello.clone();
        self.extended = facts.protocol.as_deref().is_some_and(|protocol| protocol != "SMTP");
        self.identity = facts.login.clone();
        self.proxy = Some(Arc::new(Proxy { address: proxy, client_name: facts.name.clone() }));
    }

    /// The certificate that the client has shown inside TLS. `None`: it has shown none.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()?.certificate.as_ref()
    }

    /// The name from EHLO for a log line, cut to 255 characters. Empty before EHLO. Write it with
    /// its quotes, as `Debug` does: the client chooses its characters.
    pub fn hello_text(&self) -> String {
        self.hello.as_ref().map(|name| name.to_string().chars().take(255).collect()).unwrap_or_default()
    }
}

impl PeerTls {
    /// TLS of this version and nothing else.
    pub const fn new(version: ProtocolVersion) -> Self {
        Self { version, cipher_suite: None, server_name: None, certificate: None }
    }

    /// What a connection has agreed on. `None`: it is in clear.
    pub(crate) fn of<S>(connection: &Connection<S>) -> Option<Arc<Self>> {
        let TlsParameters { version, cipher_suite, .. } = connection.tls()?;
        Some(Arc::new(Self {
            version,
            cipher_suite: Some(cipher_suite),
            server_name: connection.server_name().map(str::to_owned),
            certificate: connection.peer_certificate(),
        }))
    }
}

impl PeerAddress {
    /// The IP address. `None`: the client is local.
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Local => None,
        }
    }

    /// The IP address, and `127.0.0.1` for a local client: for rules about networks.
    pub const fn ip_or_loopback(self) -> IpAddr {
        match self {
            Self::Ip(address) => address.ip(),
            Self::Local => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// An IPv4 address within IPv6, as a socket for both has it, becomes that IPv4 address.
impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

/// The address and port, or `local`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

impl Envelope {
    /// An envelope from texts such as `"me@example.org"`, or from [`Mail`] and [`Rcpt`] with
    /// parameters.
    ///
    /// ```
    /// # use posthaste_server::{Envelope, wire::AddressError};
    /// let envelope = Envelope::new("me@example.org", ["you@example.net"])?;
    /// assert_eq!(envelope.recipients.len(), 1);
    /// # Ok::<(), AddressError>(())
    /// ```
    ///
    /// # Errors
    /// [`AddressError`] of the first text that is no address. Never for [`Mail`] and [`Rcpt`].
    pub fn new<M, R>(mail: M, recipients: impl IntoIterator<Item = R>) -> Result<Self, AddressError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let recipients = recipients.into_iter().map(|rcpt| rcpt.try_into().map_err(Into::into));
        Ok(Self { mail: mail.try_into().map_err(Into::into)?, recipients: recipients.collect::<Result<_, _>>()? })
    }

    /// An envelope from its commands.
    pub const fn from_commands(mail: Mail, recipients: Vec<Rcpt>) -> Self {
        Self { mail, recipients }
    }
}
