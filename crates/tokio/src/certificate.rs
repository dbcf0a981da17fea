//! The certificate of a TLS peer.

use std::fmt;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// The certificate that the peer of a TLS connection has shown. The peer has proved that it holds
/// the private key.
///
/// Trust and names were checked by the verifier of the rustls configuration, not here: a handshake
/// that the verifier refused gives no certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    pub(crate) const fn new(der: CertificateDer<'static>) -> Self {
        Self(der)
    }

    /// The certificate in DER, for an application that reads names out of it.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of its DER in 64 lower-case hexadecimal digits: what `openssl x509 -fingerprint
    /// -sha256` prints, without the colons. A renewed certificate has another one.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.0).iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// The fingerprint, which a reader of logs can compare.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_sha_256_in_hexadecimal() {
        // FIPS 180-2 appendix B.1.
        let certificate = Certificate::new(CertificateDer::from_slice(b"abc").into_owned());
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(certificate.fingerprint(), digest);
        assert_eq!(format!("{certificate:?}"), format!("Certificate({digest:?})"));
    }
}
