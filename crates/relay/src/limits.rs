//! How much each site may get.

use std::time::Duration;

use crate::{DomainPattern, domains::DomainMap};

/// How many in a time, as a token bucket: the count may come at once, and then one more each time
/// that the period divided by the count has passed.
///
/// ```
/// use std::time::Duration;
/// use posthaste_relay::Rate;
/// let rate = Rate::new(100, Duration::from_secs(60)).expect("neither is zero");
/// assert_eq!(rate.to_string(), "100/60s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    period: Duration,
}

impl Rate {
    /// The longest period: 24 hours.
    pub const LONGEST: Duration = Duration::from_secs(86_400);

    /// Makes a rate. A period above [`LONGEST`](Self::LONGEST) counts as that. `None`: the count or
    /// the period is zero.
    pub const fn new(count: u32, period: Duration) -> Option<Self> {
        if count == 0 || period.is_zero() {
            return None;
        }
        let period = if period.as_secs() < Self::LONGEST.as_secs() { period } else { Self::LONGEST };
        Some(Self { count, period })
    }

    /// The count.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The period.
    pub const fn period(self) -> Duration {
        self.period
    }

    /// The time after which there is one more, at least a nanosecond.
    pub(crate) fn step(self) -> Duration {
        self.period.checked_div(self.count).unwrap_or_default().max(Duration::from_nanos(1))
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{:?}", self.count, self.period)
    }
}

/// How much one site may get. A site has the mail of all domains that have the same mail hosts; see
/// [`NextHop::Mx`](crate::NextHop::Mx).
///
/// These are bounds, over all routes that lead to the same hosts. Below them the relay learns by
/// itself how much a site takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SiteLimits {
    /// Deliveries at once, each with its own connection. 0 counts as 1. Default `None`:
    /// [`concurrency_per_site`](crate::DeliveryOptions::concurrency_per_site).
    pub connections: Option<usize>,
    /// New connections in a time. Default `None`: any number. Kept connections take further
    /// messages. An attempt that goes to several hosts counts once.
    pub connects: Option<Rate>,
    /// Messages in a time. Default `None`: any number. A message that goes to several domains of
    /// the site counts for each of them, and each further attempt counts.
    pub messages: Option<Rate>,
    /// Recipients in a time. Default `None`: any number. A message begins when one more recipient
    /// may come, and takes as many as it has, so that one with more recipients than the count is
    /// delivered too. The messages after it wait until the average is right again.
    pub recipients: Option<Rate>,
    /// What each [source](crate::Source) may send here. Mail of routes without sources has no such
    /// limit. Default: any number.
    pub per_source: SourceLimits,
}

/// How much each source may send to one site. A source without room is passed over for the others
/// of its route. While all are, mail waits, and no attempt is counted.
///
/// They count by the name of the source and the [name](crate::SiteState::name) of the site, over
/// all routes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SourceLimits {
    /// Connections at once, with those that are kept for the next message. 0 counts as 1. Default
    /// `None`: any number. [`SiteLimits::connections`] bounds those of all sources together.
    pub connections: Option<usize>,
    /// Messages in a time, counted as in [`SiteLimits::messages`]. Default `None`: any number.
    pub messages: Option<Rate>,
}

impl SourceLimits {
    /// Returns `true` if there is none.
    pub(crate) const fn is_none(&self) -> bool {
        self.connections.is_none() && self.messages.is_none()
    }
}

/// The limits of sites by their hosts.
///
/// ```
/// use std::time::Duration;
/// use posthaste_relay::{Rate, SiteLimitTable, SiteLimits};
///
/// let mut few = SiteLimits::default();
/// few.connections = Some(5);
/// few.messages = Rate::new(100, Duration::from_secs(60));
/// let mut limits = SiteLimitTable::default();
/// // All domains whose mail hosts are in this one.
/// limits.push(["*.provider.example".parse()?], few);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct SiteLimitTable {
    entries: Vec<SiteLimits>,
    by_host: DomainMap<usize>,
}

impl SiteLimitTable {
    /// Adds limits for each site with a host that one of these patterns matches: a host that the
    /// DNS names for a domain, or one that a route names. Each site has limits of its own. If
    /// several entries match, the first counts. `*` matches every site that has hosts.
    pub fn push(&mut self, hosts: impl IntoIterator<Item = DomainPattern>, limits: SiteLimits) {
        let index = self.entries.len();
        hosts.into_iter().for_each(|host| self.by_host.add(&host, index));
        self.entries.push(limits);
    }

    /// The limits of a site with these hosts, in lower case and A-labels.
    pub(crate) fn of<'h>(&self, hosts: impl Iterator<Item = &'h str>) -> SiteLimits {
        if self.entries.is_empty() {
            return SiteLimits::default();
        }
        let first = hosts.filter_map(|host| self.by_host.find(&host.to_ascii_lowercase())).min();
        first.and_then(|index| self.entries.get(index)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize) -> SiteLimits {
        SiteLimits { connections: Some(connections), ..SiteLimits::default() }
    }

    #[test]
    fn the_first_entry_that_matches_a_host_counts() {
        let mut table = SiteLimitTable::default();
        table.push(["*.slow.test", "One.test"].map(|text| text.parse().unwrap()), limits(1));
        table.push(["mx.slow.test".parse().unwrap()], limits(2));
        table.push(["other.test".parse().unwrap()], limits(3));
        let of = |hosts: &[&str]| table.of(hosts.iter().copied()).connections;
        for (hosts, connections) in [
            (&["mx.slow.test"][..], Some(1)),
            (&["slow.test"], None),
            (&["ONE.test"], Some(1)),
            (&["other.test", "a.slow.test"], Some(1)),
            (&["none.test", "other.test"], Some(3)),
            (&[], None),
        ] {
            assert_eq!(of(hosts), connections, "{hosts:?}");
        }
        table.push(["*".parse().unwrap()], limits(4));
        assert_eq!(table.of(["none.test"].into_iter()), limits(4));
        assert_eq!(table.of(["other.test"].into_iter()), limits(3));
    }

    #[test]
    fn a_rate_has_a_count_and_a_period_of_a_day_at_most() {
        assert_eq!(Rate::new(0, Duration::from_secs(1)), None);
        assert_eq!(Rate::new(1, Duration::ZERO), None);
        assert_eq!(Rate::new(1, Duration::MAX).unwrap().period(), Rate::LONGEST);
        assert_eq!(Rate::new(u32::MAX, Duration::from_nanos(1)).unwrap().step(), Duration::from_nanos(1));
    }
}
