//! A submitted message gets the `Date` and the `Message-ID` that it lacks, and is otherwise
//! unchanged.

use std::collections::HashSet;

use crate::support::{Client, options};
use posthaste_relay::{AddFields, RelayOptions};

const SENDER: &str = "MAIL FROM:<a@b.test> BODY=8BITMIME\r\n";
const RECIPIENT: &str = "RCPT TO:<a@d.test>\r\n";

fn trusting(add_fields: AddFields) -> RelayOptions {
    let mut options = options(&[1]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    options.add_fields = add_fields;
    options
}

/// The fields that were added, and the content after them. It leaves out the Received field.
fn added(content: &str) -> (Vec<&str>, &str) {
    let mut rest = content.split_once("+0000\r\n").unwrap().1;
    let mut fields = Vec::new();
    while let Some((line, behind)) = rest.split_once("\r\n") {
        let ours = line.ends_with("+0000") && line.starts_with("Date: ") || line.ends_with("@relay.test>");
        if !ours {
            break;
        }
        fields.push(line.split_once(": ").unwrap().0);
        rest = behind;
    }
    (fields, rest)
}

const BOTH: &[&str] = &["Date", "Message-ID"];

/// The content that is sent, the fields that it gets, and the octets between them and the content.
const CASES: &[(&str, &[&str], &str)] = &[
    ("Subject: x\r\n\r\nbody\r\n", BOTH, ""),
    ("Date: x\r\nSubject: x\r\n\r\nbody\r\n", &["Message-ID"], ""),
    ("Message-ID: <a@b>\r\n\r\nbody\r\n", &["Date"], ""),
    ("message-id:<a@b>\r\nDATE:x\r\n\r\nDate: body\r\n", &[], ""),
    ("Date : x\r\nMessage-ID\t:\r\n <a@b>\r\n\r\n", &[], ""),
    ("Resent-Date: x\r\nResent-Message-ID: <a@b>\r\n\r\nbody\r\n", BOTH, ""),
    ("Subject: x\r\n Date: folded\r\n\tMessage-ID: folded\r\n\r\nMessage-ID: body\r\n", BOTH, ""),
    ("From: a\r\nSender: b\r\n", BOTH, ""),
    ("Date: x\r\n", &["Message-ID"], ""),
    ("\r\nDate: body\r\n", BOTH, ""),
    ("\r\n", BOTH, ""),
    ("", BOTH, ""),
    ("Hello,\r\nno header at all\r\n", BOTH, "\r\n"),
    (" Date: x\r\n", BOTH, "\r\n"),
    ("Subject: \u{e4}\r\n\r\n\u{e4}\r\n", BOTH, ""),
];

#[tokio::test]
async fn a_submitted_message_gets_the_fields_that_it_lacks() {
    for chunked in [false, true] {
        let mut client = Client::of(trusting(AddFields::Trusted)).await;
        client.talk(&["EHLO c.test\r\n"]).await;
        for (content, fields, between) in CASES {
            // Every octet by itself, halves, and the whole.
            for size in [1, content.len() / 2 + 1, content.len() + 1] {
                let pieces: Vec<_> = content.as_bytes().chunks(size).collect();
                let said = if chunked {
                    client.talk(&[SENDER, RECIPIENT]).await;
                    for piece in pieces {
                        client.chunk(piece, false).await;
                    }
                    client.chunk(b"", true).await
                } else {
                    client.talk(&[SENDER, RECIPIENT, "DATA\r\n"]).await;
                    for piece in pieces {
                        client.send_octets(piece).await;
                    }
                    client.talk(&[".\r\n"]).await
                };
                assert!(said.starts_with("250 2.0.0"), "{content:?}: {said}");
                let (_, taken) = client.take().await;
                let (found, rest) = added(&taken);
                assert_eq!((&found[..], rest), (*fields, &*format!("{between}{content}")), "{content:?} by {size}");
            }
        }
    }
}

#[tokio::test]
async fn content_of_any_octets_gets_the_fields_too() {
    let mut client = Client::of(trusting(AddFields::Trusted)).await;
    let mail = "MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n";
    client.talk(&["EHLO c.test\r\n", mail, RECIPIENT]).await;
    let content = b"Subject: x\r\nDate: x\r\n\r\n\0\n\r.\r\n.";
    assert!(client.chunk(content, true).await.starts_with("250 2.0.0"));
    let (_, taken) = client.take().await;
    assert_eq!(added(&taken), (vec!["Message-ID"], std::str::from_utf8(content).unwrap()));
}

#[tokio::test]
async fn a_header_too_long_to_be_held_back_is_unchanged() {
    let mut client = Client::of(trusting(AddFields::Trusted)).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let line = format!("X: {}\r\n", "x".repeat(95));
    for (lines, fields) in [(600, BOTH), (1_400, &[])] {
        let content = format!("{}\r\nbody\r\n", line.repeat(lines));
        client.talk(&[SENDER, RECIPIENT, "DATA\r\n"]).await;
        // In pieces that each end within the header.
        for piece in content.as_bytes().chunks(30_000) {
            client.send_octets(piece).await;
        }
        assert!(client.talk(&[".\r\n"]).await.starts_with("250"));
        let (_, taken) = client.take().await;
        assert_eq!(added(&taken), (fields.to_vec(), &*content));
    }
}

#[tokio::test]
async fn every_message_gets_its_own_message_id() {
    let mut client = Client::of(trusting(AddFields::Trusted)).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let mut ids = HashSet::new();
    for _ in 0..20 {
        client.talk(&[SENDER, RECIPIENT, "DATA\r\n", "\r\n.\r\n"]).await;
        let (_, taken) = client.take().await;
        let id = taken.lines().find(|line| line.starts_with("Message-ID: <")).unwrap().to_owned();
        assert!(ids.insert(id), "{ids:?}");
    }
}

#[tokio::test]
async fn mail_that_is_only_relayed_is_unchanged() {
    for add_fields in [AddFields::Never, AddFields::Submitted] {
        let mut client = Client::of(trusting(add_fields)).await;
        client.talk(&["EHLO c.test\r\n", SENDER, RECIPIENT, "DATA\r\n", "Subject: x\r\n\r\nbody\r\n.\r\n"]).await;
        let (_, taken) = client.take().await;
        assert_eq!(added(&taken), (vec![], "Subject: x\r\n\r\nbody\r\n"), "{add_fields:?}");
    }
}
