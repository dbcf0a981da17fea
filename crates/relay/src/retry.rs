//! When a deferred delivery is tried again.

use std::time::Duration;

/// The waits between attempts, and when there are no more of them.
#[derive(Debug, Clone)]
pub struct RetrySchedule {
    /// The waits, one after another; the last repeats. Default 1, 5, 15 and 30 minutes, 1, 2 and 4 hours.
    pub waits: Vec<Duration>,
    /// The age at which a message is given up and reported. Default 5 days (RFC 5321 section 4.5.4.1).
    pub expire_after: Duration,
}

/// By how much a wait is changed at random, either way: a tenth, so that what failed together does not come back together.
const JITTER: f64 = 0.1;

impl RetrySchedule {
    /// The wait before the next attempt of a delivery that has had `attempts` before this one, at this age of the message;
    /// nothing when it is to be given up. The last attempt falls on the end of the message's time.
    pub(crate) fn next(&self, attempts: u32, age: Duration) -> Option<Duration> {
        let left = self.expire_after.checked_sub(age).filter(|left| !left.is_zero())?;
        let index = usize::try_from(attempts).unwrap_or(usize::MAX);
        let wait = self.waits.get(index).or(self.waits.last()).copied().unwrap_or(Duration::from_secs(60));
        let jitter = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
        Some(wait.mul_f64(jitter).min(left))
    }

    /// How long a next hop that cannot be reached is left alone: at most a minute, and over before what was deferred for it
    /// comes back, which would be deferred once more without a look otherwise.
    pub(crate) fn down_for(&self) -> Duration {
        let first = self.waits.first().copied().unwrap_or(Duration::from_secs(60));
        first.min(Duration::from_secs(60)).mul_f64(1.0 - 2.0 * JITTER)
    }
}

impl Default for RetrySchedule {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self { waits: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(), expire_after: minutes(5 * 24 * 60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_list_and_end_with_the_message() {
        let schedule = RetrySchedule {
            waits: vec![Duration::from_secs(10), Duration::from_secs(100)],
            expire_after: Duration::from_secs(1_000),
        };
        let near = |wait: Option<Duration>, seconds: f64| {
            let wait = wait.unwrap().as_secs_f64();
            assert!((wait - seconds).abs() <= seconds * JITTER, "{wait} {seconds}");
        };
        near(schedule.next(0, Duration::ZERO), 10.0);
        near(schedule.next(1, Duration::ZERO), 100.0);
        near(schedule.next(u32::MAX, Duration::ZERO), 100.0);
        assert_eq!(schedule.next(5, Duration::from_secs(995)), Some(Duration::from_secs(5)));
        assert_eq!(schedule.next(5, Duration::from_secs(1_000)), None);
    }
}
