//! Many commands at once: replies in order, output in bounds.

use posthaste_session::{
    ApiMisuse, Ask, MAX_OUTPUT, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict, server::Protocol,
    table::Exchange,
};
use posthaste_testkit::{
    policy::{accept, decision},
    server::{ServerHarness, Stop},
};

#[test]
fn thousands_of_commands_do_not_fill_the_output() {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.limits.idle_commands = u32::MAX;
    settings.limits.errors = u32::MAX;
    let mut session = ServerSession::new(settings.into(), Transport::Plain);
    let input = b"NOOP\r\nXYZZY\r\nVRFY a\r\nMAIL\r\n".repeat(5_000);
    let (mut rest, mut out, mut replies, mut refused, mut most) = (input.as_slice(), bytes::BytesMut::new(), 0, 0, 0);
    loop {
        let step = session.handle_input(Tick::ORIGIN, rest, &mut out).unwrap();
        most = most.max(out.len());
        rest = &rest[step.consumed..];
        match step.next {
            ServerNext::Flush => replies += out.split().iter().filter(|octet| **octet == b'\n').count(),
            ServerNext::Ask(_) => session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).unwrap(),
            ServerNext::Refused => refused += 1,
            ServerNext::NeedInput => break,
            next => panic!("{next:?}"),
        }
    }
    assert!(most < MAX_OUTPUT + 512, "{most}");
    assert_eq!((rest.len(), replies, refused), (0, 20_001, 10_000));
}

/// With a malformed line among the questions.
#[test]
fn pipelined_recipients_are_asked_about_one_by_one() {
    let mut server = ServerHarness::new(ServerSettings::new("mx.test".parse().expect("a domain")), Transport::Plain);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.said.clear();
    server.policy.hold(4);
    server.feed(b"RCPT TO:<0@d>\r\nRCPT TO:<1@d>\r\nRCPT TO:<\r\nRCPT TO:<2@d>\r\nRCPT TO:<3@d>\r\nRSET\r\n");
    for number in 0..4 {
        assert_eq!(server.run(), Stop::Answer);
        let asked = server.held.as_ref().map(|ask| format!("{ask:?}")).unwrap_or_default();
        assert!(asked.contains(&format!("\"{number}@d\"")), "{asked}");
        server.answer(accept(&format!("250 {number}"))).unwrap();
    }
    assert_eq!(server.run(), Stop::Input);
    let said = String::from_utf8(std::mem::take(&mut server.said)).unwrap();
    let codes: Vec<_> = said.lines().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
    assert_eq!(codes, ["0", "1", "5.1.3", "2", "3", "2.0.0"]);
}

#[test]
fn recipients_beyond_the_limit_are_not_asked_about() {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.limits.recipients = 2;
    let mut server = ServerHarness::new(settings, Transport::Plain);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.events.clear();
    server.feed(&b"RCPT TO:<c@d>\r\n".repeat(5));
    assert_eq!(server.events.len(), 2);
}

#[test]
fn input_is_not_read_while_a_question_is_open() {
    let mut session =
        ServerSession::new(ServerSettings::new("mx.test".parse().expect("a domain")).into(), Transport::Plain);
    let mut out = bytes::BytesMut::new();
    assert_eq!(session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out), Err(ApiMisuse::OutOfOrder));
    let step = session.handle_input(Tick::ORIGIN, b"", &mut out).unwrap();
    assert!(matches!(step.next, ServerNext::Ask(Ask::Connect)));
    let step = session.handle_input(Tick::ORIGIN, b"QUIT\r\n", &mut out);
    assert!(matches!(step, Err(ApiMisuse::Unanswered)), "{step:?}");
    session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).unwrap();
    assert_eq!(session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out), Err(ApiMisuse::OutOfOrder));
    let step = session.handle_input(Tick::ORIGIN, b"QUIT\r\n", &mut out).unwrap();
    assert!(matches!(step.next, ServerNext::Close(_)));
    assert_eq!(out, "220 mx.test ESMTP ready\r\n221 2.0.0 Bye\r\n");
}

#[test]
fn the_replies_to_a_thousand_recipients_leave_in_pieces() {
    for verdict in [Some(Verdict::Accept(None)), Some(Verdict::Each(vec![decision("450 4.2.0 Later"); 1_000])), None] {
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.protocol = Protocol::Lmtp;
        // The harness checks how far the output grows.
        let mut server = ServerHarness::new(settings, Transport::Plain);
        server.feed(b"LHLO c\r\nMAIL FROM:<a@b>\r\n");
        server.feed(&b"RCPT TO:<c@d>\r\n".repeat(1_000));
        server.feed(b"DATA\r\n");
        server.said.clear();
        let content: &[u8] = match verdict {
            Some(verdict) => {
                server.policy.script(Exchange::EndOfData, verdict);
                b".\r\n"
            }
            // The session itself refuses.
            None => b"a\nb\r\n.\r\n",
        };
        server.feed(content);
        assert_eq!(server.feed(b"NOOP\r\n"), Stop::Input);
        let said = String::from_utf8(std::mem::take(&mut server.said)).unwrap();
        assert_eq!((said.lines().count(), said.lines().last()), (1_001, Some("250 2.0.0 Ok")));
    }
}
