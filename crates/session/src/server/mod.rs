//! The server's side of the conversation.

mod ask;
mod commands;
mod content;
mod deadlines;
mod ending;
mod facts;
mod next;
mod offers;
mod pending;
mod replies;
mod settings;
mod timer;
mod verdicts;

use alloc::sync::Arc;
use core::mem;

use bytes::BytesMut;
use posthaste_wire::{
    Mechanism, MechanismSet, Refusal, Reply,
    frame::{ContentCheck, Frame, Framer, LineFault},
};

pub use ask::{Ask, OtherCommand, Verdict};
use ask::{Question, Replies};
use content::Chunk;
pub use facts::ClientFacts;
pub use next::{CloseReason, ServerEof, ServerNext};
use pending::Pending;
pub use posthaste_wire::command::Tolerance;
pub use settings::{Offers, Protocol, ServerLimits, ServerSettings, ServerTimeouts, Transport};
use timer::Timer;

use crate::{
    ApiMisuse, MAX_OUTPUT, Step, Tick,
    table::{self, Exchange, Phase, ReplyClass},
};

/// One SMTP or LMTP conversation from the server's side, without I/O, clock or threads.
///
/// The loop of a driver:
///
/// 1. Call [`handle_input`](Self::handle_input) with everything that was read and not consumed.
/// 2. Remove [`Step::consumed`] octets from the front of the input.
/// 3. Do what [`Step::next`] says: write the output, read more until
///    [`poll_timeout`](Self::poll_timeout) at the latest, answer a question with
///    [`answer`](Self::answer), take a piece of content, start TLS, or close.
/// 4. At the time of `poll_timeout` call [`handle_timeout`](Self::handle_timeout). When the client
///    closes its side, call [`handle_eof`](Self::handle_eof). Start over.
///
#[doc = include_str!("driver.md")]
///
/// At most one question is open. The session reads nothing until it is answered, so replies leave
/// in the order of their commands.
///
/// A clone continues on its own. It is for tests that explore where a conversation can lead.
#[derive(Debug, Clone)]
pub struct ServerSession {
    settings: Arc<ServerSettings>,
    transport: Transport,
    phase: Phase,
    framer: Framer,
    /// The question that is open.
    question: Option<Question>,
    /// Replies to a message that are still to be written.
    saying: Option<Replies>,
    /// What the client has shown on this connection, since TLS started if it did.
    client: Client,
    transaction: Transaction,
    /// What XCLIENT has said about the client. Once it has an address, the octets may be that
    /// client's own, and no more of it is taken.
    client_facts: Option<Arc<ClientFacts>>,
    /// What XFORWARD has said about the client of this transaction, or of the next.
    forwarded: Option<Arc<ClientFacts>>,
    /// The chunk whose octets are arriving.
    chunk: Option<Chunk>,
    counters: Counters,
    last_refusal: Option<Reply>,
    /// The last refusal is to be reported.
    refused: bool,
    timer: Timer,
    /// What is reported before anything else is read.
    pending: Option<Pending>,
    /// The line that was consumed last, if only its start, is BDAT.
    line_is_bdat: bool,
    /// The session ends at the next boundary, for this reason.
    leaving: Option<CloseReason>,
    /// When the session must end, counted from its first call.
    ends: Option<Tick>,
    /// When the last message ended, or the session began.
    without_message: Tick,
    /// Seconds since 1970 at [`Tick::ORIGIN`].
    unix_origin: Option<i64>,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
struct Client {
    /// The client said EHLO or LHLO, not HELO.
    extended: bool,
    authenticated: bool,
    /// Mechanisms that this connection cannot support.
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
    /// Why the content is refused. It is still read to its end.
    refusal: Option<Refusal>,
    /// Checks content in chunks that is not binary. For DATA the framer does it.
    check: Option<ContentCheck>,
}

/// Counters that RSET does not reset.
#[derive(Debug, Clone, Default)]
struct Counters {
    errors: u32,
    idle: u32,
    auth_failures: u32,
}

impl Counters {
    /// A client that sends mail does work: only what has come since then is idle or an error.
    const fn message_accepted(&mut self) {
        (self.idle, self.errors) = (0, 0);
    }
}

impl ServerSession {
    /// A session at the start of a connection.
    pub fn new(settings: Arc<ServerSettings>, transport: Transport) -> Self {
        let framer = Framer::new(settings.limits.command_line);
        Self {
            settings,
            transport,
            phase: Phase::Start,
            framer,
            question: None,
            saying: None,
            client: Client::default(),
            transaction: Transaction::default(),
            client_facts: None,
            forwarded: None,
            chunk: None,
            counters: Counters::default(),
            last_refusal: None,
            refused: false,
            timer: Timer::default(),
            pending: Some(Pending::Greeting),
            line_is_bdat: false,
            leaving: None,
            ends: None,
            without_message: Tick::ORIGIN,
            unix_origin: None,
            closed: false,
        }
    }

    /// Reads the input up to one event and returns the event.
    ///
    /// # Errors
    /// - [`ApiMisuse::Unanswered`]: a question is open; [`answer`](Self::answer) it first.
    /// - [`ApiMisuse::Handshake`]: a TLS handshake is under way.
    /// - [`ApiMisuse::Closed`]: the session is over.
    pub fn handle_input<'i>(
        &mut self,
        now: Tick,
        input: &'i [u8],
        out: &mut BytesMut,
    ) -> Result<Step<ServerNext<&'i str>>, ApiMisuse> {
        if self.closed {
            return Err(ApiMisuse::Closed);
        }
        if self.phase == Phase::Handshake && self.pending.is_none() {
            return Err(ApiMisuse::Handshake);
        }
        if self.question.is_some() {
            return Err(ApiMisuse::Unanswered);
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
            if mem::take(&mut self.refused) {
                return Ok(Step { consumed, next: ServerNext::Refused });
            }
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
            let starts_here = self.framer.discarded() == 0;
            let framed = self.framer.next(rest);
            if starts_here && framed.consumed > 0 {
                // Looked at now: the start of an over-long line is gone by the time that it ends.
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
                        // The next call reads the line again.
                        return Ok(Step { consumed: at, next: ServerNext::ContentAborted });
                    }
                    let next = self.line(now, line, left > 0, out);
                    self.check_budgets(out);
                    next
                }
                Frame::BadLine(fault) => {
                    self.timer.frame_ended();
                    // The line arrived at once. Otherwise it would have ended the session before
                    // its LF.
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

    /// Refuses the content that is being received. The session discards it to its true end and then
    /// says this reply; a 421 closes the connection. No effect while no content is being received.
    pub fn refuse_content(&mut self, refusal: Refusal) {
        if matches!(self.phase, Phase::Content | Phase::Chunks) {
            self.transaction.refusal.get_or_insert(refusal);
        }
    }

    /// The client has closed its side. The session is over; close the connection.
    pub fn handle_eof(&mut self) -> ServerEof {
        let in_transaction = self.is_in_transaction();
        self.end();
        ServerEof { in_transaction }
    }

    /// Removes a SASL mechanism from those that the settings offer, because this connection cannot
    /// support it: EXTERNAL without a client certificate, SCRAM-SHA-256-PLUS without a channel
    /// binding.
    ///
    /// Call it at the start, and again after [`tls_established`](Self::tls_established), which
    /// forgets it.
    pub fn withhold(&mut self, mechanism: Mechanism) {
        self.client.withheld.insert(mechanism);
    }

    /// Tells the session the wall-clock time, in seconds since 1970-01-01T00:00:00Z. Call it once,
    /// before the first input. FUTURERELEASE needs it, because its limit is a point in time.
    pub fn set_wall_clock(&mut self, now: Tick, unix_seconds: i64) {
        let since_origin = i64::try_from(now.since_origin().as_secs()).unwrap_or(i64::MAX);
        self.unix_origin = Some(unix_seconds.saturating_sub(since_origin));
    }

    /// The mechanisms that the settings offer, without the [withheld](Self::withhold) ones. The
    /// client may use them once it may send AUTH.
    pub fn mechanisms(&self) -> MechanismSet {
        self.settings.offers.auth.iter().filter(|mechanism| !self.client.withheld.contains(*mechanism)).collect()
    }

    /// The TLS handshake is done. The session forgets everything that it learned in clear (RFC 3207
    /// section 4.2).
    ///
    /// # Errors
    /// [`ApiMisuse::Handshake`]: no handshake was due.
    pub fn tls_established(&mut self) -> Result<(), ApiMisuse> {
        if self.phase != Phase::Handshake || self.pending.is_some() {
            return Err(ApiMisuse::Handshake);
        }
        self.advance(Exchange::Handshake, ReplyClass::Positive);
        self.timer.handshake_ended();
        self.transport = Transport::Tls;
        self.client = Client::default();
        self.transaction = Transaction::default();
        Ok(())
    }

    /// Returns `true` if a transaction is open: MAIL was accepted, and neither its end nor RSET nor
    /// EHLO has come.
    pub const fn is_in_transaction(&self) -> bool {
        matches!(self.phase, Phase::Mail | Phase::Rcpt | Phase::Content | Phase::Chunks)
    }

    /// The state of the conversation.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns `true` if TLS is up.
    pub const fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls)
    }

    /// Returns `true` if the client has authenticated.
    pub const fn is_authenticated(&self) -> bool {
        self.client.authenticated
    }

    /// What a proxy has said by XFORWARD about the client of this transaction, or of the next if
    /// none is open. It is for logs. `None`: it has said no such thing.
    pub const fn forwarded(&self) -> Option<&Arc<ClientFacts>> {
        self.forwarded.as_ref()
    }

    /// The last reply that refused a command or content, from the session or the application.
    /// Refused clients and the 421 that ends a session are not among them. `None`: there was none.
    pub const fn last_refusal(&self) -> Option<&Reply> {
        self.last_refusal.as_ref()
    }

    /// Returns `true` if the client said EHLO or LHLO, not HELO.
    pub const fn is_extended(&self) -> bool {
        self.client.extended
    }

    /// Ends the session when this many octets of a line are too many to throw away.
    fn is_endless(&mut self, octets: usize, out: &mut BytesMut) -> bool {
        let is_endless = octets > self.settings.limits.discarded_line;
        if is_endless {
            self.refuse(&replies::ENDLESS_LINE, out);
            self.close(CloseReason::EndlessLine);
        }
        is_endless
    }

    fn bad_line(&mut self, fault: LineFault, out: &mut BytesMut) {
        let is_response = self.phase == Phase::Auth;
        if is_response {
            self.advance(Exchange::AuthResponse, ReplyClass::Negative);
            self.auth_ended();
        }
        // After a bare LF the client may take the rest of this line for commands. After a bad BDAT
        // the size of the chunk is unknown.
        if fault == LineFault::BareLf || (self.line_is_bdat && !is_response) {
            self.close(CloseReason::Unframeable);
        }
        match fault {
            LineFault::BareLf => self.refuse(&replies::BARE_LF, out),
            LineFault::TooLong { .. } => self.refuse(&replies::LONG_LINE, out),
        }
    }

    /// Opens a question, and starts the clock on the application.
    fn ask<'i>(&mut self, now: Tick, about: Exchange, ask: Ask<&'i str>) -> ServerNext<&'i str> {
        let deadline = now + self.settings.timeouts.verdict;
        self.question = Some(Question { about, extended: false, deadline });
        ServerNext::Ask(ask)
    }

    /// Drops the open question and the replies that wait.
    fn give_up_questions(&mut self) {
        self.question = None;
        self.saying = None;
    }

    /// Returns `true` between a reply and a command.
    const fn is_at_boundary(&self) -> bool {
        self.question.is_none() && self.saying.is_none()
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

    /// Moves the phase by the table. An exchange without a row leaves it.
    fn advance(&mut self, exchange: Exchange, class: ReplyClass) {
        let was_in_transaction = self.is_in_transaction();
        if let Some(phase) = table::next(self.phase, exchange, class) {
            self.phase = phase;
        }
        let starts_over =
            matches!(exchange, Exchange::Hello | Exchange::Reset | Exchange::Handshake | Exchange::XClient);
        if !self.is_in_transaction() && (was_in_transaction || starts_over && class == ReplyClass::Positive) {
            self.forwarded = None;
        }
        if !matches!(self.phase, Phase::Mail | Phase::Rcpt | Phase::Content | Phase::Chunks) {
            self.transaction = Transaction::default();
        }
    }

    /// Says a reply. Nothing is read while a question is open or replies wait, so this is its
    /// place.
    fn say(&self, reply: &Reply, out: &mut BytesMut) {
        debug_assert!(self.is_at_boundary());
        out.extend_from_slice(reply.as_bytes());
    }

    /// Says a reply `times` times, as far as the output has room.
    fn say_times(&mut self, reply: Reply, times: usize, out: &mut BytesMut) {
        if times == 1 {
            self.say(&reply, out);
        } else {
            self.saying = Some(Replies::Same(reply, times));
            self.drain(out);
        }
    }

    /// Says a refusal that counts against the error budget.
    fn refuse(&mut self, reply: &Reply, out: &mut BytesMut) {
        self.put_off(reply, out);
        self.count_error();
    }

    /// Says a refusal that does not.
    fn put_off(&mut self, reply: &Reply, out: &mut BytesMut) {
        self.say(reply, out);
        self.last_refusal = Some(reply.clone());
        self.refused = true;
    }

    fn count_error(&mut self) {
        self.counters.errors = self.counters.errors.saturating_add(1);
    }
}
