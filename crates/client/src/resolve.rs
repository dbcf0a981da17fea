//! Name look-ups.

use std::{future::Future, net::IpAddr, time::Duration};

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
    fn mx(&self, domain: &str) -> impl Future<Output = Result<Answer<MxRecord>, ResolveError>> + Send;

    /// The addresses of a host. Empty: the name exists and has none.
    fn addresses(&self, host: &str) -> impl Future<Output = Result<Answer<IpAddr>, ResolveError>> + Send;

    /// The TLSA records at a name such as `_25._tcp.mx.example.net` (RFC 6698 section 3). Empty:
    /// the name exists and has none.
    ///
    /// It is asked only for hosts whose addresses are secure. The default says that there are none,
    /// which switches DANE off.
    fn tlsa(&self, name: &str) -> impl Future<Output = Result<Answer<TlsaRecord>, ResolveError>> + Send {
        let _ = name;
        async { Ok(Answer::default()) }
    }

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

/// What the DNS says of a name, and if DNSSEC has proved it.
///
/// A resolver without DNSSEC makes one of a `Vec` with [`From`]: then it is not secure. A resolver
/// that hears the AD bit (RFC 4035 section 3.2.3) from a server on the same host makes one with
/// [`secure`](Self::secure).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The records. Empty: the name exists and has none.
    pub records: Vec<T>,
    /// DNSSEC has proved the records, and every alias that led to them. For an empty answer it has
    /// proved that there are none.
    ///
    /// `false`: they are not signed, or their signatures were not checked. Records whose signatures
    /// should be good and are not are a [`ResolveError::Temporary`].
    pub is_secure: bool,
    /// Where aliases lead from the name. `None`: it is no alias, or the resolver does not tell.
    pub alias: Option<Alias>,
    /// How long the answer counts from now on: the least TTL of its records (RFC 1035 section
    /// 3.2.1), or the negative TTL (RFC 2308 section 5). `None`: the resolver does not tell.
    pub ttl: Option<Duration>,
}

/// A name that is an alias (CNAME, RFC 1034 section 3.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name at the end of all aliases, in A-labels and without a trailing dot.
    pub canonical_name: String,
    /// DNSSEC has proved the first alias, the one at the name that was asked for.
    pub is_secure: bool,
}

impl<T> Answer<T> {
    /// Records that DNSSEC has proved, of a name that is no alias.
    pub const fn secure(records: Vec<T>) -> Self {
        Self { records, is_secure: true, alias: None, ttl: None }
    }

    /// The same answer about other records.
    pub(crate) fn with<U>(&self, records: Vec<U>) -> Answer<U> {
        Answer { records, is_secure: self.is_secure, alias: self.alias.clone(), ttl: self.ttl }
    }
}

/// Records that are not secure.
impl<T> From<Vec<T>> for Answer<T> {
    fn from(records: Vec<T>) -> Self {
        Self { records, is_secure: false, alias: None, ttl: None }
    }
}

/// No records, and not secure.
impl<T> Default for Answer<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

/// A TLSA record (RFC 6698 section 2.1), as it is in the DNS. Its fields may have any value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaRecord {
    /// The certificate usage: 2 is DANE-TA, 3 is DANE-EE (RFC 7218).
    pub usage: u8,
    /// The selector: 0 is the certificate, 1 its public key.
    pub selector: u8,
    /// The matching type: 0 is the whole, 1 its SHA-256, 2 its SHA-512.
    pub matching_type: u8,
    /// The certificate association data.
    pub data: Vec<u8>,
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
    /// The domain's records are broken, such as a loop of aliases. Permanent, until the domain
    /// mends them.
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
    async fn mx(&self, _domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        match tokio::net::lookup_host((host, 0)).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect::<Vec<_>>().into()),
            // The system reports "no such name" and "no answer" alike. As a temporary failure it
            // loses no mail.
            Err(error) => Err(ResolveError::Temporary(error.to_string())),
        }
    }
}

impl<R: Resolver> Resolver for std::sync::Arc<R> {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        (**self).mx(domain).await
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        (**self).addresses(host).await
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        (**self).tlsa(name).await
    }

    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        (**self).txt(name).await
    }
}
