//! Bounds the reports about messages from clients that are not trusted. A stranger can name any
//! sender, and then every report is unwanted mail for that sender.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The budget of each sender that clients have named: a number of reports an hour. Each
/// report has no more octets than its message, or than a [small](SMALL) one. All of them have no
/// more octets than came in the sender's name, and [`OCTETS`] an hour.
#[derive(Debug)]
pub(crate) struct Budget {
    hash: RandomState,
    /// By the hash of the sender. Senders with the same hash share one account.
    senders: Mutex<Senders>,
}

#[derive(Debug, Default)]
struct Senders {
    accounts: HashMap<u64, Account>,
    /// When full accounts were last searched for.
    swept: Option<Instant>,
}

/// What is left for one sender.
#[derive(Debug, Clone, Copy)]
struct Account {
    reports: f64,
    octets: f64,
    at: Instant,
}

/// The permission to write one report.
#[derive(Debug)]
#[must_use = "give back what the report does not use"]
pub(crate) struct Grant {
    sender: u64,
    /// The most octets of the report.
    pub(crate) octets: usize,
}

/// The octets that a report may have even if its message is smaller.
const SMALL: f64 = 2_048.0;
/// Octets an hour beyond those that came in, for reports that are larger than their messages.
const OCTETS: f64 = 16_384.0;
const HOUR: Duration = Duration::from_secs(3_600);
/// The most senders that are remembered. Beyond it all others share one account, which a flood of
/// senders soon empties.
const SENDERS: usize = 10_000;
const OTHERS: u64 = 0;
const SWEEP: Duration = Duration::from_secs(60);

impl Budget {
    /// Makes a budget for senders that have had no report.
    pub(crate) fn new() -> Self {
        Self { hash: RandomState::new(), senders: Mutex::default() }
    }

    /// Takes a report for a sender that may have this number of reports an hour, about a message of
    /// `came_in` octets. `None`: the sender has had its share.
    pub(crate) fn take(&self, reports: u32, sender: &str, came_in: u64) -> Option<Grant> {
        let hash = self.hash.hash_one(sender.to_ascii_lowercase());
        let full = f64::from(reports);
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

    /// Gives back the octets that a report did not use. `None`: no report was written, and the
    /// report itself is given back.
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
    /// Forgets full accounts if there are as many as may be, at most once a minute.
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

    /// A budget with a number of reports an hour.
    struct Hourly(Budget, u32);

    impl Hourly {
        fn new(reports: u32) -> Self {
            Self(Budget::new(), reports)
        }
    }

    fn report(Hourly(budget, reports): &Hourly, sender: &str, came_in: u64, size: usize) -> bool {
        let Some(grant) = budget.take(*reports, sender, came_in) else { return false };
        let fits = size <= grant.octets;
        budget.give_back(grant, fits.then_some(size));
        fits
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_gets_its_number_of_reports_an_hour() {
        let budget = Hourly::new(10);
        let reported = |count| (0..count).filter(|_| report(&budget, "Me@sender.test", 5_000, 2_000)).count();
        assert_eq!(reported(50), 10);
        assert!(report(&budget, "you@sender.test", 5_000, 2_000), "another sender has its own budget");
        assert!(!report(&budget, "me@SENDER.test", 5_000, 2_000), "the same sender in other case has none");
        tokio::time::advance(HOUR / 2).await;
        assert_eq!(reported(50), 5);
        tokio::time::advance(HOUR * 9).await;
        assert_eq!(reported(50), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_have_no_more_octets_than_came_in_and_an_allowance() {
        let budget = Hourly::new(1_000_000);
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
    async fn a_report_is_not_larger_than_its_message_unless_it_is_small() {
        for (came_in, size, may) in
            [(0, 2_048, true), (0, 2_049, false), (3_000, 3_000, true), (3_000, 3_001, false), (1 << 40, 1 << 30, true)]
        {
            assert_eq!(report(&Hourly::new(10), "me@x", came_in, size), may, "{came_in} {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_senders_is_remembered_in_bounds() {
        let budget = Hourly::new(5);
        let reported = (0..3 * SENDERS).filter(|n| report(&budget, &format!("{n}@x"), 5_000, 2_000)).count();
        assert!(reported <= SENDERS + 5, "{reported}");
        assert!(budget.0.senders().accounts.len() <= SENDERS + 1);
        tokio::time::advance(HOUR).await;
        assert!(report(&budget, "late@x", 5_000, 2_000));
    }
}
