//! DNSSEC, validated by a name server on this host.

use std::{fmt, net::IpAddr, sync::Arc};

use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    net::{
        DnsError, NetError, NoRecords,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle},
    },
    proto::{
        op::{DnsRequestOptions, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};

use super::{
    HickoryResolver, Prover,
    answer::{Proof, Reply},
    not_set_up,
};
use crate::{Answer, ResolveError};

/// Name servers that validate. They have a cache, so there is none here.
pub(super) struct Servers(RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>);

impl HickoryResolver {
    /// The same resolver, which believes its name servers about DNSSEC: the AD bit (RFC 4035
    /// section 3.2.3). They have to be on this host, so that no other can answer in their place.
    ///
    /// Such a server is unbound, or BIND, with validation. It is asked each time, since it has a
    /// cache. An answer that there is no record is never secure: a domain without MX records then
    /// has no DANE. The system's file of hosts is not read.
    ///
    /// # Errors
    /// [`ResolveError::Unusable`] if a name server has another address than one of loopback, or
    /// there is none. [`ResolveError::Temporary`] if the resolver cannot be set up.
    pub fn trusting(self) -> Result<Self, ResolveError> {
        let servers = self.config.name_servers();
        if servers.is_empty() || servers.iter().any(|server| !server.ip.is_loopback()) {
            return Err(ResolveError::Unusable("name servers that are believed have to be on this host"));
        }
        let options = self.resolver.options().clone();
        let attempts = options.attempts;
        let context = PoolContext::new(options, TlsConfig::new().map_err(|error| not_set_up(&error))?);
        let pool = NameServerPool::from_config(servers.to_vec(), Arc::new(context), TokioRuntimeProvider::default());
        let servers = Arc::new(Servers(RetryDnsHandle::new(pool, attempts)));
        Ok(Self { prover: Prover::Servers(servers), ..self })
    }
}

impl Servers {
    /// Looks up addresses of both kinds, one after another.
    pub(super) async fn addresses(&self, name: &Name) -> Result<Answer<IpAddr>, ResolveError> {
        let mut found = self.both(name).await?;
        if let (Some(alias), false) = (&mut found.alias, found.is_secure) {
            // The first alias may be secure though the others are not (RFC 7672 section 2.2.2).
            let own = |data: &RData| matches!(data, RData::CNAME(_)).then_some(());
            alias.is_secure = self.ask(name, RecordType::CNAME, own).await?.is_secure;
        }
        Ok(found)
    }

    async fn both(&self, name: &Name) -> Result<Answer<IpAddr>, ResolveError> {
        let mut one = self.ask(name, RecordType::A, RData::ip_addr).await;
        let other = self.ask(name, RecordType::AAAA, RData::ip_addr).await;
        match (&mut one, other) {
            (Ok(one), Ok(other)) if !one.records.is_empty() && !other.records.is_empty() => {
                one.is_secure &= other.is_secure;
                one.records.extend(other.records);
            }
            // One kind of address is as good as both. Without any, the error counts.
            (Ok(one), _) if !one.records.is_empty() => {}
            (Ok(_), other) => return other,
            (Err(_), Ok(other)) if !other.records.is_empty() => return Ok(other),
            (Err(_), _) => {}
        }
        one
    }

    /// Looks up records of one type.
    pub(super) async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        record: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, ResolveError> {
        let mut is_proved = false;
        let answers = async {
            let mut options = DnsRequestOptions::default();
            // Without the bit DO a server says nothing of DNSSEC (RFC 6840 section 5.8).
            options.edns_set_dnssec_ok = true;
            let query = Query::query(name.clone(), kind);
            let response = self.0.lookup(query.clone(), options).first_answer().await?;
            let response = DnsError::from_response(response).map_err(NetError::from)?;
            // Aliases that lead to a name that does not exist.
            if response.response_code == ResponseCode::NXDomain {
                return Err(NoRecords::new(query, ResponseCode::NXDomain).into());
            }
            is_proved = response.metadata.authentic_data;
            Ok::<Vec<Record>, NetError>(response.answers.clone())
        };
        let reply = Reply::of(answers).await?;
        // Absence is not known to be proved: the bit of such a response is not kept.
        reply.answer(name, if is_proved { Proof::Whole } else { Proof::None }, record)
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Servers").finish_non_exhaustive()
    }
}
