//! Serving connections, within limits, until it is time to drain.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, pending},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    Accept, Context, Listener, LoginOptions, Networks, PeerAddress, Service, Tls,
    converse::{BUSY, Common, Ends, Trust, converse_within},
    listener::Trusted,
    proxy,
};

/// The limits of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Connections in all, those in a TLS handshake included. Default 1,000. Beyond it: 421 at
    /// once, or no handshake under implicit TLS. When more than three quarters are in use, sessions
    /// have to [hurry](posthaste_tokio::session::ServerSession::hurry), until at most half are in
    /// use. Below a limit of 20 they never do.
    pub connections: usize,
    /// Connections from one network. Default 100. Ten times as many from loopback, where a proxy
    /// may run. Beyond it: as for [`connections`](Self::connections).
    pub connections_per_network: usize,
    /// The size of a network, for [`connections_per_network`](Self::connections_per_network) and
    /// [`logins`](Self::logins). Default: one address of IPv4, a /64 of IPv6.
    pub networks: Networks,
    /// Memory for the envelopes of all connections together, in bytes. Each connection has 40 KiB
    /// of its own as well, enough for some 100 recipients. Default 32 MiB: with the connections'
    /// own that is 71 MiB. An ordinary recipient takes some 400 bytes, the longest some 4 KiB.
    /// Beyond it: 452 4.3.1 to MAIL and RCPT. An envelope gives its memory back at RSET, EHLO, the
    /// end of its message and of its connection.
    pub envelopes: usize,
    /// How fast passwords may be guessed.
    pub logins: LoginOptions,
    /// How long a drain waits for sessions to reach a
    /// [boundary](posthaste_tokio::session::ServerSession::shutdown). Default 30 seconds. Beyond it
    /// their clients get a 421, and have 1 second to read it. A message that was being committed
    /// then may or may not be stored, and its client tries again.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 1_000,
            connections_per_network: 100,
            networks: Networks::default(),
            envelopes: 32 * 1_024 * 1_024,
            logins: LoginOptions::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// Serves a service on any number of listeners.
///
/// ```no_run
/// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, accepted, session::ServerSettings};
/// # struct Discard;
/// # impl Handler for Discard {
/// #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
/// #         body.collect(1 << 20).await?;
/// #         Ok(accepted!("250 2.0.0 Thrown away"))
/// #     }
/// # }
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = Listener::bind("127.0.0.1:2525", ServerSettings::new("mx.example.org".parse()?)).await?;
/// Server::new(|_| async { Ok(Discard) })
///     .listen(listener)
///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
///     .serve()
///     .await;
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing before `serve().await`"]
pub struct Server<V> {
    service: V,
    options: ServerOptions,
    listeners: Vec<Start<V>>,
    addresses: Vec<PeerAddress>,
    shutdown: Task,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts on one listener.
type Start<V> = Box<dyn FnOnce(Running<V>) -> Task + Send>;

/// A server that serves.
struct Running<V> {
    shared: Arc<Shared<V>>,
    tasks: TaskTracker,
    ends: Ends,
}

struct Shared<V> {
    service: V,
    options: ServerOptions,
    slots: Arc<Semaphore>,
    by_network: Mutex<HashMap<IpAddr, usize>>,
    common: Common,
}

/// How long to wait after the system refused to accept, so that a lack of descriptors does not
/// spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

impl<V: Service> Server<V> {
    /// A server with default options and no listener.
    ///
    /// The service is often a closure. State that handlers share is cloned before the future:
    ///
    /// ```
    /// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, Server, accepted};
    /// # use std::{future::ready, sync::{Arc, atomic::{AtomicU64, Ordering}}};
    /// #[derive(Clone, Default)]
    /// struct Count(Arc<AtomicU64>);
    /// # impl Handler for Count {
    /// #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
    /// #         body.collect(1 << 20).await?;
    /// #         Ok(accepted!("250 2.0.0 {} so far", self.0.fetch_add(1, Ordering::Relaxed)))
    /// #     }
    /// # }
    /// let count = Count::default();
    /// let server = Server::new(move |_| ready(Ok(count.clone())));
    /// ```
    pub fn new(service: V) -> Self {
        let options = ServerOptions::default();
        Self { service, options, listeners: Vec::new(), addresses: Vec::new(), shutdown: Box::pin(pending()) }
    }

    /// The same with other limits.
    pub fn with_options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a listener.
    pub fn listen<A: Accept>(mut self, listener: Listener<A>) -> Self {
        self.addresses.extend(listener.socket.local_address());
        self.listeners.push(Box::new(|running| Box::pin(accept(running, listener))));
        self
    }

    /// The addresses of the listeners, in order. A listener whose address cannot be found is left
    /// out.
    pub fn local_addresses(&self) -> &[PeerAddress] {
        &self.addresses
    }

    /// Drains when a future completes: the server stops accepting, and each session ends at its
    /// next [boundary](posthaste_tokio::session::ServerSession::shutdown). Default: never. The last
    /// call counts.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Box::pin(signal);
        self
    }

    /// Serves until the [shutdown](Self::with_graceful_shutdown), and returns when all sessions
    /// have ended. Without a listener no client can reach it, which it logs. Sessions that are left
    /// after [`ServerOptions::drain`] are aborted. Dropping the future aborts all sessions.
    pub async fn serve(self) {
        let Self { service, options, listeners, shutdown, addresses: _ } = self;
        let ends = Ends { drain: CancellationToken::new(), abort: CancellationToken::new() };
        // Dropping this future must not leave sessions running.
        let _abort = ends.abort.clone().drop_guard();
        if listeners.is_empty() {
            warn!("server without a listener, which no client can reach; add one with `listen`");
        }
        let drain = options.drain;
        let shared = Arc::new(Shared::new(service, options));
        let tasks = TaskTracker::new();
        for listener in listeners {
            let running = Running { shared: Arc::clone(&shared), tasks: tasks.clone(), ends: ends.clone() };
            let (accept, abort) = (listener(running), ends.abort.clone());
            tasks.spawn(async move { abort.run_until_cancelled(accept).await });
        }
        shutdown.await;
        ends.drain.cancel();
        tasks.close();
        if timeout(drain, tasks.wait()).await.is_err() {
            warn!(left = tasks.len(), "drain timed out, sessions aborted");
            ends.abort.cancel();
            tasks.wait().await;
        }
    }
}

impl<V> fmt::Debug for Server<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners = self.listeners.len();
        f.debug_struct("Server").field("options", &self.options).field("listeners", &listeners).finish_non_exhaustive()
    }
}

async fn accept<V: Service, A: Accept>(running: Running<V>, listener: Listener<A>) {
    let Running { shared, tasks, ends } = running;
    // The socket goes with this task: during a drain no client may wait to be accepted.
    let Listener { mut socket, settings, tls, trusted } = listener;
    let trusted = Arc::new(trusted);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ends.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let cx = Context::new(peer, Arc::clone(&settings));
                tasks.spawn(serve(Arc::clone(&shared), ends.clone(), stream, cx, (tls.clone(), Arc::clone(&trusted))));
            }
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Serves one connection.
#[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
fn serve<V: Service, S: AsyncRead + AsyncWrite + Unpin + Send>(
    shared: Arc<Shared<V>>,
    ends: Ends,
    mut stream: S,
    mut cx: Context,
    (tls, trusted): (Tls, Arc<Trusted>),
) -> impl Future<Output = ()> + Send {
    async move {
        let slot = Arc::clone(&shared.slots).try_acquire_owned().ok();
        // Counted in all, and by network once the client is known.
        if slot.is_some() && trusted.proxies.contains(cx.peer.address.ip_or_loopback()) {
            let header = Box::pin(proxy::accept(&mut stream, &mut cx.peer));
            match ends.drain.run_until_cancelled(header).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    return warn!(proxy = %cx.peer.address, %error, "PROXY header missing, connection closed");
                }
                None => return,
            }
        }
        let address = cx.peer.address.ip_or_loopback();
        let [xclient, xforward] = [&trusted.xclient, &trusted.xforward].map(|networks| networks.contains(address));
        drop(trusted);
        // A proxy is not counted by its network: XCLIENT names the client.
        let counted = if xclient { Some(None) } else { Counted::enter(&shared, address).map(Some) };
        let Some((_slot, _counted)) = slot.zip(counted) else {
            // Best effort, for 1 s. Not under implicit TLS: there the client expects a handshake.
            if !matches!(tls, Tls::Implicit(_)) {
                let _ = timeout(Duration::from_secs(1), stream.write_all(BUSY.reply().as_bytes())).await;
            }
            return;
        };
        cx.peer.network = shared.options.networks.of(address);
        let terms = (tls, (xclient || xforward).then(|| Box::new(trust(&shared, [xclient, xforward]))));
        match converse_within(&shared.common, &ends, stream, &mut cx, &shared.service, terms).await {
            Ok(reason) => debug!(address = %cx.peer.address, ?reason, "session ended"),
            Err(error) => info!(address = %cx.peer.address, %error, "connection lost"),
        }
    }
}

/// The trust in a client that may speak for others, which are counted in its place.
fn trust<V: Service>(shared: &Arc<Shared<V>>, [xclient, xforward]: [bool; 2]) -> Trust {
    let (shared, counted) = (Arc::clone(shared), Mutex::new(None));
    let admit = move |address| {
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        drop(counted.take());
        counted.insert(Counted::enter(&shared, address)?).network.into()
    };
    Trust { xclient, xforward, admit: Box::new(admit) }
}

/// Counts a connection against its network and the server's limit, until it is dropped.
struct Counted<V> {
    shared: Arc<Shared<V>>,
    network: IpAddr,
}

impl<V> Shared<V> {
    fn new(service: V, options: ServerOptions) -> Self {
        let slots = Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS)));
        let common = Common::new(&options);
        Self { service, options, slots, by_network: Mutex::default(), common }
    }

    /// Sessions hurry above three quarters of the limit, until half of it is free again.
    fn weigh(&self) {
        let (all, free) = (self.options.connections, self.slots.available_permits());
        let hurry = &self.common.hurry;
        hurry.set(if hurry.is_wanted() { free < all.div_ceil(2) } else { all >= LEAST && free < all / 4 });
    }
}

/// A smaller server is nearly full with a few honest clients: its sessions never hurry.
const LEAST: usize = 20;

impl<V> Counted<V> {
    fn enter(shared: &Arc<Shared<V>>, address: IpAddr) -> Option<Self> {
        let factor = if address.to_canonical().is_loopback() { 10 } else { 1 };
        let limit = shared.options.connections_per_network.saturating_mul(factor);
        let network = shared.options.networks.of(address);
        let mut counts = shared.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&network).copied().unwrap_or_default();
        if count >= limit {
            return None;
        }
        counts.insert(network, count + 1);
        drop(counts);
        shared.weigh();
        Some(Self { shared: Arc::clone(shared), network })
    }
}

impl<V> Drop for Counted<V> {
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Accepted, Body, Envelope, Handler, Refusal, accepted};

    /// A handler whose futures take `N` bytes and more.
    struct Wide<const N: usize>;

    impl<const N: usize> Service for Wide<N> {
        type Handler = Self;

        async fn connect(&self, _: &Context) -> Result<Self, Refusal> {
            std::hint::black_box(&[0_u8; N]);
            tokio::task::yield_now().await;
            Ok(Self)
        }
    }

    impl<const N: usize> Handler for Wide<N> {
        async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
            let mut room = [0; N];
            while let Some(piece) = body.next().await? {
                room.iter_mut().zip(&piece).for_each(|(own, octet)| *own ^= octet);
            }
            std::hint::black_box(&room);
            Ok(accepted!("250 2.0.0 Thrown away"))
        }
    }

    fn size_of_future<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// The future is the memory of a connection from its greeting to its end, and most connections
    /// wait most of the time. What only some of them are in the middle of has a box of its own: a
    /// handshake, a decision of the handler, a message, the 421 of an abort.
    #[test]
    fn the_future_of_a_connection_has_at_most_2000_bytes_whatever_its_handlers_futures_take() {
        let narrow = size_of_future(serve::<Wide<0>, TcpStream>);
        let wide = size_of_future(serve::<Wide<10_000>, TcpStream>);
        assert_eq!(narrow, wide);
        assert!(narrow <= 2_000, "{narrow} bytes");
    }
}
