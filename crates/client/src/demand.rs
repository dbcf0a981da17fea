//! What tells destinations apart: their hosts, and the TLS that each needs.

use crate::{Target, mx::Servers, published::HostPolicy};

/// A host and the TLS that it needs. No message goes over a connection that was made for a domain
/// whose demands are others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Demand {
    host: String,
    tls: Proof,
}

/// What a connection proves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Proof {
    /// As much as the TLS of the options.
    Usual,
    /// That it has TLS.
    Encrypted,
    /// That a certificate is for the host.
    Name,
    /// That TLSA records are about the certificate: these.
    Records(Vec<u8>),
}

/// In alphabetical order.
pub(crate) fn key(servers: &Servers) -> Vec<Demand> {
    let of = |target: &Target| {
        let records = servers.policy(&target.host).map(HostPolicy::proof).unwrap_or_default();
        let tls = match &target.tls {
            None => Proof::Usual,
            Some(_) if !records.is_empty() => Proof::Records(records.to_vec()),
            Some(own) if own.tls.is_verified() => Proof::Name,
            Some(_) => Proof::Encrypted,
        };
        Demand { host: target.host.to_ascii_lowercase(), tls }
    };
    let mut hosts: Vec<_> = servers.targets.iter().map(of).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}
