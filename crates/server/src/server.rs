//! Serving connections, within limits, until it is time to drain.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, warn};

use crate::{
    Accept, Context, Listener, LoginOptions, Networks, Peer, PeerAddress, Service, Tls,
    admission::{Admission, Seat},
    budget::Budget,
    converse::{BUSY, Common, Ends, Trust, converse_within, span},
    counters, descriptors, ending,
    listener::Trusted,
    proxy::{self, ProxyError},
};

/// The limits of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Connections in all, those in a TLS handshake included. Default 1,000.
    ///
    /// Beyond it the client that the server has waited for the longest leaves with a 421, and the
    /// new client takes its place. The server waits for a client too while that guesses a password,
    /// once its content has taken a minute, and after 2 seconds without content.
    ///
    /// Clients of a network that has logged in, or of which a message was accepted, are *known* for
    /// a day; 16,384 networks at most. A stranger makes room for a known client at once, in the
    /// middle of its content too if no other waits. For another stranger it makes room after 2
    /// seconds without a command. A known client makes room for a known
    /// one after 2 seconds, for a stranger after 60.
    ///
    /// If none has to leave, the new client gets a 421, or no handshake under implicit TLS. An
    /// eighth as many connections more may be about to close, half of them to make room for
    /// strangers. Another 64 new ones may be told that there is no room.
    ///
    /// When more than three quarters are in use, sessions have to
    /// [hurry](posthaste_tokio::session::ServerSession::hurry), until at most half are in use.
    /// Below a limit of 20 they never do.
    ///
    /// Connections use at most an eighth more descriptors of open files and another 64. Another 200
    /// are left for files of handlers and of the program; of a small limit half is left in all. If
    /// the process may open fewer files at the start, the server warns and serves fewer
    /// connections. It does not where no listener [takes
    /// descriptors](Accept::takes_descriptors). When they are used up
    /// even so, some of the strangers who are idle leave, and of the known clients who have been
    /// for a minute.
    pub connections: usize,
    /// Connections from one network. Default 100. Ten times as many from loopback, where a proxy
    /// may run. Beyond it: 421 at once, or no handshake under implicit TLS.
    pub connections_per_network: usize,
    /// The size of a network, for [`connections_per_network`](Self::connections_per_network) and
    /// [`logins`](Self::logins). Default: one address of IPv4, a /64 of IPv6.
    pub networks: Networks,
    /// Connections from one wider network, whose size is in [`prefixes`](Self::prefixes). Default
    /// 300: one tenant of a range of addresses must not take the places of all others. Ten times as
    /// many from loopback. Beyond it: as for
    /// [`connections_per_network`](Self::connections_per_network).
    pub connections_per_prefix: usize,
    /// The size of a wider network. Default: a /24 of IPv4, a /48 of IPv6.
    pub prefixes: Networks,
    /// Memory for the envelopes of all connections together, in bytes. Each connection has 40 KiB
    /// of its own as well, enough for some 100 recipients. Default 32 MiB: with the connections'
    /// own that is 71 MiB. An ordinary recipient takes some 400 bytes, the longest some 4 KiB.
    /// Beyond it: 452 4.3.1 to MAIL and RCPT. An envelope gives its memory back at RSET, EHLO, the
    /// end of its message and of its connection.
    pub envelopes: usize,
    /// Memory for the contents that handlers have in memory, of all connections together, in bytes:
    /// what [`Body::collect`](crate::Body::collect) returns and a body that is spooled, until the
    /// handler drops it. Default 256 MiB. Beyond it: 452 4.3.1 after the content, and spooled
    /// content goes into a file. Of the clients whose content has taken a minute, or is waited for
    /// for more than 2 seconds, one leaves then with a 421, strangers first. A handler that reads
    /// piece by piece needs none of it, beside 16 KiB of each connection that sends content.
    pub contents: usize,
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
            connections_per_prefix: 300,
            prefixes: Networks { ipv4_prefix: 24, ipv6_prefix: 48 },
            envelopes: 32 * 1_024 * 1_024,
            contents: 256 * 1_024 * 1_024,
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
    takes_descriptors: bool,
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
    networks: Networks,
    /// Clients that are being told that there is no room.
    refused: Arc<Semaphore>,
    common: Common,
}

/// How long to wait after the system refused to accept, so that a lack of descriptors does not
/// spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The time between two lines of the log about that.
const TELL: Duration = Duration::from_secs(10);

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
        Self {
            service,
            options,
            listeners: Vec::new(),
            addresses: Vec::new(),
            takes_descriptors: false,
            shutdown: Box::pin(pending()),
        }
    }

    /// The same with other limits.
    pub fn with_options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a listener.
    pub fn listen<A: Accept>(mut self, listener: Listener<A>) -> Self {
        self.addresses.extend(listener.socket.local_address());
        self.takes_descriptors |= listener.socket.takes_descriptors();
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
        let Self { service, mut options, listeners, shutdown, takes_descriptors, addresses: _ } = self;
        let ends = Ends { drain: CancellationToken::new(), abort: CancellationToken::new() };
        // Dropping this future must not leave sessions running.
        let _abort = ends.abort.clone().drop_guard();
        if listeners.is_empty() {
            warn!("server without a listener, which no client can reach; add one with `listen`");
        }
        if takes_descriptors {
            options.connections = descriptors::cap(options.connections);
        }
        let drain = options.drain;
        let (networks, common) = (options.networks, Common::new(&options));
        let refused = Arc::new(Semaphore::new(REFUSED));
        let shared = Arc::new(Shared { service, networks, refused, common });
        let tasks = TaskTracker::new();
        let memory = free_memory(Arc::clone(&shared.common.contents), Arc::clone(&shared.common.admission));
        tasks.spawn(ends.drain.clone().run_until_cancelled_owned(memory));
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
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ends.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let address = peer.address.ip_or_loopback();
                // A proxy counts as the client that it will name.
                let counts = !trusted.proxies.contains(address) && !trusted.xclient.contains(address);
                match shared.common.admission.seat(counts.then_some(address)) {
                    Some(seat) => {
                        let (cx, terms) =
                            (Context::new(peer, Arc::clone(&settings)), (tls.clone(), Arc::clone(&trusted)));
                        tasks.spawn(serve(Arc::clone(&shared), ends.clone(), seat, stream, cx, terms));
                    }
                    // Under implicit TLS the client expects a handshake.
                    None if matches!(tls, Tls::Implicit(_)) => {}
                    None => {
                        if let Ok(turn) = Arc::clone(&shared.refused).try_acquire_owned() {
                            tasks.spawn(refuse(stream, turn));
                        }
                    }
                }
            }
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TELL) {
                    told = Some(Instant::now());
                    warn!(%error, "accept failed");
                }
                if descriptors::are_used_up(&error) {
                    shared.common.admission.relieve();
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Has clients leave whose content is waited for, while there is no memory for that of others.
async fn free_memory(contents: Arc<Budget>, admission: Arc<Admission>) {
    loop {
        contents.is_short().await;
        admission.free_memory();
        tokio::time::sleep(FREE_MEMORY).await;
    }
}

/// The time between two clients that leave for the sake of memory: each has a moment to do so.
const FREE_MEMORY: Duration = Duration::from_millis(50);

/// Clients that are told at once that there is no room. Others are closed without a word.
const REFUSED: usize = 64;

/// Says that there is no room.
async fn refuse<S: AsyncWrite + Unpin>(stream: S, _turn: OwnedSemaphorePermit) {
    say_busy(stream).await;
}

/// Best effort, for 1 s.
async fn say_busy<S: AsyncWrite + Unpin>(mut stream: S) {
    let _ = timeout(Duration::from_secs(1), stream.write_all(BUSY.reply().as_bytes())).await;
}

/// Serves one connection.
#[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
fn serve<V: Service, S: AsyncRead + AsyncWrite + Unpin + Send>(
    shared: Arc<Shared<V>>,
    ends: Ends,
    seat: Seat,
    mut stream: S,
    mut cx: Context,
    (tls, trusted): (Tls, Arc<Trusted>),
) -> impl Future<Output = ()> + Send {
    async move {
        if trusted.proxies.contains(cx.peer.address.ip_or_loopback())
            && Box::pin(meet(&ends, &seat, &mut stream, &mut cx.peer)).await.is_none()
        {
            return;
        }
        let address = cx.peer.address.ip_or_loopback();
        let trust = Trust { xclient: trusted.xclient.contains(address), xforward: trusted.xforward.contains(address) };
        let has_named = cx.peer.proxy.is_some() && !trust.xclient;
        drop(trusted);
        cx.peer.network = shared.networks.of(address);
        if has_named && seat.recount(address).is_none() {
            return if !matches!(tls, Tls::Implicit(_)) {
                Box::pin(say_busy(stream)).await
            };
        }
        let span = span(&cx);
        let session = converse_within(&shared.common, &ends, &seat, stream, &mut cx, &shared.service, (tls, trust));
        let ended = session.instrument(span.clone()).await;
        counters::ended(&ended);
        span.in_scope(|| ending::tell(&ended));
    }
}

/// Reads the header in which a proxy names its client. `None`: the connection is over.
async fn meet<S: AsyncRead + Unpin>(ends: &Ends, seat: &Seat, stream: &mut S, peer: &mut Peer) -> Option<()> {
    let proxy = peer.address;
    tokio::select! {
        met = proxy::accept(stream, peer) => met
            .inspect_err(|error| match error {
                ProxyError::Silent => debug!(%proxy, "connection lost before its PROXY header"),
                error => warn!(%proxy, %error, "PROXY header not accepted, connection closed"),
            })
            .ok(),
        () = ends.drain.cancelled() => None,
        () = seat.lost() => None,
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

    fn size_of_future<A, B, C, D, E, F, G>(_: fn(A, B, C, D, E, F) -> G) -> usize {
        size_of::<G>()
    }

    /// The future is the memory of a connection from its greeting to its end, and most connections
    /// wait most of the time. What only some of them are in the middle of has a box of its own: a
    /// handshake, a decision of the handler, a message, the 421 of an abort.
    #[test]
    fn the_future_of_a_connection_has_at_most_2200_bytes_whatever_its_handlers_futures_take() {
        let narrow = size_of_future(serve::<Wide<0>, TcpStream>);
        let wide = size_of_future(serve::<Wide<10_000>, TcpStream>);
        assert_eq!(narrow, wide);
        assert!(narrow <= 2_200, "{narrow} bytes");
    }
}
