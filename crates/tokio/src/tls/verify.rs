//! How a client judges the certificate of a server.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Roots, TlsError, provider};

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
    let provider = provider()?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::Provider)?.dangerous();
    Ok(Arc::new(builder.with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth()))
}

/// Checks that the server has the key of the certificate that it shows, and no more.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
