//! What is remembered of domains, within bounds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Found, MAX_AGE, Policy, PolicyId, Problem};

/// The most domains that are remembered, with a policy or without.
pub(super) const DOMAINS: usize = 10_000;
/// The most bytes of all policies, about.
const BYTES: usize = 64 << 20;
/// What a domain takes besides its policy, about.
const DOMAIN: usize = 1_024;
/// A policy counts for this long at least, or each message would fetch it again.
const MIN_AGE: Duration = Duration::from_secs(300);
/// A policy is fetched again after this time, or after half of its age. An attacker who stops the
/// fetches then has to do so for long (RFC 8461 section 3.3).
const RENEWAL: Duration = Duration::from_secs(86_400);

/// The domains. The lock is held for no wait.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Domains>);

#[derive(Debug, Default)]
struct Domains {
    slots: HashMap<Box<str>, Arc<Slot>>,
    /// Counts uses.
    now: u64,
}

/// What is remembered of one domain.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// Held by the one caller that asks the DNS and the policy host.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    kept: Option<Kept>,
    pub(super) problem: Option<Arc<Problem>>,
    /// When the DNS was asked last.
    checked: Option<Instant>,
    /// The id of a policy that could not be fetched, and when.
    pub(super) failed: Option<(PolicyId, Instant)>,
    used: u64,
}

/// A policy that counts until its end.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) policy: Arc<Policy>,
    pub(super) id: PolicyId,
    /// The bytes that it takes, about.
    size: usize,
    until: Instant,
    renew: Instant,
}

impl Cache {
    /// The slot of a domain, which is made if it is not there. The second value names domains that
    /// were forgotten for it.
    pub(super) fn slot(&self, domain: &str) -> (Arc<Slot>, Vec<Box<str>>) {
        let mut domains = self.lock();
        domains.now = domains.now.saturating_add(1);
        let now = domains.now;
        if let Some(slot) = domains.slots.get(domain) {
            slot.state().used = now;
            return (Arc::clone(slot), Vec::new());
        }
        let forgotten = if domains.slots.len() < DOMAINS { Vec::new() } else { domains.forget() };
        let slot = Arc::new(Slot::default());
        slot.state().used = now;
        domains.slots.insert(domain.into(), Arc::clone(&slot));
        (slot, forgotten)
    }

    /// Keeps a policy in the slot of a domain. It names domains that were forgotten for it.
    pub(super) fn keep(&self, slot: &Slot, kept: Kept) -> Vec<Box<str>> {
        slot.state().kept = Some(kept);
        self.restrict()
    }

    /// Keeps policies of an earlier run: as many as are remembered at most. It names domains that
    /// were forgotten.
    pub(super) fn load(&self, loaded: Vec<(String, Kept)>) -> Vec<Box<str>> {
        for (domain, kept) in loaded {
            self.slot(&domain).0.state().kept = Some(kept);
        }
        self.restrict()
    }

    fn restrict(&self) -> Vec<Box<str>> {
        let mut domains = self.lock();
        let size = |slot: &Arc<Slot>| slot.state().size();
        if domains.slots.values().map(size).sum::<usize>() <= BYTES { Vec::new() } else { domains.forget() }
    }

    fn lock(&self) -> MutexGuard<'_, Domains> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Domains {
    /// Forgets half of the domains: those without a policy first, then those that were not asked
    /// for the longest. So a stranger who names thousands of domains drives out few policies that
    /// are in use.
    fn forget(&mut self) -> Vec<Box<str>> {
        let rank = |slot: &Slot| {
            let state = slot.state();
            (state.kept.is_some(), state.used)
        };
        let mut ranks: Vec<_> = self.slots.values().map(|slot| rank(slot)).collect();
        let middle = ranks.len() / 2;
        if ranks.is_empty() {
            return Vec::new();
        }
        let limit = *ranks.select_nth_unstable(middle).1;
        self.slots.extract_if(|_, slot| rank(slot) < limit).map(|(domain, _)| domain).collect()
    }
}

impl Slot {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, if the DNS was asked within this time and no policy has ended since.
    pub(super) fn fresh(&self, within: Duration) -> Option<Found> {
        let (state, now) = (self.state(), Instant::now());
        let is_fresh = now.saturating_duration_since(state.checked?) < within;
        let has_ended = state.kept.is_some() && state.kept(now).is_none();
        (is_fresh && !has_ended).then(|| state.found(now))
    }

    /// Notes that the DNS was asked now, and what came of it.
    pub(super) fn checked(&self, change: impl FnOnce(&mut State)) -> Found {
        let (mut state, now) = (self.state(), Instant::now());
        change(&mut state);
        state.checked = Some(now);
        // Or each question would ask the DNS again.
        if state.kept(now).is_none() {
            state.kept = None;
        }
        state.found(now)
    }

    /// What is known, if a policy counts.
    pub(super) fn counting(&self) -> Option<Found> {
        let (state, now) = (self.state(), Instant::now());
        state.kept(now).is_some().then(|| state.found(now))
    }
}

impl State {
    /// The policy that counts now.
    pub(super) fn kept(&self, now: Instant) -> Option<&Kept> {
        self.kept.as_ref().filter(|kept| now < kept.until)
    }

    /// Returns `true` if the policy of this id has to be fetched now.
    pub(super) fn needs(&self, id: &PolicyId, pause: Duration) -> bool {
        let now = Instant::now();
        !self.has_failed(id, pause) && self.kept(now).is_none_or(|kept| kept.id != *id || kept.renew <= now)
    }

    /// Returns `true` if the policy of this id could not be fetched within this time.
    pub(super) fn has_failed(&self, id: &PolicyId, pause: Duration) -> bool {
        let failed = self.failed.as_ref().filter(|(failed, _)| failed == id);
        failed.is_some_and(|(_, at)| Instant::now().saturating_duration_since(*at) < pause)
    }

    pub(super) fn found(&self, now: Instant) -> Found {
        Found { policy: self.kept(now).map(|kept| Arc::clone(&kept.policy)), problem: self.problem.clone() }
    }

    fn size(&self) -> usize {
        DOMAIN.saturating_add(self.kept.as_ref().map_or(0, |kept| kept.size))
    }
}

impl Kept {
    /// A policy that was fetched this long ago. `None`: it does not count any more.
    pub(super) fn new(policy: Policy, id: PolicyId, ago: Duration) -> Option<Self> {
        let age = policy.max_age().clamp(MIN_AGE, MAX_AGE);
        let (left, now) = (age.checked_sub(ago).filter(|left| !left.is_zero())?, Instant::now());
        let renew = now + RENEWAL.min(age / 2).saturating_sub(ago);
        Some(Self { size: policy.size(), policy: Arc::new(policy), id, until: now + left, renew })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mx: usize, max_age: u64) -> Policy {
        let lines = format!("mx: {}.test\n", "a".repeat(50)).repeat(mx);
        Policy::parse(format!("version: STSv1\nmode: enforce\nmax_age: {max_age}\n{lines}").as_bytes()).unwrap()
    }

    fn kept(policy: Policy, ago: u64) -> Option<Kept> {
        Kept::new(policy, PolicyId::parse("1").unwrap(), Duration::from_secs(ago))
    }

    #[tokio::test(start_paused = true)]
    async fn domains_without_a_policy_are_forgotten_before_those_with_one() {
        let cache = Cache::default();
        let (first, _) = cache.slot("first.test");
        assert!(cache.keep(&first, kept(policy(1, 604_800), 0).unwrap()).is_empty());
        let mut forgotten = 0;
        for number in 0..3 * DOMAINS {
            forgotten += cache.slot(&format!("{number}.test")).1.len();
            assert!(cache.lock().slots.len() <= DOMAINS);
        }
        assert_eq!(forgotten + cache.lock().slots.len(), 3 * DOMAINS + 1);
        assert!(cache.slot("first.test").0.counting().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn large_policies_are_forgotten_and_the_last_used_stays() {
        let (cache, large) = (Cache::default(), policy(1_000, 604_800));
        let mut forgotten = Vec::new();
        for number in 0..1_500 {
            let (slot, none) = cache.slot(&format!("{number}.test"));
            assert!(none.is_empty());
            forgotten.extend(cache.keep(&slot, kept(large.clone(), 0).unwrap()));
            assert!(cache.slot("0.test").0.counting().is_some(), "{number}");
        }
        assert!(forgotten.len() > 300 && forgotten.iter().all(|domain| &**domain != "0.test"), "{}", forgotten.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_counts_until_its_end_and_is_due_before() {
        for (max_age, ago, left, due) in [
            (604_800, 0, Some(604_800), 86_400),
            (604_800, 3_600, Some(601_200), 82_800),
            (604_800, 604_799, Some(1), 0),
            (604_800, 604_800, None, 0),
            (604_800, u64::MAX, None, 0),
            (600, 0, Some(600), 300),
            (0, 0, Some(300), 150),
            (31_557_600, 0, Some(31_557_600), 86_400),
        ] {
            let (kept, now) = (kept(policy(1, max_age), ago), Instant::now());
            assert_eq!(kept.as_ref().map(|kept| (kept.until - now).as_secs()), left, "{max_age} {ago}");
            let Some(kept) = kept else { continue };
            assert_eq!((kept.renew - now).as_secs(), due, "{max_age} {ago}");
        }
    }
}
