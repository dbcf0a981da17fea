//! A configuration that changes while the relay runs.

mod support;

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use support::client::{Smtp, submit};
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{PATIENCE, data, token, wait_for};

/// What ends an exchange in the log.
const EXCHANGED: &str = "configuration exchanged";
const NOT_EXCHANGED: &str = "configuration not exchanged";

/// A relay with this text after its name, its queue and its listener.
fn started(text: &str) -> Relay {
    let mut relay = Relay::prepare(&Config::default());
    write(&relay, text);
    relay.start_again();
    relay
}

fn write(relay: &Relay, text: &str) {
    let head = format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nlistener = [{{ address = \"127.0.0.1:{}\" }}]\n",
        relay.port
    );
    fs::write(relay.config(), head + text).expect("the folder is ours");
}

/// All of its log.
fn log(relay: &Relay) -> String {
    fs::read_to_string(relay.folder().join("log")).expect("the relay writes text")
}

/// Sends SIGHUP, and waits for its end. Returns what the log says of it.
fn hang_up(relay: &Relay, end: &str) -> String {
    let before = log(relay).matches(end).count();
    relay.signal(Signal::HUP);
    wait_for(end, PATIENCE, || {
        let log = log(relay);
        let (at, _) = log.match_indices(end).nth(before)?;
        let whole = log[at..].find('\n').map(|length| at + length)?;
        let earlier = before.checked_sub(1).and_then(|last| log.match_indices(end).nth(last));
        Some(log[earlier.map_or(0, |(at, _)| at)..whole].to_owned())
    })
}

/// Writes a configuration that counts from then on.
fn change(relay: &Relay, text: &str) -> String {
    write(relay, text);
    hang_up(relay, EXCHANGED)
}

fn to(port: u16) -> String {
    format!(
        "relay_from = [\"127.0.0.0/8\"]\nroute = [{{ domains = [\"*\"], to = [\"127.0.0.1:{port}\"], tls = \"off\" }}]\n\
         delivery = {{ retry = [\"1s\"], timeout = \"6s\" }}\n"
    )
}

#[test]
fn queued_mail_takes_the_new_route_and_none_is_lost_or_comes_twice() {
    let (mut first, mut second) = (Sink::start(), Sink::start());
    // It takes what comes at its leisure.
    first.rule("eod", &json!(["delay", 1.0]), None, None);
    let relay = started(&to(first.port));
    let mut client = Smtp::ehlo(relay.port);
    let tokens: Vec<String> = (0..200).map(|_| token()).collect();
    for token in &tokens {
        assert_eq!(client.transact(token).code, 250);
    }
    let said = change(&relay, &to(second.port));
    assert!(said.contains("changed=\"route 1.to\"") || said.contains("changed=route 1.to"), "{said}");
    relay.wait_queued(0);
    let mut count = [0, 0];
    for token in &tokens {
        let taken = [&mut first, &mut second].map(|sink| sink.wait_within(token, 1, std::time::Duration::ZERO).len());
        assert_eq!(taken[0] + taken[1], 1, "{token} {taken:?}");
        count = [count[0] + taken[0], count[1] + taken[1]];
    }
    assert!(count[1] > 0, "{count:?}");
    let after = token();
    submit(relay.port, &after);
    second.one(&after);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_told_with_line_key_and_remedy() {
    let mut sink = Sink::start();
    let mut relay = started(&to(sink.port));
    let list = relay.folder().join("domains.txt");
    fs::write(&list, "a.test\nno domain\n").expect("the folder is ours");
    let good = to(1);
    for (text, words) in [
        (format!("{good}no_such_key = 1\n"), &["relay.toml:7: no_such_key: ", "write one of"][..]),
        (format!("{good}relay_domains = {{ file = \"domains.txt\" }}\n"), &["domains.txt:2: relay_domains: "]),
        (format!("{good}limits = {{ recipients = 0 }}\n"), &["relay.toml:7: recipients: ", "write a number from 1"]),
        (format!("{good}x = \n"), &["relay.toml:7: this is no TOML"]),
        (good.replace("relay_from", "hostname_ = 1\nrelay_from"), &["hostname_: there is no such key"]),
        (format!("{good}dkim = [{{ domain = \"a.test\", selector = \"s\", key = \"none.pem\" }}]\n"), &["none.pem"]),
    ] {
        write(&relay, &text);
        let said = hang_up(&relay, NOT_EXCHANGED);
        assert!(words.iter().all(|words| said.contains(words)), "{words:?}: {said}");
        assert!(said.contains("all of the one in use stays; correct it, then send SIGHUP again"), "{said}");
    }
    fs::remove_file(relay.config()).expect("the folder is ours");
    assert!(hang_up(&relay, NOT_EXCHANGED).contains("cannot read it"));
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
    assert_eq!(relay.stop().code(), Some(0));
}

#[test]
fn what_needs_a_restart_stays_and_everything_else_counts() {
    let (mut first, mut second) = (Sink::start(), Sink::start());
    let relay = started(&to(first.port));
    let other = support::free_port();
    let listener = format!("address = \"127.0.0.1:{}\"", relay.port);
    let fixed = format!(
        "hostname = \"other.test\"\nqueue = \"elsewhere\"\n[limits]\nconnections = 7\nrecipients = 1\n\
         [delivery]\nconcurrency = 3\nretry = [\"1s\"]\n[dns]\nservers = [\"127.0.0.1:53\"]\n\
         [[listener]]\n{listener}\ntolerate = []\nproxies = [\"192.0.2.1/32\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{other}\"\n"
    );
    let routes = to(second.port).replace("delivery = ", "#");
    fs::write(relay.config(), routes.clone() + &fixed).expect("the folder is ours");
    let said = hang_up(&relay, EXCHANGED);
    for words in [
        "relay.toml:4: hostname: it stays relay.test in the running relay, and only a new start makes it other.test; \
         restart the relay, or write it as it was",
        "relay.toml:5: queue: it stays ",
        "relay.toml:7: limits.connections: it stays the default in the running relay, and only a new start makes it 7",
        "relay.toml:10: delivery.concurrency: ",
        "relay.toml:13: dns.servers: ",
        &format!("relay.toml:14: listener: it stays 127.0.0.1:{} in", relay.port),
        &format!("relay.toml:17: listener 127.0.0.1:{}: proxies: ", relay.port),
        "configuration exchanged, but for the keys that need a restart",
        "hostname, queue, dns.servers, listener, listener 127.0.0.1:",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // What else has changed.
    assert!(said.contains("limits.recipients") && said.contains("route 1.to"), "{said}");
    let changed = said.rsplit_once("changed=").map_or("", |(_, rest)| rest.split(" restart=").next().unwrap_or(rest));
    assert!(!changed.contains("hostname") && !changed.contains("limits.connections"), "{changed}");
    // The name of before, the new route, limit and grammar, and the listener of before.
    let greeting = last(&relay, &["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<a@c.test>", "RCPT TO:<d@c.test>"]);
    assert!(greeting.starts_with("452") && greeting.contains("220 relay.test"), "{greeting}");
    assert!(last(&relay, &["EHLO c.test", "MAIL FROM: <a@b.test>"]).starts_with("501"));
    let sent = token();
    submit(relay.port, &sent);
    second.one(&sent);
    assert!(std::net::TcpStream::connect(("127.0.0.1", other)).is_err());
    // They do not hide a mistake.
    fs::write(relay.config(), to(first.port).replace("delivery = ", "#") + &fixed + "[offers]\ndsn = 1\n")
        .expect("ours");
    assert!(hang_up(&relay, NOT_EXCHANGED).contains("dsn: it is a number"));
    // A relay that gets its own configuration back has nothing to say.
    let said = change(&relay, &to(first.port));
    assert!(said.lines().last().is_some_and(|line| line.contains("configuration exchanged; the files")), "{said}");
    let sent = token();
    submit(relay.port, &sent);
    first.one(&sent);
}

#[test]
fn mail_in_the_queue_whose_route_is_taken_away_takes_another_one_or_fails() {
    let mut sink = Sink::start();
    let hold = "relay_from = [\"127.0.0.0/8\"]\nroute = [{ domains = [\"dest.test\"], to = \"hold\" }, \
                { domains = [\"*\"], to = \"refuse 550 5.7.1 No\" }]\n";
    let relay = started(hold);
    let mut client = Smtp::ehlo(relay.port);
    let mut held = || {
        client.open("a@sender.test", "b@dest.test");
        let token = token();
        client.send(data(&token));
        assert_eq!(client.reply().code, 250);
        token
    };
    let first = held();
    change(&relay, &to(sink.port));
    sink.one(&first);
    change(&relay, hold);
    held();
    // Its report has no route either.
    change(&relay, &hold.replace("dest.test", "other.test").replace("[\"*\"]", "[\"last.test\"]"));
    wait_for("it fails", PATIENCE, || (relay.status().get("failed") > Some(&0)).then_some(()));
    assert!(log(&relay).contains("no route"), "{}", log(&relay));
    assert!(last(&relay, &["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<b@dest.test>"]).starts_with("550"));
}

/// A pipe without a writer would keep its reader waiting for ever.
#[test]
fn no_file_makes_a_reload_hang() {
    let mut sink = Sink::start();
    let relay = started(&to(sink.port));
    let pipe = relay.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it is part of the system").success());
    let good = to(1);
    for text in [
        "relay_domains = { file = \"pipe\" }\n".to_owned(),
        "tls = { certificate = \"pipe\", key = \"/dev/zero\" }\n".to_owned(),
        "dkim = [{ domain = \"a.test\", selector = \"s\", key = \"pipe\" }]\n".to_owned(),
        "dkim = [{ domain = \"a.test\", selector = \"s\", key = \"/dev/zero\" }]\n".to_owned(),
    ] {
        write(&relay, &format!("{good}{text}"));
        let said = hang_up(&relay, NOT_EXCHANGED);
        assert!(said.contains("and no file"), "{text}: {said}");
    }
    for key in ["authorities = \"pipe\"", "login = { user = \"me\", password_file = \"pipe\" }"] {
        write(&relay, &good.replace("tls = \"off\"", &format!("tls = \"verified\", {key}")));
        let said = hang_up(&relay, NOT_EXCHANGED);
        assert!(said.contains("and no file"), "{key}: {said}");
    }
    fs::remove_file(relay.config()).expect("the folder is ours");
    fs::rename(&pipe, relay.config()).expect("the folder is ours");
    assert!(hang_up(&relay, NOT_EXCHANGED).contains("it is a pipe and no file"));
    fs::remove_file(relay.config()).expect("the folder is ours");
    change(&relay, &to(sink.port));
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
}

/// What a client does, line by line, and the code of the last reply.
fn last(relay: &Relay, lines: &[&str]) -> String {
    let mut client = Smtp::silent(relay.port);
    let mut code = client.reply().code;
    for line in lines {
        code = client.command(line).code;
    }
    format!("{code} {}", client.log())
}

#[test]
fn every_kind_of_key_counts_from_the_next_connection_on() {
    const MAIL: [&str; 3] = ["EHLO c.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@dest.test>"];
    let sink = Sink::start();
    let relay = started(&to(sink.port));
    fs::write(relay.folder().join("domains.txt"), "dest.test\n").expect("the folder is ours");
    fs::write(relay.folder().join("mailboxes.txt"), "other@dest.test\n").expect("the folder is ours");
    assert!(last(&relay, &MAIL).starts_with("250"));
    let to = to(sink.port);
    let closed = to.replace("relay_from", "relay_domains = []\n#relay_from");
    let one_route = to.replace("[\"*\"]", "[\"dest.test\"]");
    let with = |text: &str| format!("{to}{text}\n");
    let rows = [
        // Text; what a client does; code, and words of what it gets.
        (closed.clone(), &MAIL[..], "550", "Relaying denied"),
        (closed.replace("[]", "{ file = \"domains.txt\" }"), &MAIL[..], "250", ""),
        (with("refuse = { networks = [\"127.0.0.0/8\"] }"), &[], "554", ""),
        (with("refuse = { hello = [\"c.test\"] }"), &["EHLO c.test"], "550", ""),
        (with("refuse = { senders = [\"sender.test\"] }"), &MAIL[..2], "550", ""),
        (with("limits = { message_size = 70000 }"), &["EHLO c.test", "NOOP"], "250", "SIZE 70000"),
        (with("limits = { message_size = 700000000 }"), &["EHLO c.test", "NOOP"], "250", "SIZE 700000000"),
        (with("limits = { recipients = 1 }"), &[MAIL[0], MAIL[1], MAIL[2], "RCPT TO:<c@dest.test>"], "452", ""),
        (with("limits = { recipients_per_hour = 1 }\n#"), &MAIL[..], "250", ""),
        (with("offers = { dsn = false }"), &["EHLO c.test", "MAIL FROM:<a@b.test> RET=HDRS"], "555", ""),
        (
            one_route.replace("tls = \"off\"", "tls = \"off\", mailboxes = { file = \"mailboxes.txt\" }"),
            &MAIL[..],
            "550",
            "5.1.1",
        ),
        (one_route, &["EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<b@elsewhere.test>"], "550", "no route"),
        (with("postmaster = \"a@dest.test\""), &[MAIL[0], MAIL[1], "RCPT TO:<postmaster>"], "250", ""),
    ];
    for (text, lines, code, words) in rows {
        change(&relay, &text);
        let said = last(&relay, lines);
        assert!(said.starts_with(code) && said.contains(words), "{text}\n{said}");
    }
}

#[test]
fn what_is_in_use_goes_on_and_deliveries_and_signatures_follow() {
    let mut sink = Sink::start();
    let relay = started(&to(sink.port));
    fs::write(relay.folder().join("ed.pem"), include_bytes!("../../crates/auth/tests/keys/ed25519.pem")).expect("ours");
    let mut client = Smtp::ehlo(relay.port);
    client.open("a@sender.test", "b@dest.test");
    let key = "dkim = [{ domain = \"sender.test\", selector = \"s\", key = \"ed.pem\" }]\nsubmission = { sign = \"trusted\" }\n";
    change(&relay, &format!("{}{key}", to(sink.port)));
    // The transaction that was open ends by what it began with.
    let first = token();
    client.send(data(&first));
    assert_eq!(client.reply().code, 250);
    assert!(!String::from_utf8_lossy(&sink.one(&first).data).contains("DKIM-Signature"));
    let second = token();
    assert_eq!(client.transact(&second).code, 250);
    assert!(String::from_utf8_lossy(&sink.one(&second).data).contains("DKIM-Signature"));
    // Mail that has waited in vain expires by the new time.
    sink.rule("rcpt", &json!(["reply", "450 4.2.0 later"]), None, None);
    let third = token();
    assert_eq!(client.transact(&third).code, 250);
    wait_for("it is deferred", PATIENCE, || (relay.status().get("retried") > Some(&0)).then_some(()));
    change(&relay, &to(sink.port).replace("retry = ", "expire_after = \"1s\", retry = "));
    wait_for("it fails", PATIENCE, || (relay.status().get("failed") > Some(&0)).then_some(()));
}
