//! Why TLS cannot be set up.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::explain;

/// Why TLS cannot be set up. Each text names the fault and the file, and ends in a remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No feature chose a crypto provider, and the application has installed none.
    #[error(
        "no crypto provider for TLS is compiled in; switch on the cargo feature `aws-lc-rs` or `ring` of posthaste, \
         or install one with rustls's `CryptoProvider::install_default`"
    )]
    NoProvider,
    /// There is no authority whose certificates are trusted.
    #[error(
        "no certificate authority is trusted; install the system's (the package ca-certificates), switch on the cargo \
         feature `native-roots` or `webpki-roots` of posthaste, or add an authority from a PEM file"
    )]
    NoRoots,
    /// A server has no certificate.
    #[error("a server with TLS needs a certificate; give it at least one with its private key")]
    NoCertificates,
    /// A file cannot be read.
    #[error("cannot read {}: {error}; name a PEM file that this program may read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The text is not well-formed PEM.
    #[error("{name} is not well-formed PEM: {fault}")]
    NotPem {
        /// The text.
        name: PemName,
        /// What is wrong, and the remedy.
        fault: String,
    },
    /// The text has no `BEGIN CERTIFICATE`.
    #[error("{name} has no certificate in it; name a PEM file with a certificate")]
    NoCertificate {
        /// The text.
        name: PemName,
    },
    /// The text has no private key.
    #[error("{name} has no private key in it; name a PEM file with the certificate's private key")]
    NoKey {
        /// The text.
        name: PemName,
    },
    /// The private key is encrypted with a password.
    #[error("the private key in {name} is encrypted; decrypt it with `openssl pkey -in KEY -out NEW`")]
    EncryptedKey {
        /// The text.
        name: PemName,
    },
    /// The provider cannot use the private key.
    #[error(
        "the private key in {name} cannot be used, because it is damaged, of another kind or too short; make one of \
         RSA with 2,048 bits or more, of ECDSA or Ed25519 ({})",
        explain(error)
    )]
    UnusableKey {
        /// The text with the key.
        name: PemName,
        /// The provider's reason.
        error: rustls::Error,
    },
    /// The key belongs to another certificate.
    #[error("{key} does not fit the certificate in {certificate}; name the key that it was made with")]
    KeyMismatch {
        /// The text with the key.
        key: PemName,
        /// The text with the certificate.
        certificate: PemName,
    },
    /// No server can use the certificate, or no client can trust it as an authority.
    #[error("{name} cannot be used: {}", explain(error))]
    Certificate {
        /// The text with the certificate.
        name: PemName,
        /// The reason.
        error: rustls::Error,
    },
    /// The provider has no cipher suite for TLS 1.2 or 1.3, or no random numbers.
    #[error("the crypto provider cannot do TLS: {0}; use one of rustls's own")]
    Provider(#[source] rustls::Error),
}

/// The name of a PEM text in an error: the path of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemName(pub(super) Option<PathBuf>);

impl PemName {
    /// The file. `None`: the text did not come from a file.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl fmt::Display for PemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => path.display().fmt(f),
            None => f.write_str("the PEM text"),
        }
    }
}
