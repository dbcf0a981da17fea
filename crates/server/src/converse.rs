//! One connection from its first octet to its close: TLS, the service, and the session that
//! follows.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use posthaste_tokio::{
    Connection, ServerDriver, ServerEvent,
    rustls::ServerConfig,
    session::{
        ServerSession, ServerSettings, Transport, Verdict,
        server::{ClientFacts, CloseReason, Protocol},
    },
    wire::{Refusal, refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{
    Instrument as _, Span, debug, error_span,
    field::{Empty, display},
};

use crate::{
    Context, Peer, PeerTls, ServerOptions, Service, Tls,
    admission::{Admission, Seat},
    budget::Budget,
    conversation::{Conversation, Ended, Signals, answer, bounded},
    ending::{Lost, Over, handshake_failed},
    guessing::Guessing,
};

/// State that the sessions of a server share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) envelopes: Arc<Budget>,
    pub(crate) contents: Arc<Budget>,
    pub(crate) guessing: Guessing,
    pub(crate) admission: Arc<Admission>,
}

/// The two ends of a server.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// Sessions end at their next boundary.
    pub(crate) drain: CancellationToken,
    /// The time for that is over.
    pub(crate) abort: CancellationToken,
}

impl Common {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        Self {
            envelopes: Arc::new(Budget::new(options.envelopes)),
            contents: Arc::new(Budget::new(options.contents)),
            guessing: Guessing::new(options.logins.clone()),
            admission: Arc::new(Admission::new(options)),
        }
    }

    fn handshake_timeout(&self, settings: &ServerSettings) -> Duration {
        if self.admission.hurry().is_wanted() { settings.timeouts.handshake / 10 } else { settings.timeouts.handshake }
    }
}

/// Serves one session over any stream: for tests of handlers in memory, and for streams that do not
/// come from a [`Listener`](crate::Listener). When `shutdown` completes, the session ends at its
/// next [boundary](posthaste_tokio::session::ServerSession::shutdown).
///
/// If the stream has come through TLS that is not this function's, say so in [`Peer::tls`]. The
/// session then offers no STARTTLS, and passwords may cross it.
///
/// All calls in a process share the limits for envelopes, contents and logins, with the defaults of
/// [`ServerOptions`]. Connections are not counted. Dropping the future drops the connection.
///
/// # Errors
/// [`io::Error`] when the connection failed. Messages that the handler has accepted stay accepted.
pub async fn converse<S, V>(
    stream: S,
    peer: Peer,
    service: &V,
    settings: Arc<ServerSettings>,
    tls: Tls,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    static COMMON: LazyLock<Common> = LazyLock::new(|| Common::new(&ServerOptions::default()));
    let ends = Ends { drain: CancellationToken::new(), abort: CancellationToken::new() };
    let mut cx = Context::new(peer, settings);
    let seat = Seat::free();
    let span = span(&cx);
    let session =
        converse_within(&COMMON, &ends, &seat, stream, &mut cx, service, (tls, Trust::default())).instrument(span);
    let drain = async {
        shutdown.await;
        ends.drain.cancel();
        std::future::pending().await
    };
    tokio::select! {
        ended = session => ended.map(|over| over.reason).map_err(|lost| lost.error),
        never = drain => never,
    }
}

/// The span of a connection, for the log.
pub(crate) fn span(cx: &Context) -> Span {
    // At the level of errors: every line that is logged needs it.
    // `client`: the one that a proxy has named by XCLIENT.
    error_span!("connection", number = cx.connection, address = %cx.peer.address, client = Empty)
}

/// The same within a server.
///
/// Its future is the memory of an idle connection, so what is rarely under way is boxed.
#[allow(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(crate) fn converse_within<'c, S, V>(
    common: &'c Common,
    ends: &'c Ends,
    seat: &'c Seat,
    stream: S,
    cx: &'c mut Context,
    service: &'c V,
    (tls, trust): (Tls, Trust),
) -> impl Future<Output = Result<Over, Lost>> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    async move {
        let (connection, starttls) = match tls {
            Tls::Off => (Connection::new(stream), None),
            Tls::StartTls(config) => (Connection::new(stream), Some(config)),
            Tls::Implicit(config) => {
                match Box::pin(handshake(common, ends, seat, stream, config, &cx.settings)).await? {
                    Ok(connection) => (connection, None),
                    Err(reason) => return Ok(reason.into()),
                }
            }
        };
        let (mut driver, terms) = begin(connection, cx, service, starttls, trust);
        let (mut hurry, mut drain) = (pin!(common.admission.hurry().changed()), pin!(ends.drain.cancelled()));
        let ended = tokio::select! {
            biased;
            ended = async {
                let mut greeted = Box::pin(greet(&mut driver, cx, service, terms.verdict)).await?;
                loop {
                    let handler = match greeted {
                        Ok(handler) => handler,
                        Err(reason) => return Ok(reason),
                    };
                    let signals = Signals { hurry: hurry.as_mut(), drain: drain.as_mut() };
                    let server = (common, ends, seat, signals);
                    let facts = match Conversation::new(server, &mut driver, cx, handler, &terms).run().await? {
                        Ended::Closed(reason) => return Ok(reason),
                        Ended::Named(facts) => facts,
                    };
                    greeted = Box::pin(begin_with(&mut driver, cx, service, facts, (&terms, seat))).await?;
                }
            } => ended,
            () = ends.abort.cancelled() => {
                driver.abort();
                Box::pin(farewell(&mut driver)).await;
                Ok(CloseReason::Shutdown)
            }
            // Only while the client is waited for.
            () = seat.lost() => {
                driver.displace();
                Box::pin(farewell(&mut driver)).await;
                Ok(CloseReason::Displaced)
            }
        };
        let session = driver.session();
        ended.map(|reason| Over::of(session, reason)).map_err(|error| Lost {
            error,
            was_at_work: session.is_in_transaction() || driver.connection().is_in_handshake(),
        })
    }
}

/// The handshake of implicit TLS. `Err` in it: the client has to leave.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    common: &Common,
    ends: &Ends,
    seat: &Seat,
    stream: S,
    config: Arc<ServerConfig>,
    settings: &ServerSettings,
) -> Result<Result<Connection<S>, CloseReason>, Lost> {
    let mut connection = Connection::new(stream);
    let handshake = timeout(common.handshake_timeout(settings), connection.accept_tls(config));
    let done = tokio::select! {
        done = handshake => done,
        // No message has begun that a drain would have to wait for.
        () = ends.drain.cancelled() => return Ok(Err(CloseReason::Shutdown)),
        () = seat.lost() => return Ok(Err(CloseReason::Displaced)),
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not finish it in time");
    match done.map_err(late).flatten() {
        Ok(()) => Ok(Ok(connection)),
        Err(error) => Err(Lost { error: handshake_failed(error), was_at_work: connection.is_in_handshake() }),
    }
}

/// A session with the settings of its service.
fn begin<S: AsyncRead + AsyncWrite + Unpin, V: Service>(
    connection: Connection<S>,
    cx: &mut Context,
    service: &V,
    starttls: Option<Arc<ServerConfig>>,
    trust: Trust,
) -> (ServerDriver<S>, Terms) {
    // Without TLS of its own the stream may have come through TLS all the same, as its peer says.
    cx.peer.tls = PeerTls::of(&connection).or(cx.peer.tls.take());
    cx.settings = service.settings(cx);
    let Trust { xclient, xforward } = trust;
    if xclient || xforward {
        let offers = &mut Arc::make_mut(&mut cx.settings).offers;
        offers.xclient |= xclient;
        offers.xforward |= xforward;
    }
    let transport = match (cx.peer.tls.is_some(), &starttls) {
        (true, _) => Transport::Tls,
        (false, Some(_)) => Transport::StartTls,
        (false, None) => Transport::Plain,
    };
    let driver = ServerDriver::new(connection, ServerSession::new(Arc::clone(&cx.settings), transport));
    let lmtp = cx.settings.protocol == Protocol::Lmtp;
    (driver, Terms { verdict: cx.settings.timeouts.verdict, lmtp, tls: starttls })
}

/// What a client may say about others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trust {
    /// XCLIENT is offered.
    pub(crate) xclient: bool,
    /// XFORWARD is offered.
    pub(crate) xforward: bool,
}

/// The terms of a session, fixed at its start.
pub(crate) struct Terms {
    /// How long the handler may take for a verdict.
    pub(crate) verdict: Duration,
    pub(crate) lmtp: bool,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// How long a last 421 may take. It mostly fits into the system's buffer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Writes the last reply. Best effort.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>) {
    let closed = async { while !matches!(driver.next().await, Ok(ServerEvent::Closed(_)) | Err(_)) {} };
    let _ = timeout(FAREWELL, closed).await;
}

/// Begins with the client that a proxy has named (XCLIENT), as with one that has just connected.
/// `Err`: the session is over.
async fn begin_with<S, V>(
    driver: &mut ServerDriver<S>,
    cx: &mut Context,
    service: &V,
    facts: Arc<ClientFacts>,
    (terms, seat): (&Terms, &Seat),
) -> io::Result<Result<V::Handler, CloseReason>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    (cx.envelope, cx.forwarded) = (None, None);
    cx.peer.take_facts(&facts);
    if facts.address.is_some() {
        Span::current().record("client", display(cx.peer.address));
    }
    debug!("client named by its proxy");
    if facts.address.is_some() {
        match seat.recount(cx.peer.address.ip_or_loopback()) {
            Some(network) => cx.peer.network = network,
            None => return refuse(driver, BUSY).await.map(Err),
        }
    }
    decide(driver, cx, service, terms.verdict).await
}

/// Asks the service for a handler. `Err`: the session is over.
async fn greet<S, V>(
    driver: &mut ServerDriver<S>,
    cx: &Context,
    service: &V,
    verdict: Duration,
) -> io::Result<Result<V::Handler, CloseReason>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    loop {
        match driver.next().await? {
            ServerEvent::Ask(_) => break,
            ServerEvent::Closed(reason) => return Ok(Err(reason)),
            ServerEvent::Content(_)
            | ServerEvent::ContentRefused(_)
            | ServerEvent::ContentSwallowed
            | ServerEvent::ContentAborted
            | ServerEvent::Refused
            | ServerEvent::Reset
            | ServerEvent::StartTls => {}
        }
    }
    decide(driver, cx, service, verdict).await
}

/// Decides about the client that has connected. `Err`: the session is over.
async fn decide<S, V>(
    driver: &mut ServerDriver<S>,
    cx: &Context,
    service: &V,
    verdict: Duration,
) -> io::Result<Result<V::Handler, CloseReason>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    match bounded(verdict, service.connect(cx)).await {
        Ok(handler) => {
            answer(driver, Verdict::Accept(None));
            Ok(Ok(handler))
        }
        Err(refusal) => {
            debug!(%refusal, cause = refusal.cause(), "client refused");
            refuse(driver, refusal).await.map(Err)
        }
    }
}

/// Refuses the client, and waits for the end of the session.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    driver: &mut ServerDriver<S>,
    refusal: Refusal,
) -> io::Result<CloseReason> {
    answer(driver, Verdict::Refuse(refusal));
    loop {
        if let ServerEvent::Closed(reason) = driver.next().await? {
            return Ok(reason);
        }
    }
}

pub(crate) const BUSY: Refusal = refusal!("421 4.3.2 Too many connections, try again later");
