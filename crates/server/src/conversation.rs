//! The session's questions become the handler's methods, and their decisions its verdicts.

use std::{future::Future, io, sync::Arc, time::Duration};

use posthaste_tokio::{
    ServerDriver, ServerEvent,
    session::{Ask, Verdict, sasl::ServerMechanism, server::CloseReason},
    wire::{Accepted, Mail, Rcpt, Refusal, ReversePath, refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tracing::{debug, info};

use crate::{
    Body, Context, Envelope, Handler, PeerTls,
    budget::{self, Share},
    content::{End, Source, Turn},
    converse::{Common, Ends, Terms},
    login::LoginUnderWay,
};

/// A session and what the application has decided in it.
pub(crate) struct Conversation<'c, S, H> {
    pub(crate) driver: Hurried<'c, S>,
    pub(crate) handler: H,
    pub(crate) cx: Context,
    /// What the envelope has of the memory for all envelopes.
    share: Share,
    pub(crate) login: Option<LoginUnderWay>,
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

impl<'c, S: AsyncRead + AsyncWrite + Unpin + Send, H: Handler> Conversation<'c, S, H> {
    /// A session that has been greeted.
    pub(crate) fn new(
        common: &'c Common,
        ends: &'c Ends,
        driver: &'c mut ServerDriver<S>,
        cx: Context,
        handler: H,
        terms: Terms,
    ) -> Self {
        let mut driver = Hurried { driver, hurried: common.hurried.subscribe() };
        driver.catch_up();
        let share = Share::new(Arc::clone(&common.envelopes));
        Self { driver, handler, cx, share, login: None, mechanism: None, terms, common, ends, told: 0 }
    }

    /// Holds the session to its end.
    pub(crate) async fn run(&mut self) -> io::Result<CloseReason> {
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
                    self.cx.peer.start_over(PeerTls::of(self.driver.driver.connection()));
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
        let sender = if decision.is_err() { mail.reverse_path.to_string() } else { String::new() };
        match decision.is_ok() {
            true => self.cx.envelope = Some(Envelope::from_commands(mail, Vec::new())),
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
        let recipient = if decision.is_err() { rcpt.forward_path.to_string() } else { String::new() };
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
        let (address, hello, tls) = (&peer.address, peer.hello_text(), peer.tls.is_some());
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
        let timeouts = &self.cx.settings.timeouts;
        // A body waits for content, for the next chunk's command, or for output to be taken.
        let patience = timeouts.content_block.max(timeouts.command).max(timeouts.write);
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
                    Decisions::All(Ok(_)) | Decisions::Each(_) => UNFINISHED.with_cause(UNREAD),
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
