//! SCRAM's messages (RFC 5802 section 7), read strictly: each attribute in its place, once.

use alloc::{string::String, vec::Vec};
use core::str::FromStr;

use thiserror::Error;

use crate::sasl::{base64, gs2};

/// One side's part of the nonce of an exchange: fresh and unpredictable. Never use one twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

/// The text is no nonce: 1 to 128 printable ASCII characters without a comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a nonce has 1 to 128 printable characters of ASCII and no comma")]
pub struct NonceError;

/// The most characters of one side's part of a nonce. With both parts and a salt a challenge still
/// fits a reply line of 512 octets. Longer ones have no use: 24 characters cannot be guessed.
const MAX_NONCE: usize = 128;

impl Nonce {
    /// From 18 octets of a cryptographic random number generator.
    pub fn from_random(octets: [u8; 18]) -> Self {
        Self(base64::encode(octets))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, NonceError> {
        if is_nonce(text, MAX_NONCE) { Ok(Self(text.into())) } else { Err(NonceError) }
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The message breaks the grammar.
    Malformed,
    /// The message demands an extension (RFC 5802 section 5.1: `m`).
    Extension,
}

/// `[reserved-mext ","] "n=" saslname "," "r=" c-nonce ["," extensions]`
pub(super) struct ClientFirstBare<'m> {
    pub(super) name: String,
    pub(super) nonce: &'m str,
}

/// `[reserved-mext ","] "r=" nonce "," "s=" base64 "," "i=" posit-number ["," extensions]`
pub(super) struct ServerFirst<'m> {
    pub(super) nonce: &'m str,
    pub(super) salt: Vec<u8>,
    /// `None`: the number does not fit a `u32`.
    pub(super) iterations: Option<u32>,
}

/// `"c=" base64 "," "r=" nonce ["," extensions] "," "p=" base64`
pub(super) struct ClientFinal<'m> {
    pub(super) without_proof: &'m str,
    pub(super) binding: Vec<u8>,
    pub(super) nonce: &'m str,
    pub(super) proof: [u8; 32],
}

/// `("e=" value / "v=" base64) ["," extensions]`
pub(super) enum ServerFinal {
    Verifier([u8; 32]),
    Error,
}

impl<'m> ClientFirstBare<'m> {
    pub(super) fn parse(message: &'m str) -> Result<Self, Unreadable> {
        let mut attributes = Attributes::new(message)?;
        let name = gs2::decode_name(attributes.next('n')?).ok_or(Unreadable::Malformed)?;
        let nonce = attributes.next('r')?;
        attributes.extensions()?;
        if !is_nonce(nonce, MAX_NONCE) {
            return Err(Unreadable::Malformed);
        }
        Ok(Self { name, nonce })
    }
}

impl<'m> ServerFirst<'m> {
    pub(super) fn parse(message: &'m str) -> Result<Self, Unreadable> {
        let mut attributes = Attributes::new(message)?;
        let nonce = attributes.next('r')?;
        let salt = octets(attributes.next('s')?)?;
        let iterations = attributes.next('i')?;
        attributes.extensions()?;
        let is_number = iterations.bytes().all(|octet| octet.is_ascii_digit()) && !iterations.starts_with('0');
        // Both parts, of which the server's may be as long.
        if !is_nonce(nonce, 2 * MAX_NONCE) || salt.is_empty() || !is_number {
            return Err(Unreadable::Malformed);
        }
        Ok(Self { nonce, salt, iterations: iterations.parse().ok() })
    }
}

impl<'m> ClientFinal<'m> {
    pub(super) fn parse(message: &'m str) -> Result<Self, Unreadable> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Unreadable::Malformed)?;
        let mut attributes = Attributes::new(without_proof)?;
        let binding = octets(attributes.next('c')?)?;
        let nonce = attributes.next('r')?;
        attributes.extensions()?;
        Ok(Self { without_proof, binding, nonce, proof: hash(proof)? })
    }
}

impl ServerFinal {
    pub(super) fn parse(message: &str) -> Result<Self, Unreadable> {
        let mut attributes = Attributes::new(message)?;
        let read = if message.starts_with("e=") {
            attributes.next('e')?;
            Self::Error
        } else {
            Self::Verifier(hash(attributes.next('v')?)?)
        };
        attributes.extensions()?;
        Ok(read)
    }
}

/// `ALPHA "=" value`, separated by commas.
struct Attributes<'m>(core::str::Split<'m, char>);

impl<'m> Attributes<'m> {
    fn new(message: &'m str) -> Result<Self, Unreadable> {
        if message.starts_with("m=") { Err(Unreadable::Extension) } else { Ok(Self(message.split(','))) }
    }

    /// The value of the next attribute, which must have this name.
    fn next(&mut self, name: char) -> Result<&'m str, Unreadable> {
        match self.0.next().and_then(attribute) {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// Reads the rest as extensions, which are ignored (RFC 5802 section 7).
    fn extensions(self) -> Result<(), Unreadable> {
        for part in self.0 {
            match attribute(part) {
                Some(('m', _)) => return Err(Unreadable::Extension),
                Some((name, _)) if !"acenprsiv".contains(name) => {}
                _ => return Err(Unreadable::Malformed),
            }
        }
        Ok(())
    }
}

fn attribute(part: &str) -> Option<(char, &str)> {
    let (name, value) = part.split_once('=')?;
    let mut characters = name.chars();
    let (Some(name), None) = (characters.next(), characters.next()) else { return None };
    (name.is_ascii_alphabetic() && !value.is_empty() && !value.contains('\0')).then_some((name, value))
}

/// RFC 5802 section 7: `printable = %x21-2B / %x2D-7E`.
fn is_nonce(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|octet| matches!(octet, b'!'..=b'~') && octet != b',')
}

fn octets(text: &str) -> Result<Vec<u8>, Unreadable> {
    base64::decode(text.as_bytes()).map_err(|_| Unreadable::Malformed)
}

fn hash(text: &str) -> Result<[u8; 32], Unreadable> {
    octets(text)?.try_into().map_err(|_| Unreadable::Malformed)
}
