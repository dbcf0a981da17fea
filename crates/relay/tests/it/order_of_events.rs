//! The order in which an observer hears of one message.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{Owner, memory::MemoryQueue};
use posthaste_relay::{Event, NextHop, Relay, Route, RouteTable};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, envelope, options};

/// A worker may claim it before the task that took it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_is_accepted_before_anything_else_happens_to_it() {
    const TASKS: usize = 16;
    const EACH: usize = 50;
    let seen: Arc<Mutex<(HashSet<_>, usize, usize)>> = Arc::default();
    let observer = {
        let seen = Arc::clone(&seen);
        move |event: &Event<'_>| {
            if matches!(event, Event::Accepted { .. }) {
                // An observer that takes its time.
                std::thread::sleep(Duration::from_micros(200));
            }
            let (accepted, discarded, early) = &mut *seen.lock().unwrap();
            match event {
                Event::Accepted { message, .. } => {
                    accepted.insert(*message);
                }
                Event::Discarded { message, .. } => {
                    *discarded += 1;
                    *early += usize::from(!accepted.contains(message));
                }
                _ => {}
            }
        }
    };
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Discard));
    let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options).observer(observer).build();
    let drain = CancellationToken::new();
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let relay = relay.clone();
        tasks.spawn(async move {
            for _ in 0..EACH {
                let envelope = envelope("<s@s.test>", &["<a@d.test>"]);
                let content = Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
                relay.submit(Owner::default(), &envelope, content).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let begun = Instant::now();
    while seen.lock().unwrap().1 < TASKS * EACH {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen.lock().unwrap().2, 0, "events that came before the acceptance");
    drain.cancel();
    delivering.await.unwrap().unwrap();
}
