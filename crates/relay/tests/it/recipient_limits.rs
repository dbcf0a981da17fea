//! Hosts that take fewer recipients in a transaction than they are given.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use posthaste_testkit::script::{Place, Scripted, polite, verb};

use crate::support::{Running, options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A host that takes `limit` recipients in a transaction, and refuses the others so. The second
/// value counts what it has taken.
async fn host(limit: usize, refusal: &'static str, offers: &'static [&'static str]) -> Scripted {
    let mut taken: HashMap<usize, usize> = HashMap::new();
    Scripted::start(move |place: Place, line: &str| {
        let taken = taken.entry(place.connection).or_default();
        match verb(line) {
            "MAIL" => *taken = 0,
            "RCPT" if *taken >= limit => return refusal.to_owned(),
            "RCPT" => *taken += 1,
            _ => {}
        }
        polite(line, offers)
    })
    .await
}

/// A relay that tries again after an hour.
fn relay(host: &Scripted) -> Running {
    let mut options = options(&[host.port]);
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    start(options)
}

async fn submit(relay: &Running, count: usize) -> Vec<String> {
    let recipients: Vec<_> = (0..count).map(|number| format!("<u{number}@d.test>")).collect();
    let named: Vec<_> = recipients.iter().map(String::as_str).collect();
    relay.submit("<me@s.test>", &named, CONTENT).await;
    recipients
}

#[tokio::test]
async fn recipients_beyond_the_limit_of_a_host_follow_at_once_over_the_same_connection() {
    for offers in [&["PIPELINING"][..], &["CHUNKING", "PIPELINING"], &[]] {
        for (limit, refusal, count, transactions, rcpts) in [
            (10, "452 4.5.3 Too many recipients\r\n", 25, 3, 40),
            (10, "552 Too many recipients\r\n", 95, 11, 200),
            (1, "452 4.5.3 Recipients belong to multiple regions ATTR38\r\n", 12, 12, 25),
            (100, "452 Too many recipients\r\n", 240, 3, 240),
        ] {
            let host = host(limit, refusal, offers).await;
            let relay = relay(&host);
            let mut recipients = submit(&relay, count).await;
            relay.log.wait("delivered", count).await;
            let context = format!("{limit} {refusal:?} {offers:?}");
            assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (0, 0), "{context}");
            let mut delivered: Vec<_> = relay.log.of("delivered").into_iter().map(|seen| seen.who).collect();
            delivered.sort();
            recipients.sort();
            assert_eq!(delivered, recipients, "{context}");
            assert_eq!(host.count("<connect>"), 1, "{context}");
            assert!(host.count("<end>").max(host.count("BDAT")) <= transactions, "{context} {}", host.count("MAIL"));
            assert!(host.count("RCPT") <= rcpts, "{context} {}", host.count("RCPT"));
            relay.end().await;
        }
    }
}

/// No transaction is made again that got nowhere.
#[tokio::test]
async fn recipients_wait_if_the_host_takes_none_of_them() {
    for (at, says) in [("RCPT", "452 4.5.3 Too many recipients\r\n"), ("<end>", "451 4.3.0 Not now\r\n")] {
        let taken = Arc::new(AtomicUsize::new(0));
        let host = Scripted::start(move |_, line: &str| match verb(line) {
            "RCPT" if at == "<end>" && taken.fetch_add(1, Ordering::Relaxed) > 0 => "452 4.5.3 Too many\r\n".to_owned(),
            line if line == at => says.to_owned(),
            _ => polite(line, &[]),
        })
        .await;
        let relay = relay(&host);
        submit(&relay, 3).await;
        relay.log.wait("deferred", 3).await;
        assert_eq!((host.count("MAIL"), relay.log.count("delivered")), (1, 0), "{at}");
        relay.end().await;
    }
}

/// A recipient that is refused for another reason is not asked for again with them.
#[tokio::test]
async fn a_recipient_that_is_refused_for_now_waits_while_the_others_follow() {
    let mut taken = 0;
    let host = Scripted::start(move |_, line: &str| {
        match line {
            line if line.starts_with("MAIL") => taken = 0,
            line if line.starts_with("RCPT TO:<u2@") => return "450 4.2.0 Greylisted\r\n".to_owned(),
            line if line.starts_with("RCPT") && taken >= 2 => return "452 4.5.3 Too many recipients\r\n".to_owned(),
            line if line.starts_with("RCPT") => taken += 1,
            _ => {}
        }
        polite(line, &[])
    })
    .await;
    let relay = relay(&host);
    submit(&relay, 7).await;
    relay.log.wait("delivered", 6).await;
    relay.log.wait("deferred", 1).await;
    assert_eq!(host.count("RCPT TO:<u2@"), 1);
    relay.end().await;
}
