//! The queue, as it is by default.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::{
    Draft as _, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue as _, RoutingKey,
};

use super::Candidate;
use crate::block_on::block_on;

struct Puts(LogQueue);

/// Each message is claimed and done with as well, by the one who put it or another.
struct All(LogQueue);

pub(super) fn puts(folder: &Path) -> Box<dyn Candidate> {
    Box::new(Puts(LogQueue::open(folder, LogOptions::default()).expect("an empty folder")))
}

pub(super) fn all(folder: &Path) -> Box<dyn Candidate> {
    Box::new(All(LogQueue::open(folder, LogOptions::default()).expect("an empty folder")))
}

impl Candidate for Puts {
    fn put(&self, body: &Bytes) {
        block_on(put(&self.0, body)).expect("the queue takes it");
    }

    fn syncs(&self) -> u64 {
        block_on(self.0.stats()).fsyncs
    }

    fn worker(&self) -> &'static str {
        STORE
    }
}

impl Candidate for All {
    fn put(&self, body: &Bytes) {
        block_on(async {
            put(&self.0, body).await.expect("the queue takes it");
            let claimed = self.0.claim_any(1, Duration::from_secs(60)).await.expect("the queue is open");
            for claimed in claimed {
                self.0.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("the lease is good");
            }
        });
    }

    fn syncs(&self) -> u64 {
        block_on(self.0.stats()).fsyncs
    }

    fn worker(&self) -> &'static str {
        STORE
    }
}

async fn put(queue: &LogQueue, body: &Bytes) -> Result<(), PutError> {
    let mut draft = queue.put(Some(body.len() as u64)).await?;
    draft.write(body.clone()).await?;
    let key = RoutingKey::new("example.org").expect("a short name");
    let message = NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(&[b'e'; 150]),
        deliveries: vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::from_static(b"state") }],
    };
    draft.commit(message).await.map(|_| ())
}

/// The thread that owns the log.
const STORE: &str = "posthaste-store";
