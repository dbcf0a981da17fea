//! Cases in which the process, the power, the disk or the clock fails.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Cannot, Crash, Disk, Harness, Jump, LEASE, SECOND, body, both, claim, claim_one, class, contents, message,
    nothing_due, octets, put, ready, routing_key, stays_pending,
};
use crate::{Alteration, Body, Claim, Derived, Draft, Error, Full, LeaseError, Outcome, PutError, Queue};

pub(super) async fn acknowledged_survives_a_kill<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    acknowledged_survives(harness, Crash::Process).await
}

pub(super) async fn acknowledged_survives_a_power_cut<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    acknowledged_survives(harness, Crash::Power).await
}

/// After a crash at each of the steps, the queue is what was acknowledged.
async fn acknowledged_survives<H: Harness>(harness: &mut H, how: Crash) -> Result<(), Cannot> {
    let mut queue = harness.open().await;
    let large = octets(700_000);
    let mut last = contents(&queue).await;
    for step in 0..9 {
        match step {
            0 => drop(put(&queue, message("small", &["a", "b"]), b"hello").await.expect("put")),
            1 => drop(put(&queue, message("large", &["c"]), &large).await.expect("put")),
            2 => assert!(queue.hold(last[1].id).await.expect("hold")),
            3 => {
                // Leases of the earlier crashes may have to expire first.
                harness.advance(LEASE).await;
                let claimed = claim(&queue, 9).await;
                assert_eq!(claimed.len(), 2);
                for claimed in claimed {
                    let outcome = match claimed.key.as_str() {
                        "a" => Outcome::Done,
                        _ => Outcome::Retry { delay: LEASE, state: Bytes::from_static(b"tried") },
                    };
                    let derived = Derived { message: message("report", &["r"]), body: Bytes::from_static(b"sorry") };
                    queue.finish(claimed.lease, outcome, vec![derived]).await.expect("finish");
                }
            }
            4 => assert!(queue.release(last[1].id).await.expect("release")),
            5 => {
                let new = Alteration::Reroute { from: Some(routing_key("b")), to: routing_key("z") };
                assert_eq!(queue.alter(last[0].id, new).await.expect("alter"), 1);
            }
            6 => {
                let later = Alteration::Reschedule { key: None, delay: LEASE * 9 };
                assert_eq!(queue.alter(last[0].id, later).await.expect("alter"), 1);
            }
            7 => queue.remove(last[2].id).await.expect("remove"),
            _ => {
                let mut keys = Vec::new();
                for claimed in claim(&queue, 9).await {
                    let whole = if claimed.key.as_str() == "c" { &large[..] } else { b"sorry" };
                    assert!(body(&queue, &claimed.lease).await == whole, "the body for {}", claimed.key);
                    keys.push(claimed.key);
                    queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
                }
                assert_eq!(keys, ["c", "r"].map(routing_key));
            }
        }
        let before = contents(&queue).await;
        assert_ne!(before, last, "step {step} changes something");
        queue = harness.crash(queue, how).await?;
        last = contents(&queue).await;
        assert_eq!(last, before, "after step {step}");
    }
    assert_eq!((last.len(), &last[0].deliveries[0].state[..]), (1, &b"tried"[..]));
    Ok(())
}

pub(super) async fn a_draft_does_not_survive_a_kill<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    a_draft_does_not_survive(harness, Crash::Process).await
}

pub(super) async fn a_draft_does_not_survive_a_power_cut<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    a_draft_does_not_survive(harness, Crash::Power).await
}

async fn a_draft_does_not_survive<H: Harness>(harness: &mut H, how: Crash) -> Result<(), Cannot> {
    let mut queue = harness.open().await;
    for len in [0, 10, 2_000_000] {
        let mut draft = queue.put(Some(len as u64)).await.expect("put");
        for chunk in octets(len).chunks(10_000) {
            draft.write(Bytes::copy_from_slice(chunk)).await.expect("write");
        }
        queue = harness.crash(queue, how).await?;
        let stats = queue.stats().await;
        assert_eq!((stats.messages, stats.drafts, stats.bytes, stats.damaged), (0, 0, 0, 0), "{len} octets");
        nothing_due(&queue).await;
        assert!(draft.commit(message("me", &["a"])).await.is_err(), "a draft of the queue that died");
        assert_eq!(queue.stats().await.messages, 0);
    }
    Ok(())
}

pub(super) async fn an_unanswered_commit_is_whole_or_nothing<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    for how in [Crash::Process, Crash::Power] {
        for len in [10, 700_000] {
            let queue = harness.open().await;
            let whole = octets(len);
            let mut draft = queue.put(None).await.expect("put");
            draft.write(whole.clone()).await.expect("write");
            let id = draft.id();
            // Begun; no caller waits for the answer.
            drop(ready(draft.commit(message("me", &["a", "b"]))));
            let queue = harness.crash(queue, how).await?;
            let left = queue.list(None, 9).await.expect("list");
            if let [message] = &left[..] {
                assert_eq!((message.id, message.body_len, message.deliveries.len()), (id, len as u64, 2));
                let lease = claim(&queue, 1).await.remove(0).lease;
                assert!(body(&queue, &lease).await == whole);
            } else {
                assert!(left.is_empty());
                nothing_due(&queue).await;
            }
            assert_eq!(queue.stats().await.damaged, 0);
        }
    }
    Ok(())
}

pub(super) async fn an_outcome_and_what_it_derives_survive_as_one<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    for how in [Crash::Process, Crash::Power] {
        for is_awaited in [true, false] {
            let queue = harness.open().await;
            put(&queue, message("me", &["a"]), b"x").await.expect("put");
            let lease = claim_one(&queue).await.lease;
            let report = |key| Derived { message: message("reports", &[key]), body: octets(5_000) };
            let finishing = queue.finish(lease, Outcome::Done, vec![report("r1"), report("r2")]);
            let is_known = if is_awaited {
                finishing.await.expect("finish");
                true
            } else {
                matches!(ready(finishing), Some(Ok(_)))
            };
            let queue = harness.crash(queue, how).await?;
            harness.advance(LEASE).await;
            let mut keys = Vec::new();
            for claimed in claim(&queue, 9).await {
                let whole = if claimed.key.as_str() == "a" { b"x".to_vec() } else { octets(5_000).to_vec() };
                assert!(body(&queue, &claimed.lease).await == whole);
                keys.push(claimed.key);
            }
            let reported = keys == ["r1", "r2"].map(routing_key);
            assert!(reported || (!is_known && keys == [routing_key("a")]), "{keys:?}");
        }
    }
    Ok(())
}

pub(super) async fn a_lease_ends_after_a_crash<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let mut queue = harness.open().await;
    let id = put(&queue, message("me", &["a"]), b"x").await.expect("put");
    let mut old = Vec::new();
    for how in [Crash::Process, Crash::Power] {
        old.push(claim_one(&queue).await.lease);
        queue = harness.crash(queue, how).await?;
        // An engine with one owner need not wait for the lease, but by now every engine has to
        // offer it.
        harness.advance(LEASE).await;
    }
    let claimed = claim_one(&queue).await;
    assert_eq!((claimed.lease.message(), claimed.attempts), (id, 0));
    for lease in old {
        assert!(matches!(queue.extend(&lease, LEASE).await, Err(LeaseError::Stale)));
        let derived = vec![Derived { message: message("me", &["b"]), body: Bytes::new() }];
        assert!(matches!(queue.finish(lease, Outcome::Done, derived).await, Err(LeaseError::Stale)));
    }
    assert_eq!(queue.stats().await.messages, 1, "nothing was finished, nothing derived");
    queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("the newest lease is good");
    assert_eq!(queue.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn ids_are_never_used_again_after_a_crash<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let mut queue = harness.open().await;
    let mut last = None;
    for how in [Crash::Process, Crash::Power, Crash::Power, Crash::Process] {
        for _ in 0..3 {
            let id = queue.put(None).await.expect("put").id();
            assert!(last < Some(id), "an id that was given out, and be it to a draft, is used up");
            last = Some(id);
        }
        queue = harness.crash(queue, how).await?;
    }
    Ok(())
}

pub(super) async fn a_full_disk_refuses_messages_and_keeps_outcomes<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open().await;
    for _ in 0..3 {
        put(&queue, message("me", &["a"]), &octets(2_000)).await.expect("put");
    }
    let [done, reported, claimed] = <[_; 3]>::try_from(claim(&queue, 3).await).expect("three deliveries");
    let id = put(&queue, message("me", &["b"]), b"x").await.expect("put");
    harness.set_disk(Disk::Full).await?;
    let mut fitted = Vec::new();
    for len in [700_000, 20_000, 1] {
        // Some messages may still fit into a file that is long enough. They are as good as any.
        let refused = loop {
            match put(&queue, message("me", &["fits"]), &octets(len)).await {
                Ok(id) if fitted.len() < 10_000 => fitted.push(id),
                other => break other,
            }
        };
        assert!(matches!(refused, Err(PutError::Full(Full::Disk { .. } | Full::NoSpace(_)))), "{refused:?}");
    }
    // Messages that are there are claimed, and can be read.
    let from = [class("b", 0, "me")];
    let [given] = <[_; 1]>::try_from(queue.claim(Claim { from: &from, max: 2, lease: LEASE }).await.expect("claim"))
        .expect("exactly one delivery");
    assert_eq!(given.lease.message(), id);
    assert_eq!(body(&queue, &claimed.lease).await, octets(2_000));
    queue.extend(&claimed.lease, LEASE * 2).await.expect("extend");
    assert!(queue.stats().await.broken.is_none(), "a full disk is no broken one");

    // Outcomes may wait for room; they are not refused.
    {
        let report = Derived { message: message("reports", &["r"]), body: octets(5_000) };
        let retry = Outcome::Retry { delay: SECOND, state: octets(3_000) };
        let mut outcomes = pin!(both(
            queue.finish(done.lease, Outcome::Done, Vec::new()),
            both(
                queue.finish(reported.lease, Outcome::Done, vec![report]),
                queue.finish(claimed.lease, retry, Vec::new())
            ),
        ));
        let mut holding = pin!(queue.hold(id));
        let early = ready(outcomes.as_mut());
        let early_hold = ready(holding.as_mut());
        assert!(matches!(queue.put(None).await.map(drop), Ok(()) | Err(PutError::Full(_))));
        harness.set_disk(Disk::Well).await?;
        let (done, (reported, retried)) = match early {
            Some(early) => early,
            None => outcomes.await,
        };
        done.expect("an outcome");
        assert_eq!(reported.expect("an outcome with a report").len(), 1);
        retried.expect("a retry");
        let held = match early_hold {
            Some(early) => early,
            None => holding.await,
        };
        assert!(held.expect("a hold"));
    }
    let new = put(&queue, message("me", &["c"]), &octets(700_000)).await.expect("there is room again");
    for fitted in fitted {
        queue.remove(fitted).await.expect("what was accepted is there");
    }
    queue.remove(id).await.expect("remove");
    let before = contents(&queue).await;
    assert_eq!(before.len(), 3, "the one tried again, its neighbor's report, and the new one");
    let queue = harness.reopen(queue).await?;
    assert_eq!(contents(&queue).await, before);
    harness.advance(LEASE * 2).await;
    for claimed in claim(&queue, 9).await {
        if claimed.lease.message() == new {
            assert!(body(&queue, &claimed.lease).await == octets(700_000));
        }
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("finish");
    }
    assert_eq!(queue.stats().await.messages, 0);
    Ok(())
}

pub(super) async fn a_stalled_disk_keeps_answers_and_gives_claims<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open().await;
    for key in ["a", "b"] {
        put(&queue, message("me", &[key]), &octets(2_000)).await.expect("put");
    }
    let first = claim(&queue, 1).await.remove(0);
    let mut draft = queue.put(None).await.expect("put");
    draft.write(octets(2_000)).await.expect("write");
    harness.set_disk(Disk::Stalled).await?;
    // Asserted after the disk is well again: dropping an engine whose disk stalls would hang the
    // suite.
    let mut committing = pin!(draft.commit(message("me", &["c"])));
    let mut waits = vec![stays_pending(&queue, committing.as_mut()).await];
    // Claims do not wait for writes.
    let second = claim(&queue, 9).await;
    let mut first_chunk = None;
    if let Some(second) = second.first() {
        let mut reader = queue.body(second.lease.message()).await.expect("body");
        first_chunk = reader.chunk().await.expect("chunk");
        queue.extend(&second.lease, LEASE * 2).await.expect("extend");
    }
    let mut finishing = pin!(queue.finish(first.lease, Outcome::Done, Vec::new()));
    waits.push(stays_pending(&queue, finishing.as_mut()).await);
    if waits == [true; 2] {
        waits.push(stays_pending(&queue, committing.as_mut()).await);
    }
    let broken = queue.stats().await.broken;

    harness.set_disk(Disk::Well).await?;
    assert_eq!(waits, [true; 3], "what is said to be written was not on stable storage");
    let (committed, finished) = both(committing, finishing).await;
    assert_eq!(broken, None, "a slow disk is no broken one");
    assert_eq!(second.into_iter().map(|each| each.key).collect::<Vec<_>>(), [routing_key("b")]);
    assert_eq!(first_chunk.expect("a chunk").len(), 2_000);
    let id = committed.expect("commit");
    finished.expect("finish");
    assert_eq!(claim_one(&queue).await.lease.message(), id);
    Ok(())
}

pub(super) async fn a_broken_disk_is_told_and_the_queue_goes_on<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    let queue = harness.open().await;
    let kept = put(&queue, message("me", &["a"]), &octets(2_000)).await.expect("put");
    let lease = claim_one(&queue).await.lease;
    let mut begun = queue.put(None).await.expect("put");
    begun.write(octets(100)).await.expect("write");
    harness.set_disk(Disk::Broken).await?;
    for _ in 0..2 {
        let told = put(&queue, message("me", &["b"]), &octets(700)).await;
        assert!(matches!(told, Err(PutError::Broken(_))), "{told:?}");
    }
    assert!(matches!(queue.claim_any(1, LEASE).await, Err(Error::Broken(_))));
    assert!(queue.stats().await.broken.is_some(), "and says why");

    harness.set_disk(Disk::Well).await?;
    for _ in 0..10_000 {
        if queue.stats().await.broken.is_none() {
            break;
        }
        // The engine notices in its own time.
        std::thread::sleep(Duration::from_millis(1));
        harness.advance(SECOND).await;
    }
    assert!(queue.stats().await.broken.is_none(), "the disk is well, and the queue does not go on");
    let from_before = queue.finish(lease, Outcome::Done, Vec::new()).await;
    assert!(matches!(from_before, Err(LeaseError::Stale)), "{from_before:?}");
    assert!(begun.commit(message("me", &["c"])).await.is_err(), "a draft from before");
    put(&queue, message("me", &["d"]), &octets(700)).await.expect("it goes on");
    let mut there = Vec::new();
    for claimed in claim(&queue, 9).await {
        // Refused messages may be there or not, but are whole.
        let len = if claimed.lease.message() == kept { 2_000 } else { 700 };
        assert!(body(&queue, &claimed.lease).await == octets(len));
        there.push(claimed.key);
    }
    assert!(there.contains(&routing_key("a")) && there.contains(&routing_key("d")), "{there:?}");
    Ok(())
}

pub(super) async fn a_wall_clock_that_jumps_moves_nothing<H: Harness>(harness: &mut H) -> Result<(), Cannot> {
    for jumps in [&[Jump::Forward(DAY)][..], &[Jump::Back(DAY)], &[Jump::Back(DAY), Jump::Forward(DAY * 2)]] {
        let queue = harness.open().await;
        let mut later = message("me", &["later"]);
        later.deliveries[0].delay = SECOND * 100;
        put(&queue, later, b"x").await.expect("put");
        put(&queue, message("me", &["now"]), b"x").await.expect("put");
        harness.advance(SECOND * 10).await;
        let lease = claim_one(&queue).await.lease;
        for jump in jumps {
            harness.jump_wall(*jump).await?;
            nothing_due(&queue).await;
            queue.extend(&lease, LEASE).await.expect("the lease goes on");
            let ages: Vec<_> = queue.list(None, 9).await.expect("list").into_iter().map(|each| each.age).collect();
            assert!(ages.iter().all(|age| (SECOND * 10..SECOND * 11).contains(age)), "{ages:?} after {jump:?}");
        }
        harness.advance(LEASE - SECOND).await;
        nothing_due(&queue).await;
        harness.advance(SECOND).await;
        assert_eq!(claim_one(&queue).await.key, routing_key("now"), "the lease ends when it should");
        harness.advance(SECOND * 100 - SECOND * 10 - LEASE).await;
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.key, routing_key("later"), "and the delay");
        assert!((SECOND * 100..SECOND * 101).contains(&claimed.age), "{:?}", claimed.age);
        let retry = Outcome::Retry { delay: SECOND * 10, state: Bytes::new() };
        queue.finish(claimed.lease, retry, Vec::new()).await.expect("finish");
        harness.advance(SECOND * 9).await;
        nothing_due(&queue).await;
        harness.advance(SECOND).await;
        claim_one(&queue).await;
    }
    Ok(())
}

/// Set forward, the clock looks like a day without the process.
pub(super) async fn a_wall_clock_set_back_over_a_crash_delays_nothing<H: Harness>(
    harness: &mut H,
) -> Result<(), Cannot> {
    for how in [Crash::Process, Crash::Power] {
        let mut queue = harness.open().await;
        put(&queue, message("me", &["a"]), b"x").await.expect("put");
        harness.advance(SECOND * 50).await;
        let claimed = claim_one(&queue).await;
        let retry = Outcome::Retry { delay: SECOND * 100, state: Bytes::new() };
        queue.finish(claimed.lease, retry, Vec::new()).await.expect("finish");
        for _ in 0..2 {
            harness.jump_wall(Jump::Back(DAY)).await?;
            queue = harness.crash(queue, how).await?;
        }
        let age = queue.list(None, 1).await.expect("list")[0].age;
        assert!(age >= SECOND * 50, "{age:?}: younger than it was");
        harness.advance(SECOND * 100).await;
        let claimed = claim_one(&queue).await;
        assert!(claimed.age >= SECOND * 150, "{:?}", claimed.age);
    }
    Ok(())
}

const DAY: Duration = Duration::from_secs(86_400);
