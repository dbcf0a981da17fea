//! Chains of certificates, and TLSA records about them.

use std::sync::Arc;

use posthaste_client::{
    TlsaRecord,
    rustls::{
        ServerConfig,
        crypto::CryptoProvider,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
        server::{ClientHello, ResolvesServerCert},
        sign::{CertifiedKey, SigningKey},
    },
    tls::provider,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData as _,
    date_time_ymd,
};
use sha2::{Digest as _, Sha256, Sha512};

/// A certificate with its key, which may sign others.
pub(crate) struct Certified {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

/// What a record is about, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The certificate.
    Certificate,
    /// Its public key.
    Key,
}

impl Certified {
    /// A root, signed by itself.
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// An authority below this one.
    pub(crate) fn authority(&self, name: &str) -> Self {
        self.sign(authority(name))
    }

    /// A server's certificate below this one.
    pub(crate) fn server(&self, names: &[&str]) -> Self {
        self.sign(server(names))
    }

    /// A server's certificate below this one, valid from the first of one year to that of another.
    pub(crate) fn server_of(&self, names: &[&str], from: i32, to: i32) -> Self {
        let mut params = server(names);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        self.sign(params)
    }

    /// A certificate below this one that is for clients.
    pub(crate) fn client(&self, names: &[&str]) -> Self {
        let mut params = server(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A server's certificate, signed by itself.
    pub(crate) fn alone(names: &[&str]) -> Self {
        let (params, key) = (server(names), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// Another certificate of the same key, signed by this one.
    pub(crate) fn renewed(&self, below: &Self, names: &[&str]) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        server(names).signed_by(&below.key, &issuer).unwrap().der().clone()
    }

    /// A certificate below this one, by these parameters.
    pub(crate) fn sign(&self, params: CertificateParams) -> Self {
        let (key, issuer) = (KeyPair::generate().unwrap(), Issuer::from_params(&self.params, &self.key));
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Self { params, key, der }
    }

    /// A server that shows this certificate with others after it.
    pub(crate) fn serves(&self, chain: &[&Self]) -> Arc<ServerConfig> {
        let chain = [self].iter().chain(chain).map(|one| one.der.clone()).collect();
        self.serves_raw(chain)
    }

    /// A server that shows this chain, with the key of this certificate.
    pub(crate) fn serves_raw(&self, chain: Vec<CertificateDer<'static>>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider().unwrap());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Arc::new(builder.with_single_cert(chain, key.into()).unwrap())
    }

    /// A server that shows this chain, even if rustls would not take it for one.
    #[cfg(feature = "mta-sts")]
    pub(crate) fn serves_unchecked(&self, chain: Vec<CertificateDer<'static>>) -> Arc<ServerConfig> {
        let provider = provider().unwrap();
        let shown = Shown(Arc::new(CertifiedKey::new(chain, self.private_key(&provider))));
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(shown)))
    }

    /// The authorities of a client that trusts this one alone.
    #[cfg(feature = "mta-sts")]
    pub(crate) fn roots(&self) -> posthaste_client::rustls::RootCertStore {
        let mut roots = posthaste_client::rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        roots
    }

    /// Its key as rustls has it.
    pub(crate) fn private_key(&self, provider: &CryptoProvider) -> Arc<dyn SigningKey> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        provider.key_provider.load_private_key(key.into()).unwrap()
    }

    /// A TLSA record about it. The matching types are 0, 1 and 2.
    pub(crate) fn tlsa(&self, usage: u8, by: By, matching_type: u8) -> TlsaRecord {
        let octets = match by {
            By::Certificate => self.der.to_vec(),
            By::Key => self.key.subject_public_key_info(),
        };
        let data = match matching_type {
            1 => Sha256::digest(&octets).to_vec(),
            2 => Sha512::digest(&octets).to_vec(),
            _ => octets,
        };
        TlsaRecord { usage, selector: u8::from(by == By::Key), matching_type, data }
    }
}

/// Whatever the client asks for.
#[derive(Debug)]
pub(crate) struct Shown(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The parameters of an authority's certificate.
pub(crate) fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// The parameters of a server's certificate.
pub(crate) fn server(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a server");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    params
}
