//! A queued message whose body is not what was accepted.

use std::{fs, time::Instant};

use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{
    Owner, Queue as _,
    log::{LogOptions, LogQueue},
};
use posthaste_relay::{Relay, RelayOptions, Route, RouteTable, agent::Maildir};
use tokio_util::sync::CancellationToken;

use crate::support::{Behavior, Hop, Log, PATIENCE, envelope, options};

/// It is held and reported, no host gets it, and the other mail of its domain arrives.
#[tokio::test]
async fn a_damaged_body_is_set_aside_and_delays_no_other() {
    let hop = Hop::start(Behavior::default()).await;
    let maildirs = tempfile::tempdir().unwrap();
    let mut to_agent = options(&[]);
    to_agent.routes = RouteTable::all(Route::agent(
        "maildir",
        Maildir::new(&format!("{}/{{domain}}/{{local}}", maildirs.path().display())).unwrap(),
    ));
    for expires in [false, true] {
        for mut options in [options(&[hop.port]), to_agent.clone()] {
            if expires {
                options.delivery.retry.expire_after = std::time::Duration::ZERO;
            }
            set_aside(options).await;
        }
    }
    assert_eq!(hop.count(), 2);
}

async fn set_aside(options: RelayOptions) {
    let dir = tempfile::tempdir().unwrap();
    let mut queue_options = LogOptions::default();
    queue_options.inline_body = 0;
    let queue = LogQueue::open(dir.path(), queue_options).unwrap();
    let log = Log::default();
    let relay = Relay::builder(queue, SystemResolver, options).observer(log.clone()).build();
    let envelope = envelope("<s@s.test>", &["<a@d.test>"]);
    let submit = async |content: &'static [u8]| {
        relay.submit(Owner::default(), &envelope, Bytes::from_static(content)).await.unwrap()
    };
    let damaged = submit(b"Subject: damaged\r\n\r\nx\r\n").await;
    for entry in fs::read_dir(dir.path().join("bodies")).unwrap() {
        let path = entry.unwrap().path();
        let mut octets = fs::read(&path).unwrap();
        octets[10] ^= 1;
        fs::write(&path, octets).unwrap();
    }
    submit(b"Subject: whole\r\n\r\nx\r\n").await;
    let drain = CancellationToken::new();
    let task = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    log.wait("set aside", 1).await;
    log.wait("delivered", 1).await;
    let begun = Instant::now();
    while relay.queue().stats().await.messages > 1 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let seen = &log.of("set aside")[0];
    assert_eq!(seen.who, damaged.to_string());
    assert!(seen.text.contains("checksum"), "{}", seen.text);
    let left = relay.queue().list(None, 9).await.unwrap();
    assert!(left.len() == 1 && left[0].id == damaged && left[0].held, "{left:?}");
    assert_eq!(log.count("failed"), 0);
    drain.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}
