//! A queue that refuses an outcome permanently.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::support::{Behavior, Hop, Log, envelope, options};
use posthaste_client::SystemResolver;
use posthaste_queue::{
    Alteration, Change, Claim, Claimed, Derived, DueClass, Error, Gather, Lease, LeaseError, MessageId, Outcome, Owner,
    Page, PutError, Queue, Search, Stats, Summary, TooLarge,
    memory::{MemoryBody, MemoryDraft, MemoryQueue},
};
use posthaste_relay::Relay;
use posthaste_server::refusal;
use tokio_util::sync::CancellationToken;

/// Refuses the next outcomes as too large.
struct Refusing {
    queue: MemoryQueue,
    refusals: Arc<AtomicUsize>,
}

impl Queue for Refusing {
    type Draft = MemoryDraft;
    type Body = MemoryBody;

    async fn put(&self, size_hint: Option<u64>) -> Result<MemoryDraft, PutError> {
        self.queue.put(size_hint).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.queue.claim(claim).await
    }

    async fn body(&self, message: MessageId) -> Result<MemoryBody, Error> {
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
        if self.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(TooLarge::bytes("it", 1, 2).into());
        }
        self.queue.finish_all(ends, derived).await
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
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

/// A refused outcome is written in its least form. If the queue refuses that too, the message is
/// held, and never sent again by itself.
#[tokio::test]
async fn an_outcome_that_is_refused_is_shortened_or_its_message_held() {
    for (refusals, is_held) in [(0, false), (1, false), (2, true), (9, true)] {
        let behavior = Behavior {
            rcpt: Box::new(|path| match path.starts_with("<r") {
                true => Err(refusal!("550 5.1.1 Nobody here has that name")),
                false => Ok(()),
            }),
            ..Behavior::default()
        };
        let hop = Hop::start(behavior).await;
        let mut options = options(&[hop.port]);
        options.delivery.lease = Duration::from_millis(300);
        let log = Log::default();
        let queue = Refusing { queue: MemoryQueue::default(), refusals: Arc::new(AtomicUsize::new(refusals)) };
        let relay = Relay::builder(queue, SystemResolver, options).observer(log.clone()).build();
        let drain = CancellationToken::new();
        let task = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
        let envelope = envelope("<sender@s>", &["<r@d>", "<take@d>"]);
        relay
            .submit(Owner::default(), &envelope, bytes::Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n"))
            .await
            .unwrap();
        if is_held {
            while relay.queue().stats().await.held == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // After several lease times it was not sent again.
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert_eq!((hop.count(), relay.queue().stats().await.messages), (1, 1), "{refusals}");
        } else {
            log.wait("delivered", 2).await;
            assert_eq!(log.count("reported"), 1);
            let report = hop.reports()[0].text();
            assert_eq!(report.contains("Nobody here"), refusals == 0, "{report}");
            assert!(report.contains("Final-Recipient: rfc822; r@d\r\nAction: failed\r\nStatus: 5.1.1\r\n"), "{report}");
        }
        drain.cancel();
        task.await.unwrap().unwrap();
    }
}
