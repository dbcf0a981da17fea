//! The name that a client greets with.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use super::{Domain, MAX_DOMAIN};
use crate::error::{SyntaxError, SyntaxErrorKind};

/// The name that a client gives in EHLO, HELO or LHLO.
///
/// Any 1 to 255 octets of visible characters are a name. The grammar allows a domain or an address
/// literal, which [`EhloName::domain`] gives. Clients send other names too, and RFC 5321 section
/// 4.1.4 forbids a server to refuse mail for them. [`EhloName::lossy`] makes a name of any other
/// argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EhloName<S = String>(S);

impl<'a> EhloName<&'a str> {
    /// Parses a name, the whole text.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::HelloName`] if it is empty, too long, or has a space or a control
    /// character.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        if text.is_empty() {
            return Err(SyntaxError::cut_off(SyntaxErrorKind::HelloName, 0));
        }
        if text.len() > MAX_DOMAIN {
            return Err(SyntaxError::new(SyntaxErrorKind::HelloName, MAX_DOMAIN));
        }
        let fault = if text.is_ascii() {
            text.bytes().position(|octet| !octet.is_ascii_graphic())
        } else {
            text.char_indices().find(|(_, c)| c.is_control() || c.is_whitespace()).map(|(offset, _)| offset)
        };
        match fault {
            Some(offset) => Err(SyntaxError::new(SyntaxErrorKind::HelloName, offset)),
            None => Ok(Self(text)),
        }
    }

    /// The owned form.
    pub fn into_owned(self) -> EhloName {
        EhloName(self.0.into())
    }
}

impl EhloName {
    /// Makes a name of any argument, as old clients send them.
    ///
    /// The argument is read as UTF-8, otherwise as ISO 8859-1. Spaces and tabs at its ends are
    /// dropped. `?` replaces each other blank, each control character outside ASCII, and an empty
    /// argument. The name is cut to 255 octets.
    ///
    /// ```
    /// use posthaste_wire::EhloName;
    /// assert_eq!(EhloName::lossy(b"Ren\xe9s PC")?.as_str(), "Renés?PC");
    /// assert_eq!(EhloName::lossy(b"")?.as_str(), "?");
    /// # Ok::<(), posthaste_wire::SyntaxError>(())
    /// ```
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ControlCharacter`] at the first control character of ASCII other than a
    /// tab.
    pub fn lossy(argument: &[u8]) -> Result<Self, SyntaxError> {
        if let Some(offset) = argument.iter().position(|octet| octet.is_ascii_control() && *octet != b'\t') {
            return Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset));
        }
        let decoded: Cow<'_, str> = match core::str::from_utf8(argument) {
            Ok(text) => text.into(),
            Err(_) => argument.iter().copied().map(char::from).collect::<String>().into(),
        };
        let mut name = String::new();
        for character in decoded.trim_matches([' ', '\t']).chars() {
            let character = if character.is_control() || character.is_whitespace() { '?' } else { character };
            if name.len() + character.len_utf8() > MAX_DOMAIN {
                break;
            }
            name.push(character);
        }
        if name.is_empty() {
            name.push('?');
        }
        Ok(Self(name))
    }
}

impl From<EhloName<Cow<'_, str>>> for EhloName {
    fn from(name: EhloName<Cow<'_, str>>) -> Self {
        Self(name.0.into_owned())
    }
}

impl<'a> From<EhloName<&'a str>> for EhloName<Cow<'a, str>> {
    fn from(name: EhloName<&'a str>) -> Self {
        Self(Cow::Borrowed(name.0))
    }
}

impl From<EhloName> for EhloName<Cow<'_, str>> {
    fn from(name: EhloName) -> Self {
        Self(Cow::Owned(name.0))
    }
}

/// Every domain is a name to greet with.
impl From<Domain> for EhloName {
    fn from(domain: Domain) -> Self {
        Self(domain.as_str().into())
    }
}

impl<S: AsRef<str>> EhloName<S> {
    /// The name as it came.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> EhloName<&str> {
        EhloName(self.0.as_ref())
    }

    /// The name as the grammar allows it. `None`: it is neither a domain nor an address literal.
    pub fn domain(&self) -> Option<Domain<&str>> {
        Domain::parse(self.as_str()).ok()
    }
}

impl<S: AsRef<str>> fmt::Display for EhloName<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lossy_name_of_any_argument_breaks_no_line() {
        for (argument, expected) in [
            (&b"client.test"[..], "client.test"),
            (b"", "?"),
            (b"   ", "?"),
            (b" my pc ", "my?pc"),
            (b"my\tpc", "my?pc"),
            (b"caf\xe9.test", "caf\u{e9}.test"),
            (b"Ren\x92s-PC", "Ren?s-PC"),
            (b"a\xa0b", "a?b"),
            ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
            ("a\u{2028}b\u{85}c".as_bytes(), "a?b?c"),
            (b"[bracket", "[bracket"),
            (b"under_score.", "under_score."),
            (&[b'a'; 300], &"a".repeat(255)),
            (&[0xe9; 300], &"\u{e9}".repeat(127)),
        ] {
            let name = EhloName::lossy(argument).unwrap();
            assert_eq!(name.as_str(), expected, "{}", argument.escape_ascii());
            assert_eq!(EhloName::parse(expected).map(EhloName::into_owned), Ok(name));
        }
        for wrong in [&b"a\rb"[..], b"a\nb", b"\0", b"a\x1b[2J", b"\x7f", b"\xe9\r"] {
            assert_eq!(EhloName::lossy(wrong).unwrap_err().kind, SyntaxErrorKind::ControlCharacter);
        }
    }
}
