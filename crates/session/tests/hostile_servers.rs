//! What a client makes of servers that break the protocol: an error or an outcome, in bounded memory, and nothing after.

use posthaste_session::{ClientSettings, PeerMisbehaved};
use posthaste_testkit::{
    choices::Chunking,
    client::{ClientHarness, Event},
};
use posthaste_wire::reply::{ReplyError, ReplyErrorKind};

const EHLO: &[u8] = b"250-s\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n";

/// A client behind EHLO that has sent these commands.
fn behind(lines: &[&str]) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").expect("EHLO has a place");
    client.feed(EHLO);
    for line in lines {
        client.send_line(line).expect("it has a place");
    }
    client
}

fn misbehaved(client: &ClientHarness) -> PeerMisbehaved {
    match client.events.last() {
        Some(Event::Misbehaved(error)) => *error,
        event => panic!("{event:?}"),
    }
}

#[test]
fn what_is_no_answer() {
    use PeerMisbehaved::{UnfittingReply, UnsolicitedReply};
    let malformed = |kind, line, offset| PeerMisbehaved::Reply(ReplyError { kind, line, offset });
    for (lines, said, error) in [
        (&["NOOP"][..], &b"250-a\r\n550 b\r\n"[..], malformed(ReplyErrorKind::DifferingCodes, 1, 7)),
        (&["NOOP"], b"hello\r\n", malformed(ReplyErrorKind::Code, 0, 0)),
        (&["NOOP"], b"250 a\n", malformed(ReplyErrorKind::LineEnding, 0, 5)),
        (&["NOOP"], b"250 a\r\n250 b\r\n", UnsolicitedReply),
        (&[], b"250 a\r\n", UnsolicitedReply),
        (&["MAIL FROM:<a@b>"], b"354 go\r\n", UnfittingReply),
        (&["MAIL FROM:<a@b>", "RCPT TO:<c@d>"], b"250 ok\r\n354 go\r\n", UnfittingReply),
        (&["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"], b"250 ok\r\n250 ok\r\n250 ok\r\n", UnfittingReply),
        (&["NOOP"], b"334 x\r\n", UnfittingReply),
        (&["QUIT"], b"354 x\r\n", UnfittingReply),
    ] {
        for chunking in Chunking::all(said.len()) {
            let (mut client, mut chunking, mut at) = (behind(lines), chunking, 0);
            while at < said.len() {
                let size = chunking.next(at, said.len() - at);
                client.feed(&said[at..at + size]);
                at += size;
            }
            assert_eq!(misbehaved(&client), error, "{lines:?} {chunking:?}");
        }
    }
}

#[test]
fn endless_replies() {
    for (piece, pieces, kind) in [
        (&b"250-more\r\n"[..], 400_000, ReplyErrorKind::TooManyLines),
        (&[b'2'; 1_000], 40_000, ReplyErrorKind::LineTooLong),
        (&b"250-\r\n"[..], 400_000, ReplyErrorKind::TooManyLines),
        (&[&b"250-"[..], &[b'x'; 994], b"\r\n"].concat(), 4_000, ReplyErrorKind::TooLong),
    ] {
        let mut client = behind(&["NOOP"]);
        let fed = (0..pieces).take_while(|_| {
            client.feed(piece);
            !client.closed
        });
        assert!(fed.count() < 200, "it is stopped early");
        let PeerMisbehaved::Reply(error) = misbehaved(&client) else { panic!("{:?}", misbehaved(&client)) };
        assert_eq!(error.kind, kind);
    }
}

#[test]
fn endless_challenges() {
    let mut client = behind(&["AUTH PLAIN"]);
    for _ in 0..8 {
        client.feed(b"334 Zm9v\r\n");
        client.respond(Some("eA==")).unwrap();
    }
    client.feed(b"334 Zm9v\r\n");
    assert_eq!(misbehaved(&client), PeerMisbehaved::TooManyChallenges);
}

#[test]
fn a_421_ends_it_at_any_place() {
    let commands = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA"];
    let replies = ["250 ok\r\n", "250 ok\r\n", "250 ok\r\n"];
    for answered in 0..=replies.len() {
        let mut client = behind(&commands);
        client.feed(replies[..answered].concat().as_bytes());
        client.feed(b"421 4.3.2 Going away\r\n250 ok\r\n354 go\r\n");
        assert_eq!(client.events.last(), Some(&Event::Close));
        assert!(!client.events.iter().any(|event| matches!(event, Event::SendBody(_))));
        assert_eq!(client.session.unanswered(), commands.len() - answered - 1);
    }
    // Unasked, and as the greeting.
    let mut client = behind(&[]);
    client.feed(b"421 bye\r\n");
    assert!(client.closed);
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"554 no\r\n");
    assert!(client.closed);
}

#[test]
fn a_server_that_closes_leaves_no_doubt_but_the_one_there_is() {
    let commands = ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"];
    let mut client = behind(&commands);
    client.feed(b"250 ok\r\n");
    let eof = client.end_of_input();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (2, false));
    let mut client = behind(&commands);
    client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n");
    let eof = client.end_of_input();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (0, false), "the dot had not left");
    let mut client = behind(&commands);
    client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n");
    client.send_content(b"x\r\n", 9).unwrap();
    let eof = client.end_of_input();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (1, true));
}

#[test]
fn no_recipient_left_and_354_all_the_same_is_a_lone_dot() {
    for replies in ["250 ok\r\n550 no\r\n550 no\r\n354 go\r\n", "550 no\r\n250 odd\r\n250 odd\r\n354 go\r\n"] {
        let mut client = behind(&["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA"]);
        client.sent.clear();
        client.feed(replies.as_bytes());
        assert!(matches!(client.events.last(), Some(Event::SendBody(_))));
        assert_eq!(client.session.accepted_recipients(), 0);
        client.send_content(b"", 1).unwrap();
        assert_eq!(client.sent, b".\r\n");
        client.feed(b"554 no recipients\r\n");
        client.send_line("MAIL FROM:<a@b>").unwrap();
    }
}

#[test]
fn a_flood_of_keywords_is_bounded() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    client.feed([b"250-X\r\n".repeat(127), b"250 X\r\n".to_vec()].concat().as_slice());
    assert_eq!(client.session.capabilities().lines().count(), 64);
}
