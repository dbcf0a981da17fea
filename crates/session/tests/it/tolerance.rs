//! Departures from the grammar that are tolerated, and what each switch changes.

use std::sync::Arc;

use bytes::BytesMut;
use posthaste_session::{Ask, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict, server::Protocol};
use posthaste_testkit::server::ServerHarness;

fn settings(hello: bool, dots: bool, protocol: Protocol) -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.tolerance.hello = hello;
    settings.tolerance.dots = dots;
    settings.protocol = protocol;
    settings
}

/// The name in the question about a line, or the reply to the line.
fn greet(settings: ServerSettings, line: &[u8], cut: usize) -> String {
    let mut session = ServerSession::new(Arc::new(settings), Transport::Plain);
    let (mut out, mut input, mut greeted) = (BytesMut::new(), Vec::new(), false);
    let mut pieces = vec![&line[cut..], &line[..cut]];
    loop {
        let step = session.handle_input(Tick::ORIGIN, &input, &mut out).expect("it goes on");
        let consumed = step.consumed;
        match step.next {
            ServerNext::Ask(Ask::Connect) => {
                session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).expect("it was asked");
            }
            ServerNext::Ask(Ask::Hello(name)) => return name.to_string(),
            ServerNext::Flush if !greeted => {
                greeted = true;
                out.clear();
            }
            ServerNext::Flush | ServerNext::Close(_) => return String::from_utf8_lossy(&out[..9]).into_owned(),
            ServerNext::NeedInput => input.extend_from_slice(pieces.pop().expect("the line has ended")),
            other => panic!("{other:?}"),
        }
        input.drain(..consumed);
    }
}

#[test]
fn an_ehlo_argument_that_is_no_name_is_taken_if_tolerated() {
    let long = format!("EHLO {}\r\n", "a".repeat(300));
    let short = "a".repeat(255);
    for (line, strict, tolerant) in [
        (&b"EHLO client.test\r\n"[..], "client.test", "client.test"),
        (b"EHLO under_score.\r\n", "under_score.", "under_score."),
        (b"EHLO [192.0.2.999\r\n", "[192.0.2.999", "[192.0.2.999"),
        (b"EHLO\r\n", "501 5.5.4", "?"),
        (b"EHLO \r\n", "501 5.5.4", "?"),
        (b"HELO\r\n", "501 5.5.4", "?"),
        (b"ehlo my old pc\r\n", "501 5.5.4", "my?old?pc"),
        (b"HELO my pc\r\n", "501 5.5.4", "my?pc"),
        (b"EHLO\tpc\r\n", "500 5.5.2", "pc"),
        (b"HELO Ren\xe9\r\n", "500 5.5.2", "Ren\u{e9}"),
        (b"EHLO Ren\xe9s PC\r\n", "500 5.5.2", "Ren\u{e9}s?PC"),
        (b"EHLO caf\xc3\xa9\r\n", "caf\u{e9}", "caf\u{e9}"),
        (long.as_bytes(), "501 5.5.4", &short),
        // Octets that could break a line.
        (b"EHLO a\rb\r\n", "500 5.5.2", "500 5.5.2"),
        (b"EHLO a\0b\r\n", "500 5.5.2", "500 5.5.2"),
        (b"EHLO \xe9\x1b[2J\r\n", "500 5.5.2", "500 5.5.2"),
        (b"EHLO a\nMAIL FROM:<a@b>\r\n", "500 5.5.2", "500 5.5.2"),
        // Other commands, and other verbs.
        (b"EHLOX \xe9\r\n", "500 5.5.2", "500 5.5.2"),
        (b"LHLO a b\r\n", "501 5.5.4", "501 5.5.4"),
        (b"NOOP \xe9\r\n", "500 5.5.2", "500 5.5.2"),
        (b"VRFY\r\n", "501 5.5.4", "501 5.5.4"),
    ] {
        for cut in 0..line.len() {
            let found = [false, true].map(|hello| greet(settings(hello, true, Protocol::Smtp), line, cut));
            assert_eq!(found, [strict, tolerant], "{} cut at {cut}", line.escape_ascii());
        }
    }
    let lmtp = |line: &[u8]| greet(settings(true, true, Protocol::Lmtp), line, 0);
    assert_eq!((lmtp(b"LHLO a b\r\n"), lmtp(b"EHLO a b\r\n")), ("a?b".into(), "501 5.5.4".into()));
}

#[test]
fn misplaced_dots_are_taken_if_tolerated() {
    for (address, is_strict) in [
        ("a.b@c.test", true),
        ("a..b@c.test", false),
        (".a@c.test", false),
        ("a.@c.test", false),
        ("\"a..\"@c.test", true),
    ] {
        for dots in [false, true] {
            let mut server = ServerHarness::new(settings(false, dots, Protocol::Smtp), Transport::Plain);
            server.feed(b"EHLO c\r\nMAIL FROM:<x@y.test>\r\n");
            server.said.clear();
            server.feed(format!("RCPT TO:<{address}>\r\nRSET\r\nMAIL FROM:<{address}>\r\n").as_bytes());
            let replies = String::from_utf8_lossy(&server.said).into_owned();
            let codes: Vec<_> = replies.lines().map(|line| &line[..9]).collect();
            let expected = if dots || is_strict {
                ["250 2.1.5", "250 2.0.0", "250 2.1.0"]
            } else {
                ["501 5.1.3", "250 2.0.0", "501 5.1.3"]
            };
            assert_eq!(codes, expected, "{address} {dots}");
        }
    }
}
