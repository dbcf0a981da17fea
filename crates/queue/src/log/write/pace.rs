//! How long a batch waits for more jobs.

use std::time::Duration;

use crate::index::{Moment, after, between};

/// A single writer never waits. After a batch of several jobs, the store waits for as many again,
/// but at most 1/8 of the last sync and at most 2 ms.
///
/// Writers that were just answered come back soon. A batch that begins before they do is small, and
/// makes all others wait for one sync more.
#[derive(Debug, Default)]
pub(in crate::log) struct Pace {
    jobs: usize,
    end: Moment,
}

impl Pace {
    /// A batch is done. `jobs`: those in it and those waiting now. `took`: how long it took to make
    /// it durable.
    pub(in crate::log) fn done(&mut self, now: Moment, jobs: usize, took: Duration) {
        *self = Self { jobs, end: after(now, (took / WAITED_PART).min(LONGEST_WAIT)) };
    }

    /// The number of jobs to wait for, and the longest wait. `None`: no wait.
    pub(in crate::log) fn wait(&self, now: Moment) -> Option<(usize, Duration)> {
        let left = between(now, self.end);
        (self.jobs > 1 && !left.is_zero()).then_some((self.jobs, left))
    }
}

const WAITED_PART: u32 = 8;
const LONGEST_WAIT: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::{Duration, LONGEST_WAIT, Pace};

    #[test]
    fn a_single_writer_never_waits() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(0), None);
        pace.done(0, 1, Duration::from_millis(8));
        assert_eq!(pace.wait(0), None);
        pace.done(1_000, 2, Duration::from_millis(8));
        assert_eq!(pace.wait(2_000), None);
    }

    #[test]
    fn a_batch_waits_for_more_writers_a_fraction_of_the_last_sync() {
        let mut pace = Pace::default();
        pace.done(1_000, 2, Duration::from_millis(8));
        assert_eq!(pace.wait(1_000), Some((2, Duration::from_millis(1))));
        assert_eq!(pace.wait(1_600), Some((2, Duration::from_micros(400))));
        pace.done(0, 50, Duration::from_secs(10));
        assert_eq!(pace.wait(0), Some((50, LONGEST_WAIT)));
    }
}
