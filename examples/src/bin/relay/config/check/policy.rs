//! Who may send to whom: nothing by which strangers could send everywhere, and nothing without an
//! effect.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use posthaste::relay::{DomainPattern, IpNet, NetworkSet};

use crate::config::{
    Facts,
    file::File,
    findings::{At, Findings, Place},
};

/// Shorter prefixes belong to no single operator.
const NOBODYS_V4: u8 = 8;
const NOBODYS_V6: u8 = 16;
/// Shorter prefixes are those of a provider with all its customers.
const WIDE_V4: u8 = 16;
const WIDE_V6: u8 = 29;

pub(super) fn check(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    if !findings.has_error_in(&["hostname"]) {
        host_name(file, facts, findings);
    }
    if let Some(list) = &file.relay_from {
        networks(list, &RELAY, findings);
    }
    for listener in &file.listeners {
        for list in [&listener.proxies, &listener.xclient, &listener.xforward].into_iter().flatten() {
            networks(list, &SPEAK, findings);
        }
        if let (Some(proxies), Some(trusted)) = (&listener.proxies, &file.relay_from)
            && !findings.has_error_in(&["proxies", "relay_from"])
        {
            trusted_proxies(&proxies.value, &trusted.value, findings);
        }
    }
    refused(file, findings);
    if let Some(domains) = &file.relay_domains {
        relay_domains(&domains.value, facts, findings);
    }
    let mx = file.listeners.is_empty() || file.listeners.iter().any(|listener| !listener.is_submission());
    let lists = [
        file.relay_from.as_ref().map(|list| (list.place, list.value.is_empty())),
        file.relay_domains.as_ref().map(|list| (list.place, list.value.is_empty())),
    ];
    let rate = file.limits.recipients_per_hour.as_ref().map(|most| (most.place, false));
    for (place, _) in lists.into_iter().chain([rate]).flatten().filter(|(_, is_empty)| !is_empty && !mx) {
        let text = "clients have to log in at every listener; add a [[listener]] with role = \"mx\", or take it out";
        findings.warn(place, text);
    }
}

fn host_name(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    let place = file.hostname.as_ref().map_or(Place::absent("hostname"), |name| name.place);
    let name = facts.host_name.as_str();
    let lower = name.to_ascii_lowercase();
    let is_address = facts.host_name.address_literal().is_some() || name.parse::<IpAddr>().is_ok();
    let problem = if is_address {
        "is an address and no name"
    } else if lower == "localhost" || lower.starts_with("localhost.") || lower.ends_with(".localhost") {
        "is what every host calls itself"
    } else if !name.contains('.') {
        "is not a full name"
    } else {
        return;
    };
    let remedy = "write the name that DNS has for this host, such as \"relay.example.org\"";
    findings.warn(place, format_args!("`{name}` {problem}, and many hosts refuse mail from it; {remedy}"));
}

/// What the clients of some networks may do, for messages.
struct Right {
    /// That strangers have it.
    of_strangers: &'static str,
    of_all: &'static str,
    remedy: &'static str,
}

const RELAY: Right = Right {
    of_strangers: "strangers send everywhere through this relay",
    of_all: "all of it may send everywhere",
    remedy: "write your own networks, or let clients log in",
};
const SPEAK: Right = Right {
    of_strangers: "strangers say that they are any client",
    of_all: "all of it may say that it is any client",
    remedy: "write the addresses of your own proxies and filters",
};

fn networks(list: &At<Vec<At<IpNet>>>, right: &Right, findings: &mut Findings) {
    each_network(&list.value, right, findings);
    together(list.place, &list.value, right, findings);
}

/// Proxies that may relay: so may each client that they do not name.
fn trusted_proxies(proxies: &[At<IpNet>], trusted: &[At<IpNet>], findings: &mut Findings) {
    let real = |network: &At<IpNet>| NetworkSet::from(vec![network.value]).networks().first().copied();
    for proxy in proxies {
        let meets = |trusted: &&At<IpNet>| {
            let both = real(proxy).zip(real(trusted));
            both.is_some_and(|(proxy, trusted)| trusted.contains(&proxy) || proxy.contains(&trusted))
        };
        if let Some(trusted) = trusted.iter().find(meets) {
            let (net, all, line) = (proxy.value, trusted.value, findings.line(trusted.place));
            let text = format!(
                "`{net}` may send everywhere by `{all}` in line {line}, and so may clients that it does not name"
            );
            let remedy = "take it out there, or have the proxy connect from another address";
            findings.warn(proxy.place, format_args!("{text}; {remedy}"));
        }
    }
}

fn each_network(networks: &[At<IpNet>], right: &Right, findings: &mut Findings) {
    let Right { of_strangers, of_all, remedy } = right;
    for network in networks {
        let (net, place) = (network.value, network.place);
        let canonical = NetworkSet::from(vec![net]);
        let Some(real) = canonical.networks().first().copied() else { continue };
        match width(real) {
            Width::Nobodys => findings.error(place, format_args!("`{net}` lets {of_strangers}; {remedy}")),
            Width::Wide => {
                findings.warn(place, format_args!("`{net}` is a wide network on the Internet, and {of_all}; {remedy}"))
            }
            Width::Own => {}
        }
    }
    as_written(networks, findings);
}

/// Networks that say something else than they seem to, or nothing.
fn as_written(networks: &[At<IpNet>], findings: &mut Findings) {
    for (at, network) in networks.iter().enumerate() {
        let (net, place) = (network.value, network.place);
        if net.trunc() != net {
            let text = format!("`{net}` is an address within {}, and stands for all of that network", net.trunc());
            findings
                .warn(place, format_args!("{text}; write that network, or /{} for the one host", net.max_prefix_len()));
        }
        let mut others = networks.iter().enumerate().filter(|(other, _)| *other != at);
        let within = others.find(|(other, known)| {
            let known = known.value.trunc();
            known.contains(&net.trunc()) && (known != net.trunc() || *other < at)
        });
        if let Some((_, known)) = within {
            let text = format!("`{net}` is within `{}` in line {}", known.value, findings.line(known.place));
            findings.warn(place, format_args!("{text}; take it out"));
        }
    }
}

/// Networks that are harmless by themselves may be the Internet together.
fn together(place: Place, networks: &[At<IpNet>], right: &Right, findings: &mut Findings) {
    // `alone`: one of them is wide enough by itself, and was named.
    let all: NetworkSet = networks.iter().map(|network| network.value).collect();
    let alone = networks.iter().any(|network| {
        NetworkSet::from(vec![network.value]).networks().iter().any(|real| width(*real) == Width::Nobodys)
    });
    if let Some(joined) = all.networks().iter().find(|network| !alone && width(**network) == Width::Nobodys) {
        let Right { of_strangers, remedy, .. } = right;
        findings.error(place, format_args!("together the networks are `{joined}` and let {of_strangers}; {remedy}"));
    }
}

/// What is refused in vain, or although it may send.
fn refused(file: &File, findings: &mut Findings) {
    let refuse = &file.refuse;
    if let Some(networks) = &refuse.networks {
        as_written(&networks.value, findings);
        for trusted in file.relay_from.iter().flat_map(|list| &list.value) {
            let net = trusted.value;
            if let Some(refused) = networks.value.iter().find(|refused| refused.value.contains(&net)) {
                let text = format!("[refuse] turns all of `{net}` away in line {}", findings.line(refused.place));
                findings.warn(trusted.place, format_args!("{text}; take it out here or there"));
            }
        }
    }
    for names in [&refuse.hello, &refuse.senders].into_iter().flatten() {
        let mut known = HashMap::new();
        for name in &names.value {
            if let Some(line) = known.insert(name.value.to_lowercase(), findings.line(name.place)) {
                findings.warn(name.place, format_args!("`{}` stands in line {line} already; take it out", name.value));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Own,
    Wide,
    Nobodys,
}

/// How wide a network is.
fn width(network: IpNet) -> Width {
    let private: &[IpNet] = &[
        net(Ipv4Addr::new(10, 0, 0, 0), 8),
        net(Ipv4Addr::new(100, 64, 0, 0), 10),
        net(Ipv4Addr::new(127, 0, 0, 0), 8),
        net(Ipv4Addr::new(172, 16, 0, 0), 12),
        net(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        net(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    ];
    if private.iter().any(|private| private.contains(&network)) {
        return Width::Own;
    }
    let (nobodys, wide) = if network.addr().is_ipv4() { (NOBODYS_V4, WIDE_V4) } else { (NOBODYS_V6, WIDE_V6) };
    match network.prefix_len() {
        length if length < nobodys => Width::Nobodys,
        length if length < wide => Width::Wide,
        _ => Width::Own,
    }
}

fn net(address: impl Into<IpAddr>, length: u8) -> IpNet {
    IpNet::new_assert(address.into(), length)
}

fn relay_domains(domains: &[At<DomainPattern>], facts: &Facts<'_>, findings: &mut Findings) {
    let own = facts.host_name.as_str();
    let mut known = HashMap::new();
    for domain in domains {
        let place = domain.place;
        match &domain.value {
            DomainPattern::Any => {
                let text =
                    "`*` lets strangers send everywhere through this relay; write the domains that it is a relay for";
                findings.error(place, text);
            }
            DomainPattern::Exact(name) if name.eq_ignore_ascii_case(own) => {
                findings.warn(
                    place,
                    format_args!("`{name}` is this host's name, for which it takes mail anyway; take it out"),
                );
            }
            DomainPattern::Below(name) if !name.contains('.') => {
                let text =
                    format!("`*.{name}` is everything below a top-level domain, and strangers may send to all of it");
                findings.warn(place, format_args!("{text}; write the domains that it is a relay for"));
            }
            _ => {}
        }
        if let Some(before) = known.insert(&domain.value, place) {
            let line = findings.line(before);
            findings.warn(place, format_args!("`{}` stands in line {line} already; take it out", domain.value));
        }
    }
}
