//! xtext (RFC 3461 section 4): printable ASCII in which `+XX` encodes an octet.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{all, class, count},
};

/// Text in the xtext encoding, kept as it came. [`Xtext::decode`] decodes it.
///
/// ```
/// use posthaste_wire::Xtext;
/// let id = Xtext::parse("QQ314159+2B7")?;
/// assert_eq!(&*id.decode(), b"QQ314159+7");
/// assert!(Xtext::parse("a+0Db").is_err(), "an encoded control character is refused");
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xtext<S = String>(S);

impl<'a> Xtext<&'a str> {
    /// Parses encoded text.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`] at the first octet that is not xtext or encodes a
    /// control character: decoded text goes into header fields and logs.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let octets = text.as_bytes();
        let mut rest = octets;
        loop {
            while let Some((four, behind)) = rest.split_first_chunk()
                && all(*four, class::XCHAR)
            {
                rest = behind;
            }
            rest = match rest.get(count(rest, class::XCHAR)..).unwrap_or_default() {
                [] => return Ok(Self(text)),
                [b'+', high, low, rest @ ..]
                    if hex_pair(*high, *low).is_some_and(|octet| !octet.is_ascii_control()) =>
                {
                    rest
                }
                wrong => {
                    // A first digit of 0 or 1 makes a control character.
                    let cut_off = matches!(wrong, [b'+'] | [b'+', b'2'..=b'9' | b'A'..=b'F']);
                    let offset = octets.len() - if cut_off { 0 } else { wrong.len() };
                    return Err(SyntaxError { cut_off, ..SyntaxError::new(SyntaxErrorKind::ParameterValue, offset) });
                }
            }
        }
    }

    /// Decodes as [`Xtext::decode`]; the result may live as long as the text.
    pub(crate) fn into_decoded(self) -> Cow<'a, [u8]> {
        let mut rest = self.0.as_bytes();
        if !rest.contains(&b'+') {
            return Cow::Borrowed(rest);
        }
        let mut octets = Vec::with_capacity(rest.len());
        loop {
            rest = match rest {
                [] => return Cow::Owned(octets),
                // `parse` has checked that two digits follow each plus.
                [b'+', high, low, rest @ ..] => {
                    octets.extend(hex_pair(*high, *low));
                    rest
                }
                [octet, rest @ ..] => {
                    octets.push(*octet);
                    rest
                }
            }
        }
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

    /// The decoded octets. Borrowed if the text has no `+`.
    pub fn decode(&self) -> Cow<'_, [u8]> {
        self.borrowed().into_decoded()
    }
}

impl<S: AsRef<str>> fmt::Display for Xtext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Two upper-case hexadecimal digits (RFC 3461 section 4: hexchar).
fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_that_was_encoded_decodes_to_the_same_octets() {
        for octets in [&b"plain"[..], b"a+b=c d", "\u{fc}".as_bytes(), b""] {
            let text = Xtext::encode(octets).unwrap();
            assert_eq!(*Xtext::parse(text.as_str()).unwrap().decode(), *octets);
        }
    }

    #[test]
    fn malformed_xtext_is_refused_with_its_offset() {
        for (text, offset) in
            [("a=b", 1), ("a+b", 1), ("+zz", 0), ("+0A", 0), ("+00", 0), ("ab+2", 4), ("a b", 1), ("\u{e9}", 0)]
        {
            assert_eq!(Xtext::parse(text).unwrap_err().offset, offset, "{text}");
        }
    }
}
