//! xtext (RFC 3461 section 4): printable ASCII in which `+XX` stands for an octet.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::error::{SyntaxError, SyntaxErrorKind};

/// Text in the xtext encoding, kept as it came; [`Xtext::decode`] gives what it stands for.
///
/// ```
/// use posthaste_wire::Xtext;
/// let id = Xtext::parse("QQ314159+2B7")?;
/// assert_eq!(id.decode(), b"QQ314159+7");
/// assert!(Xtext::parse("a+0Db").is_err(), "an encoded control character is refused");
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xtext<S = String>(S);

impl<'a> Xtext<&'a str> {
    /// Takes text that is xtext already.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`] at the first octet that is no xtext, or that encodes a control character:
    /// what is decoded goes into header fields and logs.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(&octet) = bytes.get(at) {
            at += match octet {
                b'+' => match bytes.get(at + 1..at + 3).and_then(hex_pair) {
                    Some(decoded) if !decoded.is_ascii_control() => 3,
                    _ => return Err(SyntaxError::new(SyntaxErrorKind::ParameterValue, at)),
                },
                b'!'..=b'~' if octet != b'=' => 1,
                _ => return Err(SyntaxError::new(SyntaxErrorKind::ParameterValue, at)),
            };
        }
        Ok(Self(text))
    }

    /// The owned form.
    pub fn into_owned(self) -> Xtext {
        Xtext(self.0.into())
    }
}

impl Xtext {
    /// Encodes octets.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ControlCharacter`] at the first control character.
    pub fn encode(octets: &[u8]) -> Result<Self, SyntaxError> {
        let mut text = String::with_capacity(octets.len());
        for (at, &octet) in octets.iter().enumerate() {
            match octet {
                b'+' | b'=' | b' ' | 0x80.. => {
                    text.push('+');
                    for digit in [octet >> 4, octet & 15] {
                        text.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                    }
                }
                b'!'..=b'~' => text.push(char::from(octet)),
                _ => return Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, at)),
            }
        }
        Ok(Self(text))
    }
}

impl<S: AsRef<str>> Xtext<S> {
    /// The encoded text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Xtext<&str> {
        Xtext(self.0.as_ref())
    }

    /// The octets that it stands for.
    pub fn decode(&self) -> Vec<u8> {
        let mut rest = self.as_str().as_bytes();
        let mut octets = Vec::with_capacity(rest.len());
        while let [first, tail @ ..] = rest {
            rest = tail;
            match (first, tail.get(..2).and_then(hex_pair)) {
                (b'+', Some(octet)) => {
                    octets.push(octet);
                    rest = tail.get(2..).unwrap_or_default();
                }
                _ => octets.push(*first),
            }
        }
        octets
    }
}

impl<S: AsRef<str>> fmt::Display for Xtext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Two upper-case hexadecimal digits (RFC 3461 section 4: hexchar).
fn hex_pair(digits: &[u8]) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_then_decode_is_the_identity() {
        for octets in [&b"plain"[..], b"a+b=c d", "\u{fc}".as_bytes(), b""] {
            let text = Xtext::encode(octets).unwrap();
            assert_eq!(Xtext::parse(text.as_str()).unwrap().decode(), octets);
        }
    }

    #[test]
    fn what_is_no_xtext_is_refused_where_it_stands() {
        for (text, offset) in
            [("a=b", 1), ("a+b", 1), ("+zz", 0), ("+0A", 0), ("+00", 0), ("ab+2", 2), ("a b", 1), ("\u{e9}", 0)]
        {
            assert_eq!(Xtext::parse(text).unwrap_err().offset, offset, "{text}");
        }
    }
}
