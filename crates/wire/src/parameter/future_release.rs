//! `HOLDFOR=` and `HOLDUNTIL=` (RFC 4865).

use alloc::string::String;
use core::fmt;

use super::{DateTime, fault_in};
use crate::error::SyntaxError;

/// The time for which a server holds a message before delivery (RFC 4865 section 4). A message has
/// at most one of the two parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold<S = String> {
    /// `HOLDFOR=`: for 1 to 999,999,999 seconds.
    For(u32),
    /// `HOLDUNTIL=`: until that time.
    Until(DateTime<S>),
}

impl<'a> Hold<&'a str> {
    /// `future-release-integer`: 1 to 9 digits, no leading zero.
    pub(crate) fn parse_for(text: &'a str) -> Result<Self, SyntaxError> {
        let digits = text.bytes().take(9).take_while(u8::is_ascii_digit).count();
        let wrong = if text.starts_with('0') { 0 } else { digits };
        text.parse().ok().filter(|_| wrong == text.len()).map(Self::For).ok_or(fault_in(text, wrong))
    }

    pub(crate) fn parse_until(text: &'a str) -> Result<Self, SyntaxError> {
        DateTime::parse(text).map(Self::Until)
    }

    /// The owned form.
    pub fn into_owned(self) -> Hold {
        match self {
            Self::For(seconds) => Hold::For(seconds),
            Self::Until(time) => Hold::Until(time.into_owned()),
        }
    }
}

impl<S: AsRef<str>> Hold<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Hold<&str> {
        match self {
            Self::For(seconds) => Hold::For(*seconds),
            Self::Until(time) => Hold::Until(time.borrowed()),
        }
    }
}

/// The whole parameter, with its keyword.
impl<S: AsRef<str>> fmt::Display for Hold<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(seconds) => write!(f, "HOLDFOR={seconds}"),
            Self::Until(time) => write!(f, "HOLDUNTIL={time}"),
        }
    }
}
