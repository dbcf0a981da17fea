//! The application beside the client. It sends one thing whenever it has the turn and the session
//! allows it.

use std::collections::{HashMap, VecDeque};

use posthaste_session::{
    ApiMisuse, Ticket,
    sasl::{ClientContext, ClientMechanism, ClientStep, Credentials, Nonce, Protection},
    table::Phase,
};
use posthaste_wire::{Auth, Command, Mechanism, MechanismSet, Secret, capability::Keyword};

use super::{Letter, Setup, Way};
use crate::{
    client::{ClientHarness, Event},
    policy::{PASSWORD, USER},
};

/// The letters to send, and their outcomes.
#[derive(Debug)]
pub(super) struct Mailer {
    setup: Setup,
    plan: VecDeque<Task>,
    pub(super) letters: Vec<Sending>,
    tickets: HashMap<Ticket, (usize, Part)>,
    sasl: Option<(Ticket, ClientMechanism)>,
    /// Events of the client that were handled.
    seen: usize,
    pub(super) in_tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Hello,
    StartTls,
    Login(Mechanism),
    Letter(usize),
    Quit,
}

/// A letter that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) letter: Letter,
    /// The reply that decided the outcome for each recipient.
    pub(super) fates: Vec<Option<u16>>,
    next: Next,
}

/// The next part of a letter to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Mail,
    Rcpt(usize),
    /// Wait for the reply to DATA.
    Await,
    /// Content from this octet on, after DATA or in chunks. `true`: the open chunk is the last.
    Content(usize, bool),
    Reset,
}

/// The command that a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Mail,
    Rcpt(usize),
    /// DATA, or a chunk that was not the last.
    Content,
    End,
}

impl Mailer {
    pub(super) fn new(setup: Setup) -> Self {
        let mut plan = VecDeque::from([Task::Hello]);
        if setup.tls {
            plan.extend([Task::StartTls, Task::Hello]);
        }
        plan.extend(setup.mechanism.map(Task::Login));
        Self { setup, plan, letters: Vec::new(), tickets: HashMap::new(), sasl: None, seen: 0, in_tls: false }
    }

    pub(super) fn submit(&mut self, letter: Letter) {
        self.plan.push_back(Task::Letter(self.letters.len()));
        self.letters.push(Sending { fates: vec![None; letter.recipients.len()], letter, next: Next::Mail });
    }

    pub(super) fn quit(&mut self) {
        self.plan.push_back(Task::Quit);
    }

    /// Returns `true` if everything was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.plan.is_empty()
    }

    /// Sends a command, or at most `most` octets of content, if it may. Returns `true` if it did.
    pub(super) fn act(&mut self, client: &mut ClientHarness, most: usize) -> bool {
        let in_content = client.session.phase() == Phase::Content || client.session.body_credit().is_some();
        let waits = !self.setup.pipelined && !in_content && client.session.unanswered() > 0;
        let Some(task) = self.plan.front().copied().filter(|_| !client.closed && !waits) else { return false };
        let sent = match task {
            Task::Hello => client.send_line(if self.setup.lmtp { "LHLO client.test" } else { "EHLO client.test" }),
            Task::StartTls => client.send_line("STARTTLS"),
            Task::Quit => client.send_line("QUIT"),
            Task::Login(mechanism) => self.login(client, mechanism),
            Task::Letter(index) => return self.send(client, index, most),
        };
        match sent {
            Ok(_) => {
                self.plan.pop_front();
                true
            }
            Err(ApiMisuse::NotYet) => false,
            Err(error) => panic!("{task:?}: {error}"),
        }
    }

    /// Sends the next part of a letter.
    fn send(&mut self, client: &mut ClientHarness, index: usize, most: usize) -> bool {
        let Some(sending) = self.letters.get_mut(index) else { return false };
        let letter = &sending.letter;
        let way = letter.way;
        let (sent, part, next) = match sending.next {
            Next::Mail => {
                let body = if matches!(way, Way::Chunks { binary: true, .. }) { " BODY=BINARYMIME" } else { "" };
                let sent = client.send_line(&format!("MAIL FROM:<letter{index}@a.test>{body}"));
                (sent, Part::Mail, Some(Next::Rcpt(0)))
            }
            Next::Rcpt(number) if number < letter.recipients.len() => {
                let sent = client.send_line(&format!("RCPT TO:<recipient{number}@b.test>"));
                (sent, Part::Rcpt(number), Some(Next::Rcpt(number + 1)))
            }
            Next::Rcpt(_) if way != Way::Data => {
                sending.next = Next::Content(0, false);
                return true;
            }
            Next::Rcpt(_) => (client.send_line("DATA"), Part::Content, Some(Next::Await)),
            Next::Await => return false,
            Next::Content(at, mut is_last) => {
                let rest = letter.content.get(at..).unwrap_or_default();
                if let (None, Way::Chunks { octets, end_apart, .. }) = (client.session.body_credit(), way) {
                    let octets = octets.max(1).min(rest.len());
                    is_last = octets == rest.len() && !(end_apart && octets > 0);
                    match client.begin_chunk(octets as u64, is_last) {
                        Ok(()) => sending.next = Next::Content(at, is_last),
                        Err(ApiMisuse::NotYet) => return false,
                        // The RSET after a chunk of the letter before may still be unanswered.
                        Err(ApiMisuse::OutOfOrder) if client.session.unanswered() > 0 => return false,
                        Err(ApiMisuse::OutOfOrder) => sending.next = Next::Reset,
                        Err(error) => panic!("a chunk: {error}"),
                    }
                    if octets > 0 || sending.next == Next::Reset {
                        return true;
                    }
                }
                let credit = client.session.body_credit().map_or(rest.len(), |credit| credit as usize);
                let piece = rest.get(..credit.min(most.max(1))).unwrap_or(rest);
                let at = at + piece.len();
                client.payload(piece, piece.len()).expect("clean content");
                // A chunk ends with its octets: its reply may come from then on.
                if !piece.is_empty() && client.session.body_credit() != Some(0) {
                    sending.next = Next::Content(at, is_last);
                    return true;
                }
                match is_last || way == Way::Data {
                    true => (client.finish(), Part::End, None),
                    false => (client.finish(), Part::Content, Some(Next::Content(at, false))),
                }
            }
            Next::Reset => {
                let sent = client.send_line("RSET");
                if sent.is_ok() {
                    self.plan.pop_front();
                }
                return sent.is_ok();
            }
        };
        match (sent, next) {
            (Ok(ticket), next) => {
                self.tickets.insert(ticket, (index, part));
                match next {
                    Some(next) => sending.next = next,
                    None => _ = self.plan.pop_front(),
                }
            }
            (Err(ApiMisuse::NotYet), _) => return false,
            // An earlier part was refused, and the client knows it already.
            (Err(ApiMisuse::OutOfOrder), _) => sending.next = Next::Reset,
            (Err(error), _) => panic!("letter {index}, {part:?}: {error}"),
        }
        true
    }

    /// Handles the events that came, and answers a challenge.
    pub(super) fn hear(&mut self, client: &mut ClientHarness) {
        while let Some(event) = client.events.get(self.seen).cloned() {
            self.seen += 1;
            match event {
                Event::Reply(ticket, recipient, octets) => self.settle(client, ticket, recipient, code(&octets)),
                Event::Challenge(_) | Event::SendBody(_) if client.closed => {}
                Event::SendBody(ticket) => {
                    let (index, _) = self.tickets.get(&ticket).expect("DATA was sent");
                    assert!(client.session.accepted_recipients() > 0, "the server says 354 without a recipient");
                    self.letters[*index].next = Next::Content(0, false);
                }
                Event::Challenge(text) => {
                    let (ticket, mechanism) = self.sasl.as_mut().expect("AUTH was sent");
                    let ClientStep::Respond(response) = mechanism.respond(&text) else {
                        panic!("the challenge of {} is in order", mechanism.name());
                    };
                    *ticket = client.respond(Some(response.expose())).expect("a challenge is open");
                }
                // A client that is woken reports it again.
                Event::StartTls if client.session.phase() != Phase::Handshake => {}
                Event::StartTls => {
                    client.establish_tls();
                    self.in_tls = true;
                    let forgotten = !client.session.capabilities().offers(Keyword::Pipelining);
                    assert!(forgotten, "the offers in clear are forgotten");
                }
                Event::Unasked(octets) => assert_eq!(code(&octets), 421),
                Event::Close => {}
                Event::Misbehaved(error) => panic!("this server behaves: {error}"),
            }
        }
    }

    /// Records a reply for the recipients that it decides.
    fn settle(&mut self, client: &ClientHarness, ticket: Ticket, recipient: Option<u32>, code: u16) {
        if let Some((_, mechanism)) = self.sasl.take_if(|(login, _)| *login == ticket)
            && code != 421
        {
            assert_eq!(code, 235);
            mechanism.finish().expect("the server has proved itself");
        }
        let Some(&(index, part)) = self.tickets.get(&ticket) else {
            assert!(code < 400 || code == 421, "{code} to a command that is not about a letter");
            return;
        };
        let Sending { letter, fates, next } = &mut self.letters[index];
        if part == Part::Content && letter.way == Way::Data {
            *next = Next::Reset;
        }
        let settled = match part {
            Part::Rcpt(number) => number..number + 1,
            Part::End if client.session.is_lmtp() => {
                let number = recipient.expect("each recipient has its reply") as usize;
                number..number + 1
            }
            Part::Mail | Part::Content | Part::End => 0..fates.len(),
        };
        if code >= 400 || part == Part::End {
            fates[settled].iter_mut().for_each(|fate| _ = fate.get_or_insert(code));
        }
    }

    fn login(&mut self, client: &mut ClientHarness, mechanism: Mechanism) -> Result<Ticket, ApiMisuse> {
        if client.session.unanswered() > 0 {
            return Err(ApiMisuse::NotYet);
        }
        assert!(client.session.capabilities().auth().contains(mechanism), "{mechanism} is offered");
        let credentials = Credentials {
            authorization_identity: None,
            authentication_identity: USER.into(),
            password: Secret::new(PASSWORD.into()),
        };
        let mut context = ClientContext::new(Nonce::from_random([3; 18]));
        context.secrets_need = Protection::None;
        let mut exchange = ClientMechanism::choose(MechanismSet::of(&[mechanism]), credentials.into(), context)
            .expect("the mechanism takes a password");
        let initial = exchange.initial_response();
        let ticket = client.send(&Command::Auth(Auth {
            mechanism: exchange.name(),
            initial_response: initial.as_ref().map(|text| Secret::new(text.expose().as_str())),
        }))?;
        self.sasl = Some((ticket, exchange));
        Ok(ticket)
    }
}

fn code(reply: &[u8]) -> u16 {
    reply.iter().take(3).fold(0, |number, digit| number * 10 + u16::from(digit.wrapping_sub(b'0')))
}
