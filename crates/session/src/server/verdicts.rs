//! The application's verdicts, and the replies that they become.

use alloc::format;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use posthaste_wire::{Accepted, Refusal, Reply, ReplyCode};

use super::{CloseReason, Pending, Protocol, Question, Replies, ServerSession, Verdict, replies};
use crate::{
    ApiMisuse, MAX_OUTPUT, Tick,
    table::{Exchange, ReplyClass},
};

impl ServerSession {
    /// Answers the question that is open.
    ///
    /// # Errors
    /// The question stays open.
    ///
    /// - [`ApiMisuse::Closed`]: the session ended before the answer came.
    /// - [`ApiMisuse::OutOfOrder`]: no question is open.
    /// - [`ApiMisuse::Verdict`]: a challenge outside AUTH, or [`Verdict::Each`] outside LMTP or of
    ///   another length than the list of recipients.
    pub fn answer(&mut self, now: Tick, verdict: Verdict, out: &mut BytesMut) -> Result<(), ApiMisuse> {
        if self.is_over() {
            return Err(ApiMisuse::Closed);
        }
        let question = self.question.ok_or(ApiMisuse::OutOfOrder)?;
        let about = question.about;
        let verdict = if self.transaction.smtputf8 { verdict } else { verdict.into_ascii() };
        let reply = match verdict {
            Verdict::Challenge(challenge) if matches!(about, Exchange::Auth | Exchange::AuthResponse) => {
                self.framer.set_max_line(self.settings.limits.auth_line);
                Reply::new(ReplyCode::CHALLENGE, None, &STANDARD.encode(challenge))
            }
            Verdict::Each(decisions) if self.takes_each(about, &decisions) => {
                if decisions.iter().any(Result::is_ok) {
                    self.counters.message_accepted();
                }
                self.without_message = now;
                self.question = None;
                self.advance(about, ReplyClass::Positive);
                self.saying = Some(Replies::Each(decisions.into_iter()));
                self.drain(out);
                self.check_budgets(out);
                return Ok(());
            }
            Verdict::Challenge(_) | Verdict::Each(_) => return Err(ApiMisuse::Verdict),
            // The octets of a chunk come in any case, so the reply waits for their end.
            Verdict::Accept(_) if about == Exchange::Chunk => {
                self.chunk_decided(None);
                return Ok(());
            }
            Verdict::Refuse(refusal) if about == Exchange::Chunk => {
                self.chunk_decided(Some(refusal));
                return Ok(());
            }
            Verdict::Accept(accepted) => self.accepted(question, accepted, now),
            Verdict::Refuse(refusal) => {
                self.last_refusal = Some(refusal.reply().clone());
                self.refused(about, &refusal);
                refusal.into()
            }
        };
        self.question = None;
        // Read now: the transaction ends with the advance.
        let recipients = self.transaction.recipients;
        let class = ReplyClass::from(reply.code());
        self.advance(about, class);
        let delay = self.settings.timeouts.greeting_delay;
        match about {
            Exchange::Greeting if class == ReplyClass::Positive && !delay.is_zero() => {
                self.pending = Some(Pending::Greet(reply, now + delay));
                return Ok(());
            }
            Exchange::Data if class == ReplyClass::Intermediate => {
                self.content_starts();
                self.pending = Some(Pending::StartInput);
                return Ok(());
            }
            Exchange::Auth | Exchange::AuthResponse if class != ReplyClass::Intermediate => self.auth_ended(),
            Exchange::EndOfData => self.without_message = now,
            _ => {}
        }
        let times = if about == Exchange::EndOfData { self.replies_to_message(recipients) } else { 1 };
        let is_farewell = reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
        self.say_times(reply, times, out);
        if is_farewell {
            self.close(CloseReason::Application);
        }
        self.check_budgets(out);
        Ok(())
    }

    /// Says the remaining replies to a message, as far as the output has room.
    pub(super) fn drain(&mut self, out: &mut BytesMut) {
        while out.len() < MAX_OUTPUT
            && let Some(replies) = &mut self.saying
        {
            let Some(reply) = replies.next() else {
                self.saying = None;
                return;
            };
            out.extend_from_slice(reply.as_bytes());
            // No reply follows a 421.
            if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
                self.saying = None;
                self.close(CloseReason::Application);
            }
        }
    }

    /// Returns `true` if there is one decision for each recipient of a message (RFC 2033 section
    /// 4.2).
    fn takes_each(&self, about: Exchange, decisions: &[Result<Accepted, Refusal>]) -> bool {
        about == Exchange::EndOfData
            && self.settings.protocol == Protocol::Lmtp
            && decisions.len() == self.transaction.recipients
    }

    /// The first chunk of a message may come.
    fn chunk_decided(&mut self, refusal: Option<Refusal>) {
        self.question = None;
        self.advance(Exchange::Chunk, ReplyClass::Intermediate);
        self.content_starts();
        self.transaction.refusal = refusal;
    }

    fn accepted(&mut self, question: Question, accepted: Option<Accepted>, now: Tick) -> Reply {
        let own = match question.about {
            Exchange::Greeting | Exchange::XClient => {
                if question.about == Exchange::XClient {
                    self.introduce();
                }
                let name = &self.settings.host_name;
                let protocol = match self.settings.protocol {
                    Protocol::Smtp => "ESMTP",
                    Protocol::Lmtp => "LMTP",
                };
                return accepted.map_or_else(
                    || Reply::new(ReplyCode::READY, None, &format!("{name} {protocol} ready")),
                    Reply::from,
                );
            }
            Exchange::Hello => {
                self.client.extended = question.extended;
                return accepted.map_or_else(|| self.hello_reply(question.extended, now), Reply::from);
            }
            Exchange::Auth | Exchange::AuthResponse => {
                self.client.authenticated = true;
                &replies::AUTHENTICATED
            }
            Exchange::Mail => &replies::SENDER_OK,
            Exchange::Rcpt => {
                self.transaction.recipients = self.transaction.recipients.saturating_add(1);
                &replies::RECIPIENT_OK
            }
            Exchange::Data => return replies::START_INPUT.clone(),
            Exchange::EndOfData => {
                self.counters.message_accepted();
                &replies::QUEUED
            }
            Exchange::Chunk
            | Exchange::Reset
            | Exchange::StartTls
            | Exchange::Handshake
            | Exchange::Quit
            | Exchange::XForward
            | Exchange::Other => &replies::OK,
        };
        accepted.map_or_else(|| own.clone(), Reply::from)
    }

    fn refused(&mut self, about: Exchange, refusal: &Refusal) {
        match about {
            Exchange::Greeting | Exchange::XClient => self.close(CloseReason::Application),
            Exchange::Auth | Exchange::AuthResponse => self.auth_failed(),
            Exchange::Hello => {}
            // A permanent refusal counts as the client's error. That bounds guessing of recipients.
            _ if refusal.is_permanent() => self.count_error(),
            Exchange::Rcpt => self.recipient_put_off(),
            // An immediate retry does no work.
            Exchange::Mail | Exchange::Data | Exchange::EndOfData => {
                self.counters.idle = self.counters.idle.saturating_add(1);
            }
            Exchange::Chunk
            | Exchange::Reset
            | Exchange::StartTls
            | Exchange::Handshake
            | Exchange::Quit
            | Exchange::XForward
            | Exchange::Other => {}
        }
    }

    /// Counts a login that failed.
    pub(super) fn auth_failed(&mut self) {
        self.counters.auth_failures = self.counters.auth_failures.saturating_add(1);
        self.count_error();
    }

    /// A recipient has to wait, which is no error. More of them than a transaction may have are
    /// errors.
    pub(super) fn recipient_put_off(&mut self) {
        self.transaction.put_off = self.transaction.put_off.saturating_add(1);
        if self.transaction.put_off > self.settings.limits.recipients {
            self.count_error();
        }
    }
}
