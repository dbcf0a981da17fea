//! TLSA records that a client of SMTP can use.

use std::{borrow::Cow, cell::OnceCell, fmt};

use posthaste_tokio::rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha512};

use crate::TlsaRecord;

/// The most usable records of a host that count. Hosts have one or two, and four while they change
/// a key.
pub(super) const MAX_RECORDS: usize = 32;

/// A TLSA record that can be used.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) usage: Usage,
    selector: Selector,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// DANE-TA, 2: an authority that has signed the server's certificate.
    Anchor,
    /// DANE-EE, 3: the server's certificate.
    EndEntity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selector {
    /// Cert, 0.
    Certificate,
    /// SPKI, 1.
    PublicKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Full, 0.
    Whole(Vec<u8>),
    /// SHA2-256, 1.
    Sha256([u8; 32]),
    /// SHA2-512, 2.
    Sha512([u8; 64]),
}

/// The records that can be used, each once, at most [`MAX_RECORDS`] in their order.
///
/// Usages 0 and 1 are not used with SMTP (RFC 7672 section 3.1.3), and unknown values never are. A
/// digest has to have its length, and a whole certificate has to be one (RFC 7671 section 10.1.2).
/// Where a usage and selector has SHA-512, its SHA-256 does not count (RFC 7671 section 9).
pub(super) fn usable(records: &[TlsaRecord]) -> Vec<Association> {
    let all: Vec<_> = records.iter().filter_map(Association::new).collect();
    let is_weaker = |one: &Association| {
        let is_stronger = |other: &Association| {
            other.usage == one.usage && other.selector == one.selector && matches!(other.value, Value::Sha512(_))
        };
        matches!(one.value, Value::Sha256(_)) && all.iter().any(is_stronger)
    };
    let mut usable: Vec<Association> = Vec::new();
    for one in all.iter().filter(|one| !is_weaker(one)) {
        if usable.len() < MAX_RECORDS && !usable.contains(one) {
            usable.push(one.clone());
        }
    }
    usable
}

impl Association {
    fn new(record: &TlsaRecord) -> Option<Self> {
        let usage = match record.usage {
            2 => Usage::Anchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let selector = match record.selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let value = match record.matching_type {
            0 => Value::Whole(Some(&record.data).filter(|data| is_whole(selector, data))?.clone()),
            1 => Value::Sha256(record.data.as_slice().try_into().ok()?),
            2 => Value::Sha512(record.data.as_slice().try_into().ok()?),
            _ => return None,
        };
        Some(Self { usage, selector, value })
    }

    /// The same as in the DNS (RFC 6698 section 2.1).
    pub(super) fn octets(&self) -> Vec<u8> {
        let usage = match self.usage {
            Usage::Anchor => 2,
            Usage::EndEntity => 3,
        };
        let selector = match self.selector {
            Selector::Certificate => 0,
            Selector::PublicKey => 1,
        };
        let (matching_type, data): (u8, &[u8]) = match &self.value {
            Value::Whole(data) => (0, data),
            Value::Sha256(digest) => (1, digest),
            Value::Sha512(digest) => (2, digest),
        };
        [&[usage, selector, matching_type], data].concat()
    }

    /// The certificate, if the record has all of it.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'_>> {
        match (&self.value, self.selector) {
            (Value::Whole(data), Selector::Certificate) => Some(CertificateDer::from_slice(data)),
            _ => None,
        }
    }

    /// Returns `true` if the record is about this certificate.
    pub(super) fn matches(&self, shown: &Shown<'_>) -> bool {
        let part = match self.selector {
            Selector::Certificate => Some(&shown.certificate),
            Selector::PublicKey => shown.public_key.as_ref(),
        };
        let Some(part) = part else { return false };
        match &self.value {
            Value::Whole(data) => part.octets.as_ref() == data.as_slice(),
            Value::Sha256(digest) => part.sha256.get_or_init(|| Sha256::digest(&part.octets).into()) == digest,
            Value::Sha512(digest) => part.sha512.get_or_init(|| Sha512::digest(&part.octets).into()) == digest,
        }
    }
}

/// The fields, and no octets: a record can hold thousands.
impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matching = match self.value {
            Value::Whole(_) => "Full",
            Value::Sha256(_) => "Sha256",
            Value::Sha512(_) => "Sha512",
        };
        write!(f, "{:?} {:?} {matching}", self.usage, self.selector)
    }
}

/// Returns `true` if the data is a certificate, or can be a public key.
fn is_whole(selector: Selector, data: &[u8]) -> bool {
    match selector {
        Selector::Certificate => webpki::anchor_from_trusted_cert(&CertificateDer::from_slice(data)).is_ok(),
        // A SEQUENCE, as every SubjectPublicKeyInfo is (RFC 5280 section 4.1).
        Selector::PublicKey => data.first() == Some(&0x30),
    }
}

/// A certificate that a server has shown. Its digests are made once, and only if a record asks.
pub(super) struct Shown<'c> {
    certificate: Part<'c>,
    /// `None`: it cannot be read.
    public_key: Option<Part<'static>>,
}

struct Part<'c> {
    octets: Cow<'c, [u8]>,
    sha256: OnceCell<[u8; 32]>,
    sha512: OnceCell<[u8; 64]>,
}

impl<'c> Shown<'c> {
    pub(super) fn new(certificate: &'c CertificateDer<'_>) -> Self {
        let anchor = webpki::anchor_from_trusted_cert(certificate).ok();
        let public_key = anchor.map(|anchor| Part::new(webpki::spki_for_anchor(&anchor).to_vec()));
        Self { certificate: Part::new(certificate.as_ref()), public_key }
    }
}

impl<'c> Part<'c> {
    fn new(octets: impl Into<Cow<'c, [u8]>>) -> Self {
        Self { octets: octets.into(), sha256: OnceCell::new(), sha512: OnceCell::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching_type: u8, data: &[u8]) -> TlsaRecord {
        TlsaRecord { usage, selector, matching_type, data: data.to_vec() }
    }

    #[test]
    fn only_records_that_smtp_can_use_are_usable() {
        let digest = [7; 64];
        for usage in 0..=255 {
            for (selector, matching_type, length, is_good) in [
                (0, 1, 32, true),
                (1, 1, 32, true),
                (0, 2, 64, true),
                (1, 2, 64, true),
                // Digests of a wrong length.
                (1, 1, 0, false),
                (1, 1, 31, false),
                (1, 1, 33, false),
                (1, 1, 64, false),
                (1, 2, 63, false),
                (1, 2, 32, false),
                // Neither a certificate nor a public key.
                (0, 0, 64, false),
                (1, 0, 64, false),
                (1, 0, 0, false),
                // Unknown values.
                (2, 1, 32, false),
                (255, 1, 32, false),
                (1, 3, 48, false),
                (1, 255, 32, false),
            ] {
                let found = usable(&[record(usage, selector, matching_type, &digest[..length.min(64)])]);
                let expected = usize::from(is_good && matches!(usage, 2 | 3));
                assert_eq!(found.len(), expected, "{usage} {selector} {matching_type} {length}");
            }
        }
    }

    #[test]
    fn sha_512_puts_sha_256_of_the_same_usage_and_selector_aside() {
        let all = [
            record(3, 1, 1, &[1; 32]),
            record(3, 1, 2, &[1; 64]),
            record(3, 0, 1, &[2; 32]),
            record(2, 1, 1, &[3; 32]),
            // It cannot be used, so it puts no other aside.
            record(2, 1, 2, &[3; 63]),
        ];
        let found: Vec<_> = usable(&all).iter().map(|one| format!("{one:?}")).collect();
        assert_eq!(found, ["EndEntity PublicKey Sha512", "EndEntity Certificate Sha256", "Anchor PublicKey Sha256"]);
    }

    #[test]
    fn a_usable_record_is_written_as_in_the_dns() {
        for (usage, selector, matching_type, length) in [(2, 0, 1, 32), (3, 1, 1, 32), (2, 1, 2, 64), (3, 1, 0, 9)] {
            let record = record(usage, selector, matching_type, &vec![0x30; length]);
            let expected = [&[usage, selector, matching_type], record.data.as_slice()].concat();
            assert_eq!(usable(&[record])[0].octets(), expected);
        }
    }

    #[test]
    fn a_thousand_records_are_32_and_one_record_twice_is_one() {
        let number = |number: u16| record(3, 1, 1, &[number.to_be_bytes(); 16].concat());
        assert_eq!(usable(&(0..1_000).map(number).collect::<Vec<_>>()).len(), MAX_RECORDS);
        assert_eq!(usable(&(0..1_000).map(|_| number(7)).collect::<Vec<_>>()).len(), 1);
        assert_eq!(usable(&[record(3, 0, 0, &vec![0x30; 65_000]), record(3, 1, 1, &vec![1; 65_000])]), []);
        assert_eq!(usable(&[]), []);
    }
}
