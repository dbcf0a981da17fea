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

/// Looks names up in the DNS, with a cache. It appends no search domain. A look-up takes 20 s at
/// most, one of addresses 40 s. Beyond it: [`ResolveError::Temporary`].
#[derive(Debug, Clone)]
pub struct HickoryResolver(TokioResolver);

/// The bound on one look-up, retries included.
const LOOKUP: Duration = Duration::from_secs(20);

impl HickoryResolver {
    /// Asks the name servers of the system's configuration.
    ///
    /// # Errors
    /// [`ResolveError::Temporary`] if that cannot be read.
    pub fn system() -> Result<Self, ResolveError> {
        let builder = TokioResolver::builder_tokio().map_err(|error| ResolveError::Temporary(error.to_string()))?;
        Self::build(builder)
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
            // "No IPv4 addresses" hides the answer for IPv6, which may be missing.
            None => answer(self.0.ipv6_lookup(name)).await.map(|_| Vec::new()),
        }
    }

    async fn txt(&self, text: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        let Some(lookup) = answer(self.0.txt_lookup(name(text)?)).await? else { return Ok(Vec::new()) };
        let record = |data: &RData| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        };
        Ok(lookup.answers().iter().filter_map(|answer| record(&answer.data)).collect())
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

/// The result of a look-up. `None`: the name exists and has no such records.
async fn answer<T>(lookup: impl Future<Output = Result<T, NetError>>) -> Result<Option<T>, ResolveError> {
    let error = match tokio::time::timeout(LOOKUP, lookup).await {
        Err(_) => return Err(ResolveError::Temporary("no answer in time".to_owned())),
        Ok(Ok(lookup)) => return Ok(Some(lookup)),
        Ok(Err(error)) => error,
    };
    match &error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
            // A referral to name servers that the resolver did not follow (RFC 2308 section 2.2).
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                Err(ResolveError::Temporary("the name server refers to others".to_owned()))
            }
            ResponseCode::NoError => Ok(None),
            _ => Err(ResolveError::Temporary(error.to_string())),
        },
        // The resolver has asked several times: the zone itself holds this.
        NetError::Proto(ProtoError::Decode(_)) => Err(ResolveError::Unusable("they cannot be read")),
        _ => Err(ResolveError::Temporary(error.to_string())),
    }
}
