//! The sources of a site's route: when one of them has room for the next message.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        connect::Connected,
        egress::{Egress, To},
    },
    Site, State,
};
use crate::{NextHop, Source, SourceLimits, SourcePool, SourceState};

/// The connection that a worker has.
#[derive(Debug, Clone, Copy)]
pub(in crate::deliver) enum Held<'c> {
    Nothing,
    /// A connection from this source. `None`: it has no source.
    Connection(Option<&'c Source>),
}

impl<'c> Held<'c> {
    pub(in crate::deliver) fn of(connection: Option<&'c Connected>) -> Self {
        connection.map_or(Self::Nothing, |connected| Self::Connection(connected.from()))
    }
}

impl Site {
    /// Its connections come from sources that are counted here.
    pub(in crate::deliver) fn sent_from(self, egress: &Arc<Egress>) -> Self {
        Self { egress: Arc::clone(egress), ..self }
    }

    /// What each source may send here.
    pub(in crate::deliver) fn source_limits(&self) -> SourceLimits {
        self.state().caps.limits().per_source
    }

    /// No source had room for a message that was claimed: none has before this time.
    pub(in crate::deliver) fn has_no_source(&self, until: Instant) {
        self.state().no_source = Some(until);
    }

    /// When the configured limits let the next delivery of a worker begin. `None`: now.
    pub(super) fn limited_until(&self, state: &State, held: Held<'_>, now: Instant) -> Option<Instant> {
        let next = match self.kept_at(state, held, now) {
            Some(kept) if kept <= now => None,
            kept => match (self.connects_at(state, now), kept) {
                (Some(next), Some(kept)) => Some(next.min(kept)),
                (next, _) => next,
            },
        };
        state.caps.waits_until(false, now).max(next)
    }

    /// Returns `true` if the next delivery of a worker needs a new connection.
    pub(super) fn connects(&self, state: &State, held: Held<'_>, now: Instant) -> bool {
        self.has_hosts() && self.kept_at(state, held, now).is_none_or(|kept| kept > now)
    }

    /// When a worker that waits for a source looks again. Each has a time of its own, so ask once.
    pub(super) fn wakes_at(&self, state: &State, now: Instant) -> Option<Instant> {
        let (pool, to) = self.limited_sources(state)?;
        self.egress.wakes_at(pool, &to, now)
    }

    /// What its sources have of their limits.
    pub(super) fn source_states(&self, state: &State, now: Instant) -> Vec<SourceState> {
        let sources = self.sources(state);
        sources.map(|(pool, to)| self.egress.states(pool, &to, now)).unwrap_or_default()
    }

    /// When a message may go over the worker's connection, or one on the shelf. `None`: over none.
    fn kept_at(&self, state: &State, held: Held<'_>, now: Instant) -> Option<Instant> {
        let Some((_, to)) = self.limited_sources(state) else {
            let is_kept = matches!(held, Held::Connection(_)) || !self.shelf.is_empty();
            return is_kept.then_some(now);
        };
        let mut first: Option<Instant> = None;
        let mut note = |source: Option<&Source>| {
            let at = source.map_or(Some(now), |source| self.egress.sends_at(source, &to, now));
            first = first.into_iter().chain(at).min();
            first.is_some_and(|first| first <= now)
        };
        let is_now = matches!(held, Held::Connection(source) if note(source));
        if !is_now {
            self.shelf.has(|connected| note(connected.from()));
        }
        first
    }

    /// When the next message may begin that needs a new connection. `None`: now.
    fn connects_at(&self, state: &State, now: Instant) -> Option<Instant> {
        if !self.has_hosts() {
            return None;
        }
        let source = self.limited_sources(state).and_then(|(pool, to)| {
            let noted = state.no_source.filter(|until| now < *until);
            noted.max(self.egress.waits_until(pool, &to, now))
        });
        state.caps.waits_until(true, now).max(source)
    }

    fn has_hosts(&self) -> bool {
        self.leads.as_ref().is_ok_and(|route| matches!(route.to, NextHop::Mx | NextHop::Hosts(_)))
    }

    /// The sources of the route, if they have limits.
    fn limited_sources<'s>(&'s self, state: &'s State) -> Option<(&'s SourcePool, To<'s>)> {
        self.sources(state).filter(|(pool, to)| !to.limits.is_none() || pool.is_limited())
    }

    fn sources<'s>(&'s self, state: &'s State) -> Option<(&'s SourcePool, To<'s>)> {
        let pool = self.leads.as_ref().ok()?.sources.as_ref()?;
        let targets = state.found.as_ref().map_or(&[][..], |(_, found)| &found.servers.targets);
        Some((pool, To { site: &self.name, limits: &state.caps.limits().per_source, targets }))
    }
}
