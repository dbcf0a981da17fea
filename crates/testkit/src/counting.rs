//! A queue that counts the calls of its caller.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use posthaste_queue::{
    Alteration, Change, Claim, Claimed, Derived, DueClass, Error, Gather, Lease, LeaseError, MessageId, Outcome, Page,
    PutError, Queue, Search, Stats, Summary,
};

/// A queue around another one.
#[derive(Debug)]
pub struct Counting<Q> {
    /// The queue. Its own calls are not counted.
    pub queue: Q,
    due: AtomicUsize,
    claims: AtomicUsize,
    writes: AtomicUsize,
}

/// What was asked of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Calls of [`due`](Queue::due).
    pub due: usize,
    /// Calls of [`claim`](Queue::claim).
    pub claims: usize,
    /// Calls of [`finish_all`](Queue::finish_all).
    pub writes: usize,
}

impl<Q> Counting<Q> {
    /// Counts from zero.
    pub fn new(queue: Q) -> Self {
        let (due, claims, writes) = Default::default();
        Self { queue, due, claims, writes }
    }

    /// The calls since the last time that this was asked.
    pub fn take(&self) -> Calls {
        let take = |count: &AtomicUsize| count.swap(0, Relaxed);
        Calls { due: take(&self.due), claims: take(&self.claims), writes: take(&self.writes) }
    }
}

impl<Q: Queue> Queue for Counting<Q> {
    type Draft = Q::Draft;
    type Body = Q::Body;

    async fn put(&self, size_hint: Option<u64>) -> Result<Q::Draft, PutError> {
        self.queue.put(size_hint).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.claims.fetch_add(1, Relaxed);
        self.queue.claim(claim).await
    }

    async fn body(&self, message: MessageId) -> Result<Q::Body, Error> {
        self.queue.body(message).await
    }

    async fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.queue.extend(lease, lease_for).await
    }

    async fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        self.queue.gather(gather).await
    }

    async fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Vec<MessageId>, LeaseError> {
        self.writes.fetch_add(1, Relaxed);
        self.queue.finish_all(ends, derived).await
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        self.due.fetch_add(1, Relaxed);
        self.queue.due(after, limit).await
    }

    async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.queue.changed(seen).await
    }

    async fn alter(&self, message: MessageId, what: Alteration) -> Result<usize, Error> {
        self.queue.alter(message, what).await
    }

    async fn remove(&self, message: MessageId) -> Result<(), Error> {
        self.queue.remove(message).await
    }

    async fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        self.queue.search(search, after, limit).await
    }

    async fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        self.queue.summary(message).await
    }

    async fn stats(&self) -> Stats {
        self.queue.stats().await
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}
