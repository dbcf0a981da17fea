//! The parameters that a next hop gets, by the extensions that it offers.

use std::time::Duration;

use crate::support::{self, Hop, Running, offering, options, start};
use posthaste_relay::session::server::Offers;
use posthaste_testkit::script::Scripted;

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
const UTF8: &[u8] = "Subject: \u{e9}\r\n\r\n\u{e9}\r\n".as_bytes();
const UTF8_BODY: &[u8] = "Subject: x\r\n\r\n\u{e9}\r\n".as_bytes();
const UTF8_PARTS: &[u8] =
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n\r\n\u{e9}\r\n--b--\r\n".as_bytes();
const UTF8_PART: &[u8] =
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: \u{e9}\r\n\r\nx\r\n--b--\r\n".as_bytes();

fn nothing() -> Offers {
    Offers::default()
}

fn dsn() -> Offers {
    offering(Offers::default(), |offers| offers.dsn = true)
}

async fn relay_to(hop: &Hop) -> Running {
    start(options(&[hop.port]))
}

/// The parameters of MAIL and of the one RCPT as they arrive. SIZE is always present, and left out
/// here.
async fn arrives(offers: Offers, mail: &str, rcpt: &str, content: &'static [u8]) -> (String, String) {
    let hop = Hop::offering(offers).await;
    let relay = relay_to(&hop).await;
    relay.submit(mail, &[rcpt], content).await;
    relay.log.wait("delivered", 1).await;
    let taken = &hop.mail()[0];
    let parameters = taken.mail_parameters();
    let parameters: Vec<_> = parameters.split(' ').filter(|parameter| !parameter.starts_with("SIZE=")).collect();
    let answer = (parameters.join(" "), taken.rcpts().join(" "));
    relay.end().await;
    answer
}

#[tokio::test]
async fn each_parameter_goes_to_next_hops_that_offer_its_extension() {
    for (offers, mail, rcpt, told, named) in [
        // RFC 3461 section 5.2.1: the same values, and no others.
        (
            dsn(),
            "<m@s> RET=HDRS ENVID=Q+2Bx",
            "<a@d> NOTIFY=FAILURE,DELAY ORCPT=rfc822;O+2BX@e",
            "RET=HDRS ENVID=Q+2Bx",
            "<a@d> NOTIFY=FAILURE,DELAY ORCPT=rfc822;O+2BX@e",
        ),
        (dsn(), "<m@s>", "<a@d>", "", "<a@d>"),
        (nothing(), "<m@s> RET=HDRS ENVID=Q+2Bx", "<a@d> NOTIFY=FAILURE ORCPT=rfc822;b@e", "", "<a@d>"),
        // RFC 6710 section 4.2: the priority. It is 0 for a message that names none.
        (
            offering(nothing(), |offers| offers.mt_priority = Some(String::new())),
            "<m@s> MT-PRIORITY=-4",
            "<a@d>",
            "MT-PRIORITY=-4",
            "<a@d>",
        ),
        (
            offering(nothing(), |offers| offers.mt_priority = Some(String::new())),
            "<m@s>",
            "<a@d>",
            "MT-PRIORITY=0",
            "<a@d>",
        ),
        (nothing(), "<m@s> MT-PRIORITY=-4", "<a@d>", "", "<a@d>"),
        // RFC 7293 section 5.1.1: a server with RRVS gets it, action and all. A server without gets
        // no RRVS, if the sender permits that.
        (
            offering(nothing(), |offers| offers.rrvs = true),
            "<m@s>",
            "<a@d> RRVS=2014-04-03T23:01:00Z;C",
            "",
            "<a@d> RRVS=2014-04-03T23:01:00Z;C",
        ),
        (nothing(), "<m@s>", "<a@d> RRVS=2014-04-03T23:01:00Z;C", "", "<a@d>"),
        // The hold happens at this relay.
        (
            offering(nothing(), |offers| offers.future_release = Some(1_000_000)),
            "<m@s> HOLDFOR=1",
            "<a@d>",
            "",
            "<a@d>",
        ),
        // All of it is ASCII, so that every next hop can take it.
        (nothing(), "<m@s> SMTPUTF8", "<a@d>", "", "<a@d>"),
        (offering(nothing(), |offers| offers.smtputf8 = true), "<m@s> SMTPUTF8", "<a@d>", "SMTPUTF8", "<a@d>"),
        (nothing(), "<m@\u{e4}.test> SMTPUTF8", "<a@d>", "", "<a@d>"),
    ] {
        let arrived = arrives(offers, mail, rcpt, CONTENT).await;
        assert_eq!((&*arrived.0, &*arrived.1), (told, named), "{mail} {rcpt}");
    }
}

#[tokio::test]
async fn internationalized_mail_goes_unchanged_to_a_hop_with_smtputf8() {
    let offers = offering(dsn(), |offers| offers.smtputf8 = true);
    let (mail, rcpt) = arrives(
        offers,
        "<m\u{e9}@s> SMTPUTF8 BODY=8BITMIME",
        "<\u{7528}\u{6237}@b\u{fc}cher.test> ORCPT=utf-8;\u{7528}\u{6237}@b\u{fc}cher.test",
        UTF8,
    )
    .await;
    assert_eq!(mail, "BODY=8BITMIME SMTPUTF8");
    assert_eq!(rcpt, "<\u{7528}\u{6237}@b\u{fc}cher.test> ORCPT=utf-8;\u{7528}\u{6237}@b\u{fc}cher.test");
}

/// RFC 6531 section 3.6: MAIL may say SMTPUTF8 of a message that needs only 8BITMIME.
#[tokio::test]
async fn mail_with_an_8_bit_body_alone_goes_to_a_next_hop_without_smtputf8() {
    let offers = || offering(nothing(), |offers| offers.smtputf8 = true);
    for (offers, mail, content, told) in [
        (nothing(), "<m@s> SMTPUTF8 BODY=8BITMIME", UTF8_BODY, "BODY=8BITMIME"),
        (nothing(), "<m@\u{e4}.test> SMTPUTF8", UTF8_PARTS, "BODY=8BITMIME"),
        (offers(), "<m@s> SMTPUTF8 BODY=8BITMIME", UTF8_BODY, "BODY=8BITMIME SMTPUTF8"),
        (offers(), "<m@s> SMTPUTF8 BODY=8BITMIME", UTF8, "BODY=8BITMIME SMTPUTF8"),
    ] {
        let arrived = arrives(offers, mail, "<a@d>", content).await;
        assert_eq!((&*arrived.0, &*arrived.1), (told, "<a@d>"), "{mail}");
    }
}

/// A message that a next hop cannot take fails at once, in these words, and the sender gets a
/// report.
#[tokio::test]
async fn a_message_that_a_next_hop_cannot_take_is_reported_at_once() {
    for (offers, mail, rcpt, content, status) in [
        (nothing(), "<m@s> SMTPUTF8 BODY=8BITMIME", "<a@d>", UTF8, "5.6.7"),
        (nothing(), "<m@s> SMTPUTF8", "<\u{e4}@d>", CONTENT, "5.6.7"),
        (nothing(), "<m@s> SMTPUTF8 BODY=8BITMIME", "<a@d>", UTF8_PART, "5.6.7"),
        (nothing(), "<m@s> SMTPUTF8 BODY=8BITMIME", "<\u{e4}@d>", UTF8_BODY, "5.6.7"),
        (nothing(), "<m@s> BODY=BINARYMIME", "<a@d>", CONTENT, "5.6.3"),
        (offering(nothing(), |offers| offers.chunking = true), "<m@s> BODY=BINARYMIME", "<a@d>", CONTENT, "5.6.3"),
        (nothing(), "<m@s> BY=60;R", "<a@d>", CONTENT, "5.4.7"),
        (offering(nothing(), |offers| offers.deliver_by = Some(100)), "<m@s> BY=60;R", "<a@d>", CONTENT, "5.4.7"),
        (nothing(), "<m@s> REQUIRETLS", "<a@d>", CONTENT, "5.7.10"),
        (nothing(), "<m@s>", "<a@d> RRVS=2014-04-03T23:01:00Z", CONTENT, "5.7.19"),
        (nothing(), "<m@s>", "<a@d> RRVS=2014-04-03T23:01:00Z;R", CONTENT, "5.7.19"),
    ] {
        let hop = Hop::offering(offers).await;
        let relay = relay_to(&hop).await;
        relay.submit(mail, &[rcpt], content).await;
        relay.log.wait("reported", 1).await;
        relay.log.wait("delivered", 1).await;
        assert_eq!(relay.log.of("failed")[0].text.get(..status.len()), Some(status), "{mail}");
        assert_eq!((hop.mail().len(), relay.log.count("deferred")), (0, 0), "{mail}");
        let report = hop.reports()[0].text();
        assert!(report.contains(&format!("Action: failed\r\nStatus: {status}\r\n")), "{report}");
        relay.end().await;
    }
}

/// A recipient that cannot be named fails alone. One whose domain alone is not ASCII is named by
/// its A-labels.
#[tokio::test]
async fn recipients_outside_ascii_fail_one_by_one() {
    let hop = Hop::offering(nothing()).await;
    let relay = relay_to(&hop).await;
    let recipients = ["<a@b\u{fc}cher.test>", "<\u{e4}@xn--bcher-kva.test>", "<b@xn--bcher-kva.test>"];
    relay.submit("<m@s> SMTPUTF8", &recipients, CONTENT).await;
    relay.log.wait("delivered", 3).await;
    // Both forms of the domain are one destination.
    assert_eq!(hop.mail().len(), 1);
    assert_eq!(hop.mail()[0].rcpts(), ["<a@xn--bcher-kva.test>", "<b@xn--bcher-kva.test>"]);
    let report = hop.reports()[0].text();
    assert!(report.contains("Final-Recipient: utf-8; \\x{E4}@xn--bcher-kva.test\r\n"), "{report}");
    assert_eq!(relay.log.count("failed"), 1);
    relay.end().await;
}

#[tokio::test]
async fn a_report_to_a_sender_outside_ascii_goes_by_smtputf8() {
    let hop = Hop::offering(offering(nothing(), |offers| {
        offers.smtputf8 = true;
        offers.dsn = true;
    }))
    .await;
    let relay = relay_to(&hop).await;
    relay.submit("<m\u{e9}@s> SMTPUTF8 BODY=BINARYMIME", &["<\u{e4}@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    let report = &hop.reports()[0];
    assert!(report.envelope.mail.smtputf8, "{}", report.mail_parameters());
    let text = report.text();
    for line in ["To: <m\u{e9}@s>", "message/global-delivery-status", "Final-Recipient: utf-8; \u{e4}@d"] {
        assert!(text.contains(line), "{line} {text}");
    }
    relay.end().await;
}

/// DATA could not carry these octets.
#[tokio::test]
async fn binary_content_arrives_unchanged() {
    const BINARY: &[u8] = b"Content-Transfer-Encoding: binary\r\n\r\nbare\rand\nand \0 and no end";
    let hop = Hop::offering(offering(nothing(), |offers| offers.binary_mime = true)).await;
    let relay = relay_to(&hop).await;
    relay.submit("<m@s> BODY=BINARYMIME", &["<a@d>"], BINARY).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(
        (hop.mail()[0].start.as_slice(), hop.mail()[0].mail_parameters().contains("BINARYMIME")),
        (BINARY, true)
    );
    relay.end().await;
}

/// Content declared as 8-bit that is ASCII goes to hosts without 8BITMIME. Real 8-bit content does
/// not.
#[tokio::test]
async fn seven_bit_content_goes_to_every_hop_whatever_its_declaration() {
    let hop = Scripted::polite().await;
    let relay = start(options(&[hop.port]));
    relay.submit("<m@s> BODY=8BITMIME", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    relay.submit("<> BODY=8BITMIME", &["<b@d.test>"], UTF8).await;
    relay.log.wait("failed", 1).await;
    assert_eq!((hop.count("MAIL FROM:<m@s>"), hop.count("<end>")), (1, 1), "{:?}", hop.heard.all());
    relay.end().await;
}

#[tokio::test]
async fn a_held_message_is_sent_when_its_hold_ends() {
    let hop = Hop::offering(dsn()).await;
    let relay = relay_to(&hop).await;
    relay.submit("<later@s> HOLDFOR=2", &["<a@d>"], CONTENT).await;
    relay.submit("<now@s>", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(relay.log.count("delivered"), 1);
    relay.log.wait("delivered", 2).await;
    let senders: Vec<_> = hop.mail().iter().map(|taken| taken.envelope.mail.reverse_path.to_string()).collect();
    assert_eq!(senders, ["<now@s>", "<later@s>"]);
    relay.end().await;
}

/// Of the messages that wait, the one with the highest priority goes first (RFC 6710 section 5.1).
#[tokio::test]
async fn the_message_with_the_highest_priority_goes_first() {
    let hop = Hop::offering(nothing()).await;
    let mut options = options(&[hop.port]);
    options.delivery.concurrency_per_site = 1;
    let (relay, log) = support::relay(options);
    for priority in [0, -3, 5, 9, 1] {
        let mail = format!("<p{priority}@s> MT-PRIORITY={priority}");
        support::submit(&relay, &mail, &["<a@d>"], CONTENT).await;
    }
    let relay = support::run(relay, log);
    relay.log.wait("delivered", 5).await;
    let order: Vec<_> = hop.mail().iter().map(|taken| taken.envelope.mail.reverse_path.to_string()).collect();
    assert_eq!(order, ["<p9@s>", "<p5@s>", "<p1@s>", "<p0@s>", "<p-3@s>"]);
    relay.end().await;
}
