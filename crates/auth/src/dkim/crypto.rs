//! Private keys, as the crypto provider keeps them. aws-lc-rs and ring have the same functions.

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use ring as provider;

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) use with::PrivateKey;
#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
pub(crate) use without::PrivateKey;

/// A private key in DER.
pub(crate) enum Der<'d> {
    /// RFC 5958, of either algorithm.
    Pkcs8(&'d [u8]),
    /// RFC 8017 appendix A.1.2.
    Pkcs1(&'d [u8]),
}

/// The provider failed.
#[derive(Debug)]
pub(crate) struct Failed;

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod with {
    use sha2::{Digest as _, Sha256};

    use super::{
        Der, Failed,
        provider::{
            rand::SystemRandom,
            signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
        },
    };
    use crate::dkim::{Algorithm, KeyFault};

    /// Bits at most: verifiers have to know these (RFC 8301 section 3.2).
    const MAX_RSA_BITS: usize = 4_096;
    /// A key of PKCS #8 version 1 (RFC 8410 section 7) up to its 32 octets.
    const ED25519_PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    /// The object identifiers of the algorithms, as PKCS #8 has them.
    const ED25519_OID: &[u8] = b"\x06\x03\x2b\x65\x70";
    const RSA_OID: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

    // The variants differ in size. A process has few keys, each behind a pointer.
    #[allow(clippy::large_enum_variant)]
    pub(crate) enum PrivateKey {
        Rsa(RsaKeyPair),
        Ed25519(Ed25519KeyPair),
    }

    impl PrivateKey {
        pub(crate) fn from_der(der: &Der<'_>) -> Result<Self, KeyFault> {
            match der {
                Der::Pkcs1(der) => Self::rsa(RsaKeyPair::from_der(der)),
                Der::Pkcs8(der) if names(der, ED25519_OID) => {
                    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::Ed25519).map_err(|_| KeyFault::Ed25519)
                }
                Der::Pkcs8(der) if names(der, RSA_OID) => Self::rsa(RsaKeyPair::from_pkcs8(der)),
                Der::Pkcs8(_) => Err(KeyFault::Kind),
            }
        }

        /// The 32 octets of an Ed25519 key, or these and the 32 of its public half.
        pub(crate) fn from_seed(seed: &[u8]) -> Result<Self, KeyFault> {
            match (seed.len(), seed.split_at_checked(32)) {
                (32, _) => Self::from_der(&Der::Pkcs8(&[ED25519_PKCS8, seed].concat())),
                (64, Some((seed, public))) => Ed25519KeyPair::from_seed_and_public_key(seed, public)
                    .map(Self::Ed25519)
                    .map_err(|_| KeyFault::Ed25519),
                _ => Err(KeyFault::NoKey),
            }
        }

        fn rsa(pair: Result<RsaKeyPair, impl std::fmt::Display>) -> Result<Self, KeyFault> {
            let pair = pair.map_err(|error| KeyFault::Rsa(error.to_string()))?;
            let bits = modulus_octets(&pair).saturating_mul(8);
            if bits > MAX_RSA_BITS {
                return Err(KeyFault::Rsa(format!("it has {bits}")));
            }
            Ok(Self::Rsa(pair))
        }

        pub(crate) const fn algorithm(&self) -> Algorithm {
            match self {
                Self::Rsa(_) => Algorithm::RsaSha256,
                Self::Ed25519(_) => Algorithm::Ed25519Sha256,
            }
        }

        /// RSA: `RSAPublicKey` (RFC 8017 appendix A.1.1). Ed25519: its 32 octets.
        pub(crate) fn public(&self) -> &[u8] {
            match self {
                Self::Rsa(pair) => pair.public_key().as_ref(),
                Self::Ed25519(pair) => pair.public_key().as_ref(),
            }
        }

        /// Signs the SHA-256 of a text (RFC 6376 section 3.3.1, RFC 8463 section 3).
        pub(crate) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Failed> {
            match self {
                Self::Rsa(pair) => {
                    let mut signature = vec![0; modulus_octets(pair)];
                    let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature);
                    signed.map(|()| signature).map_err(|_| Failed)
                }
                Self::Ed25519(pair) => Ok(pair.sign(&Sha256::digest(text)).as_ref().to_vec()),
            }
        }
    }

    #[cfg(feature = "aws-lc-rs")]
    fn modulus_octets(pair: &RsaKeyPair) -> usize {
        pair.public_modulus_len()
    }

    #[cfg(not(feature = "aws-lc-rs"))]
    fn modulus_octets(pair: &RsaKeyPair) -> usize {
        pair.public().modulus_len()
    }

    /// Returns `true` if the key in PKCS #8 is of this algorithm. The identifier stands after a
    /// version and at most ten octets of lengths.
    fn names(der: &[u8], oid: &[u8]) -> bool {
        der.get(..oid.len() + 10).unwrap_or(der).windows(oid.len()).any(|window| window == oid)
    }
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
mod without {
    use super::{Der, Failed};
    use crate::dkim::{Algorithm, KeyFault};

    /// There is none without a provider.
    pub(crate) enum PrivateKey {}

    impl PrivateKey {
        pub(crate) fn from_der(der: &Der<'_>) -> Result<Self, KeyFault> {
            match der {
                Der::Pkcs8([]) | Der::Pkcs1([]) => Err(KeyFault::NoKey),
                Der::Pkcs8(_) | Der::Pkcs1(_) => Err(KeyFault::NoProvider),
            }
        }

        pub(crate) fn from_seed(_: &[u8]) -> Result<Self, KeyFault> {
            Err(KeyFault::NoProvider)
        }

        pub(crate) const fn algorithm(&self) -> Algorithm {
            match *self {}
        }

        pub(crate) fn public(&self) -> &[u8] {
            match *self {}
        }

        pub(crate) fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Failed> {
            match *self {}
        }
    }
}
