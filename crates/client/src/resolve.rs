//! Where names are looked up.

use std::{future::Future, net::IpAddr};

use thiserror::Error;

/// Looks up what delivery needs. An application may bring its own.
///
/// Names come as [`HostName`](crate::HostName) writes them: in ASCII, other scripts in A-labels, odd octets escaped, without a
/// trailing dot. They are to be asked for as they are, whatever a host's name ought to look like: whether a name exists is
/// for the DNS to say.
pub trait Resolver: Send + Sync + 'static {
    /// The MX records of a domain; none when it has none.
    fn mx(&self, domain: &str) -> impl Future<Output = Result<Vec<MxRecord>, ResolveError>> + Send;

    /// The addresses of a host; none when it has none.
    fn addresses(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send;
}

/// An MX record (RFC 5321 section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxRecord {
    /// The lower, the better.
    pub preference: u16,
    /// The host's name as the DNS has it, in A-labels and without a trailing dot; empty for `.`, which means that no mail is
    /// taken (RFC 7505). What is no [`HostName`](crate::HostName) is passed over.
    pub exchange: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// The name does not exist: permanent.
    #[error("the name does not exist")]
    NoSuchName,
    /// The DNS leads nowhere, and will until the domain's records are mended: permanent. Such are a loop of aliases, and
    /// records that the DNS cannot hold.
    #[error("the DNS records lead nowhere: {0}")]
    Unusable(&'static str),
    /// No answer that can be relied on: temporary, and never to be taken for "no records" (RFC 5321 section 5.1).
    #[error("no answer from DNS: {0}")]
    Temporary(String),
}

/// The system's resolver. It knows no MX records, so every domain is its own mail host: enough for a fixed smart host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    async fn mx(&self, _domain: &str) -> Result<Vec<MxRecord>, ResolveError> {
        Ok(Vec::new())
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match tokio::net::lookup_host((host, 0)).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
            // The system does not tell "no such name" apart from "no answer", and mail must not be lost over it.
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
}
