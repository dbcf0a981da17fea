//! AUTH (RFC 4954).

use core::fmt;

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    secret::Secret,
};

/// `AUTH mechanism [initial-response]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// The mechanism's name as it came: up to 20 letters, digits, hyphens and underscores (RFC 4422 section 3.1).
    pub mechanism: &'a str,
    /// The initial response as it came, in base64, or `=` for an empty one.
    pub initial_response: Option<Secret<&'a str>>,
}

impl<'a> Auth<'a> {
    pub(super) fn parse(argument: &'a str) -> Result<Self, SyntaxError> {
        let mut words = argument.split(' ').filter(|word| !word.is_empty());
        let mechanism = words.next().ok_or(SyntaxError::new(SyntaxErrorKind::MissingArgument, 0))?;
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if mechanism.len() > 20 || !mechanism.bytes().all(is_name) {
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, 0));
        }
        let initial_response = words.next().map(Secret::new);
        if words.next().is_some() {
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, mechanism.len() + 1));
        }
        Ok(Self { mechanism, initial_response })
    }

    pub(super) fn emit(self) -> impl fmt::Display {
        Emit(self)
    }
}

/// The one place that writes the response out.
struct Emit<'a>(Auth<'a>);

impl fmt::Display for Emit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.mechanism.chars() {
            write!(f, "{}", character.to_ascii_uppercase())?;
        }
        match &self.0.initial_response {
            Some(response) => write!(f, " {}", response.expose()),
            None => Ok(()),
        }
    }
}
