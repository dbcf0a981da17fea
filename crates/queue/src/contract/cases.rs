//! Cases that hold for every engine.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::{Harness, LEASE, SECOND, body, claim, claim_one, message, nothing_due, octets, put, ready, routing_key};
use crate::{Alteration, Change, Claim, Derived, Draft, Error, LeaseError, Outcome, PutError, Queue};

pub(super) async fn commit_claim_finish<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    nothing_due(&queue).await;
    let id = put(&queue, message("me", &["a.example"]), b"hello").await.expect("put");

    let claimed = claim_one(&queue).await;
    assert_eq!(claimed.lease.message(), id);
    assert_eq!((claimed.key.as_str(), claimed.owner.as_str()), ("a.example", "me"));
    assert_eq!((&claimed.envelope[..], &claimed.state[..]), (&b"envelope of me"[..], &b"state of a.example"[..]));
    assert_eq!((claimed.body_len, claimed.attempts), (5, 0));
    assert_eq!(body(&queue, &claimed.lease).await, b"hello");
    nothing_due(&queue).await;
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.deliveries, stats.leased, stats.bytes), (1, 1, 1, 5));

    let derived = queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    assert!(derived.is_empty());
    nothing_due(&queue).await;
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.deliveries, stats.leased, stats.bytes), (0, 0, 0, 0));
    assert_eq!((stats.puts, stats.finished, stats.drafts, stats.index_memory), (1, 1, 0, 0));
}

pub(super) async fn a_draft_that_is_dropped_leaves_nothing<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for len in [0, 10, 2_000_000] {
        let mut draft = queue.put(Some(len as u64)).await.expect("put");
        draft.write(octets(len)).await.expect("write");
        assert_eq!(queue.stats().await.drafts, 1);
        drop(draft);
    }
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.drafts, stats.draft_memory, stats.bytes), (0, 0, 0, 0));
    nothing_due(&queue).await;
}

pub(super) async fn bodies_of_every_size<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for len in [0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_000] {
        let whole = octets(len);
        put(&queue, message("me", &["a"]), &whole).await.expect("put");
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.body_len, len as u64);
        assert!(body(&queue, &claimed.lease).await == whole, "a body of {len} octets");
        // A body can be read on after its message is gone.
        let mut reader = queue.body(claimed.lease.message()).await.expect("body");
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
        let mut read = 0;
        while let Some(chunk) = crate::Body::chunk(&mut reader).await.expect("chunk") {
            read += chunk.len();
        }
        assert_eq!(read, len);
    }
}

pub(super) async fn a_stale_lease_writes_nothing<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let first = claim_one(&queue).await.lease;
    harness.advance(LEASE + SECOND).await;
    let second = claim_one(&queue).await.lease;
    assert!(matches!(queue.extend(&first, LEASE).await, Err(LeaseError::Stale)));
    let derived = vec![Derived { message: message("me", &["b"]), body: Bytes::new() }];
    assert!(matches!(queue.finish(first, Outcome::Done, derived).await, Err(LeaseError::Stale)));
    assert_eq!(queue.stats().await.messages, 1, "nothing was finished, nothing derived");
    queue.finish(second, Outcome::Done, Vec::new()).await.expect("the newer lease is good");
    assert_eq!(queue.stats().await.messages, 0);
}

pub(super) async fn an_expired_lease_is_claimable_again<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    for _ in 0..3 {
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.attempts, 0, "an expired lease is no attempt");
        harness.advance(LEASE - SECOND).await;
        nothing_due(&queue).await;
        harness.advance(SECOND).await;
    }
    claim_one(&queue).await;
}

pub(super) async fn a_late_outcome_counts_until_the_next_claim<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let lease = claim_one(&queue).await.lease;
    harness.advance(LEASE * 2).await;
    queue.finish(lease, Outcome::Done, Vec::new()).await.expect("what happened, happened");
    assert_eq!(queue.stats().await.messages, 0);
}

pub(super) async fn a_lease_can_be_extended<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let lease = claim_one(&queue).await.lease;
    harness.advance(LEASE / 2).await;
    queue.extend(&lease, LEASE).await.expect("extend");
    harness.advance(LEASE - SECOND).await;
    nothing_due(&queue).await;
    queue.extend(&lease, SECOND).await.expect("also to less");
    harness.advance(SECOND).await;
    queue.extend(&lease, LEASE).await.expect("revived: it was not claimed again");
    nothing_due(&queue).await;
    assert_eq!(queue.stats().await.leased, 1);
    queue.finish(lease, Outcome::Done, Vec::new()).await.expect("finish");
}

pub(super) async fn a_retry_waits_its_delay<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut new = message("me", &["a"]);
    new.deliveries[0].delay = SECOND * 10;
    put(&queue, new, b"x").await.expect("put");
    nothing_due(&queue).await;
    harness.advance(SECOND * 10).await;
    for attempts in 0..3 {
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.attempts, attempts);
        if attempts > 0 {
            assert_eq!(claimed.state, format!("attempt {}", attempts - 1));
        }
        let state = Bytes::from(format!("attempt {attempts}"));
        let retry = Outcome::Retry { delay: Duration::from_secs(300), state };
        queue.finish(claimed.lease, retry, Vec::new()).await.expect("finish");
        harness.advance(Duration::from_secs(299)).await;
        nothing_due(&queue).await;
        harness.advance(SECOND).await;
    }
}

pub(super) async fn several_deliveries_are_independent<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b", "c"]), b"x").await.expect("put");
    let claimed = claim(&queue, 9).await;
    assert_eq!(claimed.iter().map(|each| each.lease.delivery()).collect::<Vec<_>>(), [0, 1, 2]);
    let [a, b, c] = <[_; 3]>::try_from(claimed).expect("three deliveries");
    queue.finish(b.lease, Outcome::Done, Vec::new()).await.expect("finish");
    let retry = Outcome::Retry { delay: SECOND, state: Bytes::from_static(b"later") };
    queue.finish(c.lease, retry, Vec::new()).await.expect("finish");
    let left = &queue.list(None, 9).await.expect("list")[0];
    assert_eq!(left.id, id);
    assert_eq!(
        left.deliveries.iter().map(|each| (each.delivery, each.leased)).collect::<Vec<_>>(),
        [(0, true), (2, false)]
    );
    queue.finish(a.lease, Outcome::Done, Vec::new()).await.expect("finish");
    harness.advance(SECOND).await;
    let c = claim_one(&queue).await;
    assert_eq!((c.lease.delivery(), c.key.as_str(), &c.state[..]), (2, "c", &b"later"[..]));
    queue.finish(c.lease, Outcome::Done, Vec::new()).await.expect("finish");
    assert_eq!(queue.stats().await.messages, 0);
}

pub(super) async fn derived_messages_come_with_the_outcome<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let lease = claim_one(&queue).await.lease;
    let report = |key: &str, body: &'static [u8]| Derived {
        message: message("reports", &[key]),
        body: Bytes::from_static(body),
    };
    let derived = vec![report("r1", b"first"), report("r2", b"")];
    let ids = queue.finish(lease, Outcome::Done, derived).await.expect("finish");
    assert_eq!(ids.len(), 2);
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.puts), (2, 3));
    for (id, whole) in ids.into_iter().zip([&b"first"[..], b""]) {
        let claimed = claim(&queue, 1).await.remove(0);
        assert_eq!((claimed.lease.message(), claimed.owner.as_str()), (id, "reports"));
        assert_eq!(body(&queue, &claimed.lease).await, whole);
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
}

pub(super) async fn changed_wakes<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut seen = queue.changed(Change::default()).await.expect("the first call returns at once");
    assert!(ready(queue.changed(seen)).is_none());

    let mut new = message("me", &["a"]);
    new.deliveries[0].delay = SECOND;
    let id = put(&queue, new, b"x").await.expect("put");
    harness.advance(SECOND).await;
    seen = queue.changed(seen).await.expect("due");
    let lease = claim_one(&queue).await.lease;
    harness.advance(LEASE).await;
    seen = queue.changed(seen).await.expect("expired");
    drop(lease);
    let lease = claim_one(&queue).await.lease;
    let retry = Outcome::Retry { delay: Duration::ZERO, state: Bytes::new() };
    queue.finish(lease, retry, Vec::new()).await.expect("finish");
    seen = queue.changed(seen).await.expect("again");
    queue.hold(id).await.expect("hold");
    queue.release(id).await.expect("release");
    seen = queue.changed(seen).await.expect("released");
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    queue.changed(seen).await.expect("new");
}

/// A change wakes those who wait already, and not only those who ask later.
pub(super) async fn changed_wakes_those_who_wait<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut seen = queue.changed(Change::default()).await.expect("at once");
    let mut later = message("me", &["a"]);
    later.deliveries[0].delay = SECOND * 100;
    let id = woken(&queue, &mut seen, put(&queue, message("me", &["a"]), b"x")).await.expect("put");
    let lease = claim_one(&queue).await.lease;
    let retry = Outcome::Retry { delay: Duration::ZERO, state: Bytes::new() };
    woken(&queue, &mut seen, queue.finish(lease, retry, Vec::new())).await.expect("finish");
    queue.hold(id).await.expect("hold");
    woken(&queue, &mut seen, queue.release(id)).await.expect("release");
    let lease = claim_one(&queue).await.lease;
    let derived = vec![Derived { message: message("me", &["b"]), body: Bytes::new() }];
    let ids = woken(&queue, &mut seen, queue.finish(lease, Outcome::Done, derived)).await.expect("finish");
    queue.remove(ids[0]).await.expect("remove");
    let id = put(&queue, later, b"x").await.expect("put");
    let now = Alteration::Reschedule { key: None, delay: Duration::ZERO };
    woken(&queue, &mut seen, queue.alter(id, now)).await.expect("reschedule");
    let elsewhere = Alteration::Reroute { from: None, to: routing_key("z") };
    woken(&queue, &mut seen, queue.alter(id, elsewhere)).await.expect("reroute");
    let lease = claim_one(&queue).await.lease;
    woken(&queue, &mut seen, queue.extend(&lease, Duration::ZERO)).await.expect("extend");

    let mut waiting = pin!(queue.changed(seen));
    let is_ready = ready(waiting.as_mut()).is_some();
    queue.close().await;
    assert!(
        is_ready || matches!(waiting.await, Err(Error::Closed)),
        "a waiting caller learns that the queue is closed"
    );
}

/// Begins to wait, lets something happen, and waits until it is signaled.
async fn woken<Q: Queue, T>(queue: &Q, seen: &mut Change, what: impl Future<Output = T>) -> T {
    #[derive(Default)]
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    // An earlier change may be counted late.
    for _ in 0..100 {
        let flag = Arc::<Flag>::default();
        let waker = Waker::from(Arc::clone(&flag));
        let mut waiting = pin!(queue.changed(*seen));
        if let Poll::Ready(early) = waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
            *seen = early.expect("changed");
            continue;
        }
        let value = what.await;
        if let Some(now) = ready(waiting.as_mut()) {
            assert!(flag.0.load(Ordering::SeqCst), "there was a change, and no waiter was woken");
            *seen = now.expect("changed");
        } else {
            // It asks again, so it is woken again.
            *seen = waiting.await.expect("changed");
        }
        return value;
    }
    panic!("changed() returns again and again without a change");
}

pub(super) async fn changed_loses_nothing<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let seen = queue.changed(Change::default()).await.expect("at once");
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    put(&queue, message("me", &["b"]), b"x").await.expect("put");
    // Each of several waiters learns of it, however late it asks, and whatever another one claimed.
    assert_eq!(claim(&queue, 1).await.len(), 1);
    for _ in 0..3 {
        assert!(ready(queue.changed(seen)).is_some(), "what came after the last call is news");
    }
}

pub(super) async fn age_grows<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    harness.advance(SECOND * 5).await;
    let claimed = claim_one(&queue).await;
    assert!(claimed.age >= SECOND * 5 && claimed.age < SECOND * 6, "{:?}", claimed.age);
    let oldest = queue.stats().await.oldest.expect("one message");
    assert!(oldest >= SECOND * 5 && oldest < SECOND * 6, "{oldest:?}");
}

pub(super) async fn closed_is_closed<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b"]), b"x").await.expect("put");
    let lease = claim(&queue, 1).await.remove(0).lease;
    let draft = queue.put(None).await.expect("put");
    let seen = queue.changed(Change::default()).await.expect("at once");
    queue.close().await;
    queue.close().await;
    assert!(matches!(queue.changed(seen).await, Err(Error::Closed)));
    assert!(matches!(draft.commit(message("me", &["a"])).await, Err(PutError::Closed)));
    assert!(matches!(queue.put(None).await, Err(PutError::Closed)));
    assert!(matches!(queue.claim_any(1, LEASE).await, Err(Error::Closed)));
    let claim = Claim { from: &[], max: 1, lease: LEASE };
    assert!(matches!(queue.claim(claim).await, Err(Error::Closed)));
    assert!(matches!(queue.hold(id).await, Err(Error::Closed)));
    assert!(matches!(queue.remove(id).await, Err(Error::Closed)));
    assert!(matches!(queue.body(lease.message()).await.map(drop), Err(Error::Closed)));
    assert!(matches!(queue.due(None, 1).await, Err(Error::Closed)));
    assert!(matches!(queue.list(None, 1).await, Err(Error::Closed)));
    assert!(matches!(queue.extend(&lease, LEASE).await, Err(LeaseError::Store(Error::Closed))));
    let finished = queue.finish(lease, Outcome::Done, Vec::new()).await;
    assert!(matches!(finished, Err(LeaseError::Store(Error::Closed))));
}
