//! `BODY=` and `RET=`.

use core::{fmt, str::FromStr};

use super::fault_in;
use crate::{
    error::SyntaxError,
    grammar::{LONG, key, key_of},
};

/// The kind of octets in the content (RFC 6152 section 3, RFC 3030 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyType {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`: any octets, in BDAT chunks only.
    BinaryMime,
}

/// The part of the message that a failure report returns (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// `FULL`: the whole message.
    Full,
    /// `HDRS`: its header only.
    Headers,
}

impl FromStr for BodyType {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match key_of(text) {
            SEVEN_BIT => Ok(Self::SevenBit),
            EIGHT_BIT_MIME => Ok(Self::EightBitMime),
            LONG if text.eq_ignore_ascii_case(Self::BinaryMime.as_str()) => Ok(Self::BinaryMime),
            _ => Err(unknown(text, 0, [Self::SevenBit, Self::EightBitMime, Self::BinaryMime].map(Self::as_str))),
        }
    }
}

impl BodyType {
    /// The keyword of RFC 6152 or RFC 3030.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        }
    }
}

impl FromStr for Ret {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match key_of(text) {
            FULL => Ok(Self::Full),
            HDRS => Ok(Self::Headers),
            _ => Err(unknown(text, 0, [Self::Full, Self::Headers].map(Self::as_str))),
        }
    }
}

impl Ret {
    /// The keyword of RFC 3461.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

const SEVEN_BIT: u64 = key(BodyType::SevenBit.as_str());
const EIGHT_BIT_MIME: u64 = key(BodyType::EightBitMime.as_str());
const FULL: u64 = key(Ret::Full.as_str());
const HDRS: u64 = key(Ret::Headers.as_str());

/// The fault of a value at `offset` that is not one of these words: cut off if it is the start of
/// one.
#[cold]
pub(super) fn unknown(text: &str, at: usize, words: impl IntoIterator<Item = &'static str>) -> SyntaxError {
    let found = text.get(at..).unwrap_or_default();
    let is_start = |word: &'static str| word.get(..found.len()).is_some_and(|start| start.eq_ignore_ascii_case(found));
    fault_in(text, if words.into_iter().any(is_start) { text.len() } else { at })
}

impl fmt::Display for BodyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_or_ret_keyword_with_other_octets_is_refused() {
        for keyword in ["7BIT", "8BITMIME", "BINARYMIME", "FULL", "HDRS"] {
            for other in ["{} ", " {}", "{}    ", "{}\0", "{}=", "{},", "{}\t", ""] {
                let text = other.replace("{}", keyword);
                assert!(text.parse::<BodyType>().is_err(), "{text:?}");
                assert!(text.parse::<Ret>().is_err(), "{text:?}");
            }
        }
    }
}
