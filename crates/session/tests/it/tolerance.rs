//! Departures from the grammar that are tolerated, and what each switch changes. The lines
//! themselves are rows in `crates/wire/tests/tolerance.txt`.

use std::sync::Arc;

use bytes::BytesMut;
use posthaste_session::{
    Ask, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict,
    server::{Protocol, Tolerance},
};
use posthaste_testkit::server::{Event, ServerHarness};

fn settings(tolerance: Tolerance) -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.tolerance = tolerance;
    settings
}

/// Feeds octets after EHLO. Returns the codes of the replies to them.
fn codes(tolerance: Tolerance, octets: &str) -> (Vec<String>, ServerHarness) {
    let mut server = ServerHarness::new(settings(tolerance), Transport::Plain);
    server.feed(b"EHLO c\r\n");
    server.said.clear();
    server.events.clear();
    server.feed(octets.as_bytes());
    let codes = String::from_utf8_lossy(&server.said).lines().map(|line| line[..9].to_owned()).collect();
    (codes, server)
}

/// The addresses that the application is asked about.
fn asked(server: &ServerHarness) -> Vec<String> {
    let paths = server.events.iter().filter_map(|event| match event {
        Event::Asked(Ask::Mail(mail)) => Some(mail.to_string()),
        Event::Asked(Ask::Rcpt(rcpt)) => Some(rcpt.to_string()),
        _ => None,
    });
    paths.collect()
}

/// The name in the question about a line, or the reply to the line.
fn greet(settings: ServerSettings, line: &[u8], cut: usize) -> String {
    let mut session = ServerSession::new(Arc::new(settings), Transport::Plain);
    let (mut out, mut input, mut greeted) = (BytesMut::new(), Vec::new(), false);
    let mut pieces = vec![&line[cut..], &line[..cut]];
    loop {
        let step = session.handle_input(Tick::ORIGIN, &input, &mut out).expect("it goes on");
        let consumed = step.consumed;
        match step.next.into_owned() {
            ServerNext::Ask(Ask::Connect) => {
                session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).expect("it was asked");
            }
            ServerNext::Ask(Ask::Hello(name)) => return name.to_string(),
            ServerNext::Flush if !greeted => {
                greeted = true;
                out.clear();
            }
            ServerNext::Flush | ServerNext::Close(_) => return String::from_utf8_lossy(&out[..9]).into_owned(),
            ServerNext::Refused => {}
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
        (b"LHLO a b\r\n", "501 5.5.4", "500 5.5.1"),
        (b"NOOP \xe9\r\n", "500 5.5.2", "500 5.5.2"),
        (b"VRFY\r\n", "501 5.5.4", "501 5.5.4"),
    ] {
        for cut in 0..line.len() {
            let found = [Tolerance::MX, Tolerance::SUBMISSION].map(|it| greet(settings(it), line, cut));
            assert_eq!(found, [strict, tolerant], "{} cut at {cut}", line.escape_ascii());
        }
    }
    let lmtp = |line: &[u8]| {
        let mut settings = settings(Tolerance::SUBMISSION);
        settings.protocol = Protocol::Lmtp;
        greet(settings, line, 0)
    };
    assert_eq!((lmtp(b"LHLO a b\r\n"), lmtp(b"EHLO a b\r\n")), ("a?b".into(), "500 5.5.1".into()));
}

#[test]
fn dots_underscores_and_blanks_are_refused_without_their_switch() {
    let without = |change: fn(&mut Tolerance)| {
        let mut tolerance = Tolerance::MX;
        change(&mut tolerance);
        tolerance
    };
    let (dots, underscores, blanks) =
        (without(|it| it.dots = false), without(|it| it.underscores = false), without(|it| it.blanks = false));
    for (path, off, refusal) in [
        ("<a.b@c.test>", &dots, None),
        ("<a..b@c.test>", &dots, Some("501 5.1.3")),
        ("<.a@c.test>", &dots, Some("501 5.1.3")),
        ("<a.@c.test>", &dots, Some("501 5.1.3")),
        ("<\"a..\"@c.test>", &dots, None),
        ("<a_b@c.test>", &underscores, None),
        ("<a@b_c.test>", &underscores, Some("501 5.1.3")),
        (" <a@c.test>", &blanks, Some("501 5.1.3")),
        ("<\"a  b\"@c.test>", &blanks, None),
    ] {
        for (tolerance, refusal) in [(&Tolerance::MX, None), (off, refusal)] {
            let octets =
                format!("MAIL FROM:{path}\r\nRSET\r\nMAIL FROM:<x@y.test>\r\nRCPT TO:{path}\r\nRCPT TO:{path}  \r\n");
            let (found, _) = codes(tolerance.clone(), &octets);
            // RFC 3463 section 3.2: 5.1.7 is about the sender, 5.1.3 about a recipient.
            let [mail, rcpt] =
                [refusal.map_or("250 2.1.0", |_| "501 5.1.7"), refusal.map_or("250 2.1.5", |_| "501 5.1.3")];
            assert_eq!(found, [mail, "250 2.0.0", "250 2.1.0", rcpt, rcpt], "{path} {tolerance:?}");
        }
    }
    let (found, _) =
        codes(blanks, "MAIL FROM:<a@b> SIZE=1  BODY=7BIT\r\nMAIL FROM:<a@b>\tSIZE=1\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(found, ["501 5.5.4", "501 5.5.4", "250 2.1.0"]);
}

#[test]
fn the_application_is_asked_about_the_line_that_is_meant() {
    let lines = "MAIL\tFROM: root@b.test. size=5\r\nRCPT TO:jo@c.test\r\nRCPT TO:<amy>\r\nRCPT TO: < postmaster >\r\n";
    let (found, mut server) = codes(Tolerance::SUBMISSION, lines);
    assert_eq!(found, ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.1.5"]);
    assert_eq!(asked(&server), ["<root@b.test> SIZE=5", "<jo@c.test>", "<amy@mx.test>", "<Postmaster>"]);
    server.feed(b"DATA\r\n");
    server.feed(b"hi\r\n.\r\n");
    assert_eq!(server.messages[0].mail.to_string(), "<root@b.test> SIZE=5");
    assert_eq!(server.messages[0].recipients.len(), 3);

    let (found, server) = codes(Tolerance::MX, lines);
    assert_eq!(found, ["500 5.5.2", "501 5.1.3", "501 5.1.3", "503 5.5.1"]);
    assert!(asked(&server).is_empty());
}

#[test]
fn a_tolerated_line_is_judged_as_any_other() {
    for (line, reply) in [
        ("MAIL FROM:a@b SIZE=99999999999", "552 5.3.4"),
        ("MAIL FROM:a@b SIZE=x", "501 5.5.4"),
        ("MAIL FROM:a@b SIZE=1 SIZE=2", "501 5.5.4"),
        ("MAIL FROM:a@b X-ODD=1", "555 5.5.4"),
        ("MAIL FROM:\u{3b4}@b", "550 5.6.7"),
        ("MAIL FROM:a@b>", "501 5.1.7"),
        ("MAIL FROM:a@b>SIZE=1", "501 5.1.7"),
        ("MAIL FROM:a@b> RCPT TO:<c@d>", "501 5.1.7"),
        ("MAIL FROM:<a@b>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:", "501 5.1.7"),
        ("RCPT TO:a@b", "503 5.5.1"),
        ("DATA now", "501 5.5.4"),
    ] {
        let (found, server) = codes(Tolerance::SUBMISSION, &format!("{line}\r\n"));
        assert_eq!(found, [reply], "{line}");
        assert!(asked(&server).is_empty(), "{line}");
    }
    // Each refusal counts as an error.
    let (found, server) = codes(Tolerance::SUBMISSION, &"MAIL FROM:a@b SIZE=x\r\n".repeat(30));
    assert_eq!((found.len(), found.last().map(String::as_str)), (22, Some("421 4.7.0")));
    assert!(server.closed.is_some());
}

/// What ends a line and what ends the content does not depend on the tolerance.
#[test]
fn no_switch_moves_a_line_end_or_the_end_of_data() {
    let start = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n";
    let ends = [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\n",
        "\n.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\r\n.\r\r\n",
        "\r\r\n.\r\r\n",
        "\n\r.\n\r",
        "\r\n .\r\n",
        "\r\n. \r\n",
        "\r\n.\t\r\n",
        "\r\n..\r\n",
        "\r\n.\r\n",
        "\r\r\n.\r\n",
    ];
    let lines = ["MAIL FROM:x@y\n", "MAIL FROM:x@y\r", "RSET\n", "RSET \r\r\n", "NOOP\0\r\n", "QUIT\n"];
    let hidden = "MAIL FROM:<evil@y.test>\r\nRCPT TO:<c@d.test>\r\n";
    let streams =
        ends.iter().map(|end| (format!("one{end}"), ".\r\n")).chain(lines.iter().map(|line| ((*line).into(), "")));
    for (stream, rest) in streams {
        let [strict, tolerant] = [Tolerance::STRICT, Tolerance::SUBMISSION].map(|tolerance| {
            let mut server = ServerHarness::new(settings(tolerance), Transport::Plain);
            server.feed(b"EHLO c\r\n");
            if !rest.is_empty() {
                server.feed(start.as_bytes());
            }
            server.feed(format!("{stream}{hidden}{rest}QUIT\r\n").as_bytes());
            (server.said, server.messages, server.closed)
        });
        assert_eq!(tolerant, strict, "{stream:?}");
    }
}

#[test]
fn a_role_has_its_demands_and_its_tolerance() {
    let name = || "mx.test".parse().expect("a domain");
    let (mx, submission, lmtp) =
        (ServerSettings::new(name()), ServerSettings::submission(name()), ServerSettings::lmtp(name()));
    assert_eq!((mx.tolerance, mx.protocol), (Tolerance::MX, Protocol::Smtp));
    assert_eq!((lmtp.tolerance.clone(), lmtp.protocol), (Tolerance::LMTP, Protocol::Lmtp));
    let mut server = ServerHarness::new(lmtp, Transport::Plain);
    server.feed(b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<jo+news>\r\n");
    assert_eq!(asked(&server), ["<>", "<jo+news@mx.test>"]);

    // Not before TLS, and not before AUTH.
    for (transport, offer, codes) in [
        (Transport::StartTls, "250 STARTTLS", ["530 5.7.0", "538 5.7.11", "530 5.7.0"]),
        (
            Transport::Tls,
            "250 AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS",
            ["530 5.7.0", "235 2.7.0", "250 2.1.0"],
        ),
    ] {
        let mut server = ServerHarness::new(submission.clone(), transport);
        server.feed(
            b"EHLO\r\nMAIL FROM:scanner@b.test\r\nAUTH PLAIN AHRlc3RlcgBzM2NyZXQ=\r\nMAIL FROM:scanner@b.test\r\n",
        );
        let said = String::from_utf8_lossy(&server.said).into_owned();
        let mut replies = said.lines().skip_while(|line| !line.starts_with("250 "));
        assert_eq!(replies.next(), Some(offer));
        let found: Vec<_> = replies.zip(codes).filter(|(line, code)| line.starts_with(code)).collect();
        assert_eq!(found.len(), codes.len(), "{said}");
    }
}
