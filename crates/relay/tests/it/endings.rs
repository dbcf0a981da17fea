//! A lost lease, a queue that stops, and a drain.

use std::time::{Duration, Instant};

use crate::support::{Behavior, Hop, Log, PATIENCE, envelope, options, relay, start};
use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{Error, Owner, PutError, Queue as _, log::LogOptions, log::LogQueue};
use posthaste_relay::{Relay, SubmitError};
use posthaste_server::{Listener, session::ServerSettings};
use posthaste_testkit::script::{Scripted, polite};
use tokio_util::sync::CancellationToken;

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

#[tokio::test]
async fn a_delivery_that_lost_its_lease_is_aborted() {
    // It never replies to the recipient.
    let hop = Scripted::start(|_, line| if line.starts_with("RCPT") { String::new() } else { polite(line, &[]) }).await;
    let mut options = options(&[hop.port]);
    options.delivery.lease = Duration::from_millis(150);
    let relay = start(options);
    let id = relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    hop.wait("RCPT").await;
    // The lease is extended for much longer than it lasts, and no other worker delivers the
    // message.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(hop.count("MAIL"), 1);
    relay.relay.queue().remove(id).await.unwrap();
    hop.wait("<eof>").await;
    assert_eq!(relay.log.count("deferred"), 0);
    relay.end().await;
}

#[tokio::test]
async fn a_queue_that_stops_ends_the_relay() {
    let (relay, _) = relay(options(&[1]));
    let settings = ServerSettings::new("relay.test".parse().unwrap());
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let serving = tokio::spawn({
        let relay = relay.clone();
        async move { relay.serve(relay.server().listen(listener), std::future::pending()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    relay.queue().close().await;
    let ended = tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
}

/// The queue's folder is away for a moment. The relay refuses mail, and later takes and delivers it
/// again without the operator.
#[tokio::test]
async fn a_queue_that_recovers_is_delivered_again() {
    let hop = Hop::start(Behavior::default()).await;
    let dir = tempfile::tempdir().unwrap();
    // Every body is written to a file of its own, in a folder that the test can move away.
    let mut queue_options = LogOptions::default();
    queue_options.inline_body = 0;
    let queue = LogQueue::open(dir.path(), queue_options).unwrap();
    let log = Log::default();
    let relay = Relay::builder(queue, SystemResolver, options(&[hop.port])).observer(log.clone()).build();
    let drain = CancellationToken::new();
    let task = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let envelope = envelope("<>", &["<a@d.test>"]);
    let submit = async || relay.submit(Owner::default(), &envelope, Bytes::from_static(CONTENT)).await;
    submit().await.unwrap();
    log.wait("delivered", 1).await;
    while relay.queue().stats().await.messages > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (bodies, away) = (dir.path().join("bodies"), dir.path().join("away"));
    std::fs::rename(&bodies, &away).unwrap();
    let refused = submit().await.unwrap_err();
    assert!(matches!(refused, SubmitError::Queue(PutError::Broken(_))), "{refused}");
    std::fs::rename(&away, &bodies).unwrap();
    let begun = Instant::now();
    while relay.queue().stats().await.reopened == 0 {
        assert!(begun.elapsed() < PATIENCE && !task.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    submit().await.unwrap();
    log.wait("delivered", 2).await;
    drain.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_waits_for_deliveries_under_way() {
    let hop = Hop::start(Behavior { think: Duration::from_millis(300), ..Behavior::default() }).await;
    let mut options = options(&[hop.port]);
    options.delivery.concurrency_per_site = 1;
    let relay = start(options);
    for _ in 0..3 {
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    }
    while hop.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = relay.log.clone();
    let queue = relay.relay.clone();
    relay.end().await;
    // The one that had begun is recorded. The others are left for the next start.
    assert_eq!((log.count("delivered"), queue.queue().stats().await.messages), (1, 2));
}

#[tokio::test]
async fn a_drain_ends_after_its_time() {
    let hop = Scripted::start(|_, line| if line == "<end>" { String::new() } else { polite(line, &[]) }).await;
    let mut options = options(&[hop.port]);
    options.delivery.drain = Duration::from_millis(200);
    let relay = start(options);
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    hop.wait("<end>").await;
    let (begun, queue) = (Instant::now(), relay.relay.clone());
    relay.end().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(queue.queue().stats().await.messages, 1);
}

#[tokio::test]
async fn a_dropped_relay_leaves_no_worker() {
    let hop = Scripted::start(|_, line| if line == "<end>" { String::new() } else { polite(line, &[]) }).await;
    let relay = start(options(&[hop.port]));
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    hop.wait("<end>").await;
    relay.task.abort();
    hop.wait("<eof>").await;
}
