//! The reports that a sender gets, and how often.

use std::time::Duration;

use crate::support::{Behavior, Hop, Taken, offering, options, start};
use posthaste_relay::{ReportKind, session::server::Offers};
use posthaste_server::{Refusal, accepted, refusal};

const CONTENT: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nthe body\r\n";

/// Takes reports, and refuses other mail, or some of it, in these words.
fn says(refusal: &'static str) -> Behavior {
    Behavior {
        rcpt: Box::new(move |path| match path.ends_with("@s>") {
            true => Ok(()),
            false => Err(Refusal::from_static(refusal)),
        }),
        ..Behavior::default()
    }
}

fn dsn() -> Offers {
    offering(Offers::default(), |offers| offers.dsn = true)
}

fn has(report: &Taken, lines: &[&str]) {
    let text = report.text();
    for line in lines {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
}

/// RFC 3461 sections 5.2.1 and 5.2.2, for a next hop that takes the message.
#[tokio::test]
async fn a_success_is_reported_if_the_next_hop_will_not_report_it() {
    for (offers, mail, rcpt, reported) in [
        (Offers::default(), "<m@s>", "<a@d> NOTIFY=SUCCESS,FAILURE", true),
        (Offers::default(), "<m@s>", "<a@d>", false),
        (Offers::default(), "<m@s>", "<a@d> NOTIFY=FAILURE,DELAY", false),
        (Offers::default(), "<m@s>", "<a@d> NOTIFY=NEVER", false),
        (Offers::default(), "<>", "<a@d> NOTIFY=SUCCESS", false),
        (dsn(), "<m@s>", "<a@d> NOTIFY=SUCCESS", false),
        // RFC 2852 sections 4.1.4 and 4.1.4.2.
        (dsn(), "<m@s> BY=60;N", "<a@d>", true),
        (dsn(), "<m@s> BY=60;N", "<a@d> NOTIFY=NEVER", false),
        (dsn(), "<m@s> BY=-60;N", "<a@d>", false),
        (offering(dsn(), |offers| offers.deliver_by = Some(0)), "<m@s> BY=60;N", "<a@d>", false),
        (offering(dsn(), |offers| offers.deliver_by = Some(0)), "<m@s> BY=60;NT", "<a@d> NOTIFY=FAILURE", true),
        (offering(dsn(), |offers| offers.deliver_by = Some(0)), "<m@s> BY=60;RT", "<a@d> NOTIFY=NEVER", false),
    ] {
        let hop = Hop::offering(offers).await;
        let relay = start(options(&[hop.port]));
        relay.submit(mail, &[rcpt], CONTENT).await;
        relay.log.wait("delivered", if reported { 2 } else { 1 }).await;
        relay.empty().await;
        assert_eq!(relay.log.count("reported"), usize::from(reported), "{mail} {rcpt}");
        if reported {
            assert_eq!(relay.log.of("reported")[0].text, "0 failed, 0 delayed, 1 relayed");
            let report = &hop.reports()[0];
            let code = "Diagnostic-Code: smtp; 250 2.0.0 Taken\r\n";
            has(report, &["Subject: Relayed mail", "Action: relayed\r\nStatus: 2.0.0\r\n", code, "X-Token: 7"]);
            assert!(!report.text().contains("the body"));
        }
        relay.end().await;
    }
}

#[tokio::test]
async fn a_delay_is_reported_once() {
    for (rcpt, told) in
        [("<a@d>", 1), ("<a@d> NOTIFY=DELAY", 1), ("<a@d> NOTIFY=FAILURE", 0), ("<a@d> NOTIFY=NEVER", 0)]
    {
        let hop = Hop::start(says("450 4.2.1 Later\r\n")).await;
        let mut options = options(&[hop.port]);
        options.delivery.retry.warn_after = Some(Duration::from_millis(250));
        let relay = start(options);
        relay.submit("<m@s> ENVID=here", &[rcpt], CONTENT).await;
        relay.log.wait("deferred", 8).await;
        assert_eq!(relay.log.count("reported"), told, "{rcpt} {:?}", relay.log.all());
        if told == 1 {
            relay.log.wait("delivered", 1).await;
            assert_eq!(relay.log.of("reported")[0].text, "0 failed, 1 delayed, 0 relayed");
            let report = &hop.reports()[0];
            has(report, &["Subject: Delayed mail", "Original-Envelope-Id: here\r\n", "Will-Retry-Until: "]);
            has(report, &["Action: delayed\r\nStatus: 4.2.1\r\n", "Diagnostic-Code: smtp; 450 4.2.1 Later\r\n"]);
        }
        relay.end().await;
    }
}

/// A long wait does not delay the warning.
#[tokio::test]
async fn a_delay_is_reported_in_time() {
    let hop = Hop::start(says("450 4.2.1 Later\r\n")).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    options.delivery.retry.warn_after = Some(Duration::from_millis(300));
    let relay = start(options);
    relay.submit("<m@s>", &["<a@d>"], CONTENT).await;
    relay.log.wait("reported", 1).await;
    assert_eq!(relay.log.count("deferred"), 2);
    relay.end().await;
}

#[tokio::test]
async fn delayed_and_failed_recipients_are_in_one_report() {
    let behavior = Behavior {
        rcpt: Box::new(|path| match path {
            "<later@d>" => Err(refusal!("450 4.2.1 Later")),
            "<never@d>" => Err(refusal!("550 5.1.1 Never")),
            _ => Ok(()),
        }),
        ..Behavior::default()
    };
    let hop = Hop::with(0, Offers::default(), Default::default(), behavior).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.warn_after = Some(Duration::ZERO);
    options.delivery.retry.waits = vec![Duration::from_secs(60)];
    let relay = start(options);
    let recipients = ["<later@d>", "<never@d>", "<never@d> NOTIFY=SUCCESS", "<ok@d> NOTIFY=SUCCESS", "<ok@d>"];
    relay.submit("<m@s>", &recipients, CONTENT).await;
    relay.log.wait("delivered", 3).await;
    assert_eq!(relay.log.of("reported")[0].text, "1 failed, 1 delayed, 1 relayed");
    let text = hop.reports()[0].text();
    assert_eq!(text.matches("Final-Recipient: ").count(), 3, "{text}");
    relay.end().await;
}

/// RFC 3461 section 4.3: the whole message if asked for, within the bound.
#[tokio::test]
async fn the_message_is_returned_whole_if_its_sender_asks_for_it() {
    for (mail, at_most, whole) in [
        ("<m@s> RET=FULL", 1_000, true),
        ("<m@s> RET=FULL", 10, false),
        ("<m@s> RET=HDRS", 1_000, false),
        ("<m@s>", 1_000, false),
        ("<m@s> RET=FULL BODY=BINARYMIME", 1_000, false),
    ] {
        let hop = Hop::start(says("550 5.1.1 Never\r\n")).await;
        let mut options = options(&[hop.port]);
        options.delivery.return_at_most = at_most;
        let relay = start(options);
        relay.submit(mail, &["<a@d>"], CONTENT).await;
        relay.log.wait("delivered", 1).await;
        let report = hop.reports()[0].text();
        let kind = if whole { "message/rfc822" } else { "text/rfc822-headers" };
        assert!(report.contains(kind) && report.contains("X-Token: 7"), "{mail} {report}");
        assert_eq!(report.contains("the body"), whole, "{mail} {report}");
        relay.end().await;
    }
}

/// A report asks for no report about itself (RFC 3461 section 6.1).
#[tokio::test]
async fn a_report_has_a_null_sender_and_asks_for_no_report() {
    let hop = Hop::start(says("550 5.1.1 Never\r\n")).await;
    let relay = start(options(&[hop.port]));
    relay.submit("<m@s> RET=FULL ENVID=x BY=60;N", &["<a@d> NOTIFY=SUCCESS,FAILURE,DELAY"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    let report = &hop.reports()[0];
    assert_eq!(report.rcpts(), ["<m@s>"]);
    let parameters = report.mail_parameters();
    assert!(parameters.starts_with("SIZE=") && !parameters.contains(' '), "{parameters}");
    relay.end().await;
}

/// RFC 2852 section 4.1.3, mode R: the relay gives up when the time is over, without another
/// attempt.
#[tokio::test]
async fn by_in_mode_r_returns_a_message_that_is_late() {
    let hop = Hop::with(
        0,
        offering(dsn(), |offers| offers.deliver_by = Some(0)),
        Default::default(),
        says("450 4.2.1 Later\r\n"),
    )
    .await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    let relay = start(options);
    relay.submit("<m@s> BY=1;R", &["<a@d>", "<b@d> NOTIFY=DELAY"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    relay.empty().await;
    assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (2, 2));
    assert_eq!(relay.log.of("reported")[0].text, "1 failed, 0 delayed, 0 relayed");
    let report = &hop.reports()[0];
    has(report, &["Final-Recipient: rfc822; a@d\r\nAction: failed\r\nStatus: 5.4.7\r\n", "Deliver-By-Date: "]);
    has(report, &["Arrival-Date: ", "Diagnostic-Code: smtp; 450 4.2.1 Later\r\n"]);
    relay.end().await;
}

/// The time may run out while the next hop waits with its reply. Then the outcome does not wait for
/// the next attempt.
#[tokio::test]
async fn by_that_ends_within_an_attempt_takes_effect_at_once() {
    for (mail, told) in
        [("<m@s> BY=1;R", "1 failed, 0 delayed, 0 relayed"), ("<m@s> BY=1;N", "0 failed, 1 delayed, 0 relayed")]
    {
        let behavior = Behavior {
            message: Box::new(|taken| match taken.envelope.mail.reverse_path.mailbox() {
                Some(_) => Err(refusal!("450 4.2.1 Later")),
                None => Ok(accepted!("250 ok")),
            }),
            think: Duration::from_millis(1_100),
            ..Behavior::default()
        };
        let hop =
            Hop::with(0, offering(dsn(), |offers| offers.deliver_by = Some(0)), Default::default(), behavior).await;
        let mut options = options(&[hop.port]);
        options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
        let relay = start(options);
        relay.submit(mail, &["<a@d>"], CONTENT).await;
        relay.log.wait("reported", 1).await;
        assert_eq!(relay.log.of("reported")[0].text, told);
        relay.end().await;
    }
}

/// RFC 2852 section 4.1.3, mode N: the sender is told when the time is over, and the attempts go
/// on.
#[tokio::test]
async fn by_in_mode_n_reports_a_late_message_and_goes_on() {
    let hop = Hop::with(
        0,
        offering(dsn(), |offers| offers.deliver_by = Some(0)),
        Default::default(),
        says("450 4.2.1 Later\r\n"),
    )
    .await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.waits = vec![Duration::from_millis(200)];
    let relay = start(options);
    relay.submit("<m@s> BY=1;N", &["<a@d>", "<b@d> NOTIFY=FAILURE"], CONTENT).await;
    relay.log.wait("reported", 1).await;
    let before = relay.log.count("deferred");
    relay.log.wait("deferred", before + 6).await;
    assert_eq!((relay.log.count("reported"), relay.log.count("failed")), (1, 0));
    assert_eq!(relay.log.of("reported")[0].text, "0 failed, 1 delayed, 0 relayed");
    let report = &hop.reports()[0];
    has(report, &["Final-Recipient: rfc822; a@d\r\nAction: delayed\r\nStatus: 4.4.7\r\n", "Will-Retry-Until: "]);
    assert!(!report.text().contains("b@d"));
    relay.end().await;
}

/// The age of a message counts from its release.
#[tokio::test]
async fn the_age_of_a_held_message_counts_from_its_release() {
    let hop = Hop::start(says("450 4.2.1 Later\r\n")).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.expire_after = Duration::from_millis(700);
    options.delivery.retry.warn_after = Some(Duration::from_millis(400));
    let relay = start(options);
    relay.submit("<m@s> HOLDFOR=1", &["<a@d>"], CONTENT).await;
    relay.log.wait("failed", 1).await;
    assert!(relay.log.count("deferred") >= 3, "{:?}", relay.log.all());
    let told: Vec<_> = relay.log.of("reported").into_iter().map(|seen| seen.text).collect();
    assert_eq!(told, ["0 failed, 1 delayed, 0 relayed", "1 failed, 0 delayed, 0 relayed"]);
    relay.log.wait("delivered", 2).await;
    has(&hop.reports()[0], &["Future-Release-Request: for;1\r\n"]);
    relay.end().await;
}

/// The end of the attempts is the expiry of the message, or the end of BY in mode R.
#[tokio::test]
async fn a_delay_report_says_until_when_the_relay_tries() {
    for (mail, expire, until) in
        [("<m@s> BY=100;R", 500, 100), ("<m@s> BY=500;R", 100, 100), ("<m@s> BY=100;N", 500, 500)]
    {
        let hop = Hop::with(
            0,
            offering(dsn(), |offers| offers.deliver_by = Some(0)),
            Default::default(),
            says("450 Later\r\n"),
        )
        .await;
        let mut options = options(&[hop.port]);
        options.delivery.retry.warn_after = Some(Duration::ZERO);
        options.delivery.retry.expire_after = Duration::from_secs(expire);
        let relay = start(options);
        relay.submit(mail, &["<a@d>"], CONTENT).await;
        relay.log.wait("delivered", 1).await;
        let text = hop.reports()[0].text();
        let date = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            jiff::fmt::rfc2822::parse(line.trim()).unwrap().timestamp().as_second()
        };
        assert_eq!(date("Will-Retry-Until:") - date("Arrival-Date:"), until, "{mail} {text}");
        relay.end().await;
    }
}

/// RFC 2852 section 4.1.4: the next hop gets the time that is left.
#[tokio::test]
async fn by_passes_on_the_time_that_is_left() {
    let seen = std::sync::atomic::AtomicBool::new(false);
    let second = Behavior {
        rcpt: Box::new(move |_| match seen.swap(true, std::sync::atomic::Ordering::SeqCst) {
            true => Ok(()),
            false => Err(refusal!("450 4.2.1 Later")),
        }),
        ..Behavior::default()
    };
    let hop = Hop::with(0, offering(dsn(), |offers| offers.deliver_by = Some(0)), Default::default(), second).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.waits = vec![Duration::from_millis(1_200)];
    let relay = start(options);
    relay.submit("<m@s> BY=100;R", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    let by = hop.mail()[0].envelope.mail.by.unwrap();
    assert!((97..=99).contains(&by.seconds), "{by}");
    relay.end().await;
}

#[tokio::test]
async fn a_sender_of_trusted_clients_gets_the_number_of_reports_that_the_options_say() {
    for (most, reported) in [(None, 5), (Some(2), 2), (Some(0), 0)] {
        let hop = Hop::start(says("550 5.1.1 Never\r\n")).await;
        let mut options = options(&[hop.port]);
        options.delivery.trusted_reports = most;
        // Those of strangers are counted apart.
        options.delivery.stranger_reports = 0;
        let relay = start(options);
        for _ in 0..5 {
            relay.submit("<m@s> RET=FULL", &["<a@d>", "<b@e>"], CONTENT).await;
        }
        relay.empty().await;
        assert_eq!(
            (relay.log.count("reported"), relay.log.count("not reported")),
            (reported, 5 - reported),
            "{most:?}"
        );
        assert_eq!(hop.reports().len(), reported);
        assert!(hop.reports().iter().all(|report| report.text().contains("the body")));
        relay.end().await;
    }
}

#[tokio::test]
async fn a_sender_reads_the_words_of_the_operator() {
    let hop = Hop::start(says("550 5.1.1 {until}\r\n")).await;
    let mut options = options(&[hop.port]);
    options.report_words.set_subject(ReportKind::Failed, "Not there: {host_name}").unwrap();
    options.report_words.set_section(ReportKind::Failed, "Sorry:\n{recipients}\n{{until}}").unwrap();
    let relay = start(options);
    relay.submit("<m@s>", &["<a@d>"], CONTENT).await;
    relay.empty().await;
    let report = &hop.reports()[0];
    has(
        report,
        &["Subject: Not there: relay.test\r\n", "Sorry:\r\n  a@d\r\n", "said: 550 5.1.1 {until}\r\n{until}\r\n"],
    );
    relay.end().await;
}
