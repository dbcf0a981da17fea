//! How a client judges the certificate of a server.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use thiserror::Error;

use super::{Pem, Roots, TlsError, provider};

/// A client's configuration that takes only certificates that one of these authorities has signed.
/// The certificate must be for the server's name and valid now. The client speaks TLS 1.2 and 1.3,
/// and shows no certificate of its own.
///
/// # Errors
/// [`TlsError::NoRoots`] without an authority, [`TlsError::NoProvider`], [`TlsError::Provider`].
pub fn verified_by(roots: Roots) -> Result<Arc<ClientConfig>, TlsError> {
    if roots.0.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let builder = ClientConfig::builder_with_provider(provider()?).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Provider)?;
    Ok(Arc::new(builder.with_root_certificates(roots.0).with_no_client_auth()))
}

/// A client's configuration that takes any certificate, for opportunistic TLS. It protects against
/// eavesdroppers, and not against an impostor.
///
/// # Errors
/// [`TlsError::NoProvider`], [`TlsError::Provider`].
pub fn any_certificate() -> Result<Arc<ClientConfig>, TlsError> {
    unchained(None)
}

/// A client's configuration that takes these very certificates from a server, and no others: for a
/// server on this host or in this network that has signed its own. The server must have the key.
///
/// Neither name nor dates are checked, nor if the certificate is marked as an authority's: the
/// caller has said that it is the server's. It is no authority here, so a certificate that it has
/// signed is refused.
///
/// # Errors
/// [`TlsError`] if the text has no certificate, or one that cannot be read.
/// [`TlsError::NoProvider`], [`TlsError::Provider`].
pub fn pinned_to(certificates: &Pem) -> Result<Arc<ClientConfig>, TlsError> {
    let pinned = certificates.certificates()?;
    for certificate in &pinned {
        ParsedCertificate::try_from(certificate)
            .map_err(|error| TlsError::Certificate { name: certificates.name().clone(), error })?;
    }
    unchained(Some(pinned))
}

fn unchained(pinned: Option<Vec<CertificateDer<'static>>>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider()?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Provider)?.dangerous();
    let verifier = Arc::new(Unchained { pinned, provider });
    Ok(Arc::new(builder.with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Checks that the server has the key of the certificate that it shows. It asks no authority.
#[derive(Debug)]
struct Unchained {
    /// The certificates that are taken. `None`: any.
    pinned: Option<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

/// The server shows another certificate than those that it is pinned to.
#[derive(Debug, Error)]
#[error("the certificate is none of those that are pinned")]
struct NotPinned;

impl ServerCertVerifier for Unchained {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.pinned {
            Some(pinned) if !pinned.contains(end_entity) => {
                Err(CertificateError::Other(OtherError(Arc::new(NotPinned))).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
