//! How long commits to the queue take.

use std::{
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The moving average of the time of commits, and the commits that run.
#[derive(Debug)]
pub(super) struct Commits {
    begun: Instant,
    running: AtomicUsize,
    /// The millisecond in which a commit has ended, or the first one began.
    moved: AtomicU64,
    /// The average in milliseconds, times [`PARTS`]. Two commits that end at once may lose one of
    /// both samples.
    average: AtomicU64,
}

/// A commit that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    commits: &'a Commits,
    since: Instant,
}

/// A commit changes the average by a quarter of the difference.
const WEIGHT: u64 = 4;
/// Parts of a millisecond in which the average is kept.
const PARTS: u64 = 64;
/// Milliseconds without a commit that cut the average in half, each time. A relay that takes no
/// mail has to find out that the disk works again.
const FADES: u64 = 1_000;

impl Commits {
    pub(super) fn new(begun: Instant) -> Self {
        let [moved, average] = Default::default();
        Self { begun, running: AtomicUsize::new(0), moved, average }
    }

    pub(super) fn begin(&self) -> Commit<'_> {
        let since = Instant::now();
        if self.running.load(Acquire) == 0 {
            self.moved.store(self.milliseconds(since), Release);
        }
        self.running.fetch_add(1, AcqRel);
        Commit { commits: self, since }
    }

    /// The milliseconds that a commit takes: the average, or the time for which none has ended
    /// while some run.
    pub(super) fn latency(&self, now: Instant) -> u64 {
        let average = self.average.load(Relaxed) / PARTS;
        let running = self.running.load(Acquire);
        let still = self.milliseconds(now).saturating_sub(self.moved.load(Acquire));
        match running {
            0 => u32::try_from(still / FADES).ok().and_then(|halvings| average.checked_shr(halvings)).unwrap_or(0),
            _ => average.max(still),
        }
    }

    fn milliseconds(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Commit<'_> {
    /// The commit has ended, whether the queue took the message or not.
    pub(crate) fn end(self) {
        let taken = self.since.elapsed().min(LONGEST);
        let sample = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX).saturating_mul(PARTS) / 1_000;
        let average = self.commits.average.load(Relaxed);
        let next = (average * (WEIGHT - 1) + sample) / WEIGHT;
        self.commits.average.store(next, Relaxed);
    }
}

/// A longer commit counts as this.
const LONGEST: Duration = Duration::from_secs(3_600);

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        self.commits.moved.store(self.commits.milliseconds(Instant::now()), Release);
        self.commits.running.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn commit(commits: &Commits, time: Duration) {
        let commit = commits.begin();
        advance(time).await;
        commit.end();
    }

    #[tokio::test(start_paused = true)]
    async fn the_latency_is_the_average_and_fades_without_commits() {
        let commits = Commits::new(Instant::now());
        assert_eq!(commits.latency(Instant::now()), 0);
        for latency in [500, 875, 1_156] {
            commit(&commits, 2 * SECOND).await;
            assert_eq!(commits.latency(Instant::now()), latency);
        }
        for latency in [1_156, 578, 289, 144] {
            assert_eq!(commits.latency(Instant::now()), latency);
            advance(SECOND).await;
        }
        advance(100 * SECOND).await;
        assert_eq!(commits.latency(Instant::now()), 0);
        // The first commit after that begins with the old average, and lowers it.
        commit(&commits, SECOND / 1_000).await;
        assert_eq!(commits.latency(Instant::now()), 867);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_hangs_counts_before_it_ends() {
        let commits = Commits::new(Instant::now());
        advance(1_000 * SECOND).await;
        let hangs = commits.begin();
        assert_eq!(commits.latency(Instant::now()), 0, "the time before it does not count");
        advance(7 * SECOND).await;
        assert_eq!(commits.latency(Instant::now()), 7_000);
        commit(&commits, SECOND).await;
        assert_eq!(commits.latency(Instant::now()), 250, "others end");
        advance(9 * SECOND).await;
        assert_eq!(commits.latency(Instant::now()), 9_000);
        // Its session has gone.
        drop(hangs);
        assert_eq!(commits.latency(Instant::now()), 250);
    }
}
