//! How a session ends: shutdown, 421, errors, and what may follow.

use posthaste_session::{ApiMisuse, ClientSettings, ServerSettings, Verdict, server::CloseReason};
use posthaste_testkit::{
    client::{ClientHarness, Event},
    policy::{refusal, reply},
    server::{ServerHarness, Stop},
};
use posthaste_wire::capability::Keyword;

const BYE: &[u8] = b"421 4.3.2 Shutting down, come back later\r\n";

fn server(open_recipients: usize) -> ServerHarness {
    let mut settings = ServerSettings::new("mx.test");
    settings.limits.open_recipients = open_recipients;
    ServerHarness::new(settings, false)
}

#[test]
fn shutdown_at_a_boundary_is_at_once() {
    let mut server = server(1);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nNOO");
    server.said.clear();
    server.shutdown();
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Shutdown), BYE));
}

#[test]
fn shutdown_before_the_greeting_takes_its_place() {
    let mut server = server(1);
    server.shutdown();
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Shutdown), BYE));
    assert_eq!(server.events.len(), 1, "the application is not asked any more");
}

#[test]
fn shutdown_while_a_question_is_open_follows_its_reply() {
    let mut server = server(1);
    server.feed(b"EHLO c\r\n");
    server.said.clear();
    server.policy.hold(1);
    assert_eq!(server.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"), Stop::Answer);
    server.shutdown();
    assert_eq!((server.closed, server.said.len()), (None, 0));
    server.answer(0, Verdict::Accept(None)).unwrap();
    assert_eq!(server.run(), Stop::Closed);
    assert_eq!(server.said, [b"250 2.1.0 Sender ok\r\n", BYE].concat());
}

#[test]
fn shutdown_within_content_follows_the_reply_to_its_end() {
    let mut server = server(1);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    server.said.clear();
    server.shutdown();
    assert_eq!(server.feed(b"text\r\n.\r\n"), Stop::Closed);
    assert_eq!(server.said, [b"250 2.0.0 Accepted\r\n", BYE].concat());
    assert_eq!(server.messages.len(), 1);
}

#[test]
fn a_421_to_one_of_several_questions_ends_them_all() {
    let mut server = server(3);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.said.clear();
    server.policy.hold(3);
    server.feed(b"RCPT TO:<a@d>\r\nRCPT TO:<b@d>\r\nRCPT TO:<c@d>\r\n");
    // The second has its reply already; it comes behind the 421 and must not be sent.
    server.answer(1, Verdict::Accept(None)).unwrap();
    server.answer(0, refusal("421 4.3.2 Enough")).unwrap();
    assert_eq!(server.answer(0, Verdict::Accept(None)), Err(ApiMisuse::Closed));
    assert_eq!(server.run(), Stop::Closed);
    assert_eq!((server.closed, server.said.as_slice()), (Some(CloseReason::Application), &b"421 4.3.2 Enough\r\n"[..]));
}

#[test]
fn refused_content_gets_a_refusal_whatever_the_application_says() {
    for (given, said, closed) in [
        ("250 2.0.0 Fine", "451 4.3.0 Local error, try again later\r\n", None),
        ("421 4.3.2 Enough", "421 4.3.2 Enough\r\n", Some(CloseReason::Application)),
        ("554 5.7.1 No", "554 5.7.1 No\r\n", None),
    ] {
        let mut server = server(1);
        server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        server.said.clear();
        server.session.refuse_content(reply(given));
        server.feed(b"text\r\n.\r\n");
        assert_eq!((server.closed, server.said.as_slice()), (closed, said.as_bytes()), "{given}");
        assert!(server.messages.is_empty());
    }
}

#[test]
fn octets_that_come_before_354_are_unauthorized_however_they_are_cut() {
    let start: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    let group: &[u8] = b"DATA\r\nhidden\r\n.\r\n";
    for cut in 1..group.len() {
        let mut server = server(1);
        server.feed(start);
        server.said.clear();
        server.policy.hold(1);
        server.feed(&group[..cut]);
        server.feed(&group[cut..]);
        if !server.held.is_empty() {
            server.answer(0, Verdict::Accept(None)).unwrap();
            server.run();
        }
        assert_eq!(server.closed, Some(CloseReason::UnauthorizedPipelining), "cut at {cut}");
        assert_eq!(server.said, b"554 5.5.0 Wait for the reply before sending more\r\n");
    }
}

#[test]
fn a_verdict_that_does_not_fit_leaves_the_question_open() {
    let mut server = server(1);
    server.run();
    server.policy.hold(1);
    server.feed(b"EHLO c\r\n");
    let (id, topic, text) = server.held[0].clone();
    for verdict in [
        Verdict::Challenge(Vec::new()),
        Verdict::Refuse(reply("250 2.0.0 Ok")),
        Verdict::Refuse(reply("354 Go")),
        Verdict::Accept(Some(reply("550 5.7.1 No"))),
    ] {
        assert_eq!(server.answer(0, verdict), Err(ApiMisuse::Verdict));
        server.held.push((id, topic, text.clone()));
    }
    server.answer(0, Verdict::Accept(None)).unwrap();
    assert_eq!(server.run(), Stop::Input);
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
