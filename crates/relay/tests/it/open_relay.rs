//! Mail for others, in all the forms in which strangers ask a relay to send it.

use crate::support::{Client, options, relay};
use posthaste_relay::{AccountTable, DomainPattern, NextHop, PolicyTable, RelayOptions, Route, RouteTable, Rule};
use posthaste_server::{UnknownUsers, wire::Secret};

/// What a stranger says before RCPT.
const HELLO: &[&str] = &["EHLO stranger.test\r\n", "MAIL FROM:<me@stranger.test>\r\n"];

/// Paths, each of which leads to another host, or may at the next hop. `OURS` is the relay's own
/// name, `SERVED` a domain that takes mail from every client.
const PATHS: &[&str] = &[
    "<you@foreign.test>",
    "<you@FOREIGN.TEST>",
    "<you@sub.foreign.test>",
    "<you@xn--bcher-kva.test>",
    "<you@[192.0.2.7]>",
    "<you@[IPv6:2001:db8::7]>",
    "<you@[127.0.0.1]>",
    "<you@localhost>",
    // A local part that names a route.
    "<you%foreign.test@OURS>",
    "<you%foreign.test@SERVED>",
    "<you%foreign.test%other.test@SERVED>",
    "<%foreign.test@SERVED>",
    "<\"you%foreign.test\"@SERVED>",
    "<\"you@foreign.test\"@OURS>",
    "<\"you@foreign.test\"@SERVED>",
    "<\"you\\@foreign.test\"@SERVED>",
    "<\"@SERVED:you@foreign.test\"@SERVED>",
    "<foreign.test!you@OURS>",
    "<foreign.test!you@SERVED>",
    "<\"foreign.test!you\"@SERVED>",
    "<foreign.test!you%other.test@SERVED>",
    "<you%foreign.test@[127.0.0.1]>",
    "<\"you@foreign.test\"@[127.0.0.1]>",
    // Source routes, which are left out: the last domain decides.
    "<@SERVED:you@foreign.test>",
    "<@OURS,@SERVED:you@foreign.test>",
    "<@foreign.test:you%other.test@SERVED>",
    // Two domains, in forms that are no path.
    "<you@foreign.test@SERVED>",
    "<you@SERVED@foreign.test>",
    "<you@foreign.test%SERVED>",
    "you@foreign.test",
    "<you@foreign.test",
    "<you>@foreign.test",
    "<<you@foreign.test>>",
    "<you@SERVED>,<you@foreign.test>",
    "<you@SERVED,you@foreign.test>",
    "<you@SERVED> <you@foreign.test>",
    // Names that only look like one that is served.
    "<you@notserved.test>",
    "<you@served.test.foreign.test>",
    "<you@foreign.test.>",
    "<you@servedatest>",
    "<you@served.test\0.foreign.test>",
    "<you@served.test foreign.test>",
];

/// Reverse-paths and parameters that give no right.
const SENDERS: &[&str] = &[
    "<>",
    "<me@OURS>",
    "<me@SERVED>",
    "<you@foreign.test>",
    "<me@[127.0.0.1]>",
    "<me@localhost>",
    "<me@stranger.test> AUTH=<user@OURS>",
    "<me@stranger.test> AUTH=<>",
    "<me@stranger.test> SIZE=0",
    "<@OURS:me@stranger.test>",
];

fn filled(text: &str) -> String {
    text.replace("OURS", "relay.test").replace("SERVED", "served.test")
}

/// The defaults, with a domain that is served. Its mail goes to a host that takes everything.
fn with_a_domain() -> RelayOptions {
    let mut options = options(&[9]);
    options.policy = PolicyTable::default();
    options.policy.relay_domains.push("served.test".parse().unwrap());
    let mut accounts = AccountTable::new(UnknownUsers::new(Secret::new([7; 32]), 4_096));
    accounts.add("user", "secret").unwrap();
    options.accounts = Some(accounts);
    options
}

/// The same with routes that are for the stranger, whose conditions all hold.
fn with_rules() -> RelayOptions {
    let mut options = with_a_domain();
    options.routes = RouteTable::empty();
    for (name, domains, to) in [
        ("held", &["foreign.test", "*.foreign.test"][..], NextHop::Hold),
        ("gone", &["localhost", "xn--bcher-kva.test", "[192.0.2.7]", "[127.0.0.1]"], NextHop::Discard),
        ("rest", &["*"], Route::hosts([("[127.0.0.1]", 9)]).to),
    ] {
        let mut rule = Rule::new(name.parse().unwrap(), Route::new(to));
        rule.domains = Some(domains.iter().map(|text| text.parse::<DomainPattern>().unwrap()).collect());
        rule.clients = Some("127.0.0.0/8".parse().unwrap());
        rule.senders = Some(["me@stranger.test".parse().unwrap()].into_iter().collect());
        options.routes.push_rule(rule).unwrap();
    }
    options
}

fn is_refused(said: &str) -> bool {
    said.starts_with('5')
}

#[tokio::test]
async fn no_form_of_a_path_leads_a_strangers_mail_elsewhere() {
    assert!(PATHS.len() >= 40);
    let options = [with_a_domain, with_rules];
    for (path, options) in PATHS.iter().flat_map(|path| options.map(|options| (path, options))) {
        let mut client = Client::of(options()).await;
        assert!(client.talk(HELLO).await.starts_with("250"));
        let said = client.talk(&[&format!("RCPT TO:{}\r\n", filled(path))]).await;
        assert!(is_refused(&said), "{path}: {said}");
        let said = client.talk(&["DATA\r\n"]).await;
        assert!(is_refused(&said), "{path}: {said}");
    }
    // What is served is taken all the same, whatever else was refused in the transaction.
    for options in options {
        let mut client = Client::of(options()).await;
        client.talk(HELLO).await;
        let said = client.talk(&["RCPT TO:<you@foreign.test>\r\n", "RCPT TO:<you@Served.Test>\r\n"]).await;
        assert!(said.starts_with("250"), "{said}");
    }
}

#[tokio::test]
async fn no_sender_gives_a_stranger_a_right() {
    let mut client = Client::of(with_a_domain()).await;
    for sender in SENDERS {
        let mail = filled(&format!("MAIL FROM:{sender}\r\n"));
        let said = client.talk(&["EHLO relay.test\r\n", &mail]).await;
        let refused = is_refused(&said) || is_refused(&client.talk(&["RCPT TO:<you@foreign.test>\r\n"]).await);
        assert!(refused, "{sender}");
    }
}

/// What was true earlier in a session, or was nearly so, gives no right later.
#[tokio::test]
async fn no_state_of_a_session_gives_a_stranger_a_right() {
    // `\0user\0wrong`, and `\0user\0secret`.
    let (wrong, right) = ("AUTH PLAIN AHVzZXIAd3Jvbmc=\r\n", "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n");
    let mail = "MAIL FROM:<me@stranger.test>\r\n";
    let served = "RCPT TO:<you@served.test>\r\n";
    let rows: &[&[&str]] = &[
        &["EHLO x\r\n", wrong, mail],
        &["EHLO x\r\n", "AUTH PLAIN\r\n", "*\r\n", mail],
        &["EHLO x\r\n", "AUTH PLAIN ====\r\n", mail],
        &["EHLO x\r\n", "AUTH XUNKNOWN\r\n", mail],
        &["EHLO x\r\n", mail, served],
        &["EHLO x\r\n", mail, served, "RSET\r\n", mail],
        &["EHLO x\r\n", mail, served, "EHLO relay.test\r\n", mail],
        &["EHLO x\r\n", mail, served, "DATA\r\n", "Subject: x\r\n\r\nx\r\n.\r\n", mail],
        &["HELO served.test\r\n", mail],
        &["EHLO [127.0.0.1]\r\n", mail],
        &["EHLO x\r\n", "XCLIENT ADDR=192.0.2.1 LOGIN=user\r\n", mail],
        &["EHLO x\r\n", "XFORWARD ADDR=192.0.2.1\r\n", mail],
    ];
    for row in rows {
        let (relay, log) = relay(with_a_domain());
        let mut client = Client::in_clear(relay, log).await;
        client.talk(row).await;
        let said = client.talk(&["RCPT TO:<you@foreign.test>\r\n"]).await;
        assert!(is_refused(&said), "{row:?}: {said}");
    }
    // A login gives the right, for the session and no longer.
    let (relay, log) = relay(with_a_domain());
    let mut client = Client::in_clear(relay.clone(), log.clone()).await;
    let said = client.talk(&["EHLO x\r\n", right, mail, "RCPT TO:<you@foreign.test>\r\n"]).await;
    assert!(said.starts_with("250"), "{said}");
    let mut next = Client::in_clear(relay, log).await;
    let said = next.talk(&["EHLO x\r\n", mail, "RCPT TO:<you@foreign.test>\r\n"]).await;
    assert!(is_refused(&said), "{said}");
}
