//! How a policy file is fetched.

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::MAX_POLICY;
use crate::{Resolver, mx::MxError};

/// The longest time that a fetch takes. RFC 8461 section 3.3 suggests it.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches policy files (RFC 8461 section 3.3). An application may bring its own, for a proxy or a
/// test.
///
/// [`MtaSts`](super::MtaSts) sets the timeout, [`FETCH_TIMEOUT`], and drops the future when it is
/// over. It may also drop the future because its own caller went away.
pub trait PolicyFetch: Send + Sync + 'static {
    /// The body of `https://HOST/.well-known/mta-sts.txt`, where the host is `mta-sts.DOMAIN`.
    ///
    /// An implementation verifies that the certificate is for the host. It follows no redirect,
    /// takes the status 200 and the media type `text/plain` alone, uses no cache, and stops at
    /// [`MAX_POLICY`] bytes. The `resolver` is the one of the sender.
    fn fetch(&self, resolver: &impl Resolver, host: &str) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// Why a policy file was not fetched. Texts are bounded, and what a server says is not in them.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The DNS has no usable address for the policy host.
    #[error("no address of the policy host is found: {}", address(.0))]
    Address(MxError),
    /// No address took the connection.
    #[error("no connection to the policy host: {0}")]
    Connect(#[source] io::Error),
    /// The policy host has no certificate that proves its name (RFC 8460: `sts-webpki-invalid`).
    #[error("the certificate of the policy host proves nothing: {0}")]
    Certificate(String),
    /// The TLS handshake failed for another reason.
    #[error("no TLS with the policy host: {0}")]
    Tls(String),
    /// The conversation broke off or is no HTTP/1.1.
    #[error("the policy host broke HTTP: {0}")]
    Http(String),
    /// The status is not 200. Redirects are not followed.
    #[error("the policy host answered with status {0}; it has to answer with 200")]
    Status(u16),
    /// The media type is not `text/plain`.
    #[error("the policy host does not say that the policy is text/plain; it has to")]
    MediaType,
    /// The body is too long.
    #[error("the policy has more than {MAX_POLICY} bytes; it has to be shorter")]
    TooLong,
    /// The fetch took too long.
    #[error("the policy host took more than {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// Another reason, for implementations of an application's own.
    #[error("{0}")]
    Other(String),
}

/// The reason in words about the policy host and not about a domain's mail hosts.
fn address(error: &MxError) -> String {
    match error {
        MxError::NotPublic => "it has no public address".to_owned(),
        MxError::NoHost => "it has none".to_owned(),
        error => error.to_string(),
    }
}
