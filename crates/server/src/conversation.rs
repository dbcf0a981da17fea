//! The session's questions become the handler's methods, and their decisions its verdicts.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use posthaste_tokio::{
    ServerDriver, ServerEvent,
    session::{
        Ask, Verdict,
        sasl::ServerMechanism,
        server::{ClientFacts, CloseReason},
    },
    wire::{Accepted, Mail, Rcpt, Refusal, ReversePath, refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::futures::Notified,
    time::timeout,
};
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{Instrument as _, Span, debug, error_span, field, info};

use crate::{
    Body, Context, Envelope, Handler, PeerTls,
    admission::{Hurry, Seat},
    budget::{self, Share},
    content::{End, Source, Turn},
    converse::{Common, Ends, Terms},
    ending::handshake_failed,
    login::LoginUnderWay,
};

/// A session and what the application has decided in it.
pub(crate) struct Conversation<'c, 's, S, H> {
    pub(crate) driver: Hurried<'c, 's, S>,
    pub(crate) handler: H,
    pub(crate) cx: &'c mut Context,
    /// What the envelope has of the memory for all envelopes.
    share: Share,
    /// The span of the transaction, for the log.
    span: Span,
    /// How many transactions there were.
    transactions: u64,
    /// Boxed, since most connections are not in the middle of a login.
    pub(crate) login: Option<Box<LoginUnderWay>>,
    pub(crate) mechanism: Option<Box<ServerMechanism>>,
    pub(crate) terms: &'c Terms,
    pub(crate) common: &'s Common,
    pub(crate) ends: &'s Ends,
    pub(crate) seat: &'s Seat,
    /// Completes when the drain begins.
    drain: Pin<&'c mut WaitForCancellationFuture<'s>>,
    draining: bool,
    /// How many refusals the log was told of.
    told: u8,
}

/// How a conversation ends.
pub(crate) enum Ended {
    /// The session is over.
    Closed(CloseReason),
    /// A proxy has named its client, with which another conversation begins. The question is open.
    Named(Arc<ClientFacts>),
}

/// A driver that hurries whenever the server is nearly full.
pub(crate) struct Hurried<'c, 's, S> {
    pub(crate) driver: &'c mut ServerDriver<S>,
    hurry: &'s Hurry,
    /// Completes when the hurry changes.
    changed: Pin<&'c mut Notified<'s>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Hurried<'_, '_, S> {
    /// As [`ServerDriver::poll_next`]. The log is told here what the session refuses by itself.
    pub(crate) fn poll_next(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<ServerEvent>> {
        loop {
            match self.driver.poll_next(context) {
                Poll::Ready(Ok(ServerEvent::Refused)) => {
                    let reply = self.driver.session().last_refusal().map(field::display);
                    debug!(reply, "command refused by the session");
                    continue;
                }
                Poll::Ready(event) => return Poll::Ready(event),
                Poll::Pending => {}
            }
            ready!(self.changed.as_mut().poll(context));
            // A change after this line is heard, one before it is seen.
            self.changed.set(self.hurry.changed());
            self.catch_up();
        }
    }

    async fn next(&mut self) -> io::Result<ServerEvent> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn catch_up(&mut self) {
        self.driver.hurry(self.hurry.is_wanted());
    }
}

/// Refusals of a connection that the log is told of at its usual level.
const TOLD: u8 = 10;

/// What a conversation waits for beside its client. Both are registered once for a conversation,
/// and not for each command.
pub(crate) struct Signals<'c, 's> {
    pub(crate) hurry: Pin<&'c mut Notified<'s>>,
    pub(crate) drain: Pin<&'c mut WaitForCancellationFuture<'s>>,
}

impl<'c, 's, S: AsyncRead + AsyncWrite + Unpin + Send, H: Handler> Conversation<'c, 's, S, H> {
    /// A session that has been greeted.
    pub(crate) fn new(
        (common, ends, seat, signals): (&'s Common, &'s Ends, &'s Seat, Signals<'c, 's>),
        driver: &'c mut ServerDriver<S>,
        cx: &'c mut Context,
        handler: H,
        terms: &'c Terms,
    ) -> Self {
        let Signals { hurry, drain } = signals;
        let mut driver = Hurried { driver, hurry: common.admission.hurry(), changed: hurry };
        driver.catch_up();
        let share = Share::new(Arc::clone(&common.envelopes));
        let (login, mechanism, draining, told) = (None, None, false, 0);
        let (span, transactions) = (Span::none(), 0);
        Self {
            driver,
            handler,
            cx,
            share,
            span,
            transactions,
            login,
            mechanism,
            terms,
            common,
            ends,
            seat,
            drain,
            draining,
            told,
        }
    }

    /// Holds the session to its end, or until a proxy names another client.
    pub(crate) async fn run(&mut self) -> io::Result<Ended> {
        loop {
            let event = self.next().await?;
            // Boxed, so that an idle connection does not hold the room of the handler's futures.
            // One box serves for a whole transaction.
            if let Some(ended) = Box::pin(self.handle(event)).await? {
                return Ok(ended);
            }
        }
    }

    /// Waits for the client or the drain.
    async fn next(&mut self) -> io::Result<ServerEvent> {
        self.seat.wait();
        poll_fn(|context| {
            loop {
                if let Poll::Ready(event) = self.driver.poll_next(context) {
                    return Poll::Ready(event);
                }
                if self.draining {
                    return Poll::Pending;
                }
                ready!(self.drain.as_mut().poll(context));
                self.draining = true;
                self.driver.driver.shutdown();
            }
        })
        .await
    }

    /// Handles an event, and those that follow while a transaction is open. `Some`: the
    /// conversation is over.
    async fn handle(&mut self, mut event: ServerEvent) -> io::Result<Option<Ended>> {
        loop {
            match event {
                ServerEvent::Ask(Ask::XClient(facts)) => return Ok(Some(Ended::Named(facts))),
                ServerEvent::Ask(ask) => {
                    self.seat.work().await;
                    self.question(ask).await?;
                }
                ServerEvent::StartTls => {
                    if let Some(reason) = Box::pin(self.start_tls()).await? {
                        return Ok(Some(Ended::Closed(reason)));
                    }
                }
                ServerEvent::Closed(reason) => return Ok(Some(Ended::Closed(reason))),
                ServerEvent::Reset => self.forget(),
                // Content comes only within `receive`.
                ServerEvent::Content(_)
                | ServerEvent::ContentRefused(_)
                | ServerEvent::ContentSwallowed
                | ServerEvent::ContentAborted
                | ServerEvent::Refused => {}
            }
            if self.draining {
                // After a message or a question the session may be at a boundary.
                self.driver.driver.shutdown();
            }
            if self.cx.envelope.is_none() {
                return Ok(None);
            }
            event = self.next().await?;
        }
    }

    /// The handshake of STARTTLS. `Some`: the session is over.
    async fn start_tls(&mut self) -> io::Result<Option<CloseReason>> {
        let Some(config) = &self.terms.tls else { return Err(io::ErrorKind::Unsupported.into()) };
        let handshake = self.driver.driver.accept_tls(Arc::clone(config));
        // No message has begun that a drain would have to wait for, and nothing can be said.
        let Some(done) = self.ends.drain.run_until_cancelled(handshake).await else {
            return Ok(Some(CloseReason::Shutdown));
        };
        done.map_err(handshake_failed)?;
        self.cx.peer.start_over(PeerTls::of(self.driver.driver.connection()));
        self.login = None;
        self.forget();
        Ok(None)
    }

    async fn question(&mut self, ask: Ask) -> io::Result<()> {
        let limit = self.terms.verdict;
        let verdict = match ask {
            Ask::Connect => Verdict::Accept(None),
            Ask::Hello(name) => {
                let decision = bounded(limit, self.handler.hello(self.cx, &name)).await;
                let accepted = decision.is_ok();
                if accepted {
                    self.cx.peer.hello = Some(name);
                }
                let verdict = self.decided("hello", None, decision);
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
                let decision = self.handler.data(self.cx).instrument(self.span.clone());
                let decision = bounded(limit, decision).await;
                let accepted = decision.is_ok();
                let verdict = self.decided("message", None, decision);
                answer(self.driver.driver, verdict);
                if !accepted {
                    return Ok(());
                }
                let received = self.receive().await;
                // Content that was refused half-way has left the client idle.
                self.seat.work().await;
                self.forget();
                return received;
            }
            // Answered where its content was read, and where a client is greeted.
            Ask::Message { .. } | Ask::XClient(_) => Verdict::Refuse(UNFINISHED),
            Ask::Other(command) => replied(bounded(limit, self.handler.other(self.cx, &command)).await),
        };
        answer(self.driver.driver, verdict);
        Ok(())
    }

    async fn mail(&mut self, mail: Mail) -> Verdict {
        self.forget();
        self.transactions += 1;
        self.cx.forwarded = self.driver.driver.session().forwarded().cloned();
        let forwarded_for = self.cx.forwarded.as_ref().and_then(|facts| facts.address).map(field::display);
        let number = self.transactions;
        // The text of the sender is made for a log alone.
        self.span = error_span!("transaction", number, sender = ?mail.reverse_path.to_string(), forwarded_for);
        let decision = match self.share.take(budget::of_mail(&mail)) {
            true => {
                let decision = self.handler.mail(self.cx, &mail).instrument(self.span.clone());
                bounded(self.terms.verdict, decision).await
            }
            false => Err(NO_MEMORY),
        };
        let accepted = decision.is_ok();
        let verdict = self.decided("sender", None, decision);
        match accepted {
            true => self.cx.envelope = Some(Envelope::from_commands(mail, Vec::new())),
            false => self.forget(),
        }
        verdict
    }

    async fn rcpt(&mut self, rcpt: Rcpt) -> Verdict {
        self.cx.envelope.get_or_insert_with(empty);
        let octets = budget::of_rcpt(&rcpt);
        let decision = match self.share.take(octets) {
            true => {
                let decision = self.handler.rcpt(self.cx, &rcpt).instrument(self.span.clone());
                bounded(self.terms.verdict, decision).await.inspect_err(|_| self.share.give(octets))
            }
            false => Err(NO_MEMORY),
        };
        let recipient = decision.is_err().then(|| rcpt.forward_path.to_string());
        if decision.is_ok() {
            self.cx.envelope.get_or_insert_with(empty).recipients.push(rcpt);
        }
        self.decided("recipient", recipient.as_deref(), decision)
    }

    /// The transaction is over.
    fn forget(&mut self) {
        self.cx.envelope = None;
        self.cx.forwarded = None;
        self.share.free();
        self.span = Span::none();
    }

    /// The verdict of a decision; a refusal goes into the log.
    fn decided(&mut self, what: &str, recipient: Option<&str>, decision: Result<(), Refusal>) -> Verdict {
        match decision {
            Ok(()) => Verdict::Accept(None),
            Err(refusal) => {
                self.tell(what, recipient, &refusal);
                Verdict::Refuse(refusal)
            }
        }
    }

    /// One line for a refusal. After the first ones of a connection they are debug lines: a
    /// stranger must not fill the log.
    fn tell(&mut self, what: &str, recipient: Option<&str>, refusal: &Refusal) {
        let _entered = self.span.enter();
        let peer = &self.cx.peer;
        let (hello, tls) = (peer.hello_text(), peer.tls.is_some());
        let identity = peer.identity.as_deref().unwrap_or_default();
        let (reply, cause) = (refusal.reply(), refusal.cause());
        if self.told < TOLD {
            self.told += 1;
            info!(?hello, tls, ?identity, recipient, %reply, cause, "{what} refused");
        } else {
            debug!(?hello, tls, ?identity, recipient, %reply, cause, "{what} refused");
        }
    }

    /// From 354 to the reply to the end of the content.
    async fn receive(&mut self) -> io::Result<()> {
        let envelope = self.cx.envelope.take().unwrap_or_else(empty);
        let turn = Turn::default();
        let timeouts = &self.cx.settings.timeouts;
        // A body waits for content, for the next chunk's command, or for output to be taken.
        let patience = timeouts.content_block.max(timeouts.command).max(timeouts.write);
        let mut source = Source::new(&mut self.driver, &turn, self.seat, patience);
        let decisions = {
            let body = Body::borrowed(&mut source, &self.common.contents);
            tokio::select! {
                decisions = take(&mut self.handler, self.cx, envelope, body, self.terms.lmtp)
                    .instrument(self.span.clone()) => decisions,
                () = turn.has_taken(self.terms.verdict) => Decisions::All(Err(LATE)),
            }
        };
        match source.into_end() {
            End::Complete => {
                if decisions.has_accepted() {
                    self.seat.prove();
                }
                for refusal in decisions.refusals() {
                    self.tell("message", None, refusal);
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
                    Decisions::All(Ok(_)) | Decisions::Each(_) => UNFINISHED.with_cause(UNREAD),
                };
                self.tell("message", None, &refusal);
                self.driver.driver.refuse_content(refusal);
            }
            End::Refused(refusal) => self.tell("message", None, &refusal),
        }
        // What is only discarded holds no seat.
        self.seat.wait();
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
                | ServerEvent::Refused
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
    /// Returns `true` if the message was accepted for a recipient.
    fn has_accepted(&self) -> bool {
        match self {
            Self::All(decision) => decision.is_ok(),
            Self::Each(decisions) => decisions.iter().any(Result::is_ok),
        }
    }

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
pub(crate) fn answer<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut ServerDriver<S>, verdict: Verdict) {
    if let Err(error) = driver.answer(verdict) {
        debug!(%error, "verdict does not fit");
        // Fails only when the session has ended, and with it the question.
        let _ = driver.answer(Verdict::Refuse(UNFINISHED));
    }
}

pub(crate) async fn bounded<T>(
    limit: Duration,
    decision: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(limit, decision).await.unwrap_or(Err(LATE))
}

const NO_MEMORY: Refusal = refusal!("452 4.3.1 Out of memory for envelopes, try again later");
const LATE: Refusal = refusal!("451 4.3.0 No decision in time, try again later");
const UNREAD: &str = "the handler accepted the message before the end of its body";
const UNFINISHED: Refusal = refusal!("451 4.3.0 Local error, try again later");

fn empty() -> Envelope {
    Envelope::from_commands(Mail::new(ReversePath::Null).into_owned(), Vec::new())
}
