//! A server against clients that break the protocol or exhaust its bounds: `hostile_clients.txt`.

use std::{sync::Arc, time::Duration};

use crate::support::memory::{LIMIT, Served, most_held};
use posthaste_session::{ServerSettings, Transport, Verdict, server::CloseReason};
use posthaste_testkit::{
    choices::Chunking,
    hostile::{Arrival, Row, Step, before, number, refusals, rows, settings},
    server::ServerHarness,
    transcript::unescape,
};

fn table() -> Vec<Row> {
    rows(include_str!("../hostile_clients.txt"))
}

fn at(place: &str) -> ServerHarness {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    if place == "start" {
        return server;
    }
    server.run();
    for line in before(place) {
        server.feed(format!("{line}\r\n").as_bytes());
    }
    if place == "tls" {
        server.establish_tls();
    }
    server.said.clear();
    server
}

/// The first lines of the replies in some output.
fn replies(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    assert!(text.is_empty() || text.ends_with("\r\n"), "half a reply: {text:?}");
    let mut replies: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.split_terminator("\r\n") {
        if !goes_on {
            replies.push(line.into());
        }
        goes_on = line.as_bytes().get(3) == Some(&b'-');
    }
    assert!(!goes_on, "half a reply: {text:?}");
    replies
}

fn fits(pattern: &str, reply: &str) -> bool {
    reply.len() >= pattern.len()
        && pattern.bytes().zip(reply.bytes()).all(|(want, found)| want == b'.' && found != b' ' || want == found)
}

struct Run<'a> {
    place: String,
    row: &'a Row,
    server: ServerHarness,
    heard: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(row: &'a Row, chunking: &Chunking) -> Self {
        let place = format!("{}, {chunking:?}", row.name);
        Self { place, row, server: at(&row.place), heard: Vec::new() }
    }

    fn play(&mut self, chunking: Chunking) {
        let mut arrival = Arrival::new(chunking);
        for step in &self.row.steps {
            let server = &mut self.server;
            match step {
                Step::Octets(octets) => arrival.pieces(octets).into_iter().for_each(|piece| {
                    server.feed(piece);
                }),
                Step::Event(words) => match words.split_once(' ').unwrap_or((words, "")) {
                    ("then" | "deaf", _) => {}
                    ("wait", seconds) => server.wait(Duration::from_secs(number(seconds))),
                    ("refuse", rest) => {
                        let (topic, times, verdict) = refusals(rest);
                        (0..times).for_each(|_| server.policy.script(topic, verdict.clone()));
                    }
                    ("hold", count) => server.policy.hold(number(count) as usize),
                    ("answer", _) => {
                        server.answer(Verdict::Accept(None)).expect("a question is open");
                        server.run();
                    }
                    ("shutdown", _) => server.shutdown(),
                    ("tls", _) => server.establish_tls(),
                    ("eof", _) => {
                        server.end_of_input();
                    }
                    other => panic!("no such step: {other:?}"),
                },
            }
        }
        self.server.run();
        self.hear();
    }

    fn hear(&mut self) {
        self.heard.extend(replies(&std::mem::take(&mut self.server.said)));
    }

    /// Compares the replies with the row, and returns how it must end.
    fn compare(&self) -> (&str, Vec<Vec<u8>>) {
        let mut heard = self.heard.iter();
        let (mut end, mut taken) = (None, Vec::new());
        for item in &self.row.outcome {
            if let Some(content) = item.strip_prefix("took ") {
                taken.push(unescape(content));
            } else if item.starts_with(|first: char| first.is_ascii_digit()) {
                let (times, pattern) = item.split_once(" x ").map_or((1, item.as_str()), |(n, rest)| (number(n), rest));
                for _ in 0..times {
                    let reply = heard.next();
                    let fits = reply.is_some_and(|reply| fits(pattern, reply));
                    assert!(fits, "{}: {reply:?} instead of {pattern:?} in {:?}", self.place, self.heard);
                }
            } else {
                assert!(end.replace(item.as_str()).is_none(), "{}: two ends", self.place);
            }
        }
        let more: Vec<_> = heard.collect();
        assert!(more.is_empty(), "{}: {more:?} as well", self.place);
        (end.unwrap_or_else(|| panic!("{}: no end", self.place)), taken)
    }

    fn check_end(&mut self, end: &str) {
        let place = &self.place;
        match end {
            "closed" => assert!(self.server.closed.is_some(), "{place}: it is still open"),
            "open" => {
                assert_eq!(self.server.closed, None, "{place}");
                self.server.feed(b"VRFY probe\r\n");
                let found = replies(&std::mem::take(&mut self.server.said));
                assert!(matches!(&found[..], [one] if one.starts_with("252 ")), "{place}: {found:?} to the probe");
                self.falls_silent(300);
            }
            _ if end.starts_with("waits ") => self.falls_silent(number(end)),
            _ => panic!("{place}: no such end: {end:?}"),
        }
    }

    /// Checks that the session ends after this many seconds of silence.
    fn falls_silent(&mut self, seconds: u64) {
        let place = &self.place;
        assert_eq!(self.server.closed, None, "{place}");
        self.server.wait(Duration::from_millis(seconds * 1_000 - 1));
        assert_eq!(self.server.closed, None, "{place}: it did not wait so long");
        self.server.wait(Duration::from_millis(1));
        assert_eq!(self.server.closed, Some(CloseReason::Timeout), "{place}: it waits longer");
        let said = replies(&std::mem::take(&mut self.server.said));
        assert!(matches!(&said[..], [one] if one.starts_with("421 ")), "{place}: {said:?}");
    }
}

#[test]
fn every_client_gets_what_it_deserves_however_its_octets_come() {
    let table = table();
    assert!(table.len() >= 40, "{} rows", table.len());
    for row in table.iter().filter(|row| !is_deaf(row)) {
        for chunking in row.chunkings() {
            let mut run = Run::new(row, &chunking);
            run.play(chunking);
            let (end, taken) = run.compare();
            let end = end.to_owned();
            let found: Vec<_> = run.server.messages.iter().map(|message| message.content.clone()).collect();
            assert_eq!(shown(&found), shown(&taken), "{}: the messages", run.place);
            run.check_end(&end);
        }
    }
}

fn shown(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|message| message.escape_ascii().to_string()).collect()
}

fn is_deaf(row: &Row) -> bool {
    row.steps.contains(&Step::Event("deaf".into()))
}

/// Runs a row on a connection in pieces of at most `piece` octets.
fn hold(settings: &Arc<ServerSettings>, row: &Row, piece: usize) {
    let mut served = Served::new(settings);
    for line in before(&row.place) {
        served.feed(line.as_bytes());
        served.feed(b"\r\n");
    }
    for step in &row.steps {
        match step {
            Step::Octets(octets) => {
                for piece in octets.chunks(piece) {
                    if served.feed(piece) < piece.len() {
                        served.ask_again();
                        assert!(is_deaf(row), "{}: the server stops reading", row.name);
                        return;
                    }
                }
            }
            Step::Event(words) => match words.split_once(' ').unwrap_or((words, "")) {
                ("deaf", _) => served.deaf = true,
                ("wait", seconds) if !served.closed => served.advance(number(seconds)),
                ("refuse", rest) => served.refusals = Some(refusals(rest)),
                ("eof", _) => return,
                _ => {}
            },
        }
    }
    assert!(!is_deaf(row), "{}: everything was read although the client does not read", row.name);
}

#[test]
fn no_client_makes_a_connection_hold_much() {
    let settings = Arc::new(settings());
    let rows = table();
    let idle = most_held(|| drop(Served::new(&settings)));
    let mut most = (0, "");
    for row in &rows {
        for piece in [usize::MAX, 1, row.octets().div_ceil(2).max(1)] {
            let held = most_held(|| hold(&settings, row, piece)).saturating_sub(idle);
            assert!(held <= LIMIT, "{}: {held} octets in pieces of {piece}", row.name);
            most = most.max((held, row.name.as_str()));
        }
    }
    // Otherwise a line of 2 KiB took no room, and the test measures nothing.
    assert!(most.0 > 2_048, "{most:?}");
    println!("above an idle connection's {idle} octets at most {} ({})", most.0, most.1);
}
