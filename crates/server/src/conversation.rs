//! One connection from greeting to close: the session's questions become the handler's methods.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use posthaste_io::{
    Connection, Question, ServerDriver, ServerEvent,
    rustls::ServerConfig,
    session::{
        QuestionId, ServerSession, ServerSettings, Verdict,
        sasl::{Nonce, SaslError, ServerContext, ServerMechanism, ServerStep},
        server::{CloseReason, Protocol},
    },
    wire::{Command, Mail, Reply, Secret, Severity},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Body, BodyError, BodySource, Envelope, Handler, Peer, Service,
    password::{random, unknown_users},
};

/// Holds one conversation over a connection: any stream, with TLS up already or not. `tls` is what STARTTLS is answered
/// with; `drain` asks for an end at the next boundary.
///
/// # Errors
/// [`io::Error`] when the connection failed. What the handler accepted before stays accepted.
pub async fn converse<S, V>(
    connection: Connection<S>,
    mut peer: Peer,
    service: &V,
    settings: Arc<ServerSettings>,
    tls: Option<Arc<ServerConfig>>,
    drain: &CancellationToken,
) -> io::Result<CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: Service,
{
    peer.tls = connection.is_tls();
    peer.certificate = connection.peer_certificate();
    let settings = service.settings(&peer, &settings);
    let verdict = settings.timeouts.verdict;
    let lmtp = settings.protocol == Protocol::Lmtp;
    let mut driver = ServerDriver::new(connection, ServerSession::new(settings, peer.tls));
    let (connect, _) = loop {
        match driver.next().await? {
            ServerEvent::Ask(id, question) => break (id, question),
            ServerEvent::Closed(reason) => return Ok(reason),
            _ => {}
        }
    };
    let handler = match bounded(verdict, service.connect(&peer)).await {
        Ok(handler) => handler,
        Err(reply) => {
            answer(&mut driver, connect, Verdict::Refuse(reply));
            loop {
                if let ServerEvent::Closed(reason) = driver.next().await? {
                    return Ok(reason);
                }
            }
        }
    };
    answer(&mut driver, connect, Verdict::Accept(None));
    let mut conversation = Conversation { driver, handler, peer, envelope: None, mechanism: None, verdict, lmtp };
    conversation.run(tls, drain).await
}

struct Conversation<S, H> {
    driver: ServerDriver<S>,
    handler: H,
    peer: Peer,
    envelope: Option<Envelope>,
    /// Boxed, since most connections are not in the middle of a login.
    mechanism: Option<Box<ServerMechanism>>,
    /// How long the handler may take for a verdict.
    verdict: Duration,
    lmtp: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, H: Handler> Conversation<S, H> {
    async fn run(&mut self, tls: Option<Arc<ServerConfig>>, drain: &CancellationToken) -> io::Result<CloseReason> {
        let mut draining = false;
        loop {
            let event = tokio::select! {
                event = self.driver.next() => event?,
                () = drain.cancelled(), if !draining => {
                    // Behind a message or a question the next turn of the loop asks again.
                    self.driver.shutdown();
                    draining = true;
                    continue;
                }
            };
            match event {
                ServerEvent::Ask(id, question) => self.question(id, question).await?,
                ServerEvent::StartTls => {
                    let Some(config) = &tls else { return Err(io::ErrorKind::Unsupported.into()) };
                    self.driver.accept_tls(Arc::clone(config)).await?;
                    let certificate = self.driver.peer_certificate();
                    self.peer = Peer { tls: true, certificate, ..Peer::new(self.peer.address, self.peer.local) };
                    self.envelope = None;
                }
                ServerEvent::Closed(reason) => return Ok(reason),
                // Content comes only within `receive`.
                ServerEvent::Content(_)
                | ServerEvent::ContentRefused(_)
                | ServerEvent::ContentSwallowed
                | ServerEvent::ContentAborted => {}
            }
            if draining {
                self.driver.shutdown();
            }
        }
    }

    async fn question(&mut self, id: QuestionId, question: Question) -> io::Result<()> {
        let Self { handler, peer, envelope, .. } = self;
        let verdict = match question {
            Question::Connect => Verdict::Accept(None),
            Question::Hello(name) => {
                let verdict = decided(bounded(self.verdict, handler.hello(peer, &name)).await);
                if matches!(verdict, Verdict::Accept(_)) {
                    peer.hello = Some(name);
                }
                answer(&mut self.driver, id, verdict);
                self.peer.extended = self.driver.session().is_extended();
                return Ok(());
            }
            Question::Auth(name, initial) => self.auth(&name, initial).await,
            Question::AuthResponse(response) => self.auth_response(response).await,
            Question::Mail(mail) => {
                let verdict = decided(bounded(self.verdict, handler.mail(peer, &mail)).await);
                *envelope = Some(Envelope { mail, recipients: Vec::new() });
                verdict
            }
            Question::Rcpt(rcpt) => {
                let envelope = envelope.get_or_insert_with(empty);
                let verdict = decided(bounded(self.verdict, handler.rcpt(peer, envelope, &rcpt)).await);
                if matches!(verdict, Verdict::Accept(_)) {
                    envelope.recipients.push(rcpt);
                }
                verdict
            }
            Question::Data => {
                let envelope = envelope.get_or_insert_with(empty);
                let verdict = decided(bounded(self.verdict, handler.data(peer, envelope)).await);
                let accepted = matches!(verdict, Verdict::Accept(_));
                answer(&mut self.driver, id, verdict);
                return if accepted { self.receive().await } else { Ok(()) };
            }
            // Answered where its content was read.
            Question::Message => Verdict::Refuse(unfinished()),
            Question::Other(line) => match Command::parse(line.as_bytes()) {
                Ok(command) => replied(bounded(self.verdict, handler.other(peer, &command)).await),
                Err(error) => Verdict::Refuse(error.reply()),
            },
        };
        answer(&mut self.driver, id, verdict);
        Ok(())
    }

    async fn auth(&mut self, name: &str, initial: Option<Secret<String>>) -> Verdict {
        let exchange = self.sasl_context().and_then(|context| ServerMechanism::new(name, context));
        let initial = initial.as_ref().map(|text| text.expose().as_str());
        let step = exchange.and_then(|exchange| self.mechanism.insert(Box::new(exchange)).start(initial));
        self.auth_step(step).await
    }

    async fn auth_response(&mut self, response: Secret<Vec<u8>>) -> Verdict {
        let step = match &mut self.mechanism {
            Some(exchange) => exchange.respond(response.expose()),
            None => Err(SaslError::Unavailable),
        };
        self.auth_step(step).await
    }

    /// Goes on to where the client has to say something, or to the end.
    async fn auth_step(&mut self, mut step: Result<ServerStep, SaslError>) -> Verdict {
        let verdict = loop {
            step = match step {
                Ok(ServerStep::Challenge(challenge)) => return Verdict::Challenge(challenge),
                Ok(ServerStep::Done(identity)) => {
                    self.peer.identity = Some(identity);
                    break Verdict::Accept(None);
                }
                Ok(question) => self.sasl_question(question).await,
                Err(error) => break Verdict::Refuse(error.reply()),
            };
        };
        self.mechanism = None;
        verdict
    }

    /// Asks the handler, and gives the exchange the answer.
    async fn sasl_question(&mut self, question: ServerStep) -> Result<ServerStep, SaslError> {
        let Self { handler, peer, mechanism, verdict, .. } = self;
        let exchange = mechanism.as_mut().ok_or(SaslError::Unavailable)?;
        let late = |_| SaslError::Unavailable;
        match question {
            ServerStep::Password(credentials) => {
                let decision = timeout(*verdict, handler.authenticate(peer, credentials)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::Token(token) => {
                let decision = timeout(*verdict, handler.authenticate_token(peer, token)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::Anonymous(trace) => {
                let decision = timeout(*verdict, handler.authenticate_anonymous(peer, &trace)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::External(external) => {
                let decision = timeout(*verdict, handler.authenticate_external(peer, external)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::ScramKey(user) => {
                let key = timeout(*verdict, handler.scram_key(peer, &user)).await;
                exchange.found(key.map_err(late).and_then(std::convert::identity))
            }
            _ => exchange.decide(Err(SaslError::Credentials)),
        }
    }

    fn sasl_context(&self) -> Result<ServerContext, SaslError> {
        let nonce = Nonce::from_random(random()?);
        Ok(self.driver.sasl_context(nonce, unknown_users(&self.handler)?))
    }

    /// From 354 to the reply to the end of the content.
    async fn receive(&mut self) -> io::Result<()> {
        let envelope = self.envelope.take().unwrap_or_else(empty);
        let turn = Turn::default();
        let mut source = Source { driver: &mut self.driver, end: End::Open, turn: &turn };
        let verdict = {
            let mut body = Body::new(&mut source);
            tokio::select! {
                verdict = take(&mut self.handler, &self.peer, envelope, &mut body, self.lmtp) => verdict,
                () = turn.has_taken(self.verdict) => Verdict::Refuse(late()),
            }
        };
        match source.end {
            End::Complete(id) => {
                answer(&mut self.driver, id, verdict);
                return Ok(());
            }
            End::Closed => return Ok(()),
            End::Failed(kind) => return Err(kind.into()),
            // Whatever the handler said, it has not seen the end.
            End::Open => self.driver.refuse_content(match verdict {
                Verdict::Refuse(reply) if is_refusal(&reply) => reply,
                _ => unfinished(),
            }),
            End::Refused => {}
        }
        loop {
            match self.driver.next().await? {
                ServerEvent::ContentSwallowed | ServerEvent::ContentAborted => return Ok(()),
                ServerEvent::Ask(id, _) => {
                    answer(&mut self.driver, id, Verdict::Refuse(unfinished()));
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
        handler.deliver(peer, envelope, body).await.map_or_else(Verdict::Refuse, Verdict::Each)
    } else {
        replied(handler.message(peer, envelope, body).await)
    }
}

fn replied(decision: Result<Reply, Reply>) -> Verdict {
    decision.map_or_else(Verdict::Refuse, |reply| Verdict::Accept(Some(reply)))
}

/// Reads content through the driver, and remembers how it ended.
struct Source<'d, S> {
    driver: &'d mut ServerDriver<S>,
    end: End,
    turn: &'d Turn,
}

/// Since when the handler is the one that is waited for; nothing while the client is.
struct Turn(Mutex<Option<Instant>>);

impl Default for Turn {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Turn {
    /// It is the client's until what this returns is dropped, with whatever holds it.
    fn clients(&self) -> impl Drop + Send + '_ {
        struct Clients<'t>(&'t Turn);

        impl Drop for Clients<'_> {
            fn drop(&mut self) {
                self.0.set(Some(Instant::now()));
            }
        }

        self.set(None);
        Clients(self)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Returns once the handler has been waited for this long without a break.
    async fn has_taken(&self, limit: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match since {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => tokio::time::sleep_until(since + limit).await,
                // Whenever its turn comes, it will not be over before this.
                None => tokio::time::sleep(limit).await,
            }
        }
    }
}

enum End {
    Open,
    Complete(QuestionId),
    Refused,
    Closed,
    Failed(io::ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> BodySource for Source<'_, S> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, BodyError>> + Send + '_>> {
        Box::pin(async {
            match self.end {
                End::Open => {}
                End::Complete(_) => return Ok(None),
                End::Refused | End::Closed | End::Failed(_) => return Err(BodyError::Disconnected),
            }
            let clients = self.turn.clients();
            let event = self.driver.next().await;
            drop(clients);
            match event {
                Ok(ServerEvent::Content(piece)) => Ok(Some(piece)),
                Ok(ServerEvent::Ask(id, _)) => {
                    self.end = End::Complete(id);
                    Ok(None)
                }
                Ok(ServerEvent::ContentRefused(reply)) => {
                    self.end = End::Refused;
                    Err(BodyError::Refused(reply))
                }
                Ok(_) => {
                    self.end = End::Closed;
                    Err(BodyError::Disconnected)
                }
                Err(error) => {
                    self.end = End::Failed(error.kind());
                    Err(error.into())
                }
            }
        })
    }
}

/// Gives a verdict; one that does not fit becomes a 451, so that a handler's mistake never hangs a client.
fn answer<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>, id: QuestionId, verdict: Verdict) {
    if let Err(error) = driver.answer(id, verdict) {
        debug!(%error, "a handler's verdict does not fit");
        // Fails only when the question is gone, and with it whoever asked.
        let _ = driver.answer(id, Verdict::Refuse(unfinished()));
    }
}

async fn bounded<T>(limit: Duration, decision: impl Future<Output = Result<T, Reply>>) -> Result<T, Reply> {
    timeout(limit, decision).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> Reply {
    Reply::from_static("451 4.3.0 No decision in time, try again later\r\n")
}

fn decided(decision: Result<(), Reply>) -> Verdict {
    match decision {
        Ok(()) => Verdict::Accept(None),
        Err(reply) => Verdict::Refuse(reply),
    }
}

fn is_refusal(reply: &Reply) -> bool {
    matches!(reply.code().severity(), Severity::TransientNegative | Severity::PermanentNegative)
}

fn unfinished() -> Reply {
    Reply::from_static("451 4.3.0 Local error, try again later\r\n")
}

fn empty() -> Envelope {
    Envelope { mail: Mail::new(posthaste_io::wire::ReversePath::Null).into_owned(), recipients: Vec::new() }
}
