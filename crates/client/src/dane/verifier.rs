//! The check of a server's certificate by TLSA records.

use std::sync::Arc;

use posthaste_tokio::rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use thiserror::Error;

use super::records::{Association, Shown, Usage};

/// Takes a certificate that one of the records is about.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) records: Arc<[Association]>,
    /// The names of which a certificate below an anchor has to have one.
    pub(super) names: Arc<[ServerName<'static>]>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// No TLSA record of the host is about the certificate that the server has shown, or about an
/// authority in its chain.
///
/// It comes as [`CertificateError::Other`] in the error of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no TLSA record is about the certificate")]
pub struct NoTlsaMatch;

impl Verifier {
    fn of(&self, usage: Usage) -> impl Iterator<Item = &Association> {
        self.records.iter().filter(move |record| record.usage == usage)
    }

    /// The authorities that records name: those in the server's chain, and those that a record has
    /// whole. A server's own certificate is none.
    fn anchors(&self, own: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if self.of(Usage::Anchor).next().is_none() {
            return roots;
        }
        let named = chain.iter().filter(|certificate| {
            let shown = Shown::new(certificate);
            self.of(Usage::Anchor).any(|record| record.matches(&shown))
        });
        let whole = self.of(Usage::Anchor).filter_map(Association::certificate);
        for certificate in named.map(|certificate| CertificateDer::from_slice(certificate)).chain(whole) {
            if certificate != *own {
                // One that cannot be read is no authority.
                let _ = roots.add(certificate.into_owned());
            }
        }
        roots
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Neither names nor dates are checked (RFC 7672 section 3.1.1).
        let shown = Shown::new(end_entity);
        if self.of(Usage::EndEntity).any(|record| record.matches(&shown)) {
            return Ok(ServerCertVerified::assertion());
        }
        let roots = self.anchors(end_entity, intermediates);
        if roots.is_empty() {
            return Err(CertificateError::Other(OtherError(Arc::new(NoTlsaMatch))).into());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        // RFC 7672 section 3.2.2.
        if self.names.iter().any(|name| verify_server_name(&certificate, name).is_ok()) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
