//! The index says nothing that the log does not: without it, or with a damaged one, the queue is
//! the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::Disk;
use super::ledger::Ledger;
use super::{DIR, block_on, body_of, everything, open, options};
use crate::log::{LogOptions, LogQueue};
use crate::{Claimed, ManualClock, MessageId, Queue, RoutingKey, Summary};

/// A queue's messages with their bodies, and its deliveries in the order of claims.
struct Said {
    messages: Vec<(Summary, Vec<u8>)>,
    claims: Vec<(MessageId, u32, RoutingKey, Duration)>,
}

impl Said {
    fn must_be(&self, other: &Self, context: &str) {
        assert_eq!(self.messages.len(), other.messages.len(), "{context}");
        for (one, other) in self.messages.iter().zip(&other.messages) {
            assert_eq!(one, other, "{context}");
        }
        assert_eq!(self.claims, other.claims, "{context}");
    }
}

async fn said(queue: &LogQueue) -> Said {
    let mut messages = Vec::new();
    for summary in everything(queue).await {
        let body = body_of(queue, summary.id).await.unwrap();
        messages.push((summary, body));
    }
    let (mut claims, mut quiet) = (Vec::new(), 0);
    while quiet < 3 {
        let some = queue.claim_any(1, Duration::from_secs(3600)).await.unwrap();
        if some.is_empty() {
            // What has no room in memory appears with the next checkpoint.
            quiet = if queue.stats().await.short_of_memory { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(1));
        }
        claims.extend(
            some.into_iter().map(|Claimed { lease, key, age, .. }| (lease.message(), lease.delivery(), key, age)),
        );
    }
    Said { messages, claims }
}

/// Several openings, each with a history of checkpoints, copies and alterations; then closed,
/// killed or cut. Also returns an earlier index.
fn some_queue(seed: u64) -> (Disk, LogOptions, Option<Vec<u8>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let clock = ManualClock::default();
    // Memory for all messages: so the order of claims does not depend on when a checkpoint made a
    // delivery ready.
    let mut options = options(&clock);
    if seed.is_multiple_of(3) {
        options.inline_body = 100;
    }
    let mut ledger = Ledger::new(&clock);
    let mut disk = Disk::new();
    let mut earlier = None;
    for round in 0..random.u8(2..5) {
        if disk.paths().contains(&index()) {
            earlier = Some(disk.contents(&index()));
        }
        let queue = open(&disk, &options).unwrap();
        block_on(async {
            ledger.check(&queue, &format!("seed {seed}, round {round}")).await;
            for _ in 0..random.usize(10..40) {
                ledger.step(&queue, &mut random).await;
            }
        });
        disk = match random.u8(0..3) {
            0 => {
                block_on(queue.close());
                disk.killed()
            }
            1 => disk.killed(),
            _ => disk.power_cut(&mut random),
        };
        // Closed only now, so that nothing is written after the kill.
        drop(queue);
    }
    (disk, options, earlier)
}

fn index() -> PathBuf {
    Path::new(DIR).join("index")
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let (mut messages, mut claims, mut segments) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (disk, options, _) = some_queue(seed);
        let without = disk.killed();
        without.forget(&index());
        let queue = open(&disk, &options).unwrap();
        let there = block_on(said(&queue));
        let again = open(&without, &options).unwrap();
        assert!(again.report().damaged.is_empty(), "seed {seed}: {:?}", again.report());
        let rebuilt = block_on(said(&again));
        there.must_be(&rebuilt, &format!("seed {seed}"));
        messages += there.messages.len();
        claims += there.claims.len();
        segments += queue.report().segments;
    }
    println!("{SEEDS} queues, {segments} segments, {messages} messages, {claims} claims: the same without their index");
    assert!(messages > 1000 && claims > 1000);
}

#[test]
fn an_index_cut_to_any_length_is_set_aside_and_rebuilt() {
    let (disk, options, _) = some_queue(1);
    let good = disk.contents(&index());
    let there = block_on(said(&open(&disk.killed(), &options).unwrap()));
    for len in (1..512).chain((512..good.len()).step_by(509)) {
        let disk = disk.killed();
        disk.set_contents(&index(), good[..len].to_vec());
        let queue = open(&disk, &options).unwrap_or_else(|error| panic!("{len} of {} octets: {error}", good.len()));
        assert_eq!(queue.report().damaged.len(), 1, "{len}: {:?}", queue.report());
        if len % 8 == 0 {
            block_on(said(&queue)).must_be(&there, &format!("{len} octets"));
        }
    }
}

#[test]
fn a_damaged_index_is_set_aside_and_rebuilt() {
    let (mut set_aside, mut taken) = (0, 0);
    let other = {
        let (disk, ..) = some_queue(SEEDS);
        disk.contents(&index())
    };
    for seed in 0..SEEDS {
        let (disk, options, earlier) = some_queue(seed);
        let there = block_on(said(&open(&disk.killed(), &options).unwrap()));
        let good = disk.contents(&index());
        let mut random = fastrand::Rng::with_seed(seed);
        for way in 0..7 {
            let mut octets = good.clone();
            let at = random.usize(0..octets.len());
            let must_go = match way {
                0 => {
                    octets[at] ^= 1 << random.u8(0..8);
                    false
                }
                1 => {
                    // In its root, and in the pages that are used most.
                    octets[at % 4096] = random.u8(..);
                    false
                }
                2 => {
                    octets.truncate(at);
                    true
                }
                3 => {
                    octets = (0..random.usize(0..9000)).map(|_| random.u8(..)).collect();
                    !octets.is_empty()
                }
                4 => {
                    // One of its pages twice.
                    let page = |at: usize| at / 4096 * 4096..(at / 4096 + 1) * 4096;
                    let to = random.usize(0..octets.len());
                    if page(at).end <= octets.len() && page(to).end <= octets.len() {
                        octets.copy_within(page(at), page(to).start);
                    }
                    false
                }
                5 => {
                    let Some(earlier) = &earlier else { continue };
                    octets.clone_from(earlier);
                    false
                }
                _ => {
                    octets.clone_from(&other);
                    false
                }
            };
            let disk = disk.killed();
            disk.set_contents(&index(), octets.clone());
            let context = format!("seed {seed}, way {way}");
            let queue = open(&disk, &options).unwrap_or_else(|error| panic!("{context}: {error}"));
            let is_aside = !queue.report().damaged.is_empty();
            if is_aside {
                let aside = Path::new(DIR).join("quarantine").join("index-0.bad");
                assert!(disk.paths().contains(&aside), "{context}: it is kept");
                set_aside += 1;
            } else {
                taken += 1;
            }
            assert!(is_aside || !must_go, "{context}");
            let found = block_on(said(&queue));
            there.must_be(&found, &format!("{context}, set aside: {is_aside}"));
        }
    }
    println!("{set_aside} damaged indexes set aside and rebuilt, {taken} without effect");
    assert!(set_aside > taken / 4 && taken > 0, "{set_aside} and {taken}");
}

const SEEDS: u64 = 60;
