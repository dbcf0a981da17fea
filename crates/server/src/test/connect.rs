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
    tls::{self, ClientTls},
};
use crate::{Accept, Listener, NetworkSet, Peer, PeerAddress, Server, ServerOptions, Service, Tls};

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
    proxy: Option<PeerAddress>,
    xclient: bool,
}

#[derive(Debug)]
enum Offer {
    Off,
    StartTls,
    Implicit,
    Own(Tls),
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
            proxy: None,
            xclient: false,
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

    /// The TLS of the program itself, with its own certificate. The client asks for the host name
    /// of the settings and takes any certificate: see [`Tls`] for where its configuration comes
    /// from.
    ///
    /// Needs a crypto provider as [`starttls`](Self::starttls) does.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Offer::Own(tls);
        self
    }

    /// The client shows a certificate in its handshakes, for EXTERNAL. Its
    /// [fingerprint](super::client_fingerprint) stays the same within a process. With
    /// [`starttls`](Self::starttls) and [`implicit_tls`](Self::implicit_tls) alone.
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

    /// The client reaches the server through a proxy at this address, which names it in a header of
    /// the PROXY protocol: see [`Listener::with_proxies`]. [`peer`](Self::peer) is then the address
    /// in the header. Default: no proxy.
    ///
    /// # Panics
    /// As [`peer`](Self::peer).
    #[track_caller]
    pub fn proxy(mut self, address: &str) -> Self {
        self.proxy = Some(peer(address));
        self
    }

    /// The client may say XCLIENT and XFORWARD: see [`Listener::with_xclient`]. Default: it may
    /// not.
    pub fn xclient(mut self) -> Self {
        self.xclient = true;
        self
    }

    fn start(self) -> (Arc<Running>, PeerAddress) {
        let Self { service, settings, options, tls, certificate, peer, proxy, xclient } = self;
        assert!(
            matches!(tls, Offer::StartTls | Offer::Implicit) || !certificate,
            "a client shows a certificate in TLS: add `starttls` or `implicit_tls`"
        );
        let lmtp = settings.protocol == Protocol::Lmtp;
        let (ours, client_tls) = match tls {
            Offer::Off | Offer::Own(Tls::Off) => (Tls::Off, None),
            Offer::StartTls => (Tls::StartTls(Arc::clone(&tls::pki().server)), Some(tls::client(certificate))),
            Offer::Implicit => (Tls::Implicit(Arc::clone(&tls::pki().server)), Some(tls::client(certificate))),
            Offer::Own(tls) => (tls, Some(tls::client_of_any(&settings.host_name))),
        };
        let implicit = matches!(ours, Tls::Implicit(_));
        let (clients, waiting) = mpsc::channel(64);
        let drain = CancellationToken::new();
        let mut listener = Listener::new(Waiting(waiting), settings).with_tls(ours);
        if let Some(proxy) = proxy {
            listener = listener.with_proxies(proxy.ip_or_loopback().to_string().parse().unwrap());
        }
        if xclient {
            let all: NetworkSet = "0.0.0.0/0, ::/0".parse().unwrap();
            listener = listener.with_xclient(all.clone()).with_xforward(all);
        }
        let server = Server::new(service)
            .with_options(options)
            .listen(listener)
            .with_graceful_shutdown(drain.clone().cancelled_owned());
        let task = tokio::spawn(server.serve());
        (Arc::new(Running { clients, drain, task, lmtp, client_tls, implicit, proxy }), peer)
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
    pub(super) client_tls: Option<ClientTls>,
    pub(super) implicit: bool,
    /// What connects for the clients.
    proxy: Option<PeerAddress>,
}

/// Octets that one side has sent and the other has not read yet; beyond it the sender waits.
const PIPE: usize = 64 * 1_024;

impl Running {
    /// A new connection, and the header that a proxy writes first of all. After a drain it is
    /// closed at once, as a closed port would be.
    pub(super) async fn connect(&self, peer: PeerAddress) -> (DuplexStream, Option<String>) {
        let (ours, theirs) = duplex(PIPE);
        let local = match peer {
            PeerAddress::Ip(address) if address.is_ipv6() => "[2001:db8::25]:25".parse::<SocketAddr>().unwrap().into(),
            PeerAddress::Ip(_) => "192.0.2.25:25".parse::<SocketAddr>().unwrap().into(),
            PeerAddress::Local => PeerAddress::Local,
        };
        let _ = self.clients.send((theirs, Peer::new(self.proxy.unwrap_or(peer), local))).await;
        let header = self.proxy.map(|_| match (peer, local) {
            (PeerAddress::Ip(peer), PeerAddress::Ip(local)) => {
                let family = if peer.is_ipv6() { 6 } else { 4 };
                format!("PROXY TCP{family} {} {} {} {}\r\n", peer.ip(), local.ip(), peer.port(), local.port())
            }
            _ => "PROXY UNKNOWN\r\n".to_owned(),
        });
        (ours, header)
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
