//! Cases for engines that outlive a process.

use bytes::Bytes;

use super::{
    Cannot, Harness, LEASE, SECOND, body, claim, claim_one, contents, message, nothing_due, octets, put, routing_key,
};
use crate::{Alteration, Derived, Draft, LeaseError, Outcome, Priority, Queue};

pub(super) async fn reopening_gives_the_same<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open().await;
    let mut first = message("first", &["a", "b", "c"]);
    first.priority = Priority(-7);
    first.deliveries[2].delay = SECOND * 500;
    let (small, large) = (octets(1000), octets(700_000));
    put(&queue, first, &small).await.expect("put");
    put(&queue, message("second", &["d"]), &large).await.expect("put");
    let held = put(&queue, message("held", &["e"]), b"").await.expect("put");
    let gone = put(&queue, message("gone", &["f"]), &large).await.expect("put");
    let removed = put(&queue, message("removed", &["g"]), b"x").await.expect("put");
    queue.hold(held).await.expect("hold");
    queue.remove(removed).await.expect("remove");
    let moved = put(&queue, message("moved", &["x", "y"]), b"").await.expect("put");
    let to_z = Alteration::Reroute { from: Some(routing_key("x")), to: routing_key("z") };
    assert_eq!(queue.alter(moved, to_z).await.expect("alter"), 1);
    let later = Alteration::Reschedule { key: None, delay: SECOND * 1000 };
    assert_eq!(queue.alter(moved, later).await.expect("alter"), 2);
    for claimed in claim(&queue, 99).await {
        let (outcome, derived) = match claimed.key.as_str() {
            "a" => (Outcome::Done, Vec::new()),
            "b" => (Outcome::Retry { delay: SECOND * 100, state: Bytes::from_static(b"tried") }, Vec::new()),
            "f" => {
                let derived = Derived { message: message("reports", &["r"]), body: Bytes::from_static(b"sorry") };
                (Outcome::Done, vec![derived])
            }
            _ => continue,
        };
        queue.finish(claimed.lease, outcome, derived).await.expect("finish");
    }
    let before = contents(&queue).await;
    assert_eq!(before.len(), 5);
    assert!(before.iter().all(|each| each.id != gone && each.id != removed));

    let queue = harness.reopen(queue).await?;
    assert_eq!(contents(&queue).await, before);
    let queue = harness.reopen(queue).await?;
    assert_eq!(contents(&queue).await, before, "opening changes nothing");
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.deliveries, stats.held, stats.damaged), (5, 7, 1, 0));
    assert_eq!(stats.bytes, 1000 + 700_000 + 5);

    let mut bodies = Vec::new();
    for claimed in claim(&queue, 99).await {
        bodies.push((claimed.key.as_str().to_owned(), body(&queue, &claimed.lease).await));
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    bodies.sort();
    assert!(bodies == [("d".to_owned(), large.to_vec()), ("r".to_owned(), b"sorry".to_vec())]);
    harness.advance(SECOND * 99).await;
    nothing_due(&queue).await;
    harness.advance(SECOND).await;
    let retried = claim_one(&queue).await;
    assert_eq!((retried.key.as_str(), &retried.state[..], retried.attempts), ("b", &b"tried"[..], 1));
    assert!(retried.age >= SECOND * 100 && retried.age < SECOND * 101);
    assert!(body(&queue, &retried.lease).await == small);
    Ok(())
}

pub(super) async fn leases_end_with_the_queue<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let old = claim_one(&queue).await.lease;
    let queue = harness.reopen(queue).await?;
    let new = claim_one(&queue).await.lease;
    assert!(matches!(queue.extend(&old, LEASE).await, Err(LeaseError::Stale)));
    assert!(matches!(queue.finish(old, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
    queue.finish(new, Outcome::Done, Vec::new()).await.expect("finish");
    let queue = harness.reopen(queue).await?;
    assert_eq!(queue.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn ids_are_never_used_again<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let mut queue = harness.open().await;
    let mut last = None;
    for round in 0..4 {
        let dropped = queue.put(None).await.expect("put").id();
        assert!(last < Some(dropped));
        let id = put(&queue, message("me", &["a"]), b"x").await.expect("put");
        assert!(dropped < id);
        last = Some(id);
        if round % 2 == 0 {
            let lease = claim_one(&queue).await.lease;
            queue.finish(lease, Outcome::Done, Vec::new()).await.expect("finish");
        } else {
            queue.remove(id).await.expect("remove");
        }
        queue = harness.reopen(queue).await?;
    }
    Ok(())
}
