//! A server in memory, and how clients reach it.

use std::{
    future::{Future, IntoFuture, pending},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use posthaste_tokio::session::{ServerSettings, server::Protocol};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Client,
    tls::{self, Pki},
};
use crate::{Accept, Listener, Peer, PeerAddress, Server, ServerOptions, Service, Tls};

/// A client that is about to connect to a new server: await it. See [`Client::connect`].
#[must_use = "a client connects when this is awaited"]
#[derive(Debug)]
pub struct Connect<V> {
    service: V,
    settings: ServerSettings,
    options: ServerOptions,
    tls: Offer,
    certificate: bool,
    peer: PeerAddress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Off,
    StartTls,
    Implicit,
}

impl<V: Service> Connect<V> {
    pub(super) fn new(service: V) -> Self {
        Self {
            service,
            settings: ServerSettings::new("mx.example.org".parse().unwrap()),
            options: ServerOptions::default(),
            tls: Offer::Off,
            certificate: false,
            peer: peer("192.0.2.1"),
        }
    }

    /// The listener's settings. Default: those of `mx.example.org`.
    pub fn settings(mut self, settings: ServerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The server's limits. Default: its defaults.
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// The server offers STARTTLS, with a certificate made for it. Default: no TLS.
    ///
    /// Needs a crypto provider: the feature `aws-lc-rs` or `ring`.
    pub fn starttls(mut self) -> Self {
        self.tls = Offer::StartTls;
        self
    }

    /// TLS from the first octet, in all else as [`starttls`](Self::starttls).
    pub fn implicit_tls(mut self) -> Self {
        self.tls = Offer::Implicit;
        self
    }

    /// The client shows a certificate in its handshakes, for EXTERNAL. Its
    /// [fingerprint](super::client_fingerprint) stays the same within a process.
    pub fn certificate(mut self) -> Self {
        self.certificate = true;
        self
    }

    /// The address of the client: an IP address with or without a port, or `local` for a Unix
    /// socket. Default: `192.0.2.1`, port 40,000.
    ///
    /// # Panics
    /// The text is no such address.
    #[track_caller]
    pub fn peer(mut self, address: &str) -> Self {
        self.peer = peer(address);
        self
    }

    fn start(self) -> (Arc<Running>, PeerAddress) {
        let Self { service, settings, options, tls, certificate, peer } = self;
        assert!(
            tls != Offer::Off || !certificate,
            "a client shows a certificate in TLS: add `starttls` or `implicit_tls`"
        );
        let lmtp = settings.protocol == Protocol::Lmtp;
        let pki = (tls != Offer::Off).then(tls::pki);
        let ours = match (tls, pki) {
            (Offer::StartTls, Some(pki)) => Tls::StartTls(Arc::clone(&pki.server)),
            (Offer::Implicit, Some(pki)) => Tls::Implicit(Arc::clone(&pki.server)),
            _ => Tls::Off,
        };
        let (clients, waiting) = mpsc::channel(64);
        let drain = CancellationToken::new();
        let server = Server::new(service)
            .with_options(options)
            .listen(Listener::new(Waiting(waiting), settings).with_tls(ours))
            .with_graceful_shutdown(drain.clone().cancelled_owned());
        let task = tokio::spawn(server.serve());
        let implicit = tls == Offer::Implicit;
        (Arc::new(Running { clients, drain, task, lmtp, pki, implicit, certificate }), peer)
    }
}

impl<V: Service> IntoFuture for Connect<V> {
    type Output = Client;
    type IntoFuture = Pin<Box<dyn Future<Output = Client> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (running, peer) = self.start();
            Client::to(running, peer).await
        })
    }
}

/// A server that runs as long as it has clients.
#[derive(Debug)]
pub(super) struct Running {
    clients: mpsc::Sender<(DuplexStream, Peer)>,
    pub(super) drain: CancellationToken,
    task: JoinHandle<()>,
    pub(super) lmtp: bool,
    pub(super) pki: Option<&'static Pki>,
    pub(super) implicit: bool,
    pub(super) certificate: bool,
}

/// Octets that one side has sent and the other has not read yet; beyond it the sender waits.
const PIPE: usize = 64 * 1_024;

impl Running {
    /// A new connection. After a drain it is closed at once, as a closed port would be.
    pub(super) async fn connect(&self, peer: PeerAddress) -> DuplexStream {
        let (ours, theirs) = duplex(PIPE);
        let local = match peer {
            PeerAddress::Ip(address) if address.is_ipv6() => "[2001:db8::25]:25".parse::<SocketAddr>().unwrap().into(),
            PeerAddress::Ip(_) => "192.0.2.25:25".parse::<SocketAddr>().unwrap().into(),
            PeerAddress::Local => PeerAddress::Local,
        };
        let _ = self.clients.send((theirs, Peer::new(peer, local))).await;
        ours
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// As over a network, what a handler does for clients that have gone goes on.
impl Drop for Running {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

/// Where the server gets its clients from.
struct Waiting(mpsc::Receiver<(DuplexStream, Peer)>);

impl Accept for Waiting {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.0.recv().await {
            Some(client) => Ok(client),
            None => pending().await,
        }
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }

    fn takes_descriptors(&self) -> bool {
        false
    }
}

/// An address as [`PeerAddress`] shows it. The port may be left out.
#[track_caller]
pub(super) fn peer(address: &str) -> PeerAddress {
    if address == "local" {
        return PeerAddress::Local;
    }
    let with_port = address.parse::<SocketAddr>();
    let socket = with_port.or_else(|_| address.parse::<IpAddr>().map(|address| SocketAddr::new(address, 40_000)));
    socket.map(PeerAddress::Ip).unwrap_or_else(|_| {
        panic!("the address of a client is one such as \"192.0.2.1\", \"[2001:db8::1]:40000\" or \"local\", and not {address:?}")
    })
}
