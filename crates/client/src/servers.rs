//! From the names of mail hosts to the servers that are tried.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use posthaste_tokio::wire::Domain;
use tokio::time::{Instant, timeout_at};

use crate::{
    Answer, MxRecord, Published, ResolveError, Resolver, Target, Tls,
    mx::{MxError, addresses, all_hosts, some},
    published::{HostPolicy, OfDomain},
};

/// How long the other hosts have after the addresses of one are known.
const GRACE: Duration = Duration::from_secs(1);
/// The longest wait for the addresses of all hosts. A resolver limits its own waits to less.
const ALL: Duration = Duration::from_secs(120);

/// A mail host that is to be looked up.
#[derive(Debug, Clone)]
pub struct NamedHost {
    /// Its name as in the DNS, or an address literal.
    pub name: Arc<str>,
    /// The port.
    pub port: u16,
    /// Lower values come first.
    pub preference: u16,
}

/// The servers of mail hosts.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Servers {
    /// In the order in which to try them.
    pub targets: Vec<Target>,
    /// The policies of the hosts, as [`Published::count`] takes them.
    policies: Vec<(Arc<str>, HostPolicy)>,
    /// The hosts that have no server, and why.
    pub missing: Vec<(Arc<str>, MxError)>,
}

/// A host and the TLS that it needs. No message goes over a connection that was made for other
/// demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Demand {
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

impl Servers {
    /// The policy of a host. `None`: it has no server.
    pub fn policy(&self, host: &str) -> Option<&HostPolicy> {
        self.policies.iter().find(|(name, _)| **name == *host).map(|(_, policy)| policy)
    }

    /// What connections to one of the [targets](Self::targets) have to be.
    pub fn demand(&self, target: &Target) -> Demand {
        let records = self.policy(&target.host).map(HostPolicy::proof).unwrap_or_default();
        let tls = match &target.tls {
            None => Proof::Usual,
            Some(_) if !records.is_empty() => Proof::Records(records.to_vec()),
            Some(own) if own.tls.is_verified() => Proof::Name,
            Some(_) => Proof::Encrypted,
        };
        Demand { host: target.host.to_ascii_lowercase(), tls }
    }

    /// The demands of all targets, each once and in alphabetical order.
    pub(crate) fn demands(&self) -> Vec<Demand> {
        let mut demands: Vec<_> = self.targets.iter().map(|target| self.demand(target)).collect();
        demands.sort_unstable();
        demands.dedup();
        demands
    }
}

/// The servers of hosts that the configuration names, in their order. All hosts are looked up at
/// once. As soon as one has addresses, the others have one more second.
///
/// With `any`, addresses that are not [public](crate::mx::is_public) count too.
pub async fn servers(resolver: &impl Resolver, named: &[NamedHost], any: bool) -> Servers {
    find(resolver, named, any, None).await
}

/// The servers of a domain: its [hosts](crate::mx::hosts) with their addresses, on this port. Where
/// the domain has [published](Published) policies, each has the TLS that they demand, and hosts
/// that must not get the mail are among the missing. `usual` is the TLS where they demand nothing.
///
/// # Errors
/// [`MxError`] if the domain has no host.
pub async fn servers_of_domain(
    resolver: &impl Resolver,
    domain: &Domain<&str>,
    own_name: &str,
    to: (u16, bool),
    policies: (&Published, &Tls),
) -> Result<Servers, MxError> {
    let (published, _) = policies;
    let mut hosts = MailHosts::of(resolver, domain, own_name, published).await?;
    let servers = hosts.servers(resolver, to, policies).await;
    let is_passed_over = servers.missing.iter().any(|(_, why)| matches!(why, MxError::TlsPolicy(_)));
    if !servers.targets.is_empty() || !is_passed_over || !Published::may_change(&hosts.of) {
        return Ok(servers);
    }
    // No message is returned because of a policy that may be out of date (RFC 8461 section 5.1).
    hosts.of = published.of_domain(resolver, domain.as_str(), &hosts.answer, true).await;
    Ok(hosts.servers(resolver, to, policies).await)
}

/// The mail hosts of a domain and what it has [published](Published) about them, looked up before
/// their addresses: for a caller that keeps the one longer than the other.
#[derive(Debug)]
pub struct MailHosts {
    domain: Box<str>,
    answer: Answer<MxRecord>,
    of: OfDomain,
}

impl MailHosts {
    /// Looks up the [hosts](crate::mx::hosts) of a domain, 32 of them at most, and its policy. A
    /// policy that names no host is looked up again, since it may be out of date (RFC 8461 section
    /// 5.1).
    ///
    /// # Errors
    /// [`MxError`] if the domain has no host.
    pub async fn of(
        resolver: &impl Resolver,
        domain: &Domain<&str>,
        own_name: &str,
        published: &Published,
    ) -> Result<Self, MxError> {
        let answer = all_hosts(resolver, domain, own_name).await?;
        let domain = domain.as_str();
        let mut of = OfDomain::default();
        if !published.is_empty() {
            of = published.of_domain(resolver, domain, &answer, false).await;
            if Published::passes_over_all(&of, &answer.records) {
                of = published.of_domain(resolver, domain, &answer, true).await;
            }
        }
        Ok(Self { domain: domain.into(), answer, of })
    }

    /// The domain, as it was asked for.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The hosts by preference, and by name where that is equal.
    pub fn hosts(&self) -> &[MxRecord] {
        &self.answer.records
    }

    /// How long the answer counts, from when it came. `None`: the resolver did not tell.
    pub fn ttl(&self) -> Option<Duration> {
        self.answer.ttl
    }

    /// Looks up their servers, as [`servers_of_domain`] does. Hosts of equal preference come in
    /// another order each time.
    pub async fn servers(
        &self,
        resolver: &impl Resolver,
        (port, any): (u16, bool),
        (published, usual): (&Published, &Tls),
    ) -> Servers {
        let named = |host: MxRecord| NamedHost { name: host.exchange.into(), port, preference: host.preference };
        let named: Vec<_> = some(&self.answer.records).into_iter().map(named).collect();
        let policies = (!published.is_empty()).then_some((published, &self.of, usual));
        find(resolver, &named, any, policies).await
    }
}

async fn find(
    resolver: &impl Resolver,
    named: &[NamedHost],
    any: bool,
    policies: Option<(&Published, &OfDomain, &Tls)>,
) -> Servers {
    let one = |(index, host): (usize, &NamedHost)| {
        let host = host.clone();
        async move {
            let found = async {
                let addresses = addresses(resolver, &host.name, any).await?;
                let (tls, policy) = match policies {
                    Some((published, of, usual)) => {
                        published.of_host(resolver, of, (&host.name, host.port), &addresses, usual).await?
                    }
                    None => Default::default(),
                };
                let target = |address| {
                    let server = SocketAddr::new(address, host.port);
                    Target { tls: tls.clone(), ..Target::new(Arc::clone(&host.name), server, host.preference) }
                };
                Ok((addresses.records.into_iter().map(target).collect::<Vec<_>>(), policy))
            };
            (index, found.await)
        }
    };
    let mut asked: FuturesUnordered<_> = named.iter().enumerate().map(one).collect();
    let mut answers = HashMap::new();
    let mut until = Instant::now() + ALL;
    while let Ok(Some((index, answer))) = timeout_at(until, asked.next()).await {
        let answer: Result<(Vec<Target>, HostPolicy), MxError> = answer;
        if answer.is_ok() {
            until = until.min(Instant::now() + GRACE);
        }
        answers.insert(index, answer);
    }
    let mut servers = Servers::default();
    for (index, host) in named.iter().enumerate() {
        let late = || Err(ResolveError::Temporary("no answer in time".to_owned()).into());
        match answers.remove(&index).unwrap_or_else(late) {
            Ok((targets, policy)) => {
                servers.policies.push((Arc::clone(&host.name), policy));
                servers.targets.extend(targets);
            }
            Err(why) => servers.missing.push((Arc::clone(&host.name), why)),
        }
    }
    servers
}
