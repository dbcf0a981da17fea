//! Certificates of both ends, made on the fly.

use std::sync::{Arc, LazyLock};

use posthaste_tokio::{
    rustls::{ClientConfig, ServerConfig, pki_types::ServerName},
    tls::any_certificate,
    wire::Domain,
};

/// Both ends' configurations, which all clients of a process share.
#[derive(Debug)]
pub(super) struct Pki {
    pub(super) server: Arc<ServerConfig>,
    /// Trusts the server, and shows no certificate.
    pub(super) client: Arc<ClientConfig>,
    /// Trusts the server, and shows a certificate.
    pub(super) known_client: Arc<ClientConfig>,
    pub(super) fingerprint: String,
}

/// The name in the server's certificate.
const SERVER: &str = "mx.example.org";

/// What a client's handshakes need: the configuration, and the name that it asks for.
pub(super) type ClientTls = (Arc<ClientConfig>, ServerName<'static>);

/// Of a client of the server with the certificate from here.
pub(super) fn client(shows_certificate: bool) -> ClientTls {
    let pki = pki();
    let config = if shows_certificate { &pki.known_client } else { &pki.client };
    (Arc::clone(config), ServerName::try_from(SERVER).unwrap())
}

/// Of a client of a server with any certificate.
pub(super) fn client_of_any(host_name: &Domain) -> ClientTls {
    let config = any_certificate().unwrap_or_else(|error| panic!("TLS in a test: {error}"));
    let name = ServerName::try_from(host_name.as_str().to_owned());
    (config, name.unwrap_or_else(|_| ServerName::try_from(SERVER).unwrap()))
}

pub(super) fn pki() -> &'static Pki {
    static PKI: LazyLock<Pki> = LazyLock::new(make);
    &PKI
}

/// The [fingerprint](crate::Certificate::fingerprint) of the certificate that a client with
/// [`certificate`](super::Connect::certificate) shows.
///
/// # Panics
/// There is no crypto provider: switch on the feature `aws-lc-rs` or `ring`.
pub fn client_fingerprint() -> String {
    pki().fingerprint.clone()
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn make() -> Pki {
    panic!("TLS in a test needs a crypto provider: switch on the feature `aws-lc-rs` or `ring` of posthaste-server")
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn make() -> Pki {
    use posthaste_tokio::{
        rustls::{
            RootCertStore,
            pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
            server::WebPkiClientVerifier,
        },
        tls::provider,
    };
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use sha2::{Digest as _, Sha256};

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let certificate = |name: &str| -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let roots = Arc::new(roots);

    let provider = provider().unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let server = server.unwrap().with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap());
    let (own, key) = certificate(SERVER);
    let server = server.with_single_cert(own, key).unwrap();

    let client = || {
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        client.unwrap().with_root_certificates(Arc::clone(&roots))
    };
    let (own, key) = certificate("client.example.org");
    let fingerprint = own.iter().flat_map(Sha256::digest).map(|octet| format!("{octet:02x}")).collect();
    Pki {
        server: Arc::new(server),
        client: Arc::new(client().with_no_client_auth()),
        known_client: Arc::new(client().with_client_auth_cert(own, key).unwrap()),
        fingerprint,
    }
}
