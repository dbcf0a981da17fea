//! Server output for a client that sends messages as far as it gets.

use std::num::NonZeroUsize;

use posthaste_session::{ApiMisuse, ClientSettings, Ticket, client::BodyKind, table::Phase};
use posthaste_wire::capability::Keyword;

use super::incidents::{Incident, incidents};
use crate::{
    choices::{Choices, Chunking},
    client::{self, ClientHarness},
};

/// Two octets of settings, then the server's output with events in it: time passes, the stream
/// ends. The harness checks the contract. This checks that replies come in order and once, and that
/// exactly the message whose end is unanswered is in doubt.
///
/// # Panics
/// The session breaks its contract.
pub fn client_session(data: &[u8]) {
    let Some((header, stream)) = data.split_first_chunk::<2>() else { return };
    let incidents = incidents(stream);
    let random = Chunking::Random(Choices::new(stream.len() as u64));
    for chunking in [Chunking::Whole, Chunking::Single, Chunking::At(stream.len() / 2), random] {
        Conversation::new(*header).talk(&incidents, chunking);
    }
}

struct Conversation {
    harness: ClientHarness,
    hello: &'static str,
    mail: &'static str,
    pipelined: bool,
    tls: bool,
    login: bool,
    /// Octets of a chunk. `None`: one chunk for all.
    chunk: Option<NonZeroUsize>,
    seen: usize,
    /// Octets of the current message that were sent in chunks.
    at: usize,
    /// Message ends that were sent, each with its outstanding replies.
    ends: Vec<(Ticket, u32)>,
}

const CONTENT: &[u8] = b".hi\r\nthere\r\n";

impl Conversation {
    fn new([flags, chunk]: [u8; 2]) -> Self {
        let is = |bit: u8| flags & 1 << bit != 0;
        let mut settings = ClientSettings::default();
        settings.chunking = is(0);
        if is(1) {
            (settings.replies.octets, settings.replies.lines) = (200, 4);
        }
        Self {
            harness: ClientHarness::new(settings),
            hello: if is(2) {
                "LHLO client.test"
            } else if is(3) {
                "HELO client.test"
            } else {
                "EHLO client.test"
            },
            mail: if is(4) { "MAIL FROM:<a@b> BODY=BINARYMIME" } else { "MAIL FROM:<a@b>" },
            pipelined: is(5),
            tls: is(6),
            login: is(7),
            chunk: NonZeroUsize::new(usize::from(chunk)),
            seen: 0,
            at: 0,
            ends: Vec::new(),
        }
    }

    fn talk(mut self, incidents: &[Incident<'_>], mut chunking: Chunking) {
        let mut position = 0;
        for incident in incidents {
            match *incident {
                Incident::Octets(mut octets) => {
                    while !octets.is_empty() && !self.harness.closed {
                        let (piece, rest) = octets.split_at(chunking.next(position, octets.len()));
                        octets = rest;
                        position += piece.len();
                        self.harness.feed(piece);
                        if self.seen < self.harness.events.len() {
                            self.go_on();
                        }
                    }
                }
                Incident::Wait(time) => {
                    let due = self.harness.session.poll_timeout();
                    let eof = self.harness.wait(time);
                    assert_eq!(eof.is_some(), due.is_some_and(|due| due <= self.harness.clock.now()));
                }
                Incident::End => break,
                Incident::Hold(_) | Incident::Answer { .. } | Incident::Refuse(_) | Incident::Shutdown => self.go_on(),
            }
        }
        self.look();
        let replies = self.harness.events.iter().filter_map(|event| match event {
            client::Event::Reply(ticket, recipient, _) => Some((*ticket, *recipient)),
            _ => None,
        });
        let replies: Vec<_> = replies.collect();
        assert!(replies.is_sorted_by(|one, two| one < two), "replies in order, each once: {replies:?}");
        let unanswered = self.harness.session.unanswered();
        let eof = self.harness.end_of_input();
        assert!(eof.unanswered <= unanswered);
        assert_eq!(eof.message_in_doubt, self.ends.iter().any(|(_, replies)| *replies > 0), "{:?}", self.ends);
    }

    /// Does what the events ask for, and sends what comes next. Commands out of order are refused
    /// without harm.
    fn go_on(&mut self) {
        self.look();
        // A bit more than the number of states.
        for _ in 0..8 {
            if self.harness.closed {
                return;
            }
            let before = self.harness.session.unanswered();
            match self.next_command() {
                Some(Ok(_)) if self.harness.session.body_credit().is_none() => {
                    assert!(self.harness.session.unanswered() > before);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => assert_eq!(self.harness.session.unanswered(), before),
                None => return,
            }
            if !self.pipelined {
                return;
            }
        }
    }

    fn look(&mut self) {
        while let Some(event) = self.harness.events.get(self.seen).cloned() {
            self.seen += 1;
            if let client::Event::Reply(ticket, ..) = event {
                let end = self.ends.iter_mut().find(|(end, _)| *end == ticket);
                end.into_iter().for_each(|(_, replies)| *replies -= 1);
            }
            if self.harness.closed {
                continue;
            }
            match event {
                client::Event::Challenge(_) => {
                    _ = self.harness.respond((!self.seen.is_multiple_of(5)).then_some("dGVzdA=="))
                }
                client::Event::SendBody(_) => {
                    let accepted = self.harness.session.accepted_recipients();
                    let content = if accepted > 0 { CONTENT } else { b"" };
                    let sent = self.harness.send_content(content, 3);
                    let _ = self.ended(accepted, sent);
                }
                client::Event::StartTls if self.harness.session.phase() == Phase::Handshake => {
                    self.harness.establish_tls();
                }
                _ => {}
            }
        }
    }

    fn next_command(&mut self) -> Option<Result<Ticket, ApiMisuse>> {
        let session = &self.harness.session;
        let offers = |keyword| session.capabilities().offers(keyword);
        let line = match session.phase() {
            Phase::Greeted => self.hello,
            Phase::Ready if self.tls && offers(Keyword::StartTls) => "STARTTLS",
            Phase::Ready if self.login && !session.capabilities().auth().is_empty() => "AUTH LOGIN",
            // A group, as far as the session allows.
            Phase::Ready | Phase::Mail | Phase::Rcpt if session.body_kind() == BodyKind::Data => {
                return self.group(&[self.mail, "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA"]);
            }
            Phase::Ready => {
                self.at = 0;
                return self.group(&[self.mail, "RCPT TO:<c@d>", "RCPT TO:<e@f>"]);
            }
            Phase::Mail => "RCPT TO:<c@d>",
            Phase::Rcpt | Phase::Chunks => return Some(self.chunk()),
            Phase::Spoiled => "RSET",
            _ => return None,
        };
        Some(self.harness.send_line(line))
    }

    /// Sends as many of them as it may, and returns the first ticket.
    fn group(&mut self, lines: &[&str]) -> Option<Result<Ticket, ApiMisuse>> {
        let sent: Vec<_> = lines.iter().map(|line| self.harness.send_line(line)).collect();
        sent.iter().copied().find(Result::is_ok).or(sent.first().copied())
    }

    fn chunk(&mut self) -> Result<Ticket, ApiMisuse> {
        let accepted = self.harness.session.accepted_recipients();
        let rest = CONTENT.get(self.at..).unwrap_or_default();
        let octets = self.chunk.map_or(rest.len(), |chunk| chunk.get().min(rest.len()));
        let is_last = octets == rest.len();
        let sent = self.harness.send_chunk(&rest[..octets], is_last, 5);
        if sent.is_ok() {
            self.at += octets;
        }
        if is_last { self.ended(accepted, sent) } else { sent }
    }

    /// Notes that the end of a message was sent.
    fn ended(&mut self, accepted: u32, sent: Result<Ticket, ApiMisuse>) -> Result<Ticket, ApiMisuse> {
        let replies = if self.harness.session.is_lmtp() { accepted } else { 1 };
        self.ends.extend(sent.map(|ticket| (ticket, replies)));
        sent
    }
}
