//! DNS by hickory.

mod answer;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod dnssec;
mod servers;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, Record, RecordType},
    system_conf::read_system_conf,
};

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use dnssec::TrustAnchors;

use crate::{Answer, HostName, MxRecord, ResolveError, Resolver, TlsaRecord};
use answer::{Proof, Reply};
use servers::Servers;
use tokio::time::timeout;

/// Looks names up in the DNS, with a cache. It appends no search domain. A look-up takes 20 s at
/// most, one of addresses 40 s, and with DNSSEC twice that. Beyond it: [`ResolveError::Temporary`].
///
/// No answer is secure unless the resolver validates DNSSEC, see `validating`, or believes a name
/// server that does, see [`trusting`](Self::trusting).
#[derive(Debug, Clone)]
pub struct HickoryResolver {
    resolver: TokioResolver,
    config: Arc<ResolverConfig>,
    prover: Prover,
}

/// Who says what DNSSEC has proved.
#[derive(Debug, Clone)]
enum Prover {
    NoOne,
    #[cfg_attr(not(any(feature = "aws-lc-rs", feature = "ring")), expect(dead_code))]
    Resolver,
    Servers(Arc<Servers>),
}

/// The bound on one look-up, retries included.
const LOOKUP: Duration = Duration::from_secs(20);

impl HickoryResolver {
    /// Asks the name servers of the system's configuration.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] if that cannot be read.
    pub fn system() -> Result<Self, ResolveError> {
        let (config, mut options) = read_system_conf().map_err(|error| not_set_up(&error))?;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Self::build(Arc::new(config), options)
    }

    /// Asks these name servers, each by UDP and TCP on its port.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] if the resolver cannot be set up.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        let server = |address: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = address.port());
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut options = ResolverOpts::default();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Self::build(Arc::new(config), options)
    }

    fn build(config: Arc<ResolverConfig>, options: ResolverOpts) -> Result<Self, ResolveError> {
        let builder =
            TokioResolver::builder_with_config(ResolverConfig::clone(&config), TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|error| not_set_up(&error))?;
        Ok(Self { resolver, config, prover: Prover::NoOne })
    }

    /// Looks up records of one type. `None`: the name exists and has none of them.
    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        record: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, ResolveError> {
        if let Prover::Servers(servers) = &self.prover {
            return servers.ask(&name, kind, record).await;
        }
        let reply = Reply::of(self.look_up(name.clone(), kind)).await?;
        self.read(reply, &name, record).await
    }

    /// The answer of a reply. The aliases that a proof needs are looked up if they are missing.
    async fn read<T>(
        &self,
        mut reply: Reply,
        name: &Name,
        record: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, ResolveError> {
        if matches!(self.prover, Prover::Resolver) {
            let found = timeout(LOOKUP, self.add_aliases(&mut reply, name, |data| record(data).is_some())).await;
            found.unwrap_or_else(|_| Err(ResolveError::Temporary(answer::TOO_LATE.to_owned())))?;
        }
        let proof = if matches!(self.prover, Prover::Resolver) { Proof::Records } else { Proof::None };
        reply.answer(name, proof, record)
    }

    async fn look_up(&self, name: Name, kind: RecordType) -> Result<Vec<Record>, NetError> {
        Ok(self.resolver.lookup(name, kind).await?.answers().to_vec())
    }

    async fn add_aliases(
        &self,
        reply: &mut Reply,
        name: &Name,
        is_wanted: impl Fn(&RData) -> bool,
    ) -> Result<(), ResolveError> {
        // Each adds an alias, and their number has a bound.
        while let Some(gap) = reply.gap(name, &is_wanted)? {
            match Reply::of(self.look_up(gap, RecordType::CNAME)).await {
                Ok(alias) => reply.add(alias)?,
                Err(ResolveError::NoSuchName) => return Err(ResolveError::Temporary(answer::CONTRADICTION.to_owned())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Resolver for HickoryResolver {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        let record = |data: &RData| match data {
            RData::MX(mx) => Some(MxRecord { preference: mx.preference, exchange: text(&mx.exchange) }),
            _ => None,
        };
        self.ask(name(domain)?, RecordType::MX, record).await
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        let name = name(host)?;
        if let Prover::Servers(servers) = &self.prover {
            return servers.addresses(&name).await;
        }
        let both = async { Ok(self.resolver.lookup_ip(name.clone()).await?.as_lookup().answers().to_vec()) };
        let answer = self.read(Reply::of(both).await?, &name, RData::ip_addr).await?;
        if !answer.records.is_empty() {
            return Ok(answer);
        }
        // "No IPv4 addresses" hides the answer for IPv6, which may be missing.
        self.ask(name, RecordType::AAAA, RData::ip_addr).await
    }

    async fn tlsa(&self, owner: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        let record = |data: &RData| match data {
            RData::TLSA(tlsa) => Some(TlsaRecord {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching_type: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        };
        self.ask(name(owner)?, RecordType::TLSA, record).await
    }

    async fn txt(&self, text: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        let record = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        };
        Ok(self.ask(name(text)?, RecordType::TXT, record).await?.records)
    }
}

/// The name, octet by octet. A name that the DNS cannot hold does not exist.
fn name(text: &str) -> Result<Name, ResolveError> {
    let labels = HostName::parse(text).map_err(|_| ResolveError::NoSuchName)?;
    let mut name = Name::from_labels(labels.labels()).map_err(|_| ResolveError::NoSuchName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// The text of a name from the DNS; empty for the root.
fn text(name: &Name) -> String {
    HostName::from_labels(name.iter()).map(String::from).unwrap_or_default()
}

fn not_set_up(error: &NetError) -> ResolveError {
    ResolveError::Temporary(error.to_string())
}
