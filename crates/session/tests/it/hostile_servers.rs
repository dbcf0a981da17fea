//! A client against servers that break the protocol: an error or an outcome, in bounded memory, and
//! nothing after. The servers are in `hostile_servers.txt`; here is what does not fit a row.

use std::{collections::HashMap, time::Duration};

use crate::support::memory::{Connected, LIMIT, most_held};
use posthaste_session::{ApiMisuse, ClientSettings, Ticket, table::Phase};
use posthaste_testkit::{
    choices::Chunking,
    client::{ClientHarness, Event},
    hostile::{Arrival, Row, Step, number, rows},
    transcript::unescape,
};

const EHLO: &[u8] =
    b"250-s.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n";

const CHUNKING: &[u8] = b"250-s.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n";

fn table() -> Vec<Row> {
    rows(include_str!("../hostile_servers.txt"))
}

/// The lines of both sides before the row, as steps of a script.
fn before(place: &str) -> Vec<Step> {
    let says = |octets: &[u8]| Step::Octets(octets.to_vec());
    let does = |words: &str| Step::Event(words.into());
    let ok = || says(b"250 ok\r\n");
    let mail = || does("send MAIL FROM:<a@a.test>");
    let mut steps = vec![says(b"220 s.test\r\n"), does("send EHLO c.test"), says(EHLO)];
    match place {
        "greeting" => return Vec::new(),
        "greeted" => steps.truncate(1),
        "ehlo" => steps.truncate(2),
        "ready" => {}
        "noop" => steps.push(does("send NOOP")),
        "quit" => steps.push(does("send QUIT")),
        "starttls" => steps.push(does("send STARTTLS")),
        "tls" => steps.extend([does("send STARTTLS"), says(b"220 go\r\n"), does("tls")]),
        "auth" => steps.push(does("send AUTH PLAIN")),
        "mail" => steps.push(mail()),
        "rcpt" => steps.extend([mail(), ok(), does("send RCPT TO:<b@b.test>")]),
        "group" => {
            steps.extend([mail(), does("send RCPT TO:<b@b.test>"), does("send RCPT TO:<c@b.test>"), does("send DATA")])
        }
        "data" | "content" | "end" | "next" => {
            steps.extend([mail(), ok(), does("send RCPT TO:<b@b.test>"), ok(), does("send DATA")]);
            if place != "data" {
                steps.push(says(b"354 go\r\n"));
            }
            if place == "end" || place == "next" {
                steps.push(does("content hi\\r\\n"));
            }
            if place == "next" {
                steps.push(does("send MAIL FROM:<d@a.test>"));
            }
        }
        "chunks" | "half" | "whole" | "lmtp" => {
            let hello = if place == "lmtp" { "send LHLO c.test" } else { "send EHLO c.test" };
            steps.splice(1.., [does(hello), says(CHUNKING), mail(), ok()]);
            for (line, reply) in [
                ("send RCPT TO:<b@b.test>", ok()),
                ("send RCPT TO:<c@b.test>", says(b"550 no\r\n")),
                ("send RCPT TO:<d@b.test>", ok()),
            ] {
                steps.extend([does(line), reply]);
            }
            match place {
                "chunks" => steps.extend([does("chunk one\\r\\n"), does("chunk two\\r\\n")]),
                "half" => steps.push(does("half of it\\r\\n")),
                "whole" => steps.push(does("whole of it\\r\\n")),
                _ => steps.extend([does("send DATA"), says(b"354 go\r\n"), does("content hi\\r\\n")]),
            }
        }
        _ => panic!("no such place: {place}"),
    }
    steps
}

/// Sends content, or a part of it.
fn send_content(client: &mut ClientHarness, word: &str, text: &[u8]) -> Result<Option<Ticket>, ApiMisuse> {
    match word {
        "content" => client.send_content(text, 5).map(Some),
        "chunk" => client.send_chunk(text, false, 5).map(Some),
        "whole" => client.send_chunk(text, true, 5).map(Some),
        _ => {
            client.begin_chunk(2 * text.len() as u64, true)?;
            client.payload(text, 5).map(|()| None)
        }
    }
}

struct Run {
    place: String,
    client: ClientHarness,
    /// What each ticket was for.
    asked: HashMap<Ticket, String>,
    /// The number of commands without a reply, and if a message was in doubt, when the server
    /// closed its side.
    eof: Option<(usize, bool)>,
}

impl Run {
    fn new(row: &Row, chunking: &Chunking) -> Self {
        let mut run = Self {
            place: format!("{}, {chunking:?}", row.name),
            client: ClientHarness::new(ClientSettings::default()),
            asked: HashMap::from([(Ticket::GREETING, "greeting".into())]),
            eof: None,
        };
        run.play(&before(&row.place), Chunking::Whole);
        run.client.events.clear();
        run
    }

    fn play(&mut self, steps: &[Step], chunking: Chunking) {
        let mut arrival = Arrival::new(chunking);
        for step in steps {
            match step {
                Step::Octets(octets) => {
                    arrival.pieces(octets).into_iter().for_each(|piece| self.client.feed(piece));
                }
                Step::Event(words) => self.event(words),
            }
        }
    }

    fn event(&mut self, words: &str) {
        let client = &mut self.client;
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        let (sent, name) = match word {
            "send" => (client.send_line(rest), rest.split(' ').next().unwrap_or_default()),
            "respond" => (client.respond(Some(rest)), "AUTH"),
            "content" | "whole" | "chunk" | "half" => match send_content(client, word, &unescape(rest)) {
                Ok(None) => return,
                Ok(Some(ticket)) => (Ok(ticket), if word == "chunk" { "chunk" } else { "end" }),
                Err(error) => (Err(error), word),
            },
            "tls" => return client.establish_tls(),
            "wait" => {
                // A driver asks before it waits for octets.
                if client.session.phase() != Phase::Handshake {
                    client.feed(b"");
                }
                return client.clock.advance(Duration::from_secs(number(rest)));
            }
            "eof" => {
                let eof = client.end_of_input();
                self.eof = Some((eof.unanswered, eof.message_in_doubt));
                return;
            }
            _ => panic!("{}: no such step: {words:?}", self.place),
        };
        match sent {
            Ok(ticket) => drop(self.asked.insert(ticket, name.into())),
            // It was sent before the client could know better.
            Err(error) => assert_eq!((error, client.closed), (ApiMisuse::Closed, true), "{}: {words}", self.place),
        }
    }

    /// The events in the form of the table.
    fn heard(&self) -> Vec<String> {
        let item = |event: &Event| match event {
            Event::Reply(ticket, _, octets) => {
                let name = self.asked.get(ticket).unwrap_or_else(|| panic!("{}: whose is it?", self.place));
                let line = octets.split(|octet| *octet == b'\r').next().unwrap_or_default();
                Some(format!("{name} {}", String::from_utf8_lossy(line)))
            }
            Event::Unasked(octets) => {
                let line = octets.split(|octet| *octet == b'\r').next().unwrap_or_default();
                Some(format!("unasked {}", String::from_utf8_lossy(line)))
            }
            Event::Challenge(text) => Some(format!("challenge {}", text.escape_ascii())),
            Event::SendBody(_) => Some("body".into()),
            Event::StartTls => Some("handshake".into()),
            _ => None,
        };
        self.client.events.iter().filter_map(item).collect()
    }

    fn compare(&mut self, outcome: &[String]) {
        let mut heard = self.heard().into_iter();
        let mut ended = false;
        for item in outcome {
            let (word, rest) = item.split_once(' ').unwrap_or((item, ""));
            let place = &self.place;
            match word {
                "open" | "closed" | "over" | "error" | "waits" => {
                    assert!(!std::mem::replace(&mut ended, true), "{place}: two ends");
                    self.check_end(word, rest);
                }
                "unanswered" => {
                    let (unanswered, _) = self.eof_at_last();
                    assert_eq!(unanswered as u64, number(item), "{}: unanswered", self.place);
                }
                "odd" => assert!(self.client.session.oddity().is_some(), "{place}: nothing was odd"),
                "doubt" => assert!(self.eof_at_last().1, "{}: no doubt", self.place),
                "accepted" => {
                    assert_eq!(self.client.session.accepted_recipients().to_string(), rest, "{place}: accepted");
                }
                "keywords" => {
                    assert_eq!(self.client.session.capabilities().lines().count().to_string(), rest, "{place}");
                }
                _ => {
                    let found = heard.next();
                    let fits = found.as_ref().is_some_and(|found| found.starts_with(item.as_str()));
                    assert!(fits, "{place}: {found:?} instead of {item:?}");
                }
            }
        }
        assert!(ended, "{}: no end", self.place);
        let more: Vec<_> = heard.collect();
        assert!(more.is_empty(), "{}: {more:?} as well", self.place);
        if !outcome.iter().any(|item| item.starts_with("error")) {
            let odd = outcome.iter().any(|item| item == "odd");
            assert_eq!(self.client.session.oddity().is_some(), odd, "{}: an oddity", self.place);
        }
        let doubt = outcome.iter().any(|item| item == "doubt");
        assert_eq!(self.eof_at_last().1, doubt, "{}: a message in doubt", self.place);
    }

    fn eof_at_last(&mut self) -> (usize, bool) {
        let client = &mut self.client;
        *self.eof.get_or_insert_with(|| {
            let eof = client.end_of_input();
            (eof.unanswered, eof.message_in_doubt)
        })
    }

    fn check_end(&mut self, word: &str, rest: &str) {
        let (place, client) = (&self.place, &mut self.client);
        let error = client.events.iter().find_map(|event| match event {
            Event::Misbehaved(error) => Some(format!("{error:?}")),
            _ => None,
        });
        match word {
            "error" => {
                assert!(client.closed, "{place}");
                let found = error.unwrap_or_else(|| panic!("{place}: {:?} is no error", client.events));
                assert!(found.contains(rest), "{place}: {found} instead of {rest}");
            }
            "over" => assert!(client.closed, "{place}: it goes on"),
            _ => {
                assert_eq!(error, None, "{place}");
                assert_eq!(client.closed, word == "closed", "{place}");
            }
        }
        match word {
            // A command gets its own reply.
            "open" => {
                assert_eq!(client.session.poll_timeout(), None, "{place}: something is due");
                let before = client.events.len();
                let ticket = client.send_line("NOOP probe").unwrap_or_else(|error| panic!("{place}: {error}"));
                assert_eq!(client.events.len(), before, "{place}: the probe was answered before it was sent");
                client.feed(b"250 the probe\r\n");
                let expected = Event::Reply(ticket, None, b"250 the probe\r\n".to_vec());
                assert_eq!(client.events.pop(), Some(expected), "{place}: the reply to the probe");
                assert_eq!(client.events.len(), before, "{place}");
            }
            "waits" => {
                let left = client.session.poll_timeout().map(|at| at.since(client.clock.now()).as_secs());
                assert_eq!(left.unwrap_or_default().to_string(), rest, "{place}: seconds to wait");
            }
            _ => {}
        }
    }
}

#[test]
fn every_server_gets_what_it_deserves_however_its_octets_come() {
    let table = table();
    assert!(table.len() >= 40, "{} rows", table.len());
    for row in &table {
        for chunking in row.chunkings() {
            let mut run = Run::new(row, &chunking);
            run.play(&row.steps, chunking);
            run.compare(&row.outcome);
        }
    }
}

/// Runs a row on a connection in pieces of at most `piece` octets.
fn hold(steps: &[Step], piece: usize) {
    let mut connected = Connected::new();
    for step in steps {
        match step {
            Step::Octets(octets) => octets.chunks(piece).for_each(|piece| connected.feed(piece)),
            Step::Event(words) => {
                let client = &mut connected.harness;
                // Commands that are out of order are refused without harm.
                let _ = match words.split_once(' ').unwrap_or((words, "")) {
                    ("send", line) => client.send_line(line).ok(),
                    ("respond", text) => client.respond(Some(text)).ok(),
                    ("content" | "whole" | "chunk" | "half", text) => {
                        send_content(client, words.split(' ').next().unwrap_or_default(), &unescape(text))
                            .ok()
                            .flatten()
                    }
                    ("tls", _) => client.session.tls_established().ok().map(|()| Ticket::GREETING),
                    _ => None,
                };
            }
        }
    }
}

#[test]
fn no_server_makes_a_connection_hold_much() {
    let idle = most_held(|| hold(&before("ready"), usize::MAX));
    let mut most = (0, String::new());
    for row in table() {
        let steps = [before(&row.place), row.steps.clone()].concat();
        for piece in [usize::MAX, 1, row.octets().div_ceil(2).max(1)] {
            let held = most_held(|| hold(&steps, piece)).saturating_sub(idle);
            assert!(held <= LIMIT, "{}: {held} octets in pieces of {piece}", row.name);
            most = most.max((held, row.name.clone()));
        }
    }
    // Otherwise a reply of 16 KiB took no room, and the test measures nothing.
    assert!(most.0 > 16 * 1_024, "{most:?}");
    println!("above an idle connection's {idle} octets at most {} ({})", most.0, most.1);
}

/// The most outstanding commands, and a server with the longest replies.
#[test]
fn a_full_pipeline_and_long_replies_hold_no_more() {
    let idle = most_held(|| hold(&before("ready"), usize::MAX));
    let reply = format!("{}250 ok\r\n", format!("250-{}\r\n", "x".repeat(1_000)).repeat(16));
    let held = most_held(|| {
        let mut connected = Connected::new();
        connected.feed(b"220 s.test\r\n");
        connected.harness.send_line("LHLO c.test").expect("it has a place");
        connected.feed(CHUNKING);
        connected.harness.send_line("MAIL FROM:<a@a.test>").expect("it has a place");
        while connected.harness.send_line("RCPT TO:<b@b.test>").is_ok() {
            connected.harness.sent.clear();
        }
        assert_eq!(connected.harness.session.unanswered(), 1_024);
        for _ in 0..512 {
            connected.feed(reply.as_bytes());
        }
        assert_eq!(connected.harness.session.accepted_recipients(), 511);
        connected.feed(&reply.as_bytes()[..16_000]);
    });
    println!("{held} octets, above an idle connection's {idle}");
    assert!(held.saturating_sub(idle) <= LIMIT, "{held} octets");
}

#[test]
fn no_second_message_goes_over_a_connection_with_an_odd_reply() {
    for (place, odd, sends) in [
        ("next", &b"250 ok\n250 ok\r\n"[..], &["RSET"][..]),
        ("end", b"250 ok\n", &[]),
        ("rcpt", b"550 no\r\r\n", &["RSET"]),
        ("mail", b"450 no\n", &[]),
    ] {
        let row = &rows(&format!("second | {place} | x => over | none"))[0];
        let mut client = Run::new(row, &Chunking::Whole).client;
        client.feed(odd);
        for line in sends {
            client.send_line(line).expect("it has a place");
            client.feed(b"250 ok\r\n");
        }
        assert!(!client.session.may_pipeline());
        assert_eq!(client.send_line("MAIL FROM:<z@a.test>"), Err(ApiMisuse::OddReplies), "{place}");
        client.send_line("QUIT").expect("it has a place");
    }
}

/// After an odd reply each command waits for the reply to the one before, and content goes by DATA.
#[test]
fn commands_to_an_odd_server_leave_one_at_a_time() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s.test\r\n\r\n");
    client.send_line("EHLO c.test").expect("it has a place");
    client.feed(CHUNKING);
    client.send_line("MAIL FROM:<a@a.test>").expect("one message may go");
    assert_eq!(client.send_line("RCPT TO:<b@b.test>"), Err(ApiMisuse::NotYet));
    assert_eq!(client.session.body_kind(), posthaste_session::client::BodyKind::Data);
}

/// A row cannot say what the client sends.
#[test]
fn a_354_without_recipients_gets_a_lone_dot() {
    let row = &rows(r"lone-dot | group | 250 ok\r\n550 no\r\n550 no\r\n354 go\r\n => over | RFC 2920 3.1")[0];
    let mut run = Run::new(row, &Chunking::Whole);
    run.client.sent.clear();
    run.play(&row.steps, Chunking::Whole);
    assert!(matches!(run.client.events.last(), Some(Event::SendBody(_))));
    run.client.send_content(b"", 1).expect("content has a place");
    assert_eq!(run.client.sent, b".\r\n");
}
