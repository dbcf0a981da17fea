//! Certificates that are judged and not refused.

use std::sync::Arc;

use rustls::{
    Error,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Roots, TlsError, provider};

/// Judges the certificates of servers by authorities, after the handshake. Its clones share the
/// authorities.
///
/// It is for policies that are only tested: mail goes as without them, and the operator or the
/// domain hears what would have failed (RFC 8461 section 5, RFC 8460).
#[derive(Debug, Clone)]
pub struct Observer(Arc<WebPkiServerVerifier>);

impl Observer {
    /// Judges by these authorities.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`] without an authority, [`TlsError::NoProvider`].
    pub fn new(roots: Roots) -> Result<Self, TlsError> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.0), provider()?);
        // What else can fail is the reading of revocation lists, and there are none.
        builder.build().map(Self).map_err(|_| TlsError::NoRoots)
    }

    /// Judges a chain that a server of this name has shown, its own certificate first. It costs
    /// about as much as a handshake.
    ///
    /// # Errors
    /// What a handshake would fail with. The certificate is not for the name, not valid now, or
    /// signed by none of the authorities.
    pub fn judge(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Error> {
        let (own, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.0.verify_server_cert(own, others, name, &[], UnixTime::now()).map(drop)
    }
}
