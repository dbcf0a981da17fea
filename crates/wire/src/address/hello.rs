//! The name that a client greets with.

use alloc::string::String;
use core::fmt;

use super::{Domain, MAX_DOMAIN};
use crate::error::{SyntaxError, SyntaxErrorKind};

/// The argument of EHLO, HELO or LHLO.
///
/// The grammar wants a domain or an address literal, and [`EhloName::domain`] gives it when it is one. Clients say
/// much else (underscores above all), and RFC 5321 section 4.1.4 forbids refusing mail because a name does not check
/// out, so any 1 to 255 visible characters are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EhloName<S = String>(S);

impl<'a> EhloName<&'a str> {
    /// Takes a name.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::HelloName`] when it is empty, too long, or has a space or a control character in it.
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

impl<S: AsRef<str>> EhloName<S> {
    /// The name as it came.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> EhloName<&str> {
        EhloName(self.0.as_ref())
    }

    /// The name as the grammar wants it, or nothing.
    pub fn domain(&self) -> Option<Domain<&str>> {
        Domain::parse(self.as_str()).ok()
    }
}

impl<S: AsRef<str>> fmt::Display for EhloName<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
