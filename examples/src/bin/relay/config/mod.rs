//! The configuration: from a TOML file to what the libraries take. `examples/relay.toml` documents every key.

mod accounts;
mod error;
mod file;
mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use posthaste_client::{Tls as ClientTls, TlsPolicy, session::client::ClientTimeouts, unverified, verified};
use posthaste_relay::{
    DeliveryOptions, DomainPattern, NextHop, Policy, RelayOptions, RetrySchedule, Route, Routes, future_release, offers,
};
use posthaste_server::{
    ServerOptions, Tls,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    session::{ServerSettings, server::Offers},
    wire::{Domain, Mechanism, MechanismSet},
};

pub(crate) use accounts::AccountsConfig;
pub(crate) use error::ConfigError;
use error::Source;
use file::{File, ListenerTls, Role, RouteTls, To};

/// Everything that the program needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    /// What the configuration is called in messages.
    pub(crate) name: String,
    pub(crate) queue: PathBuf,
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) dns: Vec<SocketAddr>,
    pub(crate) accounts: AccountsConfig,
    /// Still without accounts.
    pub(crate) relay: RelayOptions,
    pub(crate) server: ServerOptions,
    pub(crate) max_message: u64,
}

#[derive(Debug)]
pub(crate) struct ListenerConfig {
    pub(crate) address: SocketAddr,
    pub(crate) settings: ServerSettings,
    pub(crate) tls: Tls,
}

/// What one key is good for. SCRAM-SHA-256-PLUS is offered under TLS 1.3 only.
const AUTH: MechanismSet =
    MechanismSet::of(&[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]);

/// Where a relay without a configuration listens: for programs on this host, on a port that needs no privilege.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 2525));

impl Config {
    /// Reads a configuration, or takes the defaults.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            let source = Source::new("the built-in configuration", String::new());
            return Self::build(File::default(), &source, Path::new(""));
        };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&name, &error))?;
        let source = Source::new(&name, text);
        let file = toml::from_str(&source.text).map_err(|error| source.refused(&error))?;
        // Paths in the file are relative to the file.
        Self::build(file, &source, path.parent().unwrap_or(Path::new("")))
    }

    fn build(mut file: File, source: &Source, folder: &Path) -> Result<Self, ConfigError> {
        let host_name = RelayOptions::new(file.hostname.take().unwrap_or_else(own_host_name)).host_name;
        let server_tls = match &file.tls {
            Some(tls) => Some(server_tls(tls, source, folder)?),
            None => None,
        };
        let accounts = AccountsConfig::read(std::mem::take(&mut file.account), source)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let policies = file.route.iter().map(|route| route_policy(route, source)).collect::<Result<Vec<_>, _>>()?;
        // By MX it could not be kept: nothing proves that a name from DNS is the domain's own.
        let names_hosts = file.route.iter().any(|route| matches!(route.to, To::Hosts(_)));
        let guards = names_hosts && file.offers.requiretls;
        let verified_tls = match guards || policies.contains(&TlsPolicy::Verified) {
            true => verified_tls(file.delivery.authorities.as_ref(), source, folder, &provider)?,
            false => None,
        };
        // The provider has ciphers for TLS 1.2 and 1.3; without a configuration a policy that demands TLS delivers nothing.
        let any_certificate = unverified(Arc::clone(&provider)).ok().map(Arc::new);
        let mut routes = Vec::new();
        for (route, policy) in file.route.iter().zip(policies) {
            let config = match policy {
                TlsPolicy::Verified if verified_tls.is_none() => {
                    let problem = "this host trusts no authorities; name those that do in [delivery] authorities";
                    return Err(source.mistake(route.tls.span(), problem));
                }
                TlsPolicy::Verified => verified_tls.clone(),
                _ => any_certificate.clone(),
            };
            routes.push(Route {
                domains: route.domains.clone(),
                to: match &route.to {
                    To::Mx => NextHop::Mx,
                    To::Hosts(hosts) => NextHop::Hosts(hosts.clone()),
                },
                tls: ClientTls { policy, config },
                chunking: route.chunking,
            });
        }
        if routes.is_empty() {
            let tls = ClientTls { policy: TlsPolicy::Opportunistic, config: any_certificate };
            routes.push(Route { tls, ..Route::new(vec![DomainPattern::Any], NextHop::Mx) });
        }
        let verified_tls = verified_tls.filter(|_| guards);
        let delivery = DeliveryOptions {
            retry: RetrySchedule {
                waits: file.delivery.retry.take().unwrap_or_else(|| RetrySchedule::default().waits),
                expire_after: file.delivery.expire_after.unwrap_or_else(|| RetrySchedule::default().expire_after),
                warn_after: file.delivery.warn_after.unwrap_or_else(|| RetrySchedule::default().warn_after),
            },
            mx_port: file.delivery.mx_port.unwrap_or(25),
            allow_private: file.delivery.allow_loopback,
            timeouts: file.delivery.timeout.map_or_else(ClientTimeouts::default, ClientTimeouts::all),
            connect_timeout: file.delivery.timeout.unwrap_or(Duration::from_secs(30)),
            concurrency: file.delivery.concurrency.map_or(200, usize::from),
            concurrency_per_site: file.delivery.concurrency_per_site.map_or(20, usize::from),
            return_at_most: file.limits.returned_size.unwrap_or(1 << 20),
            verified_tls,
            ..DeliveryOptions::default()
        };
        let mut settings = ServerSettings::new(host_name.as_str());
        let limits = &file.limits;
        settings.limits.message = limits.message_size.unwrap_or(settings.limits.message);
        settings.limits.recipients = limits.recipients.map_or(settings.limits.recipients, usize::from);
        settings.offers = offered(&file.offers, delivery.verified_tls.is_some());
        let max_message = settings.limits.message;
        let listeners = listeners(&file, source, &settings, server_tls.as_ref(), accounts.is_empty())?;
        let connections = limits.connections.map_or(ServerOptions::default().connections, usize::from);
        let connections_per_address = (connections / 10).max(1);
        Ok(Self {
            name: source.name.clone(),
            queue: file.queue.map_or_else(default_queue, |queue| folder.join(queue)),
            listeners,
            dns: file.dns.servers,
            accounts,
            relay: RelayOptions {
                policy: Policy { relay_from: file.relay_from, relay_domains: file.relay_domains },
                routes: Routes::new(routes),
                delivery,
                ..RelayOptions::new(host_name)
            },
            server: ServerOptions { connections, connections_per_address, ..ServerOptions::default() },
            max_message,
        })
    }
}

fn listeners(
    file: &File,
    source: &Source,
    settings: &ServerSettings,
    tls: Option<&Arc<ServerConfig>>,
    no_accounts: bool,
) -> Result<Vec<ListenerConfig>, ConfigError> {
    let mut listeners = Vec::new();
    for listener in &file.listener {
        let wanted = listener.tls.as_ref().map(|tls| *tls.get_ref());
        let tls = match (wanted, tls) {
            (None | Some(ListenerTls::Off), None) | (Some(ListenerTls::Off), _) => Tls::Off,
            (None | Some(ListenerTls::Starttls), Some(config)) => Tls::StartTls(Arc::clone(config)),
            (Some(ListenerTls::Implicit), Some(config)) => Tls::Implicit(Arc::clone(config)),
            (Some(_), None) => {
                let span = listener.tls.as_ref().map_or(0..0, toml::Spanned::span);
                return Err(source.mistake(
                    span,
                    "there is no certificate for TLS; add [tls] with certificate and key, or say \"off\"",
                ));
            }
        };
        let mut settings = settings.clone();
        if *listener.role.get_ref() == Role::Submission {
            if no_accounts {
                let problem = "nobody could log in to submit; add an [[account]], or say \"mx\"";
                return Err(source.mistake(listener.role.span(), problem));
            }
            let longest = file.limits.hold.unwrap_or(Duration::from_secs(30 * 86_400));
            settings.offers.future_release = file.offers.futurerelease.then(|| future_release(longest));
            settings.offers.demand_auth = true;
            settings.offers.auth = AUTH;
            // Old mail programs send nothing otherwise.
            settings.tolerance.hello = true;
        }
        listeners.push(ListenerConfig { address: listener.address, settings, tls });
    }
    if listeners.is_empty() {
        let tls = tls.map_or(Tls::Off, |config| Tls::StartTls(Arc::clone(config)));
        listeners.push(ListenerConfig { address: DEFAULT_ADDRESS, settings: settings.clone(), tls });
    }
    Ok(listeners)
}

/// What the relay honours, without what is switched off or cannot be kept.
fn offered(wanted: &file::Offers, verifies: bool) -> Offers {
    let all = offers();
    Offers {
        dsn: wanted.dsn,
        smtputf8: wanted.smtputf8,
        chunking: wanted.chunking,
        binary_mime: wanted.binarymime && wanted.chunking,
        deliver_by: all.deliver_by.filter(|_| wanted.deliverby),
        mt_priority: all.mt_priority.filter(|_| wanted.mt_priority),
        rrvs: wanted.rrvs,
        require_tls: wanted.requiretls && verifies,
        ..all
    }
}

/// TLS that verifies certificates, by the authorities of the configuration or of this host; nothing when there are none.
fn verified_tls(
    file: Option<&toml::Spanned<PathBuf>>,
    source: &Source,
    folder: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<ClientConfig>>, ConfigError> {
    let mut authorities = RootCertStore::empty();
    match file {
        Some(name) => {
            let path = folder.join(name.get_ref());
            let mistake = |problem: String| source.mistake(name.span(), &problem);
            let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
            let read = read.map_err(|error| {
                mistake(format!("cannot read {}: {error}; name a PEM file with certificates", path.display()))
            })?;
            for certificate in read {
                authorities.add(certificate).map_err(|error| {
                    let name = path.display();
                    mistake(format!("{name} has a certificate that is none: {error}; take it out"))
                })?;
            }
            if authorities.is_empty() {
                let problem = format!("{} has no certificate in it; name a PEM file that has", path.display());
                return Err(mistake(problem));
            }
        }
        None => drop(authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if authorities.is_empty() {
        return Ok(None);
    }
    // The provider has ciphers for TLS 1.2 and 1.3.
    Ok(verified(Arc::clone(provider), authorities).ok().map(Arc::new))
}

/// How much TLS a route has. What is required is verified where that proves something: for hosts that the route names.
fn route_policy(route: &file::Route, source: &Source) -> Result<TlsPolicy, ConfigError> {
    let names_a_host = match &route.to {
        To::Mx => false,
        To::Hosts(hosts) => hosts.iter().any(|(host, _)| !host.starts_with('[')),
    };
    match (route.tls.get_ref(), &route.to) {
        (RouteTls::Off, _) => Ok(TlsPolicy::Off),
        (RouteTls::Opportunistic, _) => Ok(TlsPolicy::Opportunistic),
        (RouteTls::Unverified, _) => Ok(TlsPolicy::Required),
        (RouteTls::Required, _) => Ok(if names_a_host { TlsPolicy::Verified } else { TlsPolicy::Required }),
        (RouteTls::Verified, To::Hosts(_)) => Ok(TlsPolicy::Verified),
        (RouteTls::Verified, To::Mx) => Err(source.mistake(
            route.tls.span(),
            "by MX no certificate proves who a host is, since DNS alone has given its name; say \"required\" for TLS \
             whatever the certificate, or name the hosts",
        )),
    }
}

fn server_tls(tls: &file::Tls, source: &Source, folder: &Path) -> Result<Arc<ServerConfig>, ConfigError> {
    let certificate = folder.join(tls.certificate.get_ref());
    let at_certificate = |problem: String| source.mistake(tls.certificate.span(), &problem);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| {
        at_certificate(format!("cannot read {}: {error}; name a PEM file with the certificate", certificate.display()))
    })?;
    if chain.is_empty() {
        let problem = format!("{} has no certificate in it; name a PEM file that has", certificate.display());
        return Err(at_certificate(problem));
    }
    let key = folder.join(tls.key.get_ref());
    let at_key = |problem: String| source.mistake(tls.key.span(), &problem);
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        at_key(format!("cannot read {}: {error}; name a PEM file with the certificate's private key", key.display()))
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| at_certificate(format!("TLS cannot be set up: {error}; this is a fault of the program")))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| {
        at_key(format!("{} does not fit the certificate: {error}; name the key that it was made with", key.display()))
    })?;
    Ok(Arc::new(config))
}

/// The machine's name, when it is one that mail can use.
fn own_host_name() -> Domain {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok().and_then(|name| name.parse().ok());
    name.unwrap_or_else(|| Domain::parse("localhost").map(Domain::into_owned).unwrap_or_else(|_| unreachable!()))
}

/// Where the system keeps such things: for root below /var/lib, for others below their home.
fn default_queue() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = if rustix::process::geteuid().is_root() {
        Some(PathBuf::from("/var/lib"))
    } else {
        std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)
    };
    base.unwrap_or_else(std::env::temp_dir).join("posthaste/queue")
}
