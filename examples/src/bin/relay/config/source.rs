//! Sources of connections to next hops: from the file to the pools of routes.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use posthaste::client::tls::{ClientCertificate, Pem, TlsError};
use posthaste::relay::{self, Rate};
use posthaste::server::wire::Domain;
use toml::de::DeValue;

use super::{
    certificates::{Chain, quietly},
    file::File,
    findings::{At, Findings, Place},
    route::{Route, RouteTls, literal},
    table::{Read, Table},
    tls::found,
    values, values_of,
};

/// A source as the file has it. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Source {
    name: Option<At<String>>,
    addresses: Option<At<Vec<At<IpAddr>>>>,
    hello: Option<At<Domain>>,
    warm_up: Option<WarmUp>,
    messages: Option<At<Rate>>,
    certificate: Option<Certificate>,
}

/// The certificate of a source, and its key.
#[derive(Debug)]
struct Certificate {
    place: Place,
    key: Option<At<PathBuf>>,
    /// `None`: it or its key has a mistake.
    value: Option<ClientCertificate>,
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
    /// Reads the table, and the files that it names in the folder.
    pub(super) fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let read = Self {
            name: table.need("name", findings, values::source_name),
            addresses: table.full_list("addresses", false, findings, values::ip),
            hello: table.take("hello", findings, values::domain),
            warm_up: table.table("warm_up", findings).map(|table| WarmUp::read(table, findings)),
            messages: table.take("messages", findings, values::rate),
            certificate: Certificate::read(&mut table, folder, findings),
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
        source.messages = self.messages.as_ref().map(|rate| rate.value);
        source.certificate = self.certificate.as_ref().and_then(|certificate| certificate.value.clone());
        Some(source)
    }

    /// The file with the key of its certificate.
    pub(super) fn key(&self) -> Option<&At<PathBuf>> {
        self.certificate.as_ref()?.key.as_ref()
    }

    /// Returns `true` if it has an address of the family of this one, or leaves that to the system.
    fn reaches(&self, address: IpAddr) -> bool {
        let is_of_family = |own: &At<IpAddr>| own.value.is_ipv4() == address.is_ipv4();
        self.addresses.as_ref().is_none_or(|own| own.value.iter().any(is_of_family))
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.value == name)
    }
}

impl Certificate {
    /// Reads both files. `None`: neither is written.
    fn read(table: &mut Table<'_>, folder: &Path, findings: &mut Findings) -> Option<Self> {
        if !table.has("certificate") && !table.has("key") {
            return None;
        }
        let place = table.place();
        let certificate = table.need("certificate", findings, values::path);
        let key = table.need("key", findings, values::path);
        let pem = certificate.as_ref().and_then(|name| {
            let file = folder.join(&name.value);
            let pem = found(name.place, Pem::file(&file), findings)?;
            let chain = found(name.place, Chain::of(&file, &pem), findings)?;
            if let Some(doubt) = chain.doubt("next hops") {
                findings.warn(name.place, doubt);
            }
            Some((name.place, pem))
        });
        let key_pem = key.as_ref().and_then(|name| {
            let pem = found(name.place, Pem::file(folder.join(&name.value)), findings)?;
            found(name.place, pem.private_key(), findings).map(|_| (name.place, pem))
        });
        let value = pem.zip(key_pem).and_then(|((place, pem), (key_place, key_pem))| {
            let fits = quietly(|| ClientCertificate::new(&pem, &key_pem));
            let is_of_the_key = matches!(fits, Err(TlsError::KeyMismatch { .. } | TlsError::UnusableKey { .. }));
            found(if is_of_the_key { key_place } else { place }, fits, findings)
        });
        Some(Self { place: certificate.map_or(place, |name| name.place), key, value })
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
        let mut uses = file.routes.iter().filter(|route| draws(route, &name.value)).peekable();
        if uses.peek().is_none() {
            let remedy = "name it in `sources` of a [[route]], or take it out";
            findings.warn(name.place, format_args!("no route uses the source; {remedy}"));
        } else if let Some(certificate) = &source.certificate
            && uses.all(|route| route.tls_in_force() == RouteTls::Off)
        {
            let remedy = "write another `tls` for a route that uses the source, or take it out";
            findings.warn(certificate.place, format_args!("its routes have no TLS, and it has no effect; {remedy}"));
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
        families(file, route, findings);
    }
}

/// Returns `true` if a source of this name is among those of a route.
fn draws(route: &Route, name: &str) -> bool {
    route.sources.iter().flat_map(|sources| &sources.value).any(|drawn| drawn.value.name == name)
}

/// Hosts that a route names by an address that none of its sources can reach.
fn families(file: &File, route: &Route, findings: &mut Findings) {
    let sources =
        file.sources.iter().filter(|source| source.name.as_ref().is_some_and(|name| draws(route, &name.value)));
    let sources: Vec<_> = sources.collect();
    let hosts = route.hosts().map(|host| (host.place, &*host.value.name));
    for (place, name) in hosts {
        let Some(address) = literal(name) else { continue };
        if sources.is_empty() || sources.iter().any(|source| source.reaches(address)) {
            continue;
        }
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let text = format!("no source of this route has an {family} address, so nothing reaches {address}");
        findings.warn(place, format_args!("{text}; give one of them such an address, or take the host out"));
    }
}
