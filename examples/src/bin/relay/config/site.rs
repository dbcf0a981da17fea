//! How much single next hops may get: the keys of `[[site]]`.

use std::{collections::HashMap, net::IpAddr};

use posthaste::relay::{DomainPattern, Rate, SiteLimitTable, SiteLimits, SourceLimits};

use super::{
    file::File,
    findings::{At, Findings, Place},
    table::{Read, Table},
    values, values_of,
};

/// The limits of the next hops with these hosts. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Site {
    place: Place,
    hosts: Option<At<Vec<At<DomainPattern>>>>,
    connections: Option<At<u16>>,
    connects: Option<At<Rate>>,
    messages: Option<At<Rate>>,
    recipients: Option<At<Rate>>,
    per_source: Option<PerSource>,
}

/// What each source may send there. `None`: missing or wrong.
#[derive(Debug)]
struct PerSource {
    place: Place,
    connections: Option<At<u16>>,
    messages: Option<At<Rate>>,
}

/// A pattern, or an address as routes have it.
fn host(text: &str) -> Read<DomainPattern> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => values::pattern(&format!("[{address}]")),
        Ok(IpAddr::V6(address)) => values::pattern(&format!("[IPv6:{address}]")),
        Err(_) => values::pattern(text),
    }
}

impl Site {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let place = table.place();
        let keys = ["connections", "connects", "messages", "recipients", "per_source"];
        let has_limit = keys.iter().any(|key| table.has(key));
        let read = Self {
            place,
            hosts: table.full_list("hosts", true, findings, |value| host(values::text(value)?)),
            connections: table.take("connections", findings, values::positive),
            connects: table.take("connects", findings, values::rate),
            messages: table.take("messages", findings, values::rate),
            recipients: table.take("recipients", findings, values::rate),
            per_source: table.table("per_source", findings).map(|table| PerSource::read(table, findings)),
        };
        table.end(findings);
        if !has_limit {
            let keys = "`connections`, `connects`, `messages`, `recipients` or `per_source`";
            findings.warn(place, format_args!("it limits nothing; write {keys}"));
        }
        read
    }

    fn limits(&self) -> SiteLimits {
        let value = |rate: &Option<At<Rate>>| rate.as_ref().map(|rate| rate.value);
        let mut limits = SiteLimits::default();
        limits.connections = self.connections.as_ref().map(|most| most.value.into());
        limits.connects = value(&self.connects);
        limits.messages = value(&self.messages);
        limits.recipients = value(&self.recipients);
        limits.per_source = self.per_source.as_ref().map(PerSource::limits).unwrap_or_default();
        limits
    }
}

impl PerSource {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let place = table.place();
        let is_empty = !table.has("connections") && !table.has("messages");
        let read = Self {
            place,
            connections: table.take("connections", findings, values::positive),
            messages: table.take("messages", findings, values::rate),
        };
        table.end(findings);
        if is_empty {
            findings.warn(place, "it limits nothing; write `connections` or `messages`");
        }
        read
    }

    fn limits(&self) -> SourceLimits {
        let mut limits = SourceLimits::default();
        limits.connections = self.connections.as_ref().map(|most| most.value.into());
        limits.messages = self.messages.as_ref().map(|rate| rate.value);
        limits
    }

    /// Finds limits that come to nothing. `most`: the connections of all sources together.
    fn check(&self, file: &File, most: u16, findings: &mut Findings) {
        if !file.routes.iter().any(|route| route.sources.is_some()) {
            let remedy = "name some in `sources` of a [[route]], or take it out";
            findings.warn(self.place, format_args!("no route has sources, and it has no effect; {remedy}"));
        }
        if let Some(connections) = self.connections.as_ref().filter(|connections| connections.value > most) {
            let text = "are more than all sources together may have there";
            let remedy = "raise `connections` of this [[site]]";
            findings.warn(connections.place, format_args!("{} {text}, {most}; {remedy}", connections.value));
        }
    }
}

/// What the relay takes.
pub(super) fn table(file: &File) -> SiteLimitTable {
    let mut table = SiteLimitTable::default();
    for site in &file.sites {
        let hosts = site.hosts.as_ref().map(|hosts| values_of(&hosts.value)).unwrap_or_default();
        table.push(hosts, site.limits());
    }
    table
}

/// Finds hosts that an earlier table has, and numbers of connections that come to nothing.
pub(super) fn check(file: &File, findings: &mut Findings) {
    let mut known: HashMap<&DomainPattern, usize> = HashMap::new();
    let mut has_all = false;
    for (index, site) in file.sites.iter().enumerate() {
        if has_all {
            findings
                .warn(site.place, "an earlier one is for all hosts, \"*\", so this has no effect; write that one last");
            continue;
        }
        for host in site.hosts.iter().flat_map(|hosts| &hosts.value) {
            if *known.entry(&host.value).or_insert(index) != index {
                findings.warn(
                    host.place,
                    format_args!("`{}` stands in an earlier [[site]], which counts; take it out here", host.value),
                );
            }
            has_all |= host.value == DomainPattern::Any;
        }
        let most = file.delivery.concurrency.as_ref().map_or(200, |most| most.value);
        if let Some(connections) = site.connections.as_ref().filter(|connections| connections.value > most) {
            let text = "are more than all deliveries at once, `concurrency` of [delivery]";
            findings.warn(connections.place, format_args!("{} {text}, {most}; raise that", connections.value));
        }
        if let Some(per_source) = &site.per_source {
            let of_site = file.delivery.concurrency_per_site.as_ref().map_or(20, |most| most.value);
            let of_site = site.connections.as_ref().map_or(of_site, |most| most.value);
            per_source.check(file, of_site, findings);
        }
    }
}
