//! The certificate that a client shows.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::Resumption,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{Pem, TlsError, certificates::certified, dates, provider};

/// A certificate with its private key, which a client shows to servers that ask for one.
///
/// Two are equal if their chains are: a chain has one key.
///
/// ```
/// use posthaste_tokio::tls::{ClientCertificate, Pem, TlsError};
///
/// fn certificate() -> Result<ClientCertificate, TlsError> {
///     ClientCertificate::new(&Pem::file("out1.example.org.pem")?, &Pem::file("out1.example.org.key")?)
/// }
/// # assert!(certificate().unwrap_err().to_string().contains("out1.example.org.pem"));
/// ```
#[derive(Clone)]
pub struct ClientCertificate(Arc<CertifiedKey>);

impl ClientCertificate {
    /// A certificate chain and its private key. Needs a crypto provider. Blocks for milliseconds.
    ///
    /// A chain begins with the client's own certificate, followed by that of its issuer and so on;
    /// the root may be left out. A chain that has expired, or is not valid yet, is shown all the
    /// same: servers check that. The log has a warning with the file and the date.
    ///
    /// # Errors
    /// [`TlsError`] that names the file: no certificate or no key in it, an encrypted key, a
    /// certificate of X.509 version 1, a key that belongs to another certificate.
    pub fn new(certificate: &Pem, key: &Pem) -> Result<Self, TlsError> {
        let provider = provider()?;
        let certified = certified(certificate, key, &provider)?;
        dates::warn_of(certificate.name(), &certified.cert);
        Ok(Self(Arc::new(certified)))
    }

    /// The configuration of a client that judges servers as this one does, and shows this
    /// certificate. It shows no other.
    ///
    /// No session is resumed: a server could take one of another certificate for one of this.
    #[must_use]
    pub fn shown_by(&self, config: &ClientConfig) -> Arc<ClientConfig> {
        let mut config = config.clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)));
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// The octets of its chain.
    pub fn octets(&self) -> usize {
        self.0.cert.iter().map(|certificate| certificate.len()).fold(0, usize::saturating_add)
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for ClientCertificate {}

impl Hash for ClientCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.cert.iter().for_each(|certificate| certificate.hash(state));
    }
}

/// The number of certificates in the chain, and no key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.0.cert.len()).finish()
    }
}
