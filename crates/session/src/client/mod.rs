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
    table::{self, Exchange, Outcome, Phase},
};

/// One SMTP or LMTP conversation as a client holds it, without I/O, clock or threads.
///
/// It has four kinds of methods. [`handle_input`](Self::handle_input), [`handle_timeout`](Self::handle_timeout) and
/// [`handle_eof`](Self::handle_eof) take what happens. [`send`](Self::send) and [`respond`](Self::respond) write lines.
/// [`begin_chunk`](Self::begin_chunk), [`payload`](Self::payload) and [`finish_payload`](Self::finish_payload) write
/// content. The others tell how things stand.
///
/// Whatever is sent gives a [`Ticket`], and the reply comes back with that ticket. Replies are matched by their order and
/// by nothing else (RFC 2920 section 3.1). As far as the server offers PIPELINING, commands may be sent before the replies
/// to earlier ones are there.
///
/// The loop of a driver:
///
/// 1. Write the output out. Call [`handle_input`](Self::handle_input) with everything that was read and not consumed yet.
/// 2. Take [`Step::consumed`](crate::Step::consumed) octets off the front of the input.
/// 3. Do what [`Step::next`](crate::Step::next) says; send what comes next, as much as [`ApiMisuse::NotYet`] allows: that is
///    a group where the server offers PIPELINING, and otherwise a line.
/// 4. When the time of [`poll_timeout`](Self::poll_timeout) has come, call [`handle_timeout`](Self::handle_timeout) and
///    close.
///
/// Content goes the way that [`body_kind`](Self::body_kind) names:
///
/// - [`BodyKind::Data`]: send DATA, behind the last RCPT at once if the server offers PIPELINING. On
///   [`ClientNext::SendBody`] give the content to `payload` until all of it is taken, and call `finish_payload`.
/// - [`BodyKind::Chunks`]: wait for the reply to every RCPT. With [`accepted_recipients`](Self::accepted_recipients) above
///   0 begin a chunk, the last one at once when the length is known; give its octets to `payload` and call
///   `finish_payload`. When a chunk is refused, stop and send RSET.
///
/// `payload` and `finish_payload` append segments; write the output first and then them, in order.
///
/// The whole loop, for a blocking thread and, with a list of what a server says, for a test. In the repository
/// `examples/src/bin/bare_send.rs` has it as a program, on a thread and on tokio.
///
/// ```
/// use std::{error::Error, io, time::{Duration, Instant}};
/// use bytes::{Buf as _, BytesMut};
/// use posthaste_session::{ApiMisuse, ClientNext, ClientSession, ClientSettings, Tick, client::BodyKind};
/// use posthaste_session::wire::{Command, frame::SegmentList};
///
/// trait Connection {
///     fn write(&mut self, octets: &[u8]) -> io::Result<()>;
///     fn read(&mut self, octets: &mut [u8], within: Option<Duration>) -> io::Result<usize>;
/// }
///
/// /// Sends lines in their order, with the content where there is none, and gives the codes of the replies.
/// fn converse(
///     connection: &mut impl Connection,
///     lines: &[Option<&str>],
///     content: &[u8],
/// ) -> Result<Vec<u16>, Box<dyn Error>> {
///     let begun = Instant::now();
///     let mut session = ClientSession::new(Tick::ORIGIN, ClientSettings::default());
///     let (mut input, mut out, mut codes, mut lines) = (BytesMut::new(), BytesMut::new(), Vec::new(), lines.iter());
///     let mut next_line = lines.next();
///     loop {
///         let now = Tick::new(begun.elapsed());
///         let step = session.handle_input(now, &input)?;
///         let consumed = step.consumed;
///         let (mut content_is_due, mut wait) = (false, false);
///         match step.next {
///             ClientNext::NeedInput => wait = true,
///             ClientNext::Reply { reply, .. } => codes.push(reply.code().get()),
///             ClientNext::SendBody { .. } => content_is_due = true,
///             ClientNext::Close => return Ok(codes),
///             ClientNext::Unasked { reply } => return Err(reply.to_string().into()),
///             // What AUTH and STARTTLS ask for, neither of which was sent.
///             ClientNext::Challenge(_) | ClientNext::StartTls => return Err("not expected".into()),
///         }
///         input.advance(consumed);
///         while let (Some(line), false) = (next_line, content_is_due) {
///             let sent = match line {
///                 Some(line) => session.send(now, &Command::parse(line.as_bytes())?, &mut out).map(drop),
///                 None if session.body_kind() == BodyKind::Data => session.send(now, &Command::Data, &mut out).map(drop),
///                 None => {
///                     let begun = session.begin_chunk(now, content.len() as u64, true, &mut out);
///                     content_is_due = begun.is_ok();
///                     begun
///                 }
///             };
///             match sent {
///                 // What was refused leaves no place for what was to follow.
///                 Ok(()) | Err(ApiMisuse::OutOfOrder) => next_line = lines.next(),
///                 Err(ApiMisuse::NotYet | ApiMisuse::Closed) => break,
///                 Err(error) => return Err(error.into()),
///             }
///         }
///         connection.write(&out.split())?;
///         if content_is_due {
///             // 354 for nobody is answered with a lone dot.
///             let mut rest = if session.accepted_recipients() > 0 { content } else { &[] };
///             loop {
///                 let mut segments = SegmentList::new();
///                 let taken = session.payload(now, rest, &mut segments)?;
///                 rest = &rest[taken..];
///                 let is_end = rest.is_empty() && session.finish_payload(now, &mut segments).is_ok();
///                 for segment in segments.as_slice() {
///                     connection.write(segment.as_bytes())?;
///                 }
///                 if is_end {
///                     break;
///                 }
///             }
///         } else if wait {
///             let within = session.poll_timeout().map(|deadline| deadline.since(now));
///             let mut octets = [0; 4_096];
///             match connection.read(&mut octets, within) {
///                 Ok(0) => return Err(format!("the server has left: {:?}", session.handle_eof()).into()),
///                 Ok(read) => input.extend_from_slice(&octets[..read]),
///                 Err(error) => {
///                     session.handle_timeout(Tick::new(begun.elapsed()));
///                     return Err(error.into());
///                 }
///             }
///         }
///     }
/// }
///
/// /// Of a blocking thread.
/// impl Connection for std::net::TcpStream {
///     fn write(&mut self, octets: &[u8]) -> io::Result<()> {
///         io::Write::write_all(self, octets)
///     }
///     fn read(&mut self, octets: &mut [u8], within: Option<Duration>) -> io::Result<usize> {
///         // A time of zero would mean forever.
///         self.set_read_timeout(within.map(|within| within.max(Duration::from_millis(1))))?;
///         io::Read::read(self, octets)
///     }
/// }
///
/// /// Of a test: what the server says, piece by piece, and what it hears.
/// struct Script(std::vec::IntoIter<&'static str>, Vec<u8>);
///
/// impl Connection for Script {
///     fn write(&mut self, octets: &[u8]) -> io::Result<()> {
///         self.1.extend_from_slice(octets);
///         Ok(())
///     }
///     fn read(&mut self, octets: &mut [u8], _: Option<Duration>) -> io::Result<usize> {
///         io::Read::read(&mut self.0.next().unwrap_or_default().as_bytes(), octets)
///     }
/// }
///
/// let hello = "250-s\r\n250 PIPELINING\r\n";
/// let server = ["220 s\r\n", hello, "250 ok\r\n550 no\r\n250 ok\r\n35", "4 go\r\n", "250 ok\r\n", "221 bye\r\n"];
/// let mut script = Script(server.to_vec().into_iter(), Vec::new());
/// let lines = ["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@d>"].map(Some);
/// let lines = [&lines[..], &[None, Some("QUIT")]].concat();
/// let codes = converse(&mut script, &lines, b".dots are stuffed\r\n")?;
/// assert_eq!(codes, [220, 250, 250, 550, 250, 250, 221]);
/// let group = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n";
/// assert_eq!(script.1, format!("{group}..dots are stuffed\r\n.\r\nQUIT\r\n").as_bytes());
/// # Ok::<(), Box<dyn Error>>(())
/// ```
///
/// # Replies that are not quite well formed
///
/// What a server says to a message counts, also when it is not said as RFC 5321 section 4.2 has it: a message that was taken
/// must not be sent again because of a line's end. A reply counts by the code of its first line, as
/// [`ReplyFramer::tolerant`] reads it; from the first such reply on there is an [`oddity`](Self::oddity):
///
/// | octets | what they count as |
/// |---|---|
/// | `250 ok` LF, `250 ok` CR CRLF, a CR or NUL in the text, `250` TAB, `250ok`, `250-a` and `251 b`, a line beyond the limit | the reply 250 |
/// | an empty line before a reply, between two, or within one | nothing; 8 before a reply, and 8 within one |
/// | 220 or another such 2yz to the end of the content | that the server has the message |
/// | a reply without an end within the limits, or with a later line without a code, to the end of the content, or a refusal | the reply, and the end of the session |
/// | the same as a positive reply to anything else | [`PeerMisbehaved::Reply`] |
/// | what does not start with three digits | [`PeerMisbehaved::Reply`] |
/// | any of these in reply to STARTTLS or AUTH, and an empty line behind the 220 to STARTTLS | an error, as nobody may put in a word there |
///
/// Behind an oddity commands leave one at a time, whatever is offered, so that each reply can only be that of its command;
/// content goes by DATA unless it is binary, since 354 shows that no reply is missing or too many; and no second message goes
/// over the connection. Of a group that was on its way the replies are still given, in their order: a caller should believe
/// the refusals behind the odd one when 354 or the reply to RSET has come in its place.
///
/// Memory: the session keeps one reply to EHLO, at most 64 lines of it; 32 octets for each unanswered command, at most
/// 1,024 of those, and in LMTP for each recipient whose reply to the content is to come; 4 octets for each accepted
/// recipient of a transaction. It never keeps content or input.
#[derive(Debug)]
pub struct ClientSession {
    settings: ClientSettings,
    /// Where the conversation stands by the replies that came.
    phase: Phase,
    /// Where it will stand when every reply that is still to come is positive.
    ahead: Phase,
    /// What was sent and not answered, in order.
    unanswered: VecDeque<Sent>,
    framer: ReplyFramer,
    capabilities: Capabilities,
    next_ticket: u64,
    /// How the last greeting was sent.
    hello: Hello,
    /// LHLO was accepted: the end of the content has a reply for each recipient.
    lmtp: bool,
    /// MAIL commands sent on this connection.
    transactions: u32,
    /// Recipients sent in this transaction.
    recipients: u32,
    /// Which of them were accepted, in order.
    accepted: Vec<u32>,
    /// `BODY=` of the last MAIL.
    body: Option<BodyType>,
    flow: Flow,
    /// Looks at the chunks of a transaction, all of them together.
    check: ContentCheck,
    challenges: u32,
    /// The SASL exchange was given up: only a refusal fits now.
    gave_up: bool,
    /// Octets of the input since the start: done with, and shown.
    consumed: u64,
    shown: u64,
    /// When the reply to the first of the unanswered is due.
    reply_due: Option<Tick>,
    /// The caller was told to wait for it: its time has begun, and is not given again.
    waits: bool,
    /// When the content given last has to be written out.
    block_due: Option<Tick>,
    /// The last chance to send was used: only what is on its way still comes.
    closing: bool,
    /// What was not quite a reply, first of all.
    odd: Option<PeerMisbehaved>,
    /// Empty lines since the last reply.
    empty_lines: u8,
}

/// Names a command, so that its reply is known when it comes.
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
    /// Which RCPT of the transaction it is.
    recipient: Option<u32>,
    /// Octets of the input that had been shown: its reply begins behind them.
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

/// What a driver has to do.
#[derive(Debug)]
pub enum ClientNext<'i> {
    /// Read more input, at the latest until [`ClientSession::poll_timeout`].
    NeedInput,
    /// A reply came. After a 421 the session is closed and the next call says so.
    Reply {
        /// The command that it answers.
        to: Ticket,
        /// Which recipient of the transaction, counted from 0: for RCPT, and in LMTP for the end of the content, which
        /// has a reply for each accepted one (RFC 2033 section 4.2).
        recipient: Option<u32>,
        /// What the server said.
        reply: ReplyRef<'i>,
    },
    /// A reply came that answers no command, and the session is closed with it: a 421 (RFC 5321 section 3.8), or a
    /// refusal in the middle of content, which is then refused and not to be finished.
    Unasked {
        /// What the server said.
        reply: ReplyRef<'i>,
    },
    /// The server asks for a SASL response to this challenge, which is in base64: [`ClientSession::respond`].
    Challenge(Secret<&'i [u8]>),
    /// 354 came: send the content now. When [`ClientSession::accepted_recipients`] is 0, send an empty one, which is the
    /// lone dot of RFC 2920 section 3.1.
    SendBody {
        /// The DATA that it answers.
        to: Ticket,
    },
    /// 220 came: do the TLS handshake on a fresh input buffer and call [`ClientSession::tls_established`].
    StartTls,
    /// The conversation is over, after QUIT or a 421: close the connection.
    Close,
}

/// How a conversation stood when the server closed it, or was silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEof {
    /// Replies that did not come, the one to QUIT apart; each command is to be treated as if it had got a 451 (RFC 5321
    /// section 3.8).
    pub unanswered: usize,
    /// The end of the content had left: the server may have the message, and trying again may make a duplicate.
    pub message_in_doubt: bool,
}

impl ClientSession {
    /// A session at the start of a connection, which waits for the greeting.
    pub fn new(now: Tick, settings: ClientSettings) -> Self {
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
        session.expect(now, Exchange::Greeting, None);
        session
    }

    /// The TLS handshake is done. What was learnt before is forgotten (RFC 3207 section 4.2): send EHLO again.
    ///
    /// # Errors
    /// [`ApiMisuse::Handshake`] when none was due.
    pub fn tls_established(&mut self) -> Result<(), ApiMisuse> {
        if self.phase != Phase::Handshake {
            return Err(ApiMisuse::Handshake);
        }
        self.advance(Exchange::Handshake, Outcome::Positive);
        self.ahead = self.phase;
        self.reply_due = None;
        self.capabilities = Capabilities::default();
        self.lmtp = false;
        self.accepted.clear();
        self.odd = None;
        self.empty_lines = 0;
        Ok(())
    }

    /// The server has closed its side.
    pub fn handle_eof(&mut self) -> ClientEof {
        let message_in_doubt = self.message_in_doubt();
        let unanswered = self.unanswered.iter().filter(|sent| sent.exchange != Exchange::Quit).count();
        self.end();
        ClientEof { unanswered, message_in_doubt }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) may have come. If it has, the session is closed and says how it
    /// stood; close the connection.
    pub fn handle_timeout(&mut self, now: Tick) -> Option<ClientEof> {
        self.poll_timeout().filter(|due| *due <= now).map(|_| self.handle_eof())
    }

    /// When the server has been silent for too long, counted from the first [`ClientNext::NeedInput`] behind what was sent
    /// or heard last; or for too long has not taken the content that [`payload`](Self::payload) appended last. Whoever waits for neither, but for the next piece of content from
    /// elsewhere, does not look at it.
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.reply_due.into_iter().chain(self.block_due).min()
    }

    /// How long one write may take: a block of content, or what is in the output (RFC 5321 section 4.5.3.2.5).
    pub const fn write_timeout(&self) -> Duration {
        self.settings.timeouts.write
    }

    /// What the server offered in its last reply to EHLO or LHLO, since TLS came up if it did.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How many more transactions the server takes on this connection, when it has named a limit (MAILMAX of RFC 9422).
    /// At 0, QUIT and connect again.
    pub fn transactions_left(&self) -> Option<u32> {
        self.capabilities.limits().mail_max.map(|most| most.get().saturating_sub(self.transactions))
    }

    /// What the server has said first that was not quite a reply and was taken for one all the same, since TLS came up if it
    /// did. It gets no other message on this connection.
    pub const fn oddity(&self) -> Option<PeerMisbehaved> {
        self.odd
    }

    /// Whether commands may leave before the replies to earlier ones are there: PIPELINING is offered, and there is no
    /// [`oddity`](Self::oddity).
    pub const fn may_pipeline(&self) -> bool {
        self.capabilities.offers(Keyword::Pipelining) && self.odd.is_none()
    }

    /// Recipients of this transaction that the server has accepted so far.
    pub fn accepted_recipients(&self) -> u32 {
        u32::try_from(self.accepted.len()).unwrap_or(u32::MAX)
    }

    /// Whether LHLO was accepted, and the end of the content has a reply for each accepted recipient (RFC 2033).
    pub const fn is_lmtp(&self) -> bool {
        self.lmtp
    }

    /// Where the conversation stands by the replies that came.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// How many replies are still to come.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether a reply to this is still to come.
    pub fn is_unanswered(&self, ticket: Ticket) -> bool {
        self.unanswered.iter().any(|sent| sent.ticket == ticket)
    }

    /// Whether the end of a message may have left that the server has not answered, for one recipient at least: it may
    /// have the message, and sending it again may make a duplicate (RFC 1047). It stays true when the conversation ends so.
    pub fn message_in_doubt(&self) -> bool {
        self.unanswered.iter().any(|sent| sent.exchange == Exchange::EndOfData)
    }

    /// Nothing that comes from here on is looked at.
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
            Exchange::Data => Outcome::Intermediate,
            _ => Outcome::Positive,
        };
        self.ahead = table::next(self.ahead, exchange, hoped).unwrap_or(self.ahead);
        let is_first = self.unanswered.is_empty();
        self.unanswered.push_back(Sent { ticket, exchange, recipient, after: self.shown });
        if is_first {
            self.begin_reply(now);
        }
        ticket
    }

    /// The next reply is that of the first of the unanswered: its time and its limits hold.
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

    /// The caller was told to wait. Until now it had the turn, and what it did is not the server's silence.
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

    /// Moves the phase by the table. A refusal that the table does not know comes from an earlier one in the same
    /// group, such as 503 to RCPT after a refused MAIL, and changes nothing.
    fn advance(&mut self, exchange: Exchange, outcome: Outcome) {
        if let Some(phase) = table::next(self.phase, exchange, outcome) {
            self.phase = phase;
        }
    }
}

/// Whether nothing but a well-formed reply will do: a word that somebody puts in there would be believed within TLS, or would
/// be answered with a password.
const fn is_guarded(exchange: Exchange) -> bool {
    matches!(exchange, Exchange::StartTls | Exchange::Auth | Exchange::AuthResponse)
}
