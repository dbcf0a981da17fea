//! The invariants of the server's session by name, each with a test of its own. Other tests cover
//! them too:
//!
//! | | invariant | also in |
//! |---|---|---|
//! | a | content is asked for only within a transaction | `ServerHarness` at every question and piece, `every_sequence.rs` |
//! | b | what ends a transaction leaves nothing of it | `every_sequence.rs`, `transcripts/reset_*.txt` |
//! | c | RSET resets no budget, limit or login | `transcripts/reset_not_*.txt`, `hostile_clients.txt` |
//! | d | input gives the same events however it is cut | every transcript, `hostile_clients.txt`, the fuzz target `server_session` |
//! | e | nothing happens after the end | `ServerHarness` at every end, `endings.rs` |
//! | f | replies leave in the order of their commands | `pipelining.rs`, `back_to_back` |
//! | g | content is never read as a command, nor a command as content | `crates/wire/tests/it/end_of_data.rs`, `back_to_back` |
//! | h | input is never asked for while output waits | `ServerHarness` at every `NeedInput` |

use bytes::BytesMut;
use posthaste_session::{
    Ask, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict, server::CloseReason, table::Exchange,
};
use posthaste_testkit::{
    choices::{Choices, Chunking},
    policy::{accept, refusal, refuse},
    reference,
    server::{Event, ServerHarness, Stop},
};
use posthaste_wire::{Mechanism, MechanismSet};
use proptest::{collection::vec, prelude::*, sample::select};

fn settings() -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.chunking = true;
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    settings.offers.xclient = true;
    settings.offers.xforward = true;
    settings
}

fn greeted() -> ServerHarness {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    server.run();
    server.said.clear();
    server
}

/// Feeds octets, and returns the codes of the replies.
fn codes(server: &mut ServerHarness, octets: &[u8]) -> Vec<u16> {
    if server.feed(octets) == Stop::Tls {
        server.establish_tls();
        server.run();
    }
    let said = String::from_utf8(std::mem::take(&mut server.said)).expect("replies are ASCII");
    let last = said.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-'));
    last.map(|line| line.get(..3).and_then(|code| code.parse().ok()).expect("a code")).collect()
}

const CONTENT: &[&[u8]] = &[b"\r\n", b".", b"\r", b"\n", b"\0", b"RSET\r\n", b"QUIT\r\n.", b"text"];

const OPEN: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Follows the replies alone: a MAIL and a RCPT got 250, and what ends a transaction did not
    /// come since.
    #[test]
    fn a_content_is_asked_for_only_within_a_transaction(
        steps in vec((select(&["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "RSET", "BDAT 0", "BDAT 0 LAST", "STARTTLS",
            "NOOP", "XCLIENT NAME=a.test", "XFORWARD NAME=a.test", "AUTH PLAIN AHRlc3RlcgBzM2NyZXQ="][..]), any::<bool>()), 0..40)
    ) {
        let mut server = greeted();
        let (mut mail, mut recipients) = (false, 0);
        for (line, refused) in steps {
            server.policy = Default::default();
            if refused {
                for topic in [Exchange::Hello, Exchange::Mail, Exchange::Rcpt, Exchange::Data, Exchange::EndOfData] {
                    server.policy.script(topic, refuse("450 no"));
                }
            }
            let before = server.events.len();
            let mut heard = codes(&mut server, format!("{line}\r\n").as_bytes());
            let asked = server.events[before..].iter().any(
                |event| matches!(event, Event::Asked(Ask::Data | Ask::Message { .. })));
            prop_assert!(!asked || (mail && recipients > 0), "{} in {:?}", line, server.events);
            if heard == [354] {
                heard = codes(&mut server, b".\r\n");
                (mail, recipients) = (false, 0);
            }
            match (line.get(..4), heard.as_slice()) {
                (Some("MAIL"), [250]) => mail = true,
                (Some("RCPT"), [250]) => recipients += 1,
                (Some("EHLO" | "RSET"), [250]) | (Some("STAR" | "XCLI"), [220]) => (mail, recipients) = (false, 0),
                (Some("BDAT"), [code]) if line == "BDAT 0 LAST" && *code != 503 => (mail, recipients) = (false, 0),
                _ => {}
            }
            if server.closed.is_some() {
                break;
            }
        }
    }

    /// Any content, by DATA or in a chunk, taken or swallowed: a command after its true end gets
    /// one reply.
    #[test]
    fn g_commands_after_content_are_not_content_and_content_is_no_command(
        pieces in vec(select(CONTENT), 0..24),
        refused: bool, swallowed: bool, chunk: bool, stray: bool, seed: u64
    ) {
        let content = pieces.concat();
        let mut server = greeted();
        codes(&mut server, if stray { b"EHLO c\r\n" } else { OPEN });
        if refused {
            server.policy.script(Exchange::EndOfData, refuse("554 5.7.1 no"));
        }
        let (command, stream, end) = if chunk || stray {
            (format!("BDAT {} LAST\r\n", content.len()), content.clone(), content.len())
        } else {
            let stream = [content.as_slice(), b"\r\n.\r\n"].concat();
            let end = reference::content(&stream).end.expect("it has one");
            ("DATA\r\n".to_owned(), stream, end)
        };
        codes(&mut server, command.as_bytes());
        if swallowed {
            server.session.refuse_content(refusal("452 4.3.1 no room"));
        }
        let stream = [&stream[..end], b"VRFY probe\r\n"].concat();
        let (mut chunking, mut at, mut heard) = (Chunking::Random(Choices::new(seed)), 0, Vec::new());
        while at < stream.len() {
            let size = chunking.next(at, stream.len() - at);
            heard.extend(codes(&mut server, &stream[at..at + size]));
            at += size;
        }
        // An empty chunk has had its reply.
        let replies = if content.is_empty() && (chunk || stray) { 1 } else { 2 };
        prop_assert_eq!((heard.len(), heard.last()), (replies, Some(&252)), "{:?}", heard);
        prop_assert_eq!(server.closed, None);
    }

    #[test]
    fn h_input_is_never_asked_for_while_output_waits(
        lines in vec(select(&["NOOP\r\n", "EHLO c\r\n", "XYZZY\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "RSET\r\n", "RCPT\n",
            "BDAT 3 LAST\r\nabc"][..]), 0..200), seed: u64
    ) {
        let stream = lines.concat().into_bytes();
        let mut session = ServerSession::new(settings().into(), Transport::StartTls);
        let (mut chunking, mut at, mut shown, mut out) = (Chunking::Random(Choices::new(seed)), 0, Vec::new(), BytesMut::new());
        loop {
            let Ok(step) = session.handle_input(Tick::ORIGIN, &shown, &mut out) else { break };
            let consumed = step.consumed;
            match step.next {
                ServerNext::NeedInput => {
                    prop_assert!(out.is_empty());
                    if at == stream.len() {
                        break;
                    }
                    let size = chunking.next(at, stream.len() - at);
                    shown.extend_from_slice(&stream[at..at + size]);
                    at += size;
                }
                ServerNext::Flush => out.clear(),
                ServerNext::Ask(_) => session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).unwrap(),
                _ => {}
            }
            shown.drain(..consumed);
        }
    }
}

#[test]
fn b_what_ends_a_transaction_leaves_nothing_of_it() {
    let refuse = |server: &mut ServerHarness| server.policy.script(Exchange::EndOfData, refuse("550 5.7.1 no"));
    let swallow = |server: &mut ServerHarness| server.session.refuse_content(refusal("452 4.3.1 no room"));
    type Prepare<'a> = &'a dyn Fn(&mut ServerHarness);
    let nothing: Prepare<'_> = &|_| {};
    let ends: &[(&[u8], Prepare<'_>, &[u8])] = &[
        (b"", nothing, b"RSET\r\n"),
        (b"", nothing, b"EHLO c\r\n"),
        (b"", nothing, b"HELO c\r\n"),
        (b"", nothing, b"STARTTLS\r\n"),
        (b"DATA\r\n", nothing, b"x\r\n.\r\n"),
        (b"DATA\r\n", &refuse, b"x\r\n.\r\n"),
        (b"DATA\r\n", &swallow, b"x\r\n.\r\n"),
        (b"DATA\r\n", nothing, b"bare\nlf\r\n.\r\n"),
        (b"", nothing, b"BDAT 1 LAST\r\nx"),
        (b"", &refuse, b"BDAT 1 LAST\r\nx"),
        (b"", nothing, b"BDAT 1 LAST\r\n\n"),
        (b"BDAT 1\r\nx", nothing, b"BDAT 0 LAST\r\n"),
        (b"BDAT 1\r\nx", &swallow, b"BDAT 0 LAST\r\n"),
        (b"BDAT 1\r\nx", nothing, b"RSET\r\n"),
        (b"BDAT 1\r\nx", nothing, b"EHLO c\r\n"),
        (b"BDAT 1\r\nx", nothing, b"STARTTLS\r\n"),
        (b"BDAT 1\r\n\n", nothing, b"RSET\r\n"),
    ];
    for (first, prepare, last) in ends {
        let mut server = greeted();
        codes(&mut server, OPEN);
        codes(&mut server, first);
        prepare(&mut server);
        codes(&mut server, last);
        // After TLS EHLO must come again, and would itself end a transaction. So the other commands
        // come first.
        for line in [&b"RCPT TO:<c@d>\r\n"[..], b"DATA\r\n", b"BDAT 0 LAST\r\n"] {
            let context = || format!("{} after {}{}", line.escape_ascii(), first.escape_ascii(), last.escape_ascii());
            assert_eq!(codes(&mut server, line), [503], "{}", context());
        }
        assert_eq!(codes(&mut server, b"EHLO c\r\nMAIL FROM:<a@b>\r\n"), [250, 250]);
        assert_eq!(codes(&mut server, b"DATA\r\n"), [503], "the recipients are gone");
    }
}

#[test]
fn c_rset_gives_no_budget_limit_or_login_back() {
    // Errors: the 21st ends the session.
    let mut server = greeted();
    codes(&mut server, b"EHLO c\r\n");
    assert_eq!(codes(&mut server, &b"XYZZY\r\nRSET\r\n".repeat(20)).len(), 40);
    assert_eq!(codes(&mut server, b"XYZZY\r\nRSET\r\n"), [500, 421]);
    assert_eq!(server.closed, Some(CloseReason::TooManyErrors));
    // Commands that do no work: RSET is one.
    let mut server = greeted();
    codes(&mut server, &b"RSET\r\n".repeat(251));
    assert_eq!(server.closed, Some(CloseReason::TooManyIdleCommands));
    // AUTH attempts.
    let mut server = greeted();
    codes(&mut server, b"EHLO c\r\n");
    codes(&mut server, &b"AUTH PLAIN AGEAYg==\r\nRSET\r\n".repeat(4));
    assert_eq!(server.closed, Some(CloseReason::TooManyAuthFailures));
    // Recipients that were put off count as errors, and the budget of errors stays.
    let mut server = greeted();
    codes(&mut server, b"EHLO c\r\n");
    for _ in 0..21 {
        codes(&mut server, b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\nRSET\r\n");
    }
    assert_eq!(server.closed, Some(CloseReason::TooManyErrors));
    // A login neither ends nor comes twice.
    let mut server = greeted();
    assert_eq!(codes(&mut server, b"EHLO c\r\nAUTH PLAIN AHRlc3RlcgBzM2NyZXQ=\r\nRSET\r\n"), [250, 235, 250]);
    assert!(server.session.is_authenticated());
    assert_eq!(codes(&mut server, b"AUTH PLAIN AHRlc3RlcgBzM2NyZXQ=\r\n"), [503]);
}

#[test]
fn d_however_octets_are_cut_the_same_happens() {
    let conversation: &[u8] = b"EHLO c\r\nRCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<bad\r\nDATA\r\n..a\r\n\r\n.b\r\n.\r\n\
        MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 9\r\n.\r\nRSET\r\nBDAT 2 LAST\r\n\r\nNOOP\nNOOP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n\
        DATA\r\na\rb\0\r\n.\n.\r\n.\r\nAUTH PLAIN\r\nAHRlc3RlcgBzM2NyZXQ=\r\nAUTH PLAIN\r\nBDAT 5 LAST\r\nQUIT\rQUIT\r\n";
    let run = |chunking: &mut dyn FnMut(usize, usize) -> usize| {
        let mut settings = settings();
        // Octets after DATA before its 354 depend on when they come, not on where they are cut.
        settings.limits.forbid_unauthorized_pipelining = false;
        let mut server = ServerHarness::new(settings, Transport::StartTls);
        let mut at = 0;
        while at < conversation.len() {
            let size = chunking(at, conversation.len() - at);
            server.feed(&conversation[at..at + size]);
            at += size;
        }
        (server.events, server.said, server.messages)
    };
    let whole = run(&mut |_, rest| rest);
    assert_eq!(whole.2.len(), 2);
    for mut chunking in Chunking::all(conversation.len()) {
        assert_eq!(run(&mut |at, rest| chunking.next(at, rest)), whole, "{chunking:?}");
    }
    // Cut twice, at every pair of places that are near each other.
    for first in 1..conversation.len() {
        for second in first + 1..(first + 6).min(conversation.len()) {
            let cut = &mut |at: usize, rest: usize| {
                let next = [first, second].into_iter().find(|place| *place > at);
                next.map_or(rest, |place| place - at)
            };
            assert_eq!(run(cut), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn e_nothing_happens_after_the_end() {
    let ends: [(&[u8], CloseReason); 8] = [
        (b"QUIT\r\n", CloseReason::Quit),
        (b"GET / HTTP/1.1\r\n", CloseReason::ForeignProtocol),
        (b"EHLO c\r\nBDAT x\r\n", CloseReason::Unframeable),
        (b"EHLO c\r\nSTARTTLS\r\nx", CloseReason::ResidueBeforeTls),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx", CloseReason::UnauthorizedPipelining),
        (&b"X\r\n".repeat(21), CloseReason::TooManyErrors),
        (&b"NOOP\r\n".repeat(251), CloseReason::TooManyIdleCommands),
        (&[b'x'; 80_000], CloseReason::EndlessLine),
    ];
    for (octets, reason) in ends {
        let mut server = greeted();
        server.feed(&[octets, OPEN, b"DATA\r\n"].concat());
        assert_eq!(server.closed, Some(reason), "{}", octets[..octets.len().min(60)].escape_ascii());
        assert_eq!(server.events.last(), Some(&Event::Closed(reason)));
        let (events, said) = (server.events.len(), server.said.len());
        // The harness has also checked that the session takes no input, answer, timeout or shutdown
        // any more.
        server.feed(OPEN);
        server.wait(std::time::Duration::from_secs(3_600));
        server.shutdown();
        assert_eq!((server.events.len(), server.said.len()), (events, said));
    }
}

#[test]
fn f_replies_leave_in_the_order_of_their_commands() {
    for seed in 0..200 {
        let mut choices = Choices::new(seed);
        let mut server = ServerHarness::new(settings(), Transport::StartTls);
        server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
        server.said.clear();
        // A reply to RCPT names its recipient, and one to a malformed line has its enhanced code.
        let mut expected = Vec::new();
        let mut stream = Vec::new();
        for number in 0..20 {
            if choices.below(4) == 0 {
                stream.extend_from_slice(b"RCPT TO:<\r\n");
                expected.push("5.1.3".to_owned());
            } else {
                stream.extend_from_slice(format!("RCPT TO:<r{number}@d>\r\n").as_bytes());
                expected.push(format!("r{number}"));
            }
        }
        server.policy.hold(20);
        let (mut chunking, mut at) = (Chunking::Random(choices), 0);
        while at < stream.len() {
            let size = chunking.next(at, stream.len() - at);
            server.feed(&stream[at..at + size]);
            at += size;
            while let Some(ask) = &server.held {
                let Ask::Rcpt(rcpt) = ask else { panic!("{ask:?}") };
                let recipient = rcpt.forward_path.mailbox().expect("a mailbox").local_part().to_owned();
                server.answer(accept(&format!("250 {recipient}"))).unwrap();
                server.run();
            }
        }
        let said = String::from_utf8(std::mem::take(&mut server.said)).unwrap();
        let heard: Vec<_> = said.lines().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect();
        assert_eq!(heard, expected, "{seed}");
    }
}
