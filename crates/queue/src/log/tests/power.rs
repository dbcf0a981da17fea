//! The power is cut at any moment, any part of what was not synced is lost.

use super::disk::Disk;
use super::ledger::Ledger;
use super::{block_on, open, options};
use crate::{ManualClock, Queue};

/// Each round: some steps, then the cut before, in or after another operation of the disk, then opening, maybe cut as well.
#[test]
fn nothing_acknowledged_is_lost() {
    let (mut cuts, mut acknowledged) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock = ManualClock::default();
        let mut options = options(&clock);
        if seed.is_multiple_of(2) {
            // Hardly anything stays in memory, and one checkpoint follows the other.
            options.index_memory = 0;
        }
        let mut disk = Disk::new();
        let mut ledger = Ledger::default();
        for round in 0..ROUNDS {
            let context = format!("seed {seed}, round {round}");
            if random.u8(0..4) == 0 {
                // In the middle of opening.
                disk.cut_after(random.u64(1..12));
                drop(open(&disk, &options));
                disk = disk.power_cut(&mut random);
                cuts += 1;
            }
            let queue = open(&disk, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
            block_on(async {
                ledger.check(&queue, &context).await;
                for _ in 0..random.u8(0..12) {
                    ledger.step(&queue, &mut random).await;
                }
                disk.cut_after(random.u64(1..14));
                for _ in 0..14 {
                    ledger.step(&queue, &mut random).await;
                }
            });
            let after = disk.power_cut(&mut random);
            queue.close();
            disk = after;
            cuts += 1;
        }
        acknowledged += ledger.acknowledged;
    }
    println!("{cuts} cuts, {acknowledged} acknowledged, none lost");
    assert!(acknowledged > cuts);
}

/// Killed, the system goes on: everything that was written is there.
#[test]
fn a_kill_loses_nothing() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock = ManualClock::default();
        let options = options(&clock);
        let mut disk = Disk::new();
        let mut ledger = Ledger::default();
        for round in 0..5 {
            let queue = open(&disk, &options).unwrap();
            block_on(async {
                ledger.check(&queue, &format!("seed {seed}, round {round}")).await;
                for _ in 0..20 {
                    ledger.step(&queue, &mut random).await;
                }
            });
            disk = disk.killed();
            drop(queue);
        }
    }
}

const SEEDS: u64 = 250;
const ROUNDS: u64 = 12;
