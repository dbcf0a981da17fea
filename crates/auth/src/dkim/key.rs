//! Private keys with what verifiers find them by.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_wire::{Domain, Mailbox};
use rustls_pki_types::{
    PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::{
    KeyError, KeyFault,
    crypto::{Der, PrivateKey},
};

/// A private key of a domain, under a selector (RFC 6376 section 3.1).
///
/// It is made from a file or from text, and its public fields are assigned then:
///
/// ```no_run
/// use std::time::{Duration, SystemTime};
/// use posthaste_auth::dkim::{KeyRing, SigningKey};
///
/// let mut keys = KeyRing::new();
/// keys.add(SigningKey::file("example.org", "2026a", "/etc/posthaste/dkim/2026a.pem")?)?;
/// let mut next = SigningKey::file("example.org", "2026b", "/etc/posthaste/dkim/2026b.pem")?;
/// next.begins = Some(SystemTime::now() + Duration::from_secs(3 * 86_400));
/// println!("publish now: {} TXT {:?}", next.record_name(), next.record_text());
/// keys.add(next)?;
/// # Ok::<(), posthaste_auth::dkim::KeyError>(())
/// ```
#[non_exhaustive]
pub struct SigningKey {
    /// It signs for the domains below its own as well, unless a nearer one has a valid key. Default
    /// `false`.
    pub covers_subdomains: bool,
    /// When it begins to sign. Default `None`: it signs already.
    pub begins: Option<SystemTime>,
    /// When it signs no more. Default `None`: it signs until another key begins.
    pub ends: Option<SystemTime>,
    /// The user or agent on whose behalf it signs, `i=` (RFC 6376 section 3.5): a mailbox, or `@`
    /// and a domain. The domain is that of the key or below it. Default `None`: `@` and the key's
    /// domain.
    pub identity: Option<String>,
    domain: String,
    selector: String,
    file: Option<PathBuf>,
    key: PrivateKey,
}

/// The algorithm of a signature, `a=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSA with SHA-256. Every verifier knows it.
    RsaSha256,
    /// Ed25519 with SHA-256 (RFC 8463). Some verifiers do not know it yet: add an RSA key too.
    Ed25519Sha256,
}

impl Algorithm {
    /// The word in `a=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// Octets of a key's text at most. A key of 4,096 bits has 3,300.
pub const MAX_KEY_FILE: usize = 64 * 1_024;

/// Octets of a name in the DNS, as text without the last dot.
const MAX_NAME: usize = 253;

impl SigningKey {
    /// Reads a key from text:
    /// - PEM with PKCS #8, RSA or Ed25519, or with PKCS #1, RSA;
    /// - the 32 octets of an Ed25519 key in base64, alone or with the 32 of its public half.
    ///
    /// RSA keys have 2,048 to 4,096 bits. A domain outside ASCII becomes A-labels.
    ///
    /// # Errors
    /// [`KeyError`] with the domain, the selector and the remedy.
    pub fn new(domain: &str, selector: &str, text: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        Self::read(domain, selector, text.as_ref()).map_err(|fault| error(domain, selector, None, fault))
    }

    /// Reads a key from a file of at most [`MAX_KEY_FILE`] octets, as [`new`](Self::new) does.
    /// A pipe or a device is refused: the caller could wait for ever. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] with the file as well.
    pub fn file(domain: &str, selector: &str, path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let mut text = Vec::new();
        let limit = MAX_KEY_FILE as u64 + 1;
        let open = || {
            let found = fs::metadata(path)?;
            let what = if found.is_dir() { "a folder" } else { "a pipe or a device" };
            match found.is_file() {
                true => File::open(path),
                false => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no file"))),
            }
        };
        let read = open().and_then(|file| file.take(limit).read_to_end(&mut text));
        let key = read.map_err(KeyFault::File).and_then(|_| Self::read(domain, selector, &text));
        let mut key = key.map_err(|fault| error(domain, selector, Some(path), fault))?;
        key.file = Some(path.to_owned());
        Ok(key)
    }

    /// The domain, `d=`, in lower case and A-labels.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The selector, `s=`.
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The algorithm, `a=`.
    pub const fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The name under which the public half is published: `2026a._domainkey.example.org`.
    pub fn record_name(&self) -> String {
        record_name(&self.domain, &self.selector)
    }

    /// The text of the TXT record with the public half (RFC 6376 section 3.6.1). That of an RSA key
    /// has more than 255 octets, which a zone file takes as several strings.
    pub fn record_text(&self) -> String {
        let public = self.key.public();
        match self.algorithm() {
            Algorithm::RsaSha256 => format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(subject_public_key_info(public))),
            Algorithm::Ed25519Sha256 => format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(public)),
        }
    }

    pub(crate) const fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Returns `true` if it signs at this time.
    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.begins.is_none_or(|begins| begins <= now) && self.ends.is_none_or(|ends| now < ends)
    }

    /// Checks what was assigned.
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        if matches!((self.begins, self.ends), (Some(begins), Some(ends)) if ends <= begins) {
            return Err(self.error(KeyFault::Window));
        }
        match &self.identity {
            Some(identity) if !self.may_be(identity) => Err(self.error(KeyFault::Identity(identity.clone()))),
            _ => Ok(()),
        }
    }

    pub(crate) fn error(&self, fault: KeyFault) -> KeyError {
        error(&self.domain, &self.selector, self.file.as_deref(), fault)
    }

    fn read(domain: &str, selector: &str, text: &[u8]) -> Result<Self, KeyFault> {
        let named = Domain::parse(domain).ok().filter(|name| name.address_literal().is_none());
        let domain = named.and_then(|name| name.to_a_labels().ok()).ok_or(KeyFault::Domain)?.as_str().to_owned();
        if domain.len() > MAX_NAME {
            return Err(KeyFault::Domain);
        }
        let is_name = Domain::parse(selector).is_ok_and(|name| name.address_literal().is_none());
        if !selector.is_ascii() || !is_name {
            return Err(KeyFault::Selector);
        }
        let octets = record_name(&domain, selector).len();
        if octets > MAX_NAME {
            return Err(KeyFault::RecordName { octets });
        }
        Ok(Self {
            covers_subdomains: false,
            begins: None,
            ends: None,
            identity: None,
            domain,
            selector: selector.to_owned(),
            file: None,
            key: private_key(text)?,
        })
    }

    /// Returns `true` for a mailbox, or `@` and a domain, in ASCII and in the key's domain or
    /// below.
    fn may_be(&self, identity: &str) -> bool {
        let domain = match identity.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(|domain| domain.as_str().to_ascii_lowercase()),
            None => Mailbox::parse(identity).map(|mailbox| mailbox.domain().as_str().to_ascii_lowercase()),
        };
        let Ok(domain) = domain else { return false };
        let above = domain.strip_suffix(&self.domain);
        identity.is_ascii() && above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

/// Without the private half.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .field("algorithm", &self.algorithm())
            .field("covers_subdomains", &self.covers_subdomains)
            .field("begins", &self.begins)
            .field("ends", &self.ends)
            .field("identity", &self.identity)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn error(domain: &str, selector: &str, file: Option<&Path>, fault: KeyFault) -> KeyError {
    KeyError { domain: domain.into(), selector: selector.into(), file: file.map(Path::to_owned), fault }
}

fn record_name(domain: &str, selector: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

fn private_key(text: &[u8]) -> Result<PrivateKey, KeyFault> {
    if text.len() > MAX_KEY_FILE {
        return Err(KeyFault::TooLong);
    }
    let has_line = |start: &[u8]| {
        text.split(|octet| matches!(octet, b'\n' | b'\r')).any(|line| line.trim_ascii().starts_with(start))
    };
    // The marks of PKCS #8 (RFC 5958) and of the older form (RFC 1421 section 4.6.1.1).
    if has_line(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has_line(b"Proc-Type: 4,ENCRYPTED") {
        return Err(KeyFault::Encrypted);
    }
    if has_line(b"-----BEGIN OPENSSH PRIVATE KEY-----") {
        return Err(KeyFault::OtherForm("in the form of OpenSSH (`ssh-keygen -p -m PKCS8 -f FILE`)".to_owned()));
    }
    // A sequence whose length has more than one octet, or the short one of an Ed25519 key.
    if matches!(text, [0x30, 0x81..=0x84 | 0x2e, ..]) {
        return Err(KeyFault::OtherForm("DER (`openssl pkey -inform DER -in FILE -out FILE.pem`)".to_owned()));
    }
    if has_line(b"-----BEGIN ") {
        let keys = PrivateKeyDer::pem_slice_iter(text).count();
        if keys > 1 {
            return Err(KeyFault::OtherForm(format!("a file with {keys} private keys")));
        }
        return match PrivateKeyDer::from_pem_slice(text) {
            Ok(PrivateKeyDer::Pkcs8(der)) => PrivateKey::from_der(&Der::Pkcs8(der.secret_pkcs8_der())),
            Ok(PrivateKeyDer::Pkcs1(der)) => PrivateKey::from_der(&Der::Pkcs1(der.secret_pkcs1_der())),
            Ok(_) => Err(KeyFault::Kind),
            Err(pem::Error::NoItemsFound) => Err(KeyFault::NoKey),
            Err(error) => Err(KeyFault::NotPem(error.to_string())),
        };
    }
    let octets: Vec<u8> = text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    PrivateKey::from_seed(&STANDARD.decode(octets).map_err(|_| KeyFault::NoKey)?)
}

/// The DER of an RSA key as verifiers expect it (RFC 5280 section 4.1): the algorithm, then the
/// key.
fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    // No bit of the last octet is unused.
    let bits = tagged(0x03, &[b"\0", key].concat());
    tagged(0x30, &[RSA, &bits].concat())
}

/// A value with its tag and its length.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let digits = length.get(length.iter().take_while(|octet| **octet == 0).count()..).unwrap_or_default();
    let mut der = vec![tag];
    match digits {
        [short] if *short < 0x80 => der.push(*short),
        // A length has eight octets at most.
        _ => {
            der.push(0x80 | digits.len() as u8);
            der.extend_from_slice(digits);
        }
    }
    der.extend_from_slice(value);
    der
}
