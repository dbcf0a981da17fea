//! Routes: where mail goes to, how it is secured, and who the relay logs in as. From the file to
//! what the relay takes.

use std::{net::IpAddr, path::Path, sync::Arc};

use posthaste::client::{Identity, Protocol, Tls};
use posthaste::relay::{DomainPattern, MailboxPattern, NextHop, RecipientTable, RouteTable};
use posthaste::server::{
    rustls::ClientConfig,
    wire::{Domain, address::AddressLiteral},
};

use super::{
    check,
    conditions::{Conditions, some_of},
    file::File,
    findings::{At, Findings},
    login::RouteLogin,
    next_hop::{Host, To},
    source::{self, Drawn},
    table::Table,
    tls,
    to::{Hop, SecretFile},
    values, values_of,
};

/// A route as the file has it. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) when: Conditions,
    pub(super) domains: Option<At<Vec<At<DomainPattern>>>>,
    pub(super) to: Option<At<To>>,
    pub(super) tls: Option<At<RouteTls>>,
    /// What verifies its hosts in place of `authorities` of `[delivery]`. `None` inside: the file
    /// has a mistake.
    pub(super) authorities: Option<At<Option<Arc<ClientConfig>>>>,
    /// `None` inside: it has a mistake.
    pub(super) login: Option<At<Option<RouteLogin>>>,
    pub(super) mailboxes: Option<At<Mailboxes>>,
    pub(super) chunking: Option<At<bool>>,
    /// The sources of its connections, by name.
    pub(super) sources: Option<At<Vec<At<Drawn>>>>,
    /// `None` inside: it has a mistake.
    pub(super) secret: Option<At<Option<SecretFile>>>,
}

/// The mailboxes of its domains.
#[derive(Debug)]
pub(super) enum Mailboxes {
    Unknown,
    /// These, and the postmasters.
    Known(Vec<At<MailboxPattern>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteTls {
    Off,
    Opportunistic,
    /// Verified where the route names a host by its name, and otherwise not.
    Required,
    Verified,
    Unverified,
    /// Verified, and from the first octet.
    Implicit,
}

impl Route {
    /// Reads the table, and the files that it names in the folder.
    pub(super) fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let when = Conditions::read(&mut table, folder, findings);
        let domains = match table.has("domains") || !when.is_written() {
            true => table.full_list_or_file("domains", folder, findings, values::pattern),
            false => None,
        };
        let to = To::read(&mut table, findings);
        let tls = table.take("tls", findings, values::route_tls);
        let authorities = table.take("authorities", findings, values::path);
        let authorities = authorities.map(|name| {
            let place = name.place;
            At { value: tls::verified(Some(&name), folder, findings), place }
        });
        let login = table.table("login", findings).map(|table| {
            let place = table.place();
            At { value: RouteLogin::read(table, folder, findings), place }
        });
        let mailboxes = match table.is_text("mailboxes") {
            true => table.take("mailboxes", findings, values::mailboxes),
            false => table
                .list_or_file("mailboxes", folder, findings, values::mailbox_pattern)
                .map(|list| At { value: Mailboxes::Known(list.value), place: list.place }),
        };
        let chunking = table.take("chunking", findings, values::flag);
        let sources = table.full_list("sources", false, findings, source::drawn);
        let secret = SecretFile::read(&mut table, folder, findings);
        table.end(findings);
        Self { when, domains, to, tls, authorities, login, mailboxes, chunking, sources, secret }
    }

    /// How much TLS it has, never [`RouteTls::Required`]: that becomes `Verified` if the route
    /// names its hosts by name, and `Unverified` otherwise.
    pub(super) fn tls_in_force(&self) -> RouteTls {
        let names_a_host = self.hosts().any(|host| !host.value.name.starts_with('['));
        match self.tls.as_ref().map_or(RouteTls::Opportunistic, |tls| tls.value) {
            RouteTls::Required if names_a_host => RouteTls::Verified,
            RouteTls::Required => RouteTls::Unverified,
            tls => tls,
        }
    }

    /// The hosts that it names.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &At<Host>> {
        let groups: &[Vec<_>] = match self.to.as_ref().map(|to| &to.value) {
            Some(To::Hosts(groups)) => groups,
            Some(To::Mx | To::Refuse(_) | To::Discard | To::Hold | To::Hop(_)) | None => &[],
        };
        groups.iter().flatten()
    }

    /// The next hop, if it is no host.
    pub(super) fn hop(&self) -> Option<&Hop> {
        match &self.to.as_ref()?.value {
            To::Hop(hop) => Some(hop),
            To::Mx | To::Hosts(_) | To::Refuse(_) | To::Discard | To::Hold => None,
        }
    }

    /// Returns `true` if it makes connections that have a source.
    pub(super) fn has_connections(&self) -> bool {
        match self.to.as_ref().map(|to| &to.value) {
            Some(To::Refuse(_) | To::Discard | To::Hold | To::Hop(_)) => false,
            Some(To::Mx | To::Hosts(_)) | None => true,
        }
    }

    /// Returns `true` if certificates prove who its hosts are.
    pub(super) fn is_verified(&self) -> bool {
        match self.hop() {
            None => matches!(self.tls_in_force(), RouteTls::Verified | RouteTls::Implicit),
            Some(hop) => hop.is_https(),
        }
    }

    /// Its TLS. `None`: nothing verifies its hosts, an error that was found before.
    fn client_tls(&self, verified: Option<&Arc<ClientConfig>>, any: &Arc<ClientConfig>) -> Option<Tls> {
        let own = self.authorities.as_ref().and_then(|authorities| authorities.value.as_ref());
        let verified = || own.or(verified).map(|config| Identity::Verified(Arc::clone(config)));
        match self.tls_in_force() {
            RouteTls::Off => Some(Tls::Off),
            RouteTls::Opportunistic => Some(Tls::Opportunistic(Arc::clone(any))),
            RouteTls::Required | RouteTls::Unverified => Some(Tls::Required(Identity::Unverified(Arc::clone(any)))),
            RouteTls::Verified => verified().map(Tls::Required),
            RouteTls::Implicit => verified().map(Tls::Implicit),
        }
    }

    /// What the relay takes.
    fn build(&self, verified: Option<&Arc<ClientConfig>>, any: &Arc<ClientConfig>) -> Option<posthaste::relay::Route> {
        let to = &self.to.as_ref()?.value;
        let mut route = match to.next_hop() {
            Some(next_hop) => posthaste::relay::Route::new(next_hop),
            None => {
                let hop = self.hop()?;
                let own = self.authorities.as_ref().and_then(|authorities| authorities.value.as_ref());
                // A server on this host needs none.
                let config = if hop.is_https() { own.or(verified) } else { Some(any) };
                hop.route(self.secret.as_ref().and_then(|secret| secret.value.as_ref()), config)?
            }
        };
        if self.hosts().any(|host| host.value.is_lmtp) {
            route.protocol = Protocol::Lmtp;
        }
        route.tls = self.client_tls(verified, any)?;
        route.credentials = self.own_login().map(RouteLogin::login);
        route.chunking = check::is_on(self.chunking.as_ref());
        Some(route)
    }

    fn own_login(&self) -> Option<&RouteLogin> {
        self.login.as_ref()?.value.as_ref()
    }
}

/// Where mail goes to: as the file says, or everything by MX.
pub(super) fn table(file: &File, verified: Option<&Arc<ClientConfig>>, any: &Arc<ClientConfig>) -> RouteTable {
    let mut table = RouteTable::empty();
    for written in &file.routes {
        let Some(mut route) = written.build(verified, any) else { continue };
        route.sources = source::pool(&file.sources, written);
        let domains = written.domains.as_ref().map(|domains| values_of(&domains.value));
        if let Some(mut rule) = written.when.rule(route.clone()) {
            rule.domains = domains.map(|domains| domains.into_iter().collect());
            // That no two have one name is checked.
            let _ = table.push_rule(rule);
        } else if let Some(domains) = domains {
            table.push(domains, route);
        }
    }
    if table.is_empty() {
        let mut route = posthaste::relay::Route::new(NextHop::Mx);
        route.tls = Tls::Opportunistic(Arc::clone(any));
        table = RouteTable::all(route);
    }
    table
}

/// The mailboxes that exist, by route. `None`: no route has a list.
pub(super) fn recipients(file: &File) -> Option<RecipientTable> {
    let mut table = RecipientTable::default();
    let mut has_list = false;
    // A route with conditions has some mail of its domains alone.
    let by_domain = file.routes.iter().filter(|route| !route.when.is_written());
    for (domains, route) in by_domain.filter_map(|route| Some((route.domains.as_ref()?, route))) {
        let mailboxes = match route.mailboxes.as_ref().map(|mailboxes| &mailboxes.value) {
            Some(Mailboxes::Known(list)) => {
                has_list = true;
                values_of(list).into_iter().collect()
            }
            // Its domains are its own, whatever later routes know.
            Some(Mailboxes::Unknown) | None => [MailboxPattern::Domain(DomainPattern::Any)].into_iter().collect(),
        };
        table.push(values_of(&domains.value), mailboxes);
    }
    has_list.then_some(table)
}

/// The logins of the routes.
pub(super) fn logins(file: &File) -> Vec<RouteLogin> {
    file.routes.iter().filter_map(Route::own_login).cloned().collect()
}

/// Returns `true` for a host, by its name or its literal, that can only be this one.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    let is_named = || name == "localhost" || name.ends_with(".localhost");
    literal(host).map_or_else(is_named, |address| address.to_canonical().is_loopback())
}

/// The address of a host that is a literal.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let domain = Domain::parse(host).ok()?;
    if let AddressLiteral::Ip(address) = domain.address_literal()? { Some(address) } else { None }
}

/// What the routes are, in order, for people.
pub(super) fn described(file: &File) -> Vec<String> {
    let described = |route: &Route| {
        let mut when = route.when.described();
        let domains = route.domains.iter().map(|domains| {
            let domains: Vec<_> = domains.value.iter().map(|domain| domain.value.to_string()).collect();
            some_of("domains", &domains)
        });
        when.splice(0..0, domains);
        let name = route.when.name().map_or_else(String::new, |name| format!("{name}: "));
        let to = route.to.as_ref().map_or_else(String::new, |to| to.value.text());
        format!("{name}{} -> {to}", when.join("; "))
    };
    match &file.routes[..] {
        [] => vec!["domains * -> mx".to_owned()],
        routes => routes.iter().map(described).collect(),
    }
}
