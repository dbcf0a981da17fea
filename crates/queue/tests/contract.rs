//! Both engines keep the contract.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use posthaste_queue::contract::{self, Cannot, Crash, Disk, Harness, Jump};
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::memory::{MemoryOptions, MemoryQueue};
use posthaste_queue::{Clock, ManualClock, Queue};

mod block_on;
use block_on::block_on;

struct Memory {
    clock: ManualClock,
    options: MemoryOptions,
}

impl Harness for Memory {
    type Queue = MemoryQueue;

    async fn open(&mut self) -> MemoryQueue {
        MemoryQueue::new(self.options.clone())
    }

    async fn open_with_leases(&mut self, most: usize) -> Result<MemoryQueue, Cannot> {
        let mut options = self.options.clone();
        options.max_leases = most;
        Ok(MemoryQueue::new(options))
    }

    async fn reopen(&mut self, _: MemoryQueue) -> Result<MemoryQueue, Cannot> {
        Err(Cannot(LIVES_IN_MEMORY))
    }

    async fn crash(&mut self, _: MemoryQueue, _: Crash) -> Result<MemoryQueue, Cannot> {
        Err(Cannot(LIVES_IN_MEMORY))
    }

    async fn jump_wall(&mut self, jump: Jump) -> Result<(), Cannot> {
        jump_wall(&self.clock, jump);
        Ok(())
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
    fn new(mut options: LogOptions) -> Self {
        let clock = ManualClock::default();
        options.clock = Arc::new(clock.clone());
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

    async fn open_with_leases(&mut self, most: usize) -> Result<LogQueue, Cannot> {
        self.dir = tempfile::tempdir().unwrap();
        let mut options = self.options.clone();
        options.max_leases = most;
        Ok(LogQueue::open(self.dir.path(), options).unwrap())
    }

    async fn reopen(&mut self, queue: LogQueue) -> Result<LogQueue, Cannot> {
        queue.close().await;
        Ok(self.reopened())
    }

    async fn crash(&mut self, _: LogQueue, _: Crash) -> Result<LogQueue, Cannot> {
        Err(Cannot(REAL_FILES))
    }

    async fn set_disk(&mut self, _: Disk) -> Result<(), Cannot> {
        Err(Cannot(REAL_FILES))
    }

    async fn jump_wall(&mut self, jump: Jump) -> Result<(), Cannot> {
        jump_wall(&self.clock, jump);
        Ok(())
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }
}

fn jump_wall(clock: &ManualClock, jump: Jump) {
    clock.set_wall(match jump {
        Jump::Forward(by) => clock.wall() + by,
        Jump::Back(by) => clock.wall() - by,
    });
}

fn run_log(options: LogOptions) {
    let report = block_on(contract::run(&mut Log::new(options)));
    report.assert_skipped(&[REAL_FILES, ONE_OWNER]);
}

#[test]
fn memory_keeps_the_contract() {
    let clock = ManualClock::default();
    let mut options = MemoryOptions::default();
    options.clock = Arc::new(clock.clone());
    let report = block_on(contract::run(&mut Memory { clock, options }));
    report.assert_skipped(&[LIVES_IN_MEMORY, NO_DISK, ONE_OWNER]);
}

#[test]
fn log_keeps_the_contract() {
    run_log(LogOptions::default());
}

#[test]
fn log_keeps_the_contract_in_small_segments() {
    let mut options = LogOptions::default();
    options.segment_size = 4096;
    run_log(options);
}

#[test]
fn log_keeps_the_contract_without_memory_for_drafts() {
    let mut options = LogOptions::default();
    options.draft_memory = 0;
    run_log(options);
}

const LIVES_IN_MEMORY: &str = "it lives in memory";
const REAL_FILES: &str = "these files are real: a test inside the crate runs the suite on a simulated disk";
const NO_DISK: &str = "the harness has no disk";
const ONE_OWNER: &str = "the queue has one owner at a time";
