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

mod error;
mod explain;
mod observe;
mod pem;
mod roots;
mod verify;

use std::sync::Arc;

use rustls::{ServerConfig, crypto::CryptoProvider};

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

/// A server's configuration: this certificate chain and its key, with TLS 1.2 and 1.3. The server
/// asks clients for no certificate.
///
/// A client that comes back within 12 hours may resume its session, which spares both sides most
/// of a handshake. It keeps the session itself, in a ticket (RFC 8446 section 4.6.1, RFC 5077), so
/// any number of clients costs the server no memory. The keys of tickets change every 6 hours and
/// end with the process. With neither feature the server remembers 256 sessions instead.
///
/// The chain begins with the server's own certificate, followed by that of its issuer and so on;
/// the root may be left out. Names and dates are not checked: clients do that.
///
/// # Errors
/// [`TlsError`] that names the file: no certificate or no key in it, an encrypted key, a
/// certificate of X.509 version 1, a key that belongs to another certificate.
pub fn server_config(certificate: &Pem, key: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificate.certificates()?;
    let private_key = key.private_key()?;
    if let Some(own) = chain.first() {
        rustls::server::ParsedCertificate::try_from(own)
            .map_err(|error| TlsError::Certificate { name: certificate.name().clone(), error })?;
    }
    let mut config = ServerConfig::builder_with_provider(provider()?)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(|error| match error {
            rustls::Error::InvalidCertificate(_) => TlsError::Certificate { name: certificate.name().clone(), error },
            rustls::Error::InconsistentKeys(_) => {
                TlsError::KeyMismatch { key: key.name().clone(), certificate: certificate.name().clone() }
            }
            error => TlsError::UnusableKey { name: key.name().clone(), error },
        })?;
    #[cfg(feature = "aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let ticketer = rustls::crypto::ring::Ticketer::new();
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    let ticketer = Ok(Arc::clone(&config.ticketer));
    config.ticketer = ticketer.map_err(TlsError::Provider)?;
    Ok(Arc::new(config))
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
