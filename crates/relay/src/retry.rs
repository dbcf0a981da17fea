//! When a deferred delivery is tried again.

use std::time::Duration;

use crate::{Cause, deliver::Words};

/// The waits between the attempts of a delivery, and the age at which it is given up.
///
/// They do not count for a next hop that takes no more mail for now, since it has too many
/// connections or has had enough. It is left in peace for the time that it names, otherwise for 5
/// seconds, doubled up to 5 minutes. Its mail stays due, and no attempt is counted. If that goes on
/// for half an hour, all its mail is deferred as after other refusals.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetrySchedule {
    /// The wait before each further attempt, in order; the last one repeats. Up to a tenth is added
    /// or taken at random, so that deliveries that failed together do not come back together.
    /// Default 1, 5, 15 and 30 minutes, 1, 2 and 4 hours. An empty list counts as 1 minute.
    pub waits: Vec<Duration>,
    /// The same after a host has greylisted the message. Most hosts take it after some minutes.
    /// Default 5, 10, 20 and 30 minutes. If the host names a time, that counts, up to an hour. An
    /// empty list counts as [`waits`](Self::waits).
    pub greylisted: Vec<Duration>,
    /// The same after a host has said that the mailbox of a recipient is full, which takes its
    /// owner to mend. Default 1, 4 and 12 hours. An empty list counts as [`waits`](Self::waits).
    pub mailbox_full: Vec<Duration>,
    /// The age at which a message is given up and reported. Default 5 days (RFC 5321 section
    /// 4.5.4.1).
    pub expire_after: Duration,
    /// The age at which the sender is told that a message is delayed, once for each recipient,
    /// unless NOTIFY says otherwise (RFC 3461 section 5.2.5). Default 4 hours: RFC 5321 section
    /// 4.5.4.1 thinks of days, but people expect an answer within hours. `None`: never.
    pub warn_after: Option<Duration>,
}

/// The largest random change of a wait, either way: a tenth. Deliveries that failed together then
/// do not come back together.
const JITTER: f64 = 0.1;

impl RetrySchedule {
    /// The wait after a refusal with these words, for a delivery with `attempts` earlier attempts.
    /// A time that the host has named counts, unless the mailbox is full.
    pub(crate) fn wait(&self, words: Words, attempts: u32) -> Duration {
        let own = match words.cause {
            Cause::Greylisted => &self.greylisted,
            Cause::MailboxFull => &self.mailbox_full,
            Cause::TooManyConnections | Cause::RateLimited | Cause::Busy | Cause::Other => &self.waits,
        };
        let waits = if own.is_empty() { &self.waits } else { own };
        let index = usize::try_from(attempts).unwrap_or(usize::MAX);
        let wait = waits.get(index).or(waits.last()).copied().unwrap_or(Duration::from_secs(60));
        // A little more than what was named: the jitter must not cut it.
        let named = words.wait.filter(|_| words.cause != Cause::MailboxFull);
        named.map_or(wait, |named| named.mul_f64(1.0 + 2.0 * JITTER))
    }

    /// The wait from now, with jitter, for a message of this age. `None`: the message has expired.
    ///
    /// The wait is cut so that an attempt happens at expiry, at `warn_after`, and after `then`, the
    /// time that is left until the deadline of BY.
    pub(crate) fn next(&self, wait: Duration, age: Duration, then: Option<Duration>) -> Option<Duration> {
        let left = self.expire_after.checked_sub(age).filter(|left| !left.is_zero())?;
        let jitter = Duration::try_from_secs_f64(wait.as_secs_f64() * (1.0 + JITTER * (2.0 * fastrand::f64() - 1.0)));
        let warning = self.warn_after.and_then(|warn| warn.checked_sub(age));
        let ends = [Some(left), warning, then].into_iter().flatten().filter(|end| !end.is_zero());
        Some(ends.fold(jitter.unwrap_or(Duration::MAX), Duration::min))
    }

    /// How long an unreachable next hop is not tried again: at most a minute. It ends before the
    /// deliveries deferred for it come back. Otherwise they would be deferred again without an
    /// attempt.
    pub(crate) fn down_for(&self) -> Duration {
        let first = self.waits.first().copied().unwrap_or(Duration::from_secs(60));
        first.min(Duration::from_secs(60)).mul_f64(1.0 - 2.0 * JITTER)
    }
}

impl Default for RetrySchedule {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self {
            waits: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            greylisted: [5, 10, 20, 30].map(minutes).to_vec(),
            mailbox_full: [60, 240, 720].map(minutes).to_vec(),
            expire_after: minutes(5 * 24 * 60),
            warn_after: Some(minutes(4 * 60)),
        }
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
            warn_after: Some(Duration::from_secs(600)),
            ..RetrySchedule::default()
        };
        let next = |attempts, age, then| schedule.next(schedule.wait(Words::default(), attempts), age, then);
        let near = |wait: Option<Duration>, seconds: f64| {
            let wait = wait.unwrap().as_secs_f64();
            assert!((wait - seconds).abs() <= seconds * JITTER, "{wait} {seconds}");
        };
        let seconds = Duration::from_secs;
        near(next(0, Duration::ZERO, None), 10.0);
        near(next(1, Duration::ZERO, None), 100.0);
        near(next(u32::MAX, Duration::ZERO, None), 100.0);
        for (age, then, wait) in [
            (995, None, Some(5)),
            (1_000, None, None),
            // At the age of the warning.
            (595, None, Some(5)),
            (100, Some(3), Some(3)),
            (998, Some(3), Some(2)),
            (1_000, Some(3), None),
        ] {
            assert_eq!(next(5, seconds(age), then.map(seconds)), wait.map(seconds), "{age} {then:?}");
        }
        near(next(5, seconds(600), Some(Duration::ZERO)), 100.0);
        let never = RetrySchedule { waits: vec![Duration::MAX], warn_after: None, ..schedule.clone() };
        for _ in 0..100 {
            assert_eq!(never.next(never.wait(Words::default(), 0), Duration::ZERO, None), Some(seconds(1_000)));
        }
    }

    #[test]
    fn each_cause_has_its_waits_and_a_host_may_name_one() {
        let schedule = RetrySchedule::default();
        let minutes = |cause, wait: Option<u64>, attempts| {
            schedule.wait(Words { cause, wait: wait.map(Duration::from_secs) }, attempts).as_secs() / 60
        };
        for (cause, waits) in [
            (Cause::Greylisted, [5, 10, 20, 30, 30]),
            (Cause::MailboxFull, [60, 240, 720, 720, 720]),
            (Cause::Other, [1, 5, 15, 30, 60]),
            (Cause::Busy, [1, 5, 15, 30, 60]),
        ] {
            let found = [0, 1, 2, 3, 4].map(|attempts| minutes(cause, None, attempts));
            assert_eq!(found, waits, "{cause:?}");
        }
        assert_eq!(minutes(Cause::Greylisted, Some(600), 0), 12);
        assert_eq!(minutes(Cause::MailboxFull, Some(600), 0), 60);
        let plain = RetrySchedule { greylisted: Vec::new(), ..schedule.clone() };
        assert_eq!(plain.wait(Words { cause: Cause::Greylisted, wait: None }, 1), Duration::from_secs(300));
    }
}
