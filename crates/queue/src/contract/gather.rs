//! Cases of several deliveries of one message that end together.

use bytes::Bytes;

use super::{Cannot, Crash, Harness, LEASE, SECOND, claim, claim_one, message, nothing_due, octets, put, ready};
use crate::{Claimed, Derived, Gather, GatherWhen, LeaseError, MessageId, NewMessage, Outcome, Queue};

pub(super) async fn several_outcomes_are_one_step<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b", "c"]), b"x").await.expect("put");
    let claimed = claim(&queue, 9).await;
    assert!(claimed.iter().all(|each| each.others == 2));
    let [a, b, c] = leases(claimed);
    let report = Derived { message: message("reports", &["r"]), body: octets(5_000) };
    let retry = Outcome::Retry { delay: SECOND, state: Bytes::from_static(b"later") };
    let ends = vec![(c, Outcome::Done), (a, retry), (b, Outcome::Done)];
    let derived = queue.finish_all(ends, vec![report]).await.expect("finish");
    assert_eq!(derived.len(), 1);
    let report = claim_one(&queue).await;
    assert_eq!((report.lease.message(), report.others), (derived[0], 0));
    queue.finish(report.lease, Outcome::Done, Vec::new()).await.expect("finish");
    harness.advance(SECOND).await;
    let left = claim_one(&queue).await;
    assert_eq!((left.lease.message(), left.lease.delivery(), left.attempts, left.others), (id, 0, 1, 0));
    queue.finish_all(vec![(left.lease, Outcome::Done)], Vec::new()).await.expect("finish");
    assert_eq!(queue.stats().await.messages, 0);
}

pub(super) async fn one_stale_lease_spoils_all<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["a", "b"]), b"x").await.expect("put");
    let [a, old] = leases(claim(&queue, 9).await);
    harness.advance(LEASE).await;
    queue.extend(&a, LEASE).await.expect("it was not claimed again");
    let new = claim_one(&queue).await.lease;
    let again = crate::Lease::new(a.message(), a.delivery(), a.generation());
    let report = || vec![Derived { message: message("reports", &["r"]), body: octets(10) }];
    let stale = queue.finish_all(vec![(a, Outcome::Done), (old, Outcome::Done)], report()).await;
    assert!(matches!(stale, Err(LeaseError::Stale)));
    let twice = crate::Lease::new(again.message(), again.delivery(), again.generation());
    let once_more = crate::Lease::new(again.message(), again.delivery(), again.generation());
    let stale = queue.finish_all(vec![(again, Outcome::Done), (twice, Outcome::Done)], report()).await;
    assert!(matches!(stale, Err(LeaseError::Stale)));
    assert!(matches!(queue.finish_all(Vec::new(), report()).await, Err(LeaseError::Stale)));
    put(&queue, message("other", &["c"]), b"x").await.expect("put");
    let other = claim_one(&queue).await.lease;
    let others = crate::Lease::new(other.message(), other.delivery(), other.generation());
    let stale = queue.finish_all(vec![(once_more, Outcome::Done), (others, Outcome::Done)], report()).await;
    assert!(matches!(stale, Err(LeaseError::Stale)), "of two messages");
    let stats = queue.stats().await;
    assert_eq!((stats.messages, stats.deliveries, stats.leased), (2, 3, 3), "nothing was written");
    queue.finish(new, Outcome::Done, Vec::new()).await.expect("finish");
    queue.finish(other, Outcome::Done, Vec::new()).await.expect("finish");
}

pub(super) async fn what_is_kept_is_due_as_before<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, marked(&[("a", b"!")], 10), b"x").await.expect("put");
    let [a] = leases(gathered(&queue, id, GatherWhen::Now).await);
    queue.finish(a, Outcome::Keep { state: Bytes::from_static(b"kept") }, Vec::new()).await.expect("finish");
    harness.advance(SECOND * 9).await;
    nothing_due(&queue).await;
    harness.advance(SECOND).await;
    let claimed = claim_one(&queue).await;
    assert_eq!((claimed.attempts, &claimed.state[..]), (0, &b"kept"[..]));
    queue.finish(claimed.lease, Outcome::Keep { state: Bytes::new() }, Vec::new()).await.expect("finish");
    assert_eq!(claim_one(&queue).await.attempts, 0, "it was due, and is again");
}

pub(super) async fn deliveries_are_gathered_by_their_marks<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let (now, at_rest, alone) = (GatherWhen::Now, GatherWhen::AtRest, GatherWhen::Alone);
    let parked: &[(&str, &[u8])] = &[("a", b"!1"), ("b", b"?2"), ("c", b"!"), ("d", b"?")];
    let id = put(&queue, marked(parked, 100), b"x").await.expect("put");
    assert_eq!(numbers(&gathered(&queue, id, alone).await), [], "there are others");
    let waiting = gathered(&queue, id, at_rest).await;
    assert_eq!(numbers(&waiting), [0, 2]);
    assert!(waiting.iter().all(|each| each.others == 3));
    for when in [now, at_rest, alone] {
        assert_eq!(numbers(&gathered(&queue, id, when).await), [], "they are leased");
    }
    let keep = |each: Claimed| (each.lease, Outcome::Keep { state: each.state });
    queue.finish_all(waiting.into_iter().map(keep).collect(), Vec::new()).await.expect("finish");
    // An unmarked delivery is due, so the message is not at rest; `Now` gathers all the same.
    harness.advance(SECOND * 100).await;
    assert_eq!(numbers(&gathered(&queue, id, at_rest).await), []);
    let [first, second] = leases(gathered(&queue, id, now).await);
    queue.finish(second, Outcome::Done, Vec::new()).await.expect("finish");
    for _ in 0..2 {
        let unmarked = claim_one_of(&queue, "?").await;
        assert_eq!(numbers(&gathered(&queue, id, alone).await), [], "it is leased");
        queue.finish(unmarked.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    queue.finish(first, Outcome::Keep { state: Bytes::from_static(b"!") }, Vec::new()).await.expect("finish");
    queue.hold(id).await.expect("hold");
    assert_eq!(numbers(&gathered(&queue, id, now).await), [], "it is on hold");
    queue.release(id).await.expect("release");
    let last = gathered(&queue, id, alone).await;
    assert_eq!((numbers(&last), last[0].others), (vec![0], 0));
    let ends = last.into_iter().map(|each| (each.lease, Outcome::Done)).collect();
    queue.finish_all(ends, Vec::new()).await.expect("finish");
    assert_eq!(numbers(&gathered(&queue, id, now).await), [], "it is gone");
    assert_eq!(queue.stats().await.messages, 0);
}

/// The caller that finishes last finds the message at rest, in whichever order they finish.
pub(super) async fn the_last_one_gathers<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let id = put(&queue, message("me", &["a", "b"]), b"x").await.expect("put");
    let [a, b] = leases(claim(&queue, 9).await);
    let parked = || Outcome::Retry { delay: SECOND * 100, state: Bytes::from_static(b"!") };
    queue.finish(b, parked(), Vec::new()).await.expect("finish");
    assert_eq!(numbers(&gathered(&queue, id, GatherWhen::AtRest).await), []);
    queue.finish(a, parked(), Vec::new()).await.expect("finish");
    assert_eq!(numbers(&gathered(&queue, id, GatherWhen::AtRest).await), [0, 1]);
    // A gathered lease expires as any other.
    harness.advance(LEASE).await;
    assert_eq!(numbers(&gathered(&queue, id, GatherWhen::AtRest).await), [0, 1]);
}

pub(super) async fn several_outcomes_survive_as_one<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    for how in [Crash::Process, Crash::Power] {
        for is_awaited in [true, false] {
            let queue = harness.open().await;
            put(&queue, message("me", &["a", "b", "c"]), b"x").await.expect("put");
            let ends = leases::<3>(claim(&queue, 9).await).map(|lease| (lease, Outcome::Done));
            let report = Derived { message: message("reports", &["r"]), body: octets(5_000) };
            let finishing = queue.finish_all(ends.into(), vec![report]);
            let is_known = if is_awaited {
                finishing.await.expect("finish");
                true
            } else {
                matches!(ready(finishing), Some(Ok(_)))
            };
            let queue = harness.crash(queue, how).await?;
            harness.advance(LEASE).await;
            let keys: Vec<_> = claim(&queue, 9).await.into_iter().map(|each| each.key.as_str().to_owned()).collect();
            assert!(keys == ["r"] || (!is_known && keys == ["a", "b", "c"]), "{keys:?}");
        }
    }
    Ok(())
}

fn marked(states: &[(&str, &'static [u8])], seconds: u32) -> NewMessage {
    let keys: Vec<_> = states.iter().map(|(key, _)| *key).collect();
    let mut message = message("me", &keys);
    for (delivery, (_, state)) in message.deliveries.iter_mut().zip(states) {
        (delivery.state, delivery.delay) = (Bytes::from_static(state), SECOND * seconds);
    }
    message
}

async fn gathered<Q: Queue>(queue: &Q, message: MessageId, when: GatherWhen) -> Vec<Claimed> {
    queue.gather(Gather { message, marks: &[b"-", b"!"], when, lease: LEASE }).await.expect("gather")
}

/// Claims the delivery whose state begins with `mark`.
async fn claim_one_of<Q: Queue>(queue: &Q, mark: &str) -> Claimed {
    let mut claimed = claim(queue, 1).await;
    let one = claimed.pop().expect("something is due");
    assert!(one.state.starts_with(mark.as_bytes()));
    one
}

fn numbers(claimed: &[Claimed]) -> Vec<u32> {
    claimed.iter().map(|each| each.lease.delivery()).collect()
}

fn leases<const N: usize>(claimed: Vec<Claimed>) -> [crate::Lease; N] {
    let leases: Vec<_> = claimed.into_iter().map(|each| each.lease).collect();
    leases.try_into().expect("as many as were asked for")
}
