//! TLS for clients and servers. The usual cases need no types of rustls.
//!
//! Cargo features choose the crypto provider (`aws-lc-rs`, `ring`) and the authorities that
//! [`Roots::system`] trusts (`native-roots`, `webpki-roots`). No feature is on by default: an
//! application with rustls configurations of its own compiles no provider and no authorities that
//! it does not use.
//!
//! | features | what the functions here use |
//! |---|---|
//! | `aws-lc-rs` | the provider aws-lc-rs, with or without `ring` |
//! | `ring` alone | the provider ring |
//! | neither | the provider that the application installed as the process default; an error without one |
//! | `native-roots` | the authorities of the operating system |
//! | `webpki-roots` | Mozilla's authorities; with `native-roots` only where the system has none |
//! | neither | no authorities; an error |
//!
//! Everything here blocks: it reads files or derives keys on the caller's thread, for milliseconds.
//! Call it when a program starts, not for each connection.

mod certificates;
mod client_certificate;
mod dates;
mod error;
mod explain;
mod observe;
mod pem;
mod roots;
mod verify;

use std::sync::Arc;

use rustls::{ServerConfig, crypto::CryptoProvider};

pub use certificates::Certificates;
pub use client_certificate::ClientCertificate;
pub use error::{PemName, TlsError};
pub use explain::explain;
pub use observe::Observer;
pub use pem::Pem;
pub use roots::Roots;
pub use verify::{any_certificate, pinned_to, verified_by};

/// The crypto provider of the cargo features, or the process default where no feature chose one.
///
/// # Errors
/// [`TlsError::NoProvider`].
pub fn provider() -> Result<Arc<CryptoProvider>, TlsError> {
    #[cfg(feature = "aws-lc-rs")]
    let chosen = Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let chosen = Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    let chosen = CryptoProvider::get_default().cloned();
    chosen.ok_or(TlsError::NoProvider)
}

/// A server's configuration for one certificate chain and its key: that of
/// [`Certificates::server_config`].
///
/// # Errors
/// As [`Certificates::new`].
pub fn server_config(certificate: &Pem, key: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
    Certificates::new(&[(certificate.clone(), key.clone())])?.server_config()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_absence_of_a_provider_is_an_error_that_names_the_features() {
        let error = TlsError::NoProvider.to_string();
        assert!(error.contains("switch on the cargo feature `aws-lc-rs` or `ring`"), "{error}");
        // Here rustls itself could choose one.
        assert_eq!(provider().is_ok(), cfg!(any(feature = "aws-lc-rs", feature = "ring")));
        assert_eq!(any_certificate().is_ok(), cfg!(any(feature = "aws-lc-rs", feature = "ring")));
    }
}
