//! The client's side of the conversation.

mod content;
pub mod downgrade;
mod fitting;
mod input;
mod limits;
mod output;
mod settings;

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use posthaste_wire::{
    BodyType, Capabilities, ReplyRef, Secret,
    capability::Keyword,
    command::MAX_AUTH_LINE,
    frame::ContentCheck,
    reply::{ReplyFramer, ReplyLimits},
};

use content::Flow;

pub use content::BodyKind;
pub use limits::recipients_at_once;
pub use settings::{ClientSettings, ClientTimeouts};

use crate::{
    ApiMisuse, PeerMisbehaved, Tick,
    table::{self, Exchange, Phase, ReplyClass},
};

/// One SMTP or LMTP conversation from the client's side, without I/O, clock or threads.
///
/// It has four kinds of methods:
///
/// - [`handle_input`](Self::handle_input), [`handle_timeout`](Self::handle_timeout) and
///   [`handle_eof`](Self::handle_eof) take events.
/// - [`send`](Self::send) and [`respond`](Self::respond) write lines.
/// - [`begin_chunk`](Self::begin_chunk), [`payload`](Self::payload) and
///   [`finish_payload`](Self::finish_payload) write content.
/// - The others return the state, or tell the session that TLS is up.
///
/// Every command has a [`Ticket`], and its reply comes back with that ticket. Replies are matched
/// by their order alone (RFC 2920 section 3.1). With PIPELINING, commands may be sent before
/// earlier replies arrive.
///
/// The loop of a driver:
///
/// 1. Write the output. Call [`handle_input`](Self::handle_input) with everything that was read and
///    not consumed.
/// 2. Remove [`Step::consumed`](crate::Step::consumed) octets from the front of the input.
/// 3. Do what [`Step::next`](crate::Step::next) says. Then send until [`ApiMisuse::NotYet`]: with
///    PIPELINING that is a group, otherwise one line.
/// 4. At the time of [`poll_timeout`](Self::poll_timeout) call
///    [`handle_timeout`](Self::handle_timeout) and close the connection.
///
/// Send content as [`body_kind`](Self::body_kind) says:
///
/// - [`BodyKind::Data`]: send DATA, with PIPELINING directly after the last RCPT. At
///   [`ClientNext::SendBody`] give the content to `payload` until all of it is taken, and call
///   `finish_payload`.
/// - [`BodyKind::Chunks`]: wait for the reply to every RCPT. If
///   [`accepted_recipients`](Self::accepted_recipients) is above 0, begin a chunk. If the length is
///   known, one chunk holds the whole content and is the last. Give its octets to `payload` and
///   call `finish_payload`. If a chunk is refused, stop and send RSET.
///
/// `payload` and `finish_payload` append segments. Write the output first and then the segments, in
/// order.
///
#[doc = include_str!("driver.md")]
///
/// # Replies that are not well formed
///
/// A server's reply to a message counts even if it breaks RFC 5321 section 4.2. A message that was
/// taken must not be sent again because of a bad line end. A reply counts by the code of its last
/// line, as [`ReplyFramer::tolerant`] reads it. If its end is unknown, the code of its first line
/// counts. The first such reply is the session's [`oddity`](Self::oddity):
///
/// | octets | what they count as |
/// |---|---|
/// | `250 ok` LF, `250 ok` CR CRLF, a CR or NUL in the text, `250` TAB, `250ok`, a line beyond the limit | the reply 250 |
/// | `250-a` and `251 b` | the reply 251 |
/// | an empty line before, between or within replies, at most 8 before one and 8 within one | skipped |
/// | 220 or another misplaced 2yz to the end of the content | the server has the message |
/// | a reply whose end is unknown: it exceeds the limits, or a later line has no code. It answers the end of the content, or is a refusal | the reply, and the end of the session |
/// | such a reply, as a 2yz or 3yz to anything else | [`PeerMisbehaved::Reply`] |
/// | octets that do not start with three digits | [`PeerMisbehaved::Reply`] |
/// | any of these in reply to STARTTLS or AUTH, and an empty line after the 220 to STARTTLS | an error, since an attacker may have inserted it |
///
/// After an oddity:
///
/// - Commands are sent one at a time, so that each reply must belong to its command.
/// - Content goes by DATA unless it is binary, because 354 shows that replies and commands are in
///   step.
/// - No second message goes over the connection.
/// - Replies of a group that was already sent are still reported in order. Believe a refusal after
///   the odd reply only if 354 or the reply to RSET follows in its place.
///
/// Memory: one reply to EHLO of at most 64 lines. 32 bytes for each unanswered command, at most
/// 1,024 of them. In LMTP the same for each recipient whose reply to the content is outstanding. 4
/// bytes for each accepted recipient. The session never keeps content or input.
#[derive(Debug)]
pub struct ClientSession {
    settings: ClientSettings,
    /// The state by the replies that came.
    phase: Phase,
    /// The state once every outstanding reply is positive.
    ahead: Phase,
    /// Commands without a reply, in order.
    unanswered: VecDeque<Sent>,
    framer: ReplyFramer,
    capabilities: Capabilities,
    next_ticket: u64,
    /// The command of the last greeting.
    hello: Hello,
    /// LHLO was accepted: the end of the content has a reply for each recipient.
    lmtp: bool,
    /// MAIL commands sent on this connection.
    transactions: u32,
    /// RCPT commands sent in this transaction.
    recipients: u32,
    /// The indexes of accepted recipients, in order.
    accepted: Vec<u32>,
    /// `BODY=` of the last MAIL.
    body: Option<BodyType>,
    flow: Flow,
    /// Checks the chunks of a transaction, all of them together.
    check: ContentCheck,
    challenges: u32,
    /// The SASL exchange was cancelled: only a refusal fits now.
    gave_up: bool,
    /// Octets of the input since the start: consumed, and shown.
    consumed: u64,
    shown: u64,
    /// When the reply to the first unanswered command is due.
    reply_due: Option<Tick>,
    /// The caller was told to wait for that reply, so its time runs and is not extended.
    waits: bool,
    /// When the content that was given last must be written.
    block_due: Option<Tick>,
    /// QUIT was sent: only outstanding replies still come.
    closing: bool,
    /// The first reply that was not well formed.
    odd: Option<PeerMisbehaved>,
    /// Empty lines since the last reply.
    empty_lines: u8,
}

/// Identifies a command, to match its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// The greeting, which no command asks for.
    pub const GREETING: Self = Self(0);
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    ticket: Ticket,
    exchange: Exchange,
    /// The index of the RCPT in its transaction.
    recipient: Option<u32>,
    /// Octets of the input that were shown before the command: its reply begins after them.
    after: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// HELO: no capabilities.
    Plain,
    /// EHLO.
    Extended,
    /// LHLO.
    Local,
}

/// The driver's next action.
#[derive(Debug)]
pub enum ClientNext<'i> {
    /// Read more input, until [`ClientSession::poll_timeout`] at the latest.
    NeedInput,
    /// A reply to a command. After a 421 the session is closed, and the next call says so.
    Reply {
        /// The command.
        to: Ticket,
        /// The index of the recipient in the transaction, from 0: for RCPT, and in LMTP for the end
        /// of the content. That has a reply for each accepted recipient (RFC 2033 section 4.2).
        recipient: Option<u32>,
        /// The reply.
        reply: ReplyRef<'i>,
    },
    /// A reply to no command: a 421 (RFC 5321 section 3.8), or a refusal in the middle of content.
    /// The session is closed. Do not finish the content.
    Unasked {
        /// The reply.
        reply: ReplyRef<'i>,
    },
    /// A SASL challenge in base64. Answer it with [`ClientSession::respond`].
    Challenge(Secret<&'i [u8]>),
    /// 354 came: send the content now. If [`ClientSession::accepted_recipients`] is 0, send empty
    /// content, which is the lone dot of RFC 2920 section 3.1.
    SendBody {
        /// The DATA command.
        to: Ticket,
    },
    /// 220 came: do the TLS handshake on an empty input buffer and call
    /// [`ClientSession::tls_established`].
    StartTls,
    /// The conversation is over, after QUIT or a 421. Close the connection.
    Close,
}

/// The state of a conversation when the server closed it or was silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientEof {
    /// Commands without a reply, except QUIT. Treat each as if it had got a 451 (RFC 5321 section
    /// 3.8).
    pub unanswered: usize,
    /// The end of the content was sent. The server may have the message, so sending it again may
    /// make a duplicate.
    pub message_in_doubt: bool,
    /// What the first of these commands was. `None`: no reply was awaited.
    pub awaited: Option<Exchange>,
}

impl ClientSession {
    /// A session at the start of a connection. The time for the greeting begins with the first
    /// [`ClientNext::NeedInput`].
    pub fn new(settings: ClientSettings) -> Self {
        let framer = ReplyFramer::tolerant(settings.replies);
        let mut session = Self {
            settings,
            phase: Phase::Start,
            ahead: Phase::Start,
            unanswered: VecDeque::new(),
            framer,
            capabilities: Capabilities::default(),
            next_ticket: 0,
            hello: Hello::Plain,
            lmtp: false,
            transactions: 0,
            recipients: 0,
            accepted: Vec::new(),
            body: None,
            flow: Flow::None,
            check: ContentCheck::new(usize::MAX),
            challenges: 0,
            gave_up: false,
            consumed: 0,
            shown: 0,
            reply_due: None,
            waits: false,
            block_due: None,
            closing: false,
            odd: None,
            empty_lines: 0,
        };
        session.expect(Tick::ORIGIN, Exchange::Greeting, None);
        session.reply_due = None;
        session
    }

    /// The TLS handshake is done. The session forgets everything that it learned before (RFC 3207
    /// section 4.2); send EHLO again.
    ///
    /// # Errors
    /// [`ApiMisuse::Handshake`]: no handshake was due.
    pub fn tls_established(&mut self) -> Result<(), ApiMisuse> {
        if self.phase != Phase::Handshake {
            return Err(ApiMisuse::Handshake);
        }
        self.advance(Exchange::Handshake, ReplyClass::Positive);
        self.ahead = self.phase;
        self.reply_due = None;
        self.capabilities = Capabilities::default();
        self.lmtp = false;
        self.accepted.clear();
        self.odd = None;
        self.empty_lines = 0;
        Ok(())
    }

    /// The server has closed its side. The session is over; close the connection.
    pub fn handle_eof(&mut self) -> ClientEof {
        let (message_in_doubt, awaited) = (self.message_in_doubt(), self.awaited());
        let unanswered = self.unanswered.iter().filter(|sent| sent.exchange != Exchange::Quit).count();
        self.end();
        ClientEof { unanswered, message_in_doubt, awaited }
    }

    /// Ends the session if the time of [`poll_timeout`](Self::poll_timeout) has come, and returns
    /// its last state. Close the connection then.
    ///
    /// `None`: the time has not come.
    pub fn handle_timeout(&mut self, now: Tick) -> Option<ClientEof> {
        self.poll_timeout().filter(|due| *due <= now).map(|_| self.handle_eof())
    }

    /// The time to call [`handle_timeout`](Self::handle_timeout): the server has been silent for
    /// too long. `None`: the session waits for no reply. The time of a reply starts at the first
    /// [`ClientNext::NeedInput`] after the last command or reply. Content that
    /// [`payload`](Self::payload) appended has the time of a write.
    ///
    /// Ignore it while you wait for your own source of content.
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.reply_due.into_iter().chain(self.block_due).min()
    }

    /// How long one write of content or output may take (RFC 5321 section 4.5.3.2.5). Default: 3
    /// minutes.
    pub const fn write_timeout(&self) -> Duration {
        self.settings.timeouts.write
    }

    /// The offers of the server's last reply to EHLO or LHLO; under TLS, inside TLS.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How many more transactions the server takes on this connection (MAILMAX of RFC 9422). At 0,
    /// send QUIT and connect again. `None`: it announced no limit.
    pub fn transactions_left(&self) -> Option<u32> {
        self.capabilities.limits().mail_max.map(|most| most.get().saturating_sub(self.transactions))
    }

    /// The first reply that was not well formed and still counted; under TLS, the first inside TLS.
    /// The server gets no other message on this connection. `None`: every reply was well formed.
    pub const fn oddity(&self) -> Option<PeerMisbehaved> {
        self.odd
    }

    /// Returns `true` if commands may be sent before earlier replies arrive: PIPELINING is offered,
    /// and there is no [`oddity`](Self::oddity).
    pub const fn may_pipeline(&self) -> bool {
        self.capabilities.offers(Keyword::Pipelining) && self.odd.is_none()
    }

    /// Recipients of this transaction that the server has accepted so far.
    pub fn accepted_recipients(&self) -> u32 {
        u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }

    /// Returns `true` if LHLO was accepted: the end of the content has a reply for each accepted
    /// recipient (RFC 2033).
    pub const fn is_lmtp(&self) -> bool {
        self.lmtp
    }

    /// The state of the conversation according to the replies so far.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of outstanding replies.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The exchange whose reply is awaited: the first of those that are outstanding. QUIT does not
    /// count.
    pub fn awaited(&self) -> Option<Exchange> {
        self.unanswered.front().map(|sent| sent.exchange).filter(|exchange| *exchange != Exchange::Quit)
    }

    /// Returns `true` if a reply to this command is outstanding.
    pub fn is_unanswered(&self, ticket: Ticket) -> bool {
        self.unanswered.iter().any(|sent| sent.ticket == ticket)
    }

    /// Returns `true` if the end of a message may have been sent, and a reply to it is missing. The
    /// server may have the message, so sending it again may make a duplicate (RFC 1047). It stays
    /// `true` when the conversation ends this way.
    pub fn message_in_doubt(&self) -> bool {
        self.unanswered.iter().any(|sent| sent.exchange == Exchange::EndOfData)
    }

    /// Ends the session: later input is ignored.
    fn mistrust(&mut self, error: PeerMisbehaved) -> PeerMisbehaved {
        self.end();
        error
    }

    fn end(&mut self) {
        self.phase = Phase::Closed;
        self.reply_due = None;
        self.block_due = None;
    }

    fn expect(&mut self, now: Tick, exchange: Exchange, recipient: Option<u32>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let hoped = match exchange {
            Exchange::Data => ReplyClass::Intermediate,
            _ => ReplyClass::Positive,
        };
        self.ahead = table::next(self.ahead, exchange, hoped).unwrap_or(self.ahead);
        let is_first = self.unanswered.is_empty();
        self.unanswered.push_back(Sent { ticket, exchange, recipient, after: self.shown });
        if is_first {
            self.begin_reply(now);
        }
        ticket
    }

    /// Sets the time and the limits of the reply to the first unanswered command.
    fn begin_reply(&mut self, now: Tick) {
        self.waits = false;
        self.reply_due = self.first_due(now);
        if let Some(sent) = self.unanswered.front() {
            let limits = self.reply_limits(sent.exchange);
            self.framer = match is_guarded(sent.exchange) {
                true => ReplyFramer::new(limits),
                false => ReplyFramer::tolerant(limits),
            };
        } else {
            self.framer = ReplyFramer::tolerant(self.settings.replies);
        }
    }

    /// Starts the server's time. Until now the caller had the turn.
    fn begin_waiting(&mut self, now: Tick) {
        if !self.waits {
            self.waits = true;
            self.reply_due = self.first_due(now);
        }
    }

    fn first_due(&self, now: Tick) -> Option<Tick> {
        self.unanswered.front().map(|sent| now + self.settings.timeouts.of(sent.exchange))
    }

    /// A challenge may be as long as a response (RFC 4954 section 4).
    fn reply_limits(&self, exchange: Exchange) -> ReplyLimits {
        let mut limits = self.settings.replies;
        if matches!(exchange, Exchange::Auth | Exchange::AuthResponse) {
            limits.line = limits.line.max(MAX_AUTH_LINE);
        }
        limits
    }

    /// Moves the phase by the table. A refusal without a row follows an earlier one of the same
    /// group, such as 503 to RCPT after a refused MAIL, and changes nothing.
    fn advance(&mut self, exchange: Exchange, class: ReplyClass) {
        if let Some(phase) = table::next(self.phase, exchange, class) {
            self.phase = phase;
        }
    }
}

/// Returns `true` if only a well-formed reply will do. An inserted reply would be believed inside
/// TLS, or would be answered with a password.
const fn is_guarded(exchange: Exchange) -> bool {
    matches!(exchange, Exchange::StartTls | Exchange::Auth | Exchange::AuthResponse)
}
