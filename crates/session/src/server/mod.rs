//! The server's side of the conversation.

mod ask;
mod commands;
mod content;
mod next;
mod offers;
mod pending;
mod replies;
mod settings;
mod timer;
mod verdicts;

use alloc::{collections::VecDeque, sync::Arc};
use core::time::Duration;

use bytes::BytesMut;
use posthaste_wire::{
    Mechanism, MechanismSet, Reply,
    frame::{ContentCheck, Frame, Framer, LineFault},
};

pub use ask::{Ask, QuestionId, Verdict};
use ask::{Open, Replies, Topic};
use content::Chunk;
pub use next::{CloseReason, Eof, ServerNext};
use pending::Pending;
pub use settings::{FutureRelease, Offers, Protocol, ServerLimits, ServerSettings, ServerTimeouts, Tolerance};
use timer::Timer;

use crate::{
    ApiMisuse, MAX_OUTPUT, Step, Tick,
    table::{self, Exchange, Outcome, Phase},
};

/// One SMTP conversation as a server holds it, without I/O, clock or threads.
///
/// The loop of a driver:
///
/// 1. Call [`handle_input`](Self::handle_input) with everything that was read and not consumed yet.
/// 2. Take [`Step::consumed`] octets off the front of the input.
/// 3. Do what [`Step::next`] says: write the output, read more (at the latest until [`poll_timeout`](Self::poll_timeout)),
///    answer a question with [`answer`](Self::answer), take a piece of content, start TLS, or close.
/// 4. When the time of `poll_timeout` has come, call [`handle_timeout`](Self::handle_timeout); when the peer has closed
///    its side, call [`handle_eof`](Self::handle_eof). Start over.
///
#[doc = include_str!("driver.md")]
///
/// Replies leave in the order of their commands, whatever the order of the answers. A clone goes its own way: it is for tests
/// that explore where a conversation can lead.
#[derive(Debug, Clone)]
pub struct ServerSession {
    settings: Arc<ServerSettings>,
    phase: Phase,
    framer: Framer,
    /// Questions in the order of their commands, each with its reply once that is known but not yet its turn.
    open: VecDeque<Open>,
    next_question: u64,
    /// What the client is, as far as this connection (and TLS state) has shown.
    client: Client,
    transaction: Transaction,
    /// The chunk whose octets come.
    chunk: Option<Chunk>,
    counters: Counters,
    timer: Timer,
    /// What has to be reported before anything else is read.
    pending: Option<Pending>,
    /// The line that was consumed last, be it in part, is BDAT.
    line_is_bdat: bool,
    /// The session ends at the next boundary, for this reason.
    leaving: Option<CloseReason>,
    /// Until when the session may last, from its first call on.
    ends: Option<Tick>,
    /// When the last message ended, or the session began.
    without_message: Tick,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
struct Client {
    /// It said EHLO and not HELO.
    extended: bool,
    tls: bool,
    authenticated: bool,
    /// Mechanisms that this connection cannot do.
    withheld: MechanismSet,
}

/// The transaction between MAIL and its end.
#[derive(Debug, Clone, Default)]
struct Transaction {
    smtputf8: bool,
    /// `BODY=BINARYMIME`.
    binary: bool,
    recipients: usize,
    /// Recipients that got a 4yz reply.
    put_off: usize,
    /// Octets of content so far.
    octets: u64,
    /// Why the content is not taken; it is read to its end all the same.
    refusal: Option<Reply>,
    /// Of content in chunks, unless it is binary; behind DATA the framer looks.
    check: Option<ContentCheck>,
}

/// What never comes back by RSET.
#[derive(Debug, Clone, Default)]
struct Counters {
    errors: u32,
    junk: u32,
    auth_failures: u32,
}

impl ServerSession {
    /// A session at the start of a connection. `tls` says that TLS is up already (RFC 8314).
    pub fn new(settings: Arc<ServerSettings>, tls: bool) -> Self {
        let framer = Framer::new(settings.limits.command_line);
        Self {
            settings,
            phase: Phase::Start,
            framer,
            open: VecDeque::new(),
            next_question: 0,
            client: Client { tls, ..Client::default() },
            transaction: Transaction::default(),
            chunk: None,
            counters: Counters::default(),
            timer: Timer::default(),
            pending: Some(Pending::Greeting),
            line_is_bdat: false,
            leaving: None,
            ends: None,
            without_message: Tick::ORIGIN,
            closed: false,
        }
    }

    /// Reads the input as far as one event, and says what that is.
    ///
    /// # Errors
    /// [`ApiMisuse`] after a [`ServerNext::Close`], or within a handshake.
    pub fn handle_input<'i>(
        &mut self,
        now: Tick,
        input: &'i [u8],
        out: &mut BytesMut,
    ) -> Result<Step<ServerNext<'i>>, ApiMisuse> {
        if self.closed {
            return Err(ApiMisuse::Closed);
        }
        if self.phase == Phase::Handshake && self.pending.is_none() {
            return Err(ApiMisuse::Handshake);
        }
        if self.ends.is_none() {
            self.ends = Some(now + self.settings.timeouts.session);
            self.without_message = now;
        }
        if let Some((_, reason)) = self.last_moment().filter(|(end, _)| *end <= now) {
            self.leaving.get_or_insert(reason);
        }
        self.timer.input_arrived(now, input.len());
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            if let Some(next) = self.take_pending(now, rest.is_empty(), out) {
                return Ok(Step { consumed, next });
            }
            self.drain(out);
            if self.leave(out) {
                continue;
            }
            if out.len() >= MAX_OUTPUT {
                return Ok(Step { consumed, next: ServerNext::Flush });
            }
            // With questions open, only more RCPT may be read: anything else waits for the answers.
            let may_read = self.open.is_empty() || (self.may_ask_more() && starts_with_rcpt(rest));
            if !may_read {
                return Ok(Step { consumed, next: ServerNext::NeedAnswer });
            }
            let starts_here = self.framer.discarded() == 0;
            let framed = self.framer.next(rest);
            if starts_here && framed.consumed > 0 {
                // An over-long line is thrown away as it comes: later its start is gone.
                self.line_is_bdat = commands::is_bdat(rest);
            }
            let at = consumed;
            consumed += framed.consumed;
            let left = input.len() - consumed;
            let next = match framed.frame {
                Frame::Incomplete => {
                    if self.is_endless(self.framer.discarded(), out) {
                        continue;
                    }
                    let next = if out.is_empty() {
                        self.wait(now, left);
                        ServerNext::NeedInput
                    } else {
                        ServerNext::Flush
                    };
                    return Ok(Step { consumed, next });
                }
                Frame::Line(range) => {
                    self.timer.frame_ended();
                    let line = rest.get(range).unwrap_or_default();
                    if self.gives_up_chunks(line) {
                        // The line comes once more.
                        return Ok(Step { consumed: at, next: ServerNext::ContentAborted });
                    }
                    let next = self.line(now, line, left > 0, out);
                    self.check_budgets(out);
                    next
                }
                Frame::BadLine(fault) => {
                    self.timer.frame_ended();
                    // Came at once, or it would have ended the session before its LF.
                    if matches!(fault, LineFault::TooLong { octets } if self.is_endless(octets.saturating_sub(1), out))
                    {
                        continue;
                    }
                    self.bad_line(fault, out);
                    self.check_budgets(out);
                    None
                }
                Frame::Content(range) => {
                    let piece = rest.get(range.clone()).unwrap_or_default();
                    self.content(piece, at + range.start..at + range.end, out)
                }
                Frame::End => {
                    self.timer.frame_ended();
                    self.content_ended(now, out)
                }
            };
            if let Some(next) = next {
                return Ok(Step { consumed, next });
            }
        }
    }

    /// Refuses the content that is being received: it is swallowed to its true end and then gets this reply, which has
    /// to be 4yz or 5yz; any other is taken for a 451, and a 421 closes the connection. Without effect when no content is
    /// being received.
    pub fn refuse_content(&mut self, reply: Reply) {
        if matches!(self.phase, Phase::Content | Phase::Chunks) && self.transaction.refusal.is_none() {
            let is_refusal = Outcome::from(reply.code()) == Outcome::Negative;
            self.transaction.refusal = Some(if is_refusal { reply } else { replies::LOCAL_ERROR.clone() });
        }
    }

    /// The client has closed its side; nothing more will be read.
    pub fn handle_eof(&mut self, _now: Tick) -> Eof {
        let in_transaction = self.is_in_transaction();
        self.end();
        Eof { in_transaction }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. The next call of `handle_input` says what follows.
    pub fn handle_timeout(&mut self, now: Tick, out: &mut BytesMut) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        if let Some(Pending::Greet(greeting, _)) = &self.pending {
            out.extend_from_slice(greeting.as_ref().as_bytes());
            self.pending = None;
            return;
        }
        let (reply, reason) = if self.open.iter().any(|open| open.replies.is_none()) {
            (&replies::NO_VERDICT, CloseReason::NoVerdict)
        } else if let Some((_, reason)) = self.last_moment().filter(|(end, _)| *end <= now) {
            (farewell(reason), reason)
        } else {
            (&replies::TIMEOUT, CloseReason::Timeout)
        };
        self.open.clear();
        if self.phase != Phase::Handshake {
            self.say(reply, out);
        }
        self.close(reason);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Tick> {
        if self.is_over() {
            return None;
        }
        if let Some(Pending::Greet(_, until)) = self.pending {
            return Some(until);
        }
        // The question at the front was asked first. Replies at the front wait for the output and for nobody.
        let question = self.open.iter().find(|open| open.replies.is_none());
        let ends = self.ends_at().filter(|_| self.open.is_empty());
        question.map(|open| open.deadline).or_else(|| self.timer.deadline().into_iter().chain(ends).min())
    }

    /// When the session ends whatever comes: a write of the output must not take longer either.
    pub fn ends_at(&self) -> Option<Tick> {
        self.last_moment().map(|(end, _)| end)
    }

    /// Gives everything but the application and the session as a whole a tenth of its time, and asks content for ten times the
    /// minimum rate, or takes that back. It counts at once, for waits that have begun too: for servers that are nearly full.
    pub const fn hurry(&mut self, hurried: bool) {
        self.timer.hurry(hurried);
    }

    /// How long one write of the output may take: the driver's own bound, 5 minutes by default.
    pub fn write_timeout(&self) -> Duration {
        self.timer.scaled(self.settings.timeouts.write)
    }

    /// How long a TLS handshake may take: the driver's own bound, 30 seconds by default.
    pub fn handshake_timeout(&self) -> Duration {
        self.timer.scaled(self.settings.timeouts.handshake)
    }

    /// Neither offers nor takes a SASL mechanism that the settings have, since this connection cannot do it: EXTERNAL without a
    /// client's certificate, SCRAM-SHA-256-PLUS without a channel binding. Say it at the start, and behind
    /// [`tls_established`](Self::tls_established) again, which forgets it.
    pub fn withhold(&mut self, mechanism: Mechanism) {
        self.client.withheld.insert(mechanism);
    }

    /// The SASL mechanisms that this client may use, once it may log in at all.
    pub fn mechanisms(&self) -> MechanismSet {
        self.settings.offers.auth.iter().filter(|mechanism| !self.client.withheld.contains(*mechanism)).collect()
    }

    /// The TLS handshake is done. Everything that was learnt in clear is forgotten (RFC 3207 section 4.2).
    ///
    /// # Errors
    /// [`ApiMisuse::Handshake`] when none was due.
    pub fn tls_established(&mut self, _now: Tick) -> Result<(), ApiMisuse> {
        if self.phase != Phase::Handshake || self.pending.is_some() {
            return Err(ApiMisuse::Handshake);
        }
        self.advance(Exchange::Handshake, Outcome::Positive);
        self.timer.handshake_ended();
        self.client = Client { tls: true, ..Client::default() };
        self.transaction = Transaction::default();
        Ok(())
    }

    /// Ends the session with a 421, at the next boundary between a reply and a command: at once when no content is being
    /// received and nothing is asked, otherwise after that.
    pub fn shutdown(&mut self, out: &mut BytesMut) {
        self.leaving.get_or_insert(CloseReason::Shutdown);
        self.leave(out);
    }

    /// Ends the session with a 421 at once, in the middle of whatever it is: content and questions are void (RFC 5321 section
    /// 3.8). In the middle of a handshake nothing is said.
    pub fn abort(&mut self, out: &mut BytesMut) {
        if self.is_over() {
            return;
        }
        self.open.clear();
        if self.phase != Phase::Handshake {
            self.say(&replies::SHUTTING_DOWN, out);
        }
        self.close(CloseReason::Shutdown);
    }

    /// Whether a transaction is open: MAIL was accepted, and neither its end nor RSET nor EHLO has come.
    pub const fn is_in_transaction(&self) -> bool {
        matches!(self.phase, Phase::Mail | Phase::Rcpt | Phase::Content | Phase::Chunks)
    }

    /// Where the conversation stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether TLS is up.
    pub const fn is_tls(&self) -> bool {
        self.client.tls
    }

    /// Whether the client has authenticated.
    pub const fn is_authenticated(&self) -> bool {
        self.client.authenticated
    }

    /// Whether the client said EHLO and not HELO.
    pub const fn is_extended(&self) -> bool {
        self.client.extended
    }

    /// Ends the session when so many octets of a line are too many to throw away.
    fn is_endless(&mut self, octets: usize, out: &mut BytesMut) -> bool {
        let is_endless = octets > self.settings.limits.discarded;
        if is_endless {
            self.refuse(&replies::ENDLESS_LINE, out);
            self.close(CloseReason::EndlessLine);
        }
        is_endless
    }

    fn bad_line(&mut self, fault: LineFault, out: &mut BytesMut) {
        let is_response = self.phase == Phase::Auth;
        if is_response {
            self.advance(Exchange::AuthResponse, Outcome::Negative);
            self.auth_ended();
        }
        // A client that ends lines in LF may take what is left of this one for commands; of BDAT the size is unknown.
        if fault == LineFault::BareLf || (self.line_is_bdat && !is_response) {
            self.close(CloseReason::Unframeable);
        }
        match fault {
            LineFault::BareLf => self.refuse(&replies::BARE_LF, out),
            LineFault::TooLong { .. } => self.refuse(&replies::LONG_LINE, out),
        }
    }

    fn may_ask_more(&self) -> bool {
        self.open.len() < self.settings.limits.open_recipients
            && self.open.iter().all(|open| matches!(open.topic, Topic::Rcpt))
    }

    /// Opens a question, and starts the clock on the application.
    fn question(&mut self, now: Tick, topic: Topic) -> QuestionId {
        let deadline = now + self.settings.timeouts.verdict;
        self.queue(topic, None, deadline)
    }

    fn queue(&mut self, topic: Topic, replies: Option<Replies>, deadline: Tick) -> QuestionId {
        let id = QuestionId(self.next_question);
        self.next_question = self.next_question.wrapping_add(1);
        self.open.push_back(Open { id, topic, replies, deadline });
        id
    }

    /// Starts the clock on the peer.
    fn wait(&mut self, now: Tick, left: usize) {
        let timeouts = &self.settings.timeouts;
        let has_begun = left > 0 || self.framer.discarded() > 0;
        let line = (has_begun && self.phase != Phase::Content).then_some(timeouts.line);
        let (timeout, extend) = match self.phase {
            Phase::Content => (timeouts.content_block, true),
            Phase::Auth => (timeouts.auth, false),
            _ => (timeouts.command, false),
        };
        self.timer.wait_for_peer(now, timeout, extend, line, left);
    }

    /// Moves the phase by the table; what the table does not know leaves it.
    fn advance(&mut self, exchange: Exchange, outcome: Outcome) {
        if let Some(phase) = table::next(self.phase, exchange, outcome) {
            self.phase = phase;
        }
        if !matches!(self.phase, Phase::Mail | Phase::Rcpt | Phase::Content | Phase::Chunks) {
            self.transaction = Transaction::default();
        }
    }

    /// Puts a reply in its place: behind the questions that came before it.
    fn say(&mut self, reply: &Reply, out: &mut BytesMut) {
        self.say_times(reply, 1, out);
    }

    /// The same, so many times.
    fn say_times(&mut self, reply: &Reply, times: usize, out: &mut BytesMut) {
        if self.open.is_empty() && times == 1 {
            out.extend_from_slice(reply.as_ref().as_bytes());
        } else {
            // It is known already, so its deadline never counts.
            self.queue(Topic::Rcpt, Some(Replies::Same(reply.clone(), times)), Tick::ORIGIN);
            self.drain(out);
        }
    }

    /// A refusal that counts against the error budget.
    fn refuse(&mut self, reply: &Reply, out: &mut BytesMut) {
        self.say(reply, out);
        self.count_error();
    }

    fn count_error(&mut self) {
        self.counters.errors = self.counters.errors.saturating_add(1);
    }

    /// Ends the session when a budget is used up; called once a command is done with.
    fn check_budgets(&mut self, out: &mut BytesMut) {
        let limits = &self.settings.limits;
        let reason = if self.counters.errors > limits.errors {
            CloseReason::TooManyErrors
        } else if self.counters.junk > limits.junk_commands {
            CloseReason::TooManyJunkCommands
        } else if self.counters.auth_failures > limits.auth_failures {
            CloseReason::TooManyAuthFailures
        } else {
            return;
        };
        if self.open.is_empty() && self.pending.is_none() {
            self.say(&replies::TOO_MANY_ERRORS, out);
            self.close(reason);
        }
    }

    /// Says 421 when the session is to end and stands at a boundary.
    fn leave(&mut self, out: &mut BytesMut) -> bool {
        let Some(reason) = self.leaving else { return false };
        let busy = !self.open.is_empty() || matches!(self.phase, Phase::Content | Phase::Handshake);
        let leaves = !busy && !self.is_over();
        if leaves {
            self.say(farewell(reason), out);
            self.close(reason);
        }
        leaves
    }

    fn close(&mut self, reason: CloseReason) {
        self.pending = Some(Pending::Close(reason));
    }

    fn end(&mut self) {
        self.closed = true;
        self.phase = Phase::Closed;
        self.open.clear();
    }

    /// When the session ends whatever comes, and why then. Content is not interrupted for want of a message.
    fn last_moment(&self) -> Option<(Tick, CloseReason)> {
        let ends = self.ends?;
        let message = self.without_message + self.timer.scaled(self.settings.timeouts.message);
        let is_coming = matches!(self.phase, Phase::Content | Phase::Chunks);
        Some(match message < ends && !is_coming {
            true => (message, CloseReason::NoMessage),
            false => (ends, CloseReason::SessionTooLong),
        })
    }

    /// Whether nothing can come any more but the report of the end.
    const fn is_over(&self) -> bool {
        self.closed || matches!(self.pending, Some(Pending::Close(_)))
    }
}

/// What is said at an end that no command has asked for.
const fn farewell(reason: CloseReason) -> &'static Reply {
    match reason {
        CloseReason::Shutdown => &replies::SHUTTING_DOWN,
        CloseReason::NoMessage => &replies::NO_MESSAGE,
        _ => &replies::SESSION_TOO_LONG,
    }
}

/// Whether a whole line is there that is RCPT. What has a bare LF in it waits for the answers: it ends the session.
fn starts_with_rcpt(input: &[u8]) -> bool {
    let is_rcpt = input.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT "));
    is_rcpt
        && input
            .split(|octet| *octet == b'\n')
            .next()
            .is_some_and(|line| line.len() < input.len() && line.ends_with(b"\r"))
}
