//! DNS by hickory.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        ProtoError,
        op::ResponseCode,
        rr::{Name, RData},
    },
};

use crate::{HostName, MxRecord, ResolveError, Resolver};

/// Looks names up in the DNS, with a cache. A name is taken as it is: no search domain is appended.
#[derive(Debug, Clone)]
pub struct HickoryResolver(TokioResolver);

/// The bound on one look-up, retries included.
const LOOKUP: Duration = Duration::from_secs(20);

impl HickoryResolver {
    /// With the servers of the system's configuration.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] when that cannot be read.
    pub fn system() -> Result<Self, ResolveError> {
        let builder = TokioResolver::builder_tokio().map_err(|error| ResolveError::Temporary(error.to_string()))?;
        Self::build(builder)
    }

    /// With these servers, each by UDP and TCP on its port.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] when the resolver cannot be set up.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        let server = |address: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = address.port());
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, ResolveError> {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(|error| ResolveError::Temporary(error.to_string()))?;
        Ok(Self(resolver))
    }
}

impl Resolver for HickoryResolver {
    async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, ResolveError> {
        let Some(lookup) = answer(self.0.mx_lookup(name(domain)?)).await? else { return Ok(Vec::new()) };
        let record = |data: &RData| match data {
            RData::MX(mx) => Some(MxRecord { preference: mx.preference, exchange: text(&mx.exchange) }),
            _ => None,
        };
        Ok(lookup.answers().iter().filter_map(|answer| record(&answer.data)).collect())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let name = name(host)?;
        match answer(self.0.lookup_ip(name.clone())).await? {
            Some(lookup) => Ok(lookup.iter().collect()),
            // That there are no IPv4 addresses hides what came of the IPv6 ones, which may be no answer at all.
            None => answer(self.0.ipv6_lookup(name)).await.map(|_| Vec::new()),
        }
    }
}

/// The name, octet by octet. What the DNS cannot hold does not exist.
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

/// What came of a look-up; `None`: the name exists and has no such records.
async fn answer<T>(lookup: impl Future<Output = Result<T, NetError>>) -> Result<Option<T>, ResolveError> {
    let error = match tokio::time::timeout(LOOKUP, lookup).await {
        Err(_) => return Err(ResolveError::Temporary("no answer in time".to_owned())),
        Ok(Ok(lookup)) => return Ok(Some(lookup)),
        Ok(Err(error)) => error,
    };
    match &error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
            // A referral: the server that was asked is not the one to ask, and knows of nobody who is (RFC 2308 section 2.2).
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Err(ResolveError::Temporary("the name server refers to others".to_owned()))
            }
            ResponseCode::NoError => Ok(None),
            _ => Err(ResolveError::Temporary(error.to_string())),
        },
        // Asked several times, the server says so each time: it is what stands in the zone.
        NetError::Proto(ProtoError::Decode(_)) => Err(ResolveError::Unusable("they cannot be read")),
        _ => Err(ResolveError::Temporary(error.to_string())),
    }
}
