//! Name look-ups.

use std::{future::Future, net::IpAddr};

use thiserror::Error;

/// Looks up what delivery needs. An application may bring its own.
///
/// Names are written as by [`HostName`](crate::HostName): in ASCII, other scripts in A-labels, odd
/// octets escaped, without a trailing dot. Look each up unchanged, also if it is no host name: only
/// the DNS decides which names exist.
///
/// The futures may be dropped. An implementation bounds its own look-ups; the callers here set no
/// timeout.
pub trait Resolver: Send + Sync + 'static {
    /// The MX records of a domain. Empty: the domain exists and has none.
    fn mx(&self, domain: &str) -> impl Future<Output = Result<Vec<MxRecord>, ResolveError>> + Send;

    /// The addresses of a host. Empty: the name exists and has none.
    fn addresses(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send;

    /// The TXT records of a name, in no order, each with its strings joined. Empty: the name exists
    /// and has none.
    ///
    /// The default knows no TXT records: every domain is then one without MTA-STS and TLS-RPT. A
    /// resolver that wraps another must forward this.
    fn txt(&self, name: &str) -> impl Future<Output = Result<Vec<Vec<u8>>, ResolveError>> + Send {
        let _ = name;
        std::future::ready(Ok(Vec::new()))
    }
}

/// An MX record (RFC 5321 section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxRecord {
    /// Lower values come first.
    pub preference: u16,
    /// The host's name as the DNS has it, in A-labels and without a trailing dot. Empty for `.`:
    /// the domain takes no mail (RFC 7505). Records that are no [`HostName`](crate::HostName) are
    /// passed over.
    pub exchange: String,
}

/// Why a look-up has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The name does not exist. Permanent.
    #[error("the name does not exist")]
    NoSuchName,
    /// The domain's records are broken, such as a loop of aliases or records that the DNS cannot
    /// hold. Permanent, until the domain mends them.
    #[error("the DNS records lead nowhere: {0}")]
    Unusable(&'static str),
    /// The DNS gave no reliable answer. Temporary, and never taken for "no records" (RFC 5321
    /// section 5.1).
    #[error("no answer from DNS: {0}")]
    Temporary(String),
}

/// The system's resolver, for a fixed smart host. It knows no MX records: every domain is its own
/// mail host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    async fn mx(&self, _domain: &str) -> Result<Vec<MxRecord>, ResolveError> {
        Ok(Vec::new())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match tokio::net::lookup_host((host, 0)).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
            // The system reports "no such name" and "no answer" alike. As a temporary failure it
            // loses no mail.
            Err(error) => Err(ResolveError::Temporary(error.to_string())),
        }
    }
}

impl<R: Resolver> Resolver for std::sync::Arc<R> {
    async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, ResolveError> {
        (**self).mx(domain).await
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        (**self).addresses(host).await
    }

    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        (**self).txt(name).await
    }
}
