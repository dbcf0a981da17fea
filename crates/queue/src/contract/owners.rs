//! Cases of several owners that share a queue.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Cannot, Harness, LEASE, SECOND, body, both, claim, claim_one, class, message, nothing_due, octets, put, routing_key,
};
use crate::{Alteration, Change, Derived, Draft, LeaseError, Outcome, Queue};

pub(super) async fn what_one_puts_another_delivers<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    let mut seen = other.changed(Change::default()).await.expect("at once");
    for len in [3, 200_000] {
        let whole = octets(len);
        let id = put(&one, message("me", &["a"]), &whole).await.expect("put");
        // Woken by what another owner did: a call may return too early, but not too late.
        let claimed = loop {
            if let Some(claimed) = claim(&other, 2).await.pop() {
                break claimed;
            }
            seen = other.changed(seen).await.expect("changed");
        };
        assert_eq!(claimed.lease.message(), id);
        assert!(body(&other, &claimed.lease).await == whole);
        nothing_due(&one).await;
        other.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
        for queue in [&one, &other] {
            let stats = queue.stats().await;
            assert_eq!((stats.messages, stats.leased, stats.bytes), (0, 0, 0));
        }
    }
    Ok(())
}

pub(super) async fn two_owners_never_hold_the_same<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    for round in 0..20 {
        put(&one, message(["me", "you", "they"][round % 3], &["a", "b", "a"]), b"x").await.expect("put");
    }
    let (mut held, mut leases) = (BTreeSet::new(), Vec::new());
    loop {
        let (first, second) = both(claim(&one, 2), claim(&other, 2)).await;
        if first.is_empty() && second.is_empty() {
            break;
        }
        for (claimed, queue) in [(first, &one), (second, &other)] {
            for claimed in claimed {
                let delivery = (claimed.lease.message(), claimed.lease.delivery());
                assert!(held.insert(delivery), "delivery {} of {} has two holders", delivery.1, delivery.0);
                leases.push((queue, claimed.lease));
            }
        }
    }
    assert_eq!(held.len(), 60, "every delivery has a holder");
    for (queue, lease) in leases {
        queue.finish(lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    assert_eq!(one.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn the_later_claim_counts<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    put(&one, message("me", &["a"]), b"x").await.expect("put");
    let earlier = claim_one(&one).await.lease;
    harness.advance(LEASE).await;
    let later = claim_one(&other).await.lease;
    assert!(matches!(one.extend(&earlier, LEASE).await, Err(LeaseError::Stale)));
    let derived = vec![Derived { message: message("me", &["b"]), body: Bytes::new() }];
    let retry = Outcome::Retry { delay: SECOND, state: Bytes::from_static(b"mine") };
    assert!(matches!(one.finish(earlier, retry, derived).await, Err(LeaseError::Stale)));
    let left = one.list(None, 9).await.expect("list");
    assert_eq!(left.len(), 1, "nothing was derived");
    let delivery = &left[0].deliveries[0];
    assert_eq!((&delivery.state[..], delivery.attempts), (&b"state of a"[..], 0), "and nothing written");
    nothing_due(&one).await;
    other.finish(later, Outcome::Done, Vec::new()).await.expect("the later one is good");
    assert_eq!(one.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn a_lease_that_is_extended_is_so_for_all<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    put(&one, message("me", &["a"]), b"x").await.expect("put");
    let lease = claim_one(&one).await.lease;
    harness.advance(LEASE / 2).await;
    one.extend(&lease, LEASE).await.expect("extend");
    harness.advance(LEASE - SECOND).await;
    nothing_due(&other).await;
    one.extend(&lease, SECOND * 2).await.expect("extend");
    harness.advance(SECOND).await;
    nothing_due(&other).await;
    harness.advance(SECOND).await;
    claim_one(&other).await;
    assert!(matches!(one.extend(&lease, LEASE).await, Err(LeaseError::Stale)));
    Ok(())
}

pub(super) async fn what_operators_do_is_so_for_all<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    let id = put(&one, message("me", &["a", "b"]), b"x").await.expect("put");
    assert!(one.hold(id).await.expect("hold"));
    assert!(!other.hold(id).await.expect("hold"), "it was held already");
    nothing_due(&other).await;
    let seen = one.changed(Change::default()).await.expect("at once");
    assert!(other.release(id).await.expect("release"));
    // One owner may hear of the other with a delay. While a claim is empty, a change is still to
    // come.
    let mut seen = one.changed(seen).await.expect("changed");
    let lease = loop {
        if let Some(claimed) = claim(&one, 1).await.pop() {
            break claimed.lease;
        }
        seen = one.changed(seen).await.expect("changed");
    };
    let new = Alteration::Reroute { from: None, to: routing_key("c") };
    assert_eq!(other.alter(id, new).await.expect("alter"), 2);
    assert_eq!(one.due(None, 9).await.expect("due"), [class("c", 0, "me")]);
    other.remove(id).await.expect("remove");
    assert!(matches!(one.finish(lease, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
    nothing_due(&one).await;
    Ok(())
}

pub(super) async fn a_dead_owner_s_leases_expire<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    let ids = [
        put(&one, message("me", &["a"]), b"x").await.expect("put"),
        put(&one, message("me", &["a"]), b"y").await.expect("put"),
    ];
    let seen = other.changed(Change::default()).await.expect("at once");
    let old: Vec<_> = claim(&one, 2).await.into_iter().map(|each| each.lease).collect();
    assert_eq!(old.len(), 2);
    harness.kill(one).await?;
    harness.advance(LEASE - SECOND).await;
    nothing_due(&other).await;
    harness.advance(SECOND).await;
    let mut seen = other.changed(seen).await.expect("changed");
    let mut claimed = Vec::new();
    while claimed.len() < 2 {
        claimed.extend(claim(&other, 2).await);
        if claimed.len() < 2 {
            seen = other.changed(seen).await.expect("changed");
        }
    }
    assert_eq!(claimed.iter().map(|each| each.lease.message()).collect::<Vec<_>>(), ids);
    for lease in old {
        assert!(matches!(other.finish(lease, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
    }
    for claimed in claimed {
        assert_eq!(claimed.attempts, 0);
        other.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    assert_eq!(other.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn a_dead_owner_s_drafts_are_nothing<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let one = harness.open().await;
    let other = harness.another(&one).await?;
    let mut draft = one.put(None).await.expect("put");
    draft.write(octets(400_000)).await.expect("write");
    let id = draft.id();
    harness.kill(one).await?;
    assert!(draft.commit(message("me", &["a"])).await.is_err());
    let stats = other.stats().await;
    assert_eq!((stats.messages, stats.bytes), (0, 0));
    nothing_due(&other).await;
    assert_ne!(put(&other, message("me", &["a"]), b"x").await.expect("put"), id);
    Ok(())
}
