//! Many at once: batches.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use super::disk::Disk;
use super::{block_on, message, open, options, put};
use crate::{ManualClock, Queue, SystemClock};

/// Writers put at once until the power is cut somewhere: whoever was answered finds the message again.
#[test]
fn nobody_is_answered_before_the_sync() {
    let mut answered_in_all = 0;
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        // One that goes on, so that batches wait for each other's writers.
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
            // Of a message that is not there nothing can be said.
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
    // Large bodies: three each, if no two shared any.
    assert!(disk.syncs() - before > 20 + 2 * 20);
}
