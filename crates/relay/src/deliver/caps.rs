//! The configured limits of a site over time. What it has taught is
//! [`Throttle`](super::throttle::Throttle).
//!
//! What a site has had counts over all routes that lead to it, and over a change of the options:
//! sites with the same hosts share it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::bucket::Bucket;
use crate::SiteLimits;

/// What a site has had of what it may get. Without limits this does nothing.
#[derive(Debug)]
pub(super) struct Caps {
    limits: SiteLimits,
    /// Its hosts.
    name: Box<str>,
    table: Arc<CapsTable>,
    /// `None`: it has no limits over time.
    had: Option<Arc<Mutex<Had>>>,
}

/// What the sites with the same hosts have had.
#[derive(Debug, Default)]
struct Had {
    connects: Option<Bucket>,
    messages: Option<Bucket>,
    recipients: Option<Bucket>,
    /// Deliveries under way.
    open: usize,
}

/// What sites with limits have had, by their hosts.
#[derive(Debug, Default)]
pub(crate) struct CapsTable(Mutex<HashMap<Box<str>, Arc<Mutex<Had>>>>);

/// The most sets of hosts that are counted together. The routes of further ones count apart.
const HOSTS: usize = 8_192;
/// How soon a site looks again for a place that deliveries of another route have.
const AGAIN: Duration = Duration::from_millis(100);

impl CapsTable {
    fn of(&self, name: &str, now: Instant) -> Arc<Mutex<Had>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(had) = table.get(name) {
            return Arc::clone(had);
        }
        if table.len() >= HOSTS {
            table.retain(|_, had| Arc::strong_count(had) > 1 || lock(had).says_something(now));
        }
        let had = Arc::default();
        if table.len() < HOSTS {
            table.insert(name.into(), Arc::clone(&had));
        }
        had
    }
}

impl Had {
    /// Takes other limits over. What was had still counts.
    fn set(&mut self, limits: &SiteLimits, now: Instant) {
        Bucket::fit(&mut self.connects, limits.connects, now);
        Bucket::fit(&mut self.messages, limits.messages, now);
        Bucket::fit(&mut self.recipients, limits.recipients, now);
    }

    fn says_something(&self, now: Instant) -> bool {
        let buckets = [&self.connects, &self.messages, &self.recipients];
        self.open > 0 || buckets.into_iter().flatten().any(|bucket| bucket.full_at() > now)
    }
}

fn lock(had: &Mutex<Had>) -> MutexGuard<'_, Had> {
    had.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Caps {
    /// The limits of the site with these hosts.
    pub(super) fn new(limits: SiteLimits, name: Box<str>, table: &Arc<CapsTable>, now: Instant) -> Self {
        let mut caps = Self { limits: SiteLimits::default(), name, table: Arc::clone(table), had: None };
        caps.set(limits, now);
        caps
    }

    /// Counts in this table from now on.
    pub(super) fn share(&mut self, table: &Arc<CapsTable>, now: Instant) {
        *self = Self::new(self.limits.clone(), std::mem::take(&mut self.name), table, now);
    }

    /// Takes other limits over. What the site has had still counts.
    pub(super) fn set(&mut self, limits: SiteLimits, now: Instant) {
        let SiteLimits { connections, connects, messages, recipients, per_source: _ } = &limits;
        let has_any = connections.is_some() || connects.is_some() || messages.is_some() || recipients.is_some();
        match has_any {
            true => lock(self.had.get_or_insert_with(|| self.table.of(&self.name, now))).set(&limits, now),
            // The deliveries under way end with the sites that still count them.
            false => self.had = None,
        }
        self.limits = limits;
    }

    pub(super) const fn limits(&self) -> &SiteLimits {
        &self.limits
    }

    fn had(&self) -> Option<MutexGuard<'_, Had>> {
        self.had.as_deref().map(lock)
    }

    /// When the next message may begin. `connects`: it needs a new connection. `None`: now.
    pub(super) fn waits_until(&self, connects: bool, now: Instant) -> Option<Instant> {
        let had = self.had()?;
        let connects = had.connects.as_ref().filter(|_| connects);
        let buckets = [connects, had.messages.as_ref(), had.recipients.as_ref()];
        let next = buckets.into_iter().flatten().filter_map(|bucket| bucket.waits_until(now)).max();
        let is_full = self.limits.connections.is_some_and(|most| had.open >= most.max(1));
        next.max(is_full.then(|| now + AGAIN))
    }

    /// Returns `true` if a connection may be made now.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        let waits = |had: &Had| had.connects.as_ref().is_some_and(|connects| connects.waits_until(now).is_some());
        !self.had().is_some_and(|had| waits(&had))
    }

    /// A message begins. Returns what counts it as under way.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Open> {
        let had = self.had.as_ref()?;
        let mut counts = lock(had);
        if let Some(messages) = &mut counts.messages {
            messages.take(1, now);
        }
        counts.open = counts.open.saturating_add(1);
        Some(Open(Arc::clone(had)))
    }

    /// There was no message to begin.
    pub(super) fn give_back(&mut self) {
        if let Some(messages) = self.had().as_mut().and_then(|had| had.messages.as_mut()) {
            messages.give_back();
        }
    }

    /// The message that has begun has this number of recipients.
    pub(super) fn name(&mut self, recipients: usize, now: Instant) {
        if let Some(bucket) = self.had().as_mut().and_then(|had| had.recipients.as_mut()) {
            bucket.take(u32::try_from(recipients).unwrap_or(u32::MAX), now);
        }
    }

    /// A connection is begun. Returns `true` if that is counted.
    pub(super) fn connect(&mut self, now: Instant) -> bool {
        let mut had = self.had();
        had.as_mut().and_then(|had| had.connects.as_mut()).map(|connects| connects.take(1, now)).is_some()
    }

    /// The connection was not needed.
    pub(super) fn not_connected(&mut self) {
        if let Some(connects) = self.had().as_mut().and_then(|had| had.connects.as_mut()) {
            connects.give_back();
        }
    }
}

/// A delivery that is under way. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<Mutex<Had>>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut had = lock(&self.0);
        had.open = had.open.saturating_sub(1);
    }
}
