//! A client and a server back to back over a link in memory, moved step by step. The caller chooses
//! whose turn it is, how many octets arrive, when the application answers, what the clock says and
//! where the connection fails.
//!
//! [`Letter::fates`] is the model. After any steps, [`Pair::check`] holds:
//!
//! - What the server's application accepted was sent: whole, in order and once.
//! - What the client was told is what the application said.
//! - If the client was told that a message is accepted, it was accepted. At most one accepted
//!   message is unknown to the client: the one whose end is unanswered. The client knows that this
//!   one is in doubt.
//!
//! [`Pair::finish`] adds: if the connection is not [disturbed](Pair::is_disturbed), the client is
//! told every outcome. If it is, both sides end by their own clocks.

mod letter;
mod mailer;

use std::time::Duration;

use posthaste_session::{
    ApiMisuse, ClientSettings, ServerSettings, Tick, Transport, server::CloseReason, server::Protocol,
};
use posthaste_wire::{Mechanism, MechanismSet};

use crate::{
    choices::Choices,
    client::ClientHarness,
    link::{Duplex, Fault},
    server::ServerHarness,
};

pub use letter::{Letter, Way};
use mailer::Mailer;

/// What both sides agree on.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// LMTP instead of SMTP.
    pub lmtp: bool,
    /// STARTTLS first.
    pub tls: bool,
    /// AUTH first, with or without TLS.
    pub mechanism: Option<Mechanism>,
    /// Commands are pipelined where that is allowed. Otherwise every reply is waited for.
    pub pipelined: bool,
}

/// One step of a [`Pair`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The client gets a letter to send.
    Submit(Letter),
    /// The client's application has the turn, for one command or at most this many octets of
    /// content.
    Act(usize),
    /// This many octets arrive at the server. If none are left and the stream has ended, the server
    /// learns of its end.
    Up(usize),
    /// The same at the client.
    Down(usize),
    /// The server's application answers the open question.
    Answer,
    /// Time passes, and both sides are told, the server first if `true`.
    Wait(Duration, bool),
    /// This many hundredths of the time until the next deadline pass; with 100 or more the deadline
    /// comes. The server is told first if `true`.
    WaitFor(u32, bool),
    /// Both sides are woken without a cause, the server first if `true`.
    Wake(bool),
    /// The connection fails after this many more octets, towards that side.
    Fail(Fault, Side, usize),
}

/// The side towards which a connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The server.
    Server,
    /// The client.
    Client,
}

/// Both sides and the link between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: ClientHarness,
    /// The server.
    pub server: ServerHarness,
    /// The connection.
    pub link: Duplex,
    mailer: Mailer,
    disturbed: bool,
}

impl Pair {
    /// A new connection.
    pub fn new(setup: Setup) -> Self {
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.protocol = if setup.lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256]);
        settings.offers.auth_in_clear = true;
        settings.offers.binary_mime = true;
        // The budgets have tests of their own.
        settings.limits.errors = u32::MAX;
        settings.limits.idle_commands = u32::MAX;
        settings.timeouts.minimum_rate = 0;
        settings.timeouts.message = settings.timeouts.session;
        let mut server = ServerHarness::new(settings, Transport::StartTls);
        server.policy.decide_later();
        Self {
            client: ClientHarness::new(ClientSettings::default()),
            server,
            link: Duplex::default(),
            mailer: Mailer::new(setup),
            disturbed: false,
        }
    }

    /// Returns `true` if the connection has failed, or a deadline has ended it.
    pub fn is_disturbed(&self) -> bool {
        self.disturbed
    }

    /// Takes one step. Returns `true` if it had an effect.
    ///
    /// # Panics
    /// A session breaks its contract.
    pub fn step(&mut self, step: Step) -> bool {
        let moved = match step {
            Step::Submit(letter) => {
                self.server.policy.letters.push(letter.clone());
                self.mailer.submit(letter);
                true
            }
            Step::Act(most) => self.mailer.act(&mut self.client, most),
            Step::Up(most) => self.arrive_at_server(most),
            Step::Down(most) => self.arrive_at_client(most),
            Step::Answer => self.answer(),
            Step::Wait(time, server_first) => {
                self.wait(time, server_first);
                true
            }
            Step::WaitFor(hundredths, server_first) => {
                let left = self.due().map_or(Duration::ZERO, |due| due.since(self.server.clock.now()));
                self.wait(left.saturating_mul(hundredths) / 100, server_first);
                true
            }
            Step::Wake(server_first) => {
                self.wait(Duration::ZERO, server_first);
                self.server.run();
                self.client.feed(b"");
                true
            }
            Step::Fail(fault, side, more) => {
                self.disturbed = true;
                let pipe = if side == Side::Server { &mut self.link.up } else { &mut self.link.down };
                pipe.fail(fault, more);
                true
            }
        };
        self.mailer.hear(&mut self.client);
        // A handshake needs both sides, so the pair does it.
        if self.mailer.in_tls && self.server.tls_is_due && self.server.closed.is_none() {
            self.server.establish_tls();
            self.server.run();
        }
        self.link.up.write(&std::mem::take(&mut self.client.sent));
        self.link.down.write(&std::mem::take(&mut self.server.said));
        if self.client.closed {
            self.link.up.close();
        }
        if self.server.closed.is_some() {
            self.link.down.close();
        }
        self.link.settle();
        moved
    }

    /// Sends QUIT after everything that was submitted, and lets both sides end.
    ///
    /// # Panics
    /// A side does not end, or an invariant does not hold.
    pub fn finish(&mut self, choices: &mut Choices) {
        self.mailer.quit();
        while !(self.client.closed && self.server.closed.is_some()) {
            let mut moved = false;
            for _ in 0..8 {
                let most = [1, 8, 64, 65_536][choices.below(4)];
                moved |= self.step(match choices.below(4) {
                    0 => Step::Act(most),
                    1 => Step::Up(most),
                    2 => Step::Down(most),
                    _ => Step::Answer,
                });
            }
            for step in [Step::Act(64), Step::Up(64), Step::Down(64), Step::Answer] {
                moved |= self.step(step);
            }
            if !moved {
                // Both sides wait for lost octets.
                assert!(self.disturbed, "both sides wait for ever: {:?}", self.client.events.last());
                let due = self.due().expect("a deadline");
                assert!(due.since(self.server.clock.now()) <= LONGEST_WAIT, "{due}");
                self.step(Step::WaitFor(100, choices.coin()));
            }
        }
        self.check();
        if !self.disturbed {
            assert_eq!(self.server.closed, Some(CloseReason::Quit));
            assert!(self.mailer.is_idle() && self.client.session.unanswered() == 0);
            for sending in &self.mailer.letters {
                let told: Option<Vec<u16>> = sending.fates.iter().copied().collect();
                assert_eq!(told, Some(sending.letter.fates()));
            }
        }
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn check(&self) {
        let mut taken = Vec::new();
        for message in &self.server.messages {
            let index = number_in(&message.mail.to_string(), "letter");
            assert!(taken.last().is_none_or(|last| *last < index), "in order, and once");
            taken.push(index);
            let letter = &self.mailer.letters[index].letter;
            assert_eq!(message.content.escape_ascii().to_string(), letter.content.escape_ascii().to_string());
            let found: Vec<_> =
                message.recipients.iter().map(|rcpt| number_in(&rcpt.to_string(), "recipient")).collect();
            let fates = letter.fates();
            let accepted: Vec<_> = (0..fates.len()).filter(|recipient| fates[*recipient] == 250).collect();
            assert_eq!(found, accepted);
        }
        let mut untold = 0;
        for (index, sending) in self.mailer.letters.iter().enumerate() {
            let fates = sending.letter.fates();
            for (told, fate) in sending.fates.iter().zip(&fates) {
                let ended = self.disturbed && *told == Some(421);
                assert!(told.is_none_or(|told| told == *fate) || ended, "told {told:?} of {fate}");
                assert!(*told != Some(250) || taken.contains(&index), "told that it is taken, and it is not");
            }
            let accepted = sending.fates.iter().zip(&fates).filter(|(_, fate)| **fate == 250);
            untold += usize::from(taken.contains(&index) && accepted.clone().any(|(told, _)| *told != Some(250)));
        }
        assert!(untold == 0 || (untold == 1 && self.client.session.message_in_doubt()), "{untold} messages in doubt");
    }

    fn arrive_at_server(&mut self, most: usize) -> bool {
        let octets = self.link.up.read(most.max(1));
        if self.server.closed.is_some() {
            return !octets.is_empty();
        }
        if self.link.up.is_at_end() && octets.is_empty() {
            self.server.end_of_input();
            return true;
        }
        self.server.feed(&octets);
        !octets.is_empty() || !self.server.said.is_empty()
    }

    fn arrive_at_client(&mut self, most: usize) -> bool {
        let octets = self.link.down.read(most.max(1));
        if self.client.closed {
            return !octets.is_empty();
        }
        if self.link.down.is_at_end() && octets.is_empty() {
            self.client.end_of_input();
            return true;
        }
        self.client.feed(&octets);
        !octets.is_empty()
    }

    fn answer(&mut self) -> bool {
        if self.server.held.is_none() {
            return false;
        }
        let verdict = self.server.policy.decided();
        let answered = self.server.answer(verdict);
        assert_eq!(answered, if self.server.closed.is_some() { Err(ApiMisuse::Closed) } else { Ok(()) });
        self.server.run();
        true
    }

    fn wait(&mut self, time: Duration, server_first: bool) {
        let now = self.server.clock.now() + time;
        let is_due = self.due().is_some_and(|due| due <= now);
        let before = (self.server.closed, self.client.closed);
        if server_first {
            self.server.wait(time);
        }
        self.client.wait(time);
        if !server_first {
            self.server.wait(time);
        }
        assert!(is_due || before == (self.server.closed, self.client.closed), "before the time");
        assert!(!is_due || before != (self.server.closed, self.client.closed), "the time has come");
        self.disturbed |= is_due;
    }

    fn due(&self) -> Option<Tick> {
        self.server.session.poll_timeout().into_iter().chain(self.client.session.poll_timeout()).min()
    }
}

/// For the reply to the end of a message (RFC 5321 section 4.5.3.2.6). No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The number after a word.
fn number_in(text: &str, word: &str) -> usize {
    let digits = text.split(word).nth(1).unwrap_or_default().split('@').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no {word} in {text:?}"))
}
