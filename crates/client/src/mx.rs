//! Which hosts take the mail of a domain (RFC 5321 section 5.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use posthaste_io::wire::{Domain, EnhancedCode, address::AddressLiteral};
use thiserror::Error;

use crate::{MxRecord, ResolveError, Resolver};

/// The most MX hosts of a domain that are looked at.
pub const MAX_HOSTS: usize = 10;
/// The most addresses of a host that are tried.
pub const MAX_ADDRESSES: usize = 5;

/// Why a domain has no host to deliver to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MxError {
    /// The domain does not exist.
    #[error("the domain does not exist")]
    NoSuchDomain,
    /// The domain says that it takes no mail (RFC 7505).
    #[error("the domain does not take mail")]
    NullMx,
    /// The domain has neither MX nor address records.
    #[error("the domain has no mail host")]
    NoHost,
    /// The best MX host is this one, and it does not know what to do with the mail.
    #[error("the domain's mail comes back to this host, which has no route for it")]
    Loop,
    /// Every address is one that mail from DNS must not go to, such as loopback.
    #[error("the domain's mail hosts have no public address")]
    NotPublic,
    /// DNS did not answer.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl MxError {
    /// Whether another attempt may fare better.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Resolve(ResolveError::Temporary(_)))
    }

    /// The enhanced status code for a report (RFC 3463, RFC 7505).
    pub const fn enhanced(&self) -> Option<EnhancedCode> {
        match self {
            Self::NoSuchDomain | Self::Resolve(ResolveError::NoSuchName) => EnhancedCode::new(5, 1, 2),
            Self::NullMx => EnhancedCode::new(5, 1, 10),
            Self::NoHost | Self::NotPublic => EnhancedCode::new(5, 4, 4),
            Self::Loop => EnhancedCode::new(5, 4, 6),
            Self::Resolve(ResolveError::Temporary(_)) => EnhancedCode::new(4, 4, 3),
        }
    }
}

/// The hosts of a domain's mail, in the order in which they are to be tried; hosts of equal preference in random order.
///
/// `own_name` is this host: when it is among the hosts, it and everything that is not better is left out.
///
/// # Errors
/// [`MxError`].
pub async fn hosts(resolver: &impl Resolver, domain: &Domain<&str>, own_name: &str) -> Result<Vec<String>, MxError> {
    if domain.address_literal().is_some() {
        return Ok(vec![domain.as_str().to_owned()]);
    }
    let mut records = match resolver.mx(domain.as_str()).await {
        Ok(records) => records,
        Err(ResolveError::NoSuchName) => return Err(MxError::NoSuchDomain),
        Err(error) => return Err(error.into()),
    };
    if records.is_empty() {
        // The domain itself, with preference 0.
        records.push(MxRecord { preference: 0, exchange: domain.as_str().to_owned() });
    }
    if let [only] = &records[..]
        && only.exchange.is_empty()
    {
        return Err(MxError::NullMx);
    }
    records.retain(|record| Domain::parse(&record.exchange).is_ok());
    fastrand::shuffle(&mut records);
    records.sort_by_key(|record| record.preference);
    if let Some(own) = records.iter().position(|record| record.exchange.eq_ignore_ascii_case(own_name)) {
        let limit = records.get(own).map_or(0, |record| record.preference);
        records.retain(|record| record.preference < limit);
        if records.is_empty() {
            return Err(MxError::Loop);
        }
    }
    records.truncate(MAX_HOSTS);
    if records.is_empty() {
        return Err(MxError::NoHost);
    }
    Ok(records.into_iter().map(|record| record.exchange).collect())
}

/// The addresses of a mail host. Unless `any`, those that no public mail host has are left out: whoever runs a domain
/// must not be able to point this relay at its own network.
///
/// # Errors
/// [`MxError`].
pub async fn addresses(resolver: &impl Resolver, host: &str, any: bool) -> Result<Vec<IpAddr>, MxError> {
    let literal = Domain::parse(host).ok().and_then(|domain| match domain.address_literal() {
        Some(AddressLiteral::Ip(address)) => Some(address),
        _ => None,
    });
    let mut addresses = match literal {
        Some(address) => vec![address],
        None => match resolver.addresses(host).await {
            Err(ResolveError::NoSuchName) => return Err(MxError::NoHost),
            answer => answer?,
        },
    };
    if addresses.is_empty() {
        return Err(MxError::NoHost);
    }
    addresses.retain(|address| any || is_public(*address));
    if addresses.is_empty() {
        return Err(MxError::NotPublic);
    }
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

/// Whether an address may be that of a host on the Internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || first == 0
        || first >= 240
        || shared)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zone(&'static [(u16, &'static str)]);

    impl Resolver for Zone {
        async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, ResolveError> {
            match domain {
                "gone.test" => Err(ResolveError::NoSuchName),
                "broken.test" => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
                _ => Ok(self.0.iter().map(|(preference, host)| record(*preference, host)).collect()),
            }
        }

        async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            match host {
                "none.test" => Ok(Vec::new()),
                "inside.test" => Ok(vec!["127.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()]),
                _ => Ok(vec!["192.0.2.1".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
            }
        }
    }

    fn record(preference: u16, host: &str) -> MxRecord {
        MxRecord { preference, exchange: host.to_owned() }
    }

    async fn found(zone: &'static [(u16, &'static str)], domain: &str) -> Result<Vec<String>, MxError> {
        hosts(&Zone(zone), &Domain::parse(domain).unwrap(), "relay.test").await
    }

    #[tokio::test]
    async fn hosts_come_by_preference_and_at_random_within_one() {
        let zone = &[(20, "c.test"), (10, "a.test"), (10, "b.test")];
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..64 {
            let hosts = found(zone, "d.test").await.unwrap();
            assert_eq!((hosts.len(), hosts[2].as_str()), (3, "c.test"));
            firsts.insert(hosts[0].clone());
        }
        assert_eq!(firsts.len(), 2);
    }

    #[tokio::test]
    async fn the_rules_of_rfc_5321_and_7505() {
        assert_eq!(found(&[], "d.test").await, Ok(vec!["d.test".to_owned()]));
        assert_eq!(found(&[], "[192.0.2.1]").await, Ok(vec!["[192.0.2.1]".to_owned()]));
        assert_eq!(found(&[(0, "")], "d.test").await, Err(MxError::NullMx));
        assert_eq!(found(&[], "gone.test").await, Err(MxError::NoSuchDomain));
        assert!(found(&[], "broken.test").await.unwrap_err().is_transient());
        assert_eq!(found(&[(10, "RELAY.test"), (20, "z.test")], "d.test").await, Err(MxError::Loop));
        let backup = found(&[(5, "a.test"), (10, "relay.test"), (10, "b.test")], "d.test").await;
        assert_eq!(backup, Ok(vec!["a.test".to_owned()]));
    }

    #[tokio::test]
    async fn mail_does_not_go_where_no_public_host_is() {
        let zone = Zone(&[]);
        assert_eq!(addresses(&zone, "mx.test", false).await.unwrap().len(), 1);
        assert_eq!(addresses(&zone, "mx.test", true).await.unwrap().len(), 2);
        assert_eq!(addresses(&zone, "inside.test", false).await, Err(MxError::NotPublic));
        assert_eq!(addresses(&zone, "[127.0.0.1]", false).await, Err(MxError::NotPublic));
        assert_eq!(addresses(&zone, "none.test", false).await, Err(MxError::NoHost));
    }
}
