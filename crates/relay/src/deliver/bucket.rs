//! A token bucket, for the rates of [`SiteLimits`](crate::SiteLimits) and of sources.

use tokio::time::Instant;

use crate::Rate;

/// When a bucket is full is all that it remembers: each thing that is taken moves that on by the
/// time in which one more comes. It may be taken from beyond its end; then those that come next
/// wait longer.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    full_at: Instant,
}

impl Bucket {
    /// Begins full.
    #[cfg(test)]
    const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes the new rate over. What was taken stays so, for the new period at most.
    pub(super) fn set(bucket: &mut Option<Self>, rate: Option<Rate>, now: Instant) {
        *bucket = rate.map(|rate| {
            let full_at = bucket.as_ref().map_or(now, |known| known.full_at.min(now + rate.period()));
            Self { rate, full_at }
        });
    }

    /// Takes the rate over if it is another one.
    pub(super) fn fit(bucket: &mut Option<Self>, rate: Option<Rate>, now: Instant) {
        if bucket.as_ref().map(|known| known.rate) != rate {
            Self::set(bucket, rate, now);
        }
    }

    /// When it is full again: then it says nothing more.
    pub(super) const fn full_at(&self) -> Instant {
        self.full_at
    }

    /// When one more may be taken. `None`: now.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        // The bucket is empty as long as this is more than a period away.
        let next = self.full_at.max(now) + self.rate.step();
        let wait = next.saturating_duration_since(now).saturating_sub(self.rate.period());
        (!wait.is_zero()).then(|| now + wait)
    }

    pub(super) fn take(&mut self, count: u32, now: Instant) {
        let time = self.rate.step().saturating_mul(count);
        let from = self.full_at.max(now);
        self.full_at = from.checked_add(time).unwrap_or(from);
    }

    /// What was taken last was not used.
    pub(super) fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(self.rate.step()).unwrap_or(self.full_at);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(count: u32, seconds: u32, now: Instant) -> Bucket {
        Bucket::new(Rate::new(count, SECOND * seconds).unwrap(), now)
    }

    /// How many can be taken until then.
    fn taken(bucket: &mut Bucket, mut now: Instant, until: Instant) -> u32 {
        let mut count = 0;
        while now <= until {
            match bucket.waits_until(now) {
                Some(next) => {
                    assert!(next > now);
                    now = next;
                }
                None => {
                    bucket.take(1, now);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn the_count_comes_at_once_and_then_the_rate() {
        let now = Instant::now();
        let mut bucket = bucket(100, 60, now);
        assert_eq!(taken(&mut bucket, now, now), 100);
        assert_eq!(taken(&mut bucket, now, now + SECOND * 6), 10);
        assert_eq!(taken(&mut bucket, now + SECOND * 6, now + SECOND * 120), 190);
        // A pause saves up the count and no more.
        assert_eq!(taken(&mut bucket, now + SECOND * 9_000, now + SECOND * 9_000), 100);
    }

    #[test]
    fn a_count_of_one_is_one_in_each_period() {
        let now = Instant::now();
        let mut bucket = bucket(1, 10, now);
        assert_eq!(taken(&mut bucket, now, now + SECOND * 9), 1);
        assert_eq!(bucket.waits_until(now + SECOND * 4), Some(now + SECOND * 10));
        assert_eq!(taken(&mut bucket, now + SECOND * 10, now + SECOND * 39), 3);
    }

    #[test]
    fn what_is_taken_beyond_the_end_makes_the_next_wait() {
        let now = Instant::now();
        let mut bucket = bucket(10, 10, now);
        bucket.take(25, now);
        assert_eq!(bucket.waits_until(now), Some(now + SECOND * 16));
        bucket.give_back();
        assert_eq!(bucket.waits_until(now), Some(now + SECOND * 15));
        bucket.take(u32::MAX, now);
        assert!(bucket.waits_until(now).is_some());
    }

    #[test]
    fn a_new_rate_counts_at_once_and_keeps_what_was_taken() {
        let now = Instant::now();
        let mut own = Some(bucket(10, 3_600, now));
        own.as_mut().unwrap().take(10, now);
        Bucket::set(&mut own, Rate::new(10, SECOND * 10), now);
        assert_eq!(own.as_ref().unwrap().waits_until(now), Some(now + SECOND));
        Bucket::set(&mut own, None, now);
        assert!(own.is_none());
        Bucket::set(&mut own, Rate::new(2, SECOND), now);
        assert_eq!(taken(own.as_mut().unwrap(), now, now), 2);
    }
}
