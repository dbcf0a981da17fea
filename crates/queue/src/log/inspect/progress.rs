//! The progress of an inspection, for another thread.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// How far an inspection is. Another thread may look at any time.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
}

/// The stages of an inspection. `Opening` comes again between others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Opens the index and the end of the log; not counted.
    Opening,
    /// Reads the whole log; counted in bytes.
    Log,
    /// Compares log and index; counted in messages.
    Comparing,
    /// Reads all bodies; counted in bytes.
    Bodies,
}

impl Progress {
    /// Returns the stage, how much of it is done, and how much there is.
    #[must_use]
    pub fn look(&self) -> (Stage, u64, u64) {
        let stage = STAGES.get(usize::from(self.stage.load(Relaxed))).copied().unwrap_or(Stage::Opening);
        let total = self.total.load(Relaxed);
        (stage, self.done.load(Relaxed).min(total), total)
    }

    pub(super) fn begin(&self, stage: Stage, total: u64) {
        self.stage.store(stage as u8, Relaxed);
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
    }

    pub(super) fn add(&self, done: u64) {
        self.done.fetch_add(done, Relaxed);
    }
}

const STAGES: [Stage; 4] = [Stage::Opening, Stage::Log, Stage::Comparing, Stage::Bodies];
