//! What a running relay cannot change: its name, its queue, its sockets, and what the memory and
//! the descriptors of its clients and deliveries have been planned by. It keeps them, and takes
//! everything else of a configuration that is read again.

use std::fmt::Debug;

use posthaste::server::wire::Domain;

use super::{
    DEFAULT_ADDRESS, Facts,
    file::{Dane, File, Listener},
    findings::{At, Findings, Place},
    is_wanted,
};

/// The keys that only a new start changes, as a configuration has them.
#[derive(Debug)]
pub(crate) struct Fixed {
    keys: Vec<Key>,
    host_name: Domain,
    listeners: Vec<Listener>,
    connections: Option<At<u16>>,
    concurrency: Option<At<u16>>,
    dane: Option<At<Dane>>,
    mta_sts: Option<At<bool>>,
}

/// A key with its value.
#[derive(Debug)]
struct Key {
    /// With the address of its listener.
    name: String,
    /// File and line.
    place: String,
    value: String,
}

/// A key that the running relay cannot change.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) key: String,
    /// A line with its place, both values and the remedy.
    pub(crate) line: String,
}

/// Keys of a listener that are fixed.
const OF_LISTENERS: [&str; 5] = ["address", "tls", "proxies", "xclient", "xforward"];

impl Fixed {
    pub(super) fn of(file: &File, facts: &Facts<'_>, findings: &Findings) -> Self {
        Self {
            keys: keys(file, facts, findings),
            host_name: facts.host_name.clone(),
            listeners: listeners(file),
            connections: file.limits.connections.clone(),
            concurrency: file.delivery.concurrency.clone(),
            dane: file.delivery.dane.clone(),
            mta_sts: file.delivery.mta_sts.clone(),
        }
    }

    /// The keys of the `wanted` configuration that the running relay, which has these, cannot
    /// change.
    pub(super) fn differences(&self, wanted: &Self) -> Vec<Difference> {
        let now = |wanted: &Key| self.keys.iter().find(|now| now.name == wanted.name);
        let pairs = wanted.keys.iter().filter_map(|wanted| Some((now(wanted)?, wanted)));
        let differ = pairs.filter(|(now, wanted)| now.value != wanted.value);
        let difference = |(now, wanted): (&Key, &Key)| {
            let Key { name, place, value } = wanted;
            let text = format!("it stays {} in the running relay, and only a new start makes it {value}", now.value);
            let line = format!("{place}: {name}: {text}; restart the relay, or write it as it was");
            Difference { key: name.clone(), line }
        };
        differ.map(difference).collect()
    }

    /// Puts these values in the place of those that were read, as far as they count for what a
    /// running relay takes. Listeners are known by their addresses.
    pub(super) fn keep(&self, file: &mut File, facts: &mut Facts<'_>) {
        facts.host_name.clone_from(&self.host_name);
        let wanted = listeners(file);
        let kept = self.listeners.iter().map(|own| {
            let same = wanted.iter().find(|wanted| address(wanted) == address(own)).cloned();
            same.map_or_else(
                || own.clone(),
                |new| {
                    let Listener { address, tls, proxies, xclient, xforward, .. } = own.clone();
                    Listener { address, tls, proxies, xclient, xforward, ..new }
                },
            )
        });
        file.listeners = kept.collect();
        file.limits.connections.clone_from(&self.connections);
        file.delivery.concurrency.clone_from(&self.concurrency);
        file.delivery.dane.clone_from(&self.dane);
        file.delivery.mta_sts.clone_from(&self.mta_sts);
    }
}

/// Returns `true` for a key as [`Written`](super::Written) names it, if a running relay never
/// changes it.
pub(crate) fn is_fixed(key: &str) -> bool {
    const OF_ALL: [&str; 13] = [
        "hostname",
        "queue",
        "dns.servers",
        "limits.connections",
        "limits.connections_per_network",
        "limits.ipv4_prefix",
        "limits.ipv6_prefix",
        "limits.envelope_memory",
        "limits.failed_logins",
        "limits.login_pace",
        "overload.memory_limit",
        "delivery.concurrency",
        "delivery.dane",
    ];
    let of_listener = key.strip_prefix("listener ").and_then(|rest| rest.split_once('.'));
    OF_ALL.contains(&key)
        || key == "delivery.mta_sts"
        || of_listener.is_some_and(|(_, key)| OF_LISTENERS.contains(&key))
}

fn address(listener: &Listener) -> Option<std::net::SocketAddr> {
    listener.address.as_ref().map(|address| address.value)
}

/// Those of the file, or the one that stands for none.
fn listeners(file: &File) -> Vec<Listener> {
    if !file.listeners.is_empty() {
        return file.listeners.clone();
    }
    let place = Place::absent("listener");
    vec![Listener {
        place,
        address: Some(At { value: DEFAULT_ADDRESS, place }),
        role: None,
        tls: None,
        tolerate: None,
        greeting_delay: None,
        proxies: None,
        xclient: None,
        xforward: None,
    }]
}

/// Lists the keys of a configuration.
fn keys(file: &File, facts: &Facts<'_>, findings: &Findings) -> Vec<Key> {
    let mut all = Vec::new();
    let mut add = |name: String, place: Place, value: String| {
        all.push(Key { name, place: findings.place(place), value });
    };
    let place = |at: Option<Place>, key| at.unwrap_or(Place::absent(key));
    let hostname = place(file.hostname.as_ref().map(|at| at.place), "hostname");
    add("hostname".to_owned(), hostname, facts.host_name.to_string());
    let queue = place(file.queue.as_ref().map(|at| at.place), "queue");
    add("queue".to_owned(), queue, facts.queue.display().to_string());
    let dns = place(file.dns.as_ref().map(|at| at.place), "dns");
    add("dns.servers".to_owned(), dns, list(file.dns.as_ref()));
    let tls = file.tls.first().map(|tls| tls.place);
    let number = if tls.is_some() { "there" } else { "not there" };
    add("tls".to_owned(), place(tls, "tls"), number.to_owned());
    let listeners = listeners(file);
    let mut addresses: Vec<_> = listeners.iter().filter_map(address).map(|address| address.to_string()).collect();
    addresses.sort();
    let first = listeners.first().map_or(Place::absent("listener"), |listener| listener.place);
    add("listener".to_owned(), first, addresses.join(" and "));
    for listener in &listeners {
        let name = address(listener).map_or_else(String::new, |address| address.to_string());
        let mut add = |key, at: Option<Place>, value| {
            add(format!("listener {name}: {key}"), at.unwrap_or(listener.place), value);
        };
        let tls = listener.starts_tls(tls.is_some());
        add("tls", listener.tls.as_ref().map(|at| at.place), format!("{tls:?}").to_lowercase());
        for (key, networks) in
            [("proxies", &listener.proxies), ("xclient", &listener.xclient), ("xforward", &listener.xforward)]
        {
            add(key, networks.as_ref().map(|at| at.place), list(networks.as_ref()));
        }
    }
    let (limits, delivery) = (&file.limits, &file.delivery);
    let mut number = |key: &'static str, at: Option<(Place, String)>| {
        let (at, value) = at.map_or((Place::absent(key), DEFAULT.to_owned()), |(at, value)| (at, value));
        add(key.to_owned(), at, value);
    };
    number("limits.connections", both(limits.connections.as_ref()));
    number("overload.memory_limit", both(file.overload.memory_limit.as_ref()));
    number("limits.connections_per_network", both(limits.connections_per_network.as_ref()));
    number("limits.ipv4_prefix", both(limits.ipv4_prefix.as_ref()));
    number("limits.ipv6_prefix", both(limits.ipv6_prefix.as_ref()));
    number("limits.envelope_memory", both(limits.envelope_memory.as_ref()));
    number("limits.failed_logins", both(limits.failed_logins.as_ref()));
    number("limits.login_pace", both(limits.login_pace.as_ref()));
    number("delivery.concurrency", both(delivery.concurrency.as_ref()));
    number("delivery.dane", both(delivery.dane.as_ref()));
    number("delivery.mta_sts", both(delivery.mta_sts.as_ref()));
    if is_wanted(delivery.mta_sts.as_ref()) {
        // Policies are still fetched with those before.
        number("delivery.authorities", both(delivery.authorities.as_ref()));
    }
    all
}

/// What stands for a key that is not written.
const DEFAULT: &str = "the default";

fn both<T: Debug>(at: Option<&At<T>>) -> Option<(Place, String)> {
    at.map(|at| (at.place, one(Some(at))))
}

fn one<T: Debug>(at: Option<&At<T>>) -> String {
    at.map_or_else(|| DEFAULT.to_owned(), |at| format!("{:?}", at.value).to_lowercase())
}

fn list<T: Debug>(at: Option<&At<Vec<At<T>>>>) -> String {
    let values = |at: &At<Vec<At<T>>>| at.value.iter().map(|one| format!("{:?}", one.value)).collect::<Vec<_>>();
    at.map_or_else(|| DEFAULT.to_owned(), |at| format!("[{}]", values(at).join(", ")))
}
