//! Looks up the hosts of a site and their addresses. This happens apart from the deliveries: a
//! look-up holds no place among them and no lease.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use posthaste_client::{
    Answer, Resolver,
    mx::{self, MxError},
};
use posthaste_queue::Queue;
use posthaste_server::wire::{Domain, EnhancedCode};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    flow::{PARK_AFTER, until_given_up},
    places::{Bounds, SILENT_FOR},
    site::{Site, Unreachable},
    worker::Crew,
};
use crate::{Diagnostic, NextHop, Route, shared::Shared};

/// The most look-ups at once. `moving` are those that are answered soon or were asked just now;
/// half of them are kept for sites that answered lately. `silent` are those whose name servers are
/// silent. Each takes a few datagrams and a descriptor or two.
pub(super) const BOUNDS: Bounds = Bounds { moving: 200, silent: 300 };
/// The longest look-up of a site.
const LOOKUP: Duration = Duration::from_secs(30);
/// How long the other hosts have after the addresses of one are known.
const GRACE: Duration = Duration::from_secs(1);

/// The hosts of a site.
#[derive(Debug)]
pub(super) struct Found {
    /// In the order in which they are tried.
    pub(super) hosts: Vec<Host>,
    /// Why the other hosts have no address. `None`: there are no others.
    pub(super) missing: Option<Unreachable>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
    /// Lower values are tried first.
    pub(super) preference: u16,
    pub(super) addresses: Vec<IpAddr>,
}

/// The hosts of a site, found within this time or looked up now. A site without hosts is marked
/// down.
pub(super) async fn find<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    route: &Route,
    within: Duration,
) -> Result<Arc<Found>, Unreachable> {
    if let Some(found) = site.found(within) {
        return Ok(found);
    }
    let _one = site.looking.lock().await;
    // Another worker has looked them up since.
    if let Some(found) = site.found(within) {
        return Ok(found);
    }
    if let Some(why) = site.down() {
        return Err(why);
    }
    // Boxed, since many tasks wait for it.
    let found = Box::pin(look_up(crew, site, route)).await.map(Arc::new);
    match &found {
        Ok(found) => site.keep_found(Arc::clone(found)),
        Err(why) => site.mark_down(why.clone(), crew.shared.options.delivery.retry.down_for()),
    }
    found
}

/// Looks up within the bounds of all look-ups.
async fn look_up<Q: Queue, R: Resolver>(crew: &Crew<Q, R>, site: &Site, route: &Route) -> Result<Found, Unreachable> {
    let no_answer =
        |text: &str| Unreachable { diagnostic: Diagnostic::own(EnhancedCode::new(4, 4, 3), text), is_permanent: false };
    let mut place = crew.lookups.take(site.standing()).await;
    let mut work = pin!(timeout(LOOKUP, ask(&crew.shared, site.name(), route)));
    let answered = match timeout(PARK_AFTER, &mut work).await {
        Ok(answered) => Some(answered),
        Err(_) => {
            let mut given_up = place.park(Some(SILENT_FOR));
            tokio::select! {
                biased;
                answered = &mut work => Some(answered),
                () = until_given_up(&mut given_up) => None,
            }
        }
    };
    match answered {
        Some(Ok(found)) => found,
        Some(Err(_)) => Err(no_answer("no answer from DNS in time")),
        None => Err(no_answer("no answer from DNS while other names waited to be looked up")),
    }
}

async fn ask<Q: Queue, R: Resolver>(
    shared: &Arc<Shared<Q, R>>,
    domain: &str,
    route: &Route,
) -> Result<Found, Unreachable> {
    let named: Vec<(String, u16, u16)> = match &route.to {
        NextHop::Hosts(hosts) => {
            let preferences = (0..=u16::MAX).chain(std::iter::repeat(u16::MAX));
            let hosts = hosts.iter().zip(preferences);
            hosts.map(|((host, port), preference)| (mx::ascii_name(host), *port, preference)).collect()
        }
        NextHop::Mx => {
            let options = &shared.options;
            let found = match Domain::parse(domain) {
                Ok(domain) => mx::hosts(&shared.resolver, &domain, options.host_name.as_str()).await,
                Err(_) => Err(MxError::NoHost),
            };
            let hosts = found.map_err(|error| unresolved(&error))?;
            hosts.records.into_iter().map(|host| (host.exchange, options.delivery.mx_port, host.preference)).collect()
        }
    };
    let is_mx = route.to == NextHop::Mx;
    let any = shared.options.delivery.allow_private || !is_mx;
    let mut answers: Vec<Option<Result<Answer<IpAddr>, MxError>>> = Vec::new();
    answers.resize_with(named.len(), || None);
    let mut asked = JoinSet::new();
    for (index, (host, ..)) in named.iter().enumerate() {
        let (shared, host) = (Arc::clone(shared), host.clone());
        asked.spawn(async move { (index, mx::addresses(&shared.resolver, &host, any).await) });
    }
    // Hosts without an answer by then are left out. LOOKUP ends all of it earlier.
    let mut until = Instant::now() + 2 * LOOKUP;
    // No task panics or is aborted.
    while let Ok(Some(Ok((index, answer)))) = timeout_at(until, asked.join_next()).await {
        if answer.is_ok() {
            until = until.min(Instant::now() + GRACE);
        }
        if let Some(slot) = answers.get_mut(index) {
            *slot = Some(answer);
        }
    }
    let (mut hosts, mut missing) = (Vec::new(), None);
    for ((name, port, preference), answer) in named.into_iter().zip(answers) {
        let why = match answer {
            Some(Ok(answer)) => {
                hosts.push(Host { name, port, preference, addresses: answer.records });
                continue;
            }
            Some(Err(error)) => {
                let found = unresolved(&error);
                // The operator may correct a name in the configuration.
                Unreachable { is_permanent: found.is_permanent && is_mx, ..found }
            }
            None => Unreachable {
                diagnostic: Diagnostic::own(EnhancedCode::new(4, 4, 3), "no answer from DNS in time"),
                is_permanent: false,
            },
        };
        let why = Unreachable { diagnostic: Diagnostic { remote: Some(name), ..why.diagnostic }, ..why };
        Unreachable::add(&mut missing, why);
    }
    match missing {
        Some(why) if hosts.is_empty() => Err(why),
        None if hosts.is_empty() => Err(unresolved(&MxError::NoHost)),
        missing => Ok(Found { hosts, missing }),
    }
}

fn unresolved(error: &MxError) -> Unreachable {
    Unreachable { diagnostic: Diagnostic::mx(error), is_permanent: !error.is_transient() }
}
