//! A refusal by the next hop becomes a report to the sender that says what happened, field by
//! field.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::client::{Smtp, submit};
use support::relay::{Config, Relay};
use support::sink::{Sink, SinkOptions, Taken};
use support::{json, python, run, token};

#[test]
fn a_refused_recipient_is_reported() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule(
        "rcpt",
        &json!(["reply", format!("550 5.1.1 nobody of that name {token}words")]),
        Some(&format!("rcp-{token}")),
        None,
    );
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    submit(relay.port, &token);
    let report = report_to(&mut sink, &token);
    let fields =
        check(&report, &token, &["--reply-text", &format!("nobody of that name {token}words"), "--code", "550"]);
    assert!(fields["status"].as_str().is_some_and(|status| status.starts_with("5.1.1")), "{fields}");
    relay.wait_queued(0);
}

#[test]
fn a_refusal_at_the_end_of_data_is_reported() {
    let mut sink = Sink::start();
    let token = token();
    let words = format!("554-5.7.1 two lines of it\r\n554 5.7.1 {token}words");
    sink.rule("eod", &json!(["reply", words]), Some(&format!("rcp-{token}")), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    submit(relay.port, &token);
    let report = report_to(&mut sink, &token);
    let fields = check(&report, &token, &["--reply-text", &format!("{token}words"), "--code", "554"]);
    assert!(fields["status"].as_str().is_some_and(|status| status.starts_with("5.7.1")), "{fields}");
    relay.wait_queued(0);
}

#[test]
fn one_refused_recipient_of_two_is_reported_and_the_other_delivered() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", format!("550 5.1.1 {token}words")]), Some(&format!("TO:<rcp-{token}")), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut client = Smtp::ehlo(relay.port);
    client.expect(&format!("MAIL FROM:<snd-{token}@sender.test>"), 250);
    client.expect(&format!("RCPT TO:<good-{token}@dest.test>"), 250);
    client.expect(&format!("RCPT TO:<rcp-{token}@dest.test>"), 250);
    client.expect("DATA", 354);
    client.send(support::data(&token));
    assert_eq!(client.reply().code, 250);
    let report = report_to(&mut sink, &token);
    check(&report, &token, &["--reply-text", &format!("{token}words")]);
    let delivered: Vec<Taken> =
        sink.wait(&token, 2).into_iter().filter(|taken| !taken.reverse_path.is_empty()).collect();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].recipients.len(), 1);
    assert_eq!(delivered[0].recipients[0].0, format!("good-{token}@dest.test"));
}

#[test]
fn a_report_that_cannot_be_delivered_is_not_reported() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", "550 5.1.1 nobody"]), Some(&token), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    // Its report would go to snd-TOKEN, who is refused as well.
    submit(relay.port, &token);
    // And a message with the null reverse-path, to which no report goes.
    let mut client = Smtp::ehlo(relay.port);
    client.open("", &format!("rcp-{token}@dest.test"));
    client.send(support::data(&token));
    assert_eq!(client.reply().code, 250);
    relay.wait_queued(0);
    assert!(sink.wait_within(&token, 1, Duration::from_secs(2)).is_empty(), "no report is sent");
}

#[test]
fn a_message_that_is_given_up_is_reported() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", format!("451 4.3.0 later, {token}words")]), Some(&format!("rcp-{token}")), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], expire_after: "4s", ..Config::default() });
    submit(relay.port, &token);
    let report = report_to(&mut sink, &token);
    // RFC 3464: failed, with the status as it was last seen or the one for a delivery time that
    // expired.
    check(&report, &token, &["--class", "[45]", "--code", "451", "--reply-text", &format!("{token}words")]);
    relay.wait_queued(0);
}

#[test]
fn a_next_hop_that_cannot_be_reached_is_reported() {
    let mut sink = Sink::start();
    let token = token();
    let relay =
        Relay::start(&Config { next_hops: vec![sink.port], gone: true, expire_after: "3s", ..Config::default() });
    let mut client = Smtp::ehlo(relay.port);
    client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@gone.test"));
    client.send(support::data(&token));
    assert_eq!(client.reply().code, 250);
    let report = report_to(&mut sink, &token);
    let fields = check(&report, &token, &["--class", "[45]"]);
    assert!(
        fields["status"].as_str().is_some_and(|status| status[1..].starts_with(".4.")),
        "a status of the network: {fields}"
    );
    relay.wait_queued(0);
}

#[test]
fn a_delay_is_reported() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", format!("451 4.3.0 later, {token}words")]), Some(&format!("rcp-{token}")), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], warn_after: "2s", ..Config::default() });
    submit(relay.port, &token);
    let report = report_to(&mut sink, &token);
    let words = format!("{token}words");
    let fields =
        check(&report, &token, &["--action", "delayed", "--class", "4", "--code", "451", "--reply-text", &words]);
    assert!(fields["will-retry-until"].is_string(), "{fields}");
    relay.wait_queued(1);
}

#[test]
fn a_success_is_reported_if_the_next_hop_has_no_dsn() {
    let mut sink = Sink::with(SinkOptions { bare: true, ..SinkOptions::default() });
    let token = token();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut client = Smtp::ehlo(relay.port);
    client.expect(&format!("MAIL FROM:<snd-{token}@sender.test> ENVID=E{token}+2B"), 250);
    client.expect(&format!("RCPT TO:<rcp-{token}@dest.test> NOTIFY=SUCCESS ORCPT=rfc822;O+2B{token}@first.test"), 250);
    client.expect("DATA", 354);
    client.send(support::data(&token));
    assert_eq!(client.reply().code, 250);
    let report = report_to(&mut sink, &token);
    let fields = check(&report, &token, &["--action", "relayed", "--class", "2"]);
    assert_eq!(fields["original-recipient"], format!("rfc822; O+{token}@first.test"));
    assert!(String::from_utf8_lossy(&report.data).contains(&format!("Original-Envelope-Id: E{token}+\r\n")));
    relay.wait_queued(0);
}

#[test]
fn a_message_is_returned_whole_when_its_sender_wants_that() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", "550 5.1.1 nobody"]), Some(&format!("rcp-{token}")), None);
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut client = Smtp::ehlo(relay.port);
    client.expect(&format!("MAIL FROM:<snd-{token}@sender.test> RET=FULL"), 250);
    client.expect(&format!("RCPT TO:<rcp-{token}@dest.test>"), 250);
    client.expect("DATA", 354);
    let content = support::data(&token);
    client.send(&content);
    assert_eq!(client.reply().code, 250);
    let report = report_to(&mut sink, &token);
    check(&report, &token, &[]);
    let text = String::from_utf8_lossy(&report.data).into_owned();
    assert!(text.contains("Content-Type: message/rfc822\r\n"), "{text}");
    assert!(text.contains(content.trim_end_matches(".\r\n")), "{text}");
}

/// The report to the sender of the message with this token.
fn report_to(sink: &mut Sink, token: &str) -> Taken {
    let reports =
        |taken: Vec<Taken>| taken.into_iter().filter(|taken| taken.reverse_path.is_empty()).collect::<Vec<_>>();
    let mut found = vec![];
    for count in 1..=3 {
        found = reports(sink.wait_within(token, count, Duration::from_secs(20)));
        if !found.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 1, "reports about {token}");
    found.remove(0)
}

/// Has Python's `email` parse the report, fails on every check that does not hold, and returns the
/// failed recipient's fields.
fn check(report: &Taken, token: &str, more: &[&str]) -> Value {
    let mut command = python("peers/dsn.py");
    command.arg(&report.file).args(["--reverse-path", &report.reverse_path]);
    for (recipient, _) in &report.recipients {
        command.args(["--forward-path", recipient]);
    }
    command.args([
        "--sender",
        &format!("snd-{token}@sender.test"),
        "--recipient",
        &format!("rcp-{token}"),
        "--original",
        token,
    ]);
    let answer = json(&run(command.args(more)));
    let problems: Vec<String> = answer["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["problem"] != "")
        .map(|check| {
            format!(
                "{} {} (RFC {}): {}: {}",
                check["level"], check["id"], check["reference"], check["title"], check["problem"]
            )
        })
        .collect();
    let text = String::from_utf8_lossy(&report.data);
    assert!(problems.is_empty(), "{}\n---- the report\n{text}", problems.join("\n"));
    answer["recipients"][0].clone()
}
