//! The application's verdicts, and the replies that they become.

use alloc::{format, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use posthaste_wire::{Reply, ReplyCode};

use super::{
    CloseReason, Open, Pending, Protocol, QuestionId, Replies, ServerSession, Topic, Transaction, Verdict, replies,
};
use crate::{
    ApiMisuse, MAX_OUTPUT, Tick,
    table::{Exchange, Outcome, Phase},
};

impl ServerSession {
    /// Answers a question.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownQuestion`], or [`ApiMisuse::Verdict`] when the verdict does not fit: a refusal without a 4yz or
    /// 5yz reply, an acceptance without a 2yz one, a challenge outside AUTH. The question stays open then.
    /// [`ApiMisuse::Closed`] when the session has ended before the answer came.
    pub fn answer(&mut self, now: Tick, id: QuestionId, verdict: Verdict, out: &mut BytesMut) -> Result<(), ApiMisuse> {
        if self.is_over() {
            return Err(ApiMisuse::Closed);
        }
        let position = self.open.iter().position(|open| open.id == id && open.replies.is_none());
        let open = position.and_then(|position| self.open.get_mut(position)).ok_or(ApiMisuse::UnknownQuestion)?;
        let topic = open.topic;
        let mut replies = self.judge(topic, verdict)?;
        if topic == Topic::Message {
            self.without_message = now;
        }
        let delay = self.settings.timeouts.greeting_delay;
        if topic == Topic::Connect
            && self.phase == Phase::Greeted
            && !delay.is_zero()
            && let Some(greeting) = replies.next()
        {
            self.pending = Some(Pending::Greet(greeting, now + delay));
        }
        if let Some(open) = position.and_then(|position| self.open.get_mut(position)) {
            open.replies = Some(replies);
        }
        self.drain(out);
        self.check_budgets(out);
        Ok(())
    }

    /// Says what is known up to the first open question, as far as the output has room.
    pub(super) fn drain(&mut self, out: &mut BytesMut) {
        while out.len() < MAX_OUTPUT
            && let Some(Open { replies: Some(replies), .. }) = self.open.front_mut()
        {
            let reply = replies.next();
            if replies.is_done() {
                self.open.pop_front();
            }
            let Some(reply) = reply else { continue };
            if reply.code() == ReplyCode::START_MAIL_INPUT {
                self.pending = Some(Pending::StartInput);
                return;
            }
            out.extend_from_slice(reply.as_ref().as_bytes());
            // Nothing follows a 421, neither the replies to later commands nor the answers that are still to come.
            if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
                self.open.clear();
                self.close(CloseReason::Application);
            }
        }
    }

    /// Turns a verdict into its replies and moves the conversation on.
    fn judge(&mut self, topic: Topic, verdict: Verdict) -> Result<Replies, ApiMisuse> {
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
            // A permanent refusal is the client's mistake; guessing recipients is what the budget is for.
            Topic::Mail { .. } | Topic::Rcpt | Topic::Data | Topic::Chunk | Topic::Message | Topic::Other
                if reply.code().get() >= 500 =>
            {
                self.count_error();
            }
            Topic::Rcpt => self.recipient_put_off(),
            // Trying again at once does no work.
            Topic::Mail { .. } | Topic::Data | Topic::Chunk | Topic::Message => {
                self.counters.junk = self.counters.junk.saturating_add(1);
            }
            Topic::Hello { .. } | Topic::Other => {}
        }
    }

    /// A recipient has to wait, which is no mistake. That there are more of these than a transaction takes is one.
    pub(super) fn recipient_put_off(&mut self) {
        self.transaction.put_off = self.transaction.put_off.saturating_add(1);
        if self.transaction.put_off > self.settings.limits.recipients {
            self.count_error();
        }
    }
}
