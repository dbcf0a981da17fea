//! Authorities that are trusted to sign certificates.

use std::path::Path;

use rustls::RootCertStore;

use super::{Pem, TlsError};

/// Authorities that are trusted to sign certificates.
#[derive(Debug, Clone)]
pub struct Roots(pub(super) RootCertStore);

impl Roots {
    /// No authority. Add some with [`add_pem`](Self::add_pem).
    pub fn empty() -> Self {
        Self(RootCertStore::empty())
    }

    /// The public authorities of the cargo features: the operating system's with `native-roots`,
    /// Mozilla's with `webpki-roots`. With both, Mozilla's are used only where the system has none.
    /// Certificates that cannot be read are passed over. Blocks on files.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`].
    pub fn system() -> Result<Self, TlsError> {
        #[cfg_attr(not(any(feature = "native-roots", feature = "webpki-roots")), expect(unused_mut))]
        let mut roots = Self::empty();
        #[cfg(feature = "native-roots")]
        roots.0.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        #[cfg(feature = "webpki-roots")]
        if roots.0.is_empty() {
            roots.0.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        if roots.0.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
    }

    /// Adds every certificate of a PEM text. A self-signed server's own certificate is its
    /// authority. If it is marked as an authority (`CA:TRUE`), no server can have it: trust it with
    /// [`pinned_to`](super::pinned_to).
    ///
    /// # Errors
    /// [`TlsError`] when it has none, or one that cannot be read.
    pub fn add_pem(mut self, pem: &Pem) -> Result<Self, TlsError> {
        for certificate in pem.certificates()? {
            let added = self.0.add(certificate);
            added.map_err(|error| TlsError::Certificate { name: pem.name().clone(), error })?;
        }
        Ok(self)
    }

    /// Adds every certificate of a PEM file. Blocks.
    ///
    /// # Errors
    /// As [`Pem::file`] and [`add_pem`](Self::add_pem).
    pub fn add_pem_file(self, path: impl AsRef<Path>) -> Result<Self, TlsError> {
        self.add_pem(&Pem::file(path)?)
    }
}

impl From<RootCertStore> for Roots {
    fn from(roots: RootCertStore) -> Self {
        Self(roots)
    }
}
