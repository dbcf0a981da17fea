//! Finds the mail hosts of each domain whose mail goes by MX. They say which site it goes to:
//! domains with the same hosts are one site. The DNS is asked apart from the loop, which must not
//! wait.
//!
//! **Architecture invariant: a site claims mail of a domain only while an answer counts that leads
//! the domain there.** A worker looks before each claim. If the answer counts no more, or leads
//! elsewhere, the worker drops the class and the loop looks again. So a domain moves to its new
//! site with the next look-up, and its mail is at no time stuck at the old one.
//!
//! What a domain has published about TLS stays with the domain, for its site has others too. So
//! does the reason why all its hosts are passed over.

#[cfg(test)]
pub(super) mod tests;

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posthaste_client::{
    Resolver, Target,
    mx::{MailHosts, MxError},
};
use posthaste_queue::{DueClass, Queue, RoutingKey};
use posthaste_server::wire::Domain;
use tokio::time::Instant;

use super::{
    due::Offer,
    lookup::{self, Found, unresolved},
    offer,
    places::Standing,
    site::{Leads, Site, Unreachable},
    worker::Crew,
};
use crate::{NextHop, RelayOptions, rule::key_parts};

/// How long an answer counts if the resolver does not tell.
const USUAL: Duration = Duration::from_secs(60);
/// The least time that an answer counts, so that a TTL of 0 does not cost a look-up for each
/// message.
const LEAST: Duration = Duration::from_secs(30);
/// The most time that an answer counts.
const MOST: Duration = Duration::from_secs(3_600);
/// The least time that a failure counts: until the deliveries that wait for it know.
const LEAST_FAILURE: Duration = Duration::from_millis(20);
/// The most answers that are kept. Beyond it the older half is forgotten.
const ANSWERS: usize = 32_768;
/// The most octets of the hosts in these answers. Beyond it the older half is forgotten.
const OCTETS: usize = 32 << 20;
/// The most domains that wait to be asked for, each in a task. The deliveries of others stay in the
/// queue until an answer comes. The backlog has three quarters of them: see [`Offer::part_of`].
const WAITING: usize = 8_192;
/// The most classes that are kept for a domain that is asked for. A look finds the others later.
const CLASSES: usize = 8;
/// The most domains whose servers are kept with the policies that each has published. Beyond it all
/// are forgotten, and looked up again. Each has a few kilobytes.
const FOUND: usize = 4_096;
/// How often the loop looks where the domains of a site belong that rests for longer.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The mail hosts of a domain.
#[derive(Debug)]
pub(super) struct Hosts {
    /// The key of the domain, without a label.
    pub(super) key: RoutingKey,
    pub(super) mail: MailHosts,
    /// The names of all hosts in lower case, in alphabetical order, with a blank between: no name
    /// from the DNS has one. The port is at the end. Domains for which they are equal are one site.
    pub(super) names: Arc<str>,
}

impl Hosts {
    pub(super) fn new(key: RoutingKey, mail: MailHosts, port: u16) -> Self {
        let mut names: Vec<_> = mail.hosts().iter().map(|host| host.exchange.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let names = format!("{} {port}", names.join(" ")).into();
        Self { key, mail, names }
    }

    /// A name for the site: the host that the domain prefers.
    pub(super) fn first(&self) -> &str {
        self.mail.hosts().first().map_or("", |host| &host.exchange)
    }

    /// The preference that this domain gives a host. Other domains of the site may give it another.
    pub(super) fn preference(&self, host: &str) -> u16 {
        let mut hosts = self.mail.hosts().iter();
        hosts.find(|known| known.exchange.eq_ignore_ascii_case(host)).map_or(u16::MAX, |known| known.preference)
    }

    /// Returns `true` if the domain prefers no other host.
    pub(super) fn is_best(&self, host: &str) -> bool {
        self.mail.hosts().first().is_some_and(|first| first.preference == self.preference(host))
    }

    /// Brings the servers of the site into the order of this domain.
    pub(super) fn rank(&self, targets: &mut [Target]) {
        targets.iter_mut().for_each(|target| target.preference = self.preference(&target.host));
        targets.sort_by_key(|target| target.preference);
    }

    fn octets(&self) -> usize {
        const BESIDE: usize = 128;
        let each = self.mail.hosts().iter().map(|host| host.exchange.len().saturating_add(BESIDE));
        each.fold(self.names.len(), usize::saturating_add)
    }
}

/// The hosts of a domain, or why it has none.
pub(super) type Answer = Result<Arc<Hosts>, Unreachable>;

/// What is known of domains, and what is being asked.
#[derive(Debug, Default)]
pub(super) struct Domains(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    newer: Answers,
    older: Answers,
    /// Those that are asked for, each with classes to be offered then.
    asked: HashMap<RoutingKey, Vec<(DueClass, Offer)>>,
    /// There was no room to ask for some, or to keep some of their classes.
    has_missed: bool,
    /// The servers as the policies of a domain demand, and when they were looked up.
    found: HashMap<RoutingKey, (Instant, Arc<Found>)>,
}

#[derive(Debug, Default)]
struct Answers {
    known: HashMap<RoutingKey, Known>,
    octets: usize,
}

#[derive(Debug)]
struct Known {
    until: Instant,
    answer: Answer,
    /// Until when all hosts count as passed over, and why. It is for mail that follows the policies
    /// of the domain.
    down: Option<Box<(Instant, Unreachable)>>,
}

/// What is known of the hosts of a domain.
#[derive(Debug)]
enum Look {
    Known(Answer),
    /// The caller asks now. This was the answer before.
    Ask(Option<Answer>),
    /// It is being asked for, or there is no room to ask.
    Wait,
}

/// Where the mail of a class that is offered goes: its hosts, if the route leaves them to the DNS.
/// `None`: it is not known yet; the class is offered again when it is.
pub(super) fn find<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    (class, how): (&DueClass, Offer),
    leads: Leads,
) -> Option<(Leads, Option<Arc<Hosts>>)> {
    let route = match &leads {
        Ok(route) if route.to == NextHop::Mx => Arc::clone(route),
        _ => return Some((leads, None)),
    };
    let before = match crew.domains.look(class, how) {
        Look::Known(Ok(hosts)) => return Some((leads, Some(hosts))),
        Look::Known(Err(why)) => return Some((Err(why), None)),
        Look::Wait => return None,
        Look::Ask(before) => before,
    };
    let standing = match before {
        Some(Ok(hosts)) => {
            let sites = crew.sites.lock().unwrap_or_else(PoisonError::into_inner);
            sites.standing(&route, &hosts.names).unwrap_or(Standing::New)
        }
        Some(Err(_)) => Standing::Doubtful,
        None => Standing::New,
    };
    let (crew, options, key) = (Arc::clone(crew), crew.shared.options(), bare(&class.key).into_owned());
    crew.tasks.clone().spawn(async move {
        tokio::select! {
            answer = ask(&crew, &options, &key, standing) => {
                let failure = options.delivery.retry.down_for();
                let (classes, _) = crew.domains.answer(key, answer, failure);
                if !crew.shared.is_current(&options) {
                    crew.domains.forget();
                }
                for (class, how) in classes {
                    offer(&crew, class, how);
                }
                // What is missed here is found by a look.
                crew.routed.notify_one();
            }
            () = crew.drain.cancelled() => {}
        }
    });
    None
}

/// What a site needs to claim mail of this class now: the hosts of its domain, if the DNS names
/// them. `None`: it may not; the class is offered where it belongs.
#[expect(clippy::option_option, reason = "the two say different things")]
pub(super) fn serves<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    site: &Site,
    class: &DueClass,
) -> Option<Option<Arc<Hosts>>> {
    let Some(own) = site.hosts() else { return Some(None) };
    match crew.domains.known(&bare(&class.key)) {
        Some(Ok(hosts)) if hosts.names == own.names => Some(Some(hosts)),
        _ => {
            offer(crew, class.clone(), Offer::Again);
            crew.routed.notify_one();
            None
        }
    }
}

async fn ask<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    options: &RelayOptions,
    key: &RoutingKey,
    standing: Standing,
) -> Answer {
    let work = async {
        let domain = Domain::parse(key.as_str()).map_err(|_| MxError::NoHost)?;
        let (own_name, published) = (options.host_name.as_str(), &options.delivery.published);
        // Boxed, and made only when there is a place, since many tasks wait for one.
        Box::pin(MailHosts::of(&crew.shared.resolver, &domain, own_name, published)).await
    };
    let mail = lookup::within_bounds(crew, standing, work).await?.map_err(|error| unresolved(&error))?;
    Ok(Arc::new(Hosts::new(key.clone(), mail, options.delivery.mx_port)))
}

impl Domains {
    fn look(&self, class: &DueClass, offer: Offer) -> Look {
        let (mut state, key) = (self.state(), bare(&class.key));
        let before = match state.known(&key) {
            Some(known) if known.counts() => return Look::Known(known.answer.clone()),
            known => known.map(|known| known.answer.clone()),
        };
        let is_full = state.asked.len() >= offer.part_of(WAITING);
        let is_missed = match state.asked.entry(key.into_owned()) {
            Entry::Occupied(mut asked) => {
                let classes = asked.get_mut();
                let is_full = classes.len() >= offer.part_of(CLASSES);
                match classes.iter_mut().find(|(known, _)| known == class) {
                    Some((_, known)) if offer == Offer::Hint => {
                        *known = offer;
                        false
                    }
                    Some(_) => false,
                    None if is_full => true,
                    None => {
                        classes.push((class.clone(), offer.again()));
                        false
                    }
                }
            }
            Entry::Vacant(_) if is_full => true,
            Entry::Vacant(asked) => {
                asked.insert(vec![(class.clone(), offer.again())]);
                return Look::Ask(before);
            }
        };
        state.has_missed |= is_missed;
        Look::Wait
    }

    /// The answer that counts now.
    fn known(&self, key: &RoutingKey) -> Option<Answer> {
        self.state().known(key).filter(|known| known.counts()).map(|known| known.answer.clone())
    }

    /// Keeps an answer as long as the DNS says. A failure counts until the deliveries that are
    /// deferred for it come back. Returns the classes to be offered now, and `true` if a look at
    /// all due classes finds more.
    fn answer(&self, key: RoutingKey, answer: Answer, failure: Duration) -> (Vec<(DueClass, Offer)>, bool) {
        let failure = failure.max(LEAST_FAILURE);
        let counts = answer.as_ref().map_or(failure, |hosts| hosts.mail.ttl().unwrap_or(USUAL).clamp(LEAST, MOST));
        let octets = octets(&answer);
        let mut state = self.state();
        let classes = state.asked.remove(&key).unwrap_or_default();
        // Not for each of them, if there are many.
        let has_missed = state.has_missed && state.asked.len() <= WAITING / 2;
        state.has_missed &= !has_missed;
        state.newer.remove(&key);
        state.older.remove(&key);
        state.found.remove(&key);
        let is_full = state.newer.known.len() >= ANSWERS / 2;
        if is_full || state.newer.octets.saturating_add(octets) > OCTETS / 2 {
            state.older = std::mem::take(&mut state.newer);
        }
        state.newer.octets = state.newer.octets.saturating_add(octets);
        state.newer.known.insert(key, Known { until: Instant::now() + counts, answer, down: None });
        (classes, has_missed)
    }

    /// Forgets all answers: the DNS is asked again.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        (state.newer, state.older) = Default::default();
        state.found.clear();
    }

    /// The number of domains for each set of names, as far as answers are kept.
    pub(super) fn counts(&self) -> HashMap<Arc<str>, usize> {
        let state = self.state();
        let mut counts = HashMap::new();
        for known in state.newer.known.values().chain(state.older.known.values()).filter(|known| known.counts()) {
            if let Ok(hosts) = &known.answer {
                *counts.entry(Arc::clone(&hosts.names)).or_default() += 1;
            }
        }
        counts
    }

    /// The servers as the policies of a domain demand, if they were looked up within this time.
    pub(super) fn found(&self, key: &RoutingKey, within: Duration) -> Option<Arc<Found>> {
        let state = self.state();
        state.found.get(key).filter(|(at, _)| at.elapsed() < within).map(|(_, found)| Arc::clone(found))
    }

    pub(super) fn keep_found(&self, key: &RoutingKey, found: Arc<Found>) {
        let mut state = self.state();
        if state.found.len() >= FOUND {
            state.found.clear();
        }
        state.found.insert(key.clone(), (Instant::now(), found));
    }

    /// Marks all hosts of a domain as passed over, or not as its policies demand. Other domains of
    /// its site are not affected.
    pub(super) fn mark_down(&self, key: &RoutingKey, why: Unreachable, wait: Duration) {
        let until = Instant::now() + wait;
        if let Some(known) = self.state().known_mut(key) {
            known.down = Some(Box::new((until, why)));
        }
    }

    pub(super) fn mark_up(&self, key: &RoutingKey) {
        if let Some(known) = self.state().known_mut(key) {
            known.down = None;
        }
    }

    pub(super) fn down(&self, key: &RoutingKey) -> Option<Unreachable> {
        let state = self.state();
        let (until, why) = &**state.known(key)?.down.as_ref()?;
        (Instant::now() < *until).then(|| why.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn known(&self, key: &RoutingKey) -> Option<&Known> {
        self.newer.known.get(key).or_else(|| self.older.known.get(key))
    }

    fn known_mut(&mut self, key: &RoutingKey) -> Option<&mut Known> {
        self.newer.known.get_mut(key).or_else(|| self.older.known.get_mut(key))
    }
}

impl Answers {
    fn remove(&mut self, key: &RoutingKey) {
        if let Some(known) = self.known.remove(key) {
            self.octets = self.octets.saturating_sub(octets(&known.answer));
        }
    }
}

impl Known {
    fn counts(&self) -> bool {
        Instant::now() < self.until
    }
}

/// The key of the domain alone. Mail of all labels goes to the same hosts.
fn bare(key: &RoutingKey) -> Cow<'_, RoutingKey> {
    match key_parts(key) {
        (domain, Some(_)) => RoutingKey::new(domain).map_or(Cow::Borrowed(key), Cow::Owned),
        (_, None) => Cow::Borrowed(key),
    }
}

fn octets(answer: &Answer) -> usize {
    answer.as_ref().map_or(0, |hosts| hosts.octets())
}
