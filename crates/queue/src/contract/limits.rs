//! Cases at the limits.

use std::time::Duration;

use bytes::Bytes;

use super::{Cannot, Harness, LEASE, SECOND, claim, claim_one, class, message, nothing_due, octets, put};
use crate::{
    Change, Claim, Derived, Draft, LeaseError, MAX_DELAY, MAX_DELIVERIES, MAX_DERIVED, MAX_ENVELOPE, MAX_STATES,
    NewMessage, Outcome, PutError, Queue, Search,
};

pub(super) async fn a_message_has_limits<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let refused = put(&queue, message("me", &[]), b"x").await;
    assert!(matches!(refused, Err(PutError::NoDelivery)));
    for over in [0, 1] {
        for new in at_the_limits(over) {
            let sizes = (new.envelope.len(), new.deliveries.len());
            match put(&queue, new.clone(), b"x").await {
                Ok(id) if over == 0 => {
                    let claimed = claim(&queue, 1).await.remove(0);
                    assert!(claimed.envelope == new.envelope && claimed.state == new.deliveries[0].state, "{sizes:?}");
                    queue.remove(id).await.expect("remove");
                }
                Err(PutError::TooLarge(why)) if over == 1 => {
                    assert_eq!(why.actual, why.limit + 1, "{why}");
                    let is_count = sizes.1 > MAX_DELIVERIES;
                    assert_eq!(why.unit, if is_count { "deliveries" } else { "bytes" }, "{why}");
                }
                other => panic!("{over} over the limit, {sizes:?}: {other:?}"),
            }
            assert_eq!(queue.stats().await.messages, 0);
        }
    }
}

/// Messages at each limit, or `over` beyond it.
fn at_the_limits(over: usize) -> [NewMessage; 3] {
    let mut envelope = message("me", &["a"]);
    envelope.envelope = octets(MAX_ENVELOPE + over);
    let mut deliveries = message("me", &["a"]);
    deliveries.deliveries = vec![deliveries.deliveries[0].clone(); MAX_DELIVERIES + over];
    let mut states = message("me", &["a", "b"]);
    states.deliveries[0].state = octets(MAX_STATES / 2);
    states.deliveries[1].state = octets(MAX_STATES / 2 + over);
    [envelope, deliveries, states]
}

/// An outcome beyond a limit is refused, and the lease stays good.
pub(super) async fn an_outcome_has_limits<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let lease = claim_one(&queue).await.lease;
    let again = || crate::Lease::new(lease.message(), lease.delivery(), lease.generation());
    let derived = |message, len| vec![Derived { message, body: octets(len) }];

    let nobody = queue.finish(again(), Outcome::Done, derived(message("me", &[]), 1)).await;
    assert!(matches!(nobody, Err(LeaseError::NoDelivery)), "{nobody:?}");
    for refused in at_the_limits(1) {
        let refused = queue.finish(again(), Outcome::Done, derived(refused, 1)).await;
        assert!(matches!(refused, Err(LeaseError::TooLarge(_))), "{refused:?}");
    }
    let whole = queue.finish(again(), Outcome::Done, derived(message("me", &["r"]), MAX_DERIVED)).await;
    assert!(matches!(whole, Err(LeaseError::TooLarge(_))), "{whole:?}");
    let retry = |len| Outcome::Retry { delay: Duration::ZERO, state: octets(len) };
    let state = queue.finish(again(), retry(MAX_STATES + 1), Vec::new()).await;
    assert!(matches!(state, Err(LeaseError::TooLarge(_))), "{state:?}");

    assert_eq!(queue.stats().await.messages, 1, "nothing was derived");
    queue.extend(&lease, LEASE).await.expect("the lease is good");
    queue.finish(lease, retry(MAX_STATES), Vec::new()).await.expect("finish");
    assert!(claim_one(&queue).await.state == octets(MAX_STATES));
}

pub(super) async fn delays_are_cut<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut new = message("me", &["a"]);
    new.deliveries[0].delay = Duration::MAX;
    put(&queue, new, b"x").await.expect("put");
    harness.advance(MAX_DELAY - SECOND).await;
    nothing_due(&queue).await;
    harness.advance(SECOND).await;
    let from = [class("a", 0, "me")];
    let long = Claim { from: &from, max: 1, lease: Duration::MAX };
    let lease = queue.claim(long).await.expect("claim").remove(0).lease;
    harness.advance(MAX_DELAY - SECOND).await;
    nothing_due(&queue).await;
    queue.extend(&lease, Duration::MAX).await.expect("extend");
    harness.advance(MAX_DELAY - SECOND).await;
    nothing_due(&queue).await;
    harness.advance(SECOND).await;
    let lease = claim_one(&queue).await.lease;
    let retry = Outcome::Retry { delay: Duration::MAX, state: Bytes::new() };
    queue.finish(lease, retry, Vec::new()).await.expect("finish");
    harness.advance(MAX_DELAY - SECOND).await;
    nothing_due(&queue).await;
    harness.advance(SECOND).await;
    claim_one(&queue).await;
}

/// At most as many deliveries as leases may be made twice after a crash. Work goes on as leases
/// end.
pub(super) async fn leases_are_bounded<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open_with_leases(3).await?;
    put(&queue, message("me", &["a"; 9]), b"x").await.expect("put");
    let mut leases: Vec<_> = claim(&queue, 9).await.into_iter().map(|each| each.lease).collect();
    assert_eq!(leases.len(), 3);
    nothing_due(&queue).await;
    let seen = queue.changed(Change::default()).await.expect("changed");
    let retry = Outcome::Retry { delay: LEASE * 9, state: Bytes::new() };
    queue.finish(leases.remove(0), retry, Vec::new()).await.expect("finish");
    queue.finish(leases.remove(0), Outcome::Done, Vec::new()).await.expect("finish");
    // No delivery became due, but a lease is free again: waiters learn of it.
    let seen = queue.changed(seen).await.expect("changed");
    assert_eq!(claim(&queue, 9).await.len(), 2);
    nothing_due(&queue).await;
    // An expired lease does not count.
    harness.advance(LEASE).await;
    queue.changed(seen).await.expect("changed");
    assert_eq!(claim(&queue, 9).await.len(), 3);
    Ok(())
}

pub(super) async fn nothing_is_given_when_nothing_is_asked_for<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for _ in 0..2 {
        put(&queue, message("me", &["a"]), b"x").await.expect("put");
    }
    let from = [class("a", 0, "me")];
    for none in [Claim { from: &from, max: 0, lease: LEASE }, Claim { from: &[], max: 9, lease: LEASE }] {
        assert!(queue.claim(none).await.expect("claim").is_empty());
    }
    assert!(queue.due(None, 0).await.expect("due").is_empty());
    // A caller that looks through a queue makes progress whatever the limit is.
    assert_eq!(queue.list(None, 0).await.expect("list").len(), 1);
    assert_eq!(queue.search(&Search::default(), None, 0).await.expect("search").messages.len(), 1);
    assert_eq!(queue.stats().await.leased, 0);
    // A lease of no length was given, and has expired at once.
    let short = Claim { from: &from, max: 1, lease: Duration::ZERO };
    let lease = queue.claim(short).await.expect("claim").remove(0).lease;
    assert_eq!(claim(&queue, 9).await.len(), 2);
    assert!(matches!(queue.finish(lease, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
}

pub(super) async fn a_hint_is_only_a_hint<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for (hint, len) in [(0, 5_000), (5_000, 0), (1_000_000, 10), (10, 1_000_000)] {
        let mut draft = queue.put(Some(hint)).await.expect("put");
        for chunk in octets(len).chunks(10_000) {
            draft.write(Bytes::copy_from_slice(chunk)).await.expect("write");
        }
        assert_eq!((draft.len(), draft.is_empty()), (len as u64, len == 0));
        draft.commit(message("me", &["a"])).await.expect("commit");
        let claimed = claim_one(&queue).await;
        assert!(super::body(&queue, &claimed.lease).await == octets(len), "{len} octets, {hint} announced");
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    let endless = queue.put(Some(u64::MAX)).await.map(drop);
    assert!(matches!(endless, Err(PutError::TooLarge(_) | PutError::Full(_))), "{endless:?}");
    assert_eq!(queue.stats().await.drafts, 0);
}
