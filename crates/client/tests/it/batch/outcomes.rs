//! Refusals, faults and limits in a batch: exactly these outcomes.

use std::{io, time::Duration};

use bytes::Bytes;
use posthaste_client::{Client, Content, Message, Protocol, Tls};
use posthaste_testkit::script::{polite, serve, verb};

use super::{
    OFFERS, message,
    model::{Act, model},
    sent,
};
use crate::support::{connected, letters, options};

async fn run(
    offers: &'static [&'static str],
    recipients: usize,
    act: impl FnMut(usize, &str) -> Option<Act> + Send + 'static,
) -> (Vec<String>, super::model::Taken, posthaste_testkit::script::Heard) {
    let (script, taken) = model(offers, false, act);
    let (stream, heard) = serve(script, None);
    let mut client = connected(stream).await;
    let found = sent(&mut client, (0..5).map(|number| message(number, recipients)).collect()).await;
    taken.check();
    (found, taken, heard)
}

#[tokio::test]
async fn each_message_has_the_outcome_of_its_own_replies() {
    for offers in OFFERS {
        for place in 0..5 {
            for (at, says, expected) in [
                ("", "", "AA"),
                ("MAIL FROM:<m#@", "550 no\r\n", "MM"),
                ("MAIL FROM:<m#@", "450 no\r\n", "MM"),
                ("RCPT TO:<m#r0@", "550 no\r\n", "RA"),
                ("RCPT TO:<m#r1@", "450 no\r\n", "AR"),
                ("RCPT TO:<m#", "550 no\r\n", "RR"),
                ("END m#", "554 no\r\n", "CC"),
                ("END m#", "452 no\r\n", "CC"),
                ("DATA m#", "451 no\r\n", "DD"),
            ] {
                if at.starts_with("DATA") && offers.contains(&"CHUNKING") {
                    continue;
                }
                let at = at.replace('#', &place.to_string());
                let mut now = String::new();
                let act = move |_, line: &str| {
                    if verb(line) == "MAIL" {
                        now = line.split(['<', '@']).nth(1).unwrap().to_owned();
                    }
                    let is_end = matches!(verb(line), "<end>" | "BDAT");
                    let is_there = match at.split_once(' ').filter(|(kind, _)| matches!(*kind, "END" | "DATA")) {
                        Some(("END", name)) => is_end && now == name,
                        Some((_, name)) => line == "DATA" && now == name,
                        None => !at.is_empty() && line.starts_with(&at),
                    };
                    is_there.then_some(Act::Say(says))
                };
                let (found, taken, _) = run(offers, 2, act).await;
                let context = format!("{offers:?} {expected} at {place}");
                for (number, found) in found.iter().enumerate() {
                    let expected = if number == place { expected } else { "AA" };
                    assert_eq!(found, expected, "{context}: {number}");
                    for (rcpt, letter) in expected.chars().enumerate() {
                        assert_eq!(taken.count(number, rcpt), usize::from(letter == 'A'), "{context}: {number}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_content_for_no_recipient_gets_a_lone_dot() {
    let act = |_, line: &str| line.starts_with("RCPT TO:<m1").then_some(Act::Say("550 no\r\n"));
    let (script, taken) = model(&["PIPELINING"], true, act);
    let (stream, heard) = serve(script, None);
    let found = sent(&mut connected(stream).await, (0..4).map(|number| message(number, 2)).collect()).await;
    taken.check();
    assert_eq!(found, ["AA", "RR", "AA", "AA"]);
    assert_eq!(heard.count("<end>"), 4);
    assert_eq!(heard.all().iter().filter(|(_, line)| line.contains("Subject: m1")).count(), 0);
}

/// The commands of the next message come with the content of the one before, and messages by BDAT
/// whole.
#[tokio::test]
async fn a_message_leaves_before_the_outcome_of_the_one_in_front_of_it() {
    for (offers, most_waits) in [(&["PIPELINING"][..], 22), (&["PIPELINING", "CHUNKING"], 6)] {
        // The server answers only when nothing more is to be read: each answer is a round trip.
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(round_trips(theirs, offers));
        let mut client = connected(ours).await;
        let found = sent(&mut client, (0..20).map(|number| message(number, 1)).collect()).await;
        assert_eq!(found, ["A"; 20]);
        client.quit().await;
        let waits = server.await.unwrap();
        assert!(waits <= most_waits + 2, "{offers:?}: {waits} round trips");
    }
}

/// Answers like a server, all that has come at once. Returns the number of round trips after EHLO.
async fn round_trips(mut stream: tokio::io::DuplexStream, offers: &'static [&'static str]) -> usize {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(b"220 mx.test\r\n").await.unwrap();
    let (mut input, mut waits, mut in_content) = (Vec::new(), 0_usize, false);
    loop {
        let mut buffer = vec![0; 1 << 16];
        tokio::time::sleep(Duration::from_millis(5)).await;
        let octets = stream.read(&mut buffer).await.unwrap_or(0);
        if octets == 0 {
            return waits;
        }
        input.extend_from_slice(&buffer[..octets]);
        waits += 1;
        let mut said = String::new();
        while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
            let line = String::from_utf8(input[..end].to_vec()).unwrap();
            let size =
                line.strip_prefix("BDAT ").and_then(|rest| rest.split(' ').next()).map(|size| size.parse::<usize>());
            let size = size.map_or(0, Result::unwrap);
            if input.len() < end + 2 + size {
                break;
            }
            input.drain(..end + 2 + size);
            if in_content {
                if line != "." {
                    continue;
                }
                in_content = false;
            }
            in_content |= line == "DATA";
            said += &polite(&line, offers);
        }
        stream.write_all(said.as_bytes()).await.unwrap();
    }
}

/// Content that ends with an error after some of it.
struct Failing(Vec<io::Result<Bytes>>, Option<u64>);

impl Content for Failing {
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Bytes>>> {
        let next = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        std::task::Poll::Ready(next)
    }

    fn length(&self) -> Option<u64> {
        self.1
    }
}

/// Content that fails: of the others each has its outcome, and none is in doubt.
#[tokio::test]
async fn content_that_fails_leaves_no_other_message_in_doubt() {
    for offers in OFFERS {
        for place in 0..5_usize {
            for (name, letter) in [("error", "L"), ("short", "L"), ("long", "L"), ("not empty", "L"), ("bare LF", "X")]
            {
                let messages = (0..5_usize).map(|number| {
                    let Message { mail, recipients, content, .. } = message(number, 1);
                    let whole = content.len() as u64;
                    let content = match (number == place, name) {
                        (true, "error") => {
                            Failing(vec![Ok(content), Err(io::ErrorKind::BrokenPipe.into())], Some(whole + 1))
                        }
                        (true, "short") => Failing(vec![Ok(content)], Some(whole + 1)),
                        (true, "long") => Failing(vec![Ok(content)], Some(whole - 1)),
                        (true, "not empty") => Failing(vec![Ok(content)], Some(0)),
                        (true, _) => Failing(vec![Ok(Bytes::from_static(b"a\nb\r\n"))], Some(5)),
                        _ => Failing(vec![Ok(content)], Some(whole)),
                    };
                    let mut message = Message::new(mail, recipients.clone(), content).unwrap();
                    message.recipients = recipients;
                    message
                });
                let (script, taken) = model(offers, false, |_, _| None);
                let (stream, _) = serve(script, None);
                let mut client = connected(stream).await;
                let mut batch = client.send_all(messages);
                let mut found = vec![String::new(); 5];
                while let Some((number, sent)) = batch.next().await {
                    assert!(!sent.in_doubt, "{name} {offers:?} {place}: {number}");
                    found[number] = letters(&sent);
                }
                taken.check();
                for (number, found) in found.iter().enumerate() {
                    let context = format!("{name} {offers:?} at {place}: {number} {found:?}");
                    assert_eq!(taken.count(number, 0), usize::from(found == "A"), "{context}");
                    match number.cmp(&place) {
                        std::cmp::Ordering::Less => assert_eq!(found, "A", "{context}"),
                        std::cmp::Ordering::Equal => assert_eq!(found, letter, "{context}"),
                        std::cmp::Ordering::Greater => assert!(matches!(found.as_str(), "A" | "L" | ""), "{context}"),
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn lmtp_has_an_outcome_for_each_recipient_of_each_message() {
    for offers in OFFERS {
        let (mut now, mut accepted) = (0, 0);
        let script = move |_, line: &str| match verb(line) {
            "MAIL" => {
                accepted = 0;
                polite(line, offers)
            }
            "RCPT" if line.contains("m2r0") => "550 no\r\n".to_owned(),
            "RCPT" => {
                accepted += 1;
                polite(line, offers)
            }
            "<end>" | "BDAT" => {
                now += 1;
                let last = if now == 2 { "452 no\r\n" } else { "250 ok\r\n" };
                "250 ok\r\n".repeat(accepted - 1) + last
            }
            _ => polite(line, offers),
        };
        let (stream, _) = serve(script, None);
        let mut options = options(Tls::Off);
        options.protocol = Protocol::Lmtp;
        let mut client = Client::start(stream, "mx.test", &options).await.unwrap();
        let found = sent(&mut client, (0..4).map(|number| message(number, 3)).collect()).await;
        assert_eq!(found, ["AAA", "AAC", "RAA", "AAA"], "{offers:?}");
    }
}

#[tokio::test]
async fn the_limits_of_a_server_hold() {
    for offers in [&["PIPELINING", "LIMITS MAILMAX=3"][..], &["PIPELINING", "CHUNKING", "LIMITS MAILMAX=3"]] {
        let (found, _, heard) = run(offers, 1, |_, _| None).await;
        assert_eq!(found, ["A", "A", "A", "", ""]);
        assert_eq!(heard.count("MAIL"), 3);
    }
    let (found, _, heard) = run(&["PIPELINING", "CHUNKING", "LIMITS RCPTMAX=1"], 2, |_, _| None).await;
    assert_eq!(found, ["AP"; 5]);
    assert_eq!(heard.count("RCPT"), 5);
}

#[tokio::test]
async fn an_iterator_by_reference_keeps_what_was_not_begun() {
    let (stream, _) = serve(|_, line| polite(line, &["PIPELINING", "CHUNKING", "LIMITS MAILMAX=3"]), None);
    let mut client = connected(stream).await;
    let mut messages = (0..5).map(|number| message(number, 1));
    let mut batch = client.send_all(messages.by_ref());
    while batch.next().await.is_some() {}
    assert_eq!(messages.count(), 2);
}

/// Only the domain is outside ASCII, and has A-labels.
#[cfg(feature = "idna")]
#[tokio::test]
async fn a_domain_goes_in_a_labels_to_a_server_without_smtputf8() {
    for (offers, path) in [
        (&[][..], "xn--bcher-kva.test"),
        (&["PIPELINING"], "xn--bcher-kva.test"),
        (&["PIPELINING", "CHUNKING"], "xn--bcher-kva.test"),
        (&["PIPELINING", "CHUNKING", "SMTPUTF8"], "b\u{fc}cher.test"),
    ] {
        let (stream, heard) = serve(move |_, line| polite(line, offers), None);
        let mut client = connected(stream).await;
        let to = ["one@d.test", "you@b\u{fc}cher.test", "y\u{f6}u@d.test", "two@d.test"];
        let messages = (0..4).map(|_| Message::new("me@s.test", to, "Subject: x\r\n\r\n").unwrap());
        let mut batch = client.send_all(messages);
        while let Some((number, sent)) = batch.next().await {
            let expected = if offers.contains(&"SMTPUTF8") { "AAAA" } else { "AAUA" };
            assert_eq!(letters(&sent), expected, "{offers:?} {number}: {sent:?}");
            assert_eq!(sent.recipients[1].path.to_string(), "<you@b\u{fc}cher.test>");
        }
        assert_eq!(heard.count(&format!("RCPT TO:<you@{path}>")), 4, "{offers:?}");
    }
}
