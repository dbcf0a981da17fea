//! The bounds of a session as a whole.

use std::time::Duration;

use posthaste_session::{ServerSettings, Transport, Verdict, server::CloseReason};
use posthaste_testkit::server::{Event, ServerHarness, Stop};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> ServerSettings {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.chunking = true;
    settings
}

fn in_transaction(settings: ServerSettings) -> ServerHarness {
    let mut server = ServerHarness::new(settings, Transport::StartTls);
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    server.said.clear();
    server
}

fn seconds_left(server: &ServerHarness) -> u64 {
    server.session.poll_timeout().expect("a deadline").since(server.clock.now()).as_secs()
}

#[test]
fn empty_chunks_do_no_work() {
    let mut server = in_transaction(settings());
    // EHLO was the first command without work.
    server.feed(&b"BDAT 0\r\n".repeat(99));
    assert_eq!(server.closed, None);
    server.feed(b"BDAT 0\r\n");
    assert_eq!(server.closed, Some(CloseReason::TooManyIdleCommands));
}

#[test]
fn an_empty_last_chunk_ends_a_message_and_is_not_idle() {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    server.feed(b"EHLO c\r\n");
    for _ in 0..300 {
        server.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\na\r\nBDAT 0 LAST\r\n");
    }
    assert_eq!((server.closed, server.messages.len()), (None, 300));
}

/// 552 or 550: the earlier fault counts, however the octets are cut.
#[test]
fn the_first_of_a_fault_and_the_size_limit_counts() {
    for (content, code) in [("0123456\n89", 550), ("01234567\n9", 552), ("012345678\n", 552), ("0123456789\n", 552)] {
        for cut in 1..content.len() {
            for command in ["DATA\r\n".to_owned(), format!("BDAT {} LAST\r\n", content.len())] {
                let mut settings = settings();
                settings.limits.message_size = 8;
                let mut server = in_transaction(settings);
                server.feed(command.as_bytes());
                server.feed(&content.as_bytes()[..cut]);
                server.feed(&content.as_bytes()[cut..]);
                let refused = Event::ContentRefused(code);
                assert!(
                    server.events.contains(&refused),
                    "{content:?}, {command:?}, cut at {cut}: {:?}",
                    server.events
                );
            }
        }
    }
}

#[test]
fn a_session_ends_after_a_day_however_busy_it_is() {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    server.feed(b"EHLO c\r\n");
    for _ in 0..24 * 20 - 1 {
        server.wait(180 * SECOND);
        server.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\nx");
    }
    assert_eq!((seconds_left(&server), server.closed), (180, None));
    server.said.clear();
    server.wait(180 * SECOND);
    assert_eq!(server.closed, Some(CloseReason::SessionTooLong));
    assert_eq!(server.said, b"421 4.4.2 The session has lasted too long\r\n");
}

#[test]
fn a_session_whose_time_is_over_ends_after_a_reply_though_more_input_waits() {
    let mut settings = settings();
    settings.timeouts.session = 100 * SECOND;
    let mut server = in_transaction(settings);
    server.policy.hold(1);
    assert_eq!(server.feed(b"RCPT TO:<e@f>\r\n"), Stop::Answer);
    server.clock.advance(200 * SECOND);
    // The application has its own time.
    server.wait(Duration::ZERO);
    assert_eq!((seconds_left(&server), server.closed), (100, None));
    server.answer(Verdict::Accept(None)).unwrap();
    assert_eq!(server.feed(b"NOOP\r\nNOOP\r\n"), Stop::Closed);
    assert_eq!(server.closed, Some(CloseReason::SessionTooLong));
    assert_eq!(server.said, b"250 2.1.5 Recipient ok\r\n421 4.4.2 The session has lasted too long\r\n");
}

/// Without a minimum rate no other limit ends the session.
#[test]
fn content_is_not_waited_for_beyond_the_time_of_the_session() {
    let mut settings = settings();
    settings.timeouts.minimum_rate = 0;
    let mut server = in_transaction(settings);
    server.feed(b"DATA\r\n");
    server.feed(&b"text\r\n".repeat(2 * 1_024 * 1_024));
    let mut waits = 0;
    while server.closed.is_none() {
        server.wait(179 * SECOND);
        server.feed(b"x");
        waits += 1;
        assert!(waits <= 1 + 24 * 60 * 60 / 179, "one octet every three minutes, for ever");
    }
    assert_eq!(server.closed, Some(CloseReason::SessionTooLong));
    assert!(server.messages.is_empty());
}

#[test]
fn a_handshake_has_a_deadline_and_nothing_is_said_in_it() {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    assert_eq!(server.feed(b"EHLO c\r\n"), Stop::Input);
    assert_eq!(server.feed(b"STARTTLS\r\n"), Stop::Tls);
    assert_eq!(seconds_left(&server), 30);
    server.said.clear();
    let mut out = bytes::BytesMut::new();
    server.clock.advance(30 * SECOND);
    server.session.handle_timeout(server.clock.now(), &mut out);
    assert!(out.is_empty());
    let step = server.session.handle_input(server.clock.now(), b"", &mut out).unwrap();
    assert!(matches!(step.next, posthaste_session::ServerNext::Close(CloseReason::Timeout)));
    assert!(out.is_empty());
}

#[test]
fn the_deadline_of_a_handshake_ends_with_it() {
    let mut server = ServerHarness::new(settings(), Transport::StartTls);
    server.feed(b"EHLO c\r\nSTARTTLS\r\n");
    server.establish_tls();
    assert_eq!(server.run(), Stop::Input);
    assert_eq!(seconds_left(&server), 300);
}
