//! The configuration: from a TOML file to what the libraries take. `examples/relay.toml` documents
//! every key.

mod accounts;
mod certificates;
mod check;
mod conditions;
mod defaults;
mod dkim;
mod file;
mod findings;
mod fixed;
mod guards;
mod keys;
mod lists;
mod login;
mod next_hop;
mod overload;
mod reports;
mod route;
mod site;
mod source;
mod submission;
mod table;
mod tls;
mod to;
mod values;
mod written;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use posthaste::auth::dkim::{Signer, SignerOptions};
use posthaste::client::session::client::ClientTimeouts;
use posthaste::relay::{DeliveryOptions, DkimOptions, IpNet, RelayOptions, future_release, offers};
use posthaste::server::{
    NetworkSet, ServerOptions, Tls,
    rustls::{ClientConfig, ServerConfig},
    session::{
        ServerSettings,
        server::{Offers, Tolerance},
    },
    wire::{Domain, Mechanism, MechanismSet},
};

use crate::files;

pub(crate) use accounts::AccountsConfig;
pub(crate) use certificates::ServerCertificates;
use check::is_wanted;
pub(crate) use file::Dane;
use file::{File, ListenerTls};
use findings::At;
pub(crate) use findings::Findings;
pub(crate) use fixed::{Difference, Fixed, is_fixed};
pub(crate) use guards::Guards;
pub(crate) use next_hop::text_of;
pub(crate) use written::Written;

/// Everything that the program needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    /// What the configuration is called in messages.
    pub(crate) name: String,
    /// One line for each warning.
    pub(crate) warnings: Vec<String>,
    pub(crate) queue: PathBuf,
    pub(crate) listeners: Vec<ListenerConfig>,
    /// `None`: no listener has TLS.
    pub(crate) certificates: Option<ServerCertificates>,
    /// What a running relay cannot change.
    pub(crate) fixed: Fixed,
    /// What stays as it is until a new start. Empty: everything counts.
    pub(crate) differences: Vec<Difference>,
    /// The keys that stand in the file.
    pub(crate) written: Written,
    /// What the routes are, a line for each.
    pub(crate) routes: Vec<String>,
    pub(crate) dns: Vec<SocketAddr>,
    pub(crate) accounts: AccountsConfig,
    /// What to publish for the keys that sign, a line of a zone file for each.
    pub(crate) dkim_records: Vec<String>,
    /// Still without accounts.
    pub(crate) relay: RelayOptions,
    pub(crate) server: ServerOptions,
    pub(crate) guards: Guards,
    /// Octets of memory that the relay may have, beside what the system says.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) policies: Policies,
}

#[derive(Debug)]
pub(crate) struct ListenerConfig {
    pub(crate) address: SocketAddr,
    pub(crate) settings: ServerSettings,
    pub(crate) tls: Tls,
    pub(crate) proxies: NetworkSet,
    pub(crate) xclient: NetworkSet,
    pub(crate) xforward: NetworkSet,
}

impl ListenerConfig {
    /// A listener that trusts no proxy.
    fn new(address: SocketAddr, settings: ServerSettings, tls: Tls) -> Self {
        let [proxies, xclient, xforward] = Default::default();
        Self { address, settings, tls, proxies, xclient, xforward }
    }
}

/// The policies about TLS that mail by MX follows.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) dane: Dane,
    /// What verifies the hosts of policies, and the hosts that they name. `None`: no MTA-STS.
    pub(crate) mta_sts: Option<Arc<ClientConfig>>,
}

/// What the configuration is about, beside what stands in it.
#[derive(Debug)]
struct Facts<'a> {
    /// The file, if there is one.
    path: Option<&'a Path>,
    /// Paths in the file are relative to it.
    folder: &'a Path,
    host_name: Domain,
    queue: PathBuf,
    /// What verifies next hops, for mail that demands it and for routes that do.
    verified_tls: Option<Arc<ClientConfig>>,
    /// What takes any certificate.
    any_tls: Arc<ClientConfig>,
}

/// What one key is good for. SCRAM-SHA-256-PLUS is offered under TLS 1.3 only.
const AUTH: MechanismSet =
    MechanismSet::of(&[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]);

/// Where a relay without a configuration listens: for programs on this host, on a port that needs
/// no privilege.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 2525));
const DEFAULT_CONCURRENCY: u16 = 200;
/// Octets of a configuration: some 100,000 lines. Beyond it the relay does not start.
const LONGEST: u64 = 8 << 20;

impl Config {
    /// Reads a configuration, or takes the defaults. Nothing is started or made.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, Findings> {
        Self::load_for(path, None)
    }

    /// As [`load`](Self::load), for a relay that runs with what is fixed.
    pub(crate) fn load_again(path: &Path, running: &Fixed) -> Result<Self, Findings> {
        Self::load_for(Some(path), Some(running))
    }

    fn load_for(path: Option<&Path>, running: Option<&Fixed>) -> Result<Self, Findings> {
        let (name, text) = match path {
            Some(path) => (path.display().to_string(), read(path, running.is_some())?),
            None => ("the built-in configuration".to_owned(), String::new()),
        };
        let mut findings = Findings::new(&name, &text);
        let written = Written::of(&text);
        let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
        let Some(mut file) = File::read(&text, folder, &mut findings) else { return Err(findings) };
        let verifies = check::verifies(&file);
        let authorities = file.delivery.authorities.as_ref();
        let verified_tls = match verifies || authorities.is_some() {
            true => tls::verified(authorities, folder, &mut findings).filter(|_| verifies),
            false => None,
        };
        let host_name = file.hostname.as_ref().map_or_else(defaults::host_name, |name| name.value.clone());
        let host_name = RelayOptions::new(host_name).host_name;
        let certificates = certificates::read(&file.tls, folder, host_name.as_str(), &mut findings);
        let dkim = dkim::read(&file.dkim, folder, &mut findings);
        let queue = file.queue.as_ref().map_or_else(defaults::queue, |queue| folder.join(&queue.value));
        let any_tls = match tls::any() {
            Ok(config) => config,
            Err(error) => return Err(Findings::unreadable(&name, &error.to_string())),
        };
        let mut facts = Facts { path, folder, host_name, queue, verified_tls, any_tls };
        check::all(&file, &facts, &mut findings);
        if findings.has_errors() {
            return Err(findings);
        }
        // The file has to be right as it is. Only then it gives way to what is fixed.
        let fixed = Fixed::of(&file, &facts, &findings);
        let mut differences = Vec::new();
        if let Some(running) = running {
            differences = running.differences(&fixed);
            running.keep(&mut file, &mut facts);
        }
        let fixed = (fixed, differences);
        Ok(Self::build(file, facts, certificates, dkim, (name, written), findings, fixed))
    }

    /// Puts together what was checked.
    fn build(
        file: File,
        facts: Facts<'_>,
        certificates: Option<ServerCertificates>,
        dkim: Option<dkim::DkimKeys>,
        (name, written): (String, Written),
        findings: Findings,
        (fixed, differences): (Fixed, Vec<Difference>),
    ) -> Self {
        let warnings = findings.into_lines();
        let Facts { host_name, queue, verified_tls, any_tls, .. } = facts;
        let mut settings = ServerSettings::new(host_name.clone());
        settings.limits.message_size = value(file.limits.message_size.as_ref()).unwrap_or(settings.limits.message_size);
        let recipients = value(file.limits.recipients.as_ref());
        settings.limits.recipients = recipients.map_or(settings.limits.recipients, usize::from);
        let (bounds, timeouts) = (&mut settings.limits, &mut settings.timeouts);
        bounds.idle_commands = value(file.limits.idle_commands.as_ref()).map_or(bounds.idle_commands, u32::from);
        timeouts.minimum_rate = value(file.limits.minimum_rate.as_ref()).unwrap_or(timeouts.minimum_rate);
        timeouts.message = value(file.limits.message_within.as_ref()).unwrap_or(timeouts.message);
        let follows = check::follows_policies(&file);
        let requires_tls = check::guards(&file) && (verified_tls.is_some() || follows);
        settings.offers = offered(&file.offers, requires_tls);
        let timeout = value(file.delivery.timeout.as_ref());
        let waits = file.delivery.retry.as_ref().map(|waits| waits.value.iter().map(|wait| wait.value).collect());
        let mut delivery = DeliveryOptions::default();
        let number = |at: Option<&At<u16>>, default: u16| usize::from(value(at).unwrap_or(default));
        let retry = &mut delivery.retry;
        if let Some(waits) = waits {
            // What the operator has written counts whatever the cause is.
            (retry.waits, retry.greylisted, retry.mailbox_full) = (waits, Vec::new(), Vec::new());
        }
        retry.expire_after = value(file.delivery.expire_after.as_ref()).unwrap_or(retry.expire_after);
        retry.warn_after = value(file.delivery.warn_after.as_ref()).unwrap_or(retry.warn_after);
        delivery.mx_port = value(file.delivery.mx_port.as_ref()).unwrap_or(delivery.mx_port);
        delivery.allow_private = value(file.delivery.allow_private.as_ref()).unwrap_or(delivery.allow_private);
        delivery.timeouts = timeout.map_or_else(ClientTimeouts::default, ClientTimeouts::all);
        delivery.connect_timeout = timeout.unwrap_or(delivery.connect_timeout);
        delivery.concurrency = number(file.delivery.concurrency.as_ref(), DEFAULT_CONCURRENCY);
        delivery.concurrency_per_site = number(file.delivery.concurrency_per_site.as_ref(), 20);
        delivery.site_limits = site::table(&file);
        delivery.return_at_most = value(file.limits.returned_size.as_ref()).unwrap_or(delivery.return_at_most);
        delivery.verified_tls = verified_tls.clone().filter(|_| requires_tls);
        let policies = Policies {
            dane: value(file.delivery.dane.as_ref()).filter(|_| follows).unwrap_or(Dane::Off),
            mta_sts: verified_tls.clone().filter(|_| follows && is_wanted(file.delivery.mta_sts.as_ref())),
        };
        let mut relay = RelayOptions::new(host_name);
        relay.policy.relay_from =
            file.relay_from.as_ref().map(|list| values_of(&list.value)).unwrap_or_default().into();
        relay.policy.relay_domains =
            file.relay_domains.as_ref().map(|list| values_of(&list.value)).unwrap_or_default().into();
        relay.postmaster = value(file.postmaster.as_ref());
        submission::apply(&file, &mut relay);
        relay.report_words = file.reports.words.clone();
        delivery.trusted_reports = value(file.reports.per_hour.as_ref());
        let mut dkim_records = Vec::new();
        relay.dkim = dkim.map(|keys| {
            dkim_records = keys.records;
            let mut options = DkimOptions::new(Signer::new(keys.ring, SignerOptions::default()));
            options.sign_for = value(file.submission.sign.as_ref()).unwrap_or_default();
            options.unsignable = value(file.submission.unsignable.as_ref()).unwrap_or_default();
            options
        });
        relay.recipients = route::recipients(&file);
        relay.routes = route::table(&file, verified_tls.as_ref(), &any_tls);
        relay.delivery = delivery;
        relay.overload = file.overload.options();
        Self {
            name,
            warnings,
            queue,
            listeners: listeners(&file, &settings, certificates.as_ref().map(ServerCertificates::config)),
            certificates,
            fixed,
            differences,
            written,
            routes: route::described(&file),
            dns: file.dns.as_ref().map(|servers| values_of(&servers.value)).unwrap_or_default(),
            guards: Guards::new(&file, &relay.policy.relay_from),
            dkim_records,
            relay,
            server: server(&file.limits),
            accounts: AccountsConfig::new(file.accounts),
            memory_limit: value(file.overload.memory_limit.as_ref()),
            policies,
        }
    }
}

fn value<T: Clone>(at: Option<&At<T>>) -> Option<T> {
    at.map(|at| at.value.clone())
}

fn values_of<T: Clone>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|at| at.value.clone()).collect()
}

/// Reads the text of a configuration. At the start it may be a pipe.
fn read(path: &Path, again: bool) -> Result<String, Findings> {
    let name = path.display().to_string();
    let opened = if again { files::open(path).map(drop) } else { Ok(()) };
    let read = opened.and_then(|()| files::read_to_end(path, LONGEST));
    let octets = read.map_err(|error| {
        let remedy = "name a file that is there, or leave --config out for the defaults";
        Findings::unreadable(&name, &format!("cannot read it: {error}; {remedy}"))
    })?;
    if u64::try_from(octets.len()).map_or(true, |length| length > LONGEST) {
        let problem = format!("it has more than {LONGEST} octets; put long lists into files of their own");
        return Err(Findings::unreadable(&name, &problem));
    }
    String::from_utf8(octets).map_err(|error| {
        let before =
            String::from_utf8_lossy(error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default());
        let mut findings = Findings::new(&name, &before);
        findings.syntax(Some(before.len()), "there is text that is not UTF-8; save the file as UTF-8");
        findings
    })
}

/// How many clients are served at once, and how.
fn server(limits: &file::Limits) -> ServerOptions {
    let mut server = ServerOptions::default();
    server.connections = value(limits.connections.as_ref()).map_or(server.connections, usize::from);
    let per_network = value(limits.connections_per_network.as_ref()).map(usize::from);
    server.connections_per_network = per_network.unwrap_or((server.connections / 10).max(1));
    let per_prefix = || (server.connections.saturating_mul(3) / 10).max(1);
    server.connections_per_prefix = per_network.map_or_else(per_prefix, |network| network.saturating_mul(3));
    server.networks.ipv4_prefix = value(limits.ipv4_prefix.as_ref()).unwrap_or(server.networks.ipv4_prefix);
    server.networks.ipv6_prefix = value(limits.ipv6_prefix.as_ref()).unwrap_or(server.networks.ipv6_prefix);
    server.logins.burst = value(limits.failed_logins.as_ref()).map_or(server.logins.burst, u32::from);
    server.logins.pace = value(limits.login_pace.as_ref()).unwrap_or(server.logins.pace);
    let envelopes = value(limits.envelope_memory.as_ref()).and_then(|octets| usize::try_from(octets).ok());
    server.envelopes = envelopes.unwrap_or(server.envelopes);
    server
}

fn listeners(file: &File, settings: &ServerSettings, tls: Option<&Arc<ServerConfig>>) -> Vec<ListenerConfig> {
    let start = |how| match (how, tls) {
        (ListenerTls::Starttls, Some(config)) => Tls::StartTls(Arc::clone(config)),
        (ListenerTls::Implicit, Some(config)) => Tls::Implicit(Arc::clone(config)),
        (ListenerTls::Off, _) | (_, None) => Tls::Off,
    };
    let mut listeners = Vec::new();
    for listener in &file.listeners {
        let Some(address) = value(listener.address.as_ref()) else { continue };
        let mut settings = settings.clone();
        if listener.is_submission() {
            let longest = value(file.limits.hold.as_ref()).unwrap_or(Duration::from_secs(30 * 86_400));
            let holds = check::is_on(file.offers.futurerelease.as_ref());
            settings.offers.future_release = holds.then(|| future_release(longest));
            settings.offers.demand_auth = true;
            settings.offers.auth = AUTH;
            settings.tolerance = Tolerance::SUBMISSION;
        }
        let delay = value(listener.greeting_delay.as_ref());
        settings.timeouts.greeting_delay = delay.unwrap_or(settings.timeouts.greeting_delay);
        if let Some(names) = &listener.tolerate {
            settings.tolerance = Tolerance::STRICT;
            for name in &names.value {
                if let Some(switch) = settings.tolerance.switch(name.value) {
                    *switch = true;
                }
            }
        }
        let mut config = ListenerConfig::new(address, settings, start(listener.starts_tls(tls.is_some())));
        let networks = |list: &Option<At<Vec<At<IpNet>>>>| {
            list.iter().flat_map(|list| &list.value).map(|network| network.value).collect()
        };
        config.proxies = networks(&listener.proxies);
        config.xclient = networks(&listener.xclient);
        config.xforward = networks(&listener.xforward);
        listeners.push(config);
    }
    if listeners.is_empty() {
        let how = if tls.is_some() { ListenerTls::Starttls } else { ListenerTls::Off };
        listeners.push(ListenerConfig::new(DEFAULT_ADDRESS, settings.clone(), start(how)));
    }
    listeners
}

/// What the relay honors, without what is switched off or cannot be kept.
fn offered(wanted: &file::Offers, verifies: bool) -> Offers {
    let on = |flag: &Option<At<bool>>| check::is_on(flag.as_ref());
    let mut offers = offers();
    offers.dsn = on(&wanted.dsn);
    offers.smtputf8 = on(&wanted.smtputf8);
    offers.chunking = on(&wanted.chunking);
    offers.binary_mime = on(&wanted.binarymime) && on(&wanted.chunking);
    offers.deliver_by = offers.deliver_by.filter(|_| on(&wanted.deliverby));
    offers.mt_priority = offers.mt_priority.filter(|_| on(&wanted.mt_priority));
    offers.rrvs = on(&wanted.rrvs);
    offers.require_tls = on(&wanted.requiretls) && verifies;
    offers
}
