//! The client's side of BDAT (RFC 3030), against scripted servers.

use std::time::Duration;

use posthaste_session::{ApiMisuse, ClientSettings, PeerMisbehaved, client::BodyKind, table::Phase};
use posthaste_testkit::client::{ClientHarness, Event};

const ALL: &[&str] = &["PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME"];

fn greeted(offers: &[&str], settings: ClientSettings) -> ClientHarness {
    let mut client = ClientHarness::new(settings);
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").expect("it has a place");
    let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
    client.feed(format!("250-s\r\n{lines}250 HELP\r\n").as_bytes());
    client
}

/// A client after an accepted MAIL and RCPT.
fn ready(offers: &[&str], mail: &str) -> ClientHarness {
    let mut client = greeted(offers, ClientSettings::default());
    for line in [mail, "RCPT TO:<c@d>"] {
        client.send_line(line).expect("it has a place");
        client.feed(b"250 ok\r\n");
    }
    client.sent.clear();
    client
}

fn codes(client: &ClientHarness) -> Vec<String> {
    let code = |event: &Event| match event {
        Event::Reply(_, _, octets) | Event::Unasked(octets) => Some(String::from_utf8_lossy(&octets[..3]).into_owned()),
        _ => None,
    };
    client.events.iter().filter_map(code).collect()
}

#[test]
fn the_way_of_the_content_follows_from_the_offers() {
    let off = || {
        let mut settings = ClientSettings::default();
        settings.chunking = false;
        settings
    };
    for (offers, settings, mail, kind) in [
        (&[][..], ClientSettings::default(), "MAIL FROM:<a@b>", BodyKind::Data),
        (&["CHUNKING"], ClientSettings::default(), "MAIL FROM:<a@b>", BodyKind::Chunks),
        (&["CHUNKING"], off(), "MAIL FROM:<a@b>", BodyKind::Data),
        (ALL, off(), "MAIL FROM:<a@b> BODY=8BITMIME", BodyKind::Data),
        (ALL, off(), "MAIL FROM:<a@b> BODY=BINARYMIME", BodyKind::Chunks),
        (ALL, ClientSettings::default(), "MAIL FROM:<a@b> BODY=BINARYMIME", BodyKind::Chunks),
    ] {
        let mut client = greeted(offers, settings);
        client.send_line(mail).unwrap();
        assert_eq!(client.session.body_kind(), kind, "{offers:?} {mail}");
    }
}

#[test]
fn binary_content_goes_by_chunks_or_not_at_all() {
    for offers in [&["CHUNKING"][..], &["BINARYMIME"], &["8BITMIME"], &[]] {
        let mut client = greeted(offers, ClientSettings::default());
        assert_eq!(client.send_line("MAIL FROM:<a@b> BODY=BINARYMIME"), Err(ApiMisuse::NotOffered));
    }
    let mut client = ready(ALL, "MAIL FROM:<a@b> BODY=BINARYMIME");
    assert_eq!(client.send_line("DATA"), Err(ApiMisuse::OutOfOrder));
    let content: Vec<u8> = (0..=255).chain([b'\r']).collect();
    for last in [false, true] {
        client.send_chunk(&content, last, 3).unwrap();
        client.feed(b"250 ok\r\n");
    }
    let expected = [b"BDAT 257\r\n", &content[..], b"BDAT 257 LAST\r\n", &content[..]].concat();
    assert_eq!(client.sent, expected);
    assert_eq!(client.session.phase(), Phase::Ready);
}

#[test]
fn chunks_are_counted_and_not_stuffed() {
    for piece in [1, 2, 1_000] {
        let mut client = ready(ALL, "MAIL FROM:<a@b>");
        client.send_chunk(b".one\r\n.\r", false, piece).unwrap();
        client.send_chunk(b"\n.two\r\n", false, piece).unwrap();
        client.feed(b"250 ok\r\n250 ok\r\n");
        client.send_chunk(b"", true, piece).unwrap();
        assert_eq!(client.sent, b"BDAT 8\r\n.one\r\n.\rBDAT 7\r\n\n.two\r\nBDAT 0 LAST\r\n");
        client.feed(b"250 kept\r\n");
        assert_eq!(client.session.phase(), Phase::Ready);
        client.send_line("MAIL FROM:<a@b>").unwrap();
    }
}

#[test]
fn no_chunk_leaves_before_every_recipient_has_its_answer() {
    let mut client = greeted(ALL, ClientSettings::default());
    assert_eq!(client.begin_chunk(1, true), Err(ApiMisuse::OutOfOrder));
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>"] {
        client.send_line(line).unwrap();
        assert_eq!(client.begin_chunk(1, true), Err(ApiMisuse::NotYet), "{line}");
    }
    client.feed(b"250 ok\r\n250 ok\r\n");
    assert_eq!(client.begin_chunk(1, false), Err(ApiMisuse::NotYet));
    client.feed(b"550 no\r\n");
    client.begin_chunk(1, true).unwrap();

    // No recipient was accepted.
    let mut client = greeted(ALL, ClientSettings::default());
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.send_line("RCPT TO:<c@d>").unwrap();
    client.feed(b"250 ok\r\n550 no\r\n");
    assert_eq!(client.begin_chunk(1, true), Err(ApiMisuse::OutOfOrder));
    client.send_line("RSET").unwrap();
    // CHUNKING was not offered, and `send` does not take the line.
    let mut client = ready(&["PIPELINING"], "MAIL FROM:<a@b>");
    assert_eq!(client.begin_chunk(1, true), Err(ApiMisuse::NotOffered));
    assert_eq!(ready(ALL, "MAIL FROM:<a@b>").send_line("BDAT 5 LAST"), Err(ApiMisuse::OutOfOrder));
}

#[test]
fn chunks_follow_each_other_and_the_last_waits() {
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    let first = client.send_chunk(b"one\r\n", false, 9).unwrap();
    let second = client.send_chunk(b"two\r\n", false, 9).unwrap();
    assert_eq!(client.begin_chunk(5, true), Err(ApiMisuse::NotYet));
    client.feed(b"250 ok\r\n");
    assert!(!client.session.is_unanswered(first) && client.session.is_unanswered(second));
    assert_eq!(client.begin_chunk(5, true), Err(ApiMisuse::NotYet));
    client.feed(b"250 ok\r\n");
    assert_eq!(client.send_line("DATA"), Err(ApiMisuse::OutOfOrder), "the two do not mix");
    client.send_chunk(b"end\r\n", true, 9).unwrap();
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.feed(b"250 kept\r\n250 ok\r\n");
    assert_eq!((client.session.phase(), client.session.accepted_recipients()), (Phase::Mail, 0));

    // One at a time without PIPELINING, and never more than 16.
    let mut client = ready(&["CHUNKING"], "MAIL FROM:<a@b>");
    client.send_chunk(b"one\r\n", false, 9).unwrap();
    assert_eq!(client.begin_chunk(5, false), Err(ApiMisuse::NotYet));
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    let sent = (0..20).take_while(|_| client.send_chunk(b"x\r\n", false, 9).is_ok());
    assert_eq!(sent.count(), 16);
}

#[test]
fn a_refused_chunk_is_followed_by_rset() {
    // The transaction is spoiled, whatever the server says to chunks that were already sent.
    for later in ["554 no", "250 odd"] {
        let mut client = ready(ALL, "MAIL FROM:<a@b>");
        client.send_chunk(b"one\r\n", false, 9).unwrap();
        client.send_chunk(b"two\r\n", false, 9).unwrap();
        client.feed(b"452 full\r\n");
        assert_eq!(client.begin_chunk(5, false), Err(ApiMisuse::OutOfOrder));
        assert_eq!(client.begin_chunk(0, true), Err(ApiMisuse::OutOfOrder));
        let reset = client.send_line("RSET").unwrap();
        client.feed(format!("{later}\r\n").as_bytes());
        assert_eq!(client.session.phase(), Phase::Spoiled);
        client.feed(b"250 reset\r\n");
        assert!(!client.session.is_unanswered(reset));
        assert_eq!(client.session.phase(), Phase::Ready);
        for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
            client.send_line(line).unwrap();
            client.feed(b"250 ok\r\n");
        }
        client.send_chunk(b"whole\r\n", true, 9).unwrap();
    }
    // Only RSET and EHLO lead out.
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.send_chunk(b"one\r\n", false, 9).unwrap();
    client.feed(b"452 full\r\n");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA"] {
        assert_eq!(client.send_line(line), Err(ApiMisuse::OutOfOrder));
    }
    client.send_line("EHLO c").unwrap();
}

#[test]
fn a_chunk_that_is_open_when_another_is_refused_is_still_framed() {
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.send_chunk(b"one\r\n", false, 9).unwrap();
    client.begin_chunk(5, false).unwrap();
    client.payload(b"tw", 9).unwrap();
    client.feed(b"552 full\r\n");
    // RSET would be read as a part of the chunk.
    assert_eq!(client.send_line("RSET"), Err(ApiMisuse::OutOfOrder));
    client.payload(b"o\r\n", 9).unwrap();
    client.finish().unwrap();
    client.send_line("RSET").unwrap();
    assert_eq!(client.sent, b"BDAT 5\r\none\r\nBDAT 5\r\ntwo\r\nRSET\r\n");
    client.feed(b"503 no\r\n250 ok\r\n");
    assert_eq!(client.session.phase(), Phase::Ready);
}

#[test]
fn half_a_chunk_is_not_finished() {
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.begin_chunk(10, true).unwrap();
    client.payload(b"half\r\n", 9).unwrap();
    assert_eq!(client.finish(), Err(ApiMisuse::Unfinished));
    assert_eq!(client.session.body_credit(), Some(4));
    assert!(!client.session.message_in_doubt());
    for line in ["RSET", "QUIT", "MAIL FROM:<a@b>"] {
        assert_eq!(client.send_line(line), Err(ApiMisuse::OutOfOrder));
    }
    assert_eq!(client.begin_chunk(1, true), Err(ApiMisuse::OutOfOrder));
    let eof = client.end_of_input();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (0, false));
    // With the last octet the server has the message, even before the chunk is finished.
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.begin_chunk(3, true).unwrap();
    client.payload(b"x\r\n", 9).unwrap();
    assert!(client.end_of_input().message_in_doubt);
}

#[test]
fn a_chunk_takes_no_octet_more_than_it_has() {
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.begin_chunk(4, true).unwrap();
    let mut segments = posthaste_wire::frame::SegmentList::new();
    let now = client.clock.now();
    assert_eq!(client.session.payload(now, b"ab\r\ncd\r\n", &mut segments), Ok(4));
    assert_eq!(client.session.payload(now, b"cd\r\n", &mut segments), Ok(0));
    assert_eq!(segments.octets(), 4);
}

#[test]
fn unclean_text_leaves_no_more_by_chunks_than_by_data() {
    for chunks in [
        &[&b"a\nb"[..]][..],
        &[b"a\rb"],
        &[b"a\0b"],
        &[b"good\r\n", b"a\n"],
        // A CR is bare at the end of all chunks, but not at the end of one.
        &[b"a\r\n\r"],
        &[b"a\r", b"b"],
        &[b"a\r", b""],
    ] {
        for piece in [1, 100] {
            let mut client = ready(ALL, "MAIL FROM:<a@b>");
            let last = chunks.len() - 1;
            let sent = chunks.iter().enumerate().try_for_each(|(index, chunk)| {
                let sent = client.send_chunk(chunk, index == last, piece).map(drop);
                client.feed(if sent.is_ok() && index != last { b"250 ok\r\n" } else { b"" });
                sent
            });
            assert!(matches!(sent, Err(ApiMisuse::Content(_))), "{chunks:?}");
            assert!(!client.session.message_in_doubt(), "{chunks:?}: the server has no whole message");
            assert_eq!(client.session.phase(), Phase::Closed);
            assert!(!client.sent.ends_with(b"BDAT 0 LAST\r\n"));
        }
    }
}

#[test]
fn the_check_of_content_restarts_with_each_transaction() {
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    client.send_chunk(b"a\r", false, 9).unwrap();
    client.feed(b"452 full\r\n");
    for line in ["RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
        client.send_line(line).unwrap();
        client.feed(b"250 ok\r\n");
    }
    client.send_chunk(b"b\r\n", true, 9).unwrap();
}

#[test]
fn a_server_may_refuse_content_before_its_end() {
    // A refusal in the middle is reported and ends the session. Any other reply is unsolicited.
    let begun = |offers| {
        let mut client = ready(offers, "MAIL FROM:<a@b>");
        if client.session.body_kind() == BodyKind::Chunks {
            client.begin_chunk(100, true).unwrap();
        } else {
            client.send_line("DATA").unwrap();
            client.feed(b"354 go\r\n");
        }
        client.payload(b"some\r\n", 9).unwrap();
        client
    };
    for offers in [ALL, &[]] {
        let mut client = begun(offers);
        client.feed(b"552 5.3.4 too large\r\n");
        assert_eq!(codes(&client).last().unwrap(), "552");
        assert!(client.closed);
        assert_eq!(client.payload(b"more", 9), Err(ApiMisuse::Closed));
        assert_eq!(client.finish(), Err(ApiMisuse::Closed));
        for said in [&b"250 kept\r\n"[..], b"354 more\r\n"] {
            let mut client = begun(offers);
            client.feed(said);
            assert_eq!(client.events.last(), Some(&Event::Misbehaved(PeerMisbehaved::UnsolicitedReply)));
        }
    }
}

#[test]
fn each_block_and_each_reply_has_its_time() {
    const SECOND: Duration = Duration::from_secs(1);
    let left = |client: &ClientHarness| client.session.poll_timeout().map(|at| at.since(client.clock.now()).as_secs());
    let mut client = ready(ALL, "MAIL FROM:<a@b>");
    assert_eq!(left(&client), None);
    client.begin_chunk(10, false).unwrap();
    assert_eq!(left(&client), Some(180));
    client.clock.advance(100 * SECOND);
    client.payload(b"12345", 9).unwrap();
    assert_eq!(left(&client), Some(180));
    client.payload(b"67890", 9).unwrap();
    client.finish().unwrap();
    assert_eq!(left(&client), Some(300));
    // The second chunk is written while the reply to the first is outstanding.
    client.clock.advance(200 * SECOND);
    client.begin_chunk(10, false).unwrap();
    assert_eq!(left(&client), Some(100));
    assert_eq!(client.wait(99 * SECOND), None);
    client.feed(b"250 ok\r\n");
    assert_eq!(left(&client), Some(81));
    client.payload(b"1234567890", 99).unwrap();
    client.finish().unwrap();
    client.feed(b"250 ok\r\n");
    client.send_chunk(b"\r\n", true, 9).unwrap();
    assert_eq!(left(&client), Some(600));
    let eof = client.wait(600 * SECOND).unwrap();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (1, true));
    assert_eq!(client.send_line("NOOP"), Err(ApiMisuse::Closed));
}
