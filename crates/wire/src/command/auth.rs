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
        let (mechanism, rest) = argument.split_once(' ').unwrap_or((argument, ""));
        if mechanism.is_empty() {
            return Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0).within(argument));
        }
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if let Some(offset) = mechanism.bytes().take(21).enumerate().position(|(at, octet)| at == 20 || !is_name(octet))
        {
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, offset));
        }
        let response = rest.trim_start_matches(' ');
        // Whether it is base64 is seen when it is decoded; a space or a control character has no place in it.
        if let Some(offset) = response.bytes().position(|octet| !octet.is_ascii_graphic()) {
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, argument.len() - response.len() + offset));
        }
        Ok(Self { mechanism, initial_response: (!response.is_empty()).then_some(Secret::new(response)) })
    }

    pub(super) fn emit(self) -> impl fmt::Display {
        Emit(self)
    }
}

/// The one place that writes the response out.
struct Emit<'a>(Auth<'a>);

impl fmt::Display for Emit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.mechanism.chars().try_for_each(|character| f.write_char(character.to_ascii_uppercase()))?;
        match &self.0.initial_response {
            Some(response) => write!(f, " {}", response.expose()),
            None => Ok(()),
        }
    }
}
