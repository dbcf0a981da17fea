//! The hosts that take the mail of a domain (RFC 5321 section 5.1).

use std::{collections::HashSet, net::IpAddr};

use posthaste_tokio::wire::{Domain, EnhancedCode, address::AddressLiteral};
use thiserror::Error;

use crate::{Answer, HostName, MxRecord, ResolveError, Resolver};

pub use crate::{
    public::is_public,
    servers::{Demand, MailHosts, NamedHost, Servers, servers, servers_of_domain},
};

/// The most MX hosts of a domain that are tried.
pub const MAX_HOSTS: usize = 10;
/// The most MX hosts of a domain that are kept, of which each look-up of servers takes some.
const MOST_KEPT: usize = 32;
/// The most addresses of a host that are tried.
pub const MAX_ADDRESSES: usize = 5;

/// Why a domain has no host to deliver to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MxError {
    /// The domain does not exist.
    #[error("the domain does not exist")]
    NoSuchDomain,
    /// The domain takes no mail (RFC 7505).
    #[error("the domain does not take mail")]
    NullMx,
    /// The domain has neither MX nor address records, or none that names a possible host.
    #[error("the domain has no mail host")]
    NoHost,
    /// The best MX host is this one, which has no route for the mail.
    #[error("the domain's mail comes back to this host, which has no route for it")]
    Loop,
    /// Every address is one to which DNS must not send mail, such as loopback.
    #[error("the domain's mail hosts have no public address, and `allow_private` is off")]
    NotPublic,
    /// The host must not get the mail now, because of a policy about its TLS that it or the domain
    /// has published (RFC 7672, RFC 8461).
    #[error("the policy of the domain about TLS forbids the host: {0}")]
    TlsPolicy(String),
    /// DNS gave no useful answer.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl MxError {
    /// Returns `true` if another attempt may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Resolve(ResolveError::Temporary(_)) | Self::TlsPolicy(_))
    }

    /// The enhanced status code for a report (RFC 3463, RFC 7505). It is always `Some`.
    pub const fn enhanced(&self) -> Option<EnhancedCode> {
        match self {
            Self::NoSuchDomain | Self::Resolve(ResolveError::NoSuchName) => EnhancedCode::new(5, 1, 2),
            Self::NullMx => EnhancedCode::new(5, 1, 10),
            Self::NoHost | Self::NotPublic | Self::Resolve(ResolveError::Unusable(_)) => EnhancedCode::new(5, 4, 4),
            Self::Loop => EnhancedCode::new(5, 4, 6),
            Self::TlsPolicy(_) => EnhancedCode::new(4, 7, 5),
            Self::Resolve(ResolveError::Temporary(_)) => EnhancedCode::new(4, 4, 3),
        }
    }
}

/// The hosts of a domain's mail, in the order in which to try them. Hosts of equal preference come
/// in random order.
///
/// Without MX records the domain is its own host, of preference 0. Hosts are named as in the DNS,
/// in ASCII ([`HostName`]). An address literal is its own host. Records that name no possible host
/// are passed over, and a host that several records name comes once. The future may be dropped; the
/// resolver limits its wait.
///
/// The answer is secure if the answer about the MX records is, also if it is that there are none.
///
/// `own_name` is the name of this host, in A-labels or U-labels. If it is among the hosts, only
/// hosts with a lower preference value stay. The list is cut to [`MAX_HOSTS`] after that.
///
/// # Errors
/// [`MxError`]; [`MxError::Loop`] also for the domain `own_name`, for which DNS is not asked.
pub async fn hosts(
    resolver: &impl Resolver,
    domain: &Domain<&str>,
    own_name: &str,
) -> Result<Answer<MxRecord>, MxError> {
    let all = all_hosts(resolver, domain, own_name).await?;
    Ok(all.with(some(&all.records)))
}

/// Some of the hosts, in the order in which to try them now.
pub(crate) fn some(all: &[MxRecord]) -> Vec<MxRecord> {
    let mut hosts = all.to_vec();
    fastrand::shuffle(&mut hosts);
    hosts.sort_by_key(|host| host.preference);
    hosts.truncate(MAX_HOSTS);
    hosts
}

/// The hosts by preference and then by name: equal records give an equal list. It is cut to
/// [`MOST_KEPT`].
pub(crate) async fn all_hosts(
    resolver: &impl Resolver,
    domain: &Domain<&str>,
    own_name: &str,
) -> Result<Answer<MxRecord>, MxError> {
    let only = |exchange| vec![MxRecord { preference: 0, exchange }];
    if domain.address_literal().is_some() {
        return Ok(only(domain.as_str().to_owned()).into());
    }
    // A name that the DNS cannot hold does not exist.
    let domain = HostName::parse(domain.as_str()).map_err(|_| MxError::NoSuchDomain)?;
    let own_name = HostName::parse(own_name).ok();
    if own_name.as_ref() == Some(&domain) {
        return Err(MxError::Loop);
    }
    let mut answer = match resolver.mx(domain.as_str()).await {
        Ok(answer) => answer,
        Err(ResolveError::NoSuchName) => return Err(MxError::NoSuchDomain),
        Err(error) => return Err(error.into()),
    };
    let mut records = std::mem::take(&mut answer.records);
    if records.is_empty() {
        return Ok(answer.with(only(domain.into())));
    }
    if records.iter().all(|record| record.exchange.is_empty()) {
        return Err(MxError::NullMx);
    }
    records.sort_by_cached_key(|record| (record.preference, record.exchange.to_ascii_lowercase()));
    let named = |record: MxRecord| Some((record.preference, HostName::parse(&record.exchange).ok()?));
    let mut hosts: Vec<_> = records.into_iter().filter_map(named).collect();
    let own = hosts.iter().find(|(_, host)| own_name.as_ref() == Some(host));
    if let Some(&(limit, _)) = own {
        hosts.retain(|(preference, _)| *preference < limit);
        if hosts.is_empty() {
            return Err(MxError::Loop);
        }
    }
    let mut known = HashSet::new();
    hosts.retain(|(_, host)| known.insert(host.as_str().to_ascii_lowercase()));
    hosts.truncate(MOST_KEPT);
    if hosts.is_empty() {
        return Err(MxError::NoHost);
    }
    let record = |(preference, host): (u16, HostName)| MxRecord { preference, exchange: host.into() };
    Ok(answer.with(hosts.into_iter().map(record).collect()))
}

/// The addresses of a mail host: the one of an address literal, or those in the DNS. There are at
/// most [`MAX_ADDRESSES`].
///
/// Unless `any` is `true`, addresses that are not [public](is_public) are left out: the owner of a
/// domain must not be able to point this relay at its own network. Connect to these, and do not
/// look the host up again: the second answer could differ. The future may be dropped; the resolver
/// limits its wait.
///
/// # Errors
/// [`MxError`].
pub async fn addresses(resolver: &impl Resolver, host: &str, any: bool) -> Result<Answer<IpAddr>, MxError> {
    let literal = Domain::parse(host).ok();
    let mut answer = match literal.as_ref().and_then(Domain::address_literal) {
        Some(AddressLiteral::Ip(address)) => vec![address].into(),
        Some(_) => return Err(MxError::NoHost),
        None => {
            let host = HostName::parse(host).map_err(|_| MxError::NoHost)?;
            match resolver.addresses(host.as_str()).await {
                Err(ResolveError::NoSuchName) => return Err(MxError::NoHost),
                answer => answer?,
            }
        }
    };
    let addresses = &mut answer.records;
    if addresses.is_empty() {
        return Err(MxError::NoHost);
    }
    addresses.retain(|address| any || is_public(*address));
    if addresses.is_empty() {
        return Err(MxError::NotPublic);
    }
    addresses.truncate(MAX_ADDRESSES);
    Ok(answer)
}

/// A host's name for connections, logs and reports: in ASCII, as [`HostName`] writes it. An address
/// literal, or a text that is no host's name, stays as it is.
pub fn ascii_name(host: &str) -> String {
    let literal = Domain::parse(host).is_ok_and(|domain| domain.address_literal().is_some());
    let name = if literal { None } else { HostName::parse(host).ok() };
    name.map_or_else(|| host.to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zone(&'static [(u16, &'static str)]);

    impl Resolver for Zone {
        async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
            match domain {
                "gone.test" => Err(ResolveError::NoSuchName),
                "loop.test" => Err(ResolveError::Unusable("a loop")),
                "broken.test" => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
                _ => Ok(self.0.iter().map(|(preference, host)| record(*preference, host)).collect::<Vec<_>>().into()),
            }
        }

        async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
            match host {
                "none.test" => Ok(Answer::default()),
                "loop.test" => Err(ResolveError::Unusable("a loop")),
                "inside.test" => Ok(vec!["127.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()].into()),
                _ => Ok(vec!["198.41.0.4".parse().unwrap(), "10.0.0.1".parse().unwrap()].into()),
            }
        }
    }

    struct One(&'static str);

    impl Resolver for One {
        async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
            Ok(vec![record(10, self.0)].into())
        }

        async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
            Ok(Answer::default())
        }
    }

    fn record(preference: u16, host: &str) -> MxRecord {
        MxRecord { preference, exchange: host.to_owned() }
    }

    async fn found(zone: &'static [(u16, &'static str)], domain: &str) -> Result<Vec<String>, MxError> {
        let found = hosts(&Zone(zone), &Domain::parse(domain).unwrap(), "relay.test").await?;
        Ok(found.records.into_iter().map(|host| host.exchange).collect())
    }

    #[tokio::test]
    async fn hosts_come_by_preference_and_at_random_within_one() {
        let zone = &[(20, "c.test"), (10, "a.test"), (10, "b.test")];
        let mut firsts = HashSet::new();
        for _ in 0..64 {
            let hosts = found(zone, "d.test").await.unwrap();
            assert_eq!((hosts.len(), hosts[2].as_str()), (3, "c.test"));
            firsts.insert(hosts[0].clone());
        }
        assert_eq!(firsts.len(), 2);
    }

    #[tokio::test]
    async fn hosts_follow_rfc_5321_and_7505() {
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
    async fn addresses_that_are_not_public_are_left_out_unless_wanted() {
        let zone = Zone(&[]);
        assert_eq!(addresses(&zone, "mx.test", false).await.unwrap().records.len(), 1);
        assert_eq!(addresses(&zone, "mx.test", true).await.unwrap().records.len(), 2);
        assert_eq!(addresses(&zone, "inside.test", false).await, Err(MxError::NotPublic));
        for literal in ["[127.0.0.1]", "[192.0.2.1]", "[IPv6:::1]", "[IPv6:64:ff9b::10.0.0.1]", "[IPv6:2002:7f00:1::1]"]
        {
            assert_eq!(addresses(&zone, literal, false).await, Err(MxError::NotPublic), "{literal}");
            assert_eq!(addresses(&zone, literal, true).await.unwrap().records.len(), 1, "{literal}");
        }
        assert_eq!(addresses(&zone, "[x:127.0.0.1]", true).await, Err(MxError::NoHost));
        assert_eq!(addresses(&zone, "none.test", false).await, Err(MxError::NoHost));
    }

    #[tokio::test]
    async fn a_host_is_named_as_in_the_dns() {
        for (exchange, expected) in [
            ("mail_1.one.test", "mail_1.one.test"),
            ("mx.xn--bcher-kva.test", "mx.xn--bcher-kva.test"),
            ("xn--0.test", "xn--0.test"),
            ("Mail.123", "Mail.123"),
            ("-mx-.test", "-mx-.test"),
            ("192.0.2.1", "192.0.2.1"),
            // A literal has no meaning in an MX record: it is a name like any other.
            ("[10.0.0.1]", "\\09110.0.0.1\\093"),
            ("mx\r\n250 ok.test", "mx\\013\\010250\\032ok.test"),
        ] {
            let found = hosts(&One(exchange), &Domain::parse("d.test").unwrap(), "relay.test").await.unwrap().records;
            assert_eq!(found[0].exchange, expected);
            assert_eq!(
                Domain::parse(&found[0].exchange).ok().and_then(|host| host.address_literal().map(|_| ())),
                None
            );
        }
        for exchange in ["a..test", "a".repeat(64).leak(), "a.".repeat(128).leak()] {
            let found = hosts(&One(exchange), &Domain::parse("d.test").unwrap(), "relay.test").await;
            assert_eq!(found, Err(MxError::NoHost), "{exchange}");
        }
    }

    #[cfg(feature = "idna")]
    #[tokio::test]
    async fn this_host_is_recognized_by_its_a_label_and_its_u_label() {
        for own in ["mx.b\u{fc}cher.test", "mx.xn--bcher-kva.test", "MX.XN--BCHER-KVA.TEST"] {
            for exchange in ["mx.xn--bcher-kva.test", "mx.b\u{fc}cher.test", "Mx.xn--Bcher-kva.test"] {
                let found = hosts(&One(exchange), &Domain::parse("d.test").unwrap(), own).await;
                assert_eq!(found, Err(MxError::Loop), "{own} {exchange}");
                let found = hosts(&One("other.test"), &Domain::parse(exchange).unwrap(), own).await;
                assert_eq!(found, Err(MxError::Loop), "{own} {exchange}");
            }
        }
    }

    #[tokio::test]
    async fn a_domain_that_the_dns_cannot_hold_does_not_exist() {
        let (label, label_62) = ("a".repeat(63), "b".repeat(62));
        let long = format!("{label}.{label}.{label}.{label_62}");
        for domain in [long.as_str(), "\u{301}a.test"] {
            assert_eq!(found(&[(1, "mx.test")], domain).await, Err(MxError::NoSuchDomain), "{domain}");
        }
        // An A-label without a U-label may exist.
        assert_eq!(found(&[], "xn--0.test").await, Ok(vec!["xn--0.test".to_owned()]));
    }

    #[tokio::test]
    async fn mx_records_that_name_no_host_are_passed_over() {
        let usable = found(&[(5, ""), (10, "a..test"), (20, "a.test"), (30, "A.test")], "d.test").await;
        assert_eq!(usable, Ok(vec!["a.test".to_owned()]));
        assert_eq!(found(&[(5, ""), (10, "a..test")], "d.test").await, Err(MxError::NoHost));
        assert_eq!(found(&[(0, ""), (10, "")], "d.test").await, Err(MxError::NullMx));
    }

    #[tokio::test]
    async fn the_list_of_hosts_is_cut_after_this_host_was_looked_for() {
        const HOSTS: [&str; 12] = [
            "a.test",
            "b.test",
            "c.test",
            "d.test",
            "e.test",
            "f.test",
            "g.test",
            "h.test",
            "i.test",
            "j.test",
            "k.test",
            "relay.test",
        ];
        let mut zone: Vec<_> = (10..).zip(HOSTS).collect();
        let some = found(zone.clone().leak(), "d.test").await.unwrap();
        assert_eq!(some, HOSTS[..MAX_HOSTS]);
        zone.iter_mut().for_each(|(preference, host)| *preference = if *host == "relay.test" { 10 } else { 20 });
        assert_eq!(found(zone.leak(), "d.test").await, Err(MxError::Loop));
    }

    #[tokio::test]
    async fn dns_records_that_lead_nowhere_are_a_permanent_failure() {
        let error = found(&[], "loop.test").await.unwrap_err();
        assert!(!error.is_transient() && error.enhanced() == EnhancedCode::new(5, 4, 4), "{error}");
        let error = addresses(&Zone(&[]), "loop.test", false).await.unwrap_err();
        assert!(!error.is_transient() && error.enhanced() == EnhancedCode::new(5, 4, 4), "{error}");
    }
}
