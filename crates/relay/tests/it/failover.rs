//! An attempt goes on to the next host or address after every temporary failure (RFC 5321 section
//! 5.1). It goes on to none after a permanent failure, or when the server may have the message.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::support::{Running, Zone, by_mx, options, start};
use posthaste_client::{Resolver, session::client::ClientTimeouts};
use posthaste_relay::RelayOptions;
use posthaste_testkit::script::{Script, Scripted, polite};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// The reply of the first server at each line, always temporary.
const FAILURES: &[(&str, &str)] = &[
    ("<connect>", "421 4.3.2 later\r\n"),
    ("<connect>", "451 4.3.2 later\r\n"),
    ("<connect>", "554 5.3.2 not here\r\n"),
    ("<connect>", "close"),
    ("<connect>", ""),
    ("EHLO", "421 4.3.2 later\r\n"),
    ("EHLO", "451 4.3.2 later\r\n"),
    ("EHLO", "close"),
    ("EHLO", ""),
    ("MAIL", "421 4.3.2 later\r\n"),
    ("MAIL", "451 4.3.2 later\r\n"),
    ("MAIL", "452 4.3.1 full\r\n"),
    ("MAIL", "close"),
    ("MAIL", ""),
    ("MAIL", "what?\r\n"),
    ("RCPT", "421 4.3.2 later\r\n"),
    ("RCPT", "450 4.2.0 greylisted\r\n"),
    ("RCPT", "close"),
    ("RCPT", ""),
    ("DATA", "421 4.3.2 later\r\n"),
    ("DATA", "451 4.3.2 later\r\n"),
    ("DATA", "close"),
    ("DATA", ""),
    ("<end>", "421 4.3.2 later\r\n"),
    ("<end>", "451 4.3.2 later\r\n"),
];

fn failing(at: &'static str, says: &'static str) -> impl Script {
    move |_, line| if line.starts_with(at) { says.to_owned() } else { polite(line, &[]) }
}

/// Short waits, and no second attempt that the test could take for a second host.
fn patient(mut options: RelayOptions) -> RelayOptions {
    options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(300));
    options.delivery.retry.waits = vec![Duration::from_secs(600)];
    options
}

#[tokio::test]
async fn the_next_host_is_asked_after_a_temporary_failure_at_any_stage() {
    for (at, says) in FAILURES {
        let (first, second) = (Scripted::start(failing(at, says)).await, Scripted::polite().await);
        let relay = start(patient(options(&[first.port, second.port])));
        the_second_takes_it(relay, [first, second], &format!("{at} {says:?}")).await;
    }
}

#[tokio::test]
async fn the_next_address_of_a_host_is_asked_after_a_temporary_failure_at_any_stage() {
    for (at, says) in FAILURES {
        let first = Scripted::start(failing(at, says)).await;
        let second = Scripted::at(([127, 0, 0, 2], first.port).into(), None, |_, line| polite(line, &[])).await;
        let zone = Zone(|_: &str| Some(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]));
        let relay = by_mx(zone, first.port, |options| *options = patient(options.clone()));
        the_second_takes_it(relay, [first, second], &format!("{at} {says:?}")).await;
    }
}

async fn the_second_takes_it<R: Resolver>(relay: Running<R>, [first, second]: [Scripted; 2], row: &str) {
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    let counts = (relay.log.count("deferred"), first.count("<connect>"), second.count("<end>"));
    assert_eq!(counts, (0, 1, 1), "{row}");
    relay.end().await;
}

/// A first host that has had the content changes nothing for the second, which is silent.
#[tokio::test]
async fn the_time_of_an_attempt_ends_after_a_refused_content_too() {
    let first = Scripted::start(failing("<end>", "451 4.3.0 later\r\n")).await;
    let second = Scripted::start(failing("<connect>", "")).await;
    let mut options = options(&[first.port, second.port]);
    options.delivery.attempt_timeout = Duration::from_secs(1);
    options.delivery.retry.waits = vec![Duration::from_secs(600)];
    let relay = start(options);
    let begun = Instant::now();
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    relay.end().await;
}

/// With the timeouts of RFC 5321: the other host does not wait for them.
#[tokio::test]
async fn a_second_connection_to_a_host_is_given_up_for_the_next_host() {
    let first = Scripted::start(|place, line| match line {
        _ if place.connection > 0 => String::new(),
        line if line.starts_with("BDAT") => "500 5.5.1 what\r\n".to_owned(),
        line => polite(line, &["CHUNKING"]),
    })
    .await;
    let second = Scripted::polite().await;
    let relay = start(options(&[first.port, second.port]));
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((first.count("<connect>"), second.count("<end>"), relay.log.count("deferred")), (2, 1, 0));
    let known = relay.relay.health().servers();
    assert!(known.iter().any(|known| known.server.address().is_some_and(|server| server.port() == first.port) && known.failures > 0), "{known:?}");
    relay.end().await;
}

#[tokio::test]
async fn every_recipient_has_its_own_failover() {
    let first = Scripted::start(|_, line| match line {
        "RCPT TO:<later@d.test>" => "450 4.2.1 later\r\n".to_owned(),
        "RCPT TO:<never@d.test>" => "550 5.1.1 never\r\n".to_owned(),
        line => polite(line, &[]),
    })
    .await;
    let second = Scripted::polite().await;
    let relay = start(patient(options(&[first.port, second.port])));
    relay.submit("<>", &["<a@d.test>", "<later@d.test>", "<never@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 2).await;
    assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (0, 1));
    assert_eq!((first.count("<end>"), second.count("<end>"), second.count("RCPT")), (1, 1, 1));
    assert_eq!(second.count("RCPT TO:<later@d.test>"), 1);
    relay.end().await;
}

#[tokio::test]
async fn each_server_is_asked_once_in_an_attempt_and_the_last_answer_is_reported() {
    let first = Scripted::start(failing("MAIL", "451 4.3.0 one\r\n")).await;
    let second = Scripted::start(failing("RCPT", "450 4.2.0 two\r\n")).await;
    let third = Scripted::start(failing("<connect>", "close")).await;
    let relay = start(patient(options(&[first.port, second.port, third.port])));
    relay.submit("<me@s.test>", &["<a@d.test>", "<b@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 2).await;
    // A server's reply about a recipient says more than that another server cannot be reached.
    assert!(relay.log.of("deferred").iter().all(|seen| seen.text.contains("450 4.2.0 two")), "{:?}", relay.log.all());
    assert_eq!((first.count("MAIL"), second.count("RCPT"), third.count("<connect>")), (1, 2, 1));
    relay.end().await;
}

#[tokio::test]
async fn a_permanent_refusal_is_final_whatever_other_hosts_would_reply() {
    for at in ["MAIL", "RCPT", "DATA", "<end>"] {
        let (first, second) = (Scripted::start(failing(at, "550 5.7.1 no\r\n")).await, Scripted::polite().await);
        let relay = start(patient(options(&[first.port, second.port])));
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("failed", 1).await;
        assert_eq!(second.count("<connect>"), 0, "{at}");
        relay.end().await;
    }
}

/// Silence, or a close, after the whole content: the server may have the message. No other host
/// gets it at once.
#[tokio::test]
async fn a_message_in_doubt_goes_to_no_other_host_in_the_same_attempt() {
    for says in ["close", ""] {
        let (first, second) = (Scripted::start(failing("<end>", says)).await, Scripted::polite().await);
        let relay = start(patient(options(&[first.port, second.port])));
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 1).await;
        assert!(relay.log.of("deferred")[0].text.contains("the server may have it"), "{:?}", relay.log.all());
        assert_eq!(second.count("<connect>"), 0);
        relay.end().await;
    }
}

/// The next attempt asks the other host first: the silent one comes last.
#[tokio::test]
async fn the_attempt_after_a_doubt_begins_with_the_other_host() {
    let (first, second) = (Scripted::start(failing("<end>", "close")).await, Scripted::polite().await);
    let relay = start(options(&[first.port, second.port]));
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((relay.log.count("deferred"), first.count("<end>"), second.count("<end>")), (1, 1, 1));
    relay.end().await;
}

#[tokio::test]
async fn a_site_is_unreachable_only_when_all_its_hosts_say_so() {
    let mut hops = Vec::new();
    for _ in 0..3 {
        hops.push(Scripted::start(failing("<connect>", "554 5.3.2 not here\r\n")).await);
    }
    let ports: Vec<_> = hops.iter().map(|hop| hop.port).collect();
    let relay = start(patient(options(&ports)));
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    assert!(hops.iter().all(|hop| hop.count("<connect>") == 1), "{:?}", relay.log.all());
    relay.end().await;
}

/// The first deliveries find out that the host is silent; later one delivery at a time probes it.
/// The others begin with the host that answers.
#[tokio::test]
async fn a_smart_host_that_is_silent_does_not_stop_its_route() {
    for at in ["<connect>", "EHLO", "MAIL"] {
        let (first, second) = (Scripted::start(failing(at, "")).await, Scripted::polite().await);
        let mut options = options(&[first.port, second.port]);
        options.delivery.timeouts.greeting = Duration::from_millis(500);
        options.delivery.timeouts.command = Duration::from_millis(500);
        options.delivery.timeouts.mail = Duration::from_millis(500);
        let relay = start(options);
        let begun = Instant::now();
        for number in 0..200 {
            relay.submit(&format!("<m{number}@s.test>"), &["<a@d.test>"], CONTENT).await;
        }
        relay.log.wait("delivered", 200).await;
        assert_eq!((relay.log.count("deferred"), second.count("<end>")), (0, 200));
        // No more than had begun before the first of them found out, and the scout.
        assert!(first.count("<connect>") <= 21, "{at}: {}", first.count("<connect>"));
        assert!(begun.elapsed() < Duration::from_secs(20), "{at}: {:?}", begun.elapsed());
        relay.end().await;
    }
}

/// Of two hosts, the one that took the last message keeps its connection. The other one is not
/// asked again for each message.
#[tokio::test]
async fn a_connection_to_the_host_that_takes_mail_is_kept() {
    let first = Scripted::start(failing("MAIL", "451 4.3.0 later\r\n")).await;
    let second = Scripted::polite().await;
    let relay = start(options(&[first.port, second.port]));
    for count in 1..=10 {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", count).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(second.count("<connect>") <= 2 && first.count("<connect>") <= 2);
    assert_eq!(relay.log.count("deferred"), 0);
    relay.end().await;
}
