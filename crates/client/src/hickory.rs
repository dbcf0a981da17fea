//! DNS by hickory.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RData},
};

use crate::{MxRecord, ResolveError, Resolver};

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
        let Some(lookup) = answer(self.0.mx_lookup(absolute(domain))).await? else { return Ok(Vec::new()) };
        let record = |data: &RData| match data {
            RData::MX(mx) => Some(MxRecord {
                preference: mx.preference,
                exchange: mx.exchange.to_utf8().trim_end_matches('.').to_owned(),
            }),
            _ => None,
        };
        Ok(lookup.answers().iter().filter_map(|answer| record(&answer.data)).collect())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let lookup = answer(self.0.lookup_ip(absolute(host))).await?;
        Ok(lookup.map(|lookup| lookup.iter().collect()).unwrap_or_default())
    }
}

/// Nothing means that the name exists and has no such records.
async fn answer<T>(lookup: impl Future<Output = Result<T, NetError>>) -> Result<Option<T>, ResolveError> {
    match tokio::time::timeout(LOOKUP, lookup).await {
        Err(_) => Err(ResolveError::Temporary("no answer in time".to_owned())),
        Ok(Ok(lookup)) => Ok(Some(lookup)),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) if none.response_code == ResponseCode::NXDomain => {
            Err(ResolveError::NoSuchName)
        }
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) if none.response_code == ResponseCode::NoError => {
            Ok(None)
        }
        Ok(Err(error)) => Err(ResolveError::Temporary(error.to_string())),
    }
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}
