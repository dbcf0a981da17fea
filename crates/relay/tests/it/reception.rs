//! The messages that the relay takes, and those that it refuses.

use std::time::Duration;

use crate::support::{self, Client, Log, options};
use posthaste_client::SystemResolver;
use posthaste_queue::{Queue as _, memory::MemoryQueue};
use posthaste_relay::{Relay, RelayOptions};

#[tokio::test]
async fn a_looping_message_is_refused() {
    let mut client = Client::of(options(&[1])).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (hops, code) in [(100, "554 5.4.6"), (99, "250 2.0.0")] {
        let content = format!("{}\r\nReceived: in the body\r\n.\r\n", "Received: x\r\n".repeat(hops));
        let lines = ["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", &content];
        assert!(client.talk(&lines).await.starts_with(code));
    }
    assert_eq!((client.log.count("accepted"), client.relay.queue().stats().await.messages), (1, 1));
    // A refused message leaves neither room taken in the queue nor recipients.
    assert_eq!(client.relay.queue().stats().await.drafts, 0);
    let elsewhere = ["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<x@else.test>\r\n"];
    assert!(client.talk(&elsewhere).await.starts_with("550 5.7.1"));
}

/// The same options, for clients that may relay.
fn trusting(mut options: RelayOptions) -> RelayOptions {
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    options
}

/// RFC 2852 section 4.1.4.1 asks for a report of a delay, and a stranger causes one report at most.
#[tokio::test]
async fn by_in_mode_n_is_refused_from_strangers() {
    let mut client = Client::of(options(&[1])).await;
    let said = client.talk(&["EHLO c.test\r\n"]).await;
    assert!(said.contains("-DELIVERBY\r"), "{said}");
    for (by, code) in [("100;N", "550 5.7.1"), ("100;NT", "550 5.7.1"), ("-100;N", "550 5.7.1"), ("100;R", "250 ")] {
        let said = client.talk(&[&format!("MAIL FROM:<a@b.test> BY={by}\r\n")]).await;
        assert!(said.starts_with(code), "{by}: {said}");
    }
}

#[tokio::test]
async fn the_relay_offers_every_extension_that_it_honors() {
    let mut client = Client::of(trusting(options(&[1]))).await;
    let said = client.talk(&["EHLO c.test\r\n"]).await + "\r\n";
    for line in [
        "-PIPELINING\r",
        "-SIZE 5",
        "-8BITMIME\r",
        "-ENHANCEDSTATUSCODES\r",
        "-SMTPUTF8\r",
        "-DSN\r",
        "-CHUNKING\r",
        "-BINARYMIME\r",
        "-DELIVERBY\r",
        "-FUTURERELEASE 1000 20",
        "-MT-PRIORITY\r",
        "-RRVS\r",
        " LIMITS RCPTMAX=1000\r",
    ] {
        assert!(said.contains(line), "{line} {said}");
    }
    // REQUIRETLS is not offered outside TLS.
    assert!(!said.contains("REQUIRETLS"));
}

/// RFC 6710 section 4.1: a stranger cannot raise its priority, but every client may lower it.
#[tokio::test]
async fn strangers_cannot_raise_the_priority_of_their_mail() {
    for (trusted, asked, given, said) in [
        (false, "", 0, "250 2.0.0 Queued as "),
        (false, " MT-PRIORITY=0", 0, "250 2.0.0 Queued as "),
        (false, " MT-PRIORITY=3", 0, "250 2.3.6 0 is the priority; queued as "),
        (false, " MT-PRIORITY=-4", -4, "250 2.0.0 Queued as "),
        (true, " MT-PRIORITY=9", 9, "250 2.0.0 Queued as "),
    ] {
        let options = options(&[1]);
        let mut client = Client::of(if trusted { trusting(options) } else { options }).await;
        client.talk(&["EHLO c.test\r\n"]).await;
        let (reply, record) = client.send(&format!("<a@b.test>{asked}")).await;
        assert!(reply.starts_with(said), "{asked} {reply}");
        assert_eq!(client.newest().await.0, given, "{asked}");
        // The next hop gets the priority that was granted.
        let parameter = format!("MT-PRIORITY={given}");
        assert_eq!(record.contains(&parameter), !asked.is_empty(), "{record}");
        assert_eq!(client.log.count("accepted"), 1);
    }
}

/// RFC 4865 section 4.2 and 5.2.2.
#[tokio::test]
async fn a_message_is_held_for_at_most_the_longest_hold() {
    let mut client = Client::of(trusting(options(&[1]))).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let at = |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    for (parameters, code) in [
        ("HOLDFOR=1001".to_owned(), "501 5.5.4"),
        (format!("HOLDUNTIL={}", at(1_100)), "501 5.5.4"),
        ("HOLDFOR=60 BY=59;N".to_owned(), "501 5.5.4"),
        (format!("HOLDUNTIL={} BY=50;R", at(60)), "501 5.5.4"),
        ("HOLDFOR=60 HOLDUNTIL=2020-01-01T00:00:00Z".to_owned(), "501 5.5.4"),
        ("HOLDFOR=60 BY=60;R".to_owned(), "250 2."),
    ] {
        let said = client.talk(&[&format!("MAIL FROM:<a@b.test> {parameters}\r\n")]).await;
        assert!(said.starts_with(code), "{parameters}: {said}");
    }
    client.talk(&["RSET\r\n"]).await;
    for (parameters, seconds) in [
        ("HOLDFOR=900".to_owned(), 900),
        (format!("HOLDUNTIL={}", at(600)), 600),
        (format!("HOLDUNTIL={}", at(-600)), 0),
    ] {
        let (said, _) = client.send(&format!("<a@b.test> {parameters}")).await;
        assert!(said.starts_with("250 2.0.0"), "{said}");
        let due_in = client.newest().await.1.as_secs();
        assert!((seconds.max(2) - 2..=seconds).contains(&due_in), "{parameters}: {due_in}");
    }
}

/// RFC 2852 section 4: the time counts from MAIL, however long the content takes.
#[tokio::test]
async fn the_time_of_by_counts_from_mail() {
    let mut client = Client::of(trusting(options(&[1]))).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (by, said, kept) in
        [("100;RT", "250 2.0.0", Some("BY=98;RT")), ("-5;N", "250", Some("BY=-7;N")), ("1;R", "554 5.4.7", None)]
    {
        let mail = format!("MAIL FROM:<a@b.test> BY={by}\r\n");
        client.talk(&[&mail, "RCPT TO:<a@relay.test>\r\n", "DATA\r\n"]).await;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let reply = client.talk(&["Subject: x\r\n\r\n.\r\n"]).await;
        assert!(reply.starts_with(said), "{by}: {reply}");
        let all = client.relay.queue().list(None, 100).await.unwrap();
        let record = all.last().map(|message| String::from_utf8_lossy(&message.envelope).into_owned()).unwrap();
        assert!(kept.is_none_or(|kept| record.contains(kept)), "{by}: {record}");
        assert_eq!(all.len(), client.log.count("accepted"));
    }
}

/// RFC 3030: octets that DATA could not carry are kept unchanged.
#[tokio::test]
async fn binary_content_is_taken_by_bdat_alone() {
    let mut client = Client::of(options(&[1])).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    let octets = "Content-Transfer-Encoding: binary\r\n\r\nbare\rand\nand \0 and no end";
    let mail = "MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n";
    let said = client.talk(&[mail, "RCPT TO:<a@relay.test>\r\n", "DATA\r\n"]).await;
    assert!(said.starts_with("503 5.5.1"), "{said}");
    let chunk = format!("BDAT {} LAST\r\n{octets}", octets.len());
    let said = client.talk(&["RSET\r\n", mail, "RCPT TO:<a@relay.test>\r\n", &chunk]).await;
    assert!(said.starts_with("250 2.0.0"), "{said}");
    let (record, content) = client.take().await;
    assert!(content.ends_with(octets) && record.contains(" BODY=BINARYMIME"), "{record} {content}");
}

/// RFC 6531 section 4.3, RFC 6710 section 7.
#[tokio::test]
async fn the_received_field_says_how_the_message_came() {
    let mut options = options(&[1]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    let mut client = Client::of(options).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (mail, words) in [
        ("<a@b.test>", ["by relay.test with ESMTP id ", "\r\n\tfor <a@relay.test>;\r\n"]),
        ("<\u{e4}@b.test> SMTPUTF8", ["by relay.test with UTF8SMTP id ", "\r\n\tfor <a@relay.test>;\r\n"]),
        ("<a@b.test> MT-PRIORITY=3", ["with ESMTP id ", "\r\n\tfor <a@relay.test>\r\n\tPRIORITY 3;\r\n"]),
    ] {
        client.send(mail).await;
        let (_, text) = client.take().await;
        assert!(text.starts_with("Received: from c.test ([127.0.0.1])\r\n\t"), "{text}");
        assert!(words.iter().all(|words| text.contains(words)), "{mail}: {text}");
    }
}

/// It is recorded if a message that says SMTPUTF8 has ASCII fields alone. Other records keep their
/// version, which older programs read.
#[tokio::test]
async fn the_version_of_a_record_tells_if_smtputf8_is_not_needed() {
    let mut client = Client::of(options(&[1])).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (parameters, content, version) in [
        (" SMTPUTF8 BODY=8BITMIME", "Subject: x\r\n\r\n\u{e4}\r\n", '\x05'),
        (" SMTPUTF8 BODY=8BITMIME", "Subject: \u{e4}\r\n\r\n\u{e4}\r\n", '\x03'),
        (" SMTPUTF8 BODY=8BITMIME", "Subject: x\r\n\r\nx\r\n", '\x03'),
        (" BODY=8BITMIME", "Subject: x\r\n\r\n\u{e4}\r\n", '\x03'),
    ] {
        let (mail, message) = (format!("MAIL FROM:<a@b.test>{parameters}\r\n"), format!("{content}.\r\n"));
        client.talk(&[&mail, "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", &message]).await;
        let (record, _) = client.take().await;
        assert!(record.starts_with(version), "{parameters} {content}: {record:?}");
    }
}

#[tokio::test]
async fn content_that_begins_with_a_blank_does_not_go_on_in_the_received_field() {
    let mut client = Client::of(options(&[1])).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (content, between) in
        [("\tby b.test\r\n", "\r\n"), (" \r\nx\r\n", "\r\n"), ("\r\n x\r\n", ""), ("X:\r\n y\r\n", "")]
    {
        let message = format!("{content}.\r\n");
        client.talk(&["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", &message]).await;
        let (_, text) = client.take().await;
        let (field, rest) = text.split_once("+0000\r\n").unwrap();
        assert!(field.starts_with("Received: from c.test"), "{text}");
        assert_eq!(rest, format!("{between}{content}"));
    }
}

#[tokio::test]
async fn a_relay_whose_queue_has_stopped_refuses_for_now() {
    let mut client = Client::of(options(&[1])).await;
    client.relay.queue().close().await;
    let lines = ["EHLO c.test\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n"];
    assert!(client.talk(&lines).await.starts_with("451 4.3.0"));
}

/// Records the client of each accepted message, as an application sees it.
#[derive(Debug, Clone, Default)]
struct Clients(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl posthaste_relay::Observer for Clients {
    fn observe(&self, event: &posthaste_relay::Event<'_>) {
        if let posthaste_relay::Event::Accepted { client, .. } = event {
            let client = client.map(|client| {
                let hello = client.hello.as_ref().map(ToString::to_string);
                format!("{} {hello:?} {} {:?}", client.address.ip_or_loopback(), client.tls.is_some(), client.identity)
            });
            self.0.lock().unwrap().push(format!("{client:?}"));
        }
    }
}

#[tokio::test]
async fn the_accepted_event_names_the_client() {
    let seen = Clients::default();
    let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options(&[1])).observer(seen.clone()).build();
    let mut client = Client::with(relay.clone(), Log::default()).await;
    let lines =
        ["EHLO x)(\"evil;\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", "x\r\n.\r\n"];
    assert!(client.talk(&lines).await.starts_with("250"));
    let envelope = support::envelope("<a@b.test>", &["<a@relay.test>"]);
    relay.submit(posthaste_queue::Owner::default(), &envelope, bytes::Bytes::from_static(b"x\r\n")).await.unwrap();
    let expected = "Some(\"127.0.0.1 Some(\\\"x)(\\\\\\\"evil;\\\") false None\")";
    assert_eq!(*seen.0.lock().unwrap(), [expected, "None"]);
}
