//! Processor time, as Linux tells it. Elsewhere it is zero.

use std::fs;
use std::ops::Sub;
use std::thread;
use std::time::{Duration, Instant};

/// Seconds of a processor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Of the threads of one name.
    pub(crate) worker: f64,
    /// Of the whole process.
    pub(crate) process: f64,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { worker: self.worker - before.worker, process: self.process - before.process }
    }
}

/// What was used up to now.
pub(crate) fn used(worker: &str) -> Cpu {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let worker = stats.filter_map(|stat| seconds(&stat, Some(worker))).sum();
    let process = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| seconds(&stat, None));
    Cpu { worker, process: process.unwrap_or(0.0) }
}

/// Waits until whatever a candidate does behind its callers' backs is over, so that the next one
/// has the disk to itself: at most three seconds.
pub(crate) fn settle() {
    let end = Instant::now() + Duration::from_secs(3);
    let mut before = used("").process;
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(60));
        let now = used("").process;
        if now - before < 0.005 {
            return;
        }
        before = now;
    }
}

/// The user's and the system's time, fields 14 and 15, if the thread has that name.
fn seconds(stat: &str, name: Option<&str>) -> Option<f64> {
    let (start, fields) = stat.rsplit_once(") ")?;
    if name.is_some_and(|name| !start.ends_with(&format!("({name}"))) {
        return None;
    }
    let mut fields = fields.split(' ').skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

/// What Linux counts in: hundredths of a second, for programs, whatever the kernel's own clock
/// does.
const TICKS: f64 = 100.0;
