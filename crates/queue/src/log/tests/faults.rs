//! Each operation of the disk fails once, in turn.

use std::io::ErrorKind;

use super::disk::{Cause, Disk, Fault, Survival};
use super::ledger::Ledger;
use super::{block_on, claim, message, open, options, put};
use crate::{Error, ManualClock, Outcome, PutError, Queue};

/// A run that is always the same, with everything in it.
async fn run(queue: &crate::log::LogQueue, ledger: &mut Ledger) {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..30 {
        ledger.step(queue, &mut random).await;
    }
}

fn operations_of_a_run() -> u64 {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    disk.fail(None);
    block_on(run(&queue, &mut Ledger::default()));
    disk.operations()
}

#[test]
fn a_full_disk_at_any_write_loses_no_message() {
    every(ErrorKind::StorageFull);
}

#[test]
fn a_used_up_quota_at_any_write_loses_no_message() {
    every(ErrorKind::QuotaExceeded);
}

#[test]
fn an_io_error_at_any_operation_loses_no_message() {
    every(ErrorKind::Other);
}

fn every(kind: impl Into<Cause>) {
    let kind = kind.into();
    let operations = operations_of_a_run();
    assert!(operations > 60, "{operations}");
    let mut broken = 0;
    for at in 1..=operations {
        for partial in [0, 30, 500] {
            let context = format!("{kind}, operation {at}, {partial} octets written");
            let clock = ManualClock::default();
            let options = options(&clock);
            let disk = Disk::new();
            let queue = open(&disk, &options).unwrap();
            let mut ledger = Ledger::default();
            disk.fail(Some(Fault { at, kind, partial, and: 0 }));
            block_on(async {
                run(&queue, &mut ledger).await;
                // The index thread may fail between any two of these.
                let before = queue.stats().await.broken;
                match queue.put(None).await {
                    Ok(_) => assert!(before.is_none(), "{context}"),
                    Err(PutError::Broken(told)) => {
                        broken += 1;
                        assert_eq!(queue.stats().await.broken.as_ref(), Some(&told), "{context}");
                        assert!(told.to_string().contains("/queue"), "{told}");
                        let claimed = queue.claim_any(1, std::time::Duration::ZERO);
                        assert!(matches!(claimed.await, Err(Error::Broken(_))), "{context}");
                    }
                    Err(other) => panic!("{context}: {other}"),
                }
            });
            disk.fail(None);
            // The process dies; the system goes on, or loses power as well.
            let mut random = fastrand::Rng::with_seed(at);
            let cut = Survival::ALL.map(|survival| disk.power_cut_with(survival, &mut random));
            for (way, later) in [disk.killed()].iter().chain(&cut).enumerate() {
                let queue = open(later, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
                block_on(ledger.clone().check(&queue, &format!("{context}, {way}")));
            }
        }
    }
    println!("{kind}: {operations} operations, 3 ways each; the store stopped {broken} times");
}

#[test]
fn outcomes_wait_on_a_full_disk_and_puts_do_not() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let options = options(&clock);
    let queue = open(&disk, &options).unwrap();
    let fitted = block_on(async {
        let id = put(&queue, message("a", b""), b"x").await.unwrap();
        let lease = claim(&queue, 1).await.remove(0).lease;
        disk.set_free(Some(40));
        // The newest segment is long enough for some more.
        let mut fitted = 0;
        for len in [5000, 10] {
            let full = loop {
                match put(&queue, message("a", b""), &vec![0; len]).await {
                    Ok(_) if fitted < 10 => fitted += 1,
                    other => break other,
                }
            };
            assert!(matches!(full, Err(PutError::Full(_))), "{full:?}");
        }
        assert_eq!(queue.stats().await.messages, 1 + fitted as u64);
        let later = disk.clone();
        let space = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            later.set_free(Some(100_000));
        });
        queue.finish(lease, Outcome::Done, Vec::new()).await.unwrap();
        space.join().unwrap();
        assert!(matches!(queue.remove(id).await, Err(Error::NoSuchMessage(_))));
        put(&queue, message("a", b""), b"recovered").await.unwrap();
        assert!(queue.stats().await.broken.is_none());
        fitted
    });
    let queue = {
        let killed = disk.killed();
        drop(queue);
        open(&killed, &options).unwrap()
    };
    let listed = block_on(queue.list(None, 99)).unwrap();
    assert_eq!(listed.len(), fitted + 1);
    assert_eq!(listed.last().unwrap().body_len, 9);
}

#[test]
fn a_refused_message_does_not_come_back() {
    for seed in 0..200 {
        let (disk, clock) = (Disk::new(), ManualClock::default());
        let options = options(&clock);
        let queue = open(&disk, &options).unwrap();
        block_on(async {
            put(&queue, message("a", b""), b"x").await.unwrap();
            // All of the record is written, and still the system reports a full disk.
            disk.fail(Some(Fault { at: 1, kind: ErrorKind::StorageFull.into(), partial: usize::MAX, and: 0 }));
            let full = put(&queue, message("a", b""), b"refused").await;
            assert!(matches!(full, Err(PutError::Full(_))), "{full:?}");
        });
        let later = disk.power_cut(&mut fastrand::Rng::with_seed(seed));
        drop(queue);
        let queue = open(&later, &options).unwrap();
        assert_eq!(block_on(queue.stats()).messages, 1, "seed {seed}");
    }
}

/// The segment before it is written on, and must not seem to have a successor.
#[test]
fn a_segment_that_found_no_room_does_not_come_back() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let options = options(&clock);
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        for _ in 0..3 {
            put(&queue, message("a", b""), &[b'x'; 1000]).await.unwrap();
        }
        let lease = claim(&queue, 1).await.remove(0).lease;
        // Two operations cut the zeros off the segment; then the next one is created, and its
        // header written in part.
        disk.fail(Some(Fault { at: 4, kind: ErrorKind::StorageFull.into(), partial: 30, and: 0 }));
        let full = put(&queue, message("a", b""), &[b'x'; 1000]).await;
        assert!(matches!(full, Err(PutError::Full(_))), "{full:?}");
        assert_eq!(disk.refused(), Some(("write", "log")));
        queue.finish(lease, Outcome::Done, Vec::new()).await.unwrap();
    });
    for seed in 0..200 {
        let later = disk.power_cut(&mut fastrand::Rng::with_seed(seed));
        let queue = open(&later, &options).unwrap();
        assert_eq!(queue.report().damaged, [], "seed {seed}");
        assert_eq!(block_on(queue.stats()).messages, 2, "seed {seed}");
    }
}

#[test]
fn a_queue_opens_on_a_full_disk() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let options = options(&clock);
    let queue = open(&disk, &options).unwrap();
    block_on(put(&queue, message("a", b""), b"x")).unwrap();
    block_on(queue.close());
    disk.set_free(Some(0));
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        assert_eq!(queue.stats().await.messages, 1);
        assert!(matches!(put(&queue, message("a", b""), &[b'x'; 1000]).await, Err(PutError::Full(_))));
        disk.set_free(None);
        put(&queue, message("a", b""), b"x").await.unwrap();
    });
}
