//! Reads the tables of hostile peers, which explain their format:
//! `crates/session/tests/hostile_clients.txt` and `hostile_servers.txt`.

use posthaste_session::{ServerSettings, Verdict, table::Exchange};
use posthaste_wire::{Mechanism, MechanismSet};

use crate::{
    choices::{Choices, Chunking},
    policy::{question, refuse},
    unescape::unescape,
};

/// One fault.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What was said before.
    pub place: String,
    /// What the peer does.
    pub steps: Vec<Step>,
    /// The expected outcome, item by item.
    pub outcome: Vec<String>,
    /// The octets may not be cut, because the fault is that they come together.
    pub at_once: bool,
}

/// A step of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It says this.
    Octets(Vec<u8>),
    /// Another event: the words between the braces.
    Event(String),
}

/// The rows of a table.
///
/// # Panics
/// A line is not a row, or has the name of another one.
pub fn rows(table: &str) -> Vec<Row> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<_> = lines.map(row).collect();
    for (index, row) in rows.iter().enumerate() {
        assert!(rows[..index].iter().all(|other| other.name != row.name), "{} stands there twice", row.name);
    }
    rows
}

fn row(line: &str) -> Row {
    let (rest, reason) = line.rsplit_once(" | ").unwrap_or_else(|| panic!("no reason: {line:?}"));
    assert!(reason.len() > 3, "{line:?}");
    let (rest, outcome) = rest.rsplit_once(" => ").unwrap_or_else(|| panic!("no outcome: {line:?}"));
    let mut parts = rest.splitn(3, " | ");
    let (Some(name), Some(place), Some(script)) = (parts.next(), parts.next(), parts.next()) else {
        panic!("a name, a place and a script: {line:?}");
    };
    let (at_once, script) = script.strip_prefix("{at once}").map_or((false, script), |script| (true, script));
    Row {
        name: name.trim().into(),
        place: place.trim().into(),
        steps: steps(script),
        outcome: outcome.split(", ").map(Into::into).collect(),
        at_once,
    }
}

/// Cuts a script at its braces, except those of escapes.
fn steps(script: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut rest, mut octets) = (script, String::new());
    while let Some(at) = rest.find(['\\', '{']) {
        octets.push_str(&rest[..at]);
        let mark = &rest[at..];
        let length = if mark.starts_with("\\repeat{") || mark.starts_with("\\u{") {
            1 + closing(mark)
        } else if mark.starts_with('\\') {
            2
        } else {
            push_octets(&mut steps, &octets);
            octets.clear();
            let end = closing(mark);
            push_event(&mut steps, &mark[1..end]);
            rest = &mark[end + 1..];
            continue;
        };
        octets.push_str(&mark[..length]);
        rest = &mark[length..];
    }
    octets.push_str(rest);
    push_octets(&mut steps, &octets);
    steps
}

fn push_octets(steps: &mut Vec<Step>, text: &str) {
    if !text.is_empty() {
        steps.push(Step::Octets(unescape(text)));
    }
}

fn push_event(steps: &mut Vec<Step>, words: &str) {
    // Octets one by one, this many seconds apart.
    if let Some((seconds, text)) = words.strip_prefix("every ").and_then(|rest| rest.split_once(' ')) {
        for octet in unescape(text) {
            steps.extend([Step::Event(format!("wait {seconds}")), Step::Octets(vec![octet])]);
        }
    } else {
        steps.push(Step::Event(words.into()));
    }
}

/// The place where the first open brace closes.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if depth == 0 && character == '}' {
            return at;
        }
    }
    panic!("a brace is not closed: {text:?}");
}

impl Row {
    /// Octets that the peer says.
    pub fn octets(&self) -> usize {
        let octets = |step: &Step| if let Step::Octets(octets) = step { octets.len() } else { 0 };
        self.steps.iter().map(octets).sum()
    }

    /// The ways to cut the octets. Short ones: at every octet. Long ones: whole, single octets, in
    /// the middle and the thirds, and anywhere.
    pub fn chunkings(&self) -> Vec<Chunking> {
        let octets = self.octets();
        if self.at_once {
            vec![Chunking::Whole]
        } else if octets <= 300 {
            Chunking::all(octets).collect()
        } else {
            let mut ways = vec![Chunking::Whole, Chunking::Single];
            ways.extend([octets / 2, octets / 3, 2 * octets / 3, octets - 1].map(Chunking::At));
            ways.extend((0..8).map(|seed| Chunking::Random(Choices::new(seed))));
            ways
        }
    }
}

/// Cuts octets as the chunking says.
#[derive(Debug)]
pub struct Arrival {
    chunking: Chunking,
    position: usize,
}

impl Arrival {
    /// The start of the octets.
    pub fn new(chunking: Chunking) -> Self {
        Self { chunking, position: 0 }
    }

    /// Cuts the next octets.
    pub fn pieces<'a>(&mut self, octets: &'a [u8]) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), octets);
        while !rest.is_empty() {
            let taken = self.chunking.next(self.position, rest.len());
            self.position += taken;
            let (piece, behind) = rest.split_at(taken);
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }
}

/// The number at the end of an item such as `waits 300`.
///
/// # Panics
/// There is none.
pub fn number(item: &str) -> u64 {
    let digits = item.rsplit(' ').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number: {item:?}"))
}

/// The server that the head of `hostile_clients.txt` describes.
pub fn settings() -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = true;
    settings.limits.message_size = 100_000;
    settings.limits.recipients = 100;
    settings.limits.idle_commands = 100;
    settings
}

/// The client's lines before the row, each of which was answered.
///
/// # Panics
/// There is no such place.
pub fn before(place: &str) -> &'static [&'static str] {
    let all = &["EHLO client.test", "MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"];
    match place {
        "start" | "greeted" => &[],
        "ready" => &all[..1],
        "mail" => &all[..2],
        "rcpt" => &all[..3],
        "data" => all,
        "auth" => &["EHLO client.test", "AUTH PLAIN"],
        "tls" => &["EHLO client.test", "STARTTLS"],
        _ => panic!("no such place: {place}"),
    }
}

/// Reads the words after `refuse`: `3 rcpt 550 5.1.1 No` and the like.
///
/// # Panics
/// They are others.
pub fn refusals(words: &str) -> (Exchange, u64, Verdict) {
    let (times, rest) = words.split_once(' ').expect("how often");
    let (name, reply) = rest.split_once(' ').expect("a question and a reply");
    (question(name).expect("a question"), number(times), refuse(reply))
}

#[test]
fn scripts_are_cut_at_braces_and_not_within_escapes() {
    let found = steps(r"a\x7b\u{e9}\\{wait 5}\repeat{b\u{e9}*2}{every 3 xy}{eof}");
    let octets = |text: &str| Step::Octets(text.as_bytes().to_vec());
    let event = |text: &str| Step::Event(text.into());
    let expected = [
        octets("a{é\\"),
        event("wait 5"),
        octets("bébé"),
        event("wait 3"),
        octets("x"),
        event("wait 3"),
        octets("y"),
        event("eof"),
    ];
    assert_eq!(found, expected);
}
