//! How much TLS a connection has to have.

use std::sync::Arc;

use posthaste_tokio::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Whether TLS is used. There is no half-way: what a policy asks for, a connection has before any mail is named.
///
/// | | keeps out who only listens | keeps out who answers in the host's place | when TLS does not come up |
/// |---|---|---|---|
/// | `Off` | no | no | |
/// | `Opportunistic` | unless they also interfere | no | the mail goes in clear |
/// | `Required` | yes | no, unless the configuration verifies | the mail waits |
/// | `Verified` | yes | yes, as far as the name can be trusted | the mail waits |
/// | `Implicit` | yes | if the configuration verifies | the mail waits |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsPolicy {
    /// Never.
    #[default]
    Off,
    /// STARTTLS when it is offered (RFC 7435). What keeps it from starting leaves the connection in clear: a server that
    /// refuses it, a host's name that no certificate can hold. What breaks it later ends the connection, and
    /// [`ConnectError::suggests_clear`](crate::ConnectError::suggests_clear) says that another one without it may do.
    Opportunistic,
    /// STARTTLS, or no mail.
    Required,
    /// STARTTLS with a certificate for the host's name, or no mail. The configuration has to verify certificates, as that of
    /// [`verified`] does. A name that an attacker could have chosen, such as one from DNS without DNSSEC, proves nothing.
    Verified,
    /// TLS from the first octet (RFC 8314), or no mail.
    Implicit,
}

impl TlsPolicy {
    /// Returns `true` if no mail and no password goes without TLS.
    pub const fn demands_tls(self) -> bool {
        match self {
            Self::Off | Self::Opportunistic => false,
            Self::Required | Self::Verified | Self::Implicit => true,
        }
    }
}

/// A policy with the configuration to carry it out. Which certificates are good is the configuration's to say.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whether.
    pub policy: TlsPolicy,
    /// How; without it a policy that demands TLS fails, and no other has any.
    pub config: Option<Arc<ClientConfig>>,
}

/// A configuration that takes certificates that one of these authorities has signed, for the host's name, at their time.
///
/// # Errors
/// [`rustls::Error`] when the provider has no cipher for TLS 1.2 and 1.3.
pub fn verified(provider: Arc<CryptoProvider>, authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(authorities).with_no_client_auth())
}

/// A configuration that takes any certificate: for opportunistic TLS, which keeps listeners out and nobody else.
///
/// # Errors
/// [`rustls::Error`] when the provider has no cipher for TLS 1.2 and 1.3.
pub fn unverified(provider: Arc<CryptoProvider>) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth())
}

/// Checks that the server has the key of the certificate that it shows, and nothing about whose that is.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
