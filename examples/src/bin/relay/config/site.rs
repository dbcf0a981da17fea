//! How much single next hops may get: the keys of `[[site]]`.

use std::{collections::HashMap, net::IpAddr};

use posthaste::relay::{DomainPattern, Rate, SiteLimitTable, SiteLimits};

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
        let has_limit = ["connections", "connects", "messages", "recipients"].iter().any(|key| table.has(key));
        let read = Self {
            place,
            hosts: table.full_list("hosts", true, findings, |value| host(values::text(value)?)),
            connections: table.take("connections", findings, values::positive),
            connects: table.take("connects", findings, values::rate),
            messages: table.take("messages", findings, values::rate),
            recipients: table.take("recipients", findings, values::rate),
        };
        table.end(findings);
        if !has_limit {
            findings.warn(place, "it limits nothing; write `connections`, `connects`, `messages` or `recipients`");
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
        limits
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
    }
}
