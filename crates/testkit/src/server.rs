//! A driver for [`ServerSession`] that records events and panics if the session breaks its
//! contract.

use std::sync::Arc;

use bytes::BytesMut;
use posthaste_session::{
    ApiMisuse, Ask, MAX_OUTPUT, ServerNext, ServerSession, ServerSettings, Step, Transport, Verdict,
    server::{CloseReason, ServerEof},
    table::Phase,
};
use posthaste_wire::{Mail, Rcpt, refusal};

use crate::{clock::Clock, policy::Policy};

/// An event of a session. Consecutive pieces of content are one event, however they were cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A question.
    Asked(Ask),
    /// Content.
    Content(Vec<u8>),
    /// The content is refused, with the code of the reply.
    ContentRefused(u16),
    /// Refused content has ended.
    ContentSwallowed,
    /// The client gave up a message between two chunks.
    ContentAborted,
    /// A TLS handshake is due.
    StartTls,
    /// The session has ended, for this reason.
    Closed(CloseReason),
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its MAIL.
    pub mail: Mail,
    /// The RCPTs for which it was accepted.
    pub recipients: Vec<Rcpt>,
    /// The content.
    pub content: Vec<u8>,
}

/// Why a run stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// More input is needed.
    Input,
    /// An answer is needed.
    Answer,
    /// A TLS handshake is due.
    Tls,
    /// The session has ended.
    Closed,
}

/// A server session with a clock and an application. It checks the session's contract.
#[derive(Debug)]
pub struct ServerHarness {
    /// The session.
    pub session: ServerSession,
    /// The time.
    pub clock: Clock,
    /// The application, which answers questions.
    pub policy: Policy,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The messages that were accepted.
    pub messages: Vec<Message>,
    /// Output of the session; take it with `std::mem::take`.
    pub said: Vec<u8>,
    /// The question that was left open.
    pub held: Option<Ask>,
    /// Why the session has ended. `None`: it goes on.
    pub closed: Option<CloseReason>,
    input: Vec<u8>,
    out: BytesMut,
    pub(crate) tls_is_due: bool,
    mail: Option<Mail>,
    /// The accepted RCPTs of the transaction.
    recipients: Vec<Rcpt>,
    content: Vec<u8>,
}

/// 2029-12-31T00:00:00Z, when every harness begins.
const BEGIN: i64 = 1_893_369_600;

impl ServerHarness {
    /// A session on a new connection.
    pub fn new(settings: ServerSettings, transport: Transport) -> Self {
        let clock = Clock::default();
        let mut session = ServerSession::new(Arc::new(settings), transport);
        session.set_wall_clock(clock.now(), BEGIN);
        Self {
            session,
            clock,
            policy: Policy::default(),
            events: Vec::new(),
            messages: Vec::new(),
            said: Vec::new(),
            held: None,
            closed: None,
            input: Vec::new(),
            out: BytesMut::new(),
            tls_is_due: false,
            mail: None,
            recipients: Vec::new(),
            content: Vec::new(),
        }
    }

    /// A copy that continues the conversation on its own, with an empty script and no recorded
    /// events.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            session: self.session.clone(),
            clock: self.clock,
            policy: Policy::default(),
            events: Vec::new(),
            messages: Vec::new(),
            said: Vec::new(),
            held: self.held.clone(),
            closed: self.closed,
            input: self.input.clone(),
            out: self.out.clone(),
            tls_is_due: self.tls_is_due,
            mail: self.mail.clone(),
            recipients: self.recipients.clone(),
            content: self.content.clone(),
        }
    }

    /// Appends input and runs on it.
    pub fn feed(&mut self, octets: &[u8]) -> Stop {
        self.input.extend_from_slice(octets);
        self.run()
    }

    /// Runs until it needs an event from outside.
    ///
    /// # Panics
    /// The session breaks its contract.
    pub fn run(&mut self) -> Stop {
        // Unless the wait for the handshake has timed out.
        if self.tls_is_due && self.session.poll_timeout().is_some() {
            return Stop::Tls;
        }
        let mut idle = 0;
        while self.closed.is_none() {
            let now = self.clock.now();
            // Unless the wait for the answer has timed out.
            if self.held.is_some() {
                let step = self.session.handle_input(now, &self.input, &mut self.out);
                match step {
                    Err(ApiMisuse::Unanswered) => {
                        self.flush();
                        return Stop::Answer;
                    }
                    Ok(Step { next: ServerNext::Close(reason), .. }) => {
                        self.close(reason);
                        break;
                    }
                    other => panic!("{other:?} while a question is open"),
                }
            }
            let input = std::mem::take(&mut self.input);
            let waiting = self.out.len();
            let step = self.session.handle_input(now, &input, &mut self.out).expect("a session that is not closed");
            assert!(step.consumed <= input.len());
            idle = if step.consumed == 0 { idle + 1 } else { 0 };
            assert!(idle < 64, "the session turns on the spot: {:?}", step.next);
            // An application's reply may come on top. The session's own have at most 1 KiB.
            assert!(self.out.len() <= waiting.max(MAX_OUTPUT) + 1_024, "the output grows to {}", self.out.len());
            if !matches!(self.session.phase(), Phase::Mail | Phase::Rcpt | Phase::Content | Phase::Chunks) {
                self.void();
            }
            let stop = match step.next {
                ServerNext::NeedInput => {
                    assert!(self.out.is_empty(), "input is asked for while output waits");
                    assert!(self.session.poll_timeout().is_some(), "the session waits without a deadline");
                    Some(Stop::Input)
                }
                ServerNext::Flush => {
                    assert!(!self.out.is_empty(), "there is nothing to flush");
                    self.flush();
                    None
                }
                ServerNext::Ask(ask) => {
                    self.asked(ask.into_owned());
                    None
                }
                ServerNext::AskMended(ask) => {
                    self.asked(*ask);
                    None
                }
                ServerNext::Content(range) => {
                    self.content(&input[range]);
                    None
                }
                ServerNext::ContentRefused(refusal) => {
                    // How much was handed out before depends on how the octets were cut.
                    self.content.clear();
                    self.events.pop_if(|event| matches!(event, Event::Content(_)));
                    self.events.push(Event::ContentRefused(refusal.reply().code().get()));
                    None
                }
                ServerNext::ContentSwallowed => {
                    self.void();
                    self.events.push(Event::ContentSwallowed);
                    None
                }
                ServerNext::ContentAborted => {
                    self.void();
                    self.events.push(Event::ContentAborted);
                    None
                }
                ServerNext::Refused => {
                    let last = self.session.last_refusal().expect("a refusal");
                    let octets = last.as_bytes();
                    assert!(self.out.windows(octets.len()).any(|said| said == octets), "{last} was not said");
                    None
                }
                ServerNext::StartTls => {
                    self.flush();
                    self.events.push(Event::StartTls);
                    self.tls_is_due = true;
                    Some(Stop::Tls)
                }
                ServerNext::Close(reason) => {
                    self.close(reason);
                    None
                }
            };
            self.input = input[step.consumed..].to_vec();
            if let Some(stop) = stop {
                return stop;
            }
        }
        self.check_closed();
        Stop::Closed
    }

    /// Answers the question that was left open. It stays open if the verdict does not fit.
    ///
    /// # Errors
    /// As [`ServerSession::answer`].
    ///
    /// # Panics
    /// No question is open.
    pub fn answer(&mut self, verdict: Verdict) -> Result<(), ApiMisuse> {
        let ask = self.held.take().expect("a question is open");
        let answered = self.judge(&ask, verdict);
        if answered == Err(ApiMisuse::Verdict) {
            self.held = Some(ask);
        }
        answered
    }

    /// The TLS handshake is done.
    ///
    /// # Panics
    /// No handshake was due.
    pub fn establish_tls(&mut self) {
        self.session.tls_established().expect("a handshake is due");
        self.tls_is_due = false;
        self.void();
    }

    /// The client has closed its side.
    pub fn end_of_input(&mut self) -> ServerEof {
        let eof = self.session.handle_eof();
        self.closed = Some(CloseReason::Eof);
        eof
    }

    /// Lets time pass and tells the session. Runs it if its time has come.
    ///
    /// # Panics
    /// The session acts before its time.
    pub fn wait(&mut self, time: std::time::Duration) {
        self.clock.advance(time);
        let is_due = self.session.poll_timeout().is_some_and(|deadline| deadline <= self.clock.now());
        let waiting = self.out.len();
        self.session.handle_timeout(self.clock.now(), &mut self.out);
        if is_due {
            self.run();
        }
        assert!(is_due || self.out.len() == waiting, "something is said before the time");
    }

    /// Shuts the session down and runs.
    pub fn shutdown(&mut self) {
        self.session.shutdown(&mut self.out);
        self.run();
    }

    /// Octets that were shown and not consumed.
    pub fn unconsumed(&self) -> usize {
        self.input.len()
    }

    fn asked(&mut self, ask: Ask) {
        if matches!(ask, Ask::Data | Ask::Message { .. }) {
            assert!(self.mail.is_some() && !self.recipients.is_empty(), "{ask:?} without a transaction");
        }
        if let Ask::Message { recipients } = ask {
            assert_eq!(recipients, self.recipients.len());
        }
        assert!(self.session.poll_timeout().is_some(), "no deadline while {ask:?} is open");
        self.events.push(Event::Asked(ask.clone()));
        match self.policy.verdict(&ask) {
            Some(verdict) => self.judge(&ask, verdict).expect("the verdict fits"),
            None => self.held = Some(ask),
        }
    }

    fn judge(&mut self, ask: &Ask, verdict: Verdict) -> Result<(), ApiMisuse> {
        let accepted = matches!(verdict, Verdict::Accept(_));
        let mut recipients = self.recipients.clone();
        match &verdict {
            Verdict::Each(decisions) => {
                let mut decisions = decisions.iter();
                recipients.retain(|_| decisions.next().is_some_and(Result::is_ok));
            }
            _ if !accepted => recipients.clear(),
            _ => {}
        }
        self.session.answer(self.clock.now(), verdict, &mut self.out)?;
        match ask {
            Ask::Mail(mail) if accepted => {
                assert!(self.mail.is_none(), "a second MAIL within a transaction");
                self.mail = Some(mail.clone());
            }
            Ask::Rcpt(rcpt) if accepted => {
                assert!(self.mail.is_some(), "RCPT without MAIL");
                self.recipients.push(rcpt.clone());
            }
            Ask::Message { .. } => {
                if !recipients.is_empty() {
                    let content = self.content.clone();
                    let mail = self.mail.clone().expect("it was accepted");
                    self.messages.push(Message { mail, recipients, content });
                }
                self.void();
            }
            Ask::Hello(_) if accepted => self.void(),
            _ => {}
        }
        Ok(())
    }

    fn content(&mut self, piece: &[u8]) {
        assert!(!piece.is_empty(), "an empty piece of content");
        assert!(self.mail.is_some() && !self.recipients.is_empty(), "content without a transaction");
        self.content.extend_from_slice(piece);
        if let Some(Event::Content(content)) = self.events.last_mut() {
            content.extend_from_slice(piece);
        } else {
            self.events.push(Event::Content(piece.to_vec()));
        }
        if let Some(refusal) = self.policy.refuses_content(self.content.len()) {
            self.session.refuse_content(refusal);
            self.content.clear();
        }
    }

    fn void(&mut self) {
        self.mail = None;
        self.recipients.clear();
        self.content.clear();
    }

    fn flush(&mut self) {
        self.said.extend_from_slice(&self.out.split());
    }

    fn close(&mut self, reason: CloseReason) {
        self.flush();
        self.events.push(Event::Closed(reason));
        self.closed = Some(reason);
    }

    /// Checks that a closed session does nothing more.
    fn check_closed(&mut self) {
        let now = self.clock.now();
        assert!(self.session.handle_input(now, b"NOOP\r\n", &mut self.out).is_err());
        assert_eq!(self.session.poll_timeout(), None, "a closed session has no deadline");
        self.session.handle_timeout(now, &mut self.out);
        self.session.shutdown(&mut self.out);
        self.session.refuse_content(refusal!("451 4.3.0 Too late"));
        self.held = None;
        let answered = self.session.answer(now, Verdict::Accept(None), &mut self.out);
        assert_eq!(answered, Err(ApiMisuse::Closed));
        assert!(self.out.is_empty(), "output after the end");
    }
}
