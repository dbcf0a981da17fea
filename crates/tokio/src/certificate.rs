//! Who the other side of a TLS connection is.

use std::fmt;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// The certificate that the other side of a TLS connection has shown, and whose private key it has proved to have.
///
/// Whether anybody vouches for it, and which names are good, was for the verifier in the rustls configuration to say: a
/// handshake that it refused has no certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    pub(crate) const fn new(der: CertificateDer<'static>) -> Self {
        Self(der)
    }

    /// The certificate itself in DER, for an application that looks for names in it.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The SHA-256 of its DER in lower-case hexadecimal, 64 digits: what `openssl x509 -fingerprint -sha256` prints, without the
    /// colons. A renewed certificate has another one.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.0).iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// The fingerprint: a certificate in DER tells a reader of logs nothing.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_sha_256_in_hexadecimal() {
        // FIPS 180-2 appendix B.1.
        let certificate = Certificate::new(CertificateDer::from_slice(b"abc").into_owned());
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(certificate.fingerprint(), digest);
        assert_eq!(format!("{certificate:?}"), format!("Certificate({digest:?})"));
    }
}
