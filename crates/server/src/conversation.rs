//! One connection from greeting to close: the session's questions become the handler's methods.

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
        Ask, ServerSession, ServerSettings, Transport, Verdict,
        sasl::ServerMechanism,
        server::{CloseReason, Protocol},
    },
    wire::{Accepted, Mail, Rcpt, Refusal, ReversePath, refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    Body, Context, Envelope, Handler, Peer, ServerOptions, Service, Tls,
    budget::{self, Budget, Share},
    content::{End, Source, Turn},
    guessing::Guessing,
    login::Login,
};

/// What the conversations of a server share.
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
    /// Conversations end at their next boundary.
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

/// Holds one session over any stream: for tests of handlers in memory, and for streams that do not
/// come from a [`Listener`](crate::Listener). Ends the session at its next boundary when `shutdown`
/// completes.
///
/// All calls in a process share what a [`Server`](crate::Server) bounds for all of its connections,
/// with the defaults of [`ServerOptions`]. Dropping the future drops the connection.
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
    cx.peer.tls = connection.is_tls();
    cx.peer.certificate = connection.peer_certificate();
    cx.settings = service.settings(&cx);
    let verdict = cx.settings.timeouts.verdict;
    let transport = if cx.peer.tls { Transport::Tls } else { Transport::Plain };
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

/// What stays as it is for as long as the conversation lasts.
pub(crate) struct Terms {
    /// How long the handler may take for a verdict.
    pub(crate) verdict: Duration,
    lmtp: bool,
    tls: Option<Arc<ServerConfig>>,
}

/// How long the last words may take when the time of a drain is over. They are small, and mostly
/// fit into what the system holds.
const CUT: Duration = Duration::from_secs(1);

/// Says 421, in the middle of whatever it is; best effort.
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
    let mut conversation = Conversation {
        driver: Hurried { driver, hurried: common.hurried.subscribe() },
        handler,
        cx,
        share: Share::new(Arc::clone(&common.envelopes)),
        login: None,
        mechanism: None,
        terms,
        common,
        ends,
        told: 0,
    };
    conversation.driver.catch_up();
    conversation.run().await
}

pub(crate) struct Conversation<'c, S, H> {
    pub(crate) driver: Hurried<'c, S>,
    pub(crate) handler: H,
    pub(crate) cx: Context,
    /// What the envelope has of the memory for all envelopes.
    share: Share,
    pub(crate) login: Option<Login>,
    /// Boxed, since most connections are not in the middle of a login.
    pub(crate) mechanism: Option<Box<ServerMechanism>>,
    pub(crate) terms: Terms,
    pub(crate) common: &'c Common,
    pub(crate) ends: &'c Ends,
    /// How many refusals the log was told of.
    told: u8,
}

/// A driver that hurries whenever the server is nearly full.
pub(crate) struct Hurried<'c, S> {
    pub(crate) driver: &'c mut ServerDriver<S>,
    hurried: watch::Receiver<bool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Hurried<'_, S> {
    /// As [`ServerDriver::next`].
    pub(crate) async fn next(&mut self) -> io::Result<ServerEvent> {
        loop {
            tokio::select! {
                biased;
                event = self.driver.next() => return event,
                // The server lives for longer than its conversations.
                Ok(()) = self.hurried.changed() => self.catch_up(),
            }
        }
    }

    fn catch_up(&mut self) {
        let hurried = *self.hurried.borrow_and_update();
        self.driver.hurry(hurried);
    }
}

/// Refusals of a connection that the log is told of at its usual level.
const TOLD: u8 = 10;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, H: Handler> Conversation<'_, S, H> {
    async fn run(&mut self) -> io::Result<CloseReason> {
        let mut draining = false;
        loop {
            let event = tokio::select! {
                event = self.driver.next() => event?,
                () = self.ends.drain.cancelled(), if !draining => {
                    // After a message or a question the next turn of the loop asks again.
                    self.driver.driver.shutdown();
                    draining = true;
                    continue;
                }
            };
            match event {
                ServerEvent::Ask(ask) => self.question(ask).await?,
                ServerEvent::StartTls => {
                    let Some(config) = &self.terms.tls else { return Err(io::ErrorKind::Unsupported.into()) };
                    let handshake = self.driver.driver.accept_tls(Arc::clone(config));
                    // No message has begun that a drain would have to wait for, and nothing can be
                    // said.
                    let Some(done) = self.ends.drain.run_until_cancelled(handshake).await else {
                        return Ok(CloseReason::Shutdown);
                    };
                    done?;
                    let Peer { address, local, network, .. } = self.cx.peer;
                    let certificate = self.driver.driver.peer_certificate();
                    self.cx.peer = Peer { tls: true, certificate, network, ..Peer::new(address, local) };
                    self.login = None;
                    self.forget();
                }
                ServerEvent::Closed(reason) => return Ok(reason),
                ServerEvent::Reset => self.forget(),
                // Content comes only within `receive`.
                ServerEvent::Content(_)
                | ServerEvent::ContentRefused(_)
                | ServerEvent::ContentSwallowed
                | ServerEvent::ContentAborted => {}
            }
            if draining {
                self.driver.driver.shutdown();
            }
        }
    }

    async fn question(&mut self, ask: Ask) -> io::Result<()> {
        let limit = self.terms.verdict;
        let verdict = match ask {
            Ask::Connect => Verdict::Accept(None),
            Ask::Hello(name) => {
                let decision = bounded(limit, self.handler.hello(&self.cx, &name)).await;
                let accepted = decision.is_ok();
                if accepted {
                    self.cx.peer.hello = Some(name);
                }
                let verdict = self.decided("hello", "", decision);
                answer(self.driver.driver, verdict);
                self.cx.peer.extended = self.driver.driver.session().is_extended();
                if accepted {
                    self.forget();
                }
                return Ok(());
            }
            Ask::Auth { mechanism, initial_response } => self.auth(mechanism, initial_response).await,
            Ask::AuthResponse(response) => self.auth_response(response).await,
            Ask::Mail(mail) => self.mail(mail).await,
            Ask::Rcpt(rcpt) => self.rcpt(rcpt).await,
            Ask::Data => {
                self.cx.envelope.get_or_insert_with(empty);
                let decision = bounded(limit, self.handler.data(&self.cx)).await;
                let accepted = decision.is_ok();
                let verdict = self.decided("message", "", decision);
                answer(self.driver.driver, verdict);
                if !accepted {
                    return Ok(());
                }
                let received = self.receive().await;
                self.forget();
                return received;
            }
            // Answered where its content was read.
            Ask::Message { .. } => Verdict::Refuse(UNFINISHED),
            Ask::Other(command) => replied(bounded(limit, self.handler.other(&self.cx, &command)).await),
        };
        answer(self.driver.driver, verdict);
        Ok(())
    }

    async fn mail(&mut self, mail: Mail) -> Verdict {
        self.forget();
        let decision = match self.share.take(budget::of_mail(&mail)) {
            true => bounded(self.terms.verdict, self.handler.mail(&self.cx, &mail)).await,
            false => Err(NO_MEMORY),
        };
        let sender = decision.is_err().then(|| mail.reverse_path.to_string()).unwrap_or_default();
        match decision.is_ok() {
            true => self.cx.envelope = Some(Envelope::new(mail, Vec::new())),
            false => self.share.free(),
        }
        self.decided("sender", &sender, decision)
    }

    async fn rcpt(&mut self, rcpt: Rcpt) -> Verdict {
        self.cx.envelope.get_or_insert_with(empty);
        let octets = budget::of_rcpt(&rcpt);
        let decision = match self.share.take(octets) {
            true => bounded(self.terms.verdict, self.handler.rcpt(&self.cx, &rcpt))
                .await
                .inspect_err(|_| self.share.give(octets)),
            false => Err(NO_MEMORY),
        };
        let recipient = decision.is_err().then(|| rcpt.forward_path.to_string()).unwrap_or_default();
        if decision.is_ok() {
            self.cx.envelope.get_or_insert_with(empty).recipients.push(rcpt);
        }
        self.decided("recipient", &recipient, decision)
    }

    /// The transaction is over.
    fn forget(&mut self) {
        self.cx.envelope = None;
        self.share.free();
    }

    /// The verdict of a decision; a refusal goes into the log.
    fn decided(&mut self, what: &str, about: &str, decision: Result<(), Refusal>) -> Verdict {
        match decision {
            Ok(()) => Verdict::Accept(None),
            Err(refusal) => {
                self.tell(what, about, &refusal);
                Verdict::Refuse(refusal)
            }
        }
    }

    /// One line for a refusal. After the first ones of a connection they are debug lines: a
    /// stranger must not fill the log.
    fn tell(&mut self, what: &str, about: &str, refusal: &Refusal) {
        let Context { connection, peer, .. } = &self.cx;
        let (address, hello, tls) = (&peer.address, peer.hello_text(), peer.tls);
        let identity = peer.identity.as_deref().unwrap_or_default();
        let (reply, cause) = (refusal.reply(), refusal.cause());
        if self.told < TOLD {
            self.told += 1;
            info!(connection, %address, ?hello, tls, ?identity, about, %reply, cause, "{what} refused");
        } else {
            debug!(connection, %address, ?hello, tls, ?identity, about, %reply, cause, "{what} refused");
        }
    }

    /// From 354 to the reply to the end of the content.
    async fn receive(&mut self) -> io::Result<()> {
        let envelope = self.cx.envelope.take().unwrap_or_else(empty);
        let turn = Turn::default();
        let patience = self.cx.settings.timeouts.content_block;
        let mut source = Source::new(&mut self.driver, &turn, patience);
        let decisions = {
            let body = Body::borrowed(&mut source);
            tokio::select! {
                decisions = take(&mut self.handler, &self.cx, envelope, body, self.terms.lmtp) => decisions,
                () = turn.has_taken(self.terms.verdict) => Decisions::All(Err(LATE)),
            }
        };
        match source.into_end() {
            End::Complete => {
                for refusal in decisions.refusals() {
                    self.tell("message", "", refusal);
                }
                answer(self.driver.driver, decisions.into());
                return Ok(());
            }
            End::Closed => return Ok(()),
            End::Failed(kind) => return Err(kind.into()),
            // The handler has not seen the end, so it cannot have accepted the message.
            End::Open => {
                let refusal = match decisions {
                    Decisions::All(Err(refusal)) => refusal,
                    Decisions::All(Ok(_)) | Decisions::Each(_) => UNFINISHED,
                };
                self.tell("message", "", &refusal);
                self.driver.driver.refuse_content(refusal);
            }
            End::Refused(refusal) => self.tell("message", "", &refusal),
        }
        loop {
            match self.driver.next().await? {
                ServerEvent::ContentSwallowed | ServerEvent::ContentAborted => return Ok(()),
                ServerEvent::Ask(_) => {
                    answer(self.driver.driver, Verdict::Refuse(UNFINISHED));
                    return Ok(());
                }
                // The loop that called this gets the event again.
                ServerEvent::Closed(_) => return Ok(()),
                ServerEvent::Content(_)
                | ServerEvent::ContentRefused(_)
                | ServerEvent::Reset
                | ServerEvent::StartTls => {}
            }
        }
    }
}

/// What a handler said to a message.
enum Decisions {
    /// To all recipients.
    All(Result<Accepted, Refusal>),
    /// To each of them, under LMTP.
    Each(Vec<Result<Accepted, Refusal>>),
}

impl Decisions {
    fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        let decisions = match self {
            Self::All(decision) => std::slice::from_ref(decision),
            Self::Each(decisions) => decisions,
        };
        decisions.iter().filter_map(|decision| decision.as_ref().err())
    }
}

impl From<Decisions> for Verdict {
    fn from(decisions: Decisions) -> Self {
        match decisions {
            Decisions::All(decision) => replied(decision),
            Decisions::Each(decisions) => Self::Each(decisions),
        }
    }
}

/// The message in the words of its protocol.
async fn take<H: Handler>(handler: &mut H, cx: &Context, envelope: Envelope, body: Body<'_>, lmtp: bool) -> Decisions {
    if lmtp {
        handler.deliver(cx, envelope, body).await.map_or_else(|refusal| Decisions::All(Err(refusal)), Decisions::Each)
    } else {
        Decisions::All(handler.message(cx, envelope, body).await)
    }
}

fn replied(decision: Result<Accepted, Refusal>) -> Verdict {
    match decision {
        Ok(accepted) => Verdict::Accept(Some(accepted)),
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

/// Gives a verdict. One that does not fit becomes a 451, so that a handler's mistake never hangs a
/// client.
fn answer<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>, verdict: Verdict) {
    if let Err(error) = driver.answer(verdict) {
        debug!(%error, "verdict does not fit");
        // Fails only when the session has ended, and with it the question.
        let _ = driver.answer(Verdict::Refuse(UNFINISHED));
    }
}

async fn bounded<T>(limit: Duration, decision: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(limit, decision).await.unwrap_or(Err(LATE))
}

const NO_MEMORY: Refusal = refusal!("452 4.3.1 Out of memory for envelopes, try again later");
const LATE: Refusal = refusal!("451 4.3.0 No decision in time, try again later");
const UNFINISHED: Refusal = refusal!("451 4.3.0 Local error, try again later");

fn empty() -> Envelope {
    Envelope::new(Mail::new(ReversePath::Null).into_owned(), Vec::new())
}
