//! Looks up the addresses of the hosts of a site. This happens apart from the deliveries: a
//! look-up holds no place among them and no lease.

use std::{future::Future, path::Path, pin::pin, sync::Arc, time::Duration};

use posthaste_client::{
    Published, Resolver, Target,
    mx::{self, MxError, NamedHost, Servers},
};
use posthaste_queue::Queue;
use posthaste_server::wire::EnhancedCode;
use tokio::time::timeout;

use super::{
    domains::Hosts,
    flow::{PARK_AFTER, until_given_up},
    places::{Bounds, SILENT_FOR, Standing},
    site::{Site, Unreachable},
    weights::{Weight, Weights},
    worker::Crew,
};
use crate::{Diagnostic, HostGroup, NextHop, RelayOptions, Route, WeightedHost, route, shared::Shared};

/// The most look-ups at once. `moving` are those that are answered soon or were asked just now;
/// half of them are kept for sites that answered lately. `silent` are those whose name servers are
/// silent. Each takes a few datagrams and a descriptor or two.
pub(super) const BOUNDS: Bounds = Bounds { moving: 200, silent: 300 };
/// The longest look-up.
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

impl Found {
    /// Returns `true` if a policy about TLS forbids some of the hosts.
    pub(super) fn passes_over(&self) -> bool {
        self.servers.missing.iter().any(|(_, why)| matches!(why, MxError::TlsPolicy(_)))
    }
}

/// The hosts of a site, found within this time or looked up now. Policies that domains have
/// published are left aside. A site without hosts is marked down.
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
    let (options, none) = (crew.shared.options(), Published::default());
    let work = ask(&crew.shared, &options, route, site.hosts(), &none);
    // Boxed, since many tasks wait for it.
    let found = Box::pin(within_bounds(crew, site.standing(), work)).await.flatten().map(Arc::new);
    match &found {
        // What other options have found counts no more.
        _ if !crew.shared.is_current(&options) => {}
        Ok(found) => site.keep_found(Arc::clone(found)),
        Err(why) => site.mark_down(why.clone(), options.delivery.retry.down_for()),
    }
    found
}

/// The hosts of a domain as its policies demand, found within this time or looked up now. A domain
/// without hosts is marked down, and its site is not.
pub(super) async fn find_for<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    route: &Route,
    hosts: &Arc<Hosts>,
) -> Result<Arc<Found>, Unreachable> {
    let options = crew.shared.options();
    let delivery = &options.delivery;
    let work = ask(&crew.shared, &options, route, Some(hosts), &delivery.published);
    let found = Box::pin(within_bounds(crew, site.standing(), work)).await.flatten().map(Arc::new);
    match &found {
        // What other options have found counts no more.
        _ if !crew.shared.is_current(&options) => {}
        Ok(found) => crew.domains.keep_found(&hosts.key, Arc::clone(found)),
        Err(why) => crew.domains.mark_down(&hosts.key, why.clone(), delivery.retry.down_for()),
    }
    found
}

/// Looks up within the bounds of all look-ups.
pub(super) async fn within_bounds<Q, R, T>(
    crew: &Crew<Q, R>,
    standing: Standing,
    work: impl Future<Output = T>,
) -> Result<T, Unreachable> {
    let no_answer =
        |text: &str| Unreachable { diagnostic: Diagnostic::own(EnhancedCode::new(4, 4, 3), text), is_permanent: false };
    let mut place = crew.lookups.take(standing, &Arc::default()).await;
    let mut work = pin!(timeout(LOOKUP, work));
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
        Some(Ok(found)) => Ok(found),
        Some(Err(_)) => Err(no_answer("no answer from DNS in time")),
        None => Err(no_answer("no answer from DNS while other names waited to be looked up")),
    }
}

async fn ask<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    options: &RelayOptions,
    route: &Route,
    hosts: Option<&Arc<Hosts>>,
    published: &Published,
) -> Result<Found, Unreachable> {
    let is_mx = route.to == NextHop::Mx;
    let mut weights = Weights::default();
    let servers = match &route.to {
        NextHop::Hosts(groups) => {
            let preferences = (0..=u16::MAX).chain(std::iter::repeat(u16::MAX));
            let (mut named, mut sockets) = (Vec::new(), Vec::new());
            for (HostGroup(hosts), preference) in groups.iter().zip(preferences) {
                for WeightedHost { name, port, weight } in hosts {
                    let socket = route::socket(name);
                    let own: Arc<str> =
                        if socket.is_some() { name.as_str().into() } else { mx::ascii_name(name).into() };
                    let port = if socket.is_some() { 0 } else { *port };
                    if hosts.len() > 1 {
                        weights.push(Weight { name: Arc::clone(&own), port, weight: *weight });
                    }
                    match socket {
                        Some(path) => sockets.push(Target::new(own, Path::new(path), preference)),
                        None => named.push(NamedHost { name: own, port, preference }),
                    }
                }
            }
            let mut servers = mx::servers(&shared.resolver, &named, true).await;
            servers.targets.append(&mut sockets);
            servers.targets.sort_by_key(|target| target.preference);
            servers
        }
        // No site has such a route, or looks for hosts.
        NextHop::Agent(_) | NextHop::Refuse(_) | NextHop::Discard | NextHop::Hold => Servers::default(),
        NextHop::Mx => {
            let hosts = hosts.ok_or_else(|| unresolved(&MxError::NoHost))?;
            let to = (options.delivery.mx_port, options.delivery.allow_private);
            hosts.mail.servers(&shared.resolver, to, (published, &route.tls.clone().unproven())).await
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

pub(super) fn unresolved(error: &MxError) -> Unreachable {
    Unreachable { diagnostic: Diagnostic::mx(error), is_permanent: !error.is_transient() }
}
