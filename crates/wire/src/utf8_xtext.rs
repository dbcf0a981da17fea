//! utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 section 3): addresses of the type `utf-8`.

use alloc::{borrow::Cow, string::String};
use core::fmt::{self, Write as _};

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{class, is},
};

/// The address in `ORCPT=utf-8;`, kept as it came: text in which `\x{HEX}` encodes a character.
///
/// The form in ASCII (utf-8-addr-xtext) may go to any server with DSN. The form with other
/// characters (utf-8-addr-unitext) needs SMTPUTF8.
///
/// ```
/// use posthaste_wire::Utf8Xtext;
/// let address = Utf8Xtext::encode("bücher@example.org")?;
/// assert_eq!(address.as_str(), r"b\x{FC}cher@example.org");
/// assert_eq!(address.decode(), "bücher@example.org");
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Utf8Xtext<S = String>(S);

impl<'a> Utf8Xtext<&'a str> {
    /// Parses encoded text in either form.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`] at the first fault:
    /// - a character that must be encoded and is not, or the reverse;
    /// - an encoding with more digits than it needs;
    /// - an encoding of no character, or of a control character: decoded text goes into header
    ///   fields and logs.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let offset = text.len() - rest.len();
            let error = SyntaxError::new(SyntaxErrorKind::ParameterValue, offset);
            rest = match character {
                '\\' => match embedded(rest) {
                    Some((_, rest)) => rest,
                    None if is_start_of_embedded(rest) => {
                        return Err(SyntaxError::cut_off(SyntaxErrorKind::ParameterValue, text.len()));
                    }
                    None => return Err(error),
                },
                _ if is_itself(character) => rest.get(character.len_utf8()..).unwrap_or_default(),
                _ => return Err(error),
            };
        }
        Ok(Self(text))
    }

    /// Decodes as [`Utf8Xtext::decode`]; the result may live as long as the text.
    pub(crate) fn into_decoded(self) -> Cow<'a, str> {
        let mut rest = self.0;
        if !rest.contains('\\') {
            return Cow::Borrowed(rest);
        }
        let mut text = String::with_capacity(rest.len());
        while let Some((plain, encoded)) = rest.split_once('\\') {
            text.push_str(plain);
            let start = rest.get(plain.len()..).unwrap_or_default();
            // `parse` has checked that this encodes a character.
            let (character, behind) = embedded(start).unwrap_or(('\\', encoded));
            text.push(character);
            rest = behind;
        }
        text.push_str(rest);
        Cow::Owned(text)
    }

    /// The owned form.
    pub fn into_owned(self) -> Utf8Xtext {
        Utf8Xtext(self.0.into())
    }
}

impl Utf8Xtext {
    /// Encodes an address as text in ASCII (utf-8-addr-xtext).
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ControlCharacter`] at the first control character.
    pub fn encode(address: &str) -> Result<Self, SyntaxError> {
        let mut text = String::with_capacity(address.len());
        for (offset, character) in address.char_indices() {
            if character.is_control() {
                return Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset));
            }
            if character.is_ascii() && is_itself(character) {
                text.push(character);
            } else {
                // A write to a String cannot fail.
                let _ = write!(text, "\\x{{{:02X}}}", u32::from(character));
            }
        }
        Ok(Self(text))
    }
}

impl<S: AsRef<str>> Utf8Xtext<S> {
    /// The encoded text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Utf8Xtext<&str> {
        Utf8Xtext(self.0.as_ref())
    }

    /// The decoded text. Borrowed if the text has no `\x{`.
    pub fn decode(&self) -> Cow<'_, str> {
        self.borrowed().into_decoded()
    }
}

impl<S: AsRef<str>> fmt::Display for Utf8Xtext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `QUCHAR`.
fn is_itself(character: char) -> bool {
    match u8::try_from(character) {
        Ok(octet) if octet.is_ascii() => is(class::QCHAR)(octet),
        _ => !character.is_control(),
    }
}

/// `EmbeddedUnicodeChar` at the start of the text, and the text after it.
///
/// HEXPOINT has upper-case digits: at least two, and no more than the character needs.
fn embedded(text: &str) -> Option<(char, &str)> {
    let (digits, rest) = text.strip_prefix("\\x{")?.split_once('}')?;
    let is_hexpoint = (2..=6).contains(&digits.len())
        && (digits.len() == 2 || !digits.starts_with('0'))
        && digits.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'A'..=b'F'));
    let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
    // A character in QCHAR must not be encoded.
    let is_needless = character.is_ascii() && is_itself(character);
    (is_hexpoint && !is_needless && !character.is_control()).then_some((character, rest))
}

/// Returns `true` if the text is the start of an `EmbeddedUnicodeChar` and ends within it.
fn is_start_of_embedded(text: &str) -> bool {
    let digits = text.strip_prefix("\\x{").unwrap_or_default();
    // A first digit of 0 makes control characters only. Five digits always make a character.
    let is_hexpoint = match digits.len() {
        1..=5 => !digits.starts_with('0'),
        6 => digits.starts_with("10"),
        _ => false,
    };
    "\\x{".starts_with(text) || is_hexpoint && digits.bytes().all(|o| matches!(o, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_xtext_that_was_encoded_decodes_to_the_same_text() {
        for text in ["plain@example.org", "a+b=c\\d e@example.org", "\u{5f20}@\u{4f8b}.test", "\u{10348}", ""] {
            let encoded = Utf8Xtext::encode(text).unwrap();
            assert!(encoded.as_str().is_ascii() && !encoded.as_str().contains(['+', '=', ' ']));
            assert_eq!(Utf8Xtext::parse(encoded.as_str()).unwrap().decode(), text);
        }
        assert_eq!(Utf8Xtext::encode("a\tb").unwrap_err().offset, 1);
        assert_eq!(Utf8Xtext::parse("\u{fc}\\x{FC}").unwrap().decode(), "\u{fc}\u{fc}");
    }

    #[test]
    fn malformed_utf8_xtext_is_refused_with_its_offset() {
        for (text, offset, cut_off) in [
            ("a+b", 1, false),
            ("a=b", 1, false),
            ("a b", 1, false),
            ("a\\b", 1, false),
            ("\\x{FC", 5, true),
            ("ab\\", 3, true),
            ("\\x{0A}", 0, false),
            ("\\x{41}", 0, false),
            ("\\x{fc}", 0, false),
            ("\\x{00FC}", 0, false),
            ("\\x{C}", 0, false),
            ("\\x{D800}", 0, false),
            ("\\x{110000}", 0, false),
            ("\u{85}", 0, false),
        ] {
            let error = Utf8Xtext::parse(text).unwrap_err();
            assert_eq!((error.offset, error.cut_off), (offset, cut_off), "{text}");
        }
    }
}
