//! The codes that a client accepts as a reply, by exchange.

use posthaste_session::{ClientSettings, PeerMisbehaved, wire::ReplyCode};
use posthaste_testkit::client::{ClientHarness, Event};

/// The exchange, and the 2yz and 3yz of [`CODES`] that fit it. 4yz and 5yz fit every exchange but
/// RSET, which only 421 fits.
const FITTING: &[(&str, &str)] = &[
    ("greeting", "200 211 220 250 251 252 299"),
    ("EHLO", "200 211 250 251 252 299"),
    ("HELO", "200 211 250 251 252 299"),
    ("MAIL", "200 211 250 251 252 299"),
    ("RCPT", "200 211 250 251 252 299"),
    ("DATA", "354"),
    // Any 2yz means that the server has the message.
    ("end of data", "200 211 220 221 235 250 251 252 299"),
    ("chunk", "200 211 250 251 252 299"),
    ("last chunk", "200 211 220 221 235 250 251 252 299"),
    ("RSET", "200 211 250 251 252 299"),
    ("STARTTLS", "220"),
    ("AUTH", "235 334"),
    ("AUTH response", "235 334"),
    ("QUIT", "200 211 221 250 251 252 299"),
    ("NOOP", "200 211 250 251 252 299"),
    // The server greets again, because the client counts as another one.
    ("XCLIENT", "200 211 220 250 251 252 299"),
];

const CODES: &[u16] = &[200, 211, 220, 221, 235, 250, 251, 252, 299, 300, 334, 354, 399];
const REFUSALS: &[u16] = &[421, 450, 451, 499, 500, 502, 503, 535, 554, 599];

/// A client that waits for the reply to this exchange.
fn waiting(place: &str) -> ClientHarness {
    let mut client = ClientHarness::new(ClientSettings::default());
    if place == "greeting" {
        return client;
    }
    client.feed(b"220 s\r\n");
    let line = match place {
        "HELO" => Some("HELO c"),
        "EHLO" => Some("EHLO c"),
        _ => {
            client.send_line("EHLO c").expect("it has a place");
            let offers = if place.ends_with("chunk") { "CHUNKING" } else { "STARTTLS" };
            client.feed(format!("250-s\r\n250-{offers}\r\n250 AUTH LOGIN\r\n").as_bytes());
            None
        }
    };
    let steps: &[&str] = match place {
        "MAIL" => &["MAIL FROM:<a@b>"],
        "RCPT" => &["MAIL FROM:<a@b>", "RCPT TO:<c@d>"],
        "DATA" | "end of data" => &["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA"],
        "chunk" | "last chunk" => &["MAIL FROM:<a@b>", "RCPT TO:<c@d>"],
        "RSET" => &["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RSET"],
        "STARTTLS" => &["STARTTLS"],
        "AUTH" | "AUTH response" => &["AUTH LOGIN"],
        "QUIT" => &["QUIT"],
        "NOOP" => &["NOOP"],
        "XCLIENT" => &["XCLIENT NAME=spike.test"],
        _ => &[],
    };
    for line in line.iter().chain(steps) {
        if client.session.unanswered() > 0 {
            client.feed(b"250 ok\r\n");
        }
        client.send_line(line).expect("it has a place");
    }
    match place {
        "end of data" => {
            client.feed(b"354 go\r\n");
            client.send_content(b"x\r\n", 9).expect("it has a place");
        }
        "chunk" | "last chunk" => {
            client.feed(b"250 ok\r\n");
            client.send_chunk(b"x\r\n", place == "last chunk", 9).expect("it has a place");
        }
        "AUTH response" => {
            client.feed(b"334 \r\n");
            client.respond(Some("eA==")).expect("it has a place");
        }
        _ => {}
    }
    assert_eq!(client.session.unanswered(), 1, "{place}");
    client.events.clear();
    client
}

#[test]
fn each_reply_fits_or_is_an_error() {
    for (place, fitting) in FITTING {
        for code in CODES.iter().chain(REFUSALS) {
            let fits = match code {
                421 => true,
                400.. => *place != "RSET",
                code => fitting.split(' ').any(|fitting| fitting == code.to_string()),
            };
            let mut client = waiting(place);
            client.feed(format!("{code} text\r\n").as_bytes());
            let unfitting = PeerMisbehaved::UnfittingReply(ReplyCode::new(*code).unwrap());
            let error = client.events.contains(&Event::Misbehaved(unfitting));
            assert_eq!(error, !fits, "{code} to {place}: {:?}", client.events);
            // A reply that does not fit leaves the command unanswered, and a message in doubt.
            assert_eq!(client.session.unanswered(), usize::from(!fits), "{code} to {place}");
            let doubt = !fits && (place.starts_with("end") || place.starts_with("last"));
            assert_eq!(client.session.message_in_doubt(), doubt, "{code} to {place}");
        }
    }
}

/// The recipients of the next message would join a transaction that the server did not end.
#[test]
fn no_message_follows_a_reset_that_was_refused() {
    let mut client = ClientHarness::new(ClientSettings::default());
    client.feed(b"220 s\r\n");
    client.send_line("EHLO c").unwrap();
    client.feed(b"250-s\r\n250 PIPELINING\r\n");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
        client.send_line(line).unwrap();
        client.feed(b"250 ok\r\n");
    }
    for line in ["RSET", "MAIL FROM:<e@b>", "RCPT TO:<f@d>", "DATA"] {
        client.send_line(line).unwrap();
    }
    client.feed(b"500 what\r\n503 nested\r\n250 ok\r\n354 go\r\n");
    assert!(!client.events.iter().any(|event| matches!(event, Event::SendBody(_))), "{:?}", client.events);
    assert!(client.closed);
}
