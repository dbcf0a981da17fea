//! Which reply answers which command: too early, without a command, and within a SASL exchange.

use std::time::Duration;

use posthaste_session::{ApiMisuse, ClientSettings, PeerMisbehaved, table::Phase, wire::ReplyCode};
use posthaste_testkit::client::{ClientHarness, Event};

fn greeted(offers: &str) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").expect("it has a place");
    client.feed(format!("250-s\r\n{offers}250 AUTH PLAIN LOGIN\r\n").as_bytes());
    client
}

fn misbehaved(client: &ClientHarness) -> Option<PeerMisbehaved> {
    match client.events.last() {
        Some(Event::Misbehaved(error)) => Some(*error),
        _ => None,
    }
}

fn unfitting(reply: &str) -> PeerMisbehaved {
    PeerMisbehaved::UnfittingReply(ReplyCode::new(reply[..3].parse().unwrap()).unwrap())
}

/// A reply that is there before its command cannot be the answer, however it was cut.
#[test]
fn a_reply_that_began_before_its_command_is_an_error() {
    let early = b"250 2.1.0 ok\r\n";
    for shown in 1..early.len() {
        let mut client = greeted("");
        client.feed(&early[..shown]);
        client.send_line("MAIL FROM:<a@b>").unwrap();
        client.feed(&early[shown..]);
        assert_eq!(misbehaved(&client), Some(PeerMisbehaved::UnsolicitedReply), "{shown}");
    }
    // After the reply to another command, and within a group.
    let mut client = greeted("250-PIPELINING\r\n");
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.send_line("RCPT TO:<c@d>").unwrap();
    client.feed(b"250 ok\r\n250 ok\r\n250 ear");
    client.send_line("RCPT TO:<e@d>").unwrap();
    client.feed(b"ly\r\n");
    assert_eq!(misbehaved(&client), Some(PeerMisbehaved::UnsolicitedReply));
    // Half of the reply to the command before is not early.
    let mut client = greeted("250-PIPELINING\r\n");
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.feed(b"250-o");
    client.send_line("RCPT TO:<c@d>").unwrap();
    client.feed(b"ne\r\n250 two\r\n");
    client.feed(b"250 ok\r\n");
    assert_eq!((client.session.phase(), misbehaved(&client)), (Phase::Rcpt, None));
}

#[test]
fn an_early_reply_to_the_end_of_the_content_is_an_error() {
    let mut client = greeted("");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
        client.send_line(line).unwrap();
        client.feed(b"250 ok\r\n");
    }
    client.send_line("DATA").unwrap();
    client.feed(b"354 go\r\n250 ke");
    client.send_content(b"x\r\n", 9).unwrap();
    client.feed(b"pt\r\n");
    assert_eq!(misbehaved(&client), Some(PeerMisbehaved::UnsolicitedReply));
    assert!(client.session.message_in_doubt(), "the server may have the message");
}

#[test]
fn the_last_words_of_a_server_reach_the_caller() {
    let said = b"421-4.3.2 Going down\r\n421 4.3.2 come back at noon\r\n";
    for cut in 0..said.len() {
        let mut client = greeted("");
        client.feed(&said[..cut]);
        client.feed(&said[cut..]);
        let events = &client.events[client.events.len() - 2..];
        assert_eq!(events, [Event::Unasked(said.to_vec()), Event::Close]);
    }
    // The reply began before the command.
    let mut client = greeted("");
    client.feed(b"421 by");
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.feed(b"e\r\n");
    assert_eq!(client.events[client.events.len() - 2], Event::Unasked(b"421 bye\r\n".to_vec()));
    assert_eq!(client.session.unanswered(), 1);
    // Only a refusal may come without a command.
    let mut client = greeted("");
    client.feed(b"554 bye\r\n");
    assert_eq!(misbehaved(&client), Some(PeerMisbehaved::UnsolicitedReply));
}

/// `334 SP base64`: several lines would be ambiguous (RFC 4954 section 4).
#[test]
fn a_challenge_is_one_line_after_334() {
    for (said, fits) in [
        (&b"334 Zm9v\r\n"[..], true),
        (b"334 \r\n", true),
        (b"334\r\n", true),
        (b"334-Zm9v\r\n334 YmFy\r\n", false),
        (b"354 go\r\n", false),
        (b"300 hm\r\n", false),
    ] {
        let mut client = greeted("");
        client.send_line("AUTH LOGIN").unwrap();
        client.feed(said);
        assert_eq!(misbehaved(&client).is_none(), fits, "{said:?}");
        assert_eq!(matches!(client.events.last(), Some(Event::Challenge(_))), fits);
    }
}

#[test]
fn a_challenge_may_be_as_long_as_a_response() {
    let mut client = greeted("");
    client.send_line("AUTH LOGIN").unwrap();
    client.feed(format!("334 {}\r\n", "a".repeat(12_282)).as_bytes());
    assert!(matches!(client.events.last(), Some(Event::Challenge(text)) if text.len() == 12_282));
    client.respond(Some("eA==")).unwrap();
    client.feed(format!("334 {}\r\n", "a".repeat(12_283)).as_bytes());
    assert!(matches!(misbehaved(&client), Some(PeerMisbehaved::Reply(_))));
    // Outside an exchange the usual limit holds.
    let mut client = greeted("");
    client.send_line("AUTH LOGIN").unwrap();
    client.feed(b"535 no\r\n");
    client.send_line("NOOP").unwrap();
    client.feed(format!("250 {}\r\n", "a".repeat(2_043)).as_bytes());
    assert!(matches!(client.session.oddity(), Some(PeerMisbehaved::Reply(_))));
}

#[test]
fn a_cancelled_exchange_must_be_refused() {
    for (said, fits) in [
        ("501 5.7.0 cancelled", true),
        ("535 no", true),
        ("421 bye", true),
        ("334 eA==", false),
        ("235 you are in", false),
    ] {
        let mut client = greeted("");
        client.send_line("AUTH LOGIN").unwrap();
        client.feed(b"334 VXNlcm5hbWU6\r\n");
        client.sent.clear();
        let cancelled = client.respond(None).unwrap();
        assert_eq!(client.sent, b"*\r\n");
        // No command is sent before the reply.
        assert_eq!(client.send_line("MAIL FROM:<a@b>"), Err(ApiMisuse::NotYet));
        assert_eq!(client.respond(None), Err(ApiMisuse::OutOfOrder));
        client.feed(format!("{said}\r\n").as_bytes());
        assert_eq!(misbehaved(&client), (!fits).then(|| unfitting(said)), "{said}");
        let answered = |event: &Event| matches!(event, Event::Reply(to, ..) if *to == cancelled);
        assert_eq!(client.events.iter().any(answered), fits);
        if said.starts_with('5') {
            // Another exchange starts over.
            client.send_line("AUTH PLAIN eA==").unwrap();
            client.feed(b"235 ok\r\n");
            assert_eq!((client.session.phase(), misbehaved(&client)), (Phase::Ready, None));
        }
    }
}

#[test]
fn a_tls_handshake_has_its_time() {
    let mut client = greeted("250-STARTTLS\r\n");
    client.send_line("STARTTLS").unwrap();
    client.feed(b"220 go\r\n");
    let due = client.session.poll_timeout().unwrap();
    assert_eq!(due.since(client.clock.now()), Duration::from_secs(300));
    assert!(client.wait(Duration::from_secs(300)).is_some());
    let mut client = greeted("250-STARTTLS\r\n");
    client.send_line("STARTTLS").unwrap();
    client.feed(b"220 go\r\n");
    client.establish_tls();
    assert_eq!(client.session.poll_timeout(), None);
    // Octets that were counted in clear do not make a reply inside TLS early.
    client.send_line("EHLO c").unwrap();
    client.feed(b"250 s\r\n");
    assert_eq!((client.session.phase(), misbehaved(&client)), (Phase::Ready, None));
}

#[test]
fn the_limits_of_the_server_are_kept() {
    let mut client = greeted("250-PIPELINING\r\n250-LIMITS RCPTMAX=2 MAILMAX=2\r\n");
    for left in [2, 1] {
        assert_eq!(client.session.transactions_left(), Some(left));
        for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@d>"] {
            client.send_line(line).unwrap();
        }
        assert_eq!(client.send_line("RCPT TO:<g@d>"), Err(ApiMisuse::Limit));
        client.send_line("RSET").unwrap();
    }
    assert_eq!(client.session.transactions_left(), Some(0));
    assert_eq!(client.send_line("MAIL FROM:<a@b>"), Err(ApiMisuse::Limit));
    assert_eq!(client.session.unanswered(), 8);
    client.feed(&b"250 ok\r\n".repeat(8));
    client.send_line("QUIT").unwrap();
}

#[test]
fn unanswered_commands_are_bounded() {
    let mut client = greeted("250-PIPELINING\r\n");
    client.send_line("MAIL FROM:<a@b>").unwrap();
    let sent = (0..5_000).take_while(|_| client.send_line("RCPT TO:<c@d>").is_ok());
    assert_eq!(sent.count(), 1_023);
    assert_eq!(client.send_line("RCPT TO:<c@d>"), Err(ApiMisuse::NotYet));
    client.feed(b"250 ok\r\n");
    client.send_line("RCPT TO:<c@d>").unwrap();
}

/// The limits of an exchange hold wherever its AUTH is in a group.
#[test]
fn a_long_challenge_after_a_reset_of_its_group_is_taken() {
    let mut client = greeted("250-PIPELINING\r\n");
    client.send_line("RSET").unwrap();
    client.send_line("AUTH LOGIN").unwrap();
    client.feed(format!("250 ok\r\n334 {}\r\n", "a".repeat(12_282)).as_bytes());
    assert!(matches!(client.events.last(), Some(Event::Challenge(_))), "{:?}", misbehaved(&client));
    client.respond(Some("eA==")).unwrap();
}

/// `*` cancels the exchange, however it was given.
#[test]
fn a_star_cancels_the_exchange() {
    let mut client = greeted("");
    client.send_line("AUTH LOGIN").unwrap();
    client.feed(b"334 \r\n");
    client.respond(Some("*")).unwrap();
    client.feed(b"235 you are in\r\n");
    assert_eq!(misbehaved(&client), Some(unfitting("235")));
}
