//! A process that is killed with `SIGKILL` while 50 of its threads write. `cargo xtask kills` does
//! it more often.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Duration;

use posthaste_queue::log::{LogQueue, OpenError};

mod block_on;
mod writers;
use writers::{Ledger, Writers, options, times};

#[test]
fn what_was_acknowledged_survives() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let mut random = fastrand::Rng::with_seed(1);
    let kills = times("KILLS", 8);
    for round in 0..kills {
        let writers = Writers::start(folder.path());
        if round == 0 {
            while writers.said() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let refused = LogQueue::open(folder.path(), options()).unwrap_err();
            assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        }
        thread::sleep(Duration::from_millis(random.u64(20..400)));
        let lines = writers.kill();
        // All lines were written before its end.
        ledger.read(&lines, lines.len());
        let queue = LogQueue::open(folder.path(), options()).unwrap();
        ledger.check(&queue, &format!("kill {round}"));
    }
    let Ledger { acknowledged, again, .. } = ledger;
    println!(
        "{kills} kills, {acknowledged} acknowledged, none lost, none back; {again} finished without an answer are offered again"
    );
    assert!(acknowledged > 50 * kills / 8, "{acknowledged}");
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "the other process of the test above"]
fn child() {
    writers::write();
}
