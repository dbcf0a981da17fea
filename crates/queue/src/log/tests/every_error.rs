//! Each operation of the disk is refused in turn, once or for some time: by a full disk, a used up
//! quota, a broken disk.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use super::disk::{Cause, Disk, Fault, Operation};
use super::ledger::Ledger;
use super::{block_on, claim, everything, message, open, options, put};
use crate::log::LogOptions;
use crate::{Full, ManualClock, Outcome, PutError, Queue};

#[test]
fn a_queue_survives_a_full_disk_at_each_operation() {
    every(ErrorKind::StorageFull);
}

#[test]
fn a_queue_survives_a_used_up_quota_at_each_operation() {
    every(ErrorKind::QuotaExceeded);
}

#[test]
fn a_queue_survives_a_broken_disk_at_each_operation() {
    every(ErrorKind::Other);
}

/// Refuses each operation; of a write, some part is done.
fn every(kind: impl Into<Cause>) {
    let kind = kind.into();
    let (mut places, mut broken, mut refused) = (BTreeMap::<Operation, u64>::new(), 0, 0);
    for partial in [0, 30, 700] {
        for at in 1_u64.. {
            let context = format!("{kind}, operation {at}, {partial} octets written");
            let clock = ManualClock::default();
            let options = LogOptions { index_memory: 0, ..options(&clock) };
            let disk = Disk::new();
            let mut ledger = Ledger::new(&clock);
            let mut random = fastrand::Rng::with_seed(3);
            disk.fail(Some(Fault { at, kind, partial, and: 0 }));
            for part in 0..2 {
                // A refused opening is tried again.
                let queue = open(&disk, &options).or_else(|error| {
                    assert!(error.to_string().contains(": ") && error.to_string().contains('/'), "{context}: {error}");
                    refused += 1;
                    open(&disk, &options)
                });
                let queue = queue.unwrap_or_else(|error| panic!("{context}: {error}"));
                let why = block_on(async {
                    ledger.check(&queue, &context).await;
                    if part == 0 {
                        ledger.put_straggler(&queue, &mut random).await;
                    }
                    for _ in 0..14 {
                        ledger.step(&queue, &mut random).await;
                    }
                    ledger.clear(&queue).await;
                    queue.stats().await.broken
                });
                if let Some(why) = why {
                    assert!(why.to_string().contains("/queue"), "{context}: {why}");
                    broken += 1;
                }
                block_on(queue.close());
            }
            let was_hit = disk.refused();
            disk.fail(None);
            let queue = open(&disk, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
            block_on(async {
                ledger.check(&queue, &context).await;
                put(&queue, message("a", b""), b"service goes on")
                    .await
                    .unwrap_or_else(|why| panic!("{context}: {why}"));
            });
            drop(queue);
            let Some(place) = was_hit else { break };
            *places.entry(place).or_default() += 1;
        }
    }
    println!(
        "{kind}: {} times; {refused} openings refused, the store stopped {broken} times",
        places.values().sum::<u64>()
    );
    places.iter().for_each(|((what, part), count)| println!("{count:>6}  {what}, {part}"));
    for what in ["create", "write", "sync", "unlink", "rename", "mkdir", "sync folder", "set length"] {
        assert!(places.keys().any(|place| place.0 == what), "no {what} was refused: {places:?}");
    }
}

/// From some operation on there is no room for hundreds of them; then there is again. The queue is
/// not opened again.
#[test]
fn a_queue_goes_on_when_its_disk_has_room_again() {
    let mut stopped = 0;
    for free in (0..40_000).step_by(700) {
        let context = format!("{free} octets free");
        let clock = ManualClock::default();
        let options = options(&clock);
        let disk = Disk::new();
        let queue = open(&disk, &options).unwrap();
        let mut ledger = Ledger::new(&clock);
        let mut random = fastrand::Rng::with_seed(free);
        disk.set_free(Some(free));
        let later = disk.clone();
        let space = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            later.set_free(None);
        });
        block_on(async {
            for _ in 0..12 {
                ledger.step(&queue, &mut random).await;
            }
            space.join().unwrap();
            stopped += u64::from(queue.stats().await.broken.is_some());
            put(&queue, message("a", b""), b"there is room").await.unwrap_or_else(|why| panic!("{context}: {why}"));
            let last = everything(&queue).await.pop().unwrap();
            queue.remove(last.id).await.unwrap();
        });
        let later = disk.killed();
        drop(queue);
        let queue = open(&later, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
        block_on(ledger.check(&queue, &context));
    }
    assert_eq!(stopped, 0, "no room is no reason to stop");
}

/// Removals are written into what is kept back for outcomes: so a full disk can be emptied.
#[test]
fn a_full_disk_refuses_puts_and_takes_removals() {
    let options = LogOptions { disk_reserve: 40_000, ..options(&ManualClock::default()) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    disk.set_free(Some(100_000));
    disk.set_total(Some(1_000_000));
    block_on(async {
        let full = loop {
            if let Err(full) = put(&queue, message("a", b""), &[b'x'; 1000]).await {
                break full;
            }
        };
        assert!(matches!(full, PutError::Full(Full::Disk { .. })), "{full:?}");
        let all = everything(&queue).await;
        assert!(all.len() > 20, "{}", all.len());
        for message in &all[1..] {
            queue.remove(message.id).await.unwrap();
        }
        let claimed = claim(&queue, 1).await.remove(0);
        queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.unwrap();
        assert_eq!(queue.stats().await.messages, 0);
    });
}

/// An outcome written late for lack of room does not make its message younger.
#[test]
fn an_outcome_that_waited_for_room_makes_no_message_younger() {
    let clock = ManualClock::default();
    let options = options(&clock);
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(put(&queue, message("a", b""), b"x")).unwrap();
    let lease = block_on(claim(&queue, 1)).remove(0).lease;
    disk.set_free(Some(0));
    disk.fail(None);
    thread::scope(|scope| {
        let retry = Outcome::Retry { delay: Duration::ZERO, state: vec![7; 200].into() };
        let finishing = scope.spawn(|| block_on(queue.finish(lease, retry, Vec::new())));
        while disk.operations() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        clock.advance(Duration::from_secs(3600));
        disk.set_free(None);
        finishing.join().unwrap().unwrap();
    });
    let later = disk.killed();
    let before = block_on(everything(&queue));
    drop(queue);
    let after = block_on(everything(&open(&later, &options).unwrap()));
    assert_eq!(before[0].age, Duration::from_secs(3600));
    assert_eq!(after, before);
}
