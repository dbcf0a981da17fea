//! The power is cut at any moment; any part of what was not synced is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::disk::{Disk, Fault, Operation, Survival};
use super::ledger::Ledger;
use super::{block_on, open, options};
use crate::log::LogOptions;
use crate::{ManualClock, Queue};

/// What was tried, and the results.
#[derive(Default)]
struct Tally {
    cuts: u64,
    /// Cuts during an opening.
    opening: u64,
    acknowledged: u64,
    again: u64,
    /// Rounds in which the disk refused an operation before.
    refused: u64,
    /// Cuts by operation of the disk.
    places: BTreeMap<Operation, u64>,
}

/// Random histories with random cuts.
#[test]
fn no_acknowledged_message_is_lost_in_a_power_cut() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        history(seed, &mut tally);
    }
    println!("{tally}");
    assert!(tally.acknowledged > tally.cuts);
}

/// One history, cut before or in each of its operations: opening, batches, checkpoints, copying,
/// unlinking, closing.
#[test]
fn a_power_cut_at_any_operation_loses_no_message() {
    let mut tally = Tally::default();
    for seed in [2, 9] {
        every_operation(seed, &mut tally);
    }
    println!("{tally}");
    for place in [
        ("write", "log"),
        ("sync", "log"),
        ("sync folder", "log"),
        ("create", "log"),
        ("unlink", "log"),
        ("write", "index"),
        ("sync", "index"),
        ("rename", "index"),
        ("write", "bodies"),
        ("sync", "bodies"),
        ("sync folder", "bodies"),
        ("unlink", "bodies"),
        ("mkdir", "bodies"),
        ("sync folder", "folder"),
    ] {
        assert!(tally.places.contains_key(&place), "no cut at {place:?}: {:?}", tally.places);
    }
}

/// As many cuts as there is time for: `cargo xtask power-cuts`.
#[test]
#[ignore = "as long as one likes: `cargo xtask power-cuts`"]
fn many_power_cuts() {
    let number = |name: &str, default| env::var(name).ok().map_or(default, |value| value.parse().unwrap());
    let (wanted, first) = (number("POWER_CUTS", 1_000), number("POWER_SEED", 0));
    let (next, total, failed) = (AtomicU64::new(first), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let started = Instant::now();
    let work = || {
        loop {
            let so_far = total.lock().unwrap().cuts;
            if so_far >= wanted {
                return;
            }
            let seed = next.fetch_add(1, Relaxed);
            let mut tally = Tally::default();
            let done = panic::catch_unwind(AssertUnwindSafe(|| {
                let way = if seed.is_multiple_of(EXHAUSTIVE) { every_operation } else { history };
                way(seed, &mut tally);
            }));
            if done.is_err() {
                println!("seed {seed} failed; again with `cargo xtask power-cuts --seed {seed} --cuts 1`");
                failed.lock().unwrap().push(seed);
            }
            let mut total = total.lock().unwrap();
            total.add(tally);
            if so_far / PROGRESS < total.cuts / PROGRESS {
                println!("{} cuts, up to seed {seed}, {} s", total.cuts, started.elapsed().as_secs());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let seeds = next.into_inner() - 1;
    println!("seeds {first} to {seeds}, {} s\n{}", started.elapsed().as_secs(), total.into_inner().unwrap());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

/// After a kill the system goes on: everything written is there.
#[test]
fn a_kill_loses_no_message() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (clock, options) = settings(seed);
        let mut disk = Disk::new();
        let mut ledger = Ledger::new(&clock);
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

/// Each round: some steps, a cut before, in or after an operation of the disk, and an opening that
/// may be cut as well.
fn history(seed: u64, tally: &mut Tally) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (clock, options) = settings(seed);
    let mut disk = Disk::new();
    let mut ledger = Ledger::new(&clock);
    for round in 0..ROUNDS {
        let context = context(seed, &format!("round {round}"));
        while random.u8(0..4) == 0 {
            // During opening.
            disk.cut_after(random.u64(0..30));
            drop(open(&disk, &options));
            tally.opening += 1;
            disk = tally.cut(&disk, &mut random);
        }
        let queue = open(&disk, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
        block_on(async {
            ledger.check(&queue, &context).await;
            if random.u8(0..4) == 0 {
                disk.fail(Some(refusal(&mut random)));
                tally.refused += 1;
            }
            for _ in 0..random.u8(0..12) {
                ledger.step(&queue, &mut random).await;
            }
            disk.cut_after(random.u64(0..40));
            for _ in 0..20 {
                ledger.step(&queue, &mut random).await;
            }
        });
        let after = if random.bool() {
            // During closing, unless it was before.
            block_on(queue.close());
            tally.cut(&disk, &mut random)
        } else {
            let after = tally.cut(&disk, &mut random);
            block_on(queue.close());
            after
        };
        disk = after;
    }
    tally.ledger(&ledger);
}

/// Repeats one history, each time with one operation more, each cut with everything that it may
/// leave, and with a second cut during the opening after it.
fn every_operation(seed: u64, tally: &mut Tally) {
    for at in 0_u64.. {
        let mut random = fastrand::Rng::with_seed(seed);
        let (clock, options) = settings(seed);
        let disk = Disk::new();
        let mut ledger = Ledger::new(&clock);
        disk.cut_after(at);
        run(&disk, &options, &mut ledger, &mut random);
        let mut random = fastrand::Rng::with_seed(at);
        let (before, again) = (ledger.acknowledged, ledger.again);
        for survival in Survival::ALL {
            let context = context(seed, &format!("operation {at}, {survival:?}"));
            let mut ledger = ledger.clone();
            let mut left = disk.power_cut_with(survival, &mut random);
            tally.count(&disk);
            if random.bool() {
                left.cut_after(random.u64(0..40));
                drop(open(&left, &options));
                tally.opening += 1;
                left = tally.cut(&left, &mut random);
            }
            let queue = open(&left, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
            block_on(async {
                ledger.check(&queue, &context).await;
                for _ in 0..3 {
                    ledger.step(&queue, &mut random).await;
                }
            });
            let left = left.killed();
            drop(queue);
            let queue = open(&left, &options).unwrap_or_else(|error| panic!("{context}, and later: {error}"));
            block_on(ledger.check(&queue, &format!("{context}, and later")));
            tally.again += ledger.again - again;
        }
        tally.acknowledged += before;
        if disk.cut_at().is_none() {
            return;
        }
    }
}

/// Opens, does some operations, closes; twice. One message stays until it is copied, so that its
/// segment can go.
fn run(disk: &Disk, options: &LogOptions, ledger: &mut Ledger, random: &mut fastrand::Rng) {
    for part in 0..2 {
        let Ok(queue) = open(disk, options) else { return };
        block_on(async {
            if part == 0 {
                ledger.put_straggler(&queue, random).await;
            }
            for _ in 0..STEPS {
                ledger.step(&queue, random).await;
            }
            ledger.clear(&queue).await;
            for _ in 0..PATIENCE {
                let stats = queue.stats().await;
                if stats.broken.is_some() || stats.disk <= 3 * options.segment_size {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        block_on(queue.close());
    }
}

/// A full disk, a used up quota or an error, once or twice, with a part of a write done.
fn refusal(random: &mut fastrand::Rng) -> Fault {
    let kind = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other][random.usize(..3)];
    let partial = [0, 30, 700][random.usize(..3)];
    Fault { at: random.u64(1..40), kind: kind.into(), partial, and: random.u64(0..2) }
}

/// Every second one keeps hardly anything in memory and writes one checkpoint after the other. In
/// every third one almost every body has a file.
fn settings(seed: u64) -> (ManualClock, LogOptions) {
    let clock = ManualClock::default();
    let mut options = options(&clock);
    if seed.is_multiple_of(2) {
        options.index_memory = 0;
    }
    if seed.is_multiple_of(3) {
        options.inline_body = 100;
    }
    (clock, options)
}

fn context(seed: u64, place: &str) -> String {
    format!("seed {seed}, {place} (again with `cargo xtask power-cuts --seed {seed} --cuts 1`)")
}

impl Tally {
    /// The disk after its power was cut.
    fn cut(&mut self, disk: &Disk, random: &mut fastrand::Rng) -> Disk {
        self.count(disk);
        disk.power_cut(random)
    }

    fn count(&mut self, disk: &Disk) {
        self.cuts += 1;
        *self.places.entry(disk.cut_at().unwrap_or(("between", "operations"))).or_default() += 1;
    }

    fn ledger(&mut self, ledger: &Ledger) {
        self.acknowledged += ledger.acknowledged;
        self.again += ledger.again;
    }

    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.opening += other.opening;
        self.refused += other.refused;
        self.acknowledged += other.acknowledged;
        self.again += other.again;
        for (place, count) in other.places {
            *self.places.entry(place).or_default() += count;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cuts, opening, refused, acknowledged, again, places } = self;
        writeln!(
            f,
            "{cuts} cuts, {opening} of them while opening, {refused} after the disk refused something; \
             {acknowledged} changes acknowledged"
        )?;
        writeln!(
            f,
            "none lost, none back after it was gone; {again} deliveries whose outcome had no answer offered again"
        )?;
        writeln!(f, "cut before or in")?;
        places.iter().try_for_each(|((what, part), count)| writeln!(f, "{count:>9}  {what}, {part}"))
    }
}

const SEEDS: u64 = 150;
const ROUNDS: u64 = 12;
const STEPS: u64 = 14;
/// The milliseconds that a history waits until removed messages leave the disk.
const PATIENCE: usize = 2_000;
/// One seed in this many is cut at every operation.
const EXHAUSTIVE: u64 = 20;
const PROGRESS: u64 = 2_000;
