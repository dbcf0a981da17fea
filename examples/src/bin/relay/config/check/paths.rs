//! Where mail goes to: every route can be taken, none leads back, and what is taken from clients
//! leads away.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use posthaste::relay::DomainPattern;

use super::{
    listeners::{covers, is_local},
    recipients, takes_submissions,
};
use crate::config::{
    DEFAULT_ADDRESS, Facts,
    file::File,
    findings::{At, Findings, Place},
    next_hop::{Host, To},
    route::{Route, is_loopback, literal},
};

/// Which pattern of the routes has which domains first.
#[derive(Debug, Default)]
pub(super) struct Taken {
    any: Option<Owner>,
    exact: HashMap<String, Owner>,
    below: HashMap<String, Owner>,
}

/// A route, and where its pattern stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) route: usize,
    pub(super) place: Place,
}

impl Taken {
    /// Who has all domains of a pattern.
    pub(super) fn owner(&self, pattern: &DomainPattern) -> Option<Owner> {
        let of = |name: &str, same: Option<&Owner>| {
            let parents = name.match_indices('.').filter_map(|(at, _)| self.below.get(name.get(at + 1..)?));
            parents.chain(same).chain(&self.any).min_by_key(|owner| owner.route).copied()
        };
        match pattern {
            DomainPattern::Any => self.any,
            DomainPattern::Exact(name) => of(name, self.exact.get(name)),
            DomainPattern::Below(name) => of(name, self.below.get(name)),
        }
    }

    /// Returns `true` if some domain of the pattern, at least, has an owner. `parents`: those of
    /// all names, from [`parents`](Self::parents).
    fn has_some_of(&self, pattern: &DomainPattern, parents: &HashSet<&str>) -> bool {
        let is_parent = matches!(pattern, DomainPattern::Below(parent) if parents.contains(&**parent));
        is_parent || self.owner(pattern).is_some()
    }

    /// The names above those of all patterns.
    fn parents(&self) -> HashSet<&str> {
        let names = self.exact.keys().chain(self.below.keys());
        names.flat_map(|name| name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..))).collect()
    }

    pub(super) fn add(&mut self, pattern: &DomainPattern, owner: Owner) {
        match pattern {
            DomainPattern::Any => drop(self.any.get_or_insert(owner)),
            DomainPattern::Exact(name) => drop(self.exact.entry(name.clone()).or_insert(owner)),
            DomainPattern::Below(name) => drop(self.below.entry(name.clone()).or_insert(owner)),
        }
    }
}

pub(super) fn check(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    let mut taken = Taken::default();
    for (route, written) in file.routes.iter().enumerate() {
        shadowed(&mut taken, route, written, findings);
        leads_back(file, facts, written, findings);
    }
    // What a route with a mistake in it has, is not known.
    if findings.has_error_in(&["route", "domains", "file", "to"])
        && (file.routes.is_empty() || file.routes.iter().any(is_unclear))
    {
        return;
    }
    if file.routes.is_empty() {
        taken.any = Some(Owner { route: 0, place: Place::absent("route") });
    }
    let leads_away = |owner: Owner| file.routes.get(owner.route).is_some_and(leads_away);
    let parents = taken.parents();
    for domain in file.relay_domains.iter().flat_map(|domains| &domains.value) {
        if domain.value != DomainPattern::Any && !taken.has_some_of(&domain.value, &parents) {
            let text = format!("no route has `{}`, and mail for it is refused", domain.value);
            findings.error(domain.place, format_args!("{text}; add a [[route]] for it, or take it out"));
        }
    }
    let own = DomainPattern::Exact(facts.host_name.as_str().to_ascii_lowercase());
    let own_leads_away = taken.owner(&own).is_some_and(leads_away);
    if !findings.has_error_in(&["hostname", "postmaster"]) {
        own_name(file, facts, &taken, &own, own_leads_away, findings);
    }
    if let Some(postmaster) = &file.postmaster {
        let domain = postmaster.value.domain();
        let pattern = DomainPattern::Exact(domain.as_str().to_ascii_lowercase());
        if pattern == own && !own_leads_away || taken.owner(&pattern).is_none() {
            let text = format!("no route leads to `{domain}`, where the postmaster's mail is to go");
            findings
                .error(postmaster.place, format_args!("{text}; write a mailbox at another domain, or add a [[route]]"));
        }
    }
    everywhere(file, &taken, findings);
    recipients::check(file, &taken, &own, findings);
    if !findings.has_error_in(&["hostname", "postmaster", "relay_from", "relay_domains", "file", "listener", "role"]) {
        takes_nothing(file, own_leads_away, findings);
    }
}

/// Patterns whose domains earlier routes have already, or this one.
fn shadowed(taken: &mut Taken, route: usize, written: &Route, findings: &mut Findings) {
    if written.when.is_written() {
        return behind(taken, written, findings);
    }
    let Some(domains) = &written.domains else { return };
    let mut shadowed = Vec::new();
    for domain in &domains.value {
        match taken.owner(&domain.value) {
            Some(owner) => shadowed.push((domain, owner)),
            None => taken.add(&domain.value, Owner { route, place: domain.place }),
        }
    }
    let all = shadowed.len() == domains.value.len();
    if let Some((_, owner)) = shadowed.first().filter(|(_, owner)| all && owner.route != route) {
        let text = format!(
            "no mail takes this route: earlier ones, the first in line {}, have all of its domains",
            findings.line(owner.place)
        );
        findings.warn(domains.place, format_args!("{text}; put it before those routes, or take it out"));
        return;
    }
    for (domain, owner) in shadowed {
        let text = format!("line {} has `{}` already", findings.line(owner.place), domain.value);
        findings.warn(domain.place, format_args!("{text}; take it out here or there"));
    }
}

/// A route with conditions after routes that have all mail of its domains.
fn behind(taken: &Taken, written: &Route, findings: &mut Findings) {
    let domains = written.domains.as_ref().map_or(&[][..], |domains| &domains.value);
    let mut owners: Vec<_> = domains.iter().map(|domain| taken.owner(&domain.value)).collect();
    if written.domains.is_none() {
        owners.push(taken.any);
    }
    if let Some(owners) = owners.into_iter().collect::<Option<Vec<_>>>()
        && let Some(owner) = owners.first()
        && let Some(to) = &written.to
    {
        let text = format!(
            "no mail takes this route: earlier ones, the first in line {}, have all mail of its domains",
            findings.line(owner.place)
        );
        findings.warn(to.place, format_args!("{text}; put it before those routes, or take it out"));
    }
}

fn is_unclear(route: &Route) -> bool {
    (route.domains.is_none() && !route.when.is_written()) || route.to.is_none()
}

/// Returns `true` if mail for this host's own name can go by a route.
fn leads_away(route: &Route) -> bool {
    !matches!(route.to, Some(At { value: To::Mx | To::Refuse(_), .. }))
}

/// Hosts that are this relay itself, and hosts that stand there twice.
fn leads_back(file: &File, facts: &Facts<'_>, route: &Route, findings: &mut Findings) {
    let mut listeners: Vec<_> =
        file.listeners.iter().filter_map(|listener| Some(listener.address.as_ref()?.value)).collect();
    if file.listeners.is_empty() {
        listeners.push(DEFAULT_ADDRESS);
    }
    let mut known = HashMap::new();
    for host in route.hosts() {
        let Host { name, port, .. } = &host.value;
        if let Some(own) = listeners.iter().find(|listener| reaches(name, *port, **listener, facts)) {
            let text = format!("`{name}:{port}` is this relay's own listener on {own}, and mail would go in circles");
            findings.error(host.place, format_args!("{text}; write the host that has the mailboxes"));
        }
        if let Some(line) = known.insert((name.to_ascii_lowercase(), *port), findings.line(host.place)) {
            findings.warn(host.place, format_args!("`{name}:{port}` stands in line {line} already; take it out"));
        }
    }
}

/// Returns `true` if a connection to a host ends at a listener.
fn reaches(name: &str, port: u16, listener: SocketAddr, facts: &Facts<'_>) -> bool {
    if port != listener.port() {
        return false;
    }
    let bound = listener.ip().to_canonical();
    match literal(name).map(|address| address.to_canonical()) {
        // A connection to no address goes to this host.
        Some(address) if address.is_unspecified() => bound.is_unspecified() || bound.is_loopback(),
        Some(address) => address == bound || (covers(bound, address) && is_local(address)),
        None => {
            let name = name.to_ascii_lowercase();
            let node = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
            let is_own = name == facts.host_name.as_str().to_ascii_lowercase() || name == node;
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            is_own || (is_loopback(&name) && (bound.is_loopback() || covers(bound, loopback)))
        }
    }
}

/// This host has no mailboxes. Mail for its own name is refused unless a route names the hosts that
/// have them.
fn own_name(
    file: &File,
    facts: &Facts<'_>,
    taken: &Taken,
    own: &DomainPattern,
    leads_away: bool,
    findings: &mut Findings,
) {
    if leads_away {
        return;
    }
    let written = file.hostname.as_ref().map_or(Place::absent("hostname"), |name| name.place);
    let name = &facts.host_name;
    match taken
        .exact
        .keys()
        .any(|exact| *own == DomainPattern::Exact(exact.clone()))
        .then(|| taken.owner(own))
        .flatten()
    {
        Some(owner) => {
            let text = format!("DNS leads mail for `{name}`, this host's own name, back here, and it is refused");
            findings.warn(owner.place, format_args!("{text}; write the hosts that have its mailboxes, or take it out"));
        }
        None if file.postmaster.is_none() => {
            let text =
                format!("no route leads mail for `{name}` away from here, and it is refused, the postmaster's too");
            let remedy = "write `postmaster` with a mailbox elsewhere, or add a [[route]] for that name";
            findings.warn(written, format_args!("{text} (RFC 5321 section 4.5.1); {remedy}"));
        }
        None => {}
    }
}

/// Clients that may send to any domain expect that there is a way to any. Reports need one too: a
/// sender may be anywhere.
fn everywhere(file: &File, taken: &Taken, findings: &mut Findings) {
    let relays = file.relay_from.as_ref().is_some_and(|list| !list.value.is_empty()) || takes_submissions(file);
    let takes_mail =
        relays || file.relay_domains.as_ref().is_some_and(|list| !list.value.is_empty()) || file.postmaster.is_some();
    if let Some(last) = file.routes.last()
        && takes_mail
        && taken.any.is_none()
        && let Some(domains) = &last.domains
    {
        let text = match relays {
            true => "no route is for all other domains, and mail and reports for them are refused",
            false => "no route is for all other domains, so senders there never hear that their mail was not delivered",
        };
        findings.warn(domains.place, format_args!("{text}; add a [[route]] with domains = [\"*\"] at the end"));
    }
}

/// A listener at which every recipient is refused.
fn takes_nothing(file: &File, own_leads_away: bool, findings: &mut Findings) {
    let is_empty = |list: Option<bool>| list.unwrap_or(true);
    let nothing = is_empty(file.relay_from.as_ref().map(|list| list.value.is_empty()))
        && is_empty(file.relay_domains.as_ref().map(|list| list.value.is_empty()))
        && file.postmaster.is_none()
        && !own_leads_away;
    let mx = file.listeners.iter().find(|listener| !listener.is_submission());
    if nothing && (mx.is_some() || file.listeners.is_empty()) {
        let place = mx.map_or(Place::absent("listener"), |listener| listener.place);
        let text = "it refuses all mail; write `relay_from`, `relay_domains` or `postmaster`, or let clients \
                    log in";
        findings.warn(place, text);
    }
}
