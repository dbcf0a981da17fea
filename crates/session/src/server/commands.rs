//! Commands, in the order of a conversation.

use bytes::BytesMut;
use posthaste_wire::{
    Auth, BodyType, Command, EhloName, Mail, Mechanism, Rcpt, Reply, Secret, SyntaxError, SyntaxErrorKind,
};

use super::{
    Ask, CloseReason, Pending, Protocol, Question, ServerNext, ServerSession, Transaction, Transport,
    ask::OtherCommand, replies,
};
use crate::{
    Tick,
    sasl::SaslError,
    table::{self, Exchange, Phase, ReplyClass},
};

impl ServerSession {
    /// Handles one line. `more`: input follows it.
    pub(super) fn line<'i>(
        &mut self,
        now: Tick,
        line: &'i [u8],
        more: bool,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        if self.phase == Phase::Auth {
            return self.auth_response(now, line, out);
        }
        match Command::parse(line) {
            Ok(command) => self.command(now, line, command, more, out),
            Err(error) => self.mended(now, line, &error, more, out),
        }
    }

    /// Handles a line that the grammar refuses: as the strict line that is meant, if it is
    /// tolerated.
    #[cold]
    fn mended<'i>(
        &mut self,
        now: Tick,
        line: &[u8],
        error: &SyntaxError,
        more: bool,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        let Some(mended) = self.settings.tolerance.mend(line, &self.settings.host_name) else {
            self.malformed(line, error, out);
            return None;
        };
        match Command::parse(mended.as_bytes()) {
            Ok(command) => self.command(now, mended.as_bytes(), command, more, out).map(ServerNext::detached),
            Err(error) => {
                self.malformed(line, &error, out);
                None
            }
        }
    }

    fn command<'i>(
        &mut self,
        now: Tick,
        line: &'i [u8],
        command: Command<'i>,
        more: bool,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        if let Some(error) = self.settings.tolerance.refuses(line, &command) {
            self.refuse(&error.reply(), out);
            return None;
        }
        if let Command::Bdat { size, last } = command {
            return self.bdat(now, size, last);
        }
        let exchange = Exchange::of(&command);
        if !table::allows(self.phase, exchange) {
            let reply = match (self.phase, exchange) {
                (Phase::Greeted, _) => &replies::HELLO_FIRST,
                (Phase::Spoiled, _) => &replies::RSET_FIRST,
                (Phase::Ready, Exchange::Rcpt) => &replies::MAIL_FIRST,
                (Phase::Ready | Phase::Mail, Exchange::Data) => &replies::RCPT_FIRST,
                _ => &replies::OUT_OF_ORDER,
            };
            self.refuse(reply, out);
            return None;
        }
        // Between two chunks the application is in the middle of a message.
        if self.settings.offers.other_commands
            && self.phase != Phase::Chunks
            && let Some(other) = OtherCommand::of(&command)
        {
            self.counters.idle = self.counters.idle.saturating_add(1);
            return Some(self.ask(now, Exchange::Other, Ask::Other(other)));
        }
        let lmtp = self.settings.protocol == Protocol::Lmtp;
        match command {
            Command::Ehlo(name) if !lmtp => self.hello(now, name, true),
            Command::Helo(name) if !lmtp => self.hello(now, name, false),
            Command::Lhlo(name) if lmtp => self.hello(now, name, true),
            Command::Mail(mail) => self.mail(now, mail, out),
            Command::Rcpt(rcpt) => self.rcpt(now, rcpt, out),
            Command::Data => self.data(now, more, out),
            Command::Rset => {
                self.advance(Exchange::Reset, ReplyClass::Positive);
                self.idle(&replies::OK, out)
            }
            Command::Noop(_) => self.idle(&replies::OK, out),
            Command::Help(_) => self.idle(&replies::HELP, out),
            Command::Vrfy(_) => self.idle(&replies::CANNOT_VERIFY, out),
            Command::Quit => {
                self.advance(Exchange::Quit, ReplyClass::Positive);
                self.say(&replies::BYE, out);
                self.close(CloseReason::Quit);
                None
            }
            Command::StartTls => self.start_tls(more, out),
            Command::Auth(auth) => self.auth(now, auth, out),
            Command::XClient(attributes) if self.settings.offers.xclient && !self.is_introduced() => {
                self.xclient(now, attributes, out)
            }
            Command::XForward(attributes) if self.settings.offers.xforward && !self.is_introduced() => {
                self.xforward(attributes, out)
            }
            Command::XClient(_) | Command::XForward(_) => {
                self.refuse(&replies::NOT_AUTHORIZED, out);
                None
            }
            // These belong to the other protocol (RFC 2033 section 4.1).
            Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) => {
                self.refuse(&replies::UNKNOWN_COMMAND, out);
                None
            }
            Command::Bdat { .. } | Command::Expn(_) | Command::Etrn(_) | Command::Burl { .. } => {
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
        if is_bdat(line) {
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

    fn hello<'i>(&mut self, now: Tick, name: EhloName<&'i str>, extended: bool) -> Option<ServerNext<&'i str>> {
        self.counters.idle = self.counters.idle.saturating_add(1);
        let deadline = now + self.settings.timeouts.verdict;
        self.question = Some(Question { about: Exchange::Hello, extended, deadline });
        Some(ServerNext::Ask(Ask::Hello(name)))
    }

    fn mail<'i>(&mut self, now: Tick, mail: Mail<&'i str>, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        if let Some(reply) = self.mail_refusal(&mail, now) {
            self.refuse(reply, out);
            return None;
        }
        // A refusal resets it.
        let binary = mail.body == Some(BodyType::BinaryMime);
        self.transaction = Transaction { smtputf8: mail.smtputf8, binary, ..Transaction::default() };
        Some(self.ask(now, Exchange::Mail, Ask::Mail(mail)))
    }

    fn rcpt<'i>(&mut self, now: Tick, rcpt: Rcpt<&'i str>, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        let ascii = rcpt.forward_path.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
        if !ascii && !self.transaction.smtputf8 {
            self.refuse(&SyntaxError::new(SyntaxErrorKind::ForwardPathNotAscii, 0).reply(), out);
            return None;
        }
        if let Some(reply) = self.rcpt_refusal(&rcpt) {
            self.refuse(reply, out);
            return None;
        }
        // No error of the client: 452 tells it to use another transaction (RFC 5321 section
        // 4.5.3.1.10).
        if self.transaction.recipients >= self.settings.limits.recipients {
            self.put_off(&replies::TOO_MANY_RECIPIENTS, out);
            self.recipient_put_off();
            return None;
        }
        Some(self.ask(now, Exchange::Rcpt, Ask::Rcpt(rcpt)))
    }

    fn data<'i>(&mut self, now: Tick, more: bool, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        // DATA ends a group (RFC 2920 section 3.1): octets that came with it were written before
        // its 354. This is the second defense against a message hidden in the content of another.
        if more && self.settings.limits.forbid_unauthorized_pipelining {
            self.say(&replies::UNAUTHORIZED_PIPELINING, out);
            self.close(CloseReason::UnauthorizedPipelining);
            return None;
        }
        if self.transaction.binary {
            self.refuse(&replies::BINARY_NEEDS_BDAT, out);
            return None;
        }
        Some(self.ask(now, Exchange::Data, Ask::Data))
    }

    fn start_tls<'i>(&mut self, more: bool, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        match self.transport {
            Transport::Tls => self.refuse(&replies::OUT_OF_ORDER, out),
            Transport::Plain => self.refuse(&replies::NOT_IMPLEMENTED, out),
            Transport::StartTls if more => {
                self.say(&replies::UNAUTHORIZED_PIPELINING, out);
                self.close(CloseReason::ResidueBeforeTls);
            }
            Transport::StartTls => {
                self.say(&replies::START_TLS, out);
                self.advance(Exchange::StartTls, ReplyClass::Positive);
                self.pending = Some(Pending::StartTls);
            }
        }
        None
    }

    fn auth<'i>(&mut self, now: Tick, auth: Auth<'i>, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        let Auth { mechanism, initial_response } = auth;
        let offered = Mechanism::from_name(mechanism).filter(|mechanism| self.mechanisms().contains(*mechanism));
        let refusal = match offered {
            _ if self.settings.offers.auth.is_empty() => &replies::NOT_IMPLEMENTED,
            _ if self.client.authenticated => &replies::OUT_OF_ORDER,
            _ if !self.is_protected() => &replies::AUTH_NEEDS_TLS,
            None => &replies::UNKNOWN_MECHANISM,
            Some(mechanism) => return Some(self.ask(now, Exchange::Auth, Ask::Auth { mechanism, initial_response })),
        };
        self.refuse(refusal, out);
        None
    }

    fn auth_response<'i>(&mut self, now: Tick, line: &'i [u8], out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        // The client cancels (RFC 4954 section 4).
        if line == b"*" {
            self.advance(Exchange::AuthResponse, ReplyClass::Negative);
            self.auth_ended();
            self.refuse(&replies::AUTH_CANCELLED, out);
            return None;
        }
        let Ok(response) = core::str::from_utf8(line) else {
            self.advance(Exchange::AuthResponse, ReplyClass::Negative);
            self.auth_ended();
            self.auth_failed();
            self.put_off(SaslError::Base64.refusal().reply(), out);
            return None;
        };
        Some(self.ask(now, Exchange::AuthResponse, Ask::AuthResponse(Secret::new(response))))
    }

    /// Answers a command that does no work, which counts against a budget of its own.
    fn idle<'i>(&mut self, reply: &Reply, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        self.counters.idle = self.counters.idle.saturating_add(1);
        self.say(reply, out);
        None
    }

    pub(super) fn auth_ended(&mut self) {
        self.framer.set_max_line(self.settings.limits.command_line);
    }
}

/// Returns `true` if a line that was refused is a BDAT. Its size is unknown, so nothing after it
/// can be framed.
pub(super) fn is_bdat(line: &[u8]) -> bool {
    let is_word = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) && !line.get(4).is_some_and(is_word)
}
