//! A dialogue from the server's side.

use std::time::Duration;

use posthaste_session::{
    ServerSettings, Transport, Verdict,
    server::{Protocol, ServerEof},
};
use posthaste_wire::{Mechanism, MechanismSet};

use super::{Step, Transcript, shown, unescape};
use crate::{
    choices::Chunking,
    policy::{self, accept, decision, refusal, refuse},
    server::{Event, ServerHarness, Stop},
    wire::tolerance::switch,
};

/// Runs a transcript against a server session, in every chunking.
///
/// # Panics
/// The session says something else, or chunkings give different events.
pub fn replay(name: &str, transcript: &Transcript) {
    let mut first: Option<Vec<Event>> = None;
    for chunking in Chunking::all(transcript.client_octets()) {
        let context = format!("{name}, {chunking:?}");
        let events = Run::new(&context, transcript, chunking).replay(transcript);
        match &first {
            None => first = Some(events),
            Some(expected) => assert_eq!(&events, expected, "{context}: other events than with the input whole"),
        }
    }
}

struct Run<'a> {
    context: &'a str,
    harness: ServerHarness,
    chunking: Chunking,
    position: usize,
    eof: Option<ServerEof>,
}

impl<'a> Run<'a> {
    fn new(context: &'a str, transcript: &Transcript, chunking: Chunking) -> Self {
        let (settings, transport) = settings(transcript);
        Self { context, harness: ServerHarness::new(settings, transport), chunking, position: 0, eof: None }
    }

    fn replay(mut self, transcript: &Transcript) -> Vec<Event> {
        for (number, step) in &transcript.steps {
            let place = format!("{}, line {number}", self.context);
            match step {
                Step::Client(octets) => {
                    self.heard_everything(&place);
                    self.feed(octets);
                }
                Step::Server(line) => {
                    self.harness.run();
                    let said = &mut self.harness.said;
                    assert!(said.starts_with(line), "{place}: {:?} instead of {:?}", shown(said), shown(line));
                    said.drain(..line.len());
                }
                Step::ServerCode(pattern) => {
                    self.harness.run();
                    self.expect_code(&place, pattern);
                }
                // The last line stands for the whole reply.
                Step::ServerLike(line) if line.get(3) == Some(&b'-') => {}
                Step::ServerLike(line) => {
                    self.harness.run();
                    self.expect_code(&place, &pattern(line));
                }
                Step::Directive(text) if text.starts_with("client ") => {}
                Step::Directive(text) => self.directive(&place, text),
            }
        }
        self.harness.run();
        self.heard_everything(self.context);
        self.harness.events
    }

    fn feed(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let taken = self.chunking.next(self.position, rest.len());
            let (piece, next) = rest.split_at(taken);
            self.harness.feed(piece);
            self.position += taken;
            rest = next;
        }
    }

    fn heard_everything(&self, place: &str) {
        let said = &self.harness.said;
        assert!(said.is_empty(), "{place}: the server said {:?} as well", shown(said));
    }

    fn expect_code(&mut self, place: &str, pattern: &str) {
        let said = &mut self.harness.said;
        loop {
            let end = said.iter().position(|octet| *octet == b'\n');
            let end = end.unwrap_or_else(|| panic!("{place}: no whole reply in {:?}", shown(said))) + 1;
            // A dot in the code matches any digit; a hyphen also stands for the space of the last
            // line.
            let fits = pattern.bytes().zip(said.iter()).enumerate().all(|(index, (want, found))| {
                want == *found || (index < 3 && want == b'.') || (index == 3 && *found == b'-')
            });
            assert!(fits, "{place}: {:?} instead of {pattern}", shown(said));
            let more = said.get(3) == Some(&b'-');
            said.drain(..end);
            if !more {
                return;
            }
        }
    }

    fn directive(&mut self, place: &str, text: &str) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let harness = &mut self.harness;
        match word {
            "accept" | "refuse" | "challenge" | "each" => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let question = policy::question(name).unwrap_or_else(|| panic!("{place}: no such question"));
                harness.policy.script(question, verdict(word, rest));
            }
            "hold" => harness.policy.hold(number(place, rest)),
            "answer" => {
                let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let answered = harness.answer(verdict(word, rest));
                assert!(answered.is_ok(), "{place}: {answered:?}");
                harness.run();
            }
            "refuse-content" => harness.session.refuse_content(refusal(rest)),
            "shutdown" => harness.shutdown(),
            "eof" => self.eof = Some(harness.end_of_input()),
            "in-transaction" => assert!(self.eof.is_some_and(|eof| eof.in_transaction), "{place}"),
            "tls" => {
                assert_eq!(harness.run(), Stop::Tls, "{place}");
                harness.establish_tls();
            }
            "wait" => harness.wait(Duration::from_secs(number(place, rest) as u64)),
            "received" => {
                let content = harness.messages.last().map(|message| message.content.as_slice()).unwrap_or_default();
                assert_eq!(content.escape_ascii().to_string(), unescape(rest).escape_ascii().to_string(), "{place}");
            }
            "messages" => assert_eq!(harness.messages.len(), number(place, rest), "{place}"),
            "closed" => {
                harness.run();
                let found = harness.closed.map(|reason| format!("{reason:?}"));
                assert_eq!(found.as_deref(), Some(rest), "{place}");
            }
            "open" => {
                harness.run();
                assert_eq!(harness.closed, None, "{place}");
            }
            _ => panic!("{place}: no such directive: {text}"),
        }
    }
}

/// The verdict of a directive: `accept`, `refuse`, `challenge` or `each`, and what follows the
/// question.
///
/// # Panics
/// At a reply that is none.
pub fn verdict(word: &str, rest: &str) -> Verdict {
    match (word, rest) {
        ("accept", "") => Verdict::Accept(None),
        ("accept", line) => accept(line),
        ("challenge", text) => Verdict::Challenge(unescape(text)),
        ("each", lines) => Verdict::Each(lines.split(" / ").map(decision).collect()),
        (_, line) => refuse(line),
    }
}

/// What the server's own reply must share with a line: the code, and the enhanced code.
fn pattern(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_whitespace();
    let code = words.next().unwrap_or_default().to_owned();
    match words.next() {
        Some(enhanced) if enhanced.split('.').filter(|part| part.parse::<u16>().is_ok()).count() == 3 => {
            format!("{code} {enhanced} ")
        }
        _ => code,
    }
}

fn number(place: &str, text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{place}: {text:?} is no number"))
}

/// The server that a transcript sets up.
///
/// # Panics
/// At a word that is none.
pub fn settings(transcript: &Transcript) -> (ServerSettings, Transport) {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    let mut transport = Transport::Plain;
    for line in &transcript.setup {
        let mut words = line.split(' ');
        match words.next() {
            Some("offer") => words.for_each(|word| match word {
                "starttls" => transport = Transport::StartTls,
                word => offer(&mut settings, word),
            }),
            Some("limit") => {
                let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                limit(&mut settings, name, number(line, value));
            }
            Some("tolerate") => words.for_each(|name| *switch(&mut settings.tolerance, name) = true),
            Some("tls-on-connect") => transport = Transport::Tls,
            _ => {}
        }
    }
    (settings, transport)
}

fn offer(settings: &mut ServerSettings, word: &str) {
    let offers = &mut settings.offers;
    match word {
        "auth" => offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]),
        "scram" => offers.auth.insert(Mechanism::ScramSha256),
        "oauth" => [Mechanism::XOauth2, Mechanism::OauthBearer].into_iter().for_each(|it| offers.auth.insert(it)),
        "clear" => offers.auth_in_clear = true,
        "smtputf8" => offers.smtputf8 = true,
        "dsn" => offers.dsn = true,
        "require-tls" => offers.demand_tls = true,
        "require-auth" => offers.demand_auth = true,
        "chunking" => offers.chunking = true,
        "binarymime" => offers.binary_mime = true,
        "requiretls" => offers.require_tls = true,
        "deliverby" => offers.deliver_by = Some(30),
        // The harness begins on 2029-12-31.
        "futurerelease" => offers.future_release = Some(86_400),
        "mt-priority" => offers.mt_priority = Some("MIXER".to_owned()),
        "rrvs" => offers.rrvs = true,
        "no-soliciting" => offers.no_soliciting = Some(String::new()),
        "limits" => offers.limits = true,
        "xclient" => offers.xclient = true,
        "xforward" => offers.xforward = true,
        "other-commands" => offers.other_commands = true,
        "lmtp" => settings.protocol = Protocol::Lmtp,
        _ => panic!("no such offer: {word}"),
    }
}

fn limit(settings: &mut ServerSettings, name: &str, value: usize) {
    let limits = &mut settings.limits;
    let small = value as u32;
    match name {
        "command-line" => limits.command_line = value,
        "auth-line" => limits.auth_line = value,
        "discarded" => limits.discarded_line = value,
        "text-line" => limits.text_line = value,
        "message" => limits.message_size = value as u64,
        "discarded-content" => limits.discarded_content = value as u64,
        "recipients" => limits.recipients = value,
        "errors" => limits.errors = small,
        "idle-commands" => limits.idle_commands = small,
        "auth-failures" => limits.auth_failures = small,
        "greeting-delay" => settings.timeouts.greeting_delay = Duration::from_secs(value as u64),
        "early-talking" => limits.forbid_early_talking = value == 0,
        "unauthorized-pipelining" => limits.forbid_unauthorized_pipelining = value == 0,
        _ => panic!("no such limit: {name}"),
    }
}
