//! A dialogue from the client's side: it says the C: lines, and reads the S: lines in every
//! chunking.

use posthaste_session::{ClientSettings, table::Phase};
use posthaste_wire::{Capabilities, Command, capability::Keyword};

use super::{Step, Transcript, shown};
use crate::{
    choices::Chunking,
    client::{ClientHarness, Event},
    reference,
};

/// Runs a transcript against a client session. It needs the server's exact lines.
///
/// # Panics
/// The session says something else, or chunkings give different events.
pub fn replay(name: &str, transcript: &Transcript) {
    let mut first: Option<Vec<Event>> = None;
    let octets = transcript.steps.iter().map(|(_, step)| if let Step::Server(line) = step { line.len() } else { 0 });
    for chunking in Chunking::all(octets.sum()) {
        let context = format!("{name} as a client, {chunking:?}");
        let events = run(&context, transcript, chunking);
        match &first {
            None => first = Some(events),
            Some(expected) => assert_eq!(&events, expected, "{context}: other events than with the input whole"),
        }
    }
}

fn run(context: &str, transcript: &Transcript, mut chunking: Chunking) -> Vec<Event> {
    let mut harness = ClientHarness::new(ClientSettings::default());
    let (mut position, mut burst, mut eof) = (0, Vec::new(), false);
    let mut hear = |harness: &mut ClientHarness, burst: &mut Vec<u8>| {
        let mut rest = burst.as_slice();
        while !rest.is_empty() {
            let taken = chunking.next(position, rest.len());
            harness.feed(&rest[..taken]);
            position += taken;
            rest = &rest[taken..];
        }
        burst.clear();
    };
    for (number, step) in &transcript.steps {
        let place = format!("{context}, line {number}");
        match step {
            Step::Server(line) | Step::ServerLike(line) => burst.extend_from_slice(line),
            Step::ServerCode(_) => panic!("{place}: a client needs the exact line"),
            Step::Client(octets) => {
                hear(&mut harness, &mut burst);
                say(&place, &mut harness, octets);
            }
            Step::Directive(text) if text == "tls" => {
                hear(&mut harness, &mut burst);
                assert_eq!(harness.events.last(), Some(&Event::StartTls), "{place}");
                harness.establish_tls();
            }
            Step::Directive(text) => {
                if let Some(text) = text.strip_prefix("client ") {
                    hear(&mut harness, &mut burst);
                    eof |= directive(&place, &mut harness, text);
                }
            }
        }
    }
    hear(&mut harness, &mut burst);
    assert!(eof || harness.session.unanswered() == 0, "{context}: commands without a reply");
    let trusted = !harness.events.iter().any(|event| matches!(event, Event::Misbehaved(_)));
    assert!(trusted, "{context}: {:?}", harness.events.last());
    harness.events
}

/// Runs a directive for the client. Returns `true` if the server closes its side.
fn directive(place: &str, harness: &mut ClientHarness, text: &str) -> bool {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let session = &harness.session;
    match word {
        "offers" => assert!(offers(place, session.capabilities(), rest), "{place}: {rest} is not known"),
        "lacks" => assert!(!offers(place, session.capabilities(), rest), "{place}: {rest} is known"),
        "accepted" => assert_eq!(session.accepted_recipients().to_string(), rest, "{place}"),
        "closed" => assert!(harness.closed, "{place}: it goes on"),
        "may-not" => {
            let sent = harness.send_line(rest);
            assert!(sent.is_err() && harness.sent.is_empty(), "{place}: {rest} has left");
        }
        "eof" | "doubt" => {
            let eof = harness.end_of_input();
            let found = (eof.unanswered.to_string(), eof.message_in_doubt);
            assert_eq!(found, (rest.to_owned(), word == "doubt"), "{place}");
            return true;
        }
        _ => panic!("{place}: no such directive: {text}"),
    }
    false
}

fn offers(place: &str, server: &Capabilities, name: &str) -> bool {
    let keyword = Keyword::from_name(name).unwrap_or_else(|| panic!("{place}: no such keyword: {name}"));
    server.offers(keyword)
}

fn say(place: &str, harness: &mut ClientHarness, octets: &[u8]) {
    let mut rest = octets;
    if harness.session.phase() == Phase::Content {
        let content = reference::content(octets);
        let end = content.end.unwrap_or_else(|| panic!("{place}: content to its end"));
        let sent = harness.send_content(&content.octets, 7);
        assert!(sent.is_ok(), "{place}: {sent:?}");
        // What may follow it in the same group (RFC 2920 section 3.1).
        rest = &octets[end..];
    }
    while !rest.is_empty() {
        let end = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        let command = || Command::parse(line).unwrap_or_else(|error| panic!("{place}: {error}"));
        let sent = match (harness.session.phase(), line) {
            (Phase::Auth, b"*") => harness.respond(None),
            (Phase::Auth, line) => harness.respond(std::str::from_utf8(line).ok()),
            _ => match command() {
                Command::Bdat { size, last } => {
                    let chunk = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size));
                    let (chunk, behind) = chunk.unwrap_or_else(|| panic!("{place}: the chunk in the same burst"));
                    rest = behind;
                    harness.send_chunk(chunk, last, 7)
                }
                command => harness.send(&command),
            },
        };
        assert!(sent.is_ok(), "{place}: {sent:?}");
    }
    let sent = std::mem::take(&mut harness.sent);
    assert_eq!(sent, octets, "{place}: {:?} left", shown(&sent));
}
