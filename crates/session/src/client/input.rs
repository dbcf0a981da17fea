//! Replies of the server.

use posthaste_wire::{
    Capabilities, ReplyCode, ReplyRef, Secret,
    frame::Stuffer,
    reply::{ReplyError, ReplyErrorKind},
};

use super::{ClientNext, ClientSession, Flow, Hello, Sent, fitting::fits, is_guarded};
use crate::{
    PeerMisbehaved, Step, Tick,
    table::{Exchange, Phase, ReplyClass},
};

/// The most challenges of one AUTH exchange. No mechanism has more than three.
const MAX_CHALLENGES: u32 = 8;
/// The most empty lines before a reply. One more counts as a line without a code.
const MAX_EMPTY_LINES: u8 = 8;

impl ClientSession {
    /// Reads the input up to one reply and returns what it means.
    ///
    /// A reply must begin after all input that the session had seen when the command was sent. The
    /// server sent an earlier reply without knowing the command. If that counted as the answer,
    /// each later reply would go to the wrong command.
    ///
    /// # Errors
    /// [`PeerMisbehaved`]: trust nothing more of the server, and close the connection.
    pub fn handle_input<'i>(&mut self, now: Tick, input: &'i [u8]) -> Result<Step<ClientNext<'i>>, PeerMisbehaved> {
        if self.phase == Phase::Closed {
            return Ok(Step { consumed: input.len(), next: ClientNext::Close });
        }
        self.shown = self.shown.max(self.consumed.saturating_add(input.len() as u64));
        if self.phase == Phase::Handshake {
            return match input {
                [] => Ok(Step { consumed: 0, next: ClientNext::StartTls }),
                _ => Err(self.mistrust(PeerMisbehaved::ResidueBeforeTls)),
            };
        }
        let empty = self.skip_empty_lines(input);
        let input = input.get(empty..).unwrap_or_default();
        let framed = self.framer.next(input).map_err(|error| self.mistrust(error.into()))?;
        let Some(reply) = framed else {
            self.begin_waiting(now);
            return Ok(Step { consumed: empty, next: ClientNext::NeedInput });
        };
        self.empty_lines = 0;
        if let Some(fault) = self.framer.fault() {
            self.odd.get_or_insert(fault.into());
        }
        let consumed = reply.as_bytes().len();
        let begin = self.consumed;
        self.consumed = begin.saturating_add(consumed as u64);
        let asked = self.unanswered.front().copied().filter(|sent| sent.after <= begin);
        let next = match asked {
            None => self.unasked(reply),
            Some(sent) => self.answered(sent, reply, input.len() > consumed),
        };
        let next = next.map_err(|error| self.mistrust(error))?;
        match self.phase {
            Phase::Closed => self.end(),
            // The handshake has the time of a command.
            Phase::Handshake => self.reply_due = Some(now + self.settings.timeouts.command),
            _ => self.begin_reply(now),
        }
        Ok(Step { consumed: empty + consumed, next })
    }

    /// Skips empty lines before a reply. For a guarded exchange, lines that came after its command
    /// are not skipped.
    fn skip_empty_lines(&mut self, input: &[u8]) -> usize {
        let guarded = self.unanswered.front().filter(|sent| is_guarded(sent.exchange)).map(|sent| sent.after);
        let mut skipped = 0;
        while self.empty_lines < MAX_EMPTY_LINES {
            let octets = match input.get(skipped..) {
                Some([b'\n', ..]) => 1,
                Some([b'\r', b'\n', ..]) => 2,
                _ => break,
            };
            let end = self.consumed.saturating_add(octets);
            if guarded.is_some_and(|after| end > after) {
                break;
            }
            self.odd.get_or_insert(ReplyError { kind: ReplyErrorKind::Code, line: 0, offset: 0 }.into());
            self.empty_lines += 1;
            self.consumed = end;
            skipped += usize::from(octets == 2) + 1;
        }
        skipped
    }

    /// Handles a reply without a command. A server may announce that it closes, or refuse the rest
    /// of a message.
    fn unasked<'i>(&mut self, reply: ReplyRef<'i>) -> Result<ClientNext<'i>, PeerMisbehaved> {
        let refused = self.unanswered.is_empty() && self.flow.is_unfinished();
        let expected = match ReplyClass::from(reply.code()) {
            ReplyClass::Negative => refused || reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE,
            ReplyClass::Positive | ReplyClass::Intermediate => false,
        };
        if !expected {
            return Err(PeerMisbehaved::UnsolicitedReply);
        }
        self.end();
        Ok(ClientNext::Unasked { reply })
    }

    fn answered<'i>(&mut self, sent: Sent, reply: ReplyRef<'i>, more: bool) -> Result<ClientNext<'i>, PeerMisbehaved> {
        let code = reply.code();
        let class = ReplyClass::from(code);
        if !self.fits(&sent, &reply, class) {
            if (sent.exchange, class) != (Exchange::EndOfData, ReplyClass::Positive) {
                // The command stays unanswered. After the end of the content the message is in
                // doubt.
                return Err(PeerMisbehaved::UnfittingReply(code));
            }
            self.odd.get_or_insert(PeerMisbehaved::UnfittingReply(code));
        }
        // No other reply can follow a cut one. A refusal, or the acceptance of a message, is useful
        // all the same.
        if reply.is_cut() && class != ReplyClass::Negative && sent.exchange != Exchange::EndOfData {
            return Err(self.framer.fault().map_or(PeerMisbehaved::UnfittingReply(code), PeerMisbehaved::from));
        }
        self.unanswered.pop_front();
        // A server that says 354 without an accepted recipient must get its lone dot (RFC 2920
        // section 3.1).
        if sent.exchange == Exchange::Data && class == ReplyClass::Intermediate {
            self.phase = Phase::Content;
            self.flow = Flow::Data(Stuffer::new());
        }
        self.advance(sent.exchange, class);
        if self.unanswered.is_empty() {
            self.ahead = self.phase;
        }
        match (sent.exchange, class) {
            (Exchange::Rcpt, ReplyClass::Positive) if self.phase == Phase::Rcpt => self.accepted.extend(sent.recipient),
            // The next RSET and MAIL may have been sent before this reply, so the count follows the
            // replies.
            (Exchange::Mail | Exchange::EndOfData, _) | (Exchange::Reset, ReplyClass::Positive) => {
                self.accepted.clear()
            }
            (Exchange::Hello, ReplyClass::Positive) => {
                self.accepted.clear();
                self.lmtp = self.hello == Hello::Local;
                self.capabilities = match self.hello {
                    Hello::Plain => Capabilities::default(),
                    Hello::Extended | Hello::Local if reply.is_well_formed() => {
                        Capabilities::from_reply(&reply).into_owned()
                    }
                    Hello::Extended | Hello::Local => {
                        Capabilities::from_reply(&reply.into_owned().borrowed()).into_owned()
                    }
                };
            }
            (Exchange::StartTls, ReplyClass::Positive) if more => return Err(PeerMisbehaved::ResidueBeforeTls),
            (Exchange::Data, ReplyClass::Intermediate) => return Ok(ClientNext::SendBody { to: sent.ticket }),
            (Exchange::Auth | Exchange::AuthResponse, ReplyClass::Intermediate) => {
                self.challenges = if sent.exchange == Exchange::Auth { 1 } else { self.challenges.saturating_add(1) };
                if self.challenges > MAX_CHALLENGES {
                    return Err(PeerMisbehaved::TooManyChallenges);
                }
                return Ok(ClientNext::Challenge(Secret::new(reply.lines().next().unwrap_or_default())));
            }
            _ => {}
        }
        // 421 may answer any command, and no reply follows it (RFC 5321 section 3.8). None follows
        // that of QUIT.
        if code == ReplyCode::SERVICE_NOT_AVAILABLE || sent.exchange == Exchange::Quit || reply.is_cut() {
            self.end();
        }
        Ok(ClientNext::Reply { to: sent.ticket, recipient: sent.recipient, reply })
    }

    fn fits(&self, sent: &Sent, reply: &ReplyRef<'_>, class: ReplyClass) -> bool {
        fits(sent.exchange, reply.code())
            && match (sent.exchange, class) {
                // In LMTP, content without recipients has no reply, so DATA must fail (RFC 2033
                // section 4.2).
                (Exchange::Data, ReplyClass::Intermediate) => !self.lmtp || !self.accepted.is_empty(),
                // A challenge is one line of base64 (RFC 4954 section 4). A cancelled exchange must
                // be refused: it neither continues nor succeeds.
                (Exchange::Auth | Exchange::AuthResponse, ReplyClass::Intermediate) => {
                    reply.lines().count() == 1 && !self.gave_up
                }
                (Exchange::AuthResponse, ReplyClass::Positive) => !self.gave_up,
                _ => true,
            }
    }
}
