//! Routes: where mail goes to, how it is secured, and who the relay logs in as. From the file to
//! what the relay takes.

use std::{path::Path, sync::Arc};

use posthaste::client::{Identity, Tls};
use posthaste::relay::{DomainPattern, MailboxPattern, NextHop, RecipientTable, RouteTable};
use posthaste::server::{
    rustls::ClientConfig,
    wire::{Domain, address::AddressLiteral},
};
use toml::de::DeValue;

use super::{
    check,
    file::File,
    findings::{At, Findings},
    login::RouteLogin,
    table::{Read, Table, kind},
    tls,
    to::{Hop, SecretFile},
    values, values_of,
};

/// A route as the file has it. `None`: missing or wrong.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) domains: Option<At<Vec<At<DomainPattern>>>>,
    pub(super) to: Option<At<To>>,
    pub(super) tls: Option<At<RouteTls>>,
    /// What verifies its hosts in place of `authorities` of `[delivery]`. `None` inside: the file
    /// has a mistake.
    pub(super) authorities: Option<At<Option<Arc<ClientConfig>>>>,
    /// `None` inside: it has a mistake.
    pub(super) login: Option<At<Option<RouteLogin>>>,
    pub(super) recipients: Option<At<Mailboxes>>,
    pub(super) chunking: Option<At<bool>>,
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

#[derive(Debug, Clone)]
pub(super) enum To {
    Mx,
    Hosts(Vec<At<(String, u16)>>),
    /// To what is no SMTP host.
    Hop(Hop),
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
        let domains = table.full_list_or_file("domains", folder, findings, values::pattern);
        let to = match table.is_list("to") {
            true => table
                .full_list("to", true, findings, values::host_and_port)
                .map(|list| At { value: To::Hosts(list.value), place: list.place }),
            false => table.need("to", findings, mx),
        };
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
        let recipients = match table.is_text("recipients") {
            true => table.take("recipients", findings, values::mailboxes),
            false => table
                .list_or_file("recipients", folder, findings, values::mailbox_pattern)
                .map(|list| At { value: Mailboxes::Known(list.value), place: list.place }),
        };
        let chunking = table.take("chunking", findings, values::flag);
        let secret = SecretFile::read(&mut table, folder, findings);
        table.end(findings);
        Self { domains, to, tls, authorities, login, recipients, chunking, secret }
    }

    /// How much TLS it has, never [`RouteTls::Required`]: that becomes `Verified` if the route
    /// names its hosts by name, and `Unverified` otherwise.
    pub(super) fn tls_in_force(&self) -> RouteTls {
        let names_a_host = match self.hop() {
            Some(Hop::Lmtp(name, _)) => !name.starts_with('['),
            _ => self.hosts().iter().any(|host| !host.value.0.starts_with('[')),
        };
        match self.tls.as_ref().map_or(RouteTls::Opportunistic, |tls| tls.value) {
            RouteTls::Required if names_a_host => RouteTls::Verified,
            RouteTls::Required => RouteTls::Unverified,
            tls => tls,
        }
    }

    /// The hosts that it names.
    pub(super) fn hosts(&self) -> &[At<(String, u16)>] {
        match self.to.as_ref().map(|to| &to.value) {
            Some(To::Hosts(hosts)) => hosts,
            Some(To::Mx | To::Hop(_)) | None => &[],
        }
    }

    /// The next hop, if it is no SMTP host.
    pub(super) fn hop(&self) -> Option<&Hop> {
        match self.to.as_ref().map(|to| &to.value) {
            Some(To::Hop(hop)) => Some(hop),
            Some(To::Mx | To::Hosts(_)) | None => None,
        }
    }

    /// Returns `true` if certificates prove who its hosts are.
    pub(super) fn is_verified(&self) -> bool {
        let is_host = self.hop().is_none_or(|hop| matches!(hop, Hop::Lmtp(..)));
        match is_host {
            true => matches!(self.tls_in_force(), RouteTls::Verified | RouteTls::Implicit),
            false => self.hop().is_some_and(Hop::is_https),
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
        let mut route = match &self.to.as_ref()?.value {
            To::Mx => posthaste::relay::Route::new(NextHop::Mx),
            To::Hosts(hosts) => posthaste::relay::Route::new(NextHop::Hosts(values_of(hosts))),
            To::Hop(hop) => {
                let own = self.authorities.as_ref().and_then(|authorities| authorities.value.as_ref());
                // A server on this host needs none.
                let config = if hop.is_https() { own.or(verified) } else { Some(any) };
                hop.route(self.secret.as_ref().and_then(|secret| secret.value.as_ref()), config)?
            }
        };
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
        if let (Some(domains), Some(route)) = (&written.domains, written.build(verified, any)) {
            table.push(values_of(&domains.value), route);
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
    for (domains, route) in file.routes.iter().filter_map(|route| Some((route.domains.as_ref()?, route))) {
        let mailboxes = match route.recipients.as_ref().map(|mailboxes| &mailboxes.value) {
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
    let literal = Domain::parse(host).ok().and_then(|domain| match domain.address_literal() {
        Some(AddressLiteral::Ip(address)) => Some(address.to_canonical()),
        _ => None,
    });
    let name = host.to_ascii_lowercase();
    literal.map_or_else(|| name == "localhost" || name.ends_with(".localhost"), |address| address.is_loopback())
}

fn mx(value: &DeValue<'_>) -> Read<To> {
    match value.as_str() {
        Some("mx") => Ok(To::Mx),
        Some(word) => Hop::read(word).map_or_else(|| Err(format!("`{word}` is no next hop")), |hop| hop.map(To::Hop)),
        None => Err(format!("it is {} and no next hop", kind(value))),
    }
}
