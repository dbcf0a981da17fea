//! Writers that put one message after the other, each when the last one is durable.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::candidates::Candidate;
use crate::cpu::{self, Cpu};

/// What came of one candidate's turn.
pub(crate) struct Round {
    /// Messages a second.
    pub(crate) rate: f64,
    /// What a message took, in milliseconds: half of them at most so much, and 99 of 100.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) messages: f64,
    /// Waits for stable storage.
    pub(crate) syncs: f64,
    pub(crate) cpu: Cpu,
}

pub(crate) fn run(candidate: &dyn Candidate, writers: usize, body: &Bytes, time: Duration) -> Round {
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(writers + 1));
    let write = || {
        let mut took = Vec::new();
        barrier.wait();
        while !stop.load(Relaxed) {
            let start = Instant::now();
            candidate.put(body);
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        took
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        let (syncs, cpu) = (candidate.syncs(), cpu::used(candidate.worker()));
        barrier.wait();
        let start = Instant::now();
        thread::sleep(time);
        stop.store(true, Relaxed);
        let mut took: Vec<f64> = threads.into_iter().flat_map(|thread| thread.join().expect("it writes")).collect();
        let elapsed = start.elapsed().as_secs_f64();
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        Round {
            rate: took.len() as f64 / elapsed,
            p50: at(0.5),
            p99: at(0.99),
            messages: took.len() as f64,
            syncs: (candidate.syncs() - syncs) as f64,
            cpu: cpu::used(candidate.worker()) - cpu,
        }
    })
}
