//! The log engine keeps the contract on a simulated disk, through crashes and power cuts.

use std::io::ErrorKind;
use std::time::Duration;

use super::disk::{Disk, Fault};
use super::{block_on, open, options};
use crate::contract::{self, Cannot, Crash, Harness, Jump};
use crate::log::{LogOptions, LogQueue};
use crate::{Clock, ManualClock, Queue};

struct Simulated {
    clock: ManualClock,
    options: LogOptions,
    disk: Disk,
    random: fastrand::Rng,
}

impl Simulated {
    fn new(seed: u64, options: LogOptions, clock: ManualClock) -> Self {
        Self { clock, options, disk: Disk::new(), random: fastrand::Rng::with_seed(seed) }
    }

    fn opened(&self) -> LogQueue {
        let queue = open(&self.disk, &self.options).unwrap();
        assert_eq!(queue.report().damaged, []);
        queue
    }
}

impl Harness for Simulated {
    type Queue = LogQueue;

    async fn open(&mut self) -> LogQueue {
        self.disk = Disk::new();
        self.opened()
    }

    async fn open_with_leases(&mut self, most: usize) -> Result<LogQueue, Cannot> {
        self.disk = Disk::new();
        Ok(open(&self.disk, &LogOptions { max_leases: most, ..self.options.clone() }).unwrap())
    }

    async fn reopen(&mut self, queue: LogQueue) -> Result<LogQueue, Cannot> {
        queue.close().await;
        Ok(self.opened())
    }

    async fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    async fn crash(&mut self, queue: LogQueue, how: Crash) -> Result<LogQueue, Cannot> {
        self.disk = match how {
            Crash::Process => self.disk.killed(),
            Crash::Power => self.disk.power_cut(&mut self.random),
        };
        // What the old queue does from here on goes to a disk that is not read again.
        let new = self.opened();
        drop(queue);
        Ok(new)
    }

    async fn set_disk(&mut self, disk: contract::Disk) -> Result<(), Cannot> {
        self.disk.set_free((disk == contract::Disk::Full).then_some(0));
        self.disk.stall(disk == contract::Disk::Stalled);
        let fault = Fault { at: 1, kind: ErrorKind::Other.into(), partial: 30, and: u64::MAX - 1 };
        self.disk.fail((disk == contract::Disk::Broken).then_some(fault));
        Ok(())
    }

    async fn jump_wall(&mut self, jump: Jump) -> Result<(), Cannot> {
        self.clock.set_wall(match jump {
            Jump::Forward(by) => self.clock.wall() + by,
            Jump::Back(by) => self.clock.wall() - by,
        });
        Ok(())
    }
}

#[test]
fn log_keeps_the_contract_on_a_simulated_disk() {
    for seed in 0..8 {
        let clock = ManualClock::default();
        let mut options = options(&clock);
        if seed % 2 == 1 {
            // Every body has a file of its own from its first byte.
            options.draft_memory = 0;
        }
        let report = block_on(contract::run(&mut Simulated::new(seed, options, clock)));
        report.assert_skipped(&["the queue has one owner at a time"]);
    }
}
