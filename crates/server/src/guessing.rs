//! Limits on guessing passwords, by network and by name.
//!
//! Every attempt to log in is charged to its network and to its name. A login that succeeds gives
//! the charge back. After more failures than the [burst](LoginOptions::burst), attempts are checked
//! one at a time, [`pace`](LoginOptions::pace) apart. The password is checked only then: a right
//! one takes as long as a wrong one, so a client cannot guess faster by ignoring replies.
//!
//! Strangers cannot lock the owner of a name out. A name alone only delays, for a bounded time. A
//! network refuses when too many of its attempts wait. A name that has logged in from that network
//! before does not wait until it has failures of its own.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hash},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{content::after, expiring::Expiring};

/// How fast passwords may be guessed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoginOptions {
    /// The number of failed logins of a network, or under a name, that cost no wait. Beyond it
    /// attempts are checked one at a time, [`pace`](Self::pace) apart. Default 10: a few people who
    /// each have an old password. After each `pace` one failure is forgotten.
    pub burst: u32,
    /// The time between attempts beyond the burst. Default 2 seconds: one network tries at most
    /// 43,000 passwords a day. Zero switches the limit off.
    pub pace: Duration,
    /// How long an attempt may wait before it is checked. Default 30 seconds: mail programs wait
    /// that long for a reply. Beyond it, if its network has had too many failures: 421 4.7.0 and
    /// the end of the connection. If only its name has had them, the attempt is checked after this
    /// time.
    pub wait: Duration,
}

impl Default for LoginOptions {
    fn default() -> Self {
        Self { burst: 10, pace: Duration::from_secs(2), wait: Duration::from_secs(30) }
    }
}

/// Recent failures to log in. Remembers at most [`MOST`] networks, names, and pairs of both.
#[derive(Debug)]
pub(crate) struct Guessing {
    options: LoginOptions,
    /// Hashes names with a key of this process: 8 bytes each, whatever a stranger sends.
    hasher: RandomState,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    /// When the failures of a network are forgotten. Attempts that wait count as failures.
    networks: Table<IpAddr>,
    names: Table<u64>,
    /// The same for a name in a network that it has logged in from.
    known: Table<(IpAddr, u64)>,
}

type Table<K> = Expiring<K>;

/// The most entries of a table: about 1 MiB for the three tables. Beyond it, the quarter that would
/// be forgotten first goes.
const MOST: usize = 8_192;

/// How long a name is known in a network after its last login.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An attempt that is charged.
#[derive(Debug)]
pub(crate) struct Attempt {
    network: IpAddr,
    name: Option<u64>,
    /// How long the attempt has to wait for its turn.
    pub(crate) wait: Duration,
    is_known: bool,
}

impl Guessing {
    pub(crate) fn new(options: LoginOptions) -> Self {
        let tables = Tables { networks: Table::new(MOST), names: Table::new(MOST), known: Table::new(MOST) };
        Self { options, hasher: RandomState::new(), tables: Mutex::new(tables) }
    }

    /// Charges an attempt to log in, to its name too if the mechanism has one. `None`: too many
    /// attempts of its network wait.
    pub(crate) fn begin(&self, network: IpAddr, name: Option<&str>) -> Option<Attempt> {
        let now = Instant::now();
        let name = name.map(|name| self.hasher.hash_one(name));
        let mut tables = self.tables();
        if let Some(key) = name.map(|name| (network, name))
            && let Some((until, ())) = tables.known.get(&key, now)
            // Its failures are added to the time for which it is known, so they need no table of
            // their own.
            && until.saturating_duration_since(now).saturating_sub(KNOWN) < self.burst()
        {
            charge(&mut tables.known, key, now, self.options.pace, KNOWN);
            return Some(Attempt { network, name, wait: Duration::ZERO, is_known: true });
        }
        let wait = self.wait(&tables.networks, &network, now);
        if wait > self.options.wait {
            return None;
        }
        let by_name = name.map_or(Duration::ZERO, |name| self.wait(&tables.names, &name, now));
        charge(&mut tables.networks, network, now, self.options.pace, Duration::ZERO);
        if let Some(name) = name
            && by_name <= self.options.wait
        {
            charge(&mut tables.names, name, now, self.options.pace, Duration::ZERO);
        }
        Some(Attempt { network, name, wait: wait.max(by_name.min(self.options.wait)), is_known: false })
    }

    /// Gives the charge back: the login has succeeded, or could not be checked.
    pub(crate) fn forgive(&self, attempt: &Attempt, has_logged_in: bool) {
        let now = Instant::now();
        let mut tables = self.tables();
        let Attempt { network, name, is_known, .. } = *attempt;
        if is_known {
            if let Some(name) = name {
                give_back(&mut tables.known, (network, name), now, self.options.pace);
            }
        } else {
            give_back(&mut tables.networks, network, now, self.options.pace);
            if let Some(name) = name {
                give_back(&mut tables.names, name, now, self.options.pace);
            }
        }
        if let (true, Some(name)) = (has_logged_in, name) {
            let until = tables.known.get(&(network, name), now);
            let until = until.map_or(now + KNOWN, |(until, ())| until.max(now + KNOWN));
            tables.known.insert((network, name), (), until, now);
        }
    }

    fn wait<K: Eq + Hash>(&self, table: &Table<K>, key: &K, now: Instant) -> Duration {
        let charged = table.get(key, now).map_or(Duration::ZERO, |(until, ())| until.saturating_duration_since(now));
        // The next attempt would be one more than the burst.
        charged.saturating_add(self.options.pace).saturating_sub(self.burst())
    }

    fn burst(&self) -> Duration {
        self.options.pace.saturating_mul(self.options.burst)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn charge<K: Eq + Hash>(table: &mut Table<K>, key: K, now: Instant, pace: Duration, beyond: Duration) {
    let least = after(now, beyond);
    let until = after(table.get(&key, now).map_or(least, |(until, ())| until.max(least)), pace);
    table.insert(key, (), until, now);
}

fn give_back<K: Eq + Hash>(table: &mut Table<K>, key: K, now: Instant, pace: Duration) {
    if let Some((until, ())) = table.get(&key, now) {
        table.insert(key, (), until.checked_sub(pace).unwrap_or(until), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn guessing() -> Guessing {
        Guessing::new(LoginOptions::default())
    }

    /// Fails several times at once.
    fn fail(guessing: &Guessing, from: u32, name: &str, times: u32) {
        for _ in 0..times {
            assert!(guessing.begin(network(from), Some(name)).is_some());
        }
    }

    fn wait(guessing: &Guessing, from: u32, name: &str) -> Option<u64> {
        let attempt = guessing.begin(network(from), Some(name))?;
        guessing.forgive(&attempt, false);
        Some(attempt.wait.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn failures_beyond_the_burst_take_their_turns_and_too_many_are_refused() {
        let guessing = guessing();
        for n in 0..10 {
            assert_eq!(wait(&guessing, 1, "me"), Some(0), "{n}");
            fail(&guessing, 1, "me", 1);
        }
        for n in 0..15 {
            assert_eq!(wait(&guessing, 1, "me"), Some(2 * (n + 1)));
            fail(&guessing, 1, "me", 1);
        }
        assert_eq!(wait(&guessing, 1, "me"), None);
        assert_eq!(wait(&guessing, 1, "another name"), None);
        // Failures are forgotten one by one.
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(wait(&guessing, 1, "me"), Some(12));
        tokio::time::advance(12 * SECOND).await;
        assert_eq!(wait(&guessing, 1, "me"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_succeeds_costs_nothing() {
        let guessing = guessing();
        for _ in 0..1_000 {
            let attempt = guessing.begin(network(1), Some("me")).unwrap();
            assert_eq!(attempt.wait, Duration::ZERO);
            guessing.forgive(&attempt, true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_delayed_by_strangers_and_never_locked_out() {
        let guessing = guessing();
        let attempt = guessing.begin(network(1), Some("me")).unwrap();
        guessing.forgive(&attempt, true);
        for stranger in 2..100 {
            fail(&guessing, stranger, "me", 10);
        }
        // From where it has logged in: at once. From a new place: after a while.
        assert_eq!(wait(&guessing, 1, "me"), Some(0));
        assert_eq!(wait(&guessing, 500, "me"), Some(30));
        assert_eq!(wait(&guessing, 500, "another"), Some(0));
        // Nor do strangers in the same network delay it.
        fail(&guessing, 1, "another", 10);
        while guessing.begin(network(1), Some("another")).is_some() {}
        assert_eq!(wait(&guessing, 1, "me"), Some(0));
        // Unless they guess at this name.
        fail(&guessing, 1, "me", 10);
        assert_eq!(wait(&guessing, 1, "me"), None);
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(wait(&guessing, 1, "me"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_tables_are_bounded_and_forget_the_mildest_first() {
        let guessing = guessing();
        fail(&guessing, 0, "victim", 20);
        for stranger in 1..30_000 {
            fail(&guessing, stranger, &format!("name {stranger}"), 1);
            let attempt = guessing.begin(network(stranger), Some("good")).unwrap();
            guessing.forgive(&attempt, true);
        }
        {
            let tables = guessing.tables();
            for entries in [tables.networks.len(), tables.names.len(), tables.known.len()] {
                assert!((MOST / 2..=MOST).contains(&entries), "{entries}");
            }
        }
        assert_eq!(wait(&guessing, 0, "victim"), Some(22));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_of_zero_switches_it_off() {
        let guessing = Guessing::new(LoginOptions { pace: Duration::ZERO, ..LoginOptions::default() });
        fail(&guessing, 1, "me", 1_000);
        assert_eq!(wait(&guessing, 1, "me"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_none_paces_from_the_first() {
        let guessing = Guessing::new(LoginOptions { burst: 0, ..LoginOptions::default() });
        assert_eq!(wait(&guessing, 1, "me"), Some(2));
    }
}
