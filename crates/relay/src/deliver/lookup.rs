//! Looks up the hosts of a site and their addresses. This happens apart from the deliveries: a
//! look-up holds no place among them and no lease.

use std::{pin::pin, sync::Arc, time::Duration};

use posthaste_client::{
    Published, Resolver,
    mx::{self, MxError, NamedHost, Servers},
};
use posthaste_queue::Queue;
use posthaste_server::wire::{Domain, EnhancedCode};
use tokio::time::timeout;

use super::{
    flow::{PARK_AFTER, until_given_up},
    places::{Bounds, SILENT_FOR},
    site::{Site, Unreachable},
    weights::{Weight, Weights},
    worker::Crew,
};
use crate::{Diagnostic, HostGroup, NextHop, Route, WeightedHost, shared::Shared};

/// The most look-ups at once. `moving` are those that are answered soon or were asked just now;
/// half of them are kept for sites that answered lately. `silent` are those whose name servers are
/// silent. Each takes a few datagrams and a descriptor or two.
pub(super) const BOUNDS: Bounds = Bounds { moving: 200, silent: 300 };
/// The longest look-up of a site.
const LOOKUP: Duration = Duration::from_secs(30);

/// The hosts of a site.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) servers: Servers,
    /// In what order each attempt tries them.
    pub(super) weights: Weights,
    /// Why the other hosts have no address. `None`: there are no others.
    pub(super) missing: Option<Unreachable>,
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
    let options = crew.shared.options();
    let delivery = &options.delivery;
    // Boxed, since many tasks wait for it.
    let found = Box::pin(look_up(crew, site, route, &delivery.published)).await.map(Arc::new);
    match &found {
        // What other options have found counts no more.
        _ if !crew.shared.is_current(&options) => {}
        Ok(found) => site.keep_found(Arc::clone(found)),
        Err(why) => site.mark_down(why.clone(), delivery.retry.down_for()),
    }
    found
}

/// The hosts of a site without the TLS policies that its domain has published, looked up now.
pub(super) async fn find_without_policies<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    route: &Route,
) -> Result<Arc<Found>, Unreachable> {
    Box::pin(look_up(crew, site, route, &Published::default())).await.map(Arc::new)
}

/// Looks up within the bounds of all look-ups.
async fn look_up<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    route: &Route,
    published: &Published,
) -> Result<Found, Unreachable> {
    let no_answer =
        |text: &str| Unreachable { diagnostic: Diagnostic::own(EnhancedCode::new(4, 4, 3), text), is_permanent: false };
    let mut place = crew.lookups.take(site.standing()).await;
    let mut work = pin!(timeout(LOOKUP, ask(&crew.shared, site.name(), route, published)));
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
    shared: &Shared<Q, R>,
    domain: &str,
    route: &Route,
    published: &Published,
) -> Result<Found, Unreachable> {
    let options = shared.options();
    let (delivery, own_name) = (&options.delivery, options.host_name.as_str());
    let is_mx = route.to == NextHop::Mx;
    let mut weights = Weights::default();
    let servers = match &route.to {
        NextHop::Hosts(groups) => {
            let preferences = (0..=u16::MAX).chain(std::iter::repeat(u16::MAX));
            let mut named = Vec::new();
            for (HostGroup(hosts), preference) in groups.iter().zip(preferences) {
                for WeightedHost { name, port, weight } in hosts {
                    let (name, port): (Arc<str>, _) = (mx::ascii_name(name).into(), *port);
                    if hosts.len() > 1 {
                        weights.push(Weight { name: Arc::clone(&name), port, weight: *weight });
                    }
                    named.push(NamedHost { name, port, preference });
                }
            }
            mx::servers(&shared.resolver, &named, true).await
        }
        // No site has such a route, or looks for hosts.
        NextHop::Refuse(_) | NextHop::Discard | NextHop::Hold => Servers::default(),
        NextHop::Mx => {
            let domain = Domain::parse(domain).map_err(|_| unresolved(&MxError::NoHost))?;
            let to = (delivery.mx_port, delivery.allow_private);
            let usual = route.tls.clone().unproven();
            let policies = (published, &usual);
            let found = mx::servers_of_domain(&shared.resolver, &domain, own_name, to, policies).await;
            found.map_err(|error| unresolved(&error))?
        }
    };
    let mut missing = None;
    for (name, error) in &servers.missing {
        let why = unresolved(error);
        let diagnostic = Diagnostic { remote: Some((**name).to_owned()), ..why.diagnostic };
        // The operator may correct a name in the configuration.
        Unreachable::add(&mut missing, Unreachable { diagnostic, is_permanent: why.is_permanent && is_mx });
    }
    match missing {
        Some(why) if servers.targets.is_empty() => Err(why),
        None if servers.targets.is_empty() => Err(unresolved(&MxError::NoHost)),
        missing => Ok(Found { servers, weights, missing }),
    }
}

fn unresolved(error: &MxError) -> Unreachable {
    Unreachable { diagnostic: Diagnostic::mx(error), is_permanent: !error.is_transient() }
}
