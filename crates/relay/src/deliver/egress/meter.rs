//! What sources have sent lately, over all sites and at each, and the connections that they have.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{super::bucket::Bucket, LONGEST_WAIT, To};
use crate::{Rate, Source};

/// The counts that are kept: of sources, and of sources at sites. Beyond it those that will be full
/// again first are forgotten. A count takes about 150 bytes, so all take 5 MB. Counts of open
/// connections stay.
const COUNTS: usize = 32_768;
/// How long a site waits for a source whose connections there are all in use. Its own workers go on
/// by themselves: this is for connections that other routes have.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<State>);

#[derive(Debug)]
struct State {
    sources: HashMap<Box<str>, Count>,
    counts: usize,
    /// The number of counts at which some are forgotten.
    forget_at: usize,
}

/// What one source has sent.
#[derive(Debug, Default)]
struct Count {
    messages: Option<Bucket>,
    /// When the next site that waits for this source looks again.
    next_wake: Option<Instant>,
    sites: HashMap<Box<str>, AtSite>,
}

/// What one source has sent to one site.
#[derive(Debug, Default)]
struct AtSite {
    open: usize,
    messages: Option<Bucket>,
}

impl Default for State {
    fn default() -> Self {
        Self { sources: HashMap::new(), counts: 0, forget_at: COUNTS }
    }
}

impl Meter {
    /// When a source may begin a message. `connects`: it needs a new connection. `None`: now.
    pub(super) fn waits_until(&self, source: &Source, to: &To<'_>, connects: bool, now: Instant) -> Option<Instant> {
        self.state().waits_until(source, to, connects, now)
    }

    /// Counts a message, and a new connection if it `connects`. Returns `false` if there is no room
    /// for both: then neither is counted.
    pub(super) fn take(&self, source: &Source, to: &To<'_>, connects: bool, now: Instant) -> bool {
        if source.messages.is_none() && to.limits.messages.is_none() && !connects {
            return true;
        }
        let mut state = self.state();
        if state.waits_until(source, to, connects, now).is_some() {
            return false;
        }
        let (count, here) = state.count(source, to.site, now);
        here.open = here.open.saturating_add(connects.into());
        for (bucket, rate) in [(count, source.messages), (&mut here.messages, to.limits.messages)] {
            Bucket::fit(bucket, rate, now);
            if let Some(bucket) = bucket {
                bucket.take(1, now);
            }
        }
        true
    }

    /// The message that was counted last did not leave.
    pub(super) fn give_back(&self, source: &Source, site: &str) {
        let mut state = self.state();
        let Some(count) = state.sources.get_mut(&*source.name) else { return };
        let here = count.sites.get_mut(site).and_then(|here| here.messages.as_mut());
        here.into_iter().chain(&mut count.messages).for_each(Bucket::give_back);
    }

    /// A connection was closed.
    pub(super) fn close(&self, source: &Source, site: &str) {
        let now = Instant::now();
        let mut state = self.state();
        let State { sources, counts, .. } = &mut *state;
        let Some(count) = sources.get_mut(&*source.name) else { return };
        if let Some(here) = count.sites.get_mut(site) {
            here.open = here.open.saturating_sub(1);
            if here.open == 0 && here.messages.as_ref().is_none_or(|bucket| bucket.full_at() <= now) {
                count.sites.remove(site);
                *counts = counts.saturating_sub(1);
            }
        }
        if count.sites.is_empty() && count.messages.as_ref().is_none_or(|bucket| bucket.full_at() <= now) {
            sources.remove(&*source.name);
            *counts = counts.saturating_sub(1);
        }
    }

    /// When a site that waits for this source looks again. Each gets a time of its own, so that
    /// many of them do not look at once for one message.
    pub(super) fn wakes_at(&self, source: &Source, until: Instant, now: Instant) -> Instant {
        let mut state = self.state();
        let Some(count) = state.sources.get_mut(&*source.name) else { return until };
        let (Some(rate), Some(own)) = (source.messages, wait(&mut count.messages, source.messages, now)) else {
            return until;
        };
        let wake = own.max(count.next_wake.unwrap_or(own));
        if wake < now + LONGEST_WAIT {
            count.next_wake = Some(wake + rate.step());
        }
        wake.max(until)
    }

    /// The open connections of a source at a site.
    pub(super) fn open(&self, source: &Source, site: &str) -> usize {
        let state = self.state();
        let count = state.sources.get(&*source.name);
        count.and_then(|count| count.sites.get(site)).map_or(0, |here| here.open)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When one more may be taken at this rate. `None`: now.
fn wait(bucket: &mut Option<Bucket>, rate: Option<Rate>, now: Instant) -> Option<Instant> {
    Bucket::fit(bucket, rate, now);
    bucket.as_ref()?.waits_until(now)
}

impl State {
    fn waits_until(&mut self, source: &Source, to: &To<'_>, connects: bool, now: Instant) -> Option<Instant> {
        let count = self.sources.get_mut(&*source.name)?;
        let own = wait(&mut count.messages, source.messages, now);
        let Some(here) = count.sites.get_mut(to.site) else { return own };
        let is_full = connects && to.limits.connections.is_some_and(|most| here.open >= most.max(1));
        let connections = is_full.then(|| now + LOOK_AGAIN);
        own.max(wait(&mut here.messages, to.limits.messages, now)).max(connections)
    }

    /// The messages of a source over all sites, and its count at one. They are made if they are not
    /// there.
    fn count(&mut self, source: &Source, site: &str, now: Instant) -> (&mut Option<Bucket>, &mut AtSite) {
        if self.counts >= self.forget_at {
            self.forget(now);
        }
        let counts = &mut self.counts;
        let count = self.sources.entry(source.name.as_str().into()).or_insert_with(|| {
            *counts = counts.saturating_add(1);
            Count::default()
        });
        let here = count.sites.entry(site.into()).or_insert_with(|| {
            *counts = counts.saturating_add(1);
            AtSite::default()
        });
        (&mut count.messages, here)
    }

    /// Forgets what says nothing, and half of the rest if that is too little.
    fn forget(&mut self, now: Instant) {
        self.retain(|full_at| full_at > now);
        if self.counts > COUNTS / 2 {
            let at_sites = self.sources.values().flat_map(|count| count.sites.values());
            let buckets = at_sites.filter(|here| here.open == 0).filter_map(|here| here.messages.as_ref());
            let buckets = buckets.chain(self.sources.values().filter_map(|count| count.messages.as_ref()));
            let mut times: Vec<_> = buckets.map(Bucket::full_at).collect();
            let middle = times.len() / 2;
            if middle > 0 {
                let cut = *times.select_nth_unstable(middle).1;
                self.retain(|full_at| full_at > cut);
            }
        }
        self.forget_at = self.counts.saturating_mul(2).max(COUNTS);
    }

    /// Keeps the counts of open connections, and those that will be full at such a time.
    fn retain(&mut self, keeps: impl Fn(Instant) -> bool) {
        let is_kept = |bucket: &Option<Bucket>| bucket.as_ref().is_some_and(|bucket| keeps(bucket.full_at()));
        self.counts = 0;
        self.sources.retain(|_, count| {
            count.sites.retain(|_, here| here.open > 0 || is_kept(&here.messages));
            let is_left = !count.sites.is_empty() || is_kept(&count.messages);
            if is_left {
                self.counts = self.counts.saturating_add(1).saturating_add(count.sites.len());
            }
            is_left
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceLimits;

    fn to(site: &str) -> To<'_> {
        const ONE_A_DAY: SourceLimits =
            SourceLimits { connections: None, messages: Rate::new(1, Duration::from_secs(86_400)) };
        To { site, limits: &ONE_A_DAY, targets: &[] }
    }

    fn counts(meter: &Meter) -> usize {
        let state = meter.state();
        let counts = state.sources.values().map(|count| 1 + count.sites.len()).sum();
        assert_eq!(state.counts, counts);
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn the_counts_are_bounded_and_open_connections_stay() {
        let (meter, source) = (Meter::default(), Source::new("a"));
        assert!(meter.take(&source, &to("open"), true, Instant::now()));
        let mut most = 0;
        for index in 0..3 * COUNTS {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(meter.take(&source, &to(&index.to_string()), false, Instant::now()));
            most = most.max(meter.state().counts);
        }
        assert!((COUNTS..=COUNTS + 1).contains(&most) && counts(&meter) <= COUNTS, "{most}");
        let latest = (3 * COUNTS - 1).to_string();
        assert!(meter.waits_until(&source, &to(&latest), false, Instant::now()).is_some(), "the first are forgotten");
        assert_eq!(meter.open(&source, "open"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_more_is_forgotten_with_the_last_connection() {
        let (meter, mut source) = (Meter::default(), Source::new("a"));
        source.messages = Rate::new(1, Duration::from_secs(60));
        for site in ["one", "other"] {
            assert!(meter.take(&source, &to(site), true, Instant::now()));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        meter.close(&source, "one");
        assert_eq!((counts(&meter), meter.open(&source, "one"), meter.open(&source, "other")), (3, 0, 1));
        tokio::time::advance(Duration::from_secs(86_400)).await;
        meter.close(&source, "other");
        assert_eq!(counts(&meter), 2, "the site that was left earlier is still counted");
        // Nothing is there to close.
        meter.close(&source, "unknown");
        meter.give_back(&source, "unknown");
    }

    /// Otherwise all of them would look for each message.
    #[tokio::test(start_paused = true)]
    async fn sites_that_wait_for_one_source_look_again_one_after_another() {
        let (meter, mut source, now) = (Meter::default(), Source::new("a"), Instant::now());
        source.messages = Rate::new(10, Duration::from_secs(10));
        let free = SourceLimits::default();
        let any = |site| To { site, limits: &free, targets: &[] };
        let taken = (0..100).take_while(|_| meter.take(&source, &any("one"), false, now)).count();
        assert_eq!(taken, 10);
        let until = meter.waits_until(&source, &any("two"), false, now).unwrap();
        let waits: Vec<_> = (0..100).map(|_| (meter.wakes_at(&source, until, now) - now).as_secs()).collect();
        assert_eq!(waits[..60], (1..=60).collect::<Vec<_>>());
        assert!(waits[60..].iter().all(|wait| *wait == 60), "{waits:?}");
    }
}
