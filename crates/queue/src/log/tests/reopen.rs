//! The disk fails, and the queue goes on by itself once the disk is well again.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Disk, Fault};
use super::ledger::Ledger;
use super::{block_on, claim, message, open, options, put};
use crate::log::LogQueue;
use crate::{Change, Draft, Error, LeaseError, ManualClock, Outcome, PutError, Queue};

const SECOND: Duration = Duration::from_secs(1);

/// Lets time pass until the queue has gone on. Returns how much.
fn recover(queue: &LogQueue, clock: &ManualClock, context: &str) -> Duration {
    for seconds in 0..600 {
        // The store's thread notices the failure, or reads the disk, in its own time.
        for _ in 0..20 {
            if block_on(queue.stats()).broken.is_none() {
                return SECOND * seconds;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        clock.advance(SECOND);
    }
    panic!("{context}: {:?}", block_on(queue.stats()).broken);
}

/// Makes the next operation fail, and `and` more.
fn fail(disk: &Disk, and: u64) {
    disk.fail(Some(Fault { at: 1, kind: ErrorKind::Other.into(), partial: 0, and }));
}

fn newest_segment(disk: &Disk) -> Option<std::path::PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("/queue/log")).max()
}

/// One operation after the other fails, in one of these ways in turn; only each third, since they
/// take long.
#[test]
fn a_failure_of_any_operation_loses_no_message() {
    let steps = async |queue: &LogQueue, ledger: &mut Ledger, random: &mut fastrand::Rng| {
        for _ in 0..20 {
            ledger.step(queue, random).await;
        }
    };
    let operations = {
        let (disk, clock) = (Disk::new(), ManualClock::default());
        let queue = open(&disk, &options(&clock)).unwrap();
        disk.fail(None);
        block_on(steps(&queue, &mut Ledger::new(&clock), &mut fastrand::Rng::with_seed(7)));
        disk.operations()
    };
    let mut reopened = 0;
    let ways = [(0, 0), (0, 500), (0, usize::MAX), (3, 30), (11, 0)];
    for (at, (and, partial)) in (1..=operations).step_by(3).zip(ways.into_iter().cycle()) {
        let context = format!("operation {at} and {and} more, {partial} octets written");
        let clock = ManualClock::default();
        let options = options(&clock);
        let disk = Disk::new();
        let queue = open(&disk, &options).unwrap();
        let (mut ledger, mut random) = (Ledger::new(&clock), fastrand::Rng::with_seed(7));
        disk.fail(Some(Fault { at, kind: ErrorKind::Other.into(), partial, and }));
        block_on(steps(&queue, &mut ledger, &mut random));
        recover(&queue, &clock, &context);
        disk.fail(None);
        // The index thread may have met the failure only now, and report it later; some failures
        // are not reported.
        for _ in 0..100 {
            if block_on(queue.stats()).reopened > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        recover(&queue, &clock, &context);
        block_on(async {
            // What was claimed and not finished is leased still, unless the queue was opened again
            // since.
            clock.advance(SECOND * 5);
            ledger.check(&queue, &context).await;
            steps(&queue, &mut ledger, &mut random).await;
            let stats = queue.stats().await;
            assert_eq!((stats.damaged, stats.broken), (0, None), "{context}: opened again {} times", stats.reopened);
            reopened += stats.reopened;
        });
        let later = disk.power_cut(&mut random);
        drop(queue);
        let queue = open(&later, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
        block_on(ledger.check(&queue, &format!("{context}, after a power cut")));
    }
    println!("{operations} operations; opened again {reopened} times");
    assert!(reopened > operations / 6);
}

#[test]
fn callers_see_a_failure_and_go_on_after_it() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    let failed = newest_segment(&disk);
    block_on(async {
        put(&queue, message("a", b""), b"first").await.unwrap();
        let lease = claim(&queue, 1).await.remove(0).lease;
        let mut small = queue.put(None).await.unwrap();
        small.write(Bytes::from_static(b"small")).await.unwrap();
        let mut large = queue.put(None).await.unwrap();
        large.write(Bytes::from(vec![1; 5000])).await.unwrap();
        let seen = queue.changed(Change::default()).await.unwrap();

        fail(&disk, 0);
        let told = put(&queue, message("a", b""), b"second").await.unwrap_err();
        assert!(matches!(&told, PutError::Broken(why) if why.to_string().contains("/queue/log/")), "{told}");
        assert!(matches!(queue.put(None).await, Err(PutError::Broken(_))));
        assert!(matches!(queue.claim_any(1, SECOND).await, Err(Error::Broken(_))));
        assert!(matches!(queue.list(None, 9).await, Err(Error::Broken(_))));
        assert!(matches!(queue.extend(&lease, SECOND).await, Err(LeaseError::Store(Error::Broken(_)))));
        let stats = queue.stats().await;
        assert_eq!((stats.messages, stats.puts, stats.reopened), (1, 1, 0), "the last gauges");
        assert!(stats.broken.is_some());

        // A waiter waits on while the queue is stopped.
        let mut changed = pin!(queue.changed(seen));
        let mut context = Context::from_waker(Waker::noop());
        assert!(changed.as_mut().poll(&mut context).is_pending());
        let paused = recover(&queue, &clock, "once");
        assert!(paused >= SECOND, "{paused:?}");
        let Poll::Ready(Ok(now)) = changed.as_mut().poll(&mut context) else { panic!("no waiter was woken") };
        assert!(now > seen);

        let stats = queue.stats().await;
        assert_eq!((stats.puts, stats.reopened, stats.damaged), (1, 1, 0));
        for mut draft in [small, large] {
            let late = draft.write(Bytes::from_static(b"more")).await;
            assert!(matches!(&late, Err(PutError::Broken(why)) if why.to_string().contains("again")), "{late:?}");
        }
        assert!(matches!(queue.finish(lease, Outcome::Done, Vec::new()).await, Err(LeaseError::Stale)));
        for claimed in claim(&queue, 9).await {
            queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.unwrap();
        }
        put(&queue, message("a", b""), b"third").await.unwrap();
        assert_eq!(queue.stats().await.messages, 1);
    });
    assert!(newest_segment(&disk) > failed, "the one whose sync failed is written to no more");
}

/// A draft committed after the reopening is refused: its file may have been removed.
#[test]
fn a_draft_from_before_a_failure_is_refused() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(async {
        let mut drafts = Vec::new();
        for len in [10, 5000] {
            let mut draft = queue.put(None).await.unwrap();
            draft.write(Bytes::from(vec![1; len])).await.unwrap();
            drafts.push(draft);
        }
        fail(&disk, 0);
        assert!(put(&queue, message("a", b""), b"x").await.is_err());
        disk.fail(None);
        recover(&queue, &clock, "once");
        let before = queue.stats().await.messages;
        for draft in drafts {
            let refused = draft.commit(message("a", b"")).await;
            assert!(matches!(refused, Err(PutError::Broken(_))), "{refused:?}");
        }
        assert_eq!(queue.stats().await.messages, before);
    });
    let bodies = disk.paths().into_iter().filter(|path| path.starts_with("/queue/bodies")).count();
    assert_eq!(bodies, 0);
}

#[test]
fn a_disk_that_stays_broken_is_tried_at_doubling_intervals() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(put(&queue, message("a", b""), b"x")).unwrap();
    fail(&disk, u64::MAX);
    assert!(block_on(put(&queue, message("a", b""), b"x")).is_err());
    let (mut tries, mut operations) = (Vec::new(), disk.operations());
    for second in 1..=300 {
        clock.advance(SECOND);
        std::thread::sleep(Duration::from_millis(3));
        if disk.operations() > operations {
            operations = disk.operations();
            tries.push(second);
        }
    }
    assert!((4..=11).contains(&tries.len()), "{tries:?}");
    let why = block_on(queue.stats()).broken.unwrap().to_string();
    assert!(why.contains("opening it again failed"), "{why}");
    disk.fail(None);
    recover(&queue, &clock, "at last");
    assert!(!block_on(claim(&queue, 9)).is_empty());
}

#[test]
fn a_stopped_queue_can_be_closed() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    fail(&disk, u64::MAX);
    assert!(block_on(put(&queue, message("a", b""), b"x")).is_err());
    block_on(queue.close());
    assert!(matches!(block_on(queue.changed(Change::default())), Err(Error::Closed)));
    assert!(matches!(block_on(queue.put(None)), Err(PutError::Closed)));
    disk.fail(None);
    assert_eq!(open(&disk, &options(&clock)).unwrap().report().damaged, []);
}

/// The mount point of a missing disk is an empty folder. It must not become another queue.
#[test]
fn an_empty_folder_is_not_taken_for_the_queue() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(put(&queue, message("a", b""), b"x")).unwrap();
    let there = disk.hide();
    fail(&disk, 0);
    assert!(block_on(put(&queue, message("a", b""), b"x")).is_err());
    for _ in 0..5 {
        clock.advance(SECOND * 60);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(disk.paths(), Vec::<std::path::PathBuf>::new());
    }
    let why = block_on(queue.stats()).broken.unwrap().to_string();
    assert!(why.contains("mounted"), "{why}");
    disk.show(there);
    recover(&queue, &clock, "mounted again");
    assert_eq!(block_on(queue.stats()).messages, 1);
}

#[test]
fn closing_a_stalled_queue_does_not_block_and_goes_on_when_its_future_is_dropped() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(put(&queue, message("a", b""), b"x")).unwrap();
    disk.stall(true);
    let is_closed = || pin!(queue.close()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!is_closed());
    assert!(!is_closed());
    disk.stall(false);
    block_on(queue.close());
    assert!(matches!(block_on(queue.put(None)).map(drop), Err(PutError::Closed)));
    assert!(open(&disk, &options(&clock)).is_ok(), "the folder is not locked any more");
}
