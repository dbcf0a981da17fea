//! `SOLICIT=` (RFC 3865).

use alloc::string::String;
use core::fmt;

use super::{fault, fault_in};
use crate::error::SyntaxError;

/// The most octets of a list of solicitation class keywords (RFC 3865 section 2.4).
const MAX: usize = 1_000;

/// The classes of solicitation in a message, as the sender declares them: keywords such as
/// `org.example:ADV` (RFC 3865 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Solicitation<S = String>(S);

impl<'a> Solicitation<&'a str> {
    /// Parses `word *("," word)` of at most 1,000 octets. A word is a letter followed by letters,
    /// digits, `.`, `-`, `_`, `:` and `/`.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) at the first
    /// wrong octet.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        if text.len() > MAX {
            return Err(fault(MAX));
        }
        let mut first = true;
        for (at, octet) in text.bytes().enumerate() {
            match octet {
                b'A'..=b'Z' | b'a'..=b'z' => first = false,
                b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'/' if !first => {}
                b',' if !first => first = true,
                _ => return Err(fault(at)),
            }
        }
        if first { Err(fault_in(text, text.len())) } else { Ok(Self(text)) }
    }

    /// The owned form.
    pub fn into_owned(self) -> Solicitation {
        Solicitation(self.0.into())
    }
}

impl<S: AsRef<str>> Solicitation<S> {
    /// The text as it came.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Solicitation<&str> {
        Solicitation(self.0.as_ref())
    }

    /// The class keywords.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.as_str().split(',')
    }
}

impl<S: AsRef<str>> fmt::Display for Solicitation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
