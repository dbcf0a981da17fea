//! The file as it is written. What cannot be right is refused while it is read, so that the mistake has a place.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use posthaste_relay::{DomainPattern, IpNet};
use posthaste_server::{
    ScramKey,
    wire::{Domain, Secret},
};
use serde::Deserialize;
use toml::Spanned;

use super::values;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default, deserialize_with = "values::domain")]
    pub(super) hostname: Option<Domain>,
    pub(super) queue: Option<PathBuf>,
    #[serde(default, deserialize_with = "values::networks")]
    pub(super) relay_from: Vec<IpNet>,
    #[serde(default, deserialize_with = "values::patterns")]
    pub(super) relay_domains: Vec<DomainPattern>,
    #[serde(default)]
    pub(super) listener: Vec<Listener>,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) account: Vec<Account>,
    #[serde(default)]
    pub(super) route: Vec<Route>,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) offers: Offers,
    #[serde(default)]
    pub(super) delivery: Delivery,
    #[serde(default)]
    pub(super) limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    #[serde(deserialize_with = "values::address")]
    pub(super) address: SocketAddr,
    #[serde(default = "values::mx")]
    pub(super) role: Spanned<Role>,
    pub(super) tls: Option<Spanned<ListenerTls>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Mx,
    Submission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListenerTls {
    Off,
    Starttls,
    Implicit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: Spanned<PathBuf>,
    pub(super) key: Spanned<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) name: Spanned<AccountName>,
    #[serde(default, deserialize_with = "values::password")]
    pub(super) password: Option<Secret<String>>,
    #[serde(default, deserialize_with = "values::verifier")]
    pub(super) verifier: Option<ScramKey>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountName(#[serde(deserialize_with = "values::account_name")] pub(super) String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    #[serde(deserialize_with = "values::patterns")]
    pub(super) domains: Vec<DomainPattern>,
    #[serde(deserialize_with = "values::to")]
    pub(super) to: To,
    #[serde(default = "values::opportunistic")]
    pub(super) tls: Spanned<RouteTls>,
    #[serde(default = "values::yes")]
    pub(super) chunking: bool,
}

#[derive(Debug)]
pub(super) enum To {
    Mx,
    Hosts(Vec<(String, u16)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RouteTls {
    Off,
    Opportunistic,
    /// Verified where the route names a host by its name, and otherwise not.
    Required,
    Verified,
    Unverified,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    #[serde(default, deserialize_with = "values::addresses")]
    pub(super) servers: Vec<SocketAddr>,
}

/// What is offered; everything, unless it is switched off.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Offers {
    pub(super) dsn: bool,
    pub(super) smtputf8: bool,
    pub(super) chunking: bool,
    pub(super) binarymime: bool,
    pub(super) deliverby: bool,
    pub(super) futurerelease: bool,
    pub(super) mt_priority: bool,
    pub(super) rrvs: bool,
    pub(super) requiretls: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self {
            dsn: true,
            smtputf8: true,
            chunking: true,
            binarymime: true,
            deliverby: true,
            futurerelease: true,
            mt_priority: true,
            rrvs: true,
            requiretls: true,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delivery {
    #[serde(default, deserialize_with = "values::positive")]
    pub(super) mx_port: Option<u16>,
    #[serde(default)]
    pub(super) allow_loopback: bool,
    #[serde(default, deserialize_with = "values::durations")]
    pub(super) retry: Option<Vec<Duration>>,
    #[serde(default, deserialize_with = "values::duration")]
    pub(super) expire_after: Option<Duration>,
    #[serde(default, deserialize_with = "values::warning")]
    pub(super) warn_after: Option<Option<Duration>>,
    pub(super) authorities: Option<Spanned<PathBuf>>,
    #[serde(default, deserialize_with = "values::duration")]
    pub(super) timeout: Option<Duration>,
    #[serde(default, deserialize_with = "values::positive")]
    pub(super) concurrency: Option<u16>,
    #[serde(default, deserialize_with = "values::positive")]
    pub(super) concurrency_per_site: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(default, deserialize_with = "values::message_size")]
    pub(super) message_size: Option<u64>,
    #[serde(default, deserialize_with = "values::returned_size")]
    pub(super) returned_size: Option<u64>,
    #[serde(default, deserialize_with = "values::hold")]
    pub(super) hold: Option<Duration>,
    #[serde(default, deserialize_with = "values::positive")]
    pub(super) recipients: Option<u16>,
    #[serde(default, deserialize_with = "values::positive")]
    pub(super) connections: Option<u16>,
}
