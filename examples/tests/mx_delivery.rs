//! Delivery to the hosts that a recipient's domain names in the DNS, answered by
//! peers/nameserver.py.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::client::{Smtp, submit};
use support::relay::{Config, Mx, Relay};
use support::sink::{Sink, Taken};
use support::{data, free_port, json, python, token};

#[test]
fn the_host_of_the_lowest_preference_is_asked_first() {
    // 127.0.0.1 serves both names; who was meant is told by the order of the look-ups alone, so the
    // other is dead.
    let zone = json!({
        "dest.test": {"MX": [[20, "spare.dest.test"], [10, "first.dest.test"]]},
        "first.dest.test": {"A": ["127.0.0.1"]}, "spare.dest.test": {"A": ["127.0.0.3"]},
    });
    let (mut sink, _names, relay) = start(&zone, true);
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
    relay.wait_queued(0);
    assert_eq!(relay.status().get("retried").copied(), Some(0), "nothing had to be tried again");
}

#[test]
fn the_next_host_serves_when_the_first_is_down() {
    let zone = json!({
        "dest.test": {"MX": [[10, "dead.dest.test"], [20, "alive.dest.test"]]},
        "dead.dest.test": {"A": ["127.0.0.3", "127.0.0.4"]}, "alive.dest.test": {"A": ["127.0.0.5", "127.0.0.1"]},
    });
    let (mut sink, _names, relay) = start(&zone, true);
    let token = token();
    submit(relay.port, &token);
    assert_eq!(sink.wait_within(&token, 1, Duration::from_secs(20)).len(), 1);
    relay.wait_queued(0);
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    let (mut sink, _names, relay) = start(&json!({"dest.test": {"A": ["127.0.0.1"]}}), true);
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
}

#[test]
fn a_domain_that_takes_no_mail_or_does_not_exist_is_reported_at_once() {
    let zone = json!({"null.test": {"MX": [[0, "."]], "A": ["127.0.0.1"]}, "sender.test": {"A": ["127.0.0.1"]}});
    let (mut sink, _names, relay) = start(&zone, true);
    for (domain, status) in [("null.test", "5.1.10"), ("missing.test", "5.1.2")] {
        let token = token();
        submit_to(relay.port, &token, domain);
        let taken = sink.wait_within(&token, 1, Duration::from_secs(20));
        let report: Vec<&Taken> = taken.iter().filter(|taken| taken.reverse_path.is_empty()).collect();
        assert_eq!(report.len(), 1, "{domain}: one report and nothing else");
        let text = String::from_utf8_lossy(&report[0].data);
        assert!(text.contains(&format!("Status: {status}")), "{domain}: {status} is not in\n{text}");
    }
    relay.wait_queued(0);
}

#[test]
fn a_host_is_asked_for_by_the_name_that_the_dns_has() {
    for host in ["mail_1.dest.test", "mx.xn--bcher-kva.test", "xn--0.test", "mail.123", "-mx-.test"] {
        let (mut sink, _names, relay) =
            start(&json!({"dest.test": {"MX": [[10, host]]}, host: {"A": ["127.0.0.1"]}}), true);
        let token = token();
        submit(relay.port, &token);
        sink.one(&token);
        relay.wait_queued(0);
    }
}

#[test]
fn what_the_dns_says_is_wrong_for_good_is_reported_at_once() {
    let zone = json!({
        "loop.test": {"CNAME": ["loop.test"]}, "loop1.test": {"CNAME": ["loop2.test"]}, "loop2.test": {"CNAME": ["loop1.test"]},
        "looping-host.test": {"MX": [[10, "loop.test"]]}, "no-host.test": {"MX": [[10, "nowhere.test"]]},
        "itself.test": {"MX": [[10, "relay.test"]]}, "quad.test": {"MX": [[10, "127.0.0.1"]]},
        "literal.test": {"MX": [[10, "[127.0.0.1]"]]}, "sender.test": {"A": ["127.0.0.1"]},
    });
    let (mut sink, _names, relay) = start(&zone, true);
    for (domain, status) in [
        ("loop.test", "5.4.4"),
        ("loop1.test", "5.4.4"),
        ("looping-host.test", "5.4.4"),
        ("no-host.test", "5.4.4"),
        ("itself.test", "5.4.6"),
        // Neither is an address where a name has to stand.
        ("quad.test", "5.4.4"),
        ("literal.test", "5.4.4"),
        // These are no A-labels, and waiting does not help.
        ("xn--0.test", "5.1.2"),
        ("xn--bcher-kvaa.test", "5.1.2"),
    ] {
        let token = token();
        submit_to(relay.port, &token, domain);
        let taken = sink.wait_within(&token, 1, Duration::from_secs(20));
        assert_eq!(taken.len(), 1, "{domain}: one report and nothing else");
        let text = String::from_utf8_lossy(&taken[0].data);
        assert!(text.contains(&format!("Status: {status}")), "{domain}: {status} is not in\n{text}");
    }
    relay.wait_queued(0);
}

#[test]
fn a_name_server_that_fails_is_asked_again_later() {
    let (mut sink, _names, relay) = start(&json!({"dest.test": "SERVFAIL", "sender.test": {"A": ["127.0.0.1"]}}), true);
    let token = token();
    submit(relay.port, &token);
    assert!(sink.wait_within(&token, 1, Duration::from_secs(4)).is_empty(), "neither delivered nor reported");
    relay.wait_queued(1);
}

#[test]
fn loopback_is_no_mail_host_unless_allowed() {
    let (mut sink, _names, relay) =
        start(&json!({"dest.test": {"MX": [[10, "mx.dest.test"]]}, "mx.dest.test": {"A": ["127.0.0.1"]}}), false);
    let token = token();
    submit(relay.port, &token);
    assert!(sink.wait_within(&token, 1, Duration::from_secs(4)).is_empty(), "delivered to 127.0.0.1");
}

fn start(zone: &Value, allow_private: bool) -> (Sink, NameServer, Relay) {
    let sink = Sink::start();
    let names = NameServer::start(zone);
    let mx = Mx { nameserver: names.port, port: sink.port, allow_private };
    let relay = Relay::start(&Config { mx: Some(mx), ..Config::default() });
    (sink, names, relay)
}

fn submit_to(port: u16, token: &str, domain: &str) {
    let mut client = Smtp::ehlo(port);
    client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@{domain}"));
    client.send(data(token));
    assert_eq!(client.reply().code, 250, "{}", client.log());
}

struct NameServer {
    child: Child,
    port: u16,
}

impl NameServer {
    fn start(zone: &Value) -> Self {
        let mut command = python("peers/nameserver.py");
        let mut child = command
            .args([free_port().to_string(), zone.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 was found");
        let mut lines = BufReader::new(child.stdout.take().expect("asked for above")).lines();
        let ready = json(&lines.next().expect("it prints its port").expect("as text"));
        let port =
            ready["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("nameserver.py prints its port");
        // A failed test shows the queries. They are read in any case: a full pipe would stop the
        // server.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|question| println!("asked for {question}")));
        Self { child, port }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
