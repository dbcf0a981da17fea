//! Whole messages by BDAT before the replies to their commands (RFC 3030 section 4.2).

use posthaste_session::{ApiMisuse, ClientSettings, table::Phase};
use posthaste_testkit::client::{ClientHarness, Event};

const ALL: &[&str] = &["PIPELINING", "CHUNKING"];

fn greeted(hello: &str, offers: &[&str]) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line(hello).expect("it has a place");
    let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
    client.feed(format!("250-s\r\n{lines}250 HELP\r\n").as_bytes());
    client.sent.clear();
    client.events.clear();
    client
}

/// Sends a whole message for this number of recipients.
fn message(client: &mut ClientHarness, number: usize, recipients: usize) {
    if number > 0 {
        client.send_line("RSET").unwrap();
    }
    client.send_line(&format!("MAIL FROM:<a{number}@b>")).unwrap();
    for rcpt in 0..recipients {
        client.send_line(&format!("RCPT TO:<c{rcpt}@d>")).unwrap();
    }
    client.send_early_chunk(b"text\r\n", 4).unwrap();
}

/// The first digits of the replies, with the recipients.
fn heard(client: &ClientHarness) -> String {
    let reply = |event: &Event| match event {
        Event::Reply(_, recipient, octets) => {
            let recipient = recipient.map(|recipient| recipient.to_string()).unwrap_or_default();
            format!("{}{recipient} ", char::from(octets[0]))
        }
        other => format!("{other:?} "),
    };
    client.events.iter().map(reply).collect()
}

#[test]
fn whole_messages_leave_back_to_back() {
    let mut client = greeted("EHLO c", ALL);
    (0..3).for_each(|number| message(&mut client, number, 1));
    let expected = "MAIL FROM:<a0@b>\r\nRCPT TO:<c0@d>\r\nBDAT 6 LAST\r\ntext\r\n\
        RSET\r\nMAIL FROM:<a1@b>\r\nRCPT TO:<c0@d>\r\nBDAT 6 LAST\r\ntext\r\n\
        RSET\r\nMAIL FROM:<a2@b>\r\nRCPT TO:<c0@d>\r\nBDAT 6 LAST\r\ntext\r\n";
    assert_eq!(String::from_utf8_lossy(&client.sent), expected);
    client.feed(&b"250 ok\r\n".repeat(11));
    assert_eq!(heard(&client), "2 20 2 2 2 20 2 2 2 20 2 ");
    assert_eq!((client.session.phase(), client.session.message_in_doubt()), (Phase::Ready, false));
}

/// After any replies the phase is the server's, and the next transaction can begin after RSET.
#[test]
fn refusals_leave_the_session_in_step() {
    for replies in 0..=u8::MAX {
        let code = |place: u8| {
            ["250 ok\r\n", "550 no\r\n", "450 no\r\n", "503 no\r\n"][usize::from(replies >> (2 * place) & 3)]
        };
        let mut client = greeted("EHLO c", ALL);
        message(&mut client, 0, 2);
        message(&mut client, 1, 1);
        let said: String = [0, 1, 2, 3].map(code).concat() + &"250 ok\r\n".repeat(4);
        client.feed(said.as_bytes());
        assert_eq!(client.events.len(), 8, "{said}");
        assert_eq!((client.session.unanswered(), client.session.phase()), (0, Phase::Ready), "{said}");
    }
}

#[test]
fn the_phase_stays_that_of_the_server_when_every_recipient_is_refused() {
    let mut client = greeted("EHLO c", ALL);
    message(&mut client, 0, 1);
    client.feed(b"250 ok\r\n550 no\r\n503 no\r\n");
    assert_eq!(client.session.phase(), Phase::Mail);
    assert_eq!(client.send_line("MAIL FROM:<a@b>"), Err(ApiMisuse::OutOfOrder));
    message(&mut client, 1, 1);
}

#[test]
fn misuse_writes_nothing() {
    let begin = |client: &mut ClientHarness| client.send_early_chunk(b"text\r\n", 9).map(drop);
    for (offers, expected) in [
        (&["PIPELINING"][..], ApiMisuse::NotOffered),
        (&["CHUNKING"], ApiMisuse::OutOfOrder),
        (&[], ApiMisuse::NotOffered),
    ] {
        let mut client = greeted("EHLO c", offers);
        client.send_line("MAIL FROM:<a@b>").unwrap();
        if offers.contains(&"PIPELINING") {
            client.send_line("RCPT TO:<c@d>").unwrap();
        }
        client.sent.clear();
        let found = begin(&mut client);
        assert!(found == Err(expected) || found == Err(ApiMisuse::OutOfOrder), "{offers:?} {found:?}");
        assert!(client.sent.is_empty());
    }
    let mut client = greeted("EHLO c", ALL);
    assert_eq!(begin(&mut client), Err(ApiMisuse::OutOfOrder));
    client.send_line("MAIL FROM:<a@b>").unwrap();
    assert_eq!(begin(&mut client), Err(ApiMisuse::OutOfOrder), "no recipient");
    client.send_line("RCPT TO:<c@d>").unwrap();
    client.send_line("DATA").unwrap();
    assert!(begin(&mut client).is_err(), "DATA was sent");
    // The number of replies is not known.
    let mut client = greeted("LHLO c", ALL);
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.send_line("RCPT TO:<c@d>").unwrap();
    assert_eq!(begin(&mut client), Err(ApiMisuse::OutOfOrder));
    // After an odd reply.
    let mut client = greeted("EHLO c", ALL);
    client.send_line("MAIL FROM:<a@b>").unwrap();
    client.send_line("RCPT TO:<c@d>").unwrap();
    client.feed(b"250 odd\n");
    assert_eq!(begin(&mut client), Err(ApiMisuse::NotOffered));
}

#[test]
fn a_421_in_the_middle_ends_the_session() {
    let mut client = greeted("EHLO c", ALL);
    (0..3).for_each(|number| message(&mut client, number, 1));
    client.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n");
    assert_eq!(heard(&client), "2 20 2 2 4 Close ");
    assert!(client.session.message_in_doubt());
}
