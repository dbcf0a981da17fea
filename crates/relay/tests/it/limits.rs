//! The configured limits of a site hold, and what they hold back waits without a deferral.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_relay::{Rate, RelayOptions, SiteLimits};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{Running, options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A count in a day: no further one comes during a test.
fn a_day(count: u32) -> Option<Rate> {
    Rate::new(count, Duration::from_secs(86_400))
}

fn limited(port: u16, set: impl FnOnce(&mut SiteLimits)) -> RelayOptions {
    let mut limits = SiteLimits::default();
    set(&mut limits);
    let mut options = options(&[port]);
    options.delivery.idle = Duration::from_secs(60);
    options.delivery.site_limits.push(["*".parse().unwrap()], limits);
    options
}

/// Waits until the limits hold mail back and no delivery runs.
async fn held_back(running: &Running) {
    while !running.relay.sites().iter().any(|site| site.limited.is_some() && site.open == 0 && site.due > 0) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn polite_hop() -> Scripted {
    Scripted::start(|_, line: &str| polite(line, &[])).await
}

#[tokio::test]
async fn messages_beyond_the_limit_wait_until_a_reload_lifts_it() {
    let hop = polite_hop().await;
    let running = start(limited(hop.port, |limits| limits.messages = a_day(5)));
    for _ in 0..12 {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    running.log.wait("delivered", 5).await;
    held_back(&running).await;
    assert_eq!((hop.count("<end>"), running.log.count("deferred")), (5, 0));
    // What the site has had still counts.
    running.relay.reload(limited(hop.port, |limits| limits.messages = a_day(7))).unwrap();
    held_back(&running).await;
    running.relay.reload(limited(hop.port, |limits| limits.messages = None)).unwrap();
    running.log.wait("delivered", 12).await;
    assert_eq!(running.log.count("deferred"), 0);
    assert!(running.relay.sites().iter().all(|site| site.limited.is_none()));
    running.end().await;
}

#[tokio::test]
async fn one_connection_takes_all_messages_where_no_more_may_be_made() {
    let hop = polite_hop().await;
    let running = start(limited(hop.port, |limits| limits.connects = a_day(1)));
    for _ in 0..40 {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    running.log.wait("delivered", 40).await;
    assert_eq!((hop.count("<connect>"), running.log.count("deferred")), (1, 0));
    running.end().await;
}

/// A server that closes each connection after a message.
#[tokio::test]
async fn no_message_is_tried_without_a_connection_that_may_be_made() {
    let hop = Scripted::start(|_, line: &str| match line {
        "<end>" => "250 2.0.0 OK\r\n<close>".to_owned(),
        _ => polite(line, &[]),
    })
    .await;
    let running = start(limited(hop.port, |limits| limits.connects = a_day(3)));
    for _ in 0..9 {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    running.log.wait("delivered", 3).await;
    held_back(&running).await;
    assert_eq!((hop.count("<connect>"), running.log.count("deferred")), (3, 0));
    running.end().await;
}

#[tokio::test]
async fn a_message_with_more_recipients_than_the_limit_is_delivered_and_the_next_waits() {
    let hop = polite_hop().await;
    let running = start(limited(hop.port, |limits| limits.recipients = a_day(10)));
    let names: Vec<_> = (0..25).map(|number| format!("<u{number}@d.test>")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    running.submit("<me@s.test>", &names, CONTENT).await;
    running.log.wait("delivered", 25).await;
    running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    held_back(&running).await;
    assert_eq!((hop.count("<end>"), running.log.count("deferred")), (1, 0));
    running.end().await;
}

#[tokio::test]
async fn a_site_has_no_more_connections_than_its_limit() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let hop = Scripted::start(move |_, line: &str| {
        match line {
            "<connect>" => {
                let now = open.fetch_add(1, SeqCst) + 1;
                seen.fetch_max(now, SeqCst);
            }
            "<eof>" | "QUIT" => {
                open.fetch_sub(1, SeqCst);
            }
            "<end>" => return "after 20 250 ok\r\n".to_owned(),
            _ => {}
        }
        polite(line, &[])
    })
    .await;
    let running = start(limited(hop.port, |limits| limits.connections = Some(2)));
    for _ in 0..30 {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    running.log.wait("delivered", 30).await;
    assert_eq!(most.load(SeqCst), 2);
    let site = running.relay.sites().pop().unwrap();
    assert_eq!((site.limits.connections, site.window), (Some(2), 2));
    running.end().await;
}
