//! The certificates of a server, by name, and their exchange while it runs.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig, SignatureScheme,
    crypto::CryptoProvider,
    server::{ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

use super::{Pem, Roots, TlsError, dates, provider};

/// The certificates of a server. Clones share them, and [`replace`](Self::replace) exchanges them
/// in all of them while the server runs.
///
/// A client gets the first certificate that is for the name that it asks for (SNI, RFC 6066 section
/// 3), and whose kind of key it can check. So a name may have one certificate with an ECDSA key and
/// one with an RSA key. A certificate with `*.example.org` is for the names that have one label in
/// front of `example.org`. A client that asks for no name gets the first certificate whose kind of
/// key it can check, and so does one that asks for an unknown name. RFC 7672 section 8.1 allows
/// that, because much mail comes from clients that take any certificate.
///
/// ```
/// use posthaste_tokio::tls::{Certificates, Pem, TlsError};
///
/// fn pairs() -> Result<[(Pem, Pem); 2], TlsError> {
///     Ok([
///         (Pem::file("mx.example.org.pem")?, Pem::file("mx.example.org.key")?),
///         (Pem::file("mail.example.net.pem")?, Pem::file("mail.example.net.key")?),
///     ])
/// }
///
/// fn start() -> Result<Certificates, TlsError> {
///     let certificates = Certificates::new(&pairs()?)?;
///     let config = certificates.server_config()?; // For the listeners.
///     Ok(certificates)
/// }
///
/// /// When the files have changed. After an error the server goes on with the old ones.
/// fn renew(certificates: &Certificates) -> Result<(), TlsError> {
///     certificates.replace(&pairs()?)
/// }
/// # assert!(start().unwrap_err().to_string().contains("mx.example.org.pem"));
/// ```
#[derive(Clone)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    table: Arc<RwLock<Arc<Table>>>,
}

/// What is exchanged as a whole.
struct Table {
    /// In the order in which they were given.
    all: Vec<Arc<CertifiedKey>>,
    /// By DNS name in lower case, which may begin with `*.`; in their order too.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Certificate chains, each with its private key. Needs a crypto provider. Blocks for
    /// milliseconds.
    ///
    /// A chain begins with the server's own certificate, followed by that of its issuer and so on;
    /// the root may be left out. The names are its DNS names, and not its common name. A chain with
    /// a certificate that has expired, or is not valid yet, is served all the same: clients check
    /// that. The log has a warning with the file and the date.
    ///
    /// # Errors
    /// [`TlsError`] that names the file: no certificate or no key in it, an encrypted key, a
    /// certificate of X.509 version 1, a key that belongs to another certificate. Without a pair
    /// [`TlsError::NoCertificates`].
    pub fn new(pairs: &[(Pem, Pem)]) -> Result<Self, TlsError> {
        let provider = provider()?;
        let table = Table::new(pairs, &provider)?;
        Ok(Self { provider, table: Arc::new(RwLock::new(Arc::new(table))) })
    }

    /// Exchanges all certificates for others, for the handshakes that begin from now on. Sessions
    /// that go on, and those that clients resume, keep what they have agreed on. So after the loss
    /// of a private key make a new [configuration](Self::server_config).
    ///
    /// # Errors
    /// As [`new`](Self::new). Nothing has changed then.
    pub fn replace(&self, pairs: &[(Pem, Pem)]) -> Result<(), TlsError> {
        let table = Arc::new(Table::new(pairs, &self.provider)?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// The rustls configuration of a server with these certificates, also with those that
    /// [replace](Self::replace) them: TLS 1.2 and 1.3. It asks clients for no certificate.
    ///
    /// A client that comes back within 12 hours may resume its session, which spares both sides
    /// most of a handshake. It keeps the session itself, in a ticket (RFC 8446 section 4.6.1, RFC
    /// 5077), so any number of clients costs the server no memory. The keys of tickets change every
    /// 6 hours and end with the configuration. With neither feature the server remembers 256
    /// sessions instead.
    ///
    /// A client that offers application protocols by ALPN (RFC 7301), and among them neither `smtp`
    /// nor `esmtp`, speaks another protocol: the handshake fails. That protects browsers which an
    /// attacker leads here. No identifier for SMTP is registered, so mail clients offer none, and
    /// none is demanded.
    ///
    /// # Errors
    /// [`TlsError::Provider`].
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.configure(None)
    }

    /// The same, and it asks clients for a certificate that one of these authorities has signed.
    /// A client may show none, and the server can refuse it later with a reply. The handshake fails
    /// with one that does not hold.
    ///
    /// A self-signed certificate is its own authority, but must not be marked as one: plain
    /// `openssl req -x509` writes CA:TRUE, and the handshake fails with `CaUsedAsEndEntity`. Add
    /// `-addext basicConstraints=critical,CA:FALSE`, or sign the clients' certificates with an
    /// authority of your own. Certificates of X.509 version 1, as `openssl x509 -req` may write
    /// them without extensions, fail too.
    ///
    /// # Errors
    /// [`TlsError::Provider`], [`TlsError::NoRoots`] without an authority.
    pub fn server_config_asking(&self, clients: Roots) -> Result<Arc<ServerConfig>, TlsError> {
        self.configure(Some(clients))
    }

    fn configure(&self, clients: Option<Roots>) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Provider)?;
        let builder = match clients {
            Some(Roots(roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider));
                // What else can fail is the reading of revocation lists, and there are none.
                let verifier = verifier.allow_unauthenticated().build().map_err(|_| TlsError::NoRoots)?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.clone()));
        if let Some(ticketer) = ticketer()? {
            config.ticketer = ticketer;
        }
        config.alpn_protocols = PROTOCOLS.map(Vec::from).to_vec();
        Ok(Arc::new(config))
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What other servers take for SMTP.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// `None`: the provider is not one of the features'.
fn ticketer() -> Result<Option<Arc<dyn ProducesTickets>>, TlsError> {
    #[cfg(feature = "aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map(Some);
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let ticketer = rustls::crypto::ring::Ticketer::new().map(Some);
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    let ticketer = Ok(None);
    ticketer.map_err(TlsError::Provider)
}

impl Table {
    fn new(pairs: &[(Pem, Pem)], provider: &CryptoProvider) -> Result<Self, TlsError> {
        if pairs.is_empty() {
            return Err(TlsError::NoCertificates);
        }
        let mut table = Self { all: Vec::new(), by_name: HashMap::new() };
        for (certificate, key) in pairs {
            let certified = Arc::new(certified(certificate, key, provider)?);
            dates::warn_of(certificate.name(), &certified.cert);
            let own = certified.cert.first().and_then(|own| EndEntityCert::try_from(own).ok());
            for name in own.iter().flat_map(|own| own.valid_dns_names()) {
                table.by_name.entry(name.to_ascii_lowercase()).or_default().push(Arc::clone(&certified));
            }
            table.all.push(certified);
        }
        Ok(table)
    }

    /// `name`: in lower case. `None`: there is no certificate.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let wildcard = name.and_then(|name| name.split_once('.')).map(|(_, rest)| format!("*.{rest}"));
        let named = |name: Option<&str>| name.and_then(|name| self.by_name.get(name)).into_iter().flatten();
        let mut by_taste = named(name).chain(named(wildcard.as_deref())).chain(&self.all);
        // If the client can check none of them, rustls has a better word for it.
        by_taste.find(|own| own.key.choose_scheme(schemes).is_some()).or(self.all.first())
    }
}

/// A chain whose key fits it.
pub(super) fn certified(certificate: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificate.certificates()?;
    let private_key = key.private_key()?;
    if let Some(own) = chain.first() {
        ParsedCertificate::try_from(own)
            .map_err(|error| TlsError::Certificate { name: certificate.name().clone(), error })?;
    }
    CertifiedKey::from_der(chain, private_key, provider).map_err(|error| match error {
        rustls::Error::InvalidCertificate(_) => TlsError::Certificate { name: certificate.name().clone(), error },
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { key: key.name().clone(), certificate: certificate.name().clone() }
        }
        error => TlsError::UnusableKey { name: key.name().clone(), error },
    })
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        self.table().choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

/// The number of certificates, and no keys.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.table().all.len()).finish()
    }
}
