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
        server::{CloseReason, Protocol},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, error_span};

use crate::{
    Context, Peer, ServerOptions, Service, Tls,
    admission::{Admission, Seat},
    budget::Budget,
    conversation::{Conversation, Signals, answer, bounded},
    guessing::Guessing,
};

/// State that the sessions of a server share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) envelopes: Arc<Budget>,
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
/// All calls in a process share the limits for envelopes and logins, with the defaults of
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
    let session = converse_within(&COMMON, &ends, &seat, stream, &mut cx, service, tls).instrument(span);
    let drain = async {
        shutdown.await;
        ends.drain.cancel();
        std::future::pending().await
    };
    tokio::select! {
        ended = session => ended,
        never = drain => never,
    }
}

/// The span of a connection, for the log.
pub(crate) fn span(cx: &Context) -> Span {
    // At the level of errors: every line that is logged needs it.
    error_span!("connection", number = cx.connection, address = %cx.peer.address)
}

/// The same within a server.
///
/// Its future is the memory of an idle connection, so what is rarely under way is boxed.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(crate) fn converse_within<'c, S, V>(
    common: &'c Common,
    ends: &'c Ends,
    seat: &'c Seat,
    stream: S,
    cx: &'c mut Context,
    service: &'c V,
    tls: Tls,
) -> impl Future<Output = io::Result<CloseReason>> + Send
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
                    Err(reason) => return Ok(reason),
                }
            }
        };
        let (mut driver, terms) = begin(connection, cx, service, starttls);
        let (hurry, drain) = (pin!(common.admission.hurry().changed()), pin!(ends.drain.cancelled()));
        let server = (common, ends, seat, Signals { hurry, drain });
        tokio::select! {
            biased;
            ended = greet_and_run(server, &mut driver, cx, service, terms) => ended,
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
        }
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
) -> io::Result<Result<Connection<S>, CloseReason>> {
    let mut connection = Connection::new(stream);
    let handshake = timeout(common.handshake_timeout(settings), connection.accept_tls(config));
    let done = tokio::select! {
        done = handshake => done,
        // No message has begun that a drain would have to wait for.
        () = ends.drain.cancelled() => return Ok(Err(CloseReason::Shutdown)),
        () = seat.lost() => return Ok(Err(CloseReason::Displaced)),
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not finish it in time");
    done.map_err(late)
        .flatten()
        .map_err(|error| io::Error::new(error.kind(), format!("the TLS handshake failed: {error}")))?;
    Ok(Ok(connection))
}

/// A session with the settings of its service.
fn begin<S: AsyncRead + AsyncWrite + Unpin, V: Service>(
    connection: Connection<S>,
    cx: &mut Context,
    service: &V,
    starttls: Option<Arc<ServerConfig>>,
) -> (ServerDriver<S>, Terms) {
    cx.peer.tls = connection.is_tls();
    cx.peer.certificate = connection.peer_certificate();
    cx.settings = service.settings(cx);
    let transport = match (cx.peer.tls, &starttls) {
        (true, _) => Transport::Tls,
        (false, Some(_)) => Transport::StartTls,
        (false, None) => Transport::Plain,
    };
    let driver = ServerDriver::new(connection, ServerSession::new(Arc::clone(&cx.settings), transport));
    let lmtp = cx.settings.protocol == Protocol::Lmtp;
    (driver, Terms { verdict: cx.settings.timeouts.verdict, lmtp, tls: starttls })
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

async fn greet_and_run<'s, S, V>(
    server: (&'s Common, &'s Ends, &'s Seat, Signals<'_, 's>),
    driver: &mut ServerDriver<S>,
    cx: &mut Context,
    service: &V,
    terms: Terms,
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    match Box::pin(greet(driver, cx, service, terms.verdict)).await? {
        Ok(handler) => Conversation::new(server, driver, cx, handler, terms).run().await,
        Err(reason) => Ok(reason),
    }
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
            | ServerEvent::Reset
            | ServerEvent::StartTls => {}
        }
    }
    match bounded(verdict, service.connect(cx)).await {
        Ok(handler) => {
            answer(driver, Verdict::Accept(None));
            Ok(Ok(handler))
        }
        Err(refusal) => {
            debug!(%refusal, cause = refusal.cause(), "client refused");
            answer(driver, Verdict::Refuse(refusal));
            loop {
                if let ServerEvent::Closed(reason) = driver.next().await? {
                    return Ok(Err(reason));
                }
            }
        }
    }
}
