//! The client's side of LMTP (RFC 2033): each accepted recipient has a reply of its own to the end
//! of the content.

use posthaste_session::{ClientSettings, PeerMisbehaved, table::Phase, wire::ReplyCode};
use posthaste_testkit::client::{ClientHarness, Event};

fn greeted(hello: &str, offers: &str) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s LMTP\r\n");
    client.send_line(hello).expect("it has a place");
    client.feed(format!("250-s\r\n{offers}250 PIPELINING\r\n").as_bytes());
    client
}

/// A client after RCPT for four recipients, of which the second was refused.
fn ready(offers: &str) -> ClientHarness {
    let mut client = greeted("LHLO c", offers);
    client.send_line("MAIL FROM:<a@b>").expect("it has a place");
    for name in 0..4 {
        client.send_line(&format!("RCPT TO:<{name}@d>")).expect("it has a place");
    }
    client.feed(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n");
    client
}

fn ends(client: &ClientHarness, from: usize) -> Vec<(Option<u32>, String)> {
    let end = |event: &Event| match event {
        Event::Reply(_, recipient, octets) => Some((*recipient, String::from_utf8_lossy(&octets[..3]).into_owned())),
        _ => None,
    };
    client.events[from..].iter().filter_map(end).collect()
}

#[test]
fn each_accepted_recipient_has_its_reply() {
    for offers in ["", "250-CHUNKING\r\n"] {
        let mut client = ready(offers);
        assert!(client.session.is_lmtp());
        let end = if offers.is_empty() {
            client.send_line("DATA").unwrap();
            client.feed(b"354 go\r\n");
            client.send_content(b"x\r\n", 9).unwrap()
        } else {
            client.send_chunk(b"x\r\n", false, 9).unwrap();
            client.feed(b"250 one reply to a chunk that is not the last\r\n");
            client.send_chunk(b"y\r\n", true, 9).unwrap()
        };
        assert_eq!(client.session.unanswered(), 3);
        let from = client.events.len();
        client.feed(b"250 kept\r\n552 full\r\n");
        assert!(client.session.is_unanswered(end) && client.session.message_in_doubt());
        // The next message may begin before the last reply.
        client.send_line("MAIL FROM:<a@b>").unwrap();
        client.feed(b"451 later\r\n");
        assert!(!client.session.is_unanswered(end) && !client.session.message_in_doubt());
        client.feed(b"250 ok\r\n");
        let expected = [(Some(0), "250"), (Some(2), "552"), (Some(3), "451"), (None, "250")];
        assert_eq!(ends(&client, from), expected.map(|(to, code)| (to, code.to_owned())));
        assert_eq!(client.session.phase(), Phase::Mail);
        client.send_line("RCPT TO:<e@d>").unwrap();
        client.feed(b"250 ok\r\n");
        assert_eq!(client.session.accepted_recipients(), 1);
    }
}

#[test]
fn refused_data_has_one_reply() {
    let mut client = ready("");
    client.send_line("DATA").unwrap();
    client.feed(b"451 later\r\n");
    assert_eq!(client.session.unanswered(), 0);
}

#[test]
fn smtp_has_one_reply_whatever_the_number_of_recipients() {
    let mut client = greeted("EHLO c", "");
    assert!(!client.session.is_lmtp());
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@d>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    client.send_content(b"x\r\n", 9).unwrap();
    client.feed(b"250 kept\r\n250 kept\r\n");
    assert_eq!(client.events.last(), Some(&Event::Misbehaved(PeerMisbehaved::UnsolicitedReply)));
}

#[test]
fn one_reply_too_many_is_unsolicited() {
    let mut client = ready("");
    client.send_line("DATA").unwrap();
    client.feed(b"354 go\r\n");
    client.send_content(b"x\r\n", 9).unwrap();
    client.feed(b"250 kept\r\n250 kept\r\n250 kept\r\n250 kept\r\n");
    assert_eq!(client.events.last(), Some(&Event::Misbehaved(PeerMisbehaved::UnsolicitedReply)));
}

/// A dot after it would have no reply at all (RFC 2033 section 4.2).
#[test]
fn lmtp_data_without_recipients_must_fail() {
    let mut client = greeted("LHLO c", "");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.feed(b"250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(
        client.events.last(),
        Some(&Event::Misbehaved(PeerMisbehaved::UnfittingReply(ReplyCode::new(354).unwrap())))
    );
}

#[test]
fn a_server_that_closes_between_replies_leaves_the_message_in_doubt() {
    let mut client = ready("");
    client.send_line("DATA").unwrap();
    client.feed(b"354 go\r\n");
    client.send_content(b"x\r\n", 9).unwrap();
    client.feed(b"250 kept\r\n");
    let eof = client.end_of_input();
    assert_eq!((eof.unanswered, eof.message_in_doubt), (2, true));
}

#[test]
fn a_refused_lhlo_changes_nothing() {
    let mut client = greeted("EHLO c", "");
    client.send_line("LHLO c").unwrap();
    client.feed(b"500 what\r\n");
    assert!(!client.session.is_lmtp());
    client.send_line("LHLO c").unwrap();
    client.feed(b"250 well\r\n");
    assert!(client.session.is_lmtp());
}

#[test]
fn lhlo_in_clear_does_not_make_a_session_lmtp_inside_tls() {
    let mut client = greeted("LHLO c", "250-STARTTLS\r\n");
    client.send_line("STARTTLS").unwrap();
    client.feed(b"220 go\r\n");
    client.establish_tls();
    assert!(!client.session.is_lmtp());
}
