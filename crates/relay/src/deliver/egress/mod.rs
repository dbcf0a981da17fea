//! Which source a connection comes from, and what each may send now.
//!
//! A source may rest, or have sent the messages of its day. Then it is *passed over*. Mail for
//! which all sources are passed over is tried again later.
//!
//! Or a source has no *room* within its limits. Then mail takes another one. Mail for which no
//! other is left waits, as for the limits of a site.

mod meter;
mod rests;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use posthaste_client::Target;
use posthaste_server::wire::EnhancedCode;
use tokio::time::Instant;
use tracing::warn;

use self::{meter::Meter, rests::Rests};
use crate::{Diagnostic, RestingSource, Source, SourceLimits, SourcePool, sites::SourceState, warm_up::Ledger};

/// How long a worker waits at most for room at a source. A source that is passed over now may be
/// back by then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often a source is drawn for one connection, beside once for each source: other workers may
/// take the room that it had.
const MORE_DRAWS: usize = 8;
/// The status of mail for which there is no source.
const UNREACHABLE: Option<EnhancedCode> = EnhancedCode::new(4, 4, 1);

/// What is known of sources.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    rests: Rests,
    pub(crate) ledger: Ledger,
    meter: Meter,
}

/// A site that messages go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct To<'t> {
    /// Its name.
    pub(super) site: &'t str,
    pub(super) limits: &'t SourceLimits,
    /// Its servers. Empty: they are not known.
    pub(super) targets: &'t [Target],
}

/// A connection from a source to a site. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) source: Arc<Source>,
    site: Box<str>,
    egress: Arc<Egress>,
}

/// Why there is no source for a connection.
#[derive(Debug)]
pub(super) enum NoSource {
    /// None has room. Look again then.
    Full(Instant),
    /// All are passed over, and this is why the first is.
    PassedOver(Diagnostic),
}

impl Egress {
    /// Draws a source for a connection, and counts the connection and a message. If the message
    /// does not leave, call [`give_back`](Self::give_back).
    pub(super) fn draw(
        self: &Arc<Self>,
        pool: &SourcePool,
        to: &To<'_>,
        random: &mut Rng,
    ) -> Result<Arc<Seat>, NoSource> {
        let now = Instant::now();
        let may = |source: &Source| {
            self.why_not(source, to).is_none() && self.meter.waits_until(source, to, true, now).is_none()
        };
        for _ in 0..pool.sources().count().saturating_add(MORE_DRAWS) {
            let Some(source) = pool.draw(random, may) else { break };
            if let Some(address) = source.missing() {
                warn!(source = source.name, %address, "this machine does not have the address, source left aside for a minute");
                let text = format!("this machine does not have the address {address} of source {}", source.name);
                let why = Diagnostic::own(UNREACHABLE, text);
                if !self.rests.unbindable(&source, why.clone()) {
                    return Err(NoSource::PassedOver(why));
                }
            } else if self.take(&source, to, true) {
                return Ok(Arc::new(Seat { source, site: to.site.into(), egress: Arc::clone(self) }));
            }
        }
        let mut why = None;
        for source in pool.sources() {
            match self.why_not(source, to) {
                Some(not) => why = why.or(Some(not)),
                None => {
                    let next = self.waits_for(pool, to, now).map_or(now, |(until, _)| until);
                    // What was there a moment ago may be there again.
                    return Err(NoSource::Full(next.max(now + Duration::from_millis(10))));
                }
            }
        }
        let none = || Diagnostic::own(UNREACHABLE, "the route has no source that can be used now");
        Err(NoSource::PassedOver(why.unwrap_or_else(none)))
    }

    /// Counts a message over a connection that a source has, or a connection too if it `connects`.
    /// Returns `false` if it may not begin now.
    pub(super) fn take(&self, source: &Source, to: &To<'_>, connects: bool) -> bool {
        if !self.meter.take(source, to, connects, Instant::now()) {
            return false;
        }
        let may = self.ledger.take(source, SystemTime::now());
        if !may {
            self.meter.give_back(source, to.site);
            if connects {
                self.meter.close(source, to.site);
            }
        }
        may
    }

    /// The message that was counted last did not leave.
    pub(super) fn give_back(&self, source: &Source, site: &str) {
        self.meter.give_back(source, site);
        self.ledger.give_back(source);
    }

    /// When a source may begin a message over a connection that it has. `None`: it is passed over.
    pub(super) fn sends_at(&self, source: &Source, to: &To<'_>, now: Instant) -> Option<Instant> {
        if self.why_not(source, to).is_some() {
            return None;
        }
        Some(self.meter.waits_until(source, to, false, now).unwrap_or(now))
    }

    /// When the first source has room for a message over a new connection. `None`: now, or all are
    /// passed over.
    pub(super) fn waits_until(&self, pool: &SourcePool, to: &To<'_>, now: Instant) -> Option<Instant> {
        self.waits_for(pool, to, now).map(|(until, _)| until)
    }

    /// When a worker that waits for one of these sources looks again.
    pub(super) fn wakes_at(&self, pool: &SourcePool, to: &To<'_>, now: Instant) -> Option<Instant> {
        let (until, source) = self.waits_for(pool, to, now)?;
        Some(self.meter.wakes_at(source, until, now).min(now + LONGEST_WAIT))
    }

    /// A site has blocked a source. Returns `true` if it rests there now.
    pub(super) fn blocked(&self, source: &Source, site: &str, why: Diagnostic) -> bool {
        warn!(source = source.name, site, diagnostic = %why, "source blocked by the site, rests there for an hour");
        self.rests.blocked(source, site, why)
    }

    /// The options have changed, and with them perhaps the addresses of this machine.
    pub(crate) fn look_again(&self) {
        self.rests.look_again();
    }

    pub(crate) fn resting(&self) -> Vec<RestingSource> {
        self.rests.states()
    }

    /// What sources have of their limits at a site.
    pub(super) fn states(&self, pool: &SourcePool, to: &To<'_>, now: Instant) -> Vec<SourceState> {
        let state = |source: &Arc<Source>| SourceState {
            source: source.name.clone(),
            connections: self.meter.open(source, to.site),
            limited: self.meter.waits_until(source, to, false, now).map(|until| until.saturating_duration_since(now)),
        };
        pool.sources().map(state).collect()
    }

    fn waits_for<'p>(&self, pool: &'p SourcePool, to: &To<'_>, now: Instant) -> Option<(Instant, &'p Source)> {
        let mut first: Option<(Instant, &Source)> = None;
        for source in pool.sources().filter(|source| self.why_not(source, to).is_none()) {
            let until = self.meter.waits_until(source, to, true, now)?;
            if first.is_none_or(|(known, _)| until < known) {
                first = Some((until, source));
            }
        }
        first.map(|(until, source)| (until.min(now + LONGEST_WAIT), source))
    }

    /// Why a source is passed over. `None`: it is not.
    fn why_not(&self, source: &Source, to: &To<'_>) -> Option<Diagnostic> {
        let text = source.why_not_to(to.targets).or_else(|| self.ledger.spent(source, SystemTime::now()));
        self.rests.why(source, to.site).or_else(|| Some(Diagnostic::own(UNREACHABLE, text?)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.egress.meter.close(&self.source, &self.site);
    }
}
