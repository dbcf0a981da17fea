//! Many at once: batches.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use super::disk::Disk;
use super::{block_on, message, open, options, put};
use crate::{ManualClock, Queue, SystemClock};

/// Writers put at once until the power is cut. Every answered writer finds its message again.
#[test]
fn no_put_is_answered_before_its_sync() {
    let mut answered_in_all = 0;
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        // A clock that runs, so that batches wait for more writers.
        let mut options = options(&ManualClock::default());
        options.clock = Arc::new(SystemClock::new());
        let disk = Disk::new();
        let queue = open(&disk, &options).unwrap();
        disk.cut_after(random.u64(1..100));
        let write = || {
            let mut answered = Vec::new();
            while let Ok(id) = block_on(put(&queue, message("key", b"state"), b"body")) {
                answered.push(id);
            }
            answered
        };
        let answered: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        let disk = disk.power_cut(&mut random);
        block_on(queue.close());
        let queue = open(&disk, &options).unwrap();
        for id in &answered {
            // Only a message in the queue can be held.
            assert!(block_on(queue.hold(*id)).unwrap_or(false), "seed {seed}: message {id}");
        }
        answered_in_all += answered.len();
    }
    assert!(answered_in_all > 40);
}

/// Checkpoints, segments and large bodies sync as well.
#[test]
fn every_sync_is_counted() {
    let mut options = options(&ManualClock::default());
    options.index_memory = 0;
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    let (before, counted) = (disk.syncs(), queue.shared.syncs.load(Relaxed));
    for _ in 0..20 {
        block_on(put(&queue, message("key", b"state"), &[b'x'; 900])).unwrap();
        block_on(put(&queue, message("key", b"state"), &[b'x'; 3000])).unwrap();
    }
    block_on(queue.close());
    assert_eq!(queue.shared.syncs.load(Relaxed) - counted, disk.syncs() - before);
    // Three for each large body, unless two share one.
    assert!(disk.syncs() - before > 20 + 2 * 20);
}
