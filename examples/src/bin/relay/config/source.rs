//! Sources of connections to next hops: from the file to the pools of routes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use jiff::Timestamp;
use posthaste::relay;
use posthaste::server::wire::Domain;
use toml::de::DeValue;

use super::{
    file::File,
    findings::{At, Findings},
    route::Route,
    table::{Read, Table},
    values, values_of,
};

/// A source as the file has it. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Source {
    name: Option<At<String>>,
    addresses: Option<At<Vec<At<IpAddr>>>>,
    hello: Option<At<Domain>>,
    warm_up: Option<WarmUp>,
}

/// How many messages it sends on its first days. `None`: missing or wrong.
#[derive(Debug)]
struct WarmUp {
    begins: Option<At<Timestamp>>,
    messages: Option<At<Vec<At<u32>>>>,
}

/// A source that a route names, and its weight.
#[derive(Debug)]
pub(super) struct Drawn {
    name: String,
    weight: u16,
}

impl Source {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            name: table.need("name", findings, values::source_name),
            addresses: table.full_list("addresses", false, findings, values::ip),
            hello: table.take("hello", findings, values::domain),
            warm_up: table.table("warm_up", findings).map(|table| WarmUp::read(table, findings)),
        };
        table.end(findings);
        read
    }

    fn build(&self) -> Option<relay::Source> {
        let mut source = relay::Source::new(self.name.as_ref()?.value.clone());
        for address in self.addresses.iter().flat_map(|list| &list.value) {
            match address.value {
                IpAddr::V4(address) => source.v4 = Some(address),
                IpAddr::V6(address) => source.v6 = Some(address),
            }
        }
        source.hello = self.hello.as_ref().map(|hello| hello.value.clone());
        source.warm_up = self.warm_up.as_ref().and_then(WarmUp::build);
        Some(source)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.value == name)
    }
}

impl WarmUp {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            begins: table.need("begins", findings, values::time),
            messages: table.full_list("messages", true, findings, values::of_a_day),
        };
        table.end(findings);
        read
    }

    fn build(&self) -> Option<relay::WarmUp> {
        let days = values_of(&self.messages.as_ref()?.value);
        Some(relay::WarmUp::new(self.begins.as_ref()?.value.into(), days))
    }
}

/// A name, and after a blank its weight.
pub(super) fn drawn(value: &DeValue<'_>) -> Read<Drawn> {
    let (name, weight) = values::weighted(values::text(value)?)?;
    Ok(Drawn { name: name.to_owned(), weight })
}

/// The pool of a route. `None`: it names no source.
pub(super) fn pool(written: &[Source], route: &Route) -> Option<relay::SourcePool> {
    let named = &route.sources.as_ref()?.value;
    let source = |At { value: Drawn { name, weight }, .. }: &At<Drawn>| {
        let source = written.iter().find(|source| source.is_called(name))?;
        Some((source.build()?, *weight))
    };
    Some(relay::SourcePool::new(named.iter().filter_map(source)))
}

/// Sources that cannot be used, and names that no source has.
pub(super) fn check(file: &File, findings: &mut Findings) {
    for (index, source) in file.sources.iter().enumerate() {
        if let Some(addresses) = &source.addresses {
            for (at, address) in addresses.value.iter().enumerate() {
                let earlier = addresses.value.iter().take(at);
                if earlier.into_iter().any(|known| known.value.is_ipv4() == address.value.is_ipv4()) {
                    let text = "a source has one address of each family";
                    findings.error(address.place, format_args!("{text}; write another [[source]] for this one"));
                }
                if let Err(error) = UdpSocket::bind(SocketAddr::new(address.value, 0)) {
                    let text = format!("{} is no address of this machine: {error}", address.value);
                    let remedy = "the source is left aside until it has it; add the address, or take it out";
                    findings.warn(address.place, format_args!("{text}; {remedy}"));
                }
            }
        }
        let Some(name) = &source.name else { continue };
        if file.sources.iter().take(index).any(|known| known.is_called(&name.value)) {
            let text = format!("a source before is called `{}`", name.value);
            findings.error(name.place, format_args!("{text}; write another name"));
        }
        let named = file.routes.iter().filter_map(|route| route.sources.as_ref()).flat_map(|list| &list.value);
        if !named.into_iter().any(|drawn| drawn.value.name == name.value) {
            let remedy = "name it in `sources` of a [[route]], or take it out";
            findings.warn(name.place, format_args!("no route uses the source; {remedy}"));
        }
    }
    for route in &file.routes {
        for (index, named) in route.sources.iter().flat_map(|list| &list.value).enumerate() {
            let name = &named.value.name;
            if !file.sources.iter().any(|source| source.is_called(name)) {
                let remedy = "write a [[source]] of this name, or name another";
                findings.error(named.place, format_args!("there is no source `{name}`; {remedy}"));
            }
            let mut earlier = route.sources.iter().flat_map(|list| &list.value).take(index);
            if earlier.any(|known| known.value.name == *name) {
                findings.error(named.place, format_args!("`{name}` stands there already; write one weight for it"));
            }
        }
        if let Some(sources) = route.sources.as_ref().filter(|_| !route.has_connections()) {
            let text = "this route makes no connection that could come from them";
            findings.warn(sources.place, format_args!("{text}; take it out"));
        }
    }
}
