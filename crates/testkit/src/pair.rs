//! A client and a server back to back over a link in memory.

use posthaste_session::{
    ApiMisuse, ClientSettings, ServerSettings, Ticket,
    sasl::{ClientContext, ClientMechanism, ClientStep, Credentials, Nonce, Protection},
};
use posthaste_wire::{Command, Mechanism, MechanismSet, Secret, capability::Keyword};

use crate::{
    choices::Choices,
    client::{ClientHarness, Event},
    link::Duplex,
    policy::{PASSWORD, USER},
    server::{ServerHarness, Stop},
};

/// A message to send.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The reverse-path's mailbox.
    pub from: String,
    /// The forward-paths' mailboxes.
    pub to: Vec<String>,
    /// The content.
    pub content: Vec<u8>,
}

/// What became of a message: reply codes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To MAIL.
    pub mail: u16,
    /// To each RCPT.
    pub recipients: Vec<u16>,
    /// To DATA; 354 when the content was asked for.
    pub data: Option<u16>,
    /// To the end of the content.
    pub end: Option<u16>,
}

/// Both sides and what lies between them.
#[derive(Debug)]
pub struct Pair {
    /// The client.
    pub client: ClientHarness,
    /// The server.
    pub server: ServerHarness,
    /// The connection.
    pub link: Duplex,
    choices: Choices,
}

impl Pair {
    /// A new connection; the seed decides how octets arrive.
    pub fn new(settings: ServerSettings, seed: u64) -> Self {
        Self {
            client: ClientHarness::new(ClientSettings::default()),
            server: ServerHarness::new(settings, false),
            link: Duplex::default(),
            choices: Choices::new(seed),
        }
    }

    /// Waits for the greeting and says EHLO; with STARTTLS and AUTH where `tls` and `mechanism` ask for them.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn open(&mut self, tls: bool, mechanism: Option<&str>) {
        self.server.run();
        assert_eq!(self.reply_to(Ticket::GREETING), 220);
        assert_eq!(self.exchange("EHLO client.test"), 250);
        if tls {
            let ticket = self.client.send_line("STARTTLS").expect("STARTTLS has a place");
            assert_eq!(self.reply_to_or_event(ticket), 220);
            self.client.establish_tls();
            assert!(
                !self.client.session.capabilities().offers(Keyword::Pipelining),
                "the offers in clear are forgotten"
            );
            assert_eq!(self.exchange("EHLO client.test"), 250);
        }
        if let Some(name) = mechanism {
            self.authenticate(name);
        }
    }

    /// Sends messages one after another, pipelined or one command at a time, and says what became of each.
    ///
    /// # Panics
    /// When the conversation breaks off.
    pub fn deliver(&mut self, letters: &[Letter], pipelined: bool) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut before: Option<Ticket> = None;
        for letter in letters {
            let mut lines = vec![format!("MAIL FROM:<{}>", letter.from)];
            lines.extend(letter.to.iter().map(|to| format!("RCPT TO:<{to}>")));
            lines.push("DATA".into());
            let mut tickets = Vec::new();
            for line in &lines {
                match self.client.send_line(line) {
                    Ok(ticket) => tickets.push(Some(ticket)),
                    // The server accepted none of the recipients, and the client knows it already.
                    Err(ApiMisuse::OutOfOrder) if line == "DATA" => tickets.push(None),
                    Err(error) => panic!("{line}: {error}"),
                }
                if !pipelined {
                    tickets.last().copied().flatten().iter().for_each(|ticket| {
                        self.reply_to_or_event(*ticket);
                    });
                }
            }
            let mut codes: Vec<_> =
                tickets.into_iter().map(|ticket| ticket.map(|ticket| self.reply_to_or_event(ticket))).collect();
            // The reply to the end of the message before comes first, and may have been waited for behind MAIL.
            if let (Some(ticket), Some(outcome)) = (before.take(), outcomes.last_mut()) {
                let outcome: &mut Outcome = outcome;
                outcome.end = Some(self.reply_to(ticket));
            }
            let data = codes.pop().flatten();
            let mut codes = codes.into_iter().map(Option::unwrap_or_default);
            let mail = codes.next().unwrap_or_default();
            outcomes.push(Outcome { mail, recipients: codes.collect(), data, end: None });
            if data == Some(354) {
                let content =
                    if self.client.session.accepted_recipients() > 0 { letter.content.as_slice() } else { b"" };
                let piece = 1 + self.choices.below(40);
                let ticket = self.client.send_content(content, piece).expect("clean content");
                // The next MAIL may leave with the end of this content (RFC 2920 section 3.1).
                if pipelined && self.choices.coin() {
                    before = Some(ticket);
                    continue;
                }
                let end = self.reply_to(ticket);
                outcomes.last_mut().expect("just pushed").end = Some(end);
            } else {
                assert_eq!(self.exchange("RSET"), 250);
            }
        }
        if let (Some(ticket), Some(outcome)) = (before, outcomes.last_mut()) {
            outcome.end = Some(self.reply_to(ticket));
        }
        outcomes
    }

    /// Says QUIT; both sides are closed then.
    ///
    /// # Panics
    /// When they are not.
    pub fn quit(&mut self) {
        assert_eq!(self.exchange("QUIT"), 221);
        self.client.feed(b"");
        assert!(self.client.closed && self.server.closed.is_some());
    }

    /// Sends a line and waits for its reply.
    ///
    /// # Panics
    /// When it has no place in the conversation.
    pub fn exchange(&mut self, line: &str) -> u16 {
        let ticket = self.client.send_line(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.reply_to(ticket)
    }

    fn authenticate(&mut self, name: &str) {
        let credentials = Credentials {
            authorisation_identity: None,
            authentication_identity: USER.into(),
            password: Secret::new(PASSWORD.into()),
        };
        let mechanism = Mechanism::from_name(name).expect("the mechanism is known");
        assert!(self.client.session.capabilities().auth().contains(mechanism), "{name} is offered");
        let mut context = ClientContext::new(Nonce::from_random([3; 18]));
        context.secrets_need = Protection::None;
        let mut mechanism = ClientMechanism::choose(MechanismSet::of(&[mechanism]), credentials.into(), context)
            .expect("the mechanism takes a password");
        let initial = mechanism.initial_response();
        let command = Command::Auth(posthaste_wire::Auth {
            mechanism: mechanism.name(),
            initial_response: initial.as_ref().map(|text| Secret::new(text.expose().as_str())),
        });
        let mut ticket = self.client.send(&command).expect("AUTH has a place");
        loop {
            match self.reply_to_or_event(ticket) {
                334 => {
                    let challenge = self.client.events.iter().rev().find_map(|event| match event {
                        Event::Challenge(text) => Some(text.clone()),
                        _ => None,
                    });
                    let ClientStep::Respond(response) = mechanism.respond(&challenge.unwrap_or_default()) else {
                        panic!("the server's challenge is in order");
                    };
                    ticket = self.client.respond(Some(response.expose())).expect("a challenge is open");
                }
                code => {
                    assert_eq!(code, 235);
                    mechanism.finish().expect("the server has proved itself");
                    return;
                }
            }
        }
    }

    fn reply_to(&mut self, ticket: Ticket) -> u16 {
        self.wait(|event| match event {
            Event::Reply(to, _, octets) if *to == ticket => Some(code(octets)),
            _ => None,
        })
    }

    /// As [`Self::reply_to`], where 354, 334 and the 220 to STARTTLS are events of their own.
    fn reply_to_or_event(&mut self, ticket: Ticket) -> u16 {
        let seen = self.client.events.len();
        let mut index = 0;
        self.wait(|event| {
            index += 1;
            match event {
                Event::Reply(to, _, octets) if *to == ticket => Some(code(octets)),
                Event::SendBody(to) if *to == ticket => Some(354),
                Event::Challenge(_) if index > seen => Some(334),
                Event::StartTls if index > seen => Some(220),
                _ => None,
            }
        })
    }

    /// Lets octets arrive, in an order and in pieces that the seed decides, until an event is there.
    fn wait(&mut self, mut wanted: impl FnMut(&Event) -> Option<u16>) -> u16 {
        let mut checked = 0;
        for _ in 0..1_000_000 {
            while let Some(event) = self.client.events.get(checked) {
                checked += 1;
                if let Some(code) = wanted(event) {
                    return code;
                }
            }
            self.link.up.write(&std::mem::take(&mut self.client.sent));
            self.link.down.write(&std::mem::take(&mut self.server.said));
            let up = self.choices.coin();
            let pipe = if up { &mut self.link.up } else { &mut self.link.down };
            let most = if self.choices.coin() { 8 } else { 4_096 };
            let octets = pipe.read(1 + self.choices.below(most));
            if octets.is_empty() {
                continue;
            }
            if !up {
                self.client.feed(&octets);
            } else if self.server.feed(&octets) == Stop::Tls {
                self.server.establish_tls();
            }
        }
        panic!("nothing happens any more: {:?}", self.client.events.last());
    }
}

fn code(reply: &[u8]) -> u16 {
    reply.iter().take(3).fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}
