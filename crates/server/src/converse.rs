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
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Context, Peer, ServerOptions, Service, Tls,
    admission::{Admission, Seat},
    budget::Budget,
    conversation::{Conversation, answer, bounded},
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
        let hurried = *self.admission.hurried().borrow();
        if hurried { settings.timeouts.handshake / 10 } else { settings.timeouts.handshake }
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
    let seat = Seat::free();
    let session = converse_within(&COMMON, &ends, &seat, stream, peer, service, (settings, tls));
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
    seat: &Seat,
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
            let done = tokio::select! {
                done = handshake => done,
                // No message has begun that a drain would have to wait for.
                () = ends.drain.cancelled() => return Ok(CloseReason::Shutdown),
                () = seat.lost() => return Ok(CloseReason::Displaced),
            };
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not finish it in time");
            done.map_err(late)
                .flatten()
                .map_err(|error| io::Error::new(error.kind(), format!("the TLS handshake failed: {error}")))?;
            None
        }
    };
    let mut cx = Context::new(peer, settings);
    cx.peer.tls = connection.is_tls();
    cx.peer.certificate = connection.peer_certificate();
    cx.settings = service.settings(&cx);
    let verdict = cx.settings.timeouts.verdict;
    let transport = match (cx.peer.tls, &starttls) {
        (true, _) => Transport::Tls,
        (false, Some(_)) => Transport::StartTls,
        (false, None) => Transport::Plain,
    };
    let mut driver = ServerDriver::new(connection, ServerSession::new(Arc::clone(&cx.settings), transport));
    let terms = Terms { verdict, lmtp: cx.settings.protocol == Protocol::Lmtp, tls: starttls };
    tokio::select! {
        ended = greet_and_run(common, ends, seat, &mut driver, cx, service, terms) => ended,
        () = ends.abort.cancelled() => {
            driver.abort();
            farewell(&mut driver).await;
            Ok(CloseReason::Shutdown)
        }
        // Only while the client is waited for.
        () = seat.lost() => {
            driver.displace();
            farewell(&mut driver).await;
            Ok(CloseReason::Displaced)
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

/// How long a last 421 may take. It mostly fits into the system's buffer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Writes the last reply. Best effort.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>) {
    let closed = async { while !matches!(driver.next().await, Ok(ServerEvent::Closed(_)) | Err(_)) {} };
    let _ = timeout(FAREWELL, closed).await;
}

async fn greet_and_run<S, V>(
    common: &Common,
    ends: &Ends,
    seat: &Seat,
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
    Conversation::new(common, ends, seat, driver, cx, handler, terms).run().await
}
