//! One attempt of a delivery: its recipients go from one host to the next until each of them has an
//! answer that counts ([`Delivery`]).
//!
//! The order is that of the hosts, but no server is waited for alone: they are raced until one is
//! ready ([`Race`]), and those that failed lately come last. The time of one attempt covers all of
//! it.

mod fates;
mod kept;
mod seats;

use std::{io, pin::pin, sync::Arc};

use fastrand::Rng;
use posthaste_client::{
    ClientError, ConnectError, Health, Race, Resolver, Server, Stage, Target,
    delivery::{Delivery, Keep as _},
    mx::Demand,
};
use posthaste_queue::Queue;
use posthaste_server::wire::{EnhancedCode, ReversePath};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::fates::{fates, signal};
use super::{
    connect::{Connected, Dialer, Way, given_up, is_of_tls, unverified, why_back},
    domains::Hosts,
    flow::{Flow, GaveUp},
    hand_over,
    job::{Fate, Guard, Job, Tried},
    letter::Letter,
    lookup::{self, Found},
    site::{ASKED_LATELY, ASKED_NOW, Site, Unreachable},
    throttle::{Signal, Then},
    words::{At, Words, blocks},
    worker::Crew,
};
use crate::{Diagnostic, NextHop, Route, Source, SourceLimits};

/// Tries to deliver to every recipient of the job. `of` are the mail hosts of their domain. Returns
/// one fate for each, in their order. It leaves a connection behind if another message can follow
/// on it.
pub(super) async fn run<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    of: Option<&Arc<Hosts>>,
    job: &Job,
    connection: &mut Option<Connected>,
    flow: &mut Flow<'_>,
) -> Tried {
    if let Ok(route) = site.leads()
        && let NextHop::Agent(agent) = &route.to
    {
        site.begins(job.recipients().len());
        return hand_over::run(crew, site, job, agent, flow).await;
    }
    let most = job.options.delivery.recipients_per_transaction;
    let delivery = Delivery::new(job.recipients().len(), most);
    let mut attempt = Attempt {
        crew,
        site,
        of,
        job,
        flow,
        delivery,
        has_begun: false,
        refused: None,
        is_blocked: false,
        blocked: Vec::new(),
        source_limits: site.source_limits(),
        no_room: None,
        random: Rng::new(),
    };
    let tried = attempt.over_kept(connection).await;
    // The kept connection was closed, and the site may get no other one now.
    if tried.is_none() && attempt.is_untouched() && job.can_wait() && !attempt.flow.may_dial() {
        site.is_unused();
        return Tried::NotAtAll;
    }
    if !attempt.is_untouched() {
        attempt.begin();
    }
    let unreachable = match attempt.delivery.is_open() {
        true => attempt.over_hosts(tried.as_ref(), connection).await,
        false => None,
    };
    if let Some(until) = attempt.no_room
        && attempt.is_untouched()
        && job.can_wait()
    {
        site.is_unused();
        site.has_no_source(until);
        return Tried::NotAtAll;
    }
    let Attempt { flow, delivery, refused, blocked, .. } = attempt;
    if flow.was_silent {
        site.mark_silent();
    }
    let proves = !flow.was_silent && delivery.has_delivered() && job.outside.mail.reverse_path != ReversePath::Null;
    let is_connected = unreachable.is_none();
    let unreachable = unreachable.map(|why| match refused {
        Some((words, diagnostic)) if !why.is_permanent => (Unreachable { diagnostic, is_permanent: false }, words),
        _ => (why, Words::default()),
    });
    let signal = match &unreachable {
        _ if is_connected => signal(&delivery),
        Some((why, words)) if words.cause.is_throttling() => Signal::Refused(*words, why.diagnostic.clone()),
        _ => return Tried::Settled(fates(job, delivery, unreachable.as_ref(), &blocked)),
    };
    let fates = fates(job, delivery, unreachable.as_ref(), &blocked);
    conclude(site, job, signal, proves, fates)
}

/// Tells the site how the attempt ended. Returns what follows for the delivery.
pub(super) fn conclude(site: &Site, job: &Job, signal: Signal, proves: bool, fates: Vec<Fate>) -> Tried {
    let reason = match &signal {
        Signal::Refused(words, why) => Some((*words, why.clone())),
        Signal::Took | Signal::Answered | Signal::Lost => None,
    };
    let then = site.end(signal, job.claimed(), proves);
    let Some((Words { cause, .. }, why)) = reason else { return Tried::Settled(fates) };
    let rests_for = site.rests_for();
    info!(site = site.name(), ?cause, ?rests_for, diagnostic = %why, "site throttled, mail waits");
    let is_all = fates.iter().all(|fate| matches!(fate, Fate::NotNow(_, words) if words.cause.is_throttling()));
    match then {
        Then::GiveBack if is_all && job.can_wait() => return Tried::NotAtAll,
        Then::GiveBack | Then::Settle => {}
        Then::DeferAll(time) => site.mark_down(Unreachable { diagnostic: why, is_permanent: false }, time),
    }
    Tried::Settled(fates)
}

struct Attempt<'a, 'p, Q, R> {
    crew: &'a Crew<Q, R>,
    site: &'a Site,
    /// The mail hosts of the domain. `None`: the route names the hosts, or there are none.
    of: Option<&'a Arc<Hosts>>,
    job: &'a Job,
    flow: &'a mut Flow<'p>,
    delivery: Delivery,
    /// The recipients are counted in the limits of the site.
    has_begun: bool,
    /// What a host said before the first transaction that takes no mail for now.
    refused: Option<(Words, Diagnostic)>,
    /// The source of the last race rests now.
    is_blocked: bool,
    /// The recipients that were refused since the site blocks the source.
    blocked: Vec<usize>,
    source_limits: SourceLimits,
    /// No source had room for a new connection, and when to look again.
    no_room: Option<Instant>,
    random: Rng,
}

impl<'a, Q: Queue, R: Resolver> Attempt<'a, '_, Q, R> {
    /// What a kept connection has to be as, by the policies that the domain has published now.
    /// `None`: they ask for nothing.
    async fn demands(&mut self) -> Option<Vec<Demand>> {
        let (Some(of), Ok(route)) = (self.follows(), self.site.leads()) else { return None };
        let found = self.look_up_for(route, of).await;
        let demands = |found: Arc<Found>| {
            let targets = found.servers.targets.iter();
            targets.map(|target| found.servers.demand(target)).collect()
        };
        Some(found.map(demands).unwrap_or_default())
    }

    /// The hosts of a domain whose policies the message follows. It may leave them aside (RFC 8689
    /// section 5).
    fn follows(&self) -> Option<&'a Arc<Hosts>> {
        let follows = !self.job.options.delivery.published.is_empty() && !self.job.outside.tls_not_required;
        self.of.filter(|_| follows)
    }

    /// The servers, as the policies demand that the message follows.
    async fn look_up(&mut self, route: &Route) -> Result<Arc<Found>, Unreachable> {
        if let Some(of) = self.follows() {
            return self.look_up_for(route, of).await;
        }
        match self.site.found(ASKED_LATELY) {
            Some(found) => Ok(found),
            None => {
                self.flow.leave();
                lookup::find(self.crew, self.site, route, ASKED_LATELY).await
            }
        }
    }

    /// The servers, as the policies of the domain demand now.
    async fn look_up_for(&mut self, route: &Route, of: &Arc<Hosts>) -> Result<Arc<Found>, Unreachable> {
        if let Some(why) = self.crew.domains.down(&of.key) {
            self.site.is_unused();
            return Err(why);
        }
        match self.crew.domains.found(&of.key, ASKED_NOW) {
            Some(found) => Ok(found),
            None => {
                self.flow.leave();
                lookup::find_for(self.crew, self.site, route, of).await
            }
        }
    }

    /// The guard that the message needs on this route.
    fn guard(&self) -> Guard {
        let is_local = self.site.leads().as_ref().is_ok_and(|route| route.is_local());
        if is_local { Guard::Any } else { self.job.guard() }
    }

    /// Tries one address after another. Returns the reason if no server could be reached.
    async fn over_hosts(&mut self, tried: Option<&Server>, connection: &mut Option<Connected>) -> Option<Unreachable> {
        let (crew, site) = (self.crew, self.site);
        // The site is not marked down again. Otherwise a site that always has a delivery due would
        // never be tried again.
        let route = match site.leads() {
            Ok(route) => route,
            Err(why) => return Some(why.clone()),
        };
        if let Some(why) = site.down() {
            return Some(why);
        }
        let found = match self.look_up(route).await {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        let guard = self.guard();
        let ways: &[bool] = match guard {
            Guard::Any => &[false],
            Guard::May => &[true, false],
            Guard::Must => &[true],
        };
        let (mut unreachable, mut is_of_domain) = (None, found.passes_over());
        for guarded in ways {
            // The reason against the way before says nothing of this one.
            unreachable = found.missing.clone();
            let mut way = match Way::of(&self.job.options, route, *guarded) {
                Ok(way) => way,
                Err(why) => {
                    unreachable = Some(why);
                    continue;
                }
            };
            // Each turn but the last sets one more source to rest.
            let is_reached = loop {
                if let Some(pool) = &route.sources {
                    match self.draw(pool, &found).await {
                        Ok(seat) => way.seat = Some(seat),
                        Err(diagnostic) => {
                            Unreachable::add(&mut unreachable, Unreachable { diagnostic, is_permanent: false });
                            break false;
                        }
                    }
                }
                let told = (&mut unreachable, &mut is_of_domain);
                let is_reached = self.race(&found, &way, tried, connection, told).await;
                if let Some(source) = way.from().filter(|_| !is_reached) {
                    crew.shared.egress.give_back(source, site.name());
                }
                if is_reached || !self.is_blocked {
                    break is_reached;
                }
            };
            if is_reached || tried.is_some() {
                return None;
            }
        }
        // Mail that asks for less may still get through: what stops guarded mail says nothing of
        // the site.
        let is_throttled = self.refused.as_ref().is_some_and(|(words, _)| words.cause.is_throttling());
        let tells = crew.shared.is_current(&self.job.options) && guard != Guard::Must && self.no_room.is_none();
        if let (Some(why), true, false) = (&unreachable, tells, is_throttled) {
            let wait = self.job.options.delivery.retry.down_for();
            match self.follows().filter(|_| is_of_domain) {
                Some(of) => crew.domains.mark_down(&of.key, why.clone(), wait),
                None => {
                    debug!(site = site.name(), diagnostic = %why.diagnostic, "site marked down, no host reached");
                    site.mark_down(why.clone(), wait);
                }
            }
        }
        unreachable
    }

    /// Tries the servers as they become ready. Returns `true` if one became ready. It tells why
    /// none was reached, and if that is because of a policy of the domain.
    async fn race(
        &mut self,
        found: &Found,
        way: &Way,
        tried: Option<&Server>,
        connection: &mut Option<Connected>,
        (unreachable, is_of_domain): (&mut Option<Unreachable>, &mut bool),
    ) -> bool {
        let shared = &self.crew.shared;
        let mut targets = found.servers.targets.clone();
        found.weights.order(&mut targets, &mut self.random);
        if let Some(of) = self.of {
            of.rank(&mut targets);
        }
        let best = targets.iter().map(|target| target.preference).min();
        let is_mx = self.site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Mx);
        for (host, error) in found.servers.missing.iter().filter(|_| !is_mx) {
            if self.site.begins_to_fail(host) {
                warn!(site = self.site.name(), host = &**host, %error, "host of a route not found, the route's other hosts are tried");
            }
        }
        targets.retain(|target| {
            if Some(&target.server) == tried {
                return false;
            }
            if way.guarded && is_mx && !target.tls.as_ref().is_some_and(|own| own.tls.is_verified()) {
                Unreachable::add(unreachable, unverified());
                return false;
            }
            if let Some(source) = way.from().filter(|source| !source.reaches(&target.server)) {
                let diagnostic = Diagnostic::own(EnhancedCode::new(4, 4, 1), source.why_not_reached(&target.server));
                Unreachable::add(unreachable, Unreachable { diagnostic, is_permanent: false });
                return false;
            }
            let comes_back = shared.listeners.are_reached_at(&target.server, None);
            if comes_back {
                Unreachable::add(unreachable, why_back(&target.host));
            }
            !comes_back
        });
        for own in targets.iter_mut().filter_map(|target| target.tls.as_mut()) {
            own.tls = way.shown(&own.tls);
        }
        let published = &self.job.options.delivery.published;
        let tcp = way.from().map(Source::tcp).unwrap_or_default();
        let dialer = Dialer { listeners: shared.listeners.clone(), pulse: Arc::default(), tcp };
        let (mut refused, mut is_blocked) = (self.refused.take(), false);
        let domain = self.of.map_or("", |of| of.mail.domain());
        let (mut failed_hosts, mut ready) = (Vec::new(), Vec::new());
        self.begin();
        self.flow.dials();
        let mut race = Race::new(&targets, dialer.clone(), way.options(shared, &self.job.options));
        let (mut fresh, had_delivered, mut is_reached) = (None, self.delivery.has_delivered(), false);
        while self.delivery.is_open() && !self.flow.is_over() {
            // An earlier server may have had the content.
            dialer.pulse.no_content();
            let letter = Letter::new(shared, self.site, self.job, &dialer.pulse, way.guarded);
            let mut letter = letter.in_way(way, &found.servers, domain);
            let pulse = &dialer.pulse;
            let done = self.flow.run(pulse, pin!(self.delivery.through(&mut race, &mut letter, &mut fresh))).await;
            is_reached |= letter.is_reached;
            ready.append(&mut letter.ready);
            for why in letter.ruled_out {
                Unreachable::add(unreachable, why);
            }
            let mut note = |failed: Vec<(usize, ConnectError)>, gave_up: Option<GaveUp>| {
                for (index, error) in failed {
                    let Some(Target { host, tls, .. }) = targets.get(index) else { continue };
                    *is_of_domain |= tls.is_some() && is_of_tls(&error);
                    if let Some(policy) = found.servers.policy(host) {
                        published.count_failed(domain, host, policy, &error);
                    }
                    let is_of_session = matches!(error.stage(), Stage::Greeting | Stage::Hello);
                    if let Some(reply) = error.reply().filter(|_| is_of_session) {
                        let words = Words::of(reply, At::Session);
                        if words.cause.is_throttling() {
                            refused = Some((words, Diagnostic::reply(host, reply)));
                        } else if let Some(source) = way.from().filter(|_| blocks(reply)) {
                            let why = Diagnostic::reply(host, reply);
                            is_blocked |= shared.egress.blocked(source, self.site.name(), why);
                        }
                    }
                    let why = match (&error, gave_up) {
                        (ConnectError::TooSlow { .. }, Some(gave_up)) => {
                            Unreachable { diagnostic: given_up(host, gave_up), is_permanent: false }
                        }
                        _ => way.why_not(host, &error),
                    };
                    if !is_mx {
                        failed_hosts.push((Arc::clone(host), why.diagnostic.clone()));
                    }
                    Unreachable::add(unreachable, why);
                }
            };
            note(race.failed(), None);
            let Err(gave_up) = done else { break };
            race.give_up();
            note(race.failed(), Some(gave_up));
            self.give_up(gave_up, &way.health(shared));
        }
        (self.refused, self.is_blocked) = (refused, is_blocked);
        if self.note_blocks(way.from())
            && let Some(client) = fresh.take()
        {
            client.quit().await;
        }
        // One address of a host may fail while another works.
        for (host, diagnostic) in failed_hosts.iter().filter(|(host, _)| !ready.contains(host)) {
            if self.site.begins_to_fail(host) {
                match targets.iter().any(|target| target.host != *host) {
                    true => {
                        warn!(site = self.site.name(), %diagnostic, "host of a route failed, the route's other hosts are tried");
                    }
                    false => {
                        warn!(site = self.site.name(), %diagnostic, "host of a route failed, and there is no other to try")
                    }
                }
            }
        }
        // The server that took the message is the better one for the next.
        let is_better = self.delivery.has_delivered() && !had_delivered;
        if let Some(client) = fresh {
            let demand = client.server().map(|target| found.servers.demand(target));
            let is_best = client.server().map(|target| target.preference) == best;
            let (pulse, seat, options) = (dialer.pulse, way.seat.clone(), Arc::clone(&self.job.options));
            let other = Connected { client, verified: way.guarded, demand, is_best, pulse, seat, options };
            let other = if connection.is_none() || is_better { connection.replace(other) } else { Some(other) };
            if let Some(other) = other {
                other.close().await;
            }
        }
        is_reached
    }

    /// The work under way was given up, and its connection is closed.
    fn give_up(&mut self, gave_up: GaveUp, health: &Health) {
        let server = self.delivery.give_up(ClientError::Io(io::Error::other(gave_up)));
        // Many recipients take long, however well a server is.
        let is_servers = !self.delivery.has_delivered() || gave_up != GaveUp::TooLong;
        if let (Some(target), true) = (server.as_ref().and_then(|server| server.target.as_ref()), is_servers) {
            health.failed(&target.server, &target.host, Stage::Transaction);
        }
    }
}
