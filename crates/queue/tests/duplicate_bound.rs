//! So many deliveries at most may be made twice after a crash, and work goes on as some of them end.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::memory::{MemoryOptions, MemoryQueue};
use posthaste_queue::{
    Change, Draft, ManualClock, NewDelivery, NewMessage, Outcome, Owner, Priority, Queue, RoutingKey,
};

mod block_on;
use block_on::block_on;

const LEASE: Duration = Duration::from_secs(60);

async fn no_more_than_three<Q: Queue>(queue: Q, clock: ManualClock) {
    let key = RoutingKey::new("a").unwrap();
    let delivery = NewDelivery { key, delay: Duration::ZERO, state: Bytes::new() };
    let (owner, priority, envelope) = (Owner::default(), Priority::default(), Bytes::new());
    let message = NewMessage { owner, priority, envelope, deliveries: vec![delivery; 9] };
    queue.put(None).await.unwrap().commit(message).await.unwrap();

    let mut leases: Vec<_> = queue.claim_any(9, LEASE).await.unwrap().into_iter().map(|each| each.lease).collect();
    assert_eq!(leases.len(), 3);
    assert!(queue.claim_any(9, LEASE).await.unwrap().is_empty());
    let seen = queue.changed(Change::default()).await.unwrap();
    let retry = Outcome::Retry { delay: LEASE * 9, state: Bytes::new() };
    queue.finish(leases.remove(0), retry, Vec::new()).await.unwrap();
    queue.finish(leases.remove(0), Outcome::Done, Vec::new()).await.unwrap();
    // Nothing became due, but there is room again: who waits learns of it.
    let seen = queue.changed(seen).await.unwrap();
    assert_eq!(queue.claim_any(9, LEASE).await.unwrap().len(), 2);
    assert!(queue.claim_any(9, LEASE).await.unwrap().is_empty());
    // A lease that has expired is nobody's.
    clock.advance(LEASE);
    queue.changed(seen).await.unwrap();
    assert_eq!(queue.claim_any(9, LEASE).await.unwrap().len(), 3);
}

#[test]
fn leases_are_bounded_in_memory() {
    let clock = ManualClock::default();
    let options = MemoryOptions { clock: Arc::new(clock.clone()), max_leases: 3, ..MemoryOptions::default() };
    block_on(no_more_than_three(MemoryQueue::new(options), clock));
}

#[test]
fn leases_are_bounded_on_the_disk() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let options =
        LogOptions { clock: Arc::new(clock.clone()), max_leases: 3, disk_reserve: 0, ..LogOptions::default() };
    block_on(no_more_than_three(LogQueue::open(dir.path(), options).unwrap(), clock));
}
