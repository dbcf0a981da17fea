//! What the relay knows of its sites, for an operator.

use std::time::Duration;

use crate::{Cause, Diagnostic, SiteLimits};

/// A site, the next hop that some of the mail goes to: how much it takes, as it has taught the
/// relay. It is in memory alone, and is learnt again after each start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SiteState {
    /// The first host of its route, or its agent. If hosts are found by MX: the one that its first
    /// domain prefers; or the domain, if it has no host.
    pub name: String,
    /// The domains that have these mail hosts, as far as their look-ups are kept: at most 32,768
    /// of all sites. `None`: the route names the hosts, and the domains are not counted.
    pub domains: Option<usize>,
    /// The most connections that it may have now. Begins at 5, and grows to
    /// [`concurrency_per_site`](crate::DeliveryOptions::concurrency_per_site) while it takes mail.
    pub window: usize,
    /// Deliveries under way, each with its connection.
    pub open: usize,
    /// The rest that it has asked for. `None`: it takes mail, as far as the relay knows.
    pub resting: Option<Resting>,
    /// Messages a minute that it gets at most. `None`: it has not refused mail for having had
    /// enough, or that was long ago.
    pub rate: Option<f64>,
    /// What the configuration lets it have.
    pub limits: SiteLimits,
    /// The time until these limits, and those of its sources, let the next delivery begin. `None`:
    /// they do not hold it back.
    pub limited: Option<Duration>,
    /// What the [sources](crate::Route::sources) of its route have of their limits.
    pub sources: Vec<SourceState>,
    /// Classes that are due: deliveries of the same domain, priority and owner. A class may have
    /// any number of deliveries.
    pub due: usize,
}

/// What a source of a site has of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceState {
    /// Its [name](crate::Source::name).
    pub source: String,
    /// Its open connections to the site, with those that are kept for the next message.
    pub connections: usize,
    /// The time until its rates let it begin another message here: that over all sites, and that of
    /// the site. `None`: they do not hold it back.
    pub limited: Option<Duration>,
}

/// A site takes no mail for now. Its deliveries stay due, and no attempt is counted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resting {
    /// The time until it is asked again.
    pub left: Duration,
    /// Why, as its words tell.
    pub cause: Cause,
    /// Its words.
    pub why: Diagnostic,
}

impl Resting {
    pub(crate) const fn new(left: Duration, cause: Cause, why: Diagnostic) -> Self {
        Self { left, cause, why }
    }
}
