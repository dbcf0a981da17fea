//! Submitted mail gets DKIM signatures in front of it. A signature is the same whenever it is made
//! of the same message at the same time, so the tests make it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use crate::support::{self, Behavior, Client, Hop, Log, Running, envelope, offering, options, relay, run, start};
use bytes::Bytes;
use posthaste_queue::{Owner, memory::MemoryQueue};
use posthaste_relay::{
    AccountTable, DkimOptions, Event, Relay, RelayOptions, SignFor, SignatureError, SubmitError, Unsignable,
    auth::dkim::{KeyRing, SignError, Signer, SignerOptions, SigningKey},
    client::SystemResolver,
};
use posthaste_server::{UnknownUsers, refusal, session::server::Offers, wire::Secret};

const RSA: &[u8] = include_bytes!("../../../auth/tests/keys/rsa-2048.pem");
const ED25519: &[u8] = include_bytes!("../../../auth/tests/keys/ed25519.pem");
const MAIL: &str = "MAIL FROM:<a@b.test>\r\n";
const RECIPIENT: &str = "RCPT TO:<a@d.test>\r\n";
const CONTENT: &str =
    "From: a@b.test\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\nSubject: x\r\n\r\nHello.\r\n";

fn signer() -> Signer {
    let mut ring = KeyRing::new();
    for domain in ["b.test", "relay.test"] {
        for (selector, text) in [("rsa", RSA), ("ed", ED25519)] {
            ring.add(SigningKey::new(domain, selector, text).unwrap()).unwrap();
        }
    }
    Signer::new(ring, SignerOptions::default())
}

pub(crate) fn signing(mut options: RelayOptions) -> RelayOptions {
    options.dkim = Some(DkimOptions::new(signer()));
    options
}

fn with_user(mut options: RelayOptions) -> RelayOptions {
    let mut accounts = AccountTable::new(UnknownUsers::new(Secret::new([7; 32]), 4_096));
    accounts.add("user", "secret").unwrap();
    options.accounts = Some(accounts);
    options
}

/// The signatures in front of a message, and the message.
fn parted(message: &str) -> (&str, &str) {
    let mut at = 0;
    while message[at..].starts_with("DKIM-Signature:") {
        let field = &message[at..];
        // The next line that does not go on.
        let lines = field.match_indices("\r\n").map(|(end, _)| end + 2);
        at += lines.into_iter().find(|next| !field[*next..].starts_with(['\t', ' '])).unwrap();
    }
    message.split_at(at)
}

/// Returns the number of signatures of a message. They are those that its keys make of all that
/// follows our Received field.
#[track_caller]
pub(crate) fn signatures(message: &str) -> usize {
    let (signatures, rest) = parted(message);
    if signatures.is_empty() {
        return 0;
    }
    let time = signatures.split_once("t=").unwrap().1.split_once(';').unwrap().0;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.parse().unwrap());
    let signed = match rest.split_once("+0000\r\n") {
        Some((trace, signed)) if trace.starts_with("Received: ") && trace.contains("by relay.test") => signed,
        _ => rest,
    };
    let expected = signer().sign(signed.as_bytes(), time).unwrap();
    assert_eq!(signatures, expected.iter().map(|signature| signature.as_str()).collect::<String>(), "{signed}");
    expected.len()
}

/// A client that has logged in at a relay that sends its mail to a next hop.
struct Submission {
    client: Client,
    relay: Running,
    hop: Hop,
}

impl Submission {
    async fn new(change: impl FnOnce(&mut RelayOptions)) -> Self {
        Self::to(Hop::start(Behavior::default()).await, change).await
    }

    async fn to(hop: Hop, change: impl FnOnce(&mut RelayOptions)) -> Self {
        let mut options = with_user(signing(options(&[hop.port])));
        change(&mut options);
        let (relay, log) = relay(options);
        let mut client = Client::in_clear(relay.clone(), log.clone()).await;
        // As `user` with the password `secret`.
        assert!(client.talk(&["EHLO c.test\r\n", "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n"]).await.starts_with("235"));
        Self { client, relay: run(relay, log), hop }
    }

    /// Sends a message in pieces of this size, and returns it as it arrives.
    async fn arrives(&mut self, content: &[u8], size: usize) -> String {
        let count = self.hop.count();
        self.client.talk(&[MAIL, RECIPIENT, "DATA\r\n"]).await;
        for piece in content.chunks(size) {
            self.client.send_octets(piece).await;
        }
        let said = self.client.talk(&[".\r\n"]).await;
        assert!(said.starts_with("250"), "{said}");
        self.relay.log.wait("delivered", count + 1).await;
        self.hop.taken().pop().unwrap().text()
    }
}

#[tokio::test]
async fn the_field_of_a_campaign_is_not_signed() {
    let mut submission = Submission::new(|options| {
        options.submission.tag_field = Some("X-Campaign".parse().unwrap());
        options.add_fields = posthaste_relay::AddFields::Submitted;
    })
    .await;
    let content = "From: a@b.test\r\nX-Campaign:\r\n spring\r\nSubject: x\r\n\r\nX-Campaign: body\r\n";
    for size in [1, 20, content.len()] {
        let arrived = submission.arrives(content.as_bytes(), size).await;
        assert_eq!(signatures(&arrived), 2, "{arrived}");
        assert!(!arrived.contains("spring") && !arrived.contains("x-campaign"), "{arrived}");
        assert!(arrived.contains("Message-ID: "), "{arrived}");
        assert!(arrived.ends_with("From: a@b.test\r\nSubject: x\r\n\r\nX-Campaign: body\r\n"), "{arrived}");
    }
}

#[tokio::test]
async fn what_a_user_sends_is_signed_in_every_cut() {
    let mut submission = Submission::new(|_| ()).await;
    for content in [
        CONTENT,
        "From: a@b.test\r\n\r\nno date\r\n",
        "From: a@b.test\r\n",
        "From: a@b.test\r\n\r\n",
        "From: =?utf-8?q?J=C3=BCrgen?= <a@b.test>\r\nSubject: \u{fc}\r\n\r\n\u{fc}  \r\n\r\n\r\n",
        "from: a@B.test\r\nReceived: from x by y; z\r\nSubject: a\r\n b\r\n\r\nx\r\n",
    ] {
        for size in [1, content.len() / 2 + 1, content.len() + 1] {
            let arrived = submission.arrives(content.as_bytes(), size).await;
            assert_eq!(signatures(&arrived), 2, "{content:?} by {size}");
            assert!(arrived.ends_with(content), "{arrived}");
        }
    }
    submission.relay.end().await;
}

#[tokio::test]
async fn the_size_of_a_message_has_its_signatures() {
    let hop = Hop::offering(offering(Offers::default(), |offers| offers.chunking = true)).await;
    let (told, log) = (Arc::new(AtomicU64::new(0)), Log::default());
    let events = {
        let (told, log) = (Arc::clone(&told), log.clone());
        move |event: &Event<'_>| {
            if let Event::Accepted { octets, .. } = event {
                told.store(*octets, SeqCst);
            }
            posthaste_relay::Observer::observe(&log, event);
        }
    };
    let options = signing(options(&[hop.port]));
    let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options).observer(events).build();
    let relay = run(relay, log);
    relay.submit("<a@b.test>", &["<a@d.test>"], CONTENT.as_bytes()).await;
    relay.log.wait("delivered", 1).await;
    let taken = hop.taken().pop().unwrap();
    assert_eq!(signatures(&taken.text()), 2);
    let octets = taken.octets as u64;
    assert!(octets > CONTENT.len() as u64 + 500);
    assert_eq!((taken.envelope.mail.size, told.load(SeqCst)), (Some(octets), octets));
    relay.end().await;
}

#[tokio::test]
async fn a_message_of_a_stranger_is_never_signed() {
    for (sign_for, is_trusted, count) in [
        (SignFor::Submitted, false, 0),
        (SignFor::Submitted, true, 0),
        (SignFor::Trusted, false, 0),
        (SignFor::Trusted, true, 2),
    ] {
        let hop = Hop::start(Behavior::default()).await;
        let mut options = with_user(signing(options(&[hop.port])));
        options.policy.relay_domains.push("d.test".parse().unwrap());
        if is_trusted {
            options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
        }
        options.dkim.as_mut().unwrap().sign_for = sign_for;
        let (relay, log) = relay(options);
        let mut client = Client::with(relay.clone(), log.clone()).await;
        let relay = run(relay, log);
        let content = format!("{CONTENT}.\r\n");
        let said = client.talk(&["EHLO c.test\r\n", MAIL, RECIPIENT, "DATA\r\n", &content]).await;
        assert!(said.starts_with("250"), "{said}");
        relay.log.wait("delivered", 1).await;
        let arrived = hop.taken().pop().unwrap().text();
        assert_eq!(signatures(&arrived), count, "{sign_for:?} {is_trusted}: {arrived}");
        relay.end().await;
    }
}

#[tokio::test]
async fn mail_of_a_domain_without_a_key_and_binary_mail_go_unsigned() {
    let hop = Hop::offering(offering(Offers::default(), |offers| {
        (offers.chunking, offers.binary_mime) = (true, true);
    }))
    .await;
    let relay = start(signing(options(&[hop.port])));
    let other = b"From: a@other.test\r\n\r\nx\r\n";
    relay.submit("<a@b.test>", &["<a@d.test>"], other).await;
    relay.submit("<a@b.test> BODY=BINARYMIME", &["<a@d.test>"], CONTENT.as_bytes()).await;
    relay.log.wait("delivered", 2).await;
    let mut arrived: Vec<String> = hop.taken().iter().map(support::Taken::text).collect();
    arrived.sort_by_key(String::len);
    assert_eq!(arrived, [std::str::from_utf8(other).unwrap(), CONTENT]);
    relay.end().await;
}

const TWO_AUTHORS: &str = "From: a@b.test\r\nDate: x\r\nMessage-ID: <x>\r\nFrom: c@b.test\r\n\r\nx\r\n";

#[tokio::test]
async fn a_message_that_cannot_be_signed_is_refused() {
    let mut submission = Submission::new(|_| ()).await;
    for (content, what) in [
        (TWO_AUTHORS, "the message has 2 From fields, and RFC 5322 section 3.6 demands one"),
        ("Subject: x\r\n\r\nx\r\n", "the message has 0 From fields, and RFC 5322 section 3.6 demands one"),
        ("From: a@b.test, a@c.test\r\n\r\nx\r\n", "the From field has mailboxes of b.test and of c.test"),
        (
            "From: a@b.test\r\nno field\r\n\r\nx\r\n",
            // Date and Message-ID come first.
            "line 4 of the header is no field, which readers understand in different ways",
        ),
    ] {
        let said = submission.client.talk(&[MAIL, RECIPIENT, "DATA\r\n", &format!("{content}.\r\n")]).await;
        assert_eq!(said, format!("554 5.6.0 Not taken, the message cannot be signed: {what}"), "{content}");
    }
    let (mail, relay) = (envelope("<a@b.test>", &["<a@d.test>"]), &submission.relay.relay);
    let refused = relay.submit(Owner::default(), &mail, Bytes::from_static(TWO_AUTHORS.as_bytes())).await;
    let error = SignError::FromFields { count: 2 };
    assert!(
        matches!(&refused, Err(SubmitError::Signature(SignatureError::Signer(found))) if *found == error),
        "{refused:?}"
    );
    assert_eq!((submission.relay.log.count("accepted"), submission.hop.count()), (0, 0));
    // The client goes on.
    assert_eq!(signatures(&submission.arrives(CONTENT.as_bytes(), 1_000).await), 2);
    submission.relay.end().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_signed_goes_unsigned_if_the_options_say_so() {
    let mut submission = Submission::new(|options| options.dkim.as_mut().unwrap().unsignable = Unsignable::Send).await;
    let arrived = submission.arrives(TWO_AUTHORS.as_bytes(), 1_000).await;
    assert!(arrived.starts_with("Received: ") && arrived.ends_with(TWO_AUTHORS), "{arrived}");
    submission.relay.end().await;
}

#[tokio::test]
async fn signatures_that_are_too_long_count_as_a_message_that_cannot_be_signed() {
    let many = format!("{}From: a@b.test\r\n\r\nx\r\n", "List-Unsubscribe-Post: x\r\n".repeat(400));
    let mut submission = Submission::new(|_| ()).await;
    let said = submission.client.talk(&[MAIL, RECIPIENT, "DATA\r\n", &format!("{many}.\r\n")]).await;
    assert!(said.starts_with("554 5.6.0 Not taken, the message cannot be signed: its signatures have "), "{said}");
    assert!(said.ends_with(" octets, and the relay keeps 8192"), "{said}");
    submission.relay.end().await;
}

#[tokio::test]
async fn a_returned_message_begins_with_its_signatures_and_the_report_has_its_own() {
    for (ret, is_whole) in [("RET=FULL", true), ("RET=HDRS", false)] {
        let refuse =
            |path: &str| if path.contains("bad") { Err(refusal!("550 5.1.1 No such mailbox")) } else { Ok(()) };
        let hop = Hop::start(Behavior { rcpt: Box::new(refuse), ..Behavior::default() }).await;
        let relay = start(signing(options(&[hop.port])));
        let mail = format!("<a@b.test> {ret}");
        relay.submit(&mail, &["<bad@d.test>", "<good@d.test>"], CONTENT.as_bytes()).await;
        relay.log.wait("delivered", 2).await;
        let report = hop.reports().pop().unwrap();
        let arrived = hop.mail().pop().unwrap().text();
        assert_eq!((signatures(&report.text()), signatures(&arrived)), (2, 2));
        assert_eq!(report.envelope.mail.size, Some(report.octets as u64));
        let (text, returned) =
            (report.text(), if is_whole { &*arrived } else { arrived.split_once("\r\n\r\n").unwrap().0 });
        assert!(text.contains(&format!("\r\n\r\n{returned}\r\n")), "{text}");
        relay.end().await;
    }
}

/// The report is refused with the message that it returns, and is sent without it.
#[tokio::test]
async fn a_report_that_is_sent_again_without_the_message_is_signed_again() {
    let refuse = |path: &str| if path.contains("bad") { Err(refusal!("550 5.1.1 No such mailbox")) } else { Ok(()) };
    let whole = |taken: &support::Taken| {
        if taken.text().contains("message/rfc822") {
            Err(refusal!("550 5.6.1 No messages in messages"))
        } else {
            Ok(posthaste_server::accepted!("250 2.0.0 Taken"))
        }
    };
    let hop = Hop::start(Behavior { rcpt: Box::new(refuse), message: Box::new(whole), ..Behavior::default() }).await;
    let relay = start(signing(options(&[hop.port])));
    relay.submit("<a@b.test> RET=FULL", &["<bad@d.test>"], CONTENT.as_bytes()).await;
    relay.log.wait("delivered", 1).await;
    let report = hop.reports().pop().unwrap();
    assert_eq!(signatures(&report.text()), 2, "{}", report.text());
    assert_eq!(report.envelope.mail.size, Some(report.octets as u64));
    assert!(report.text().contains("text/rfc822-headers"));
    relay.end().await;
}

/// What a sender that may be forged gets is bounded, its signatures included.
#[tokio::test]
async fn a_report_about_a_strangers_message_is_signed_only_where_that_makes_it_no_larger_than_the_message() {
    for (lines, count) in [(1, 0), (200, 2)] {
        let refuse =
            |path: &str| if path.contains("bad") { Err(refusal!("550 5.1.1 No such mailbox")) } else { Ok(()) };
        let hop = Hop::start(Behavior { rcpt: Box::new(refuse), ..Behavior::default() }).await;
        let mut options = signing(options(&[hop.port]));
        options.policy.relay_domains.push("d.test".parse().unwrap());
        let (relay, log) = relay(options);
        let mut client = Client::with(relay.clone(), log.clone()).await;
        let relay = run(relay, log);
        let content = format!("{CONTENT}{}.\r\n", "The same again, and again.\r\n".repeat(lines));
        client.talk(&["EHLO c.test\r\n", MAIL, "RCPT TO:<bad@d.test>\r\n", "DATA\r\n", &content]).await;
        relay.log.wait("delivered", 1).await;
        let report = hop.reports().pop().unwrap();
        assert_eq!(signatures(&report.text()), count, "{}", report.text());
        assert!(report.octets <= content.len().max(2_048), "{} {}", report.octets, content.len());
        relay.end().await;
    }
}

#[tokio::test]
async fn signed_mail_keeps_what_it_asks_of_the_next_hop() {
    let hop = Hop::offering(offering(Offers::default(), |offers| (offers.smtputf8, offers.dsn) = (true, true))).await;
    let relay = start(signing(options(&[hop.port])));
    let content = "From: a@b.test\r\nSubject: \u{fc}\r\n\r\n\u{fc}\r\n";
    let mail = "<\u{fc}@b.test> SMTPUTF8 BODY=8BITMIME RET=HDRS";
    relay.submit(mail, &["<a@d.test>"], content.as_bytes()).await;
    relay.log.wait("delivered", 1).await;
    let taken = hop.taken().pop().unwrap();
    assert_eq!(signatures(&taken.text()), 2);
    let size = format!("SIZE={} ", taken.octets);
    assert!(taken.mail_parameters().contains(&size), "{}", taken.mail_parameters());
    for parameter in ["BODY=8BITMIME", "SMTPUTF8", "RET=HDRS"] {
        assert!(taken.mail_parameters().contains(parameter), "{}", taken.mail_parameters());
    }
    relay.end().await;
}

#[tokio::test]
async fn many_messages_at_once_are_all_signed() {
    let hop = Hop::start(Behavior::default()).await;
    let (relay, log) = relay(signing(options(&[hop.port])));
    let mail = envelope("<a@b.test>", &["<a@d.test>"]);
    let submitted: Vec<_> = (0..100)
        .map(|_| {
            let (relay, mail) = (relay.clone(), mail.clone());
            tokio::spawn(async move { relay.submit(Owner::default(), &mail, CONTENT).await })
        })
        .collect();
    for each in submitted {
        each.await.unwrap().unwrap();
    }
    let relay = run(relay, log);
    relay.log.wait("delivered", 100).await;
    for taken in hop.taken() {
        assert_eq!(signatures(&taken.text()), 2);
    }
    relay.end().await;
}
