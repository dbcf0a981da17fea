//! DANE for SMTP: the certificates of mail hosts by their TLSA records (RFC 7672).
//!
//! A domain whose zone is signed by DNSSEC can say which certificates its mail hosts have. Then no
//! attacker between this host and those can read the mail or take it, not even by hiding STARTTLS.
//! Other domains are not affected: [`Policy::NoDane`] leaves them as they were.
//!
//! ```text
//! MX records       addresses        TLSA records      policy
//! secure ────────► secure ────────► secure, usable ─► Authenticate
//!   │                │                ├ secure, none usable ► Encrypt
//!   │                │                ├ none, insecure ──────► NoDane
//!   └ insecure       └ insecure       └ no answer, bogus ────► PassOver
//!      └► NoDane        └► NoDane
//! ```
//!
//! It takes a [`Resolver`] that knows what DNSSEC has proved, such as `HickoryResolver` after
//! `trusting` or `validating`. With another there is no DANE.
//!
//! ```no_run
//! # #[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{net::SocketAddr, sync::Arc};
//!
//! use posthaste_client::{
//!     ClientOptions, HickoryResolver, Race, Target, Tcp, Tls, TrustAnchors, dane::Dane, mx, wire::Domain,
//! };
//!
//! let resolver = HickoryResolver::system()?.validating(&TrustAnchors::iana())?;
//! let domain = Domain::parse("example.net")?;
//! let hosts = mx::hosts(&resolver, &domain, "relay.example.org").await?;
//! let dane = Dane::of_domain(domain.as_str(), &hosts);
//! let otherwise = Tls::opportunistic()?;
//!
//! let mut targets = Vec::new();
//! for host in &hosts.records {
//!     let addresses = mx::addresses(&resolver, &host.exchange, false).await?;
//!     let policy = dane.policy(&resolver, &host.exchange, 25, &addresses).await;
//!     let tls = match policy.tls(&otherwise) {
//!         Ok(tls) => tls,
//!         Err(error) => {
//!             eprintln!("{} is passed over: {error}", host.exchange);
//!             continue;
//!         }
//!     };
//!     for address in addresses.records {
//!         let server = SocketAddr::new(address, 25);
//!         let mut target = Target::new(host.exchange.as_str(), server, host.preference);
//!         target.tls = Some(tls.clone());
//!         targets.push(target);
//!     }
//! }
//! let options = Arc::new(ClientOptions::new("relay.example.org".parse()?));
//! if let Some((index, client)) = Race::new(&targets, Tcp::default(), options).next().await {
//!     println!("{} is proved: {}", targets[index].host, client.is_verified());
//! }
//! # Ok(()) }
//! ```

mod policy;
mod records;
mod verifier;

use std::net::IpAddr;

pub use policy::{Authentication, DaneError, NoDane, Policy};
pub use verifier::NoTlsaMatch;

use crate::{Answer, HostName, MxRecord, ResolveError, Resolver, mx::ascii_name};

/// The mail hosts of a domain, or a host, as DANE sees them.
#[derive(Debug, Clone)]
pub struct Dane {
    is_mx_secure: bool,
    /// The names of the domain, which a certificate may have instead of the host's.
    names: Vec<String>,
}

impl Dane {
    /// The hosts of a domain, with the answer of [`mx::hosts`](crate::mx::hosts). If that is not
    /// secure, no host has DANE: an attacker may have named the hosts.
    pub fn of_domain(domain: &str, hosts: &Answer<MxRecord>) -> Self {
        let canonical = hosts.alias.as_ref().map(|alias| alias.canonical_name.as_str());
        let names = [Some(domain), canonical].into_iter().flatten();
        let names = names.filter_map(|name| Some(HostName::parse(name).ok()?.into())).collect();
        Self { is_mx_secure: hosts.is_secure, names }
    }

    /// A host that the configuration names (RFC 7672 section 2.2.2).
    pub const fn of_host() -> Self {
        Self { is_mx_secure: true, names: Vec::new() }
    }

    /// Looks up what a host demands of connections to this port. The addresses are the answer of
    /// [`mx::addresses`](crate::mx::addresses) about the host.
    ///
    /// Where the host is an alias, the TLSA base domain is the name at the end of all aliases if
    /// these are secure and that name has records. Otherwise it is the name of the host, if the
    /// first alias is secure (RFC 7672 section 2.2.2).
    ///
    /// There are two look-ups at most, one for a host that is no alias, and none where the
    /// addresses are not secure. The future may be dropped; the resolver limits its wait.
    pub async fn policy(&self, resolver: &impl Resolver, host: &str, port: u16, addresses: &Answer<IpAddr>) -> Policy {
        if !self.is_mx_secure {
            return Policy::NoDane(NoDane::InsecureMx);
        }
        let host = ascii_name(host);
        let alias = addresses.alias.as_ref();
        let canonical = alias.map(|alias| alias.canonical_name.as_str()).filter(|name| !name.is_empty());
        let bases = match (addresses.is_secure, alias) {
            (true, _) => [canonical, Some(host.as_str())],
            (false, Some(alias)) if alias.is_secure => [None, Some(host.as_str())],
            (false, _) => return Policy::NoDane(NoDane::InsecureAddresses),
        };
        let mut why = NoDane::NoRecords;
        for base in bases.into_iter().flatten() {
            match resolver.tlsa(&format!("_{port}._tcp.{base}")).await {
                Ok(answer) if answer.records.is_empty() => {}
                Ok(answer) if !answer.is_secure => why = NoDane::InsecureRecords,
                Ok(answer) => return Policy::of(&answer.records, base, &self.names),
                Err(ResolveError::NoSuchName) => {}
                Err(error) => return Policy::PassOver(error),
            }
        }
        Policy::NoDane(why)
    }
}
