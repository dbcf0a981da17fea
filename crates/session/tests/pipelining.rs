//! Many commands at once: replies in order, output in bounds.

use posthaste_session::{MAX_OUTPUT, ServerNext, ServerSettings, Tick, Verdict, server::Protocol};
use posthaste_testkit::{
    policy::{Topic, reply},
    server::{ServerHarness, Stop},
};

#[test]
fn thousands_of_commands_do_not_fill_the_output() {
    let mut settings = ServerSettings::new("mx.test");
    settings.limits.junk_commands = u32::MAX;
    settings.limits.errors = u32::MAX;
    let mut session = posthaste_session::ServerSession::new(settings.into(), false);
    let input = b"NOOP\r\nXYZZY\r\nVRFY a\r\nMAIL\r\n".repeat(5_000);
    let (mut rest, mut out, mut replies, mut most) = (input.as_slice(), bytes::BytesMut::new(), 0, 0);
    loop {
        let step = session.handle_input(Tick::ORIGIN, rest, &mut out).unwrap();
        most = most.max(out.len());
        rest = &rest[step.consumed..];
        match step.next {
            ServerNext::Flush => replies += out.split().iter().filter(|octet| **octet == b'\n').count(),
            ServerNext::Ask(id, _) => session.answer(Tick::ORIGIN, id, Verdict::Accept(None), &mut out).unwrap(),
            ServerNext::NeedInput => break,
            next => panic!("{next:?}"),
        }
    }
    assert!(most < MAX_OUTPUT + 512, "{most}");
    assert_eq!((rest.len(), replies), (0, 20_001));
}

#[test]
fn answers_in_any_order_leave_in_order() {
    // Every order of four answers, with a malformed line among the questions.
    for order in 0..24_usize {
        let mut settings = ServerSettings::new("mx.test");
        settings.limits.open_recipients = 5;
        let mut server = ServerHarness::new(settings, false);
        server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
        server.said.clear();
        server.policy.hold(4);
        let stop =
            server.feed(b"RCPT TO:<0@d>\r\nRCPT TO:<1@d>\r\nRCPT TO:<\r\nRCPT TO:<2@d>\r\nRCPT TO:<3@d>\r\nRSET\r\n");
        assert_eq!((stop, server.held.len()), (Stop::Answer, 4));
        let mut left = vec![0, 1, 2, 3];
        let mut rest = order;
        for radix in [4, 3, 2, 1] {
            let place = rest % radix;
            rest /= radix;
            let number: usize = left.remove(place);
            server.answer(place, Verdict::Accept(Some(reply(&format!("250 {number}"))))).unwrap();
        }
        assert_eq!(server.run(), Stop::Input);
        let said = String::from_utf8(std::mem::take(&mut server.said)).unwrap();
        let codes: Vec<_> = said.lines().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
        assert_eq!(codes, ["0", "1", "5.1.3", "2", "3", "2.0.0"], "{order}");
    }
}

#[test]
fn open_questions_count_towards_the_limit_of_recipients() {
    let mut settings = ServerSettings::new("mx.test");
    settings.limits.open_recipients = 8;
    settings.limits.recipients = 2;
    let mut server = ServerHarness::new(settings, false);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.policy.hold(8);
    server.feed(&b"RCPT TO:<c@d>\r\n".repeat(5));
    assert_eq!(server.held.len(), 2);
}

#[test]
fn the_replies_to_a_thousand_recipients_leave_in_pieces() {
    for verdict in [Some(Verdict::Accept(None)), Some(Verdict::Each(vec![reply("450 4.2.0 Later"); 1_000])), None] {
        let mut settings = ServerSettings::new("mx.test");
        settings.protocol = Protocol::Lmtp;
        // The harness looks at how far the output grows.
        let mut server = ServerHarness::new(settings, false);
        server.feed(b"LHLO c\r\nMAIL FROM:<a@b>\r\n");
        server.feed(&b"RCPT TO:<c@d>\r\n".repeat(1_000));
        server.feed(b"DATA\r\n");
        server.said.clear();
        let content: &[u8] = match verdict {
            Some(verdict) => {
                server.policy.script(Topic::Message, verdict);
                b".\r\n"
            }
            // The session refuses by itself.
            None => b"a\nb\r\n.\r\n",
        };
        server.feed(content);
        assert_eq!(server.feed(b"NOOP\r\n"), Stop::Input);
        let said = String::from_utf8(std::mem::take(&mut server.said)).unwrap();
        assert_eq!((said.lines().count(), said.lines().last()), (1_001, Some("250 2.0.0 Ok")));
    }
}
