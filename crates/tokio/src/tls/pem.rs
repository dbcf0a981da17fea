//! Certificates and keys in PEM.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{PemName, TlsError};

/// A text in PEM (RFC 7468): certificates, a private key, or both. It remembers its file, which
/// errors name.
#[derive(Clone)]
pub struct Pem {
    name: PemName,
    text: Vec<u8>,
}

/// Octets of a file at most. Bundles of all public authorities have a quarter of a MiB.
const MAX_FILE: u64 = 4 << 20;

impl Pem {
    /// Reads a file of at most 4 MiB. Blocks.
    ///
    /// # Errors
    /// [`TlsError::File`], also when the file is longer, or a pipe or a device, for which the
    /// caller could wait for ever.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        let read = || {
            let mut text = Vec::new();
            let found = fs::metadata(path)?;
            if !found.is_file() {
                let what = if found.is_dir() { "a folder" } else { "a pipe or a device" };
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no file")));
            }
            File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MAX_FILE {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
            }
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Self { name: PemName(Some(path.to_owned())), text }),
            Err(error) => Err(TlsError::File { path: path.to_owned(), error }),
        }
    }

    /// Every certificate, in order. There is at least one.
    ///
    /// # Errors
    /// [`TlsError::NotPem`], [`TlsError::NoCertificate`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.check_encoding()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        match found {
            Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { name: self.name.clone() }),
            found => found.map_err(|error| self.not_pem(error)),
        }
    }

    /// The one private key, in PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// [`TlsError::NotPem`], also when there are several, [`TlsError::NoKey`],
    /// [`TlsError::EncryptedKey`].
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        self.check_encoding()?;
        let key = PrivateKeyDer::from_pem_slice(&self.text).map_err(|error| match error {
            _ if self.has_encrypted_key() => TlsError::EncryptedKey { name: self.name.clone() },
            pem::Error::NoItemsFound if self.has_line(b"-----BEGIN OPENSSH PRIVATE KEY-----") => {
                self.fault("its key is in the form of OpenSSH; write it anew with `ssh-keygen -p -m PKCS8 -f FILE`")
            }
            pem::Error::NoItemsFound => TlsError::NoKey { name: self.name.clone() },
            error => self.not_pem(error),
        })?;
        match PrivateKeyDer::pem_slice_iter(&self.text).count() {
            0 | 1 => Ok(key),
            keys => Err(self.fault(&format!("it has {keys} private keys; leave only that of the certificate in it"))),
        }
    }

    /// The name of the text in errors.
    pub const fn name(&self) -> &PemName {
        &self.name
    }

    /// The marks of PKCS #8 (RFC 5958) and of the older form (RFC 1421 section 4.6.1.1).
    fn has_encrypted_key(&self) -> bool {
        self.has_line(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || self.has_line(b"Proc-Type: 4,ENCRYPTED")
    }

    fn has_line(&self, wanted: &[u8]) -> bool {
        self.text.split(|octet| matches!(octet, b'\n' | b'\r')).any(|line| line.trim_ascii() == wanted)
    }

    fn fault(&self, fault: &str) -> TlsError {
        TlsError::NotPem { name: self.name.clone(), fault: fault.to_owned() }
    }

    /// A byte-order mark would hide the section behind it. DER has none.
    fn check_encoding(&self) -> Result<(), TlsError> {
        // A sequence whose length has more than one octet, as all keys and certificates are.
        if matches!(self.text.as_slice(), [0x30, 0x81..=0x84, ..]) {
            return Err(self.fault("it is DER; for PEM use `openssl x509` or `openssl pkey` with `-inform DER`"));
        }
        const UTF_8: &[u8] = b"\xef\xbb\xbf-----BEGIN";
        let is_utf_16 = self.text.starts_with(b"\xff\xfe") || self.text.starts_with(b"\xfe\xff");
        if is_utf_16 || self.text.windows(UTF_8.len()).any(|octets| octets == UTF_8) {
            return Err(self.fault("it has a byte-order mark; save it as plain text in ASCII"));
        }
        Ok(())
    }

    fn not_pem(&self, error: pem::Error) -> TlsError {
        let fault = match error {
            pem::Error::MissingSectionEnd { end_marker } => {
                let label = String::from_utf8_lossy(&end_marker).escape_debug().to_string();
                format!("it is cut off, `-----END {label}-----` is missing; copy it again as a whole")
            }
            pem::Error::IllegalSectionStart { .. } => {
                "a line with `-----BEGIN` is cut off; copy it again as a whole".into()
            }
            error => format!("{error}; make or copy it again"),
        };
        TlsError::NotPem { name: self.name.clone(), fault }
    }
}

impl From<&[u8]> for Pem {
    fn from(text: &[u8]) -> Self {
        Self { name: PemName(None), text: text.to_vec() }
    }
}

/// What `include_bytes!` gives.
impl<const N: usize> From<&[u8; N]> for Pem {
    fn from(text: &[u8; N]) -> Self {
        Self::from(&text[..])
    }
}

/// The name alone: the text may hold a private key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pem").field(&self.name).finish()
    }
}
