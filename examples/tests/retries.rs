//! What fails for a while is tried again until it succeeds.

mod support;

use std::time::Duration;

use serde_json::json;
use support::client::submit;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{free_port, token};

#[test]
fn a_temporary_refusal_is_tried_again() {
    for (stage, act) in [
        ("connect", json!(["replydrop", "421 4.3.2 busy"])),
        ("ehlo", json!(["replydrop", "421 4.3.2 shutting down"])),
        ("mail", json!(["reply", "451 4.7.1 greylisted"])),
        ("rcpt", json!(["reply", "451 4.7.1 greylisted"])),
        ("data", json!(["reply", "451 4.3.0 not now"])),
        ("eod", json!(["reply", "452 4.3.1 full"])),
        ("eod", json!(["drop"])),
        ("connect", json!(["drop"])),
        ("mail", json!(["rst"])),
    ] {
        let mut sink = Sink::start();
        let token = token();
        sink.rule(stage, &act, None, Some(1));
        let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
        submit(relay.port, &token);
        assert_eq!(sink.wait(&token, 1).len(), 1, "{act} at {stage}, then delivered");
        relay.wait_queued(0);
        assert_eq!(sink.violations(), json!([]), "{act} at {stage}");
        let status = relay.status();
        assert_eq!(status.get("reported").copied(), Some(0), "{act} at {stage}: {status:?}");
    }
}

#[test]
fn only_the_recipient_that_was_refused_for_now_is_tried_again() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["reply", "450 4.2.1 mailbox busy"]), Some(&format!("TO:<late-{token}")), Some(1));
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut client = support::client::Smtp::ehlo(relay.port);
    client.expect(&format!("MAIL FROM:<snd-{token}@sender.test>"), 250);
    client.expect(&format!("RCPT TO:<early-{token}@dest.test>"), 250);
    client.expect(&format!("RCPT TO:<late-{token}@dest.test>"), 250);
    client.expect("DATA", 354);
    client.send(support::data(&token));
    assert_eq!(client.reply().code, 250);
    sink.wait(&token, 2);
    relay.wait_queued(0);
    let mut recipients: Vec<String> =
        sink.wait(&token, 2).into_iter().flat_map(|taken| taken.recipients).map(|(address, _)| address).collect();
    recipients.sort();
    assert_eq!(recipients, [format!("early-{token}@dest.test"), format!("late-{token}@dest.test")]);
}

#[test]
fn mail_waits_for_a_next_hop_that_is_down() {
    let mut sink = Sink::start();
    let token = token();
    sink.down();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    submit(relay.port, &token);
    std::thread::sleep(Duration::from_secs(3));
    relay.wait_queued(1);
    sink.up();
    sink.one(&token);
    relay.wait_queued(0);
}

#[test]
fn the_second_next_hop_serves_when_the_first_is_down() {
    let mut sink = Sink::start();
    let token = token();
    let relay = Relay::start(&Config { next_hops: vec![free_port(), sink.port], ..Config::default() });
    submit(relay.port, &token);
    sink.one(&token);
    relay.wait_queued(0);
}

#[test]
fn a_next_hop_that_says_nothing_is_left_after_the_configured_time() {
    let mut sink = Sink::start();
    let token = token();
    sink.rule("rcpt", &json!(["hang", 30]), None, Some(1));
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    submit(relay.port, &token);
    // `timeout` is 6 s in every configuration here.
    assert_eq!(sink.wait_within(&token, 1, Duration::from_secs(25)).len(), 1);
}
