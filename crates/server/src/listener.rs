//! Accepting connections, within limits, until it is time to drain.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use posthaste_tokio::{Connection, rustls::ServerConfig, session::ServerSettings};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    LoginOptions, Networks, Peer, Service,
    conversation::{Common, Ends, converse_within},
};

/// How much TLS a listener has.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// None.
    #[default]
    Off,
    /// STARTTLS is offered.
    StartTls(Arc<ServerConfig>),
    /// TLS from the first octet (RFC 8314).
    Implicit(Arc<ServerConfig>),
}

/// A listening socket with what its sessions offer.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    settings: Arc<ServerSettings>,
    tls: Tls,
}

impl Listener {
    /// Binds an address. The settings' STARTTLS offer follows `tls`.
    ///
    /// # Errors
    /// [`io::Error`] with the address in its text.
    pub async fn bind(address: SocketAddr, mut settings: ServerSettings, tls: Tls) -> io::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        settings.offers.starttls = matches!(tls, Tls::StartTls(_));
        Ok(Self { socket, settings: Arc::new(settings), tls })
    }

    /// The address, with the port that the system chose when 0 was asked for.
    ///
    /// # Errors
    /// [`io::Error`] from the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// How many clients are served at once.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections in all, those in a TLS handshake among them. Default 1,000. Beyond it: 421, at once, or no handshake. Above
    /// three quarters of it, if there are 20 at all, clients have to [hurry](posthaste_tokio::session::ServerSession::hurry): a
    /// tenth of every time, until half of them are left.
    pub connections: usize,
    /// Connections from one network. Default 1,000 from loopback, where a proxy may sit, and 100 from elsewhere. Beyond
    /// it: 421, at once.
    pub connections_per_address: usize,
    /// What a network is, for this limit and for those of [`logins`](Self::logins). Default: an address of IPv4, a /64 of IPv6.
    pub networks: Networks,
    /// Octets of memory for the envelopes of all connections together, beside 40 KiB of each connection's own, which some
    /// 100 recipients take. Default 32 MiB: with the connections' own that is 72 MiB, for 60,000 ordinary recipients
    /// or 20,000 of the longest. Beyond it: 452 4.3.1 to MAIL and RCPT. It comes back with RSET, EHLO, the end of the message and
    /// that of the connection.
    pub envelopes: usize,
    /// How fast passwords may be guessed.
    pub logins: LoginOptions,
    /// How long a drain waits for conversations to reach a boundary. Default 30 seconds. Beyond it their clients get a
    /// 421, and a second to take it; whether a message that was being committed then is kept is left open, and its client
    /// tries again.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 1_000,
            connections_per_address: 100,
            networks: Networks::default(),
            envelopes: 32 * 1_024 * 1_024,
            logins: LoginOptions::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// Serves a service on any number of listeners.
#[derive(Debug)]
pub struct Server<V> {
    shared: Arc<Shared<V>>,
}

#[derive(Debug)]
struct Shared<V> {
    service: V,
    options: ServerOptions,
    slots: Arc<Semaphore>,
    by_network: Mutex<HashMap<IpAddr, usize>>,
    common: Common,
}

/// How long to wait after the system refused to accept, so that a lack of descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

impl<V: Service> Server<V> {
    /// A server.
    pub fn new(service: V, options: ServerOptions) -> Self {
        let slots = Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS)));
        let common = Common::new(&options);
        Self { shared: Arc::new(Shared { service, options, slots, by_network: Mutex::default(), common }) }
    }

    /// Serves until `drain` is cancelled; then stops accepting, lets every conversation end at its next boundary, and
    /// returns when all have, or when the time for that is over.
    pub async fn serve(&self, listeners: Vec<Listener>, drain: CancellationToken) {
        let tasks = TaskTracker::new();
        let ends = Ends { drain: drain.clone(), abort: CancellationToken::new() };
        // Whoever drops this future does not leave conversations behind.
        let _abort = ends.abort.clone().drop_guard();
        for listener in listeners {
            let accept = accept(Arc::clone(&self.shared), listener, tasks.clone(), ends.clone());
            let abort = ends.abort.clone();
            tasks.spawn(async move { abort.run_until_cancelled(accept).await });
        }
        drain.cancelled().await;
        tasks.close();
        if tokio::time::timeout(self.shared.options.drain, tasks.wait()).await.is_err() {
            warn!(left = tasks.len(), "conversations did not end in time and are dropped");
            ends.abort.cancel();
            tasks.wait().await;
        }
    }
}

async fn accept<V: Service>(shared: Arc<Shared<V>>, listener: Listener, tasks: TaskTracker, ends: Ends) {
    // The socket alone goes with this task: while a drain waits for conversations, nobody may wait to be accepted.
    let Listener { socket, settings, tls } = listener;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ends.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let (shared, offer) = (Arc::clone(&shared), (Arc::clone(&settings), tls.clone()));
                tasks.spawn(serve(shared, offer, stream, address, ends.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve<V: Service>(
    shared: Arc<Shared<V>>,
    (settings, tls): (Arc<ServerSettings>, Tls),
    mut stream: TcpStream,
    address: SocketAddr,
    ends: Ends,
) {
    // Replies are small and waited for; Nagle's algorithm would add a delay to each.
    let _ = stream.set_nodelay(true);
    let slot = Arc::clone(&shared.slots).try_acquire_owned().ok();
    let Some((_slot, _counted)) = slot.zip(Counted::enter(&shared, address.ip())) else {
        // Best effort: whoever does not read it is not served either. In clear it has no place in front of a handshake.
        if !matches!(tls, Tls::Implicit(_)) {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(BUSY)).await;
        }
        return;
    };
    let local = stream.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let peer = Peer { network: shared.options.networks.of(address.ip()), ..Peer::new(address, local) };
    let mut connection = Connection::new(stream);
    let starttls = match tls {
        Tls::Off => None,
        Tls::StartTls(config) => Some(config),
        Tls::Implicit(config) => {
            let handshake = tokio::time::timeout(shared.handshake(&settings), connection.accept_tls(config));
            // Nothing has begun that a drain would have to wait for.
            let Some(done) = ends.drain.run_until_cancelled(handshake).await else { return };
            if let Ok(Err(error)) | Err(error) = done.map_err(|_| io::ErrorKind::TimedOut.into()) {
                debug!(%address, %error, "no TLS handshake");
                return;
            }
            None
        }
    };
    let offer = (settings, starttls);
    match converse_within(&shared.common, &ends, connection, peer, &shared.service, offer).await {
        Ok(reason) => debug!(%address, ?reason, "conversation ended"),
        Err(error) => info!(%address, %error, "conversation broke off"),
    }
}

const BUSY: &[u8] = b"421 4.3.2 Too many connections, try again later\r\n";

/// Counts a connection against its network, and how full the server is, for as long as it lives.
struct Counted<'s, V> {
    shared: &'s Shared<V>,
    network: IpAddr,
}

impl<V> Shared<V> {
    /// Above three quarters conversations hurry, until there is half of the room again.
    fn weigh(&self) {
        let (all, free) = (self.options.connections, self.slots.available_permits());
        self.common.hurried.send_if_modified(|hurried| {
            let before = *hurried;
            *hurried = if before { free < all.div_ceil(2) } else { all >= LEAST && free < all / 4 };
            before != *hurried
        });
    }

    fn handshake(&self, settings: &ServerSettings) -> Duration {
        let hurried = *self.common.hurried.borrow();
        if hurried { settings.timeouts.handshake / 10 } else { settings.timeouts.handshake }
    }
}

/// A server of fewer connections is nearly full with some honest ones, and nobody hurries.
const LEAST: usize = 20;

impl<'s, V> Counted<'s, V> {
    fn enter(shared: &'s Shared<V>, address: IpAddr) -> Option<Self> {
        let factor = if address.to_canonical().is_loopback() { 10 } else { 1 };
        let limit = shared.options.connections_per_address.saturating_mul(factor);
        let network = shared.options.networks.of(address);
        let mut counts = shared.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&network).copied().unwrap_or_default();
        if count >= limit {
            return None;
        }
        counts.insert(network, count + 1);
        drop(counts);
        shared.weigh();
        Some(Self { shared, network })
    }
}

impl<V> Drop for Counted<'_, V> {
    fn drop(&mut self) {
        let mut counts = self.shared.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
        drop(counts);
        self.shared.weigh();
    }
}
