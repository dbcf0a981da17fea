//! utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 section 3): addresses of the type `utf-8`.

use alloc::{borrow::Cow, string::String};
use core::fmt::{self, Write as _};

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{class, is},
};

/// An address as `ORCPT=utf-8;` has it, kept as it came: text in which `\x{HEX}` stands for a character.
///
/// The form of ASCII alone (utf-8-addr-xtext) may go to any server with DSN, the one with other characters
/// (utf-8-addr-unitext) only where SMTPUTF8 is in use.
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
    /// Takes text in either form.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`] at the first character that must be encoded and is not, or that is encoded
    /// and no character, in more digits than it needs, or a control character: what is decoded goes into header
    /// fields and logs.
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

    /// As [`Utf8Xtext::decode`], for as long as the text itself lives.
    pub(crate) fn into_decoded(self) -> Cow<'a, str> {
        let mut rest = self.0;
        if !rest.contains('\\') {
            return Cow::Borrowed(rest);
        }
        let mut text = String::with_capacity(rest.len());
        while let Some((plain, encoded)) = rest.split_once('\\') {
            text.push_str(plain);
            let start = rest.get(plain.len()..).unwrap_or_default();
            // The constructor has seen that a character is encoded there.
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
    /// Encodes an address in ASCII (utf-8-addr-xtext).
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
                // Writing to a String does not fail.
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

    /// The text that it stands for; its own when nothing in it is encoded.
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

/// `EmbeddedUnicodeChar` at the start of the text and what follows it.
///
/// HEXPOINT has upper-case digits, two at least, and none more than the character needs.
fn embedded(text: &str) -> Option<(char, &str)> {
    let (digits, rest) = text.strip_prefix("\\x{")?.split_once('}')?;
    let is_hexpoint = (2..=6).contains(&digits.len())
        && (digits.len() == 2 || !digits.starts_with('0'))
        && digits.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'A'..=b'F'));
    let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
    // What is in QCHAR is not in HEXPOINT.
    let is_needless = character.is_ascii() && is_itself(character);
    (is_hexpoint && !is_needless && !character.is_control()).then_some((character, rest))
}

/// Whether the text is the start of an `EmbeddedUnicodeChar` and ends within it.
fn is_start_of_embedded(text: &str) -> bool {
    let digits = text.strip_prefix("\\x{").unwrap_or_default();
    // Behind a zero come control characters only; five digits are a character whatever they are.
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
    fn encode_then_decode_is_the_identity() {
        for text in ["plain@example.org", "a+b=c\\d e@example.org", "\u{5f20}@\u{4f8b}.test", "\u{10348}", ""] {
            let encoded = Utf8Xtext::encode(text).unwrap();
            assert!(encoded.as_str().is_ascii() && !encoded.as_str().contains(['+', '=', ' ']));
            assert_eq!(Utf8Xtext::parse(encoded.as_str()).unwrap().decode(), text);
        }
        assert_eq!(Utf8Xtext::encode("a\tb").unwrap_err().offset, 1);
        assert_eq!(Utf8Xtext::parse("\u{fc}\\x{FC}").unwrap().decode(), "\u{fc}\u{fc}");
    }

    #[test]
    fn what_is_neither_form_is_refused_where_it_stands() {
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
