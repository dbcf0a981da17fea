//! What a running relay cannot change: its name, its queue, its sockets, and what the memory and
//! the descriptors of its clients and deliveries have been planned by.

use std::fmt::Debug;

use super::{
    Facts,
    file::File,
    findings::{At, Findings, Place},
    is_wanted,
};

/// A key with its value, which only a new start changes.
#[derive(Debug)]
pub(crate) struct Fixed {
    /// The key, with the number of its table if there are several.
    key: String,
    /// File and line.
    place: String,
    value: String,
}

/// Lists the keys of a configuration.
pub(super) fn of(file: &File, facts: &Facts<'_>, findings: &Findings) -> Vec<Fixed> {
    let mut all = Vec::new();
    let mut add = |key: String, place: Place, value: String| {
        all.push(Fixed { key, place: findings.place(place), value });
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
    let listener = place(file.listeners.first().map(|listener| listener.place), "listener");
    add("listener".to_owned(), listener, format!("{} of them", file.listeners.len()));
    for (listener, number) in file.listeners.iter().zip(1..) {
        let mut add = |key, at: Option<Place>, value| {
            add(format!("listener {number}: {key}"), at.unwrap_or(listener.place), value);
        };
        add("address", listener.address.as_ref().map(|at| at.place), one(listener.address.as_ref()));
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
        // Policies are fetched with them.
        number("delivery.authorities", both(delivery.authorities.as_ref()));
    }
    all
}

/// The keys of the `wanted` configuration that the running relay cannot change, a line for each.
pub(crate) fn differences(now: &[Fixed], wanted: &[Fixed]) -> Vec<String> {
    let pairs = wanted.iter().filter_map(|wanted| Some((now.iter().find(|now| now.key == wanted.key)?, wanted)));
    let differ = pairs.filter(|(now, wanted)| now.value != wanted.value);
    let line = |(now, wanted): (&Fixed, &Fixed)| {
        let Fixed { key, place, value } = wanted;
        let text = format!("it is {} in the running relay, and only a new start makes it {value}", now.value);
        format!("{place}: {key}: {text}; restart the relay, or write it as it was")
    };
    differ.map(line).collect()
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
