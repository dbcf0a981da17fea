//! The mailboxes of domains that every client may send to: known, or said to be unknown.

use std::collections::BTreeMap;

use posthaste::relay::{DomainPattern, DomainSet, MailboxPattern};
use posthaste::server::wire::Domain;

use super::paths::{Owner, Taken};
use crate::config::{
    file::File,
    findings::{At, Findings, Place},
    next_hop::To,
    route::{Mailboxes, Route},
};

/// `taken`: the routes of all domains. `own`: this host's name.
pub(super) fn check(file: &File, taken: &Taken, own: &DomainPattern, findings: &mut Findings) {
    if findings.has_error_in(&["hostname", "relay_domains", "file", "domains", "mailboxes"]) {
        return;
    }
    let open = open(file, taken, own);
    for (index, route) in file.routes.iter().enumerate() {
        let Some(domains) = route.domains.as_ref().filter(|_| !route.when.is_written()) else { continue };
        match (&route.mailboxes, open.get(&index)) {
            // Nothing comes back from there.
            (None, Some(_)) if matches!(route.to, Some(At { value: To::Refuse(_) | To::Discard, .. })) => {}
            (None, Some((domain, _))) => unknown(domain, Place { key: "mailboxes", ..domains.place }, "", findings),
            (Some(At { value: Mailboxes::Unknown, place }), None)
                // So may they to this host's name, if the route leads that away.
                if route.hosts().next().is_none() || taken.owner(own).is_none_or(|owner| owner.route != index) =>
            {
                let text = "not every client may send to the route's domains, and it has no effect";
                findings.warn(*place, format_args!("{text}; take it out"));
            }
            (Some(At { value: Mailboxes::Known(list), place }), _) => known(route, list, *place, findings),
            (Some(_), _) | (None, None) => {}
        }
    }
    if let Some((domain, place)) = open.get(&0).filter(|_| file.routes.is_empty()) {
        let place = Place { key: "mailboxes", ..*place };
        unknown(domain, place, "add a [[route]] for it, and ", findings);
    }
}

/// The routes with domains that every client may send to. Each has one of these, and its place.
fn open<'f>(file: &'f File, taken: &Taken, own: &DomainPattern) -> BTreeMap<usize, (&'f DomainPattern, Place)> {
    let (mut open, mut served) = (BTreeMap::new(), Taken::default());
    for domain in file.relay_domains.iter().flat_map(|domains| &domains.value) {
        // Mail for this host's own name has rules of its own.
        if domain.value == *own || domain.value == DomainPattern::Any {
            continue;
        }
        served.add(&domain.value, Owner { route: 0, place: domain.place });
        if let Some(owner) = taken.owner(&domain.value) {
            open.entry(owner.route).or_insert((&domain.value, domain.place));
        }
    }
    for (index, route) in file.routes.iter().enumerate() {
        let within = |domain: &&At<DomainPattern>| served.owner(&domain.value).is_some();
        if let Some(domain) = route.domains.iter().flat_map(|domains| &domains.value).find(within) {
            open.entry(index).or_insert((&domain.value, domain.place));
        }
    }
    open
}

fn unknown(domain: &DomainPattern, place: Place, also: &str, findings: &mut Findings) {
    let text = format!("every client may send to unknown mailboxes of `{domain}`");
    let effect = "reports of failure go to senders that may be forged (backscatter)";
    let remedy = "list the mailboxes in mailboxes = { file = \"...\" }, or say mailboxes = \"unknown\"";
    findings.warn(place, format_args!("{text}, and {effect}; {also}{remedy}"));
}

/// A list of nothing, and mailboxes that mail by this route cannot have.
fn known(route: &Route, list: &[At<MailboxPattern>], place: Place, findings: &mut Findings) {
    if list.is_empty() {
        let text = "the list is empty, and only the postmaster gets mail by this route";
        findings.warn(place, format_args!("{text}; write its mailboxes, or \"unknown\""));
    }
    let domains = route.domains.iter().flat_map(|domains| &domains.value);
    let domains: DomainSet = domains.map(|domain| domain.value.clone()).collect();
    for entry in list {
        let (name, is_within) = match &entry.value {
            MailboxPattern::Mailbox(mailbox) => (mailbox.to_string(), domains.contains(&mailbox.domain())),
            MailboxPattern::Domain(DomainPattern::Exact(name)) => {
                (name.clone(), Domain::parse(name).is_ok_and(|domain| domains.contains(&domain)))
            }
            MailboxPattern::Domain(DomainPattern::Any | DomainPattern::Below(_)) => continue,
        };
        if !is_within {
            let text = format!("`{name}` is at none of the route's domains, and has no effect");
            findings.warn(entry.place, format_args!("{text}; take it out"));
        }
    }
}
