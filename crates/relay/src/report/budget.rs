//! How much is reported to senders that may be somebody else: whoever sends a message can name any
//! sender, and every report is mail that this sender has not asked for.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// For each sender that clients without trust have named: reports an hour, each with no more octets
/// than its message had or a [small](SMALL) one takes, and all of them with no more than what came
/// in its name and [`OCTETS`] an hour.
#[derive(Debug)]
pub(crate) struct Budget {
    hash: RandomState,
    /// By the hash of the sender. Some may share one: then they share what there is.
    senders: Mutex<Senders>,
    reports: u32,
}

#[derive(Debug, Default)]
struct Senders {
    accounts: HashMap<u64, Account>,
    /// When those that have everything again were looked for.
    swept: Option<Instant>,
}

/// What is left for a sender.
#[derive(Debug, Clone, Copy)]
struct Account {
    reports: f64,
    octets: f64,
    at: Instant,
}

/// A report may be written.
#[derive(Debug)]
#[must_use = "what it does not need is to be given back"]
pub(crate) struct Grant {
    sender: u64,
    /// With at most so many octets.
    pub(crate) octets: usize,
}

/// Octets of a report that a message smaller than it may cause: what a small one takes.
const SMALL: f64 = 2_048.0;
/// Octets an hour beyond those that came in, for small reports on messages that are smaller still.
const OCTETS: f64 = 16_384.0;
const HOUR: Duration = Duration::from_secs(3_600);
/// Senders that are remembered. Beyond it the others share one account, which is soon empty: a
/// flood of senders.
const SENDERS: usize = 10_000;
const OTHERS: u64 = 0;
const SWEEP: Duration = Duration::from_secs(60);

impl Budget {
    /// With so many reports an hour for each sender.
    pub(crate) fn new(reports: u32) -> Self {
        Self { hash: RandomState::new(), senders: Mutex::default(), reports }
    }

    /// Takes what there is for a report to this sender on a message of so many octets, if there is
    /// anything.
    pub(crate) fn take(&self, sender: &str, came_in: u64) -> Option<Grant> {
        let hash = self.hash.hash_one(sender.to_ascii_lowercase());
        let full = f64::from(self.reports);
        let now = Instant::now();
        let mut senders = self.senders();
        senders.make_room(now);
        let Senders { accounts, .. } = &mut *senders;
        let has_room = accounts.len() < SENDERS || accounts.contains_key(&hash);
        let sender = if has_room { hash } else { OTHERS };
        let account = accounts.entry(sender).or_insert(Account { reports: full, octets: OCTETS, at: now });
        let hours = now.saturating_duration_since(account.at).as_secs_f64() / HOUR.as_secs_f64();
        account.at = now;
        account.reports = (account.reports + hours * full).min(full);
        account.octets = (account.octets + hours * OCTETS).min(OCTETS);
        if account.reports < 1.0 {
            return None;
        }
        account.reports -= 1.0;
        let came_in = came_in as f64;
        let octets = came_in.max(SMALL.min(came_in + account.octets));
        account.octets = (account.octets + came_in - octets).min(OCTETS);
        Some(Grant { sender, octets: octets as usize })
    }

    /// Gives back what a report of so many octets has left. [`None`]: none was written.
    pub(crate) fn give_back(&self, grant: Grant, used: Option<usize>) {
        let mut senders = self.senders();
        let Some(account) = senders.accounts.get_mut(&grant.sender) else { return };
        let left = grant.octets.saturating_sub(used.unwrap_or_default()) as f64;
        account.octets = (account.octets + left).min(OCTETS);
        if used.is_none() {
            account.reports += 1.0;
        }
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Senders {
    /// Forgets those that have everything again, when there are as many as may be, and at most once
    /// a minute.
    fn make_room(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.accounts.len() >= SENDERS && is_due {
            self.accounts.retain(|_, account| account.at + HOUR > now);
            self.swept = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(budget: &Budget, sender: &str, came_in: u64, size: usize) -> bool {
        let Some(grant) = budget.take(sender, came_in) else { return false };
        let fits = size <= grant.octets;
        budget.give_back(grant, fits.then_some(size));
        fits
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_gets_so_many_reports_an_hour() {
        let budget = Budget::new(10);
        let reported = |count| (0..count).filter(|_| report(&budget, "Me@sender.test", 5_000, 2_000)).count();
        assert_eq!(reported(50), 10);
        assert!(report(&budget, "you@sender.test", 5_000, 2_000), "somebody else is not concerned");
        assert!(!report(&budget, "me@SENDER.test", 5_000, 2_000), "the same one in other letters is");
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(reported(50), 5);
        tokio::time::advance(HOUR * 9).await;
        assert_eq!(reported(50), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_octets_leave_than_came_in_and_an_allowance() {
        let budget = Budget::new(1_000_000);
        for (came_in, size) in [(10, 1_500), (1_000, 1_500), (1_500, 1_500), (100_000, 1_500), (0, 2_000)] {
            let sender = format!("{came_in}@sender.test");
            let (mut came, mut left) = (0, 0);
            for _ in 0..500 {
                came += came_in;
                left += if report(&budget, &sender, came_in, size) { size } else { 0 };
            }
            assert!(left as u64 <= came + 16_384, "{came_in} {size}: {left}");
            assert!(left > 0, "{came_in} {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_report_is_larger_than_its_message_unless_it_is_small() {
        for (came_in, size, may) in
            [(0, 2_048, true), (0, 2_049, false), (3_000, 3_000, true), (3_000, 3_001, false), (1 << 40, 1 << 30, true)]
        {
            assert_eq!(report(&Budget::new(10), "me@x", came_in, size), may, "{came_in} {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_senders_is_remembered_in_bounds() {
        let budget = Budget::new(5);
        let reported = (0..3 * SENDERS).filter(|n| report(&budget, &format!("{n}@x"), 5_000, 2_000)).count();
        assert!(reported <= SENDERS + 5, "{reported}");
        assert!(budget.senders().accounts.len() <= SENDERS + 1);
        tokio::time::advance(HOUR).await;
        assert!(report(&budget, "late@x", 5_000, 2_000));
    }
}
