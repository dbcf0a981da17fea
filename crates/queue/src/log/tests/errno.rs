//! The meaning of each error: retried, a refusal, or a broken disk.

use rustix::io::Errno;

use super::disk::{Disk, Fault, Operation};
use super::ledger::Ledger;
use super::{block_on, message, open, options, put};
use crate::log::LogOptions;
use crate::{ManualClock, Queue};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Retried: no caller sees it.
    AskedAgain,
    /// The operation is refused, and all else goes on. After a failed sync it is unknown what is
    /// lost: that is a broken disk.
    Refused,
    /// The store stops.
    Broken,
}

const ERRORS: [(Errno, Means); 13] = [
    (Errno::INTR, Means::AskedAgain),
    (Errno::MFILE, Means::Refused),
    (Errno::NFILE, Means::Refused),
    (Errno::NOMEM, Means::Refused),
    (Errno::NOBUFS, Means::Refused),
    (Errno::AGAIN, Means::Refused),
    (Errno::NOSPC, Means::Refused),
    (Errno::DQUOT, Means::Refused),
    (Errno::FBIG, Means::Refused),
    (Errno::IO, Means::Broken),
    (Errno::ROFS, Means::Broken),
    (Errno::ACCESS, Means::Broken),
    (Errno::NODEV, Means::Broken),
];

#[test]
fn an_error_stops_the_store_only_if_the_disk_is_broken() {
    for (errno, means) in ERRORS {
        let (mut stopped, mut hit) = (0, 0);
        for at in (1_u64..).step_by(9) {
            let context = format!("{errno}, operation {at}");
            let clock = ManualClock::default();
            // One checkpoint after the other.
            let options = LogOptions { index_memory: 0, ..options(&clock) };
            let disk = Disk::new();
            let queue = open(&disk, &options).unwrap();
            let (mut ledger, mut random) = (Ledger::new(&clock), fastrand::Rng::with_seed(5));
            disk.fail(Some(Fault { at, kind: errno.into(), partial: 30, and: 0 }));
            let broken = block_on(async {
                for _ in 0..20 {
                    ledger.step(&queue, &mut random).await;
                }
                queue.stats().await.broken
            });
            let Some(place) = disk.refused() else { break };
            hit += 1;
            stopped += u64::from(broken.is_some());
            if !may_stop(means, place) {
                assert!(broken.is_none(), "{context}, {place:?}: {broken:?}");
                block_on(put(&queue, message("a", b""), b"service goes on"))
                    .unwrap_or_else(|why| panic!("{context}: {why}"));
            }
            let later = disk.killed();
            drop(queue);
            let queue = open(&later, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
            if broken.is_some() || may_stop(means, place) {
                block_on(ledger.check(&queue, &context));
            }
        }
        println!("{errno}: {hit} refused operations, the store stopped {stopped} times");
        assert!(hit > 5, "{errno}: {hit}");
        assert!(means != Means::Broken || stopped > 3, "{errno}: {stopped}");
    }
}

fn may_stop(means: Means, (what, part): Operation) -> bool {
    match means {
        Means::AskedAgain => false,
        // After a failed rename the index's name is unknown, unless the error was a lack of
        // descriptors.
        Means::Refused => {
            what == "sync" || (part == "index" && what == "rename") || (part == "folder" && what == "sync folder")
        }
        Means::Broken => true,
    }
}
