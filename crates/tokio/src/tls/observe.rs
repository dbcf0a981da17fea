//! Certificates that are judged and taken whatever the judgment is.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Roots, TlsError, provider};

/// Judges certificates of servers by authorities, and takes them whatever the judgment is. Its
/// clones share the authorities.
///
/// It is for policies that are only tested: mail goes as without them, and the operator or the
/// domain hears what would have failed (RFC 8461 section 5, RFC 8460).
#[derive(Debug, Clone)]
pub struct Observer {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// A connection's configuration, and what was found of the certificate. One serves one connection.
#[derive(Debug)]
pub struct Observed {
    config: Arc<ClientConfig>,
    judgment: Arc<OnceLock<Result<(), Error>>>,
}

/// Notes the judgment.
#[derive(Debug)]
struct Notes {
    verifier: Arc<WebPkiServerVerifier>,
    judgment: Arc<OnceLock<Result<(), Error>>>,
}

impl Observer {
    /// Judges by these authorities.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`] without an authority, [`TlsError::NoProvider`].
    pub fn new(roots: Roots) -> Result<Self, TlsError> {
        let provider = provider()?;
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.0), Arc::clone(&provider));
        // What else can fail is the reading of revocation lists, and there are none.
        let verifier = builder.build().map_err(|_| TlsError::NoRoots)?;
        Ok(Self { provider, verifier })
    }

    /// A configuration for one connection, with TLS 1.2 and 1.3. It resumes no session, since the
    /// server would then show no certificate.
    ///
    /// # Errors
    /// [`TlsError::Provider`].
    pub fn observe(&self) -> Result<Observed, TlsError> {
        let judgment = Arc::default();
        let notes = Notes { verifier: Arc::clone(&self.verifier), judgment: Arc::clone(&judgment) };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Provider)?.dangerous();
        let mut config = builder.with_custom_certificate_verifier(Arc::new(notes)).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Observed { config: Arc::new(config), judgment })
    }
}

impl Observed {
    /// The rustls configuration, which proves nothing about the server.
    pub const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The judgment: `Ok` if the certificate is for the server's name, valid now, and signed by one
    /// of the authorities. `None`: no handshake came as far as the certificate.
    pub fn judgment(&self) -> Option<&Result<(), Error>> {
        self.judgment.get()
    }
}

impl ServerCertVerifier for Notes {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judgment = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        // The first counts.
        let _ = self.judgment.set(judgment.map(drop));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
