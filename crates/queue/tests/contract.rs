//! Both engines keep the contract.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use posthaste_queue::contract::{self, Harness};
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::memory::{MemoryOptions, MemoryQueue};
use posthaste_queue::{ManualClock, Queue};

mod block_on;
use block_on::block_on;

#[derive(Default)]
struct Memory {
    clock: ManualClock,
}

impl Harness for Memory {
    type Queue = MemoryQueue;

    async fn open(&mut self) -> MemoryQueue {
        MemoryQueue::new(MemoryOptions { clock: Arc::new(self.clock.clone()), ..MemoryOptions::default() })
    }

    fn reopen(&mut self, _: MemoryQueue) -> impl Future<Output = Option<MemoryQueue>> {
        std::future::ready(None)
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

struct Log {
    clock: ManualClock,
    dir: tempfile::TempDir,
    options: LogOptions,
}

impl Log {
    fn new(options: LogOptions) -> Self {
        let clock = ManualClock::default();
        let options = LogOptions { clock: Arc::new(clock.clone()), ..options };
        Self { clock, dir: tempfile::tempdir().unwrap(), options }
    }

    fn reopened(&self) -> LogQueue {
        let queue = LogQueue::open(self.dir.path(), self.options.clone()).unwrap();
        assert_eq!(queue.report().damaged, []);
        assert_eq!(queue.report().truncated, 0);
        queue
    }
}

impl Harness for Log {
    type Queue = LogQueue;

    async fn open(&mut self) -> LogQueue {
        self.dir = tempfile::tempdir().unwrap();
        self.reopened()
    }

    async fn reopen(&mut self, queue: LogQueue) -> Option<LogQueue> {
        queue.close();
        Some(self.reopened())
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

#[test]
fn memory_keeps_the_contract() {
    block_on(contract::run(&mut Memory::default()));
}

#[test]
fn log_keeps_the_contract() {
    block_on(contract::run(&mut Log::new(LogOptions::default())));
}

#[test]
fn log_keeps_the_contract_in_small_segments() {
    block_on(contract::run(&mut Log::new(LogOptions { segment_size: 4096, ..LogOptions::default() })));
}

#[test]
fn log_keeps_the_contract_without_memory_for_drafts() {
    block_on(contract::run(&mut Log::new(LogOptions { draft_memory: 0, ..LogOptions::default() })));
}
