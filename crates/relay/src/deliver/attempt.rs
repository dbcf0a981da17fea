//! One attempt of a delivery: its recipients go from one host to the next until each of them has an
//! answer that counts ([`Delivery`]).
//!
//! The order is that of the hosts, but no server is waited for alone: they are raced until one is
//! ready ([`Race`]), and those that failed lately come last. The time of one attempt covers all of
//! it.

use std::{io, sync::Arc, time::Duration};

use fastrand::Rng;
use posthaste_client::{
    Client, ClientError, ConnectError, Health, Race, RecipientOutcome, RefusedAt, Resolver, Server, ServerFacts, Stage,
    Target,
    delivery::{Break, Course, Delivery, Keep as _, Passed},
    mx::Demand,
};
use posthaste_queue::Queue;
use posthaste_server::wire::{EnhancedCode, ReplyCode, ReversePath};
use tracing::{debug, info, warn};

use super::{
    connect::{Connected, Dialer, Way, given_up, health, is_of_tls, unverified, why_back},
    domains::Hosts,
    fit::Fit,
    flow::{Flow, GaveUp, Metered},
    hand_over,
    job::{Fate, Guard, Job, Tried},
    letter::{Letter, is_local},
    lookup::{self, Found},
    site::{ASKED_LATELY, ASKED_NOW, Site, Unreachable},
    throttle::{Signal, Then},
    words::{At, Words},
    worker::Crew,
};
use crate::{Diagnostic, NextHop, Route, report::Action};

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
        return hand_over::run(crew, site, job, agent, flow).await;
    }
    let most = job.options.delivery.recipients_per_transaction;
    let delivery = Delivery::new(job.recipients().len(), most);
    let mut attempt = Attempt { crew, site, of, job, flow, delivery, refused: None, random: Rng::new() };
    let tried = attempt.over_kept(connection).await;
    let unreachable = match attempt.delivery.is_open() {
        true => attempt.over_hosts(tried.as_ref(), connection).await,
        false => None,
    };
    let Attempt { flow, delivery, refused, .. } = attempt;
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
        _ => return Tried::Settled(fates(job, delivery, unreachable.as_ref())),
    };
    let fates = fates(job, delivery, unreachable.as_ref());
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
    info!(site = site.name(), ?cause, diagnostic = %why, "site throttled, mail waits");
    let is_all = fates.iter().all(|fate| matches!(fate, Fate::NotNow(_, words) if words.cause.is_throttling()));
    match then {
        Then::GiveBack if is_all && job.can_wait() => return Tried::NotAtAll,
        Then::GiveBack | Then::Settle => {}
        Then::DeferAll(time) => site.mark_down(Unreachable { diagnostic: why, is_permanent: false }, time),
    }
    Tried::Settled(fates)
}

/// What the outcomes tell of the site. What a server did before another took over does not count.
fn signal(delivery: &Delivery) -> Signal {
    let (mut is_lost, mut refused) = (false, None);
    for course in delivery.courses() {
        let host = course.server.as_ref().and_then(|server| server.target.as_ref()).map_or("", |target| &*target.host);
        match &course.outcome {
            Some(RecipientOutcome::Refused(reply, at)) => {
                let words = Words::of(reply, (*at).into());
                is_lost |= reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
                if words.cause.is_throttling() && refused.is_none() {
                    refused = Some(Signal::Refused(words, Diagnostic::reply(host, reply)));
                }
            }
            Some(RecipientOutcome::Lost) => is_lost |= course.broken.as_deref().is_some_and(is_network),
            _ => {}
        }
    }
    match refused {
        Some(refused) => refused,
        None if is_lost => Signal::Lost,
        None if delivery.has_delivered() => Signal::Took,
        None => Signal::Answered,
    }
}

/// Returns `true` if the server or the network ended the conversation, and not the relay.
fn is_network(error: &ClientError) -> bool {
    !matches!(error, ClientError::Content(_) | ClientError::Misuse(_)) && gave_up(error).is_none()
}

fn fates(job: &Job, delivery: Delivery, unreachable: Option<&(Unreachable, Words)>) -> Vec<Fate> {
    let courses = delivery.into_courses().into_iter().enumerate();
    courses.map(|(index, course)| fate(job, index, course, unreachable)).collect()
}

struct Attempt<'a, 'p, Q, R> {
    crew: &'a Crew<Q, R>,
    site: &'a Site,
    /// The mail hosts of the domain. `None`: the route names the hosts, or there are none.
    of: Option<&'a Arc<Hosts>>,
    job: &'a Job,
    flow: &'a mut Flow<'p>,
    delivery: Delivery,
    /// What a host said before the first transaction that takes no mail for now.
    refused: Option<(Words, Diagnostic)>,
    random: Rng,
}

impl<'a, Q: Queue, R: Resolver> Attempt<'a, '_, Q, R> {
    /// Tries the kept connection, if the message may take it. Returns the server if it is not to be
    /// asked again in this attempt. It may be asked again if it closed the connection without a
    /// reply about the message, unless it throttles.
    async fn over_kept(&mut self, connection: &mut Option<Connected>) -> Option<Server> {
        let kept = connection.take()?;
        if !Arc::ptr_eq(&kept.options, &self.job.options) {
            kept.close().await;
            return None;
        }
        let Connected { client, verified, demand, is_best, pulse, options } = self.suiting(kept).await?;
        if !self.is_best(&client, is_best) && self.returns(&client) {
            client.quit().await;
            return None;
        }
        self.site.mark_up();
        let server = client.server().map(|target| target.server.clone());
        let mut client = Some(client);
        let mut letter = Letter::new(&self.crew.shared, self.site, self.job, &pulse, verified);
        let passed = self.flow.run(&pulse, self.delivery.over(&mut client, &mut letter)).await;
        match passed {
            // A new connection would get the same answer.
            Ok(Passed::Broken(_)) if matches!(signal(&self.delivery), Signal::Refused(..)) => server,
            Ok(Passed::Worn | Passed::Broken(Break { chunking: true, .. } | Break { says_nothing: true, .. })) => None,
            Ok(Passed::Broken(_)) => server,
            Ok(Passed::Through) => {
                *connection = client.map(|client| Connected { client, verified, demand, is_best, pulse, options });
                server
            }
            Err(gave_up) => {
                let is_by_mx = self.site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Mx);
                self.give_up(gave_up, &health(&self.crew.shared, is_by_mx, false));
                server
            }
        }
    }

    /// The connection, or another one of the site, that the message may take. One that it may not
    /// take is kept for other mail if there is room.
    async fn suiting(&mut self, kept: Connected) -> Option<Connected> {
        let needs_guard = self.guard() != Guard::Any;
        let demands = self.demands().await;
        let suits = |connected: &Connected| {
            let is_as_asked = demands
                .as_ref()
                .is_none_or(|demands| connected.demand.as_ref().is_some_and(|demand| demands.contains(demand)));
            is_as_asked && (connected.verified || !needs_guard) && Arc::ptr_eq(&connected.options, &self.job.options)
        };
        if suits(&kept) {
            return Some(kept);
        }
        let other = self.site.shelf.take_if(suits);
        let has_room = other.is_some() || self.site.has_room_on_shelf();
        let left = if has_room { self.site.shelf.keep(kept) } else { Some(kept) };
        if let Some(left) = left {
            left.close().await;
        }
        other
    }

    /// Returns `true` if the domain prefers no host to that of a connection. `is_best`: no host of
    /// the route is preferred.
    fn is_best(&self, client: &Client<Metered>, is_best: bool) -> bool {
        match (self.of, client.server()) {
            (Some(of), Some(target)) => of.is_best(&target.host),
            _ => is_best,
        }
    }

    /// Returns `true` if a better host than that of a kept connection is well, and it is time to
    /// return to it.
    fn returns(&self, client: &Client<Metered>) -> bool {
        // However old the look-up is: connections may have been kept since, and another follows.
        let (Some(found), Some(kept)) = (self.site.found(Duration::MAX), client.server()) else { return false };
        let preference = |target: &Target| self.of.map_or(target.preference, |of| of.preference(&target.host));
        let mut better = found.servers.targets.iter().filter(|target| preference(target) < preference(kept));
        better.any(|target| self.crew.shared.health.is_well(&target.server)) && self.site.is_time_to_return()
    }

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
            let way = match Way::of(&self.job.options, route, *guarded) {
                Ok(way) => way,
                Err(why) => {
                    unreachable = Some(why);
                    continue;
                }
            };
            let is_reached = self.race(&found, &way, tried, connection, (&mut unreachable, &mut is_of_domain)).await;
            if is_reached || tried.is_some() {
                return None;
            }
        }
        // Mail that asks for less may still get through: what stops guarded mail says nothing of
        // the site.
        let is_throttled = self.refused.as_ref().is_some_and(|(words, _)| words.cause.is_throttling());
        let is_current = crew.shared.is_current(&self.job.options);
        if let (Some(why), true, false) = (&unreachable, is_current && guard != Guard::Must, is_throttled) {
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
            let comes_back = shared.listeners.are_reached_at(&target.server, None);
            if comes_back {
                Unreachable::add(unreachable, why_back(&target.host));
            }
            !comes_back
        });
        let published = &self.job.options.delivery.published;
        let dialer = Dialer { listeners: shared.listeners.clone(), pulse: Arc::default() };
        let mut refused = self.refused.take();
        let domain = self.of.map_or("", |of| of.mail.domain());
        let (mut failed_hosts, mut ready) = (Vec::new(), Vec::new());
        let mut race = Race::new(&targets, dialer.clone(), way.options(shared, &self.job.options));
        let (mut fresh, had_delivered, mut is_reached) = (None, self.delivery.has_delivered(), false);
        while self.delivery.is_open() && !self.flow.is_over() {
            // An earlier server may have had the content.
            dialer.pulse.no_content();
            let letter = Letter::new(shared, self.site, self.job, &dialer.pulse, way.guarded);
            let mut letter = letter.in_way(way, &found.servers, domain);
            let through = self.delivery.through(&mut race, &mut letter, &mut fresh);
            let done = self.flow.run(&dialer.pulse, through).await;
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
        self.refused = refused;
        // One address of a host may fail while another works.
        for (host, diagnostic) in failed_hosts.iter().filter(|(host, _)| !ready.contains(host)) {
            if self.site.begins_to_fail(host) {
                warn!(site = self.site.name(), %diagnostic, "host of a route failed, the route's other hosts are tried");
            }
        }
        // The server that took the message is the better one for the next.
        let is_better = self.delivery.has_delivered() && !had_delivered;
        if let Some(client) = fresh {
            let demand = client.server().map(|target| found.servers.demand(target));
            let is_best = client.server().map(|target| target.preference) == best;
            let (pulse, options) = (dialer.pulse, Arc::clone(&self.job.options));
            let other = Connected { client, verified: way.guarded, demand, is_best, pulse, options };
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

/// What becomes of a recipient.
fn fate(job: &Job, index: usize, mut course: Course, unreachable: Option<&(Unreachable, Words)>) -> Fate {
    let not_now = |why| Fate::NotNow(why, Words::default());
    let Some(outcome) = course.outcome.take() else {
        return match unreachable {
            Some((Unreachable { diagnostic, is_permanent: true }, _)) => Fate::Never(diagnostic.clone()),
            Some((Unreachable { diagnostic, .. }, words)) => Fate::NotNow(diagnostic.clone(), *words),
            None => not_now(Diagnostic::own(EnhancedCode::new(4, 4, 1), "no host was tried")),
        };
    };
    let target = course.server.as_ref().and_then(|server| server.target.as_ref());
    let host = target.map_or("", |target| &*target.host);
    let is_permanent = outcome.is_permanent();
    match outcome {
        RecipientOutcome::Accepted(reply) => {
            let owes = course.server.as_ref().is_some_and(|server| owes_relayed_report(job, index, server));
            Fate::Delivered { remote: host.to_owned(), reply, owes: owes.then_some(Action::Relayed) }
        }
        // Content that cannot go by DATA can go to no server that refuses BDAT.
        RecipientOutcome::Refused(reply, RefusedAt::Bdat) if course.is_settled => {
            Fate::Never(Diagnostic::reply(host, &reply))
        }
        RecipientOutcome::Refused(reply, _) if is_permanent => Fate::Never(Diagnostic::reply(host, &reply)),
        RecipientOutcome::Refused(reply, at) => {
            Fate::NotNow(Diagnostic::reply(host, &reply), Words::of(&reply, at.into()))
        }
        RecipientOutcome::Undeliverable(why) => {
            let found = Diagnostic::own(why.enhanced(), why);
            Fate::Never(Diagnostic { remote: Some(host.to_owned()), ..found })
        }
        RecipientOutcome::Unsendable(_) => Fate::Never(Diagnostic::own(EnhancedCode::new(5, 6, 0), outcome)),
        RecipientOutcome::Unreachable(why) => not_now(Diagnostic::own(EnhancedCode::new(4, 4, 1), why)),
        RecipientOutcome::Lost | RecipientOutcome::Postponed => not_now(lost(host, &course)),
    }
}

/// Why the conversation broke off.
fn lost(host: &str, course: &Course) -> Diagnostic {
    match course.broken.as_deref() {
        Some(error) if course.in_doubt => {
            let text =
                format_args!("{error}, after the whole message: the server may have it, so no other host is asked yet");
            Diagnostic::lost(host, &text)
        }
        // The queue could not read the content, and nothing was sent.
        Some(ClientError::Content(error)) if course.server.is_none() => {
            Diagnostic::own(EnhancedCode::new(4, 3, 0), error)
        }
        Some(error) => gave_up(error).map_or_else(|| Diagnostic::lost(host, error), |gave_up| given_up(host, gave_up)),
        None => Diagnostic::lost(host, &"no answer"),
    }
}

/// Why the relay itself gave the conversation up.
fn gave_up(error: &ClientError) -> Option<GaveUp> {
    let ClientError::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref().copied()
}

/// Returns `true` if the sender is owed a report that this server took the message.
fn owes_relayed_report(job: &Job, index: usize, server: &ServerFacts) -> bool {
    let local = server.target.as_ref().is_some_and(|target| is_local(&target.server));
    let (by, verified) = (job.by(), server.is_verified);
    let fit = Fit { outside: &job.outside, by, server: &server.capabilities, verified, local };
    job.recipients().get(index).is_some_and(|recipient| fit.owes_relayed_report(&recipient.rcpt.borrowed()))
}
