//! What DANE demands of the connections to a host.

use std::sync::Arc;

use posthaste_tokio::{
    rustls::{ClientConfig, client::Resumption, pki_types::ServerName},
    tls::{TlsError, any_certificate},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    records::{Association, Usage, usable},
    verifier::Verifier,
};
use crate::{HostTls, Identity, ResolveError, Tls, TlsaRecord};

/// What DANE demands of the connections to a host.
#[derive(Debug, Clone)]
pub enum Policy {
    /// The host has no DANE. Other policies decide, such as MTA-STS.
    NoDane(NoDane),
    /// The host has TLS, and none of its TLSA records can be used. No mail goes without TLS, and
    /// any certificate is good (RFC 7672 section 2.2).
    Encrypt,
    /// TLS with a certificate that a TLSA record is about, or no mail.
    Authenticate(Authentication),
    /// It is not known what the host demands. No mail may go there now (RFC 7672 section 2.1.2).
    PassOver(ResolveError),
}

/// Why a host has no DANE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoDane {
    /// DNSSEC does not prove that the host takes the mail of the domain.
    #[error("the MX records are not signed")]
    InsecureMx,
    /// DNSSEC does not prove the addresses of the host.
    #[error("the addresses of the host are not signed")]
    InsecureAddresses,
    /// The host has no TLSA record.
    #[error("the host has no TLSA record")]
    NoRecords,
    /// DNSSEC does not prove the TLSA records of the host.
    #[error("the TLSA records of the host are not signed")]
    InsecureRecords,
}

/// The certificates that are good for a host, by its TLSA records. At least one of them is usable.
///
/// - A record of usage 3 (DANE-EE) names the certificate of the server or its key. Neither names
///   nor dates are checked then.
/// - A record of usage 2 (DANE-TA) names an authority. It is in the chain that the server shows, or
///   the record has its whole certificate. The dates of the certificates below it are checked. The
///   certificate of the server has to be for the TLSA base domain, or for the domain of the mail.
///   Names count in the subjectAltName alone.
/// - Usages 0 and 1 are never used.
///
/// At most 32 records count. Of the records of a usage and selector, those with SHA-256 do not
/// count if there are some with SHA-512 (RFC 7671 section 9).
#[derive(Debug, Clone)]
pub struct Authentication {
    base_domain: Arc<str>,
    records: Arc<[Association]>,
    names: Arc<[ServerName<'static>]>,
}

/// Why there is no TLS for a host. Another attempt may succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaneError {
    /// The TLSA records of the host are not known.
    #[error("the TLSA records of the host could not be looked up: {0}")]
    Dns(#[from] ResolveError),
    /// There is no crypto provider.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Policy {
    /// The policy of secure records.
    pub(super) fn of(records: &[TlsaRecord], base_domain: &str, names: &[String]) -> Self {
        let usable = usable(records);
        if usable.is_empty() {
            return Self::Encrypt;
        }
        let names = names.iter().map(String::as_str).chain([base_domain]);
        let names = names.filter_map(|name| ServerName::try_from(name.to_owned()).ok()).collect();
        Self::Authenticate(Authentication { base_domain: base_domain.into(), records: usable.into(), names })
    }

    /// The TLS of the connections to the host, for [`Target::tls`](crate::Target::tls). `otherwise`
    /// is what it would be without DANE.
    ///
    /// | | TLS |
    /// |---|---|
    /// | `NoDane` | `otherwise` |
    /// | `Encrypt` | `otherwise` if it is demanded, else [`Tls::Required`] with any certificate |
    /// | `Authenticate` | [`Tls::Required`] with [`Identity::Verified`] by the records alone |
    /// | `PassOver` | an error |
    ///
    /// [`Tls::Implicit`] stays implicit. The rustls configuration is that of `otherwise`, but for
    /// the check of certificates and without resumption, which would leave that check out. It takes
    /// a microsecond at most and some 500 bytes of memory, so make one for each look-up of a host.
    ///
    /// # Errors
    /// [`DaneError::Dns`] for `PassOver`. [`DaneError::Tls`] if `otherwise` is [`Tls::Off`], and no
    /// cargo feature gives a crypto provider.
    pub fn tls(&self, otherwise: &Tls) -> Result<HostTls, DaneError> {
        match self {
            Self::NoDane(_) => Ok(otherwise.clone().into()),
            Self::PassOver(error) => Err(error.clone().into()),
            Self::Encrypt => Ok(HostTls::from(match otherwise {
                Tls::Off => Tls::Required(Identity::unverified()?),
                Tls::Opportunistic(config) => Tls::Required(Identity::Unverified(Arc::clone(config))),
                Tls::Required(_) | Tls::Implicit(_) => otherwise.clone(),
            })),
            Self::Authenticate(good) => {
                let tls = match otherwise {
                    Tls::Off => Tls::Required(good.identity(&*any_certificate()?)),
                    Tls::Opportunistic(config) => Tls::Required(good.identity(config)),
                    Tls::Required(identity) => Tls::Required(good.identity(identity.config())),
                    Tls::Implicit(identity) => Tls::Implicit(good.identity(identity.config())),
                };
                Ok(HostTls { tls, server_name: Some(Arc::clone(&good.base_domain)) })
            }
        }
    }
}

impl Authentication {
    /// The name at which the records are, behind the port (RFC 7672 section 2.2.3). Servers see it
    /// in the handshake.
    pub fn base_domain(&self) -> &str {
        &self.base_domain
    }

    /// A digest of what makes a certificate good: of the records in any order, and of the names if
    /// a record names an authority. A connection that one of two policies has proved is proved for
    /// the other if their digests are equal.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut parts: Vec<_> = self.records.iter().map(Association::octets).collect();
        if self.records.iter().any(|record| record.usage == Usage::Anchor) {
            parts.extend(self.names.iter().map(|name| name.to_str().to_ascii_lowercase().into_bytes()));
        }
        parts.sort_unstable();
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn identity(&self, like: &ClientConfig) -> Identity {
        let mut config = like.clone();
        let (records, names) = (Arc::clone(&self.records), Arc::clone(&self.names));
        let verifier = Verifier { records, names, provider: Arc::clone(config.crypto_provider()) };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config.resumption = Resumption::disabled();
        Identity::Verified(Arc::new(config))
    }
}
