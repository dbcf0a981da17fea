//! How long each side is waited for.

use std::time::Duration;

use posthaste_session::{ClientSettings, ServerSettings, Transport, server::CloseReason};
use posthaste_testkit::{
    client::ClientHarness,
    policy::{refusal, refuse},
    server::{ServerHarness, Stop},
};

const SECOND: Duration = Duration::from_secs(1);

fn server() -> ServerHarness {
    ServerHarness::new(ServerSettings::new("mx.test".parse().expect("a domain")), Transport::Plain)
}

fn in_content() -> ServerHarness {
    let mut server = server();
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    server
}

fn seconds_left(server: &ServerHarness) -> u64 {
    server.session.poll_timeout().expect("a deadline").since(server.clock.now()).as_secs()
}

#[test]
fn a_line_has_a_minute_from_its_first_octet() {
    let mut server = server();
    server.run();
    assert_eq!(seconds_left(&server), 300);
    server.clock.advance(100 * SECOND);
    server.feed(b"N");
    assert_eq!(seconds_left(&server), 60);
    for octet in b"OOP" {
        server.clock.advance(15 * SECOND);
        server.feed(&[*octet]);
    }
    assert_eq!(seconds_left(&server), 15);
    server.wait(15 * SECOND);
    assert_eq!(server.closed, Some(CloseReason::Timeout));
    assert!(server.said.ends_with(b"421 4.4.2 Silent for too long\r\n"));
}

#[test]
fn a_line_that_begins_late_gets_no_more_than_the_time_of_its_command() {
    let mut server = server();
    server.run();
    server.clock.advance(290 * SECOND);
    server.feed(b"N");
    assert_eq!(seconds_left(&server), 10);
}

/// Its octets are thrown away as they come.
#[test]
fn an_over_long_line_has_a_minute_too() {
    let mut server = server();
    server.feed(b"EHLO c\r\n");
    server.feed(&[b'x'; 3_000]);
    assert_eq!(seconds_left(&server), 60);
    server.clock.advance(50 * SECOND);
    server.feed(b"x");
    assert_eq!(seconds_left(&server), 10);
}

#[test]
fn a_whole_line_restarts_the_clock() {
    let mut server = server();
    for _ in 0..3 {
        server.run();
        server.clock.advance(299 * SECOND);
        server.feed(b"NOOP\r\n");
        assert_eq!(seconds_left(&server), 300);
    }
}

/// Each of these does something every minute that no other limit ends.
#[test]
fn a_session_without_a_message_ends_after_20_minutes_whatever_it_does() {
    let whole = |line: &'static str| move |_: u64| line.as_bytes().to_vec();
    let octets = |line: &'static str| move |minute: u64| vec![line.as_bytes()[minute as usize % line.len()]];
    type Octets = Box<dyn Fn(u64) -> Vec<u8>>;
    let ways: [(&str, Octets); 7] = [
        ("nothing", Box::new(|_| Vec::new())),
        ("NOOP", Box::new(whole("NOOP\r\n"))),
        ("EHLO", Box::new(whole("EHLO c\r\n"))),
        ("transactions", Box::new(whole("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n"))),
        ("NOOP by octets", Box::new(octets("NOOP\r\n"))),
        ("recipients", Box::new(|_| b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"[..].to_vec())),
        ("MAIL by octets", Box::new(octets("MAIL FROM:<a@b>\r\n"))),
    ];
    for (what, octets) in ways {
        let mut server = server();
        // The greeting does not matter.
        server.feed(if what == "nothing" { b"" } else { b"EHLO c\r\n" });
        let mut minutes = 0;
        while server.closed.is_none() {
            server.feed(&octets(minutes));
            server.wait(59 * SECOND);
            minutes += 1;
            assert!(minutes <= 21, "{what}: it goes on");
        }
        // A line or a command has a limit of its own.
        let own = what == "nothing" || what.ends_with("octets");
        let (reason, said) = match server.closed {
            Some(CloseReason::TooManyErrors) => (CloseReason::TooManyErrors, "421 4.7.0 Too many errors\r\n"),
            _ if own => (CloseReason::Timeout, "421 4.4.2 Silent for too long\r\n"),
            _ => (CloseReason::NoMessage, "421 4.4.2 No message for too long\r\n"),
        };
        assert_eq!(server.closed, Some(reason), "{what}");
        assert!(server.said.ends_with(said.as_bytes()), "{what}: {}", server.said.escape_ascii());
    }
}

#[test]
fn every_message_gives_another_20_minutes_and_content_takes_what_it_needs() {
    let mut server = server();
    server.feed(b"EHLO c\r\n");
    for _ in 0..3 {
        server.wait(299 * SECOND);
        server.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        for _ in 0..30 {
            server.wait(60 * SECOND);
            server.feed(&b"fast enough\r\n".repeat(1_000));
        }
        server.feed(b".\r\n");
        assert_eq!(server.closed, None);
        assert_eq!(seconds_left(&server), 300);
    }
}

#[test]
fn a_hurried_session_has_a_tenth_of_every_time() {
    let mut server = server();
    server.run();
    server.clock.advance(20 * SECOND);
    // A wait that has begun is shortened too.
    server.session.hurry(true);
    assert_eq!(seconds_left(&server), 10);
    server.session.hurry(false);
    assert_eq!(seconds_left(&server), 280);
    server.session.hurry(true);
    server.feed(b"E");
    assert_eq!(seconds_left(&server), 6);
    server.feed(b"HLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert_eq!(seconds_left(&server), 18);
    assert_eq!(server.session.write_timeout(), 30 * SECOND);
    assert_eq!(server.session.handshake_timeout(), 3 * SECOND);
    // The minimum is now a thousand octets a second.
    for _ in 0..4 {
        server.wait(17 * SECOND);
        server.feed(&b"x".repeat(10_000));
    }
    assert_eq!(server.closed, None);
    for _ in 0..6 {
        server.wait(17 * SECOND);
        server.feed(&b"x".repeat(2_000));
    }
    assert_eq!(server.closed, Some(CloseReason::TooSlow));
}

#[test]
fn a_hurried_session_without_a_message_ends_after_two_minutes() {
    let mut server = server();
    server.feed(b"EHLO c\r\n");
    server.session.hurry(true);
    for _ in 0..4 {
        server.wait(29 * SECOND);
        server.feed(b"NOOP\r\n");
    }
    assert_eq!(seconds_left(&server), 4);
    server.wait(4 * SECOND);
    assert_eq!(server.closed, Some(CloseReason::NoMessage));
}

#[test]
fn a_burst_of_content_pays_for_no_hours_of_silence() {
    let mut server = in_content();
    server.feed(&b"a line of text\r\n".repeat(100_000));
    let begun = server.clock.now();
    while server.closed.is_none() {
        server.wait(170 * SECOND);
        server.feed(b"x");
        assert!(server.clock.now().since(begun) < 600 * SECOND);
    }
    assert_eq!(server.closed, Some(CloseReason::TooSlow));
}

#[test]
fn an_aborted_session_says_421_in_the_middle_of_anything() {
    for (lines, holds) in [
        (&b""[..], 0),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\n", 0),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", 0),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n", 1),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 10\r\n12345", 0),
        (b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\n12345", 0),
        (b"EHLO c\r\nMAI", 0),
    ] {
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.offers.chunking = true;
        let mut server = ServerHarness::new(settings, Transport::Plain);
        server.run();
        let end = lines.len() - if holds > 0 { 3 } else { 0 };
        server.feed(&lines[..end]);
        server.policy.hold(holds);
        server.feed(&lines[end..]);
        let mut out = bytes::BytesMut::new();
        server.session.abort(&mut out);
        assert_eq!(&out[..], b"421 4.3.2 Shutting down, come back later\r\n", "{}", lines.escape_ascii());
        server.session.abort(&mut out);
        server.run();
        assert_eq!(server.closed, Some(CloseReason::Shutdown));
        assert!(out.len() < 50);
    }
}

#[test]
fn octets_move_the_deadline_of_content() {
    let mut server = in_content();
    for _ in 0..3 {
        server.wait(170 * SECOND);
        server.feed(&[b'x'; 50_000]);
        assert_eq!(seconds_left(&server), 180);
    }
    server.wait(180 * SECOND);
    assert_eq!(server.closed, Some(CloseReason::Timeout));
}

#[test]
fn asking_again_without_input_gives_no_more_time() {
    let mut server = in_content();
    server.clock.advance(170 * SECOND);
    assert_eq!(server.run(), Stop::Input);
    assert_eq!(seconds_left(&server), 10);
    // The time until then counts for the rate too.
    server.feed(b"slow");
    assert_eq!(server.closed, Some(CloseReason::TooSlow));
}

#[test]
fn content_has_to_keep_a_minimum_rate_whether_it_is_taken_or_swallowed() {
    for refused in [false, true] {
        let mut server = in_content();
        if refused {
            server.session.refuse_content(refusal("452 4.3.1 No room"));
        }
        for _ in 0..7 {
            server.wait(10 * SECOND);
            server.feed(b"x");
        }
        assert_eq!(server.closed, Some(CloseReason::TooSlow), "refused: {refused}");
        assert!(server.said.ends_with(b"421 4.4.2 Silent for too long\r\n"));
    }
}

#[test]
fn the_peer_is_not_timed_while_the_application_is_asked() {
    let mut server = server();
    server.feed(b"EHLO c\r\n");
    server.policy.hold(1);
    server.feed(b"MAIL FROM:<a@b>\r\n");
    server.clock.advance(299 * SECOND);
    assert_eq!(server.run(), Stop::Answer);
    server.answer(refuse("451 4.3.0 Later")).unwrap();
    server.run();
    assert_eq!(seconds_left(&server), 300);
}

#[test]
fn a_question_keeps_its_deadline_whatever_comes_meanwhile() {
    let mut server = server();
    server.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    server.policy.hold(1);
    server.feed(b"RCPT TO:<a@d>\r\n");
    server.clock.advance(100 * SECOND);
    server.feed(b"RCPT TO:<b@d>\r\nRCPT TO:<c@d>\r\n");
    assert_eq!(seconds_left(&server), 200);
    server.wait(200 * SECOND);
    assert_eq!(server.closed, Some(CloseReason::NoVerdict));
    assert!(server.said.ends_with(b"421 4.3.0 No decision in time, try again later\r\n"));
}

#[test]
fn the_question_of_the_connection_has_a_deadline() {
    let mut server = server();
    server.policy.hold(1);
    assert_eq!(server.run(), Stop::Answer);
    assert_eq!(seconds_left(&server), 300);
    server.wait(300 * SECOND);
    assert_eq!(
        (server.closed, server.said.as_slice()),
        (Some(CloseReason::NoVerdict), &b"421 4.3.0 No decision in time, try again later\r\n"[..])
    );
}

#[test]
fn a_timeout_is_reported_once() {
    let mut server = server();
    server.run();
    server.said.clear();
    server.clock.advance(300 * SECOND);
    let mut out = bytes::BytesMut::new();
    server.session.handle_timeout(server.clock.now(), &mut out);
    let said = out.len();
    assert_eq!(server.session.poll_timeout(), None);
    server.session.handle_timeout(server.clock.now(), &mut out);
    assert_eq!(out.len(), said);
}

fn client_left(client: &ClientHarness) -> Option<u64> {
    client.session.poll_timeout().map(|at| at.since(client.clock.now()).as_secs())
}

#[test]
fn a_client_waits_for_each_reply_and_octets_give_no_more_time() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"");
    assert_eq!(client_left(&client), Some(300));
    client.clock.advance(100 * SECOND);
    client.feed(b"220-still ");
    assert_eq!(client_left(&client), Some(200));
    client.feed(b"here\r\n220 go\r\n");
    assert_eq!(client_left(&client), None, "nothing is due");
    client.send_line("EHLO c").unwrap();
    client.feed(b"250-s\r\n250 PIPELINING\r\n");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.clock.advance(250 * SECOND);
    client.feed(b"250 ok\r\n");
    assert_eq!(client_left(&client), Some(300));
    client.feed(b"250 ok\r\n");
    assert_eq!(client_left(&client), Some(120));
    client.feed(b"354 go\r\n");
    assert_eq!(client_left(&client), None, "the application has the turn");
    client.payload(b"x\r\n", 10).unwrap();
    assert_eq!(client_left(&client), Some(180));
    client.clock.advance(100 * SECOND);
    client.payload(b"y\r\n", 10).unwrap();
    assert_eq!(client_left(&client), Some(180), "each block has its own time");
    client.finish().unwrap();
    assert_eq!(client_left(&client), Some(600));
}

/// The application's time between two calls is not the server's silence, and asking again gives no
/// more time.
#[test]
fn a_server_is_timed_from_the_moment_at_which_it_is_waited_for() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    // A wait always has an end, also for a driver that does not ask before it waits.
    assert_eq!(client_left(&client), Some(300));
    client.clock.advance(290 * SECOND);
    client.feed(b"");
    assert_eq!(client_left(&client), Some(300));
    client.clock.advance(100 * SECOND);
    client.feed(b"");
    assert_eq!(client_left(&client), Some(200), "asked again");
    client.feed(b"250-s\r\n250 PIPELINING\r\n");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
        client.send_line(line).unwrap();
    }
    // Between two replies too.
    client.feed(b"250 ok\r\n");
    client.clock.advance(299 * SECOND);
    client.feed(b"25");
    assert_eq!(client_left(&client), Some(1), "half a reply");
    client.feed(b"0 ok\r\n");
    client.send_line("DATA").unwrap();
    client.clock.advance(1_000 * SECOND);
    client.feed(b"");
    assert_eq!(client_left(&client), Some(120));
    assert!(client.wait(119 * SECOND).is_none() && client.wait(SECOND).is_some());
}

#[test]
fn each_time_of_the_settings_is_that_of_its_reply() {
    let mut settings = ClientSettings::default();
    let timeouts = &mut settings.timeouts;
    timeouts.greeting = SECOND;
    timeouts.command = 2 * SECOND;
    timeouts.mail = 3 * SECOND;
    timeouts.rcpt = 4 * SECOND;
    timeouts.data = 5 * SECOND;
    timeouts.end_of_data = 6 * SECOND;
    timeouts.quit = 7 * SECOND;
    timeouts.write = 8 * SECOND;
    let mut client = ClientHarness::new(settings);
    client.feed(b"");
    assert_eq!(client.session.write_timeout(), 8 * SECOND);
    assert_eq!(client_left(&client), Some(1));
    client.feed(b"220 s\r\n");
    for (line, seconds, reply) in [
        ("EHLO c", 2, "250-s\r\n250 CHUNKING\r\n"),
        ("NOOP", 2, "250 ok\r\n"),
        ("RSET", 2, "250 ok\r\n"),
        ("AUTH LOGIN", 2, "535 no\r\n"),
        ("STARTTLS", 2, "454 no\r\n"),
        ("MAIL FROM:<a@b>", 3, "250 ok\r\n"),
        ("RCPT TO:<c@d>", 4, "250 ok\r\n"),
        ("DATA", 5, "451 later\r\n"),
    ] {
        client.send_line(line).unwrap();
        assert_eq!(client_left(&client), Some(seconds), "{line}");
        client.feed(reply.as_bytes());
    }
    for (last, seconds) in [(false, 2), (true, 6)] {
        client.begin_chunk(3, last).unwrap();
        assert_eq!(client_left(&client), Some(8));
        client.payload(b"x\r\n", 9).unwrap();
        client.finish().unwrap();
        assert_eq!(client_left(&client), Some(seconds));
        client.feed(b"250 ok\r\n");
    }
    client.send_line("QUIT").unwrap();
    assert_eq!(client_left(&client), Some(7));
}
