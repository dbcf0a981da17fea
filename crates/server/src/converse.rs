//! One connection from its first octet to its close: TLS, the service, and the session that
//! follows.

use std::{
    future::Future,
    io,
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
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Context, Peer, PeerTls, ServerOptions, Service, Tls,
    budget::Budget,
    conversation::{Conversation, answer, bounded},
    guessing::Guessing,
};

/// State that the sessions of a server share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) envelopes: Arc<Budget>,
    pub(crate) guessing: Guessing,
    /// `true` while the server is nearly full and sessions have to hurry.
    pub(crate) hurried: watch::Sender<bool>,
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
            hurried: watch::Sender::new(false),
        }
    }

    fn handshake_timeout(&self, settings: &ServerSettings) -> Duration {
        let hurried = *self.hurried.borrow();
        if hurried { settings.timeouts.handshake / 10 } else { settings.timeouts.handshake }
    }
}

/// Serves one session over any stream: for tests of handlers in memory, and for streams that do not
/// come from a [`Listener`](crate::Listener). When `shutdown` completes, the session ends at its
/// next [boundary](posthaste_tokio::session::ServerSession::shutdown).
///
/// If the stream has come through TLS that is not this function's, say so in [`Peer::tls`]. The
/// session then offers no STARTTLS, and passwords may cross it.
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
    let session = converse_within(&COMMON, &ends, stream, peer, service, (settings, tls));
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

/// The same within a server.
pub(crate) async fn converse_within<S, V>(
    common: &Common,
    ends: &Ends,
    stream: S,
    peer: Peer,
    service: &V,
    (settings, tls): (Arc<ServerSettings>, Tls),
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    let mut connection = Connection::new(stream);
    let starttls = match tls {
        Tls::Off => None,
        Tls::StartTls(config) => Some(config),
        Tls::Implicit(config) => {
            let handshake = timeout(common.handshake_timeout(&settings), connection.accept_tls(config));
            // No message has begun that a drain would have to wait for.
            let Some(done) = ends.drain.run_until_cancelled(handshake).await else {
                return Ok(CloseReason::Shutdown);
            };
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not finish it in time");
            done.map_err(late)
                .flatten()
                .map_err(|error| io::Error::new(error.kind(), format!("the TLS handshake failed: {error}")))?;
            None
        }
    };
    let mut cx = Context::new(peer, settings);
    // Without TLS of its own the stream may have come through TLS all the same, as its peer says.
    cx.peer.tls = PeerTls::of(&connection).or(cx.peer.tls.take());
    cx.settings = service.settings(&cx);
    let verdict = cx.settings.timeouts.verdict;
    let transport = match (cx.peer.tls.is_some(), &starttls) {
        (true, _) => Transport::Tls,
        (false, Some(_)) => Transport::StartTls,
        (false, None) => Transport::Plain,
    };
    let mut driver = ServerDriver::new(connection, ServerSession::new(Arc::clone(&cx.settings), transport));
    let terms = Terms { verdict, lmtp: cx.settings.protocol == Protocol::Lmtp, tls: starttls };
    tokio::select! {
        ended = greet_and_run(common, ends, &mut driver, cx, service, terms) => ended,
        () = ends.abort.cancelled() => {
            cut(&mut driver).await;
            Ok(CloseReason::Shutdown)
        }
    }
}

/// The terms of a session, fixed at its start.
pub(crate) struct Terms {
    /// How long the handler may take for a verdict.
    pub(crate) verdict: Duration,
    pub(crate) lmtp: bool,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// How long the 421 may take after a drain has timed out. It mostly fits into the system's buffer.
const CUT: Duration = Duration::from_secs(1);

/// Says 421 at once, also within a message. Best effort.
async fn cut<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>) {
    driver.abort();
    let _ = timeout(CUT, async { while !matches!(driver.next().await, Ok(ServerEvent::Closed(_)) | Err(_)) {} }).await;
}

async fn greet_and_run<S, V>(
    common: &Common,
    ends: &Ends,
    driver: &mut ServerDriver<S>,
    cx: Context,
    service: &V,
    terms: Terms,
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    loop {
        match driver.next().await? {
            ServerEvent::Ask(_) => break,
            ServerEvent::Closed(reason) => return Ok(reason),
            ServerEvent::Content(_)
            | ServerEvent::ContentRefused(_)
            | ServerEvent::ContentSwallowed
            | ServerEvent::ContentAborted
            | ServerEvent::Reset
            | ServerEvent::StartTls => {}
        }
    }
    let handler = match bounded(terms.verdict, service.connect(&cx)).await {
        Ok(handler) => handler,
        Err(refusal) => {
            debug!(connection = cx.connection, address = %cx.peer.address, %refusal, cause = refusal.cause(), "client refused");
            answer(driver, Verdict::Refuse(refusal));
            loop {
                if let ServerEvent::Closed(reason) = driver.next().await? {
                    return Ok(reason);
                }
            }
        }
    };
    answer(driver, Verdict::Accept(None));
    Conversation::new(common, ends, driver, cx, handler, terms).run().await
}
