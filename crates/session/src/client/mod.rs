//! The client's side of the conversation.

pub mod downgrade;
mod settings;

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::BytesMut;
use posthaste_wire::{
    Capabilities, Command, EncodeError, ReplyCode, ReplyRef, Secret,
    capability::Keyword,
    command::MAX_AUTH_LINE,
    frame::{SegmentList, Stuffer},
    reply::ReplyFramer,
};

pub use settings::{ClientSettings, ClientTimeouts};

use crate::{
    ApiMisuse, PeerMisbehaved, Step, Tick,
    table::{self, Exchange, Outcome, Phase},
};

/// One SMTP conversation as a client holds it, without I/O, clock or threads.
///
/// [`send`](Self::send) writes a command into the caller's output and gives a [`Ticket`]; the reply comes back with that
/// ticket. Replies are matched by their order and by nothing else (RFC 2920 section 3.1). As far as the server offers
/// PIPELINING, commands may be sent before the replies to earlier ones are there.
///
/// The loop of a driver:
///
/// 1. Write the output out. Call [`handle_input`](Self::handle_input) with everything that was read and not consumed yet.
/// 2. Take [`Step::consumed`] octets off the front of the input.
/// 3. Do what [`Step::next`] says. On [`ClientNext::SendBody`] give the content to [`payload`](Self::payload) and
///    [`finish_payload`](Self::finish_payload), and write their segments out in order.
/// 4. When the time of [`poll_timeout`](Self::poll_timeout) has come, the server has been silent for too long: close.
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
    stuffer: Stuffer,
    capabilities: Capabilities,
    next_ticket: u64,
    /// Recipients sent in this transaction, and those of them that were accepted.
    recipients: u32,
    accepted: u32,
    challenges: u32,
    /// The last greeting was EHLO and not HELO, which gets no capabilities.
    extended: bool,
    /// When the reply to the first of the unanswered is due.
    deadline: Option<Tick>,
    /// The last chance to send was used: only what is on its way still comes.
    closing: bool,
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
        /// For RCPT: which one of the transaction, counted from 0.
        recipient: Option<u32>,
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

/// How a conversation stood when the server closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientEof {
    /// Commands that have no reply; each is to be treated as if it had got a 451 (RFC 5321 section 3.8).
    pub unanswered: usize,
    /// The end of the content had left: the server may have the message, and trying again may make a duplicate.
    pub message_in_doubt: bool,
}

/// The most challenges of one AUTH exchange; no mechanism has more than three.
const MAX_CHALLENGES: u32 = 8;

impl ClientSession {
    /// A session at the start of a connection, which waits for the greeting.
    pub fn new(now: Tick, settings: ClientSettings) -> Self {
        let framer = ReplyFramer::new(settings.replies);
        let mut session = Self {
            settings,
            phase: Phase::Start,
            ahead: Phase::Start,
            unanswered: VecDeque::new(),
            framer,
            stuffer: Stuffer::new(),
            capabilities: Capabilities::default(),
            next_ticket: 0,
            recipients: 0,
            accepted: 0,
            challenges: 0,
            extended: false,
            deadline: None,
            closing: false,
        };
        session.expect(now, Exchange::Greeting, None);
        session
    }

    /// Reads the input as far as one reply, and says what that means.
    ///
    /// # Errors
    /// [`PeerMisbehaved`]: nothing that the server says can be trusted any more; close the connection.
    pub fn handle_input<'i>(&mut self, now: Tick, input: &'i [u8]) -> Result<Step<ClientNext<'i>>, PeerMisbehaved> {
        if self.phase == Phase::Closed {
            return Ok(Step { consumed: input.len(), next: ClientNext::Close });
        }
        if self.phase == Phase::Handshake {
            return match input {
                [] => Ok(Step { consumed: 0, next: ClientNext::StartTls }),
                _ => Err(self.mistrust(PeerMisbehaved::ResidueBeforeTls)),
            };
        }
        let framed = self.framer.next(input).map_err(|error| self.mistrust(error.into()))?;
        let Some(reply) = framed else {
            return Ok(Step { consumed: 0, next: ClientNext::NeedInput });
        };
        let consumed = reply.as_bytes().len();
        let Some(sent) = self.unanswered.pop_front() else {
            // The one thing that a server may say unasked is that it goes away.
            if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
                self.end();
                return Ok(Step { consumed, next: ClientNext::Close });
            }
            return Err(self.mistrust(PeerMisbehaved::UnsolicitedReply));
        };
        let more = input.len() > consumed;
        let next = self.answered(sent, reply, more).map_err(|error| self.mistrust(error))?;
        self.deadline = match self.phase {
            Phase::Closed => None,
            _ => self.unanswered.front().map(|sent| now + self.settings.timeouts.of(sent.exchange)),
        };
        Ok(Step { consumed, next })
    }

    /// Writes a command to the output.
    ///
    /// # Errors
    /// [`ApiMisuse::OutOfOrder`] when the command has no place here, [`ApiMisuse::NotYet`] when it has to wait for
    /// replies, [`ApiMisuse::Encode`] when it must not leave. Nothing is written then.
    pub fn send(&mut self, now: Tick, command: &Command<'_>, out: &mut BytesMut) -> Result<Ticket, ApiMisuse> {
        let exchange = Exchange::of(command);
        if self.phase == Phase::Closed || self.closing {
            return Err(ApiMisuse::Closed);
        }
        if !self.may_follow() {
            return Err(ApiMisuse::NotYet);
        }
        if !table::allows(self.ahead, exchange) {
            return Err(ApiMisuse::OutOfOrder);
        }
        command.encode(out)?;
        let recipient = match exchange {
            Exchange::Mail => {
                self.recipients = 0;
                None
            }
            Exchange::Rcpt => {
                let index = self.recipients;
                self.recipients = self.recipients.saturating_add(1);
                Some(index)
            }
            Exchange::Hello => {
                self.extended = !matches!(command, Command::Helo(_));
                None
            }
            Exchange::Quit => {
                self.closing = true;
                None
            }
            _ => None,
        };
        Ok(self.expect(now, exchange, recipient))
    }

    /// Answers a SASL challenge with a response in base64, or with nothing to give the exchange up.
    ///
    /// # Errors
    /// [`ApiMisuse::OutOfOrder`] when no challenge is open, [`ApiMisuse::Encode`] when the response has a line break in it.
    pub fn respond(
        &mut self,
        now: Tick,
        response: Option<Secret<&str>>,
        out: &mut BytesMut,
    ) -> Result<Ticket, ApiMisuse> {
        if self.phase != Phase::Auth || !self.unanswered.is_empty() {
            return Err(ApiMisuse::OutOfOrder);
        }
        let text = response.map_or("*", Secret::into_inner);
        // The last check before a line leaves, as for a command, with the room that RFC 4954 section 4 gives.
        if text.len().saturating_add(2) > MAX_AUTH_LINE {
            return Err(EncodeError::TooLong { limit: MAX_AUTH_LINE }.into());
        }
        if text.bytes().any(|octet| octet.is_ascii_control()) {
            return Err(EncodeError::ControlCharacter.into());
        }
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(self.expect(now, Exchange::AuthResponse, None))
    }

    /// Appends as much of the content as the list has room for, and says how many octets of it that was.
    ///
    /// # Errors
    /// [`ApiMisuse::OutOfOrder`] before [`ClientNext::SendBody`]; [`ApiMisuse::Content`] when the content has what could
    /// end it elsewhere. The transaction cannot go on then: close the connection.
    pub fn payload<'p>(&mut self, content: &'p [u8], segments: &mut SegmentList<'p>) -> Result<usize, ApiMisuse> {
        self.check_content()?;
        // Half a message must not be finished as if it were whole.
        self.stuffer.stuff(content, segments).map_err(|fault| {
            self.end();
            fault.into()
        })
    }

    /// Appends the end of the content. The reply comes with the ticket; the next MAIL may follow at once when the
    /// server offers PIPELINING.
    ///
    /// # Errors
    /// As [`payload`](Self::payload).
    pub fn finish_payload(&mut self, now: Tick, segments: &mut SegmentList<'_>) -> Result<Ticket, ApiMisuse> {
        self.check_content()?;
        if let Err(fault) = self.stuffer.finish(segments) {
            self.end();
            return Err(fault.into());
        }
        Ok(self.expect(now, Exchange::EndOfData, None))
    }

    /// The TLS handshake is done. The capabilities are forgotten (RFC 3207 section 4.2): send EHLO again.
    ///
    /// # Errors
    /// [`ApiMisuse::Handshake`] when none was due.
    pub fn tls_established(&mut self) -> Result<(), ApiMisuse> {
        if self.phase != Phase::Handshake {
            return Err(ApiMisuse::Handshake);
        }
        self.advance(Exchange::Handshake, Outcome::Positive);
        self.ahead = self.phase;
        self.capabilities = Capabilities::default();
        Ok(())
    }

    /// The server has closed its side.
    pub fn handle_eof(&mut self) -> ClientEof {
        let message_in_doubt = self.unanswered.iter().any(|sent| sent.exchange == Exchange::EndOfData);
        let unanswered = self.unanswered.iter().filter(|sent| sent.exchange != Exchange::Quit).count();
        self.end();
        ClientEof { unanswered, message_in_doubt }
    }

    /// When the server has been silent for too long.
    pub const fn poll_timeout(&self) -> Option<Tick> {
        self.deadline
    }

    /// How long one write may take: the driver's own bound.
    pub const fn write_timeout(&self) -> Duration {
        self.settings.timeouts.write
    }

    /// What the server offered in its last reply to EHLO, since TLS came up if it did.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Recipients of this transaction that the server has accepted so far.
    pub const fn accepted_recipients(&self) -> u32 {
        self.accepted
    }

    /// Where the conversation stands by the replies that came.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// How many commands have no reply yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether another command may leave now: nothing is unanswered, or everything is and may be followed
    /// (RFC 2920 section 3.1).
    fn may_follow(&self) -> bool {
        let followed = |sent: &Sent| {
            matches!(sent.exchange, Exchange::Mail | Exchange::Rcpt | Exchange::Reset | Exchange::EndOfData)
        };
        self.unanswered.is_empty()
            || (self.capabilities.offers(Keyword::Pipelining) && self.unanswered.iter().all(followed))
    }

    fn check_content(&self) -> Result<(), ApiMisuse> {
        match self.phase {
            Phase::Content if self.unanswered.is_empty() => Ok(()),
            Phase::Closed => Err(ApiMisuse::Closed),
            _ => Err(ApiMisuse::OutOfOrder),
        }
    }

    /// Nothing that comes from here on is looked at.
    fn mistrust(&mut self, error: PeerMisbehaved) -> PeerMisbehaved {
        self.end();
        error
    }

    fn end(&mut self) {
        self.phase = Phase::Closed;
        self.deadline = None;
    }

    fn expect(&mut self, now: Tick, exchange: Exchange, recipient: Option<u32>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let hoped = match exchange {
            Exchange::Data => Outcome::Intermediate,
            _ => Outcome::Positive,
        };
        self.ahead = table::next(self.ahead, exchange, hoped).unwrap_or(self.ahead);
        if self.unanswered.is_empty() {
            self.deadline = Some(now + self.settings.timeouts.of(exchange));
        }
        self.unanswered.push_back(Sent { ticket, exchange, recipient });
        ticket
    }

    fn answered<'i>(&mut self, sent: Sent, reply: ReplyRef<'i>, more: bool) -> Result<ClientNext<'i>, PeerMisbehaved> {
        let code = reply.code();
        let outcome = Outcome::from(code);
        let fits = match sent.exchange {
            Exchange::Data => outcome != Outcome::Positive,
            Exchange::Auth | Exchange::AuthResponse => true,
            _ => outcome != Outcome::Intermediate,
        };
        if !fits {
            return Err(PeerMisbehaved::UnfittingReply);
        }
        // A server that gives 354 though no recipient is left has to be sent its dot (RFC 2920 section 3.1).
        if sent.exchange == Exchange::Data && outcome == Outcome::Intermediate {
            self.phase = Phase::Content;
            self.stuffer = Stuffer::new();
        }
        self.advance(sent.exchange, outcome);
        if self.unanswered.is_empty() {
            self.ahead = self.phase;
        }
        match (sent.exchange, outcome) {
            (Exchange::Rcpt, Outcome::Positive) if self.phase == Phase::Rcpt => {
                self.accepted = self.accepted.saturating_add(1)
            }
            // A pipelined RSET and MAIL may have left before this: the count begins where the transaction does.
            (Exchange::Mail, _) => self.accepted = 0,
            (Exchange::Hello, Outcome::Positive) if self.extended => {
                self.capabilities = Capabilities::from_reply(&reply).into_owned();
            }
            (Exchange::Hello, Outcome::Positive) => self.capabilities = Capabilities::default(),
            (Exchange::StartTls, Outcome::Positive) if more => return Err(PeerMisbehaved::ResidueBeforeTls),
            (Exchange::Data, Outcome::Intermediate) => return Ok(ClientNext::SendBody { to: sent.ticket }),
            (Exchange::Auth | Exchange::AuthResponse, Outcome::Intermediate) => {
                self.challenges = if sent.exchange == Exchange::Auth { 1 } else { self.challenges.saturating_add(1) };
                if self.challenges > MAX_CHALLENGES {
                    return Err(PeerMisbehaved::TooManyChallenges);
                }
                return Ok(ClientNext::Challenge(Secret::new(reply.lines().next().unwrap_or_default())));
            }
            _ => {}
        }
        // 421 may come instead of any reply, and nothing follows it (RFC 5321 section 3.8); nor does anything behind QUIT.
        if code == ReplyCode::SERVICE_NOT_AVAILABLE || sent.exchange == Exchange::Quit {
            self.end();
        }
        Ok(ClientNext::Reply { to: sent.ticket, recipient: sent.recipient, reply })
    }

    /// Moves the phase by the table. A refusal that the table does not know comes from an earlier one in the same
    /// group, such as 503 to RCPT after a refused MAIL, and changes nothing.
    fn advance(&mut self, exchange: Exchange, outcome: Outcome) {
        if let Some(phase) = table::next(self.phase, exchange, outcome) {
            self.phase = phase;
        }
    }
}
