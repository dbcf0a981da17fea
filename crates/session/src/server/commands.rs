//! Commands in the order of a conversation, and the verdicts on them.

use alloc::{format, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use posthaste_wire::{
    Auth, BodyType, Command, EhloName, Mail, Mechanism, Rcpt, Reply, ReplyCode, Secret, SyntaxError, SyntaxErrorKind,
};

use super::{
    Ask, CloseReason, Pending, Protocol, Replies, ServerNext, ServerSession, Topic, Transaction, Verdict, replies,
};
use crate::{
    ApiMisuse, Tick,
    table::{self, Exchange, Outcome, Phase},
};

impl ServerSession {
    /// Handles one line. `more` says that input follows it already.
    pub(super) fn line<'i>(
        &mut self,
        now: Tick,
        line: &'i [u8],
        more: bool,
        out: &mut BytesMut,
    ) -> Option<ServerNext<'i>> {
        if self.phase == Phase::Auth {
            return self.auth_response(now, line, out);
        }
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                self.malformed(line, &error, out);
                return None;
            }
        };
        if let Command::Bdat { size, last } = command {
            return self.bdat(now, size, last);
        }
        let exchange = Exchange::of(&command);
        if !table::allows(self.phase, exchange) {
            let reply = match (self.phase, exchange) {
                (Phase::Greeted, _) => &replies::HELLO_FIRST,
                (Phase::Spoilt, _) => &replies::RSET_FIRST,
                (Phase::Ready, Exchange::Rcpt) => &replies::MAIL_FIRST,
                (Phase::Ready | Phase::Mail, Exchange::Data) => &replies::RCPT_FIRST,
                _ => &replies::OUT_OF_ORDER,
            };
            self.refuse(reply, out);
            return None;
        }
        let lmtp = self.settings.protocol == Protocol::Lmtp;
        match command {
            Command::Ehlo(name) if !lmtp => self.hello(now, name, true),
            Command::Helo(name) if !lmtp => self.hello(now, name, false),
            Command::Lhlo(name) if lmtp => self.hello(now, name, true),
            Command::Vrfy(_) | Command::Expn(_) | Command::Help(_) | Command::Etrn(_) | Command::Other { .. }
                if self.asks_others() =>
            {
                self.counters.junk = self.counters.junk.saturating_add(1);
                let id = self.question(now, Topic::Other);
                Some(ServerNext::Ask(id, Ask::Other(command)))
            }
            Command::Mail(mail) => self.mail(now, mail, out),
            Command::Rcpt(rcpt) => self.rcpt(now, rcpt, out),
            Command::Data => self.data(now, more, out),
            Command::Rset => {
                self.advance(Exchange::Reset, Outcome::Positive);
                self.junk(&replies::OK, out)
            }
            Command::Noop(_) => self.junk(&replies::OK, out),
            Command::Help(_) => self.junk(&replies::HELP, out),
            Command::Vrfy(_) => self.junk(&replies::CANNOT_VERIFY, out),
            Command::Quit => {
                self.advance(Exchange::Quit, Outcome::Positive);
                self.say(&replies::BYE, out);
                self.close(CloseReason::Quit);
                None
            }
            Command::StartTls => self.start_tls(more, out),
            Command::Auth(auth) => self.auth(now, auth, out),
            Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Lhlo(_)
            | Command::Bdat { .. }
            | Command::Expn(_)
            | Command::Etrn(_)
            | Command::Burl { .. }
            | Command::XClient(_)
            | Command::XForward(_) => {
                self.refuse(&replies::NOT_IMPLEMENTED, out);
                None
            }
            Command::Other { verb, argument } => {
                self.unknown(verb, argument, out);
                None
            }
        }
    }

    fn malformed(&mut self, line: &[u8], error: &SyntaxError, out: &mut BytesMut) {
        self.refuse(&error.reply(), out);
        // Behind a BDAT whose size cannot be read nothing can be framed.
        let is_word = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
        if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) && !line.get(4).is_some_and(is_word) {
            self.close(CloseReason::Unframeable);
        }
    }

    fn unknown(&mut self, verb: &str, argument: &str, out: &mut BytesMut) {
        let foreign = ["GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS"];
        if foreign.contains(&verb) || argument.contains(" HTTP/") {
            self.say(&replies::FOREIGN_PROTOCOL, out);
            self.close(CloseReason::ForeignProtocol);
        } else {
            self.refuse(&replies::UNKNOWN_COMMAND, out);
        }
    }

    fn hello<'i>(&mut self, now: Tick, name: EhloName<&'i str>, extended: bool) -> Option<ServerNext<'i>> {
        self.counters.junk = self.counters.junk.saturating_add(1);
        let id = self.question(now, Topic::Hello { extended });
        Some(ServerNext::Ask(id, Ask::Hello(name)))
    }

    fn mail<'i>(&mut self, now: Tick, mail: Mail<&'i str>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        if let Some(reply) = self.mail_refusal(&mail) {
            self.refuse(reply, out);
            return None;
        }
        let topic = Topic::Mail { smtputf8: mail.smtputf8, binary: mail.body == Some(BodyType::BinaryMime) };
        let id = self.question(now, topic);
        Some(ServerNext::Ask(id, Ask::Mail(mail)))
    }

    fn rcpt<'i>(&mut self, now: Tick, rcpt: Rcpt<&'i str>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        let ascii = rcpt.forward_path.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
        if !ascii && !self.transaction.smtputf8 {
            self.refuse(&SyntaxError::new(SyntaxErrorKind::ForwardPathNotAscii, 0).reply(), out);
            return None;
        }
        if let Some(reply) = self.rcpt_refusal(&rcpt) {
            self.refuse(reply, out);
            return None;
        }
        // Not an error of the client's: 452 tells it to send the rest in another transaction (RFC 5321 section 4.5.3.1.10).
        let waiting = self.open.iter().filter(|open| open.replies.is_none()).count();
        if self.transaction.recipients.saturating_add(waiting) >= self.settings.limits.recipients {
            self.say(&replies::TOO_MANY_RECIPIENTS, out);
            return None;
        }
        let id = self.question(now, Topic::Rcpt);
        Some(ServerNext::Ask(id, Ask::Rcpt(rcpt)))
    }

    fn data<'i>(&mut self, now: Tick, more: bool, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        // DATA ends a group (RFC 2920 section 3.1): what came with it was written before it could know of a 354. This is
        // the second wall against a message hidden in another one's content.
        if more && self.settings.limits.forbid_unauthorised_pipelining {
            self.say(&replies::UNAUTHORISED_PIPELINING, out);
            self.close(CloseReason::UnauthorisedPipelining);
            return None;
        }
        if self.transaction.binary {
            self.refuse(&replies::BINARY_NEEDS_BDAT, out);
            return None;
        }
        let id = self.question(now, Topic::Data);
        Some(ServerNext::Ask(id, Ask::Data))
    }

    fn start_tls<'i>(&mut self, more: bool, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        if self.client.tls || !self.settings.offers.starttls {
            self.refuse(if self.client.tls { &replies::OUT_OF_ORDER } else { &replies::NOT_IMPLEMENTED }, out);
        } else if more {
            self.say(&replies::UNAUTHORISED_PIPELINING, out);
            self.close(CloseReason::ResidueBeforeTls);
        } else {
            self.say(&replies::START_TLS, out);
            self.advance(Exchange::StartTls, Outcome::Positive);
            self.pending = Some(Pending::StartTls);
        }
        None
    }

    fn auth<'i>(&mut self, now: Tick, auth: Auth<'i>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        let offered = self.settings.offers.auth;
        let known = Mechanism::from_name(auth.mechanism).is_some_and(|mechanism| offered.contains(mechanism));
        let refusal = if offered.is_empty() {
            Some(&replies::NOT_IMPLEMENTED)
        } else if self.client.authenticated {
            Some(&replies::OUT_OF_ORDER)
        } else if !self.may_offer_auth() {
            Some(&replies::AUTH_NEEDS_TLS)
        } else if !known {
            Some(&replies::UNKNOWN_MECHANISM)
        } else {
            None
        };
        if let Some(reply) = refusal {
            self.refuse(reply, out);
            return None;
        }
        let id = self.question(now, Topic::Auth);
        Some(ServerNext::Ask(id, Ask::Auth(auth)))
    }

    fn auth_response<'i>(&mut self, now: Tick, line: &'i [u8], out: &mut BytesMut) -> Option<ServerNext<'i>> {
        // The client gives up (RFC 4954 section 4).
        if line == b"*" {
            self.advance(Exchange::AuthResponse, Outcome::Negative);
            self.auth_ended();
            self.refuse(&replies::AUTH_CANCELLED, out);
            return None;
        }
        let id = self.question(now, Topic::AuthResponse);
        Some(ServerNext::Ask(id, Ask::AuthResponse(Secret::new(line))))
    }

    /// A command that does no work counts against a budget of its own.
    fn junk<'i>(&mut self, reply: &Reply, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        self.counters.junk = self.counters.junk.saturating_add(1);
        self.say(reply, out);
        None
    }

    /// Turns a verdict into its replies and moves the conversation on.
    pub(super) fn judge(&mut self, topic: Topic, verdict: Verdict) -> Result<Replies, ApiMisuse> {
        let exchange = match topic {
            Topic::Connect => Exchange::Greeting,
            Topic::Hello { .. } => Exchange::Hello,
            Topic::Auth => Exchange::Auth,
            Topic::AuthResponse => Exchange::AuthResponse,
            Topic::Mail { .. } => Exchange::Mail,
            Topic::Rcpt => Exchange::Rcpt,
            Topic::Data => Exchange::Data,
            Topic::Chunk => return self.judge_chunk(verdict),
            Topic::Message => Exchange::EndOfData,
            Topic::Other => Exchange::Other,
        };
        let times = if topic == Topic::Message { self.replies_to_message(self.transaction.recipients) } else { 1 };
        let reply = match verdict {
            Verdict::Challenge(challenge) => match topic {
                Topic::Auth | Topic::AuthResponse => {
                    self.framer.set_max_line(self.settings.limits.auth_line);
                    Reply::new(ReplyCode::CHALLENGE, None, &STANDARD.encode(challenge))
                }
                _ => return Err(ApiMisuse::Verdict),
            },
            Verdict::Each(replies) => return self.judge_each(topic, replies),
            Verdict::Refuse(reply) => {
                if Outcome::from(reply.code()) != Outcome::Negative {
                    return Err(ApiMisuse::Verdict);
                }
                self.refused(topic, &reply);
                reply
            }
            Verdict::Accept(Some(reply)) if !reply.code().is_positive() => return Err(ApiMisuse::Verdict),
            Verdict::Accept(reply) => self.accepted(topic, reply),
        };
        let outcome = Outcome::from(reply.code());
        self.advance(exchange, outcome);
        match topic {
            Topic::Mail { smtputf8, binary } if outcome == Outcome::Positive => {
                self.transaction = Transaction { smtputf8, binary, ..Transaction::default() };
            }
            Topic::Data if outcome == Outcome::Intermediate => self.content_starts(),
            Topic::Auth | Topic::AuthResponse if outcome != Outcome::Intermediate => self.auth_ended(),
            _ => {}
        }
        Ok(Replies::Same(reply, times))
    }

    /// The verdict on the first chunk. Its octets come in any case, so nothing is said before they have.
    fn judge_chunk(&mut self, verdict: Verdict) -> Result<Replies, ApiMisuse> {
        let refusal = match verdict {
            Verdict::Accept(None) => None,
            Verdict::Accept(Some(reply)) if reply.code().is_positive() => None,
            Verdict::Refuse(reply) if Outcome::from(reply.code()) == Outcome::Negative => Some(reply),
            _ => return Err(ApiMisuse::Verdict),
        };
        self.advance(Exchange::Chunk, Outcome::Intermediate);
        self.content_starts();
        self.transaction.refusal = refusal;
        Ok(Replies::Same(replies::OK.clone(), 0))
    }

    /// A verdict for each recipient of a message (RFC 2033 section 4.2).
    fn judge_each(&mut self, topic: Topic, replies: Vec<Reply>) -> Result<Replies, ApiMisuse> {
        let fits = topic == Topic::Message
            && self.settings.protocol == Protocol::Lmtp
            && replies.len() == self.transaction.recipients
            && replies.iter().all(|reply| Outcome::from(reply.code()) != Outcome::Intermediate);
        if !fits {
            return Err(ApiMisuse::Verdict);
        }
        self.counters.junk = 0;
        self.advance(Exchange::EndOfData, Outcome::Positive);
        Ok(Replies::Each(replies.into_iter()))
    }

    fn accepted(&mut self, topic: Topic, reply: Option<Reply>) -> Reply {
        let own = match topic {
            Topic::Connect => {
                let name = &self.settings.host_name;
                let protocol = match self.settings.protocol {
                    Protocol::Smtp => "ESMTP",
                    Protocol::Lmtp => "LMTP",
                };
                return reply
                    .unwrap_or_else(|| Reply::new(ReplyCode::READY, None, &format!("{name} {protocol} ready")));
            }
            Topic::Hello { extended } => {
                self.client.extended = extended;
                return reply.unwrap_or_else(|| self.hello_reply(extended));
            }
            Topic::Auth | Topic::AuthResponse => {
                self.client.authenticated = true;
                &replies::AUTHENTICATED
            }
            Topic::Mail { .. } => &replies::SENDER_OK,
            Topic::Rcpt => {
                self.transaction.recipients = self.transaction.recipients.saturating_add(1);
                &replies::RECIPIENT_OK
            }
            Topic::Data => return replies::START_INPUT.clone(),
            Topic::Message => {
                // A client that sends mail does work: its junk commands are those since the last message.
                self.counters.junk = 0;
                &replies::QUEUED
            }
            Topic::Chunk | Topic::Other => &replies::OK,
        };
        reply.unwrap_or_else(|| own.clone())
    }

    fn refused(&mut self, topic: Topic, reply: &Reply) {
        match topic {
            Topic::Connect => self.close(CloseReason::Application),
            Topic::Auth | Topic::AuthResponse => {
                self.counters.auth_failures = self.counters.auth_failures.saturating_add(1);
                self.count_error();
            }
            // Only a permanent refusal is the client's mistake; guessing recipients is what the budget is for.
            Topic::Rcpt if reply.code().get() >= 500 => self.count_error(),
            _ => {}
        }
    }

    pub(super) fn auth_ended(&mut self) {
        self.framer.set_max_line(self.settings.limits.command_line);
    }

    /// Between two chunks the application is in the middle of a message and not asked about anything else.
    fn asks_others(&self) -> bool {
        self.settings.offers.other_commands && self.phase != Phase::Chunks
    }
}
