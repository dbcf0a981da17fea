//! Certificate authorities, certificates, and the TLS configurations of both ends, with aws-lc-rs.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm, date_time_ymd};
use rustls::{
    ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

type Versions<'a> = &'a [&'static SupportedProtocolVersion];
type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// Both ends' configurations, for a certificate of this name that the client trusts.
pub fn tls(name: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let authority = Authority::new("one");
    (authority.server(&[name], 2020, 2120), client(ALL_VERSIONS, authority.roots(), None))
}

/// Both ends' configurations, with a certificate for `mx.test` and one for the client.
#[derive(Debug)]
pub struct Pki {
    /// The configuration of `mx.test`.
    pub server: Arc<ServerConfig>,
    /// The configuration of a client that trusts the server's certificate.
    pub client: Arc<ClientConfig>,
    /// The private keys, which no log may show.
    pub keys: [Vec<u8>; 2],
}

impl Pki {
    /// For these versions of TLS. `asks`: the server asks for a certificate. `shows`: the client
    /// has one.
    pub fn new(versions: Versions<'_>, asks: bool, shows: bool) -> Self {
        let authority = Authority::new("one");
        let [own, clients] = ["mx.test", "client.test"].map(|name| authority.certificate(&[name], 2020, 2120));
        let keys = [&own, &clients].map(|(_, key)| key.secret_der().to_vec());
        Self {
            server: server(versions, asks.then(|| authority.roots()), own),
            client: client(versions, authority.roots(), shows.then_some(clients)),
            keys,
        }
    }
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// An authority that has signed its own certificate.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A server whose certificate is for these names, from the first of one year to that of
    /// another.
    pub fn server(&self, names: &[&str], from: i32, to: i32) -> Arc<ServerConfig> {
        server(ALL_VERSIONS, None, self.certificate(names, from, to))
    }

    /// A server's certificate for these names and its key, each in PEM, for servers of others.
    pub fn pem(&self, names: &[&str]) -> [String; 2] {
        self.pem_of_kind(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// Its own certificate, in PEM.
    pub fn pem_of_its_own(&self) -> String {
        pem(&self.certificate)
    }

    /// A client's judgment by this authority alone.
    pub fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        let provider = Arc::new(default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()), provider).build().unwrap()
    }

    /// Its own certificate, in DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authorities of a client that trusts this one alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// The same with a key of this kind.
    pub fn pem_of_kind(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> [String; 2] {
        let key = KeyPair::generate_for(kind).unwrap();
        let own = params(names, 2020, 2120).signed_by(&key, &self.issuer).unwrap();
        [own.pem(), key.serialize_pem()]
    }

    /// A client that trusts this authority alone. `name`: it shows a certificate of this name,
    /// valid until the first of this year.
    pub fn client(&self, versions: Versions<'_>, name: Option<(&str, i32)>) -> Arc<ClientConfig> {
        client(versions, self.roots(), name.map(|(name, to)| self.certificate(&[name], 2020, to)))
    }

    fn certificate(&self, names: &[&str], from: i32, to: i32) -> Certified {
        let key = KeyPair::generate().unwrap();
        (params(names, from, to).signed_by(&key, &self.issuer).unwrap().der().clone(), der(&key))
    }
}

/// A server with a self-signed certificate. `authority`: it is marked as an authority, as `openssl
/// req -x509` marks it.
pub fn self_signed(name: &str, authority: bool) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = params(&[name], 2020, 2120);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    server(ALL_VERSIONS, None, (params.self_signed(&key).unwrap().der().clone(), der(&key)))
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn params(names: &[&str], from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// `clients`: the authorities of the clients' certificates, which it asks for.
fn server(versions: Versions<'_>, clients: Option<RootCertStore>, (own, key): Certified) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let server = match clients {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            server.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
        None => server.with_no_client_auth(),
    };
    Arc::new(server.with_single_cert(vec![own], key).unwrap())
}

fn client(versions: Versions<'_>, roots: RootCertStore, own: Option<Certified>) -> Arc<ClientConfig> {
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_protocol_versions(versions);
    let client = client.unwrap().with_root_certificates(roots);
    Arc::new(match own {
        Some((own, key)) => client.with_client_auth_cert(vec![own], key).unwrap(),
        None => client.with_no_client_auth(),
    })
}
