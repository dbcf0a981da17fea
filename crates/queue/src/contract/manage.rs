//! Cases of what operators do.

use std::time::Duration;

use bytes::Bytes;

use super::{Harness, LEASE, SECOND, claim, claim_one, class, message, nothing_due, octets, put, routing_key};
use crate::{Alteration, Error, LeaseError, MessageId, Outcome, Owner, Queue, Search};

pub(super) async fn hold_and_release<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b"]), b"x").await.expect("put");
    let lease = claim(&queue, 1).await.remove(0).lease;
    assert!(queue.hold(id).await.expect("hold"));
    assert!(!queue.hold(id).await.expect("hold again"));
    assert_eq!(queue.stats().await.held, 1);
    nothing_due(&queue).await;
    let retry = Outcome::Retry { delay: SECOND, state: Bytes::new() };
    queue.finish(lease, retry, Vec::new()).await.expect("a lease that is out goes on");
    harness.advance(LEASE * 2).await;
    nothing_due(&queue).await;
    assert!(queue.due(None, 9).await.expect("due").is_empty());
    assert!(queue.release(id).await.expect("release"));
    assert!(!queue.release(id).await.expect("release again"));
    assert_eq!(claim(&queue, 9).await.len(), 2);
    assert_eq!(queue.stats().await.held, 0);
}

pub(super) async fn remove<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b"]), &octets(400_000)).await.expect("put");
    let lease = claim(&queue, 1).await.remove(0).lease;
    assert_eq!(vec![queue.summary(id).await.expect("summary")], queue.list(None, 9).await.expect("list"));
    queue.remove(id).await.expect("remove");
    assert!(matches!(queue.summary(id).await, Err(Error::NoSuchMessage(gone)) if gone == id));
    assert!(matches!(queue.remove(id).await, Err(Error::NoSuchMessage(gone)) if gone == id));
    assert!(matches!(queue.hold(id).await, Err(Error::NoSuchMessage(_))));
    assert!(matches!(queue.release(id).await, Err(Error::NoSuchMessage(_))));
    assert!(matches!(queue.body(lease.message()).await, Err(Error::NoSuchMessage(_))));
    assert!(matches!(queue.extend(&lease, LEASE).await, Err(LeaseError::Stale)));
    assert!(matches!(queue.finish(lease, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
    harness.advance(LEASE * 2).await;
    nothing_due(&queue).await;
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.leased, stats.bytes), (0, 0, 0));
}

pub(super) async fn list_is_paged<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(put(&queue, message("me", &["a"]), b"abc").await.expect("put"));
    }
    let mut seen = Vec::new();
    loop {
        let page = queue.list(seen.last().copied(), 2).await.expect("list");
        if page.is_empty() {
            break;
        }
        assert!(page.iter().all(|each| each.body_len == 3 && each.envelope == "envelope of me" && !each.held));
        seen.extend(page.into_iter().map(|each| each.id));
    }
    assert_eq!(seen, ids);
}

pub(super) async fn reschedule<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut new = message("me", &["a", "b", "b"]);
    new.deliveries.iter_mut().for_each(|each| each.delay = SECOND * 100);
    let id = put(&queue, new, b"x").await.expect("put");
    let when =
        |key: Option<&str>, seconds| Alteration::Reschedule { key: key.map(routing_key), delay: SECOND * seconds };
    // Sooner for one key; then for all; then later, what was due already included.
    assert_eq!(queue.alter(id, when(Some("b"), 0)).await.expect("alter"), 2);
    assert_eq!(queue.due(None, 9).await.expect("due"), [class("b", 0, "me")]);
    assert_eq!(queue.alter(id, when(None, 0)).await.expect("alter"), 3);
    assert_eq!(queue.due(None, 9).await.expect("due"), ["a", "b"].map(|key| class(key, 0, "me")));
    assert_eq!(queue.alter(id, when(Some("a"), 10)).await.expect("alter"), 1);
    assert_eq!(queue.alter(id, when(Some("nobody"), 0)).await.expect("alter"), 0);
    assert_eq!(queue.due(None, 9).await.expect("due"), [class("b", 0, "me")]);

    // A lease goes on, and its outcome counts.
    let lease = claim(&queue, 1).await.remove(0).lease;
    assert_eq!(queue.alter(id, when(None, 10)).await.expect("alter"), 3);
    nothing_due(&queue).await;
    let retry = Outcome::Retry { delay: SECOND * 5, state: Bytes::from_static(b"tried") };
    queue.finish(lease, retry, Vec::new()).await.expect("finish");
    harness.advance(SECOND * 5).await;
    let claimed = claim_one(&queue).await;
    assert_eq!((claimed.attempts, &claimed.state[..]), (1, &b"tried"[..]));
    harness.advance(SECOND * 5).await;
    assert_eq!(claim(&queue, 9).await.len(), 2);

    // A hold stays.
    queue.hold(id).await.expect("hold");
    harness.advance(LEASE * 2).await;
    queue.alter(id, when(None, 0)).await.expect("alter");
    nothing_due(&queue).await;
    queue.release(id).await.expect("release");
    assert_eq!(claim(&queue, 9).await.len(), 3);

    // After the lease expires, the delivery is due at the new time.
    queue.alter(id, Alteration::Reschedule { key: None, delay: LEASE * 3 }).await.expect("alter");
    harness.advance(LEASE + SECOND).await;
    nothing_due(&queue).await;
    harness.advance(LEASE * 2).await;
    assert_eq!(claim(&queue, 9).await.len(), 3);
    let nobody = MessageId::from_u64(id.as_u64() + 1);
    assert!(matches!(queue.alter(nobody, when(None, 0)).await, Err(Error::NoSuchMessage(gone)) if gone == nobody));
}

pub(super) async fn reroute<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut new = message("me", &["old", "old", "other", "old"]);
    new.deliveries[1].delay = SECOND;
    let id = put(&queue, new, b"x").await.expect("put");
    let lease = claim(&queue, 1).await.remove(0).lease;
    let old_to_new = Alteration::Reroute { from: Some(routing_key("old")), to: routing_key("new") };
    assert_eq!(queue.alter(id, old_to_new.clone()).await.expect("alter"), 3);
    assert_eq!(queue.alter(id, old_to_new).await.expect("alter"), 0);
    // A ready and a waiting delivery at once, a leased one when its lease ends.
    let keys = |deliveries: Vec<crate::Claimed>| deliveries.into_iter().map(|each| each.key).collect::<Vec<_>>();
    assert_eq!(keys(claim(&queue, 9).await), ["new", "other"].map(routing_key));
    harness.advance(SECOND).await;
    assert_eq!(keys(claim(&queue, 9).await), [routing_key("new")]);
    let retry = Outcome::Retry { delay: Duration::ZERO, state: Bytes::new() };
    queue.finish(lease, retry, Vec::new()).await.expect("finish");
    assert_eq!(queue.due(None, 9).await.expect("due"), [class("new", 0, "me")]);
    let all = Alteration::Reroute { from: None, to: routing_key("last") };
    assert_eq!(queue.alter(id, all).await.expect("alter"), 4);
    assert_eq!(keys(claim(&queue, 9).await), [routing_key("last")]);
    harness.advance(LEASE * 2).await;
    assert_eq!(keys(claim(&queue, 9).await), vec![routing_key("last"); 4]);
}

pub(super) async fn a_search_finds_what_it_says<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut ids = Vec::new();
    for (owner, keys) in [("one", &["a", "b"][..]), ("two", &["a"]), ("one", &["b"]), ("three", &["c"])] {
        ids.push(put(&queue, message(owner, keys), b"abc").await.expect("put"));
    }
    queue.hold(ids[2]).await.expect("hold");
    let owner = |name| Some(Owner::new(name).expect("a short name"));
    let key = |name| Some(routing_key(name));
    let containing = |text: &'static str| Bytes::from_static(text.as_bytes());
    let all = Search::default();
    for (search, found) in [
        (Search { owner: owner("one"), ..all.clone() }, &[0, 2][..]),
        (Search { owner: owner("nobody"), ..all.clone() }, &[]),
        (Search { key: key("a"), ..all.clone() }, &[0, 1]),
        (Search { key: key("b"), held: Some(false), ..all.clone() }, &[0]),
        (Search { held: Some(true), ..all.clone() }, &[2]),
        (Search { containing: containing("lope of t"), ..all.clone() }, &[1, 3]),
        (Search { containing: containing("state of b"), ..all.clone() }, &[0, 2]),
        (Search { containing: containing("state of b"), owner: owner("two"), ..all.clone() }, &[]),
        (all, &[0, 1, 2, 3]),
    ] {
        for limit in [1, 3, 99] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = queue.search(&search, after, limit).await.expect("search");
                assert!(page.messages.len() <= limit);
                seen.extend(page.messages.into_iter().map(|each| each.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let found: Vec<_> = found.iter().map(|at: &usize| ids[*at]).collect();
            assert_eq!(seen, found, "{search:?}, {limit} a page");
        }
    }
}
