//! Replies that are not quite well formed: what comes of each recipient, and of the connection.

use crate::support::{letters, options, send};
use bytes::Bytes;
use posthaste_client::{Client, ClientError, Protocol, RecipientOutcome, Sent, Tls};
use posthaste_testkit::script::{Heard, polite, serve, verb};
use tokio::io::DuplexStream;

const CONTENT: Bytes = Bytes::from_static(b"Subject: x\r\n\r\n.body\r\n");

/// What a server offers, in SMTP and in LMTP.
const OFFERS: &[&[&str]] = &[&[], &["PIPELINING"], &["CHUNKING"], &["PIPELINING", "CHUNKING"]];

type Form = (&'static str, fn(&str) -> String);

/// Ways to say a reply. All of them mean the same.
const FORMS: &[Form] = &[
    ("bare LF", |code| format!("{code} 2.0.0 text\n")),
    ("CR CR LF", |code| format!("{code} text\r\r\n")),
    ("CR in the text", |code| format!("{code} te\rxt\r\n")),
    ("NUL in the text", |code| format!("{code} te\0xt\r\n")),
    ("mixed codes", |code| format!("{}9-a\r\n{code} b\r\n", &code[..2])),
    ("mixed codes, LF", |code| format!("{}9-a\n{code} b\n", &code[..2])),
    ("a tab", |code| format!("{code}\ttext\r\n")),
    ("no space", |code| format!("{code}text\r\n")),
    ("a code and LF", |code| format!("{code}\n")),
    ("a long line", |code| format!("{code} {}\r\n", "x".repeat(3_000))),
    ("many lines", |code| format!("{}{code} x\r\n", format!("{code}-x\r\n").repeat(200))),
    ("an empty line before", |code| format!("\r\n{code} text\r\n")),
    ("an empty line within", |code| format!("{code}-a\r\n\r\n{code} b\r\n")),
];

/// Forms that are not odd.
const PLAIN_FORMS: &[Form] = &[
    ("a code alone", |code| format!("{code}\r\n")),
    ("trailing blanks", |code| format!("{code} text \t \r\n")),
    ("several lines", |code| format!("{code}-a\r\n{code} b\r\n")),
];

async fn start(stream: DuplexStream, protocol: Protocol) -> Client<DuplexStream> {
    let mut options = options(Tls::Off);
    options.protocol = protocol;
    Client::start(stream, "mx.test", &options).await.unwrap()
}

/// One message for three to a server that says this at that point and is polite elsewhere, and a
/// second for one.
async fn exchange(
    protocol: Protocol,
    offers: &'static [&'static str],
    point: &'static str,
    said: String,
) -> (Sent, Sent, Heard) {
    let mut first = true;
    let script = move |_, line: &str| {
        let is_end = line == "<end>" || (verb(line) == "BDAT" && line.ends_with("LAST"));
        let is_point = line == point || verb(line) == point || (is_end && point == "END");
        if is_point && std::mem::take(&mut first) {
            return said.clone();
        }
        match (is_end, protocol) {
            (true, Protocol::Lmtp) => "250 ok\r\n".repeat(3),
            _ => polite(line, offers),
        }
    };
    let (stream, heard) = serve(script, None);
    let mut client = start(stream, protocol).await;
    let sent = send(&mut client, 3, CONTENT).await;
    let again = send(&mut client, 1, CONTENT).await;
    (sent, again, heard)
}

#[tokio::test]
async fn three_digits_decide_at_every_stage_and_the_connection_is_not_used_again() {
    for (name, form) in FORMS {
        for (point, code, outcome, for_good) in [
            ("MAIL", "250", "AAA", false),
            ("MAIL", "450", "MMM", false),
            ("MAIL", "550", "MMM", true),
            ("RCPT TO:<u0@d.test>", "250", "AAA", false),
            ("RCPT TO:<u0@d.test>", "550", "RAA", true),
            ("RCPT TO:<u1@d.test>", "451", "ARA", false),
            ("RCPT TO:<u1@d.test>", "550", "ARA", true),
            ("RCPT TO:<u2@d.test>", "550", "AAR", true),
            ("END", "250", "AAA", false),
            ("END", "220", "AAA", false),
            ("END", "451", "CCC", false),
            ("END", "554", "CCC", true),
        ] {
            for offers in OFFERS {
                let (sent, again, heard) = exchange(Protocol::Smtp, offers, point, form(code)).await;
                let context = format!("{name}: {code} to {point}, {offers:?}: {:?}", sent.broken);
                assert_eq!(letters(&sent), outcome, "{context}");
                assert!(matches!(sent.broken.as_deref(), Some(ClientError::Peer(_))), "{context}");
                assert!(!sent.in_doubt && !sent.chunking_failed, "{context}");
                assert_eq!(
                    sent.recipients.iter().any(|recipient| recipient.outcome.is_permanent()),
                    for_good,
                    "{context}"
                );
                // The message left once, and no other does.
                assert_eq!(letters(&again), "L", "{context}");
                assert_eq!(heard.of(&["MAIL"]).len(), 1, "{context}");
                if point != "MAIL" || code == "250" {
                    assert_eq!(heard.of(&["BDAT", "<end>"]).len(), 1, "{context}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_odd_greeting_or_reply_to_ehlo_or_data_keeps_no_mail_back() {
    for (name, form) in FORMS {
        for (point, code) in [("<connect>", "220"), ("DATA", "354")] {
            let (sent, again, _) = exchange(Protocol::Smtp, &["PIPELINING"], point, form(code)).await;
            assert_eq!((letters(&sent).as_str(), letters(&again).as_str()), ("AAA", "L"), "{name} at {point}");
        }
        let (sent, _, _) = exchange(Protocol::Smtp, &[], "DATA", form("554")).await;
        assert_eq!(letters(&sent), "DDD", "{name}");
        let (sent, _, _) = exchange(Protocol::Smtp, &["PIPELINING"], "DATA", form("451")).await;
        assert_eq!(letters(&sent), "DDD", "{name}");
    }
    for said in [
        "250-mx\r\n\r\n250-PIPELINING\r\n250 SIZE 9999\r\n",
        "250-mx\n250-PIPELINING\n250 SIZE 9999\n",
        "250-mx\r\r\n250-PIPELINING\r\n251 SIZE 9999\r\n",
        "\r\n250-mx\r\n250 PIPELINING\r\n",
        "250-mx\r\n250 PIPELINING\r\n\r\n",
    ] {
        let (sent, again, _) = exchange(Protocol::Smtp, &[], "EHLO", said.to_owned()).await;
        assert_eq!((letters(&sent).as_str(), letters(&again).as_str()), ("AAA", "L"), "{said:?}");
    }
}

#[tokio::test]
async fn a_server_that_knows_no_crlf_gets_its_mail() {
    for offers in OFFERS {
        for protocol in [Protocol::Smtp, Protocol::Lmtp] {
            let script = move |_, line: &str| {
                let is_end = line == "<end>" || verb(line) == "BDAT";
                let said = polite(line, offers).repeat(if is_end && protocol == Protocol::Lmtp { 3 } else { 1 });
                said.replace('\r', "")
            };
            let (stream, heard) = serve(script, None);
            let mut client = start(stream, protocol).await;
            let sent = send(&mut client, 3, CONTENT).await;
            assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("AAA", false), "{protocol:?} {offers:?}");
            assert_eq!(heard.of(&["<end>", "BDAT"]).len(), 1);
        }
    }
}

#[tokio::test]
async fn a_reply_that_is_only_untidy_leaves_the_connection_usable() {
    for (name, form) in PLAIN_FORMS {
        for (point, code, outcome) in [("MAIL", "250", "AAA"), ("RCPT", "550", "RAA"), ("END", "250", "AAA")] {
            let (sent, again, _) = exchange(Protocol::Smtp, &["PIPELINING"], point, form(code)).await;
            assert!(sent.broken.is_none(), "{name} to {point}: {:?}", sent.broken);
            assert_eq!((letters(&sent).as_str(), letters(&again).as_str()), (outcome, "A"), "{name} to {point}");
        }
    }
}

#[tokio::test]
async fn each_reply_of_lmtp_counts_for_its_recipient() {
    for (name, form) in FORMS {
        for offers in OFFERS {
            for (codes, outcome) in
                [(["250", "250", "250"], "AAA"), (["250", "452", "550"], "ACC"), (["550", "250", "250"], "CAA")]
            {
                // All of them odd, and the first alone.
                let all: String = codes.iter().map(|code| form(code)).collect();
                let first = format!("{}{} b\r\n{} c\r\n", form(codes[0]), codes[1], codes[2]);
                for said in [all, first] {
                    let (sent, again, heard) = exchange(Protocol::Lmtp, offers, "END", said).await;
                    let context = format!("{name} {offers:?} {codes:?}: {:?}", sent.broken);
                    assert_eq!((letters(&sent).as_str(), sent.in_doubt), (outcome, false), "{context}");
                    assert!(sent.broken.is_some() && letters(&again) == "L", "{context}");
                    assert_eq!(heard.of(&["MAIL"]).len(), 1, "{context}");
                }
            }
        }
    }
}

/// A reply too many never refuses a recipient whom it was not about.
#[tokio::test]
async fn replies_are_not_moved_on_to_another_recipient() {
    let long = format!("550 {}\r\n", "x".repeat(40_000));
    for (point, said, piped, single) in [
        ("RCPT TO:<u0@d.test>", "250 a\n550 b\r\n", "LLL", "LLL"),
        ("RCPT TO:<u0@d.test>", "550 a\n550 b\r\n", "RLL", "RLL"),
        ("RCPT TO:<u1@d.test>", "550 a\n250 b\r\n", "LRL", "LRL"),
        ("MAIL", "250 a\n550 b\r\n", "LLL", "LLL"),
        ("RCPT TO:<u1@d.test>", "550-a\r\nb\r\n550 c\r\n", "LRL", "LRL"),
        ("RCPT TO:<u1@d.test>", long.as_str(), "LRL", "LRL"),
        ("RCPT TO:<u1@d.test>", "\0\n", "LLL", "LLL"),
        ("RCPT TO:<u1@d.test>", "hello\n", "LLL", "LLL"),
    ] {
        for (offers, expected) in [(&["PIPELINING"][..], piped), (&[], single)] {
            let (sent, again, heard) = exchange(Protocol::Smtp, offers, point, said.to_owned()).await;
            let context = format!("{:?} to {point}, {offers:?}: {:?}", &said[..said.len().min(30)], sent.broken);
            assert_eq!(letters(&sent), expected, "{context}");
            assert!(sent.broken.is_some() && letters(&again) == "L", "{context}");
            assert!(heard.of(&["<end>"]).is_empty(), "{context}");
        }
    }
    // In LMTP, of replies to the content.
    let (sent, _, _) = exchange(Protocol::Lmtp, &[], "END", "250 a\n550 b\r\n250 c\r\n550 d\r\n".to_owned()).await;
    assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("ALL", true));
}

#[tokio::test]
async fn what_was_said_is_told_on_one_line() {
    let (sent, _, _) = exchange(Protocol::Smtp, &[], "END", "554-5.7.1 no\r\r\n554\tth\rank you\n".to_owned()).await;
    let RecipientOutcome::Refused(reply, _) = &sent.recipients[0].outcome else { panic!("{sent:?}") };
    assert_eq!(reply.to_string(), "554 5.7.1 no th?ank you");
    assert_eq!(reply.as_bytes(), b"554-5.7.1 no\r\n554 th?ank you\r\n");
}
