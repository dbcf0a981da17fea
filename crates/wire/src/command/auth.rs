//! AUTH (RFC 4954).

use core::fmt;

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{class, is, trim_spaces, up_to_space},
    secret::Secret,
};

/// The most octets of a mechanism's name (RFC 4422 section 3.1).
const MAX_MECHANISM: usize = 20;

/// `AUTH mechanism [initial-response]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// The mechanism's name as it came: up to 20 letters, digits, hyphens and underscores (RFC 4422
    /// section 3.1).
    pub mechanism: &'a str,
    /// The initial response as it came: base64, or `=` if it is empty. `None`: the command has
    /// none.
    pub initial_response: Option<Secret<&'a str>>,
}

impl<'a> Auth<'a> {
    pub(super) fn parse(argument: &'a str) -> Result<Self, SyntaxError> {
        let (mechanism, rest) = argument.split_at_checked(up_to_space(argument)).unwrap_or((argument, ""));
        if mechanism.is_empty() {
            return Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0).within(argument));
        }
        let is_name = is(class::LABEL);
        let end = mechanism.bytes().take(MAX_MECHANISM).take_while(|octet| is_name(*octet)).count();
        if end < mechanism.len() {
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, end));
        }
        let response = trim_spaces(rest);
        // Decoding checks the base64. This refuses spaces and control characters, many octets at
        // once because it does not stop early.
        if !response.bytes().fold(true, |visible, octet| visible & octet.is_ascii_graphic()) {
            let wrong = response.bytes().position(|octet| !octet.is_ascii_graphic()).unwrap_or_default();
            return Err(SyntaxError::new(SyntaxErrorKind::Auth, argument.len() - response.len() + wrong));
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
