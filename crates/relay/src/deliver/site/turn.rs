//! The right to be a worker of a site: what its worker asks before each delivery, and what it tells
//! of its server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use posthaste_client::{Health, Server, Stage};
use posthaste_queue::DueClass;
use tokio::time::Instant;

use super::{super::caps::Open, Held, Silent, Site, State};
use crate::rank::Rank;

/// The right to be a worker of a site; dropped when the worker leaves.
#[derive(Debug)]
pub(in crate::deliver) struct Turn {
    site: Arc<Site>,
    number: u64,
    has_come: bool,
    left: bool,
    /// A connection that it will make is counted in the limits.
    may_connect: AtomicBool,
    /// Its delivery counts in the limits.
    open: Option<Open>,
    /// When it looks again that waits for a source.
    wake: Option<Instant>,
}

/// What a worker does before it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::deliver) enum Look {
    /// Get ready, then ask for the next key.
    Prepare,
    /// Wait until then, for all workers of the site, and look again.
    Wait(Instant),
    /// There is nothing to do: ask for the next key, or leave.
    Leave,
}

impl Turn {
    pub(super) fn new(site: &Arc<Site>, number: u64) -> Self {
        let (site, may_connect) = (Arc::clone(site), AtomicBool::new(false));
        Self { site, number, has_come: false, left: false, may_connect, open: None, wake: None }
    }

    pub(in crate::deliver) const fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What is to be done before a delivery is claimed.
    pub(in crate::deliver) fn look(&mut self, held: Held<'_>) -> Look {
        self.open = None;
        let mut state = self.site.state();
        if state.waiter == Some(self.number) {
            state.waiter = None;
        }
        state.sizes.end(self.number);
        if !state.has_turn() {
            return Look::Leave;
        }
        let held = match held {
            // It may make one.
            Held::Nothing if self.may_connect.load(Relaxed) => Held::Connection(None),
            held => held,
        };
        match self.site.waits_until(&mut state, held) {
            None => Look::Prepare,
            Some(_) if state.waiter.is_some() => Look::Leave,
            Some(until) => {
                state.waiter = Some(self.number);
                if !std::mem::replace(&mut self.has_come, true) {
                    state.coming = state.coming.saturating_sub(1);
                }
                let now = Instant::now();
                self.wake = self.wake.filter(|wake| now < *wake).or_else(|| self.site.wakes_at(&state, now));
                Look::Wait(self.wake.map_or(until, |wake| wake.max(until)))
            }
        }
    }

    /// The next class to claim from. If there was a delivery, put the class back with
    /// [`Site::offer`]; if not, call [`found_none`](Self::found_none). `None`: no class has a turn,
    /// or its delivery must wait. Put the connection on the shelf, then call
    /// [`leave`](Self::leave).
    pub(in crate::deliver) fn next(&mut self, held: Held<'_>) -> Option<DueClass> {
        self.open = None;
        let mut state = self.site.state();
        if !std::mem::replace(&mut self.has_come, true) {
            state.coming = state.coming.saturating_sub(1);
        }
        // The wait for its server may have been dropped.
        state.silent.remove(&self.number);
        state.sizes.end(self.number);
        // What was counted and not made counts again.
        self.gives_back(&mut state);
        if self.site.has_too_many(&mut state) || self.site.waits_until(&mut state, held).is_some() {
            return None;
        }
        let may_be_large = state.may_be_large();
        let (class, now) = (state.due.take(may_be_large)?, Instant::now());
        state.sizes.begin(self.number, Rank::read(class.priority).size, now);
        state.throttle.begin(now);
        self.open = state.caps.begin(now);
        if self.site.connects(&state, held, now) {
            self.may_connect.store(state.caps.connect(now), Relaxed);
        }
        Some(class)
    }

    /// A connection is begun.
    pub(in crate::deliver) fn dials(&self) {
        if !self.may_connect.swap(false, Relaxed) {
            self.site.state().caps.connect(Instant::now());
        }
    }

    /// Returns `true` if the limits let this worker make a connection now. It has one that turned
    /// out to be closed.
    pub(in crate::deliver) fn may_dial(&self) -> bool {
        self.may_connect.load(Relaxed) || self.site.state().caps.may_connect(Instant::now())
    }

    fn gives_back(&self, state: &mut State) {
        if self.may_connect.swap(false, Relaxed) {
            state.caps.not_connected();
        }
    }

    /// The class had no delivery, so its owner has not had its turn.
    pub(in crate::deliver) fn found_none(&self, class: &DueClass) {
        self.site.state().due.give_turn_back(class);
    }

    /// Its server is silent; in a transaction, this is the server.
    pub(in crate::deliver) fn is_silent(&self, server: Option<Server>) {
        let silent = Silent { server, since: Instant::now(), is_stuck: false };
        self.site.state().silent.insert(self.number, silent);
    }

    /// Looks whether no worker of the site has heard anything for this time. Then their servers
    /// count as failed, in this memory. Returns `true` if one did not before.
    pub(in crate::deliver) fn judge(&self, mute: Duration, health: &Health) -> bool {
        let state = self.site.state();
        let is_mute = |silent: &Silent| silent.server.is_some() && silent.since.elapsed() >= mute;
        let Some((_, found)) = state.found.as_ref().filter(|(_, found)| found.servers.targets.len() > 1) else {
            return false;
        };
        if state.silent.len() < state.workers || !state.silent.values().all(|one| one.is_stuck || is_mute(one)) {
            return false;
        }
        let mut has_failed = false;
        for server in state.silent.values().filter(|one| !one.is_stuck).filter_map(|one| one.server.as_ref()) {
            let target = found.servers.targets.iter().find(|target| target.server == *server);
            if let Some(target) = target.filter(|_| health.is_well(server)) {
                health.failed(server, &target.host, Stage::Transaction);
                has_failed = true;
            }
        }
        has_failed
    }

    /// Its server speaks again, or is not waited for any more.
    pub(in crate::deliver) fn is_answered(&self) {
        self.site.state().silent.remove(&self.number);
    }

    /// Returns `true` if its server is silent, and has failed with others meanwhile, and another
    /// server may get the mail.
    pub(in crate::deliver) fn is_stuck(&self) -> bool {
        let mut state = self.site.state();
        state.working(&self.site.health);
        state.silent.get(&self.number).is_some_and(|silent| silent.is_stuck)
    }

    /// Leaves unless a class has a turn, there is room for this worker, and no other waits for all.
    /// Returns `true` if it has left.
    pub(in crate::deliver) fn leave(&mut self) -> bool {
        let mut state = self.site.state();
        let is_idle = state.waiter.is_some() && self.site.waits_until(&mut state, Held::Nothing).is_some();
        if is_idle || !state.has_turn() || self.site.has_too_many(&mut state) {
            if !std::mem::replace(&mut self.has_come, true) {
                state.coming = state.coming.saturating_sub(1);
            }
            state.workers = state.workers.saturating_sub(1);
            self.gives_back(&mut state);
            self.left = true;
        }
        self.left
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.left {
            let mut state = self.site.state();
            if !self.has_come {
                state.coming = state.coming.saturating_sub(1);
            }
            state.workers = state.workers.saturating_sub(1);
            state.silent.remove(&self.number);
            state.sizes.end(self.number);
            self.gives_back(&mut state);
            if state.waiter == Some(self.number) {
                state.waiter = None;
            }
        }
    }
}
