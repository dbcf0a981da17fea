//! Commands in the order of a conversation, and the verdicts on them.

use alloc::{format, string::String};
use core::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use posthaste_wire::{
    Auth, BodyType, Capability, Command, EhloName, Mail, Mechanism, Rcpt, Reply, ReplyCode, Secret, SyntaxError,
    SyntaxErrorKind,
};

use super::{Ask, CloseReason, Pending, ServerNext, ServerSession, Topic, Verdict, replies};
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
        // The chunk follows whatever we answer (RFC 3030 section 2): it is swallowed and then refused.
        if let Command::Bdat { size, .. } = command {
            self.framer.expect_chunk(size);
            self.transaction.refusal = None;
            return None;
        }
        let exchange = Exchange::of(&command);
        if !table::allows(self.phase, exchange) {
            let reply = match (self.phase, exchange) {
                (Phase::Greeted, _) => &replies::HELLO_FIRST,
                (Phase::Ready, Exchange::Rcpt) => &replies::MAIL_FIRST,
                (Phase::Ready | Phase::Mail, Exchange::Data) => &replies::RCPT_FIRST,
                _ => &replies::OUT_OF_ORDER,
            };
            self.refuse(reply, out);
            return None;
        }
        match command {
            Command::Ehlo(name) => self.hello(now, name, true),
            Command::Helo(name) => self.hello(now, name, false),
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
            Command::Bdat { .. }
            | Command::Expn(_)
            | Command::Lhlo(_)
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

    fn hello<'i>(&mut self, now: Tick, name: EhloName<&'i str>, extended: bool) -> Option<ServerNext<'i>> {
        self.counters.junk = self.counters.junk.saturating_add(1);
        let id = self.question(now, Topic::Hello { extended });
        Some(ServerNext::Ask(id, Ask::Hello(name)))
    }

    fn mail<'i>(&mut self, now: Tick, mail: Mail<&'i str>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        let offers = &self.settings.offers;
        let may_auth = self.may_offer_auth() || self.client.authenticated;
        let refusal = if offers.require_tls && !self.client.tls {
            Some(&replies::TLS_REQUIRED)
        } else if offers.require_auth && !self.client.authenticated {
            Some(&replies::AUTH_REQUIRED)
        } else if mail.unknown().next().is_some()
            || (mail.smtputf8 && !offers.smtputf8)
            || ((mail.ret.is_some() || mail.envid.is_some()) && !offers.dsn)
            || (mail.auth.is_some() && !may_auth)
            || mail.body == Some(BodyType::BinaryMime)
            || mail.require_tls
            || mail.by.is_some()
            || mail.hold.is_some()
            || mail.mt_priority.is_some()
            || mail.solicit.is_some()
        {
            Some(&replies::UNKNOWN_PARAMETER)
        } else if mail.size.is_some_and(|size| size > self.settings.limits.message) {
            Some(&replies::MESSAGE_TOO_LARGE)
        } else {
            None
        };
        if let Some(reply) = refusal {
            self.refuse(reply, out);
            return None;
        }
        let id = self.question(now, Topic::Mail { smtputf8: mail.smtputf8 });
        Some(ServerNext::Ask(id, Ask::Mail(mail)))
    }

    fn rcpt<'i>(&mut self, now: Tick, rcpt: Rcpt<&'i str>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        let ascii = rcpt.forward_path.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
        if !ascii && !self.transaction.smtputf8 {
            self.refuse(&SyntaxError::new(SyntaxErrorKind::ForwardPathNotAscii, 0).reply(), out);
            return None;
        }
        let has_dsn = rcpt.notify.is_some() || rcpt.orcpt.is_some();
        if rcpt.unknown().next().is_some() || rcpt.rrvs.is_some() || (has_dsn && !self.settings.offers.dsn) {
            self.refuse(&replies::UNKNOWN_PARAMETER, out);
            return None;
        }
        // Not an error of the client's: 452 tells it to send the rest in another transaction (RFC 5321 section 4.5.3.1.10).
        let waiting = self.open.iter().filter(|open| open.reply.is_none()).count();
        if self.transaction.recipients.saturating_add(waiting) >= self.settings.limits.recipients {
            self.say(&replies::TOO_MANY_RECIPIENTS, out);
            self.recipient_put_off();
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

    /// Turns a verdict into its reply and moves the conversation on.
    pub(super) fn judge(&mut self, topic: Topic, verdict: Verdict) -> Result<Reply, ApiMisuse> {
        let exchange = match topic {
            Topic::Connect => Exchange::Greeting,
            Topic::Hello { .. } => Exchange::Hello,
            Topic::Auth => Exchange::Auth,
            Topic::AuthResponse => Exchange::AuthResponse,
            Topic::Mail { .. } => Exchange::Mail,
            Topic::Rcpt => Exchange::Rcpt,
            Topic::Data => Exchange::Data,
            Topic::Message => Exchange::EndOfData,
        };
        let reply = match verdict {
            Verdict::Challenge(challenge) => match topic {
                Topic::Auth | Topic::AuthResponse => {
                    self.framer.set_max_line(self.settings.limits.auth_line);
                    Reply::new(ReplyCode::CHALLENGE, None, &STANDARD.encode(challenge))
                }
                _ => return Err(ApiMisuse::Verdict),
            },
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
            Topic::Mail { smtputf8 } if outcome == Outcome::Positive => self.transaction.smtputf8 = smtputf8,
            Topic::Data if outcome == Outcome::Intermediate => self.content_starts(),
            Topic::Auth | Topic::AuthResponse if outcome != Outcome::Intermediate => self.auth_ended(),
            _ => {}
        }
        Ok(reply)
    }

    fn accepted(&mut self, topic: Topic, reply: Option<Reply>) -> Reply {
        let own = match topic {
            Topic::Connect => {
                let name = &self.settings.host_name;
                return reply.unwrap_or_else(|| Reply::new(ReplyCode::READY, None, &format!("{name} ESMTP ready")));
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
            // A permanent refusal is the client's mistake; guessing recipients is what the budget is for.
            Topic::Mail { .. } | Topic::Rcpt | Topic::Data | Topic::Message if reply.code().get() >= 500 => {
                self.count_error();
            }
            Topic::Rcpt => self.recipient_put_off(),
            // Trying again at once does no work.
            Topic::Mail { .. } | Topic::Data | Topic::Message => {
                self.counters.junk = self.counters.junk.saturating_add(1);
            }
            Topic::Hello { .. } => {}
        }
    }

    /// A recipient has to wait, which is no mistake. That there are more of these than a transaction takes is one.
    fn recipient_put_off(&mut self) {
        self.transaction.put_off = self.transaction.put_off.saturating_add(1);
        if self.transaction.put_off > self.settings.limits.recipients {
            self.count_error();
        }
    }

    pub(super) fn auth_ended(&mut self) {
        self.framer.set_max_line(self.settings.limits.command_line);
    }

    fn may_offer_auth(&self) -> bool {
        let offers = &self.settings.offers;
        !offers.auth.is_empty() && (self.client.tls || offers.auth_in_clear)
    }

    /// The reply to HELO, or the capabilities to EHLO (RFC 5321 section 4.1.1.1).
    fn hello_reply(&self, extended: bool) -> Reply {
        let mut text = String::from(self.settings.host_name.as_str());
        if extended {
            let offers = &self.settings.offers;
            let auth = self.may_offer_auth() && !self.client.authenticated;
            let lines = [
                Some(Capability::Pipelining),
                Some(Capability::Size(self.settings.limits.message)),
                Some(Capability::EightBitMime),
                Some(Capability::EnhancedStatusCodes),
                offers.smtputf8.then_some(Capability::SmtpUtf8),
                offers.dsn.then_some(Capability::Dsn),
                (offers.starttls && !self.client.tls).then_some(Capability::StartTls),
                auth.then_some(Capability::Auth(offers.auth.into())),
            ];
            for line in lines.into_iter().flatten() {
                // Writing to a String does not fail.
                let _ = write!(text, "\n{line}");
            }
        }
        Reply::new(ReplyCode::OK, None, &text)
    }
}

/// Whether a line that is not taken is a BDAT: its size cannot be read then, and nothing behind it can be framed.
pub(super) fn is_bdat(line: &[u8]) -> bool {
    let is_word = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) && !line.get(4).is_some_and(is_word)
}
