//! What belongs to a client's transaction.

use posthaste_session::{ApiMisuse, ClientSettings, PeerMisbehaved, table::Phase};
use posthaste_testkit::client::{ClientHarness, Event};

const OFFERS: &str = "250-s\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 HELP\r\n";

/// A client with two accepted recipients and one refused.
fn ready(hello: &str) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line(hello).expect("it has a place");
    client.feed(OFFERS.as_bytes());
    for (line, reply) in [
        ("MAIL FROM:<a@b>", "250 ok\r\n"),
        ("RCPT TO:<c@d>", "250 ok\r\n"),
        ("RCPT TO:<e@d>", "550 no\r\n"),
        ("RCPT TO:<g@d>", "250 ok\r\n"),
    ] {
        client.send_line(line).expect("it has a place");
        client.feed(reply.as_bytes());
    }
    assert_eq!(client.session.accepted_recipients(), 2);
    client
}

/// Sends a line and feeds the reply.
fn exchange(client: &mut ClientHarness, line: &str, reply: &str) {
    client.send_line(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    client.feed(reply.as_bytes());
}

#[test]
fn every_end_leaves_the_transaction_empty() {
    type Exit = fn(&mut ClientHarness);
    let exits: &[(&str, &str, Exit)] = &[
        ("RSET", "EHLO c", |client| exchange(client, "RSET", "250 ok\r\n")),
        ("EHLO", "EHLO c", |client| exchange(client, "EHLO c", OFFERS)),
        ("HELO", "EHLO c", |client| exchange(client, "HELO c", "250 s\r\n")),
        ("LHLO", "LHLO c", |client| exchange(client, "LHLO c", OFFERS)),
        ("STARTTLS", "EHLO c", |client| {
            exchange(client, "STARTTLS", "220 go\r\n");
            client.establish_tls();
            assert_eq!(client.session.accepted_recipients(), 0, "before the next EHLO");
            exchange(client, "EHLO c", OFFERS);
        }),
        ("DATA", "EHLO c", |client| {
            exchange(client, "DATA", "354 go\r\n");
            client.send_content(b"x\r\n", 9).unwrap();
            client.feed(b"250 kept\r\n");
        }),
        ("refused content", "EHLO c", |client| {
            exchange(client, "DATA", "354 go\r\n");
            client.send_content(b"x\r\n", 9).unwrap();
            client.feed(b"554 no\r\n");
        }),
        ("content in LMTP", "LHLO c", |client| {
            exchange(client, "DATA", "354 go\r\n");
            client.send_content(b"x\r\n", 9).unwrap();
            client.feed(b"250 kept\r\n452 full\r\n");
        }),
        ("a last chunk", "EHLO c", |client| {
            client.send_chunk(b"x\r\n", true, 9).unwrap();
            client.feed(b"250 kept\r\n");
        }),
        ("a refused last chunk in LMTP", "LHLO c", |client| {
            client.send_chunk(b"x\r\n", true, 9).unwrap();
            client.feed(b"554 no\r\n554 no\r\n");
        }),
        ("a refused chunk", "EHLO c", |client| {
            client.send_chunk(b"x\r\n", false, 9).unwrap();
            client.feed(b"554 no\r\n");
            exchange(client, "RSET", "250 ok\r\n");
        }),
    ];
    for (name, hello, exit) in exits {
        let mut client = ready(hello);
        exit(&mut client);
        assert_eq!(client.session.accepted_recipients(), 0, "{name}");
        assert_eq!(client.session.phase(), Phase::Ready, "{name}");
        assert_eq!(client.send_line("DATA"), Err(ApiMisuse::OutOfOrder), "{name}");
        exchange(&mut client, "MAIL FROM:<a@b>", "250 ok\r\n");
        assert_eq!(client.send_line("DATA"), Err(ApiMisuse::OutOfOrder), "{name}");
        // The next transaction counts from 0 again.
        exchange(&mut client, "RCPT TO:<z@d>", "250 ok\r\n");
        assert!(matches!(client.events.last(), Some(Event::Reply(_, Some(0), _))), "{name}");
        assert_eq!(client.session.accepted_recipients(), 1, "{name}");
    }
}

#[test]
fn a_refusal_leaves_the_transaction_unchanged() {
    for (line, reply) in [
        ("EHLO c", "554 no\r\n"),
        ("HELO c", "421 bye\r\n"),
        ("STARTTLS", "454 later\r\n"),
        ("DATA", "451 later\r\n"),
        ("NOOP", "500 what\r\n"),
        ("VRFY a", "252 who knows\r\n"),
    ] {
        let mut client = ready("EHLO c");
        exchange(&mut client, line, reply);
        assert_eq!(client.session.accepted_recipients(), 2, "{line}");
        assert_eq!(client.session.phase() == Phase::Rcpt, !reply.starts_with("421"), "{line}");
    }
}

/// Only a lone dot may follow (RFC 2920 section 3.1).
#[test]
fn no_content_is_sent_without_a_recipient() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    client.feed(OFFERS.as_bytes());
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.feed(b"250 ok\r\n550 no\r\n354 go\r\n");
    client.sent.clear();
    assert_eq!(client.payload(b"secret\r\n", 9), Err(ApiMisuse::OutOfOrder));
    client.finish().unwrap();
    assert_eq!(client.sent, b".\r\n");
    client.feed(b"250 kept\r\n");
    assert_eq!(client.session.phase(), Phase::Ready);
}

/// A driver that reads while it writes may read the reply to a chunk before it finishes the chunk.
#[test]
fn a_reply_to_a_chunk_may_come_before_it_is_finished() {
    for (last, piece) in [(false, 1), (true, 1), (true, 100)] {
        let mut client = ready("EHLO c");
        client.begin_chunk(4, last).unwrap();
        client.payload(b"ab\r\n", piece).unwrap();
        assert_eq!((client.session.body_credit(), client.session.unanswered()), (Some(0), 1));
        client.feed(b"250 kept\r\n");
        assert!(!client.session.message_in_doubt());
        // All octets were sent, but the next command waits until the chunk is finished.
        assert_eq!(client.send_line("RSET"), Err(ApiMisuse::OutOfOrder));
        let ticket = client.finish().unwrap();
        assert!(!client.session.is_unanswered(ticket));
        assert!(matches!(client.events.last(), Some(Event::Reply(to, ..)) if *to == ticket));
        assert_eq!(client.session.phase(), if last { Phase::Ready } else { Phase::Chunks });
    }
    // A chunk has one reply.
    let mut client = ready("EHLO c");
    client.begin_chunk(4, true).unwrap();
    client.payload(b"ab\r\n", 9).unwrap();
    client.feed(b"250 kept\r\n554 or not\r\n");
    assert_eq!(client.events.last(), Some(&Event::Misbehaved(PeerMisbehaved::UnsolicitedReply)));
    // An empty chunk is whole at once.
    let mut client = ready("EHLO c");
    client.begin_chunk(0, true).unwrap();
    assert!(client.session.message_in_doubt());
    client.feed(b"250 kept\r\n");
    client.finish().unwrap();
    assert_eq!(client.session.phase(), Phase::Ready);
}
