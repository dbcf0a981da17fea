//! A driver for [`ClientSession`] that records events and panics if the session breaks its
//! contract.

use bytes::BytesMut;
use posthaste_session::{
    ApiMisuse, ClientNext, ClientSession, ClientSettings, PeerMisbehaved, Ticket, client::ClientEof,
};
use posthaste_wire::{Command, Secret, frame::SegmentList};

use crate::clock::Clock;

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A reply: the ticket of its command, the index of its recipient (for RCPT, and in LMTP for
    /// the end of the content), and its octets.
    Reply(Ticket, Option<u32>, Vec<u8>),
    /// A reply that no command asked for, which ends the conversation: its octets.
    Unasked(Vec<u8>),
    /// A SASL challenge in base64.
    Challenge(Vec<u8>),
    /// 354 came.
    SendBody(Ticket),
    /// A TLS handshake is due.
    StartTls,
    /// The conversation is over.
    Close,
    /// The server broke the protocol.
    Misbehaved(PeerMisbehaved),
}

/// A client session with a clock. It checks the session's contract.
#[derive(Debug)]
pub struct ClientHarness {
    /// The session.
    pub session: ClientSession,
    /// The time.
    pub clock: Clock,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Output of the session; take it with `std::mem::take`.
    pub sent: Vec<u8>,
    /// `true`: the conversation is over.
    pub closed: bool,
    input: Vec<u8>,
    out: BytesMut,
}

impl ClientHarness {
    /// A session on a new connection.
    pub fn new(settings: ClientSettings) -> Self {
        let clock = Clock::default();
        Self {
            session: ClientSession::new(settings),
            clock,
            events: Vec::new(),
            sent: Vec::new(),
            closed: false,
            input: Vec::new(),
            out: BytesMut::new(),
        }
    }

    /// Appends input and runs until the session needs more input or a handshake.
    ///
    /// # Panics
    /// The session breaks its contract.
    pub fn feed(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        let mut idle = 0;
        while !self.closed {
            let input = std::mem::take(&mut self.input);
            let (consumed, event) = match self.session.handle_input(self.clock.now(), &input) {
                Ok(step) => {
                    let event = match step.next {
                        ClientNext::NeedInput => None,
                        ClientNext::Reply { to, recipient, reply } => {
                            Some(Event::Reply(to, recipient, reply.as_bytes().to_vec()))
                        }
                        ClientNext::Unasked { reply } => Some(Event::Unasked(reply.as_bytes().to_vec())),
                        ClientNext::Challenge(text) => Some(Event::Challenge(text.expose().to_vec())),
                        ClientNext::SendBody { to } => Some(Event::SendBody(to)),
                        ClientNext::StartTls => Some(Event::StartTls),
                        ClientNext::Close => Some(Event::Close),
                    };
                    (step.consumed, event)
                }
                Err(error) => (input.len(), Some(Event::Misbehaved(error))),
            };
            assert!(consumed <= input.len());
            self.input = input[consumed..].to_vec();
            idle = if consumed == 0 { idle + 1 } else { 0 };
            assert!(idle < 8, "the session turns on the spot");
            let Some(event) = event else {
                // The most octets of one reply.
                assert!(self.input.len() <= 16 * 1_024, "{} octets are held", self.input.len());
                return;
            };
            let stop = matches!(event, Event::StartTls);
            self.closed = matches!(event, Event::Close | Event::Misbehaved(_));
            self.events.push(event);
            if stop {
                return;
            }
        }
        self.check_closed();
    }

    /// Sends a command.
    ///
    /// # Errors
    /// As [`ClientSession::send`].
    pub fn send(&mut self, command: &Command<'_>) -> Result<Ticket, ApiMisuse> {
        let sent = self.session.send(self.clock.now(), command, &mut self.out);
        self.flush();
        sent
    }

    /// Sends a command that is written as a line.
    ///
    /// # Errors
    /// As [`ClientSession::send`].
    ///
    /// # Panics
    /// The line is no command.
    pub fn send_line(&mut self, line: &str) -> Result<Ticket, ApiMisuse> {
        self.send(&Command::parse(line.as_bytes()).expect("a command"))
    }

    /// Answers a challenge in base64.
    ///
    /// # Errors
    /// As [`ClientSession::respond`].
    pub fn respond(&mut self, response: Option<&str>) -> Result<Ticket, ApiMisuse> {
        let sent = self.session.respond(self.clock.now(), response.map(Secret::new), &mut self.out);
        self.flush();
        sent
    }

    /// Sends content after DATA in pieces of at most `piece` octets, and its end.
    ///
    /// # Errors
    /// As [`ClientSession::payload`].
    pub fn send_content(&mut self, content: &[u8], piece: usize) -> Result<Ticket, ApiMisuse> {
        self.payload(content, piece)?;
        self.finish()
    }

    /// Sends a chunk in pieces of at most `piece` octets.
    ///
    /// # Errors
    /// As [`ClientSession::begin_chunk`] and [`ClientSession::payload`].
    ///
    /// # Panics
    /// The session counts other octets than were given.
    pub fn send_chunk(&mut self, content: &[u8], last: bool, piece: usize) -> Result<Ticket, ApiMisuse> {
        self.begin_chunk(content.len() as u64, last)?;
        assert_eq!(self.session.body_credit(), Some(content.len() as u64));
        self.payload(content, piece)?;
        assert_eq!(self.session.body_credit(), Some(0));
        assert_eq!(self.session.message_in_doubt(), last);
        self.finish()
    }

    /// Sends a whole message by BDAT in pieces of at most `piece` octets, before the replies to its
    /// commands.
    ///
    /// # Errors
    /// As [`ClientSession::begin_early_chunk`] and [`ClientSession::payload`].
    pub fn send_early_chunk(&mut self, content: &[u8], piece: usize) -> Result<Ticket, ApiMisuse> {
        let begun = self.session.begin_early_chunk(self.clock.now(), content.len() as u64, &mut self.out);
        self.flush();
        begun?;
        self.payload(content, piece)?;
        self.finish()
    }

    /// Begins a chunk of `octets` octets.
    ///
    /// # Errors
    /// As [`ClientSession::begin_chunk`].
    pub fn begin_chunk(&mut self, octets: u64, last: bool) -> Result<(), ApiMisuse> {
        let begun = self.session.begin_chunk(self.clock.now(), octets, last, &mut self.out);
        self.flush();
        begun
    }

    /// Sends a part of the content in pieces of at most `piece` octets. A list of segments is
    /// written whole, or not at all.
    ///
    /// # Errors
    /// As [`ClientSession::payload`].
    ///
    /// # Panics
    /// The session takes no octet although there is room.
    pub fn payload(&mut self, content: &[u8], piece: usize) -> Result<(), ApiMisuse> {
        for piece in content.chunks(piece.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                let mut segments = SegmentList::new();
                let taken = self.session.payload(self.clock.now(), rest, &mut segments)?;
                assert!(taken > 0, "an empty list has room");
                assert!(self.session.poll_timeout().is_some(), "no deadline while content is written");
                rest = &rest[taken..];
                self.write(&segments);
            }
        }
        Ok(())
    }

    /// Ends the content or the chunk.
    ///
    /// # Errors
    /// As [`ClientSession::finish_payload`].
    pub fn finish(&mut self) -> Result<Ticket, ApiMisuse> {
        let mut segments = SegmentList::new();
        let ticket = self.session.finish_payload(self.clock.now(), &mut segments)?;
        self.write(&segments);
        Ok(ticket)
    }

    fn write(&mut self, segments: &SegmentList<'_>) {
        segments.as_slice().iter().for_each(|segment| self.sent.extend_from_slice(segment.as_bytes()));
    }

    /// The TLS handshake is done.
    ///
    /// # Panics
    /// No handshake was due.
    pub fn establish_tls(&mut self) {
        self.session.tls_established().expect("a handshake is due");
    }

    /// Lets time pass, and tells the session.
    pub fn wait(&mut self, time: std::time::Duration) -> Option<ClientEof> {
        self.clock.advance(time);
        let eof = self.session.handle_timeout(self.clock.now());
        self.closed |= eof.is_some();
        eof
    }

    /// The server has closed its side.
    pub fn end_of_input(&mut self) -> ClientEof {
        self.closed = true;
        self.session.handle_eof()
    }

    fn flush(&mut self) {
        self.sent.extend_from_slice(&self.out.split());
    }

    /// Checks that a closed session does nothing more.
    fn check_closed(&mut self) {
        let now = self.clock.now();
        let again = self.session.handle_input(now, b"250 ok\r\n");
        assert!(matches!(again, Ok(step) if matches!(step.next, ClientNext::Close)), "an event after the end");
        assert_eq!(self.session.send(now, &Command::Noop(""), &mut self.out), Err(ApiMisuse::Closed));
        assert_eq!(self.session.begin_chunk(now, 0, true, &mut self.out), Err(ApiMisuse::Closed));
        assert_eq!(self.session.poll_timeout(), None, "a closed session has no deadline");
        assert!(self.out.is_empty(), "output after the end");
    }
}
