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
    wire::{Accepted, Command, Mail, Refusal, Reply, refusal, reply::WrongSeverity},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    Body, Envelope, Handler, Peer, ServerOptions, Service,
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
    /// Whether it is nearly full, so that conversations have to hurry.
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
}

/// Holds one conversation over a connection: any stream, with TLS up already or not. `tls` is what STARTTLS is answered
/// with; `drain` asks for an end at the next boundary. What a [`Server`](crate::Server) bounds for all of its connections, all
/// of these calls in a process share, with the defaults of [`ServerOptions`].
///
/// # Errors
/// [`io::Error`] when the connection failed. What the handler accepted before stays accepted.
pub async fn converse<S, V>(
    connection: Connection<S>,
    peer: Peer,
    service: &V,
    settings: Arc<ServerSettings>,
    tls: Option<Arc<ServerConfig>>,
    drain: &CancellationToken,
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    static COMMON: LazyLock<Common> = LazyLock::new(|| Common::new(&ServerOptions::default()));
    let ends = Ends { drain: drain.clone(), abort: CancellationToken::new() };
    converse_within(&COMMON, &ends, connection, peer, service, (settings, tls)).await
}

/// The same within a server.
pub(crate) async fn converse_within<S, V>(
    common: &Common,
    ends: &Ends,
    connection: Connection<S>,
    mut peer: Peer,
    service: &V,
    (settings, tls): (Arc<ServerSettings>, Option<Arc<ServerConfig>>),
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    peer.tls = connection.is_tls();
    peer.certificate = connection.peer_certificate();
    let settings = service.settings(&peer, &settings);
    let terms = Terms { verdict: settings.timeouts.verdict, lmtp: settings.protocol == Protocol::Lmtp, tls };
    let transport = if peer.tls { Transport::Tls } else { Transport::Plain };
    let mut driver = ServerDriver::new(connection, ServerSession::new(settings, transport));
    tokio::select! {
        ended = greet_and_run(common, ends, &mut driver, peer, service, terms) => ended,
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

/// How long the last words may take when the time of a drain is over. They are small, and mostly fit into what the system holds.
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
    peer: Peer,
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
            _ => {}
        }
    }
    let handler = match bounded(terms.verdict, service.connect(&peer)).await {
        Ok(handler) => handler,
        Err(reply) => {
            debug!(address = %peer.address, %reply, "client refused");
            answer(driver, refuse(reply));
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
        peer,
        envelope: None,
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
    pub(crate) peer: Peer,
    envelope: Option<Envelope>,
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
                    // Behind a message or a question the next turn of the loop asks again.
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
                    // Nothing has begun that a drain would have to wait for, and nothing can be said.
                    let Some(done) = self.ends.drain.run_until_cancelled(handshake).await else {
                        return Ok(CloseReason::Shutdown);
                    };
                    done?;
                    let Peer { address, local, network, .. } = self.peer;
                    let certificate = self.driver.driver.peer_certificate();
                    self.peer = Peer { tls: true, certificate, network, ..Peer::new(address, local) };
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
        let Self { handler, peer, envelope, share, terms, .. } = self;
        let limit = terms.verdict;
        let verdict = match ask {
            Ask::Connect => Verdict::Accept(None),
            Ask::Hello(name) => {
                let verdict = decided(bounded(limit, handler.hello(peer, &name)).await);
                let accepted = matches!(verdict, Verdict::Accept(_));
                if accepted {
                    peer.hello = Some(name);
                }
                self.answer("hello", "", verdict);
                self.peer.extended = self.driver.driver.session().is_extended();
                if accepted {
                    self.forget();
                }
                return Ok(());
            }
            Ask::Auth { mechanism, initial_response } => self.auth(mechanism, initial_response).await,
            Ask::AuthResponse(response) => self.auth_response(response).await,
            Ask::Mail(mail) => {
                *envelope = None;
                share.free();
                let decision = match share.take(budget::of_mail(&mail)) {
                    true => bounded(limit, handler.mail(peer, &mail)).await,
                    false => Err(no_memory()),
                };
                if let Err(reply) = &decision {
                    share.free();
                    let sender = mail.reverse_path.to_string();
                    self.tell("sender", &sender, reply);
                } else {
                    *envelope = Some(Envelope { mail, recipients: Vec::new() });
                }
                decided(decision)
            }
            Ask::Rcpt(rcpt) => {
                let envelope = envelope.get_or_insert_with(empty);
                let octets = budget::of_rcpt(&rcpt);
                let decision = match share.take(octets) {
                    true => {
                        bounded(limit, handler.rcpt(peer, envelope, &rcpt)).await.inspect_err(|_| share.give(octets))
                    }
                    false => Err(no_memory()),
                };
                if let Err(reply) = &decision {
                    let recipient = rcpt.forward_path.to_string();
                    self.tell("recipient", &recipient, reply);
                } else {
                    envelope.recipients.push(rcpt);
                }
                decided(decision)
            }
            Ask::Data => {
                let envelope = envelope.get_or_insert_with(empty);
                let verdict = decided(bounded(limit, handler.data(peer, envelope)).await);
                let accepted = matches!(verdict, Verdict::Accept(_));
                self.answer("message", "", verdict);
                if !accepted {
                    return Ok(());
                }
                let received = self.receive().await;
                self.forget();
                return received;
            }
            // Answered where its content was read.
            Ask::Message { .. } => refuse(unfinished()),
            Ask::Other(command) => replied(bounded(limit, handler.other(peer, &Command::from(&command))).await),
        };
        answer(self.driver.driver, verdict);
        Ok(())
    }

    /// The transaction is over.
    fn forget(&mut self) {
        self.envelope = None;
        self.share.free();
    }

    /// Answers, and tells the log of a refusal.
    fn answer(&mut self, what: &str, about: &str, verdict: Verdict) {
        if let Verdict::Refuse(refusal) = &verdict {
            self.tell(what, about, refusal.reply());
        }
        answer(self.driver.driver, verdict);
    }

    /// One line for a refusal. Beyond the first ones of a connection they are for who looks for something: a stranger
    /// does not fill the log.
    fn tell(&mut self, what: &str, about: &str, reply: &Reply) {
        let Peer { address, tls, identity, .. } = &self.peer;
        let identity = identity.as_deref().unwrap_or_default();
        if self.told < TOLD {
            self.told += 1;
            info!(%address, hello = ?self.peer.hello_text(), tls, ?identity, about, %reply, "{what} refused");
        } else {
            debug!(%address, hello = ?self.peer.hello_text(), tls, ?identity, about, %reply, "{what} refused");
        }
    }

    /// From 354 to the reply to the end of the content.
    async fn receive(&mut self) -> io::Result<()> {
        let envelope = self.envelope.take().unwrap_or_else(empty);
        let turn = Turn::default();
        let mut source = Source { driver: &mut self.driver, end: End::Open, turn: &turn };
        let verdict = {
            let mut body = Body::new(&mut source);
            tokio::select! {
                verdict = take(&mut self.handler, &self.peer, envelope, &mut body, self.terms.lmtp) => verdict,
                () = turn.has_taken(self.terms.verdict) => refuse(late()),
            }
        };
        match source.end {
            End::Complete => {
                self.answer("message", "", verdict);
                return Ok(());
            }
            End::Closed => return Ok(()),
            End::Failed(kind) => return Err(kind.into()),
            // Whatever the handler said, it has not seen the end.
            End::Open => {
                let refusal = match verdict {
                    Verdict::Refuse(refusal) => refusal,
                    _ => refusal(unfinished()),
                };
                self.tell("message", "", refusal.reply());
                self.driver.driver.refuse_content(refusal);
            }
            End::Refused(refusal) => self.tell("message", "", refusal.reply()),
        }
        loop {
            match self.driver.next().await? {
                ServerEvent::ContentSwallowed | ServerEvent::ContentAborted => return Ok(()),
                ServerEvent::Ask(_) => {
                    answer(self.driver.driver, refuse(unfinished()));
                    return Ok(());
                }
                // It is said once more to the loop that looks for it.
                ServerEvent::Closed(_) => return Ok(()),
                _ => {}
            }
        }
    }
}

/// The message in the words of its protocol.
async fn take<H: Handler>(
    handler: &mut H,
    peer: &Peer,
    envelope: Envelope,
    body: &mut Body<'_>,
    lmtp: bool,
) -> Verdict {
    if lmtp {
        let each = |replies: Vec<Reply>| Verdict::Each(replies.into_iter().map(decision).collect());
        handler.deliver(peer, envelope, body).await.map_or_else(refuse, each)
    } else {
        replied(handler.message(peer, envelope, body).await)
    }
}

fn replied(decided: Result<Reply, Reply>) -> Verdict {
    match decided {
        Ok(reply) => match Accepted::try_from(reply) {
            Ok(accepted) => Verdict::Accept(Some(accepted)),
            Err(_) => refuse(unfinished()),
        },
        Err(reply) => refuse(reply),
    }
}

/// A reply as what it says; one that says neither is taken for a 451.
fn decision(reply: Reply) -> Result<Accepted, Refusal> {
    Accepted::try_from(reply).map_err(|error| match error {
        WrongSeverity::NotAccepted(reply) | WrongSeverity::NotRefusal(reply) => refusal(reply),
    })
}

/// A reply that refuses, or a 451 in its place.
fn refusal(reply: Reply) -> Refusal {
    Refusal::try_from(reply).unwrap_or_else(|_| refusal!("451 4.3.0 Local error, try again later"))
}

fn refuse(reply: Reply) -> Verdict {
    Verdict::Refuse(refusal(reply))
}

/// Gives a verdict; one that does not fit becomes a 451, so that a handler's mistake never hangs a client.
pub(crate) fn answer<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>, verdict: Verdict) {
    if let Err(error) = driver.answer(verdict) {
        debug!(%error, "a handler's verdict does not fit");
        // Fails only when the question is gone, and with it whoever asked.
        let _ = driver.answer(refuse(unfinished()));
    }
}

async fn bounded<T>(limit: Duration, decision: impl Future<Output = Result<T, Reply>>) -> Result<T, Reply> {
    timeout(limit, decision).await.unwrap_or_else(|_| Err(late()))
}

fn no_memory() -> Reply {
    Reply::from_static("452 4.3.1 Out of memory for envelopes, try again later\r\n")
}

fn late() -> Reply {
    Reply::from_static("451 4.3.0 No decision in time, try again later\r\n")
}

fn decided(decision: Result<(), Reply>) -> Verdict {
    match decision {
        Ok(()) => Verdict::Accept(None),
        Err(reply) => refuse(reply),
    }
}

fn unfinished() -> Reply {
    Reply::from_static("451 4.3.0 Local error, try again later\r\n")
}

fn empty() -> Envelope {
    Envelope { mail: Mail::new(posthaste_tokio::wire::ReversePath::Null).into_owned(), recipients: Vec::new() }
}
