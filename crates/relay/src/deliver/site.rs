//! A site: a next hop, what is due for it, its workers, its hosts, and whether it can be
//! reached.

mod sizes;
#[cfg(test)]
mod source_tests;
mod sources;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posthaste_client::{Health, Server, delivery::Shelf};
use posthaste_queue::DueClass;
use posthaste_server::wire::EnhancedCode;
use tokio::time::Instant;

use self::sizes::Sizes;
pub(super) use self::{
    sources::Held,
    turn::{Look, Turn},
};
use super::{
    caps::{Caps, CapsTable},
    connect::Connected,
    domains::Hosts,
    due::{Added, Due, Offer},
    egress::Egress,
    lookup::Found,
    places::{Share, Standing},
    room::Room,
    throttle::{Signal, Then, Throttle},
};
use crate::{DeliveryOptions, Diagnostic, HostGroup, NextHop, Resting, Route, SiteLimits, SiteState, rank::Size};

/// How long a site counts as one that answers after it has taken mail.
const PROVEN: Duration = Duration::from_secs(300);
/// How long a site that could not be reached is served last.
const DOUBTFUL: Duration = Duration::from_secs(600);
/// How long DNS is not asked again for hosts before a connection, so that a burst asks once. It is
/// not longer, since each answer has hosts of equal preference in another order, which spreads the
/// load (RFC 5321 section 5.1).
pub(super) const ASKED_NOW: Duration = Duration::from_secs(1);
/// How long a delivery that has begun uses the hosts that DNS named.
pub(super) const ASKED_LATELY: Duration = Duration::from_secs(60);

/// Deliveries to the same next hop, by workers that each have a connection.
///
/// A class of deliveries is in one of two places: among the due classes ([`Due`], which says whose
/// turn it is), or with the one worker that claims from it. That worker puts it back if there was a
/// delivery. After an empty claim the queue names the class again when something falls due. A
/// worker leaves in the same step in which it finds no due class. So no due class is left without a
/// worker. Its connection stays on the shelf for the next worker. Large mail gets a part of the
/// workers ([`Sizes`]): a large class that waits is taken when one of them ends.
///
/// A worker whose server is silent, and has failed with others meanwhile, is *stuck*, and counts as
/// a worker no more. While every worker is silent, there is one more of them, the scout: it finds
/// out whether their server answers at all. If the server greets, and no worker hears from it for a
/// while all the same, it counts as failed.
///
/// How many workers there may be, and when the next delivery may begin, is what the site has taught
/// ([`Throttle`]). While deliveries must wait, one worker waits for all, without a place and
/// without a delivery.
#[derive(Debug)]
pub(super) struct Site {
    name: String,
    leads: Leads,
    /// The hosts that the DNS names: those of one of its domains. `None`: the route names them, or
    /// there are none.
    hosts: Option<Arc<Hosts>>,
    state: Mutex<State>,
    /// Connections that no worker uses.
    pub(super) shelf: Shelf<Connected>,
    /// Held by the worker that looks the hosts up. Other workers wait for its answer.
    pub(super) looking: tokio::sync::Mutex<()>,
    health: Health,
    /// Its share of the places.
    pub(super) share: Arc<Share>,
    egress: Arc<Egress>,
}

#[derive(Debug)]
struct State {
    due: Due,
    /// The most workers that options allow.
    most: usize,
    workers: usize,
    /// Hired workers that have not called [`Turn::next`] yet.
    coming: usize,
    sizes: Sizes,
    /// Workers whose servers are silent, by their numbers.
    silent: HashMap<u64, Silent>,
    next_number: u64,
    /// Hosts of the route that failed, and have not been ready since.
    failing: HashSet<Box<str>>,
    /// Hosts that get mail without TLS since it failed there. At most [`IN_CLEAR`].
    in_clear: HashSet<Box<str>>,
    /// When a connection was last given up for one to a better host.
    returned: Option<Instant>,
    /// The site could not be reached: until when that counts, and why.
    down: Option<(Instant, Unreachable)>,
    /// Its hosts, and when they were looked up.
    found: Option<(Instant, Arc<Found>)>,
    /// Until when it counts as one that answers.
    proven: Option<Instant>,
    /// Until when it counts as one that does not answer.
    doubtful: Option<Instant>,
    throttle: Throttle,
    caps: Caps,
    /// Until when no source has room, as a delivery has found.
    no_source: Option<Instant>,
    /// The worker that waits until a delivery may begin.
    waiter: Option<u64>,
}

/// A worker whose server is silent.
#[derive(Debug)]
struct Silent {
    /// `None`: no transaction has begun.
    server: Option<Server>,
    since: Instant,
    /// The server has failed with others since. It stays so until the server speaks.
    is_stuck: bool,
}

/// The least time between two connections that are given up for a better host: the load moves back
/// bit by bit.
const RETURN: Duration = Duration::from_millis(250);

/// Why no host could be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreachable {
    pub(super) diagnostic: Diagnostic,
    /// Permanent. Set from DNS or configuration, never from a host's reply.
    pub(super) is_permanent: bool,
}

/// Its route, or why there is none: then its deliveries are deferred or fail without an attempt.
pub(super) type Leads = Result<Arc<Route>, Unreachable>;

impl Unreachable {
    /// Adds a reason. A temporary one replaces a permanent one, never the other way round.
    /// Otherwise the later one replaces the earlier, unless only the later says that there was no
    /// connection.
    pub(super) fn add(to: &mut Option<Self>, why: Self) {
        let says_less = |why: &Self| why.diagnostic.status == NO_CONNECTION;
        let is_told = to.as_ref().is_none_or(|last| match (last.is_permanent, why.is_permanent) {
            (true, false) => true,
            (false, true) => false,
            _ => says_less(last) || !says_less(&why),
        });
        if is_told {
            *to = Some(why);
        }
    }
}

/// The status if no connection was made (RFC 3463 section 3.5).
const NO_CONNECTION: EnhancedCode = match EnhancedCode::new(4, 4, 1) {
    Some(code) => code,
    None => panic!(),
};

/// What would be lost with a site, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    Nothing,
    /// It is known that it cannot be reached.
    Down,
    /// It is known that it takes mail, or how much.
    Taught,
    /// It has a worker, a connection or a due class.
    Work,
}

impl Site {
    /// Makes a site. `hosts` are those that the DNS names for one of its domains.
    pub(super) fn new(
        name: String,
        leads: Leads,
        hosts: Option<Arc<Hosts>>,
        options: &DeliveryOptions,
        shelf: Shelf<Connected>,
        health: Health,
    ) -> Self {
        let limits = limits(&leads, hosts.as_deref(), options);
        let caps = Caps::new(limits, hosts_of(&leads, hosts.as_deref()), &Arc::default(), Instant::now());
        let state = Mutex::new(State::new(most(caps.limits(), options), caps, Instant::now()));
        let (looking, share) = (tokio::sync::Mutex::default(), Arc::default());
        Self { name, leads, hosts, state, shelf, looking, health, share, egress: Arc::default() }
    }

    /// Counts what it gets together with other sites that have the same hosts.
    pub(super) fn capped_in(self, table: &Arc<CapsTable>) -> Self {
        self.state().caps.share(table, Instant::now());
        self
    }

    /// Shares the room for due classes with other sites.
    pub(super) fn in_room(self, room: &Arc<Room>) -> Self {
        self.state().due.share(room);
        self
    }

    pub(super) const fn hosts(&self) -> Option<&Arc<Hosts>> {
        self.hosts.as_ref()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn leads(&self) -> &Leads {
        &self.leads
    }

    /// Takes a class back that had a delivery: see [`offer_for`](Self::offer_for).
    pub(super) fn offer(self: &Arc<Self>, class: DueClass) -> Option<Turn> {
        self.offer_for(class, Offer::Turn)
    }

    /// Takes a class that may have a delivery due. If there is room for another worker, it returns
    /// a turn: hire a worker with it. For a class that was due already no worker is hired while
    /// another is still to come.
    pub(super) fn offer_for(self: &Arc<Self>, class: DueClass, offer: Offer) -> Option<Turn> {
        let mut state = self.state();
        let added = state.due.add(class, offer);
        if !state.has_turn() || (added != Added::New && state.coming > 0) {
            return None;
        }
        self.hire(&mut state)
    }

    /// A turn for one more worker, if a class is due and there is room since others are silent.
    pub(super) fn relieve(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state();
        if !state.has_turn() || state.coming > 0 {
            return None;
        }
        self.hire(&mut state)
    }

    /// Returns `true` if one worker, whose server is not silent, is one too many: those that were
    /// stuck, or silent, work again.
    fn has_too_many(&self, state: &mut State) -> bool {
        let limit = state.limit();
        if state.workers <= limit {
            return false;
        }
        let scouts = usize::from(state.has_others() && state.silent.len().saturating_add(1) >= state.workers);
        state.working(&self.health) > limit.saturating_add(scouts)
    }

    fn hire(self: &Arc<Self>, state: &mut State) -> Option<Turn> {
        let limit = state.limit();
        if state.workers >= limit {
            let scouts = usize::from(state.has_others() && state.silent.len() >= state.workers);
            if state.working(&self.health) >= limit.saturating_add(scouts) {
                return None;
            }
        }
        // One worker waits for all.
        if (state.waiter.is_some() || state.coming > 0) && self.waits_until(state, Held::Nothing).is_some() {
            return None;
        }
        state.workers += 1;
        state.coming += 1;
        let number = state.next_number;
        state.next_number = number.wrapping_add(1);
        Some(Turn::new(self, number))
    }

    /// When the next delivery of a worker may begin. `None`: now.
    fn waits_until(&self, state: &mut State, held: Held<'_>) -> Option<Instant> {
        let now = Instant::now();
        if state.is_down(now) {
            return None;
        }
        state.throttle.waits_until(now).max(self.limited_until(state, held, now))
    }

    /// A delivery to this number of recipients begins.
    pub(super) fn begins(&self, recipients: usize) {
        self.state().caps.name(recipients, Instant::now());
    }

    /// An attempt that began then has ended. Returns what follows if the site refused it.
    pub(super) fn end(&self, signal: Signal, begun: Instant, proves: bool) -> Then {
        let (mut state, now) = (self.state(), Instant::now());
        if proves {
            state.proven = Some(now + PROVEN);
        }
        let open = state.at_work();
        state.throttle.end(signal, begun, open, now)
    }

    /// The time for which the site still rests since it throttles.
    pub(super) fn rests_for(&self) -> Duration {
        let (state, now) = (self.state(), Instant::now());
        state.throttle.rest(now).map_or(Duration::ZERO, |rest| rest.until.saturating_duration_since(now))
    }

    /// Returns `true` if a worker may put its connection on the shelf and make another: the
    /// connections stay within the limit.
    pub(super) fn has_room_on_shelf(&self) -> bool {
        let state = self.state();
        state.workers.saturating_add(self.shelf.len()) < state.most
    }

    /// There was no delivery to begin.
    pub(super) fn is_unused(&self) {
        let mut state = self.state();
        state.throttle.give_back();
        state.caps.give_back();
    }

    /// Returns `true` if a connection to a worse host is to be given up now, for one to a better
    /// host that is well.
    pub(super) fn is_time_to_return(&self) -> bool {
        let mut state = self.state();
        let is_time = state.returned.is_none_or(|at| at.elapsed() >= RETURN);
        if is_time {
            state.returned = Some(Instant::now());
        }
        is_time
    }

    /// What would be lost with the site.
    pub(super) fn worth(&self) -> Worth {
        let (mut state, now) = (self.state(), Instant::now());
        match () {
            () if state.workers > 0 || !state.due.is_empty() || !self.shelf.is_empty() => Worth::Work,
            () if state.proven.is_some_and(|until| now < until) || !state.throttle.knows_nothing(now) => Worth::Taught,
            () if state.is_down(now) => Worth::Down,
            () => Worth::Nothing,
        }
    }

    /// The options have changed. What they may have decided is forgotten: the classes that are due,
    /// which may lead elsewhere now, the hosts, and why they could not be reached. What the site
    /// has taught stays.
    pub(super) fn renew(&self, options: &DeliveryOptions) {
        let limits = limits(&self.leads, self.hosts.as_deref(), options);
        let mut state = self.state();
        state.most = most(&limits, options);
        let most = state.most;
        state.throttle.set_most(most);
        state.caps.set(limits, Instant::now());
        state.due.clear();
        (state.found, state.down, state.no_source) = (None, None, None);
    }

    /// Marks the site as unreachable: all its other due deliveries are deferred for the same
    /// reason, without an attempt.
    pub(super) fn mark_down(&self, why: Unreachable, wait: Duration) {
        let (mut state, now) = (self.state(), Instant::now());
        state.down = Some((now + wait, why));
        (state.proven, state.doubtful) = (None, Some(now + DOUBTFUL));
    }

    /// A host that the route names has failed. Returns `true` if it had not before: the log has one
    /// line for it. A site has as many as its route names.
    pub(super) fn begins_to_fail(&self, host: &str) -> bool {
        let mut state = self.state();
        !state.failing.contains(host) && state.failing.insert(host.into())
    }

    /// A host is ready for mail. Returns `true` if it had failed.
    pub(super) fn ends_to_fail(&self, host: &str) -> bool {
        self.state().failing.remove(host)
    }

    /// TLS failed at a host, and mail goes without. Returns `true` if it did not before, as far as
    /// that is remembered.
    pub(super) fn begins_in_clear(&self, host: &str) -> bool {
        let in_clear = &mut self.state().in_clear;
        !in_clear.contains(host) && in_clear.len() < IN_CLEAR && in_clear.insert(host.into())
    }

    /// A connection to a host has TLS. Returns `true` if mail went without before.
    pub(super) fn ends_in_clear(&self, host: &str) -> bool {
        self.state().in_clear.remove(host)
    }

    pub(super) fn mark_up(&self) {
        let mut state = self.state();
        (state.down, state.doubtful) = (None, None);
    }

    /// The site makes other connections wait.
    pub(super) fn mark_silent(&self) {
        self.state().proven = None;
    }

    pub(super) fn standing(&self) -> Standing {
        let (state, now) = (self.state(), Instant::now());
        let lasts = |until: Option<Instant>| until.is_some_and(|until| now < until);
        match () {
            () if lasts(state.proven) => Standing::Proven,
            () if lasts(state.doubtful) => Standing::Doubtful,
            () => Standing::New,
        }
    }

    /// Its hosts, if they were looked up within this time.
    pub(super) fn found(&self, within: Duration) -> Option<Arc<Found>> {
        let state = self.state();
        state.found.as_ref().filter(|(at, _)| at.elapsed() < within).map(|(_, found)| Arc::clone(found))
    }

    pub(super) fn keep_found(&self, found: Arc<Found>) {
        self.state().found = Some((Instant::now(), found));
    }

    pub(super) fn down(&self) -> Option<Unreachable> {
        let state = self.state();
        state.down.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
    }

    /// Why its deliveries fail for now without an attempt. `None`: they are attempted.
    pub(super) fn why_not(&self) -> Option<Unreachable> {
        self.leads.as_ref().err().cloned().or_else(|| self.down())
    }

    /// What an operator may want to know of it.
    pub(super) fn what_is_known(&self) -> SiteState {
        let (state, now) = (self.state(), Instant::now());
        let resting = state
            .throttle
            .rest(now)
            .map(|rest| Resting::new(rest.until.saturating_duration_since(now), rest.cause, rest.why.clone()));
        SiteState {
            name: self.name.clone(),
            domains: self.leads.is_err().then_some(1),
            window: state.throttle.limit(),
            open: state.at_work(),
            resting,
            rate: state.throttle.rate(),
            limits: state.caps.limits().clone(),
            limited: self.limited_until(&state, Held::Nothing, now).map(|until| until.saturating_duration_since(now)),
            sources: self.source_states(&state, now),
            due: state.due.len(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of a site.
fn limits(leads: &Leads, hosts: Option<&Hosts>, options: &DeliveryOptions) -> SiteLimits {
    let table = &options.site_limits;
    match (leads.as_ref().map(|route| &route.to), hosts) {
        (_, Some(hosts)) => table.of(hosts.mail.hosts().iter().map(|host| &*host.exchange)),
        (Ok(NextHop::Hosts(groups)), None) => {
            table.of(groups.iter().flat_map(|HostGroup(hosts)| hosts).map(|host| &*host.name))
        }
        _ => SiteLimits::default(),
    }
}

/// Its hosts, in the order of their names. Empty: it has none, and no limits.
fn hosts_of(leads: &Leads, hosts: Option<&Hosts>) -> Box<str> {
    let mut names: Vec<String> = match (leads.as_ref().map(|route| &route.to), hosts) {
        (_, Some(hosts)) => hosts.mail.hosts().iter().map(|host| host.exchange.to_ascii_lowercase()).collect(),
        (Ok(NextHop::Hosts(groups)), None) => {
            groups.iter().flat_map(|HostGroup(hosts)| hosts).map(|host| host.name.to_ascii_lowercase()).collect()
        }
        _ => Vec::new(),
    };
    names.sort();
    names.dedup();
    names.join(" ").into()
}

/// The most hosts of a site of which it is logged that mail goes to them without TLS.
const IN_CLEAR: usize = 64;

/// The most connections at once.
fn most(limits: &SiteLimits, options: &DeliveryOptions) -> usize {
    limits.connections.unwrap_or(options.concurrency_per_site).max(1)
}

impl State {
    fn new(most: usize, caps: Caps, now: Instant) -> Self {
        Self {
            due: Due::default(),
            most,
            workers: 0,
            coming: 0,
            sizes: Sizes::default(),
            silent: HashMap::new(),
            next_number: 0,
            failing: HashSet::new(),
            in_clear: HashSet::new(),
            returned: None,
            down: None,
            found: None,
            proven: None,
            doubtful: None,
            throttle: Throttle::new(most, now),
            caps,
            no_source: None,
            waiter: None,
        }
    }

    /// The workers with a delivery under way.
    fn at_work(&self) -> usize {
        let waiters = usize::from(self.waiter.is_some()).saturating_add(self.coming);
        self.workers.saturating_sub(waiters)
    }

    /// The most workers. One is enough for a site that is down: it makes no connection, and defers
    /// many deliveries at once.
    fn limit(&self) -> usize {
        if self.is_down(Instant::now()) { 1 } else { self.throttle.limit() }
    }

    /// Returns `true` if a class is due whose mail may begin. If there is none, each large message
    /// that is under way is followed by one that waits.
    fn has_turn(&self) -> bool {
        self.due.has(Size::Small) || (self.due.has(Size::Large) && self.may_be_large())
    }

    /// Returns `true` if the next message may be large.
    fn may_be_large(&self) -> bool {
        let is_stuck = |worker| self.silent.get(&worker).is_some_and(|silent| silent.is_stuck);
        self.sizes.may_be_large(self.limit(), is_stuck, self.due.has(Size::Small), Instant::now())
    }

    fn is_down(&self, now: Instant) -> bool {
        self.down.as_ref().is_some_and(|(until, _)| now < *until)
    }

    /// Returns `true` if there is more than one server that may get the mail.
    fn has_others(&self) -> bool {
        self.found.as_ref().is_some_and(|(_, found)| found.servers.targets.len() > 1)
    }

    /// The workers that are not stuck.
    fn working(&mut self, health: &Health) -> usize {
        let is_stuck = |silent: &mut Silent| {
            silent.is_stuck |= silent.server.as_ref().is_some_and(|server| !health.is_well(server));
            silent.is_stuck
        };
        let stuck =
            if self.has_others() { self.silent.values_mut().map(is_stuck).filter(|stuck| *stuck).count() } else { 0 };
        self.workers.saturating_sub(stuck)
    }
}
