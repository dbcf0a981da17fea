//! The memory of a connection, driven as a program would. It has one buffer for the input, one for
//! the output, and reads of at most 4 KiB that wait while the session has output.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use posthaste_session::{
    ClientNext, ClientSettings, MAX_OUTPUT, ServerNext, ServerSession, Transport, Verdict, table::Exchange,
};
use posthaste_testkit::{client::ClientHarness, clock::Clock, policy::Policy};

/// The most octets that a connection may hold above an idle one, its buffers included.
pub(crate) const LIMIT: u64 = 64 * 1_024;

/// Octets of one read.
const READ: usize = 4 * 1_024;

/// The most octets on the heap at any time while this runs.
pub(crate) fn most_held(what: impl FnOnce()) -> u64 {
    allocation_counter::measure(what).bytes_max
}

/// A server's connection.
pub(crate) struct Served {
    pub(crate) session: ServerSession,
    pub(crate) clock: Clock,
    pub(crate) policy: Policy,
    /// The next n questions about an exchange that are refused.
    pub(crate) refusals: Option<(Exchange, u64, Verdict)>,
    pub(crate) closed: bool,
    /// The client does not read any more.
    pub(crate) deaf: bool,
    input: BytesMut,
    out: BytesMut,
}

impl Served {
    pub(crate) fn new(settings: &Arc<posthaste_session::ServerSettings>) -> Self {
        let mut served = Self {
            session: ServerSession::new(Arc::clone(settings), Transport::Plain),
            clock: Clock::default(),
            policy: Policy::default(),
            refusals: None,
            closed: false,
            deaf: false,
            input: BytesMut::new(),
            out: BytesMut::new(),
        };
        served.run();
        served
    }

    /// Lets octets arrive. Returns how many were read: all, unless the client is deaf and the
    /// server stops reading.
    pub(crate) fn feed(&mut self, octets: &[u8]) -> usize {
        let mut fed = 0;
        for piece in octets.chunks(READ) {
            if self.closed {
                return octets.len();
            }
            self.input.extend_from_slice(piece);
            if !self.run() {
                return fed;
            }
            fed += piece.len();
        }
        fed
    }

    /// Runs until more input is needed. `false`: output waits that the client does not read.
    fn run(&mut self) -> bool {
        while !self.closed {
            let input = std::mem::take(&mut self.input);
            let step = self.session.handle_input(self.clock.now(), &input, &mut self.out).expect("an open session");
            let consumed = step.consumed;
            // `Some`: it stops here. `true`: all was read.
            let mut stop = None;
            match step.next {
                ServerNext::NeedInput => stop = Some(true),
                ServerNext::Flush if self.deaf => {
                    assert!(self.out.len() <= MAX_OUTPUT + 1_024, "{} octets wait to be read", self.out.len());
                    stop = Some(false);
                }
                ServerNext::Ask(ask) => {
                    let ask = ask.into_owned();
                    let verdict = match &mut self.refusals {
                        Some((exchange, left, verdict)) if *exchange == ask.exchange() && *left > 0 => {
                            *left -= 1;
                            verdict.clone()
                        }
                        _ => self.policy.verdict(&ask).unwrap_or(Verdict::Accept(None)),
                    };
                    self.session.answer(self.clock.now(), verdict, &mut self.out).expect("it fits");
                }
                ServerNext::Close(_) => self.closed = true,
                // Octets of the handshake belong to another layer.
                ServerNext::StartTls => {
                    self.session.tls_established().expect("it is due");
                    self.out.clear();
                }
                ServerNext::Flush => self.out.clear(),
                _ => {}
            }
            self.input = input;
            self.input.advance(consumed);
            if self.input.is_empty() {
                // An idle connection owns no buffers.
                self.input = BytesMut::new();
            }
            if let Some(all_was_read) = stop {
                return all_was_read;
            }
        }
        true
    }

    /// Asks again and again while the client does not read: nothing may be read, and nothing more
    /// may be said.
    pub(crate) fn ask_again(&mut self) {
        for _ in 0..100 {
            let (held, waiting) = (self.out.len(), self.input.len());
            assert!(!self.run(), "the session goes on without being read");
            assert_eq!((self.out.len(), self.input.len()), (held, waiting), "the output grows");
        }
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.clock.advance(std::time::Duration::from_secs(seconds));
        self.session.handle_timeout(self.clock.now(), &mut self.out);
        self.run();
    }
}

/// A client's connection.
pub(crate) struct Connected {
    /// Sends through the harness. Reads without it, because the harness keeps its input.
    pub(crate) harness: ClientHarness,
    closed: bool,
    input: BytesMut,
}

impl Connected {
    pub(crate) fn new() -> Self {
        Self { harness: ClientHarness::new(ClientSettings::default()), closed: false, input: BytesMut::new() }
    }

    pub(crate) fn feed(&mut self, octets: &[u8]) {
        self.harness.sent = Vec::new();
        for piece in octets.chunks(READ) {
            // A closed connection is not read.
            if self.closed {
                return;
            }
            self.input.extend_from_slice(piece);
            while !self.closed {
                let (consumed, go_on) = match self.harness.session.handle_input(self.harness.clock.now(), &self.input) {
                    Ok(step) => {
                        self.closed = matches!(step.next, ClientNext::Close);
                        (step.consumed, !matches!(step.next, ClientNext::NeedInput | ClientNext::StartTls))
                    }
                    Err(_) => {
                        self.closed = true;
                        (self.input.len(), false)
                    }
                };
                self.input.advance(consumed);
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                if !go_on {
                    break;
                }
            }
        }
    }
}
