//! The file as it is written. Each value is checked by itself, so that each mistake is found and
//! has a place.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use posthaste::relay::{DomainPattern, IpNet};
use posthaste::server::{
    ScramKey,
    wire::{Domain, Mailbox, Secret},
};
use toml::de::DeTable;

use super::{
    dkim::DkimKey,
    findings::{At, Findings, Place},
    overload::Overload,
    reports::Reports,
    route::Route,
    site::Site,
    source::Source,
    submission::{Rights, Submission},
    table::Table,
    values,
};

/// The values of the file. `None`: missing or wrong; what is wrong is among the findings.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) hostname: Option<At<Domain>>,
    pub(super) postmaster: Option<At<Mailbox>>,
    pub(super) queue: Option<At<PathBuf>>,
    pub(super) relay_from: Option<At<Vec<At<IpNet>>>>,
    pub(super) relay_domains: Option<At<Vec<At<DomainPattern>>>>,
    pub(super) listeners: Vec<Listener>,
    pub(super) refuse: Refuse,
    pub(super) tls: Vec<TlsFiles>,
    pub(super) accounts: Vec<Account>,
    pub(super) routes: Vec<Route>,
    pub(super) sites: Vec<Site>,
    pub(super) sources: Vec<Source>,
    pub(super) dkim: Vec<DkimKey>,
    pub(super) submission: Submission,
    pub(super) reports: Reports,
    pub(super) dns: Option<At<Vec<At<SocketAddr>>>>,
    pub(super) offers: Offers,
    pub(super) delivery: Delivery,
    pub(super) limits: Limits,
    pub(super) overload: Overload,
}

#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) place: Place,
    pub(super) address: Option<At<SocketAddr>>,
    pub(super) role: Option<At<Role>>,
    pub(super) tls: Option<At<ListenerTls>>,
    /// The names of the switches that are on.
    pub(super) tolerate: Option<At<Vec<At<&'static str>>>>,
    pub(super) greeting_delay: Option<At<Duration>>,
    /// Who may say by the PROXY protocol, by XCLIENT and by XFORWARD that a client is another one.
    pub(super) proxies: Option<At<Vec<At<IpNet>>>>,
    pub(super) xclient: Option<At<Vec<At<IpNet>>>>,
    pub(super) xforward: Option<At<Vec<At<IpNet>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Mx,
    Submission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerTls {
    Off,
    Starttls,
    Implicit,
}

/// Who is turned away. Names are patterns that were checked.
#[derive(Debug, Default)]
pub(super) struct Refuse {
    pub(super) networks: Option<At<Vec<At<IpNet>>>>,
    pub(super) hello: Option<At<Vec<At<String>>>>,
    pub(super) senders: Option<At<Vec<At<String>>>>,
}

#[derive(Debug)]
pub(super) struct TlsFiles {
    pub(super) place: Place,
    pub(super) certificate: Option<At<PathBuf>>,
    pub(super) key: Option<At<PathBuf>>,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Option<At<String>>,
    pub(super) password: Option<At<Secret<String>>>,
    pub(super) verifier: Option<At<ScramKey>>,
    pub(super) rights: Rights,
}

/// What is offered; everything, unless it is switched off.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) dsn: Option<At<bool>>,
    pub(super) smtputf8: Option<At<bool>>,
    pub(super) chunking: Option<At<bool>>,
    pub(super) binarymime: Option<At<bool>>,
    pub(super) deliverby: Option<At<bool>>,
    pub(super) futurerelease: Option<At<bool>>,
    pub(super) mt_priority: Option<At<bool>>,
    pub(super) rrvs: Option<At<bool>>,
    pub(super) requiretls: Option<At<bool>>,
}

/// What proves the answers of the DNS, for DANE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dane {
    Off,
    /// A name server on this host, which validates.
    Trust,
    /// The relay itself.
    Validate,
}

#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) mx_port: Option<At<u16>>,
    pub(super) allow_private: Option<At<bool>>,
    pub(super) retry: Option<At<Vec<At<Duration>>>>,
    pub(super) expire_after: Option<At<Duration>>,
    pub(super) warn_after: Option<At<Option<Duration>>>,
    pub(super) authorities: Option<At<PathBuf>>,
    pub(super) dane: Option<At<Dane>>,
    pub(super) mta_sts: Option<At<bool>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) concurrency: Option<At<u16>>,
    pub(super) concurrency_per_site: Option<At<u16>>,
}

/// What becomes of mail beyond the limits of a user or a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// The client is asked to try again later.
    Defer,
    Refuse,
}

#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) message_size: Option<At<u64>>,
    pub(super) returned_size: Option<At<u64>>,
    pub(super) hold: Option<At<Duration>>,
    pub(super) recipients: Option<At<u16>>,
    pub(super) connections: Option<At<u16>>,
    pub(super) connections_per_network: Option<At<u16>>,
    pub(super) ipv4_prefix: Option<At<u8>>,
    pub(super) ipv6_prefix: Option<At<u8>>,
    pub(super) envelope_memory: Option<At<u32>>,
    pub(super) idle_commands: Option<At<u16>>,
    pub(super) message_within: Option<At<Duration>>,
    pub(super) minimum_rate: Option<At<u32>>,
    pub(super) recipients_per_hour: Option<At<u32>>,
    pub(super) user_recipients_per_hour: Option<At<u32>>,
    pub(super) user_messages_per_hour: Option<At<u32>>,
    pub(super) sender_recipients_per_hour: Option<At<u32>>,
    pub(super) sender_messages_per_hour: Option<At<u32>>,
    pub(super) excess: Option<At<Excess>>,
    pub(super) header_size: Option<At<u32>>,
    pub(super) header_fields: Option<At<u16>>,
    pub(super) stranger_message_size: Option<At<u64>>,
    pub(super) failed_logins: Option<At<u16>>,
    pub(super) login_pace: Option<At<Duration>>,
}

impl File {
    /// Reads the text, and the files that routes name in the folder. `None`: the syntax has faults,
    /// and all of them are among the findings.
    pub(super) fn read(text: &str, folder: &Path, findings: &mut Findings) -> Option<Self> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let problem = error.message().lines().collect::<Vec<_>>().join(", ");
            let text = format!("this is no TOML: {problem}; write key = value, with text in quotes");
            findings.syntax(error.span().map(|span| span.start), &text);
        }
        errors.is_empty().then(|| Self::from_table(table.get_ref(), folder, findings))
    }

    fn from_table(table: &DeTable<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let mut file = Table::new("", None, table);
        let read = Self {
            hostname: file.take("hostname", findings, values::domain),
            postmaster: file.take("postmaster", findings, values::mailbox),
            queue: file.take("queue", findings, values::path),
            relay_from: file.list("relay_from", findings, values::network),
            relay_domains: file.list_or_file("relay_domains", folder, findings, values::pattern),
            listeners: each(file.tables("listener", findings), findings, Listener::read),
            refuse: file.table("refuse", findings).map(|table| Refuse::read(table, findings)).unwrap_or_default(),
            tls: each(file.table_or_tables("tls", findings), findings, TlsFiles::read),
            accounts: each(file.tables("account", findings), findings, |table, findings| {
                Account::read(table, folder, findings)
            }),
            routes: each(file.tables("route", findings), findings, |table, findings| {
                Route::read(table, folder, findings)
            }),
            sites: each(file.tables("site", findings), findings, Site::read),
            sources: each(file.tables("source", findings), findings, |it, findings| Source::read(it, folder, findings)),
            dkim: each(file.tables("dkim", findings), findings, DkimKey::read),
            submission: file
                .table("submission", findings)
                .map(|table| Submission::read(table, findings))
                .unwrap_or_default(),
            reports: file
                .table("reports", findings)
                .map(|table| Reports::read(table, folder, findings))
                .unwrap_or_default(),
            dns: file.table("dns", findings).and_then(|mut table| {
                let servers = table.full_list("servers", false, findings, values::address);
                table.end(findings);
                servers
            }),
            offers: file.table("offers", findings).map(|table| Offers::read(table, findings)).unwrap_or_default(),
            delivery: file.table("delivery", findings).map(|table| Delivery::read(table, findings)).unwrap_or_default(),
            limits: file.table("limits", findings).map(|table| Limits::read(table, findings)).unwrap_or_default(),
            overload: file.table("overload", findings).map(|table| Overload::read(table, findings)).unwrap_or_default(),
        };
        file.end(findings);
        read
    }
}

fn each<'t, T>(
    tables: Vec<Table<'t>>,
    findings: &mut Findings,
    read: impl Fn(Table<'t>, &mut Findings) -> T,
) -> Vec<T> {
    tables.into_iter().map(|table| read(table, findings)).collect()
}

impl Listener {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            place: table.place(),
            address: table.need("address", findings, values::address),
            role: table.take("role", findings, values::role),
            tls: table.take("tls", findings, values::listener_tls),
            tolerate: table.list("tolerate", findings, values::departure),
            greeting_delay: table.take("greeting_delay", findings, values::greeting_delay),
            proxies: table.list("proxies", findings, values::network),
            xclient: table.list("xclient", findings, values::network),
            xforward: table.list("xforward", findings, values::network),
        };
        table.end(findings);
        read
    }

    pub(super) fn is_submission(&self) -> bool {
        self.role.as_ref().is_some_and(|role| role.value == Role::Submission)
    }

    /// How TLS starts there: as it says, or with STARTTLS if there is a certificate.
    pub(super) fn starts_tls(&self, has_certificate: bool) -> ListenerTls {
        let default = if has_certificate { ListenerTls::Starttls } else { ListenerTls::Off };
        self.tls.as_ref().map_or(default, |tls| tls.value)
    }
}

impl Refuse {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            networks: table.list("networks", findings, values::network),
            hello: table.list("hello", findings, values::hello_pattern),
            senders: table.list("senders", findings, values::sender_pattern),
        };
        table.end(findings);
        read
    }
}

impl TlsFiles {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            place: table.place(),
            certificate: table.need("certificate", findings, values::path),
            key: table.need("key", findings, values::path),
        };
        table.end(findings);
        read
    }
}

impl Account {
    fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let name = table.need("name", findings, values::account_name);
        let proofs = ["password", "verifier"].map(|key| table.has(key));
        let place = name.as_ref().map_or_else(|| table.place(), |name| name.place);
        let wrong = match proofs {
            [true, true] => Some("both"),
            [false, false] => Some("neither"),
            _ => None,
        };
        if let Some(found) = wrong {
            let text = "of `password` and `verifier` stand with this name; write one of them";
            findings.error(place, format_args!("{found} {text}"));
        }
        let password = table.take("password", findings, values::password);
        let verifier = table.take("verifier", findings, values::verifier);
        let rights = Rights {
            senders: table.list_or_file("senders", folder, findings, values::mailbox_pattern),
            message_size: table.take("message_size", findings, values::message_size),
        };
        table.end(findings);
        Self { name, password, verifier, rights }
    }
}

impl Offers {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let mut take = |key| table.take(key, findings, values::flag);
        let read = Self {
            dsn: take("dsn"),
            smtputf8: take("smtputf8"),
            chunking: take("chunking"),
            binarymime: take("binarymime"),
            deliverby: take("deliverby"),
            futurerelease: take("futurerelease"),
            mt_priority: take("mt_priority"),
            rrvs: take("rrvs"),
            requiretls: take("requiretls"),
        };
        table.end(findings);
        read
    }
}

impl Delivery {
    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            mx_port: table.take("mx_port", findings, values::positive),
            // The second is its older name.
            allow_private: table
                .take("allow_private", findings, values::flag)
                .or_else(|| table.take("allow_loopback", findings, values::flag)),
            retry: table.full_list("retry", false, findings, values::wait),
            expire_after: table.take("expire_after", findings, values::wait),
            warn_after: table.take("warn_after", findings, values::warning),
            authorities: table.take("authorities", findings, values::path),
            dane: table.take("dane", findings, values::dane),
            mta_sts: table.take("mta_sts", findings, values::flag),
            timeout: table.take("timeout", findings, values::timeout),
            concurrency: table.take("concurrency", findings, values::positive),
            concurrency_per_site: table.take("concurrency_per_site", findings, values::positive),
        };
        table.end(findings);
        read
    }
}

impl Limits {
    /// The limits of users and senders.
    pub(super) fn of_senders(&self) -> [Option<&At<u32>>; 4] {
        [
            self.user_recipients_per_hour.as_ref(),
            self.user_messages_per_hour.as_ref(),
            self.sender_recipients_per_hour.as_ref(),
            self.sender_messages_per_hour.as_ref(),
        ]
    }

    fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let read = Self {
            message_size: table.take("message_size", findings, values::message_size),
            returned_size: table.take("returned_size", findings, values::returned_size),
            hold: table.take("hold", findings, values::wait),
            recipients: table.take("recipients", findings, values::recipients),
            connections: table.take("connections", findings, values::positive),
            connections_per_network: table.take("connections_per_network", findings, values::positive),
            ipv4_prefix: table.take("ipv4_prefix", findings, values::ipv4_prefix),
            ipv6_prefix: table.take("ipv6_prefix", findings, values::ipv6_prefix),
            envelope_memory: table.take("envelope_memory", findings, values::octets),
            idle_commands: table.take("idle_commands", findings, values::positive),
            message_within: table.take("message_within", findings, values::timeout),
            minimum_rate: table.take("minimum_rate", findings, values::octets),
            recipients_per_hour: table.take("recipients_per_hour", findings, values::hourly),
            user_recipients_per_hour: table.take("user_recipients_per_hour", findings, values::hourly),
            user_messages_per_hour: table.take("user_messages_per_hour", findings, values::hourly),
            sender_recipients_per_hour: table.take("sender_recipients_per_hour", findings, values::hourly),
            sender_messages_per_hour: table.take("sender_messages_per_hour", findings, values::hourly),
            excess: table.take("excess", findings, values::excess),
            header_size: table.take("header_size", findings, values::header_size),
            header_fields: table.take("header_fields", findings, values::positive),
            stranger_message_size: table.take("stranger_message_size", findings, values::message_size),
            failed_logins: table.take("failed_logins", findings, values::count),
            login_pace: table.take("login_pace", findings, values::timeout),
        };
        table.end(findings);
        read
    }
}
