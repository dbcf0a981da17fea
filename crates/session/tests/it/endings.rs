//! How a session ends: shutdown, 421, errors, and what may follow.

use posthaste_session::{
    ApiMisuse, ClientSettings, ServerSettings, Transport, Verdict,
    server::{CloseReason, Protocol},
};
use posthaste_testkit::{
    client::{ClientHarness, Event},
    policy::{decision, refusal, refuse},
    server::{ServerHarness, Stop},
};
use posthaste_wire::capability::Keyword;

const BYE: &[u8] = b"421 4.3.2 Shutting down, come back later\r\n";

fn server() -> ServerHarness {
    ServerHarness::new(ServerSettings::new("mx.test".parse().expect("a domain")), Transport::Plain)
}

#[test]
fn shutdown_at_a_boundary_is_at_once() {
    let mut server = server();
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nNOO");
    server.said.clear();
    server.shutdown();
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Shutdown), BYE));
}

#[test]
fn shutdown_before_the_greeting_takes_its_place() {
    let mut server = server();
    server.shutdown();
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Shutdown), BYE));
    assert_eq!(server.events.len(), 1, "the application is not asked any more");
}

#[test]
fn shutdown_while_a_question_is_open_follows_its_reply() {
    let mut server = server();
    server.feed(b"EHLO c\r\n");
    server.said.clear();
    server.policy.hold(1);
    assert_eq!(server.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"), Stop::Answer);
    server.shutdown();
    assert_eq!((server.closed, server.said.len()), (None, 0));
    server.answer(Verdict::Accept(None)).unwrap();
    assert_eq!(server.run(), Stop::Closed);
    assert_eq!(server.said, [b"250 2.1.0 Sender ok\r\n", BYE].concat());
}

#[test]
fn shutdown_within_content_follows_the_reply_to_its_end() {
    let mut server = server();
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    server.said.clear();
    server.shutdown();
    assert_eq!(server.feed(b"text\r\n.\r\n"), Stop::Closed);
    assert_eq!(server.said, [b"250 2.0.0 Accepted\r\n", BYE].concat());
    assert_eq!(server.messages.len(), 1);
}

#[test]
fn nothing_follows_a_421_of_the_application() {
    let mut server = server();
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.said.clear();
    server.policy.hold(1);
    server.feed(b"RCPT TO:<a@d>\r\nRCPT TO:<b@d>\r\n");
    server.answer(refuse("421 4.3.2 Enough")).unwrap();
    assert_eq!(server.run(), Stop::Closed);
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Application), &b"421 4.3.2 Enough\r\n"[..]));
}

#[test]
fn refused_content_gets_the_refusal_of_the_application() {
    for (said, closed) in
        [("421 4.3.2 Enough", Some(CloseReason::Application)), ("451 4.3.0 Later", None), ("554 5.7.1 No", None)]
    {
        let mut server = server();
        server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        server.said.clear();
        server.session.refuse_content(refusal(said));
        server.feed(b"text\r\n.\r\n");
        assert_eq!((server.closed, server.said), (closed, format!("{said}\r\n").into_bytes()));
        assert!(server.messages.is_empty());
    }
}

#[test]
fn octets_that_come_before_354_are_unauthorized_however_they_are_cut() {
    let start: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    let group: &[u8] = b"DATA\r\nhidden\r\n.\r\n";
    for cut in 1..group.len() {
        let mut server = server();
        server.feed(start);
        server.said.clear();
        server.policy.hold(1);
        server.feed(&group[..cut]);
        server.feed(&group[cut..]);
        if server.held.is_some() {
            server.answer(Verdict::Accept(None)).unwrap();
            server.run();
        }
        assert_eq!(server.closed, Some(CloseReason::UnauthorizedPipelining), "cut at {cut}");
        assert_eq!(server.said, b"554 5.5.0 Wait for the reply before sending more\r\n");
    }
}

#[test]
fn a_verdict_that_does_not_fit_leaves_the_question_open() {
    let one = vec![decision("250 2.0.0 Ok")];
    for (protocol, lines, verdict) in [
        (Protocol::Smtp, &b""[..], Verdict::Challenge(Vec::new())),
        (
            Protocol::Lmtp,
            b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n.\r\n",
            Verdict::Each(one.clone()),
        ),
        (Protocol::Lmtp, b"MAIL FROM:<a@b>\r\n", Verdict::Each(one.clone())),
        (Protocol::Smtp, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n", Verdict::Each(one)),
    ] {
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.protocol = protocol;
        let mut server = ServerHarness::new(settings, Transport::Plain);
        let hello: &[u8] = if protocol == Protocol::Lmtp { b"LHLO c\r\n" } else { b"EHLO c\r\n" };
        let lines: Vec<&[u8]> = std::iter::once(hello).chain(lines.split_inclusive(|octet| *octet == b'\n')).collect();
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            server.feed(line);
        }
        server.policy.hold(1);
        assert_eq!(server.feed(last), Stop::Answer);
        assert_eq!(server.answer(verdict), Err(ApiMisuse::Verdict));
        server.answer(Verdict::Accept(None)).unwrap();
        assert_eq!(server.run(), Stop::Input);
    }
}

#[test]
fn half_a_message_is_not_finished_as_if_it_were_whole() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    for (line, reply) in
        [("EHLO c", "250 s"), ("MAIL FROM:<a@b>", "250 ok"), ("RCPT TO:<c@d>", "250 ok"), ("DATA", "354 go")]
    {
        client.send_line(line).unwrap();
        client.feed(format!("{reply}\r\n").as_bytes());
    }
    client.sent.clear();
    assert!(matches!(client.send_content(b"good\r\nbad\nrest\r\n", 100), Err(ApiMisuse::Content(_))));
    assert_eq!(client.send_content(b"", 1), Err(ApiMisuse::Closed));
    assert!(client.sent.is_empty());
}

#[test]
fn a_long_sasl_response_has_the_room_of_an_auth_line() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    client.feed(b"250-s\r\n250 AUTH PLAIN\r\n");
    client.send_line("AUTH PLAIN").unwrap();
    client.feed(b"334 \r\n");
    assert!(matches!(client.respond(Some("a\r\nb")), Err(ApiMisuse::Encode(_))));
    assert!(matches!(client.respond(Some(&"a".repeat(12_287))), Err(ApiMisuse::Encode(_))));
    client.respond(Some(&"a".repeat(12_286))).unwrap();
}

#[test]
fn helo_brings_no_extensions() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("HELO c").unwrap();
    client.feed(b"250-s\r\n250 PIPELINING\r\n");
    assert!(!client.session.capabilities().offers(Keyword::Pipelining));
}

#[test]
fn recipients_are_counted_for_their_own_transaction() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    client.feed(b"250-s\r\n250 PIPELINING\r\n");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RSET", "MAIL FROM:<a@b>", "RCPT TO:<e@f>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n");
    assert!(matches!(client.events.last(), Some(Event::SendBody(_))));
    assert_eq!(client.session.accepted_recipients(), 0, "the first transaction's recipient is not this one's");
}

#[test]
fn any_reply_to_quit_is_the_end() {
    for reply in [&b"221 bye\r\n"[..], b"500 what\r\n"] {
        let mut client = ClientHarness::new(ClientSettings::default());
        client.feed(b"220 s\r\n");
        client.send_line("QUIT").unwrap();
        client.feed(reply);
        assert!(client.closed);
    }
}
