//! Enhanced status codes (RFC 3463, RFC 2034).

use core::{fmt, str::FromStr};

use super::Severity;

/// An enhanced status code `class.subject.detail` (RFC 3463 section 2): class 2, 4 or 5, subject
/// and detail 0 to 999.
///
/// ```
/// use posthaste_wire::EnhancedCode;
/// let code: EnhancedCode = "5.1.1".parse()?;
/// assert_eq!((code.class(), code.subject(), code.detail()), (5, 1, 1));
/// assert_eq!(code.meaning(), Some("no such mailbox"));
/// assert_eq!(EnhancedCode::split(b"5.1.1 No such user"), Some((code, &b"No such user"[..])));
/// # Ok::<(), posthaste_wire::reply::ParseEnhancedCodeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedCode {
    class: u16,
    subject: u16,
    detail: u16,
}

/// Text that is not an enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseEnhancedCodeError;

impl EnhancedCode {
    /// A code. `None`: a part is out of range.
    pub const fn new(class: u16, subject: u16, detail: u16) -> Option<Self> {
        match (class, subject, detail) {
            (2 | 4 | 5, 0..=999, 0..=999) => Some(Self { class, subject, detail }),
            _ => None,
        }
    }

    /// Parses `class.subject.detail`, the whole text, without leading zeros (RFC 3463 section 2).
    /// `None`: the text is something else.
    pub const fn parse(text: &[u8]) -> Option<Self> {
        match Self::prefix(text) {
            Some((code, [])) => Some(code),
            _ => None,
        }
    }

    /// Splits the text of a reply line into the code at its start and the text after the space. A
    /// code alone counts too. `None`: there is no code.
    pub const fn split(text: &[u8]) -> Option<(Self, &[u8])> {
        match Self::prefix(text) {
            Some((code, [] | [b' '])) => Some((code, &[])),
            Some((code, [b' ', rest @ ..])) => Some((code, rest)),
            _ => None,
        }
    }

    /// The code at the front, and all text after it.
    pub(super) const fn prefix(text: &[u8]) -> Option<(Self, &[u8])> {
        let [class @ (b'2' | b'4' | b'5'), b'.', rest @ ..] = text else { return None };
        let Some((subject, [b'.', rest @ ..])) = number(rest) else { return None };
        let Some((detail, rest)) = number(rest) else { return None };
        Some((Self { class: (*class - b'0') as u16, subject, detail }, rest))
    }

    /// The class: 2, 4 or 5.
    pub const fn class(self) -> u16 {
        self.class
    }

    /// The subject, such as 7 for policy.
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The detail.
    pub const fn detail(self) -> u16 {
        self.detail
    }

    /// The meaning of the class.
    pub const fn severity(self) -> Severity {
        match self.class {
            2 => Severity::Positive,
            4 => Severity::TransientNegative,
            _ => Severity::PermanentNegative,
        }
    }
}

/// One to three digits without a leading zero, and the text after them.
const fn number(text: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = match text {
        [b'0', rest @ ..] => (0, rest),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
            (digit(*a) * 100 + digit(*b) * 10 + digit(*c), rest)
        }
        [a @ b'1'..=b'9', b @ b'0'..=b'9', rest @ ..] => (digit(*a) * 10 + digit(*b), rest),
        [a @ b'1'..=b'9', rest @ ..] => (digit(*a), rest),
        _ => return None,
    };
    match rest {
        [b'0'..=b'9', ..] => None,
        _ => Some((number, rest)),
    }
}

const fn digit(octet: u8) -> u16 {
    (octet - b'0') as u16
}

impl FromStr for EnhancedCode {
    type Err = ParseEnhancedCodeError;

    fn from_str(text: &str) -> Result<Self, ParseEnhancedCodeError> {
        Self::parse(text.as_bytes()).ok_or(ParseEnhancedCodeError)
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Display for ParseEnhancedCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("class.subject.detail was expected, such as 5.1.1")
    }
}

impl core::error::Error for ParseEnhancedCodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_enhanced_code_is_emitted_as_it_was_parsed() {
        for text in ["2.0.0", "4.7.25", "5.10.0", "5.999.999", "2.0.100"] {
            assert_eq!(text.parse::<EnhancedCode>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_enhanced_codes_are_refused() {
        for text in [
            "", "5", "5.", "5.1", "5.1.", "5.1.1.", "5.1.1 ", "5.1.1000", "5.1000.1", "5.01.1", "5.1.01", "5.00.0",
            "05.1.1", "1.1.1", "3.0.0", "6.1.1", "5.-1.1", "5.+1.1", "5..1", "5,1,1", " 5.1.1", "x.y.z",
        ] {
            assert_eq!(text.parse::<EnhancedCode>(), Err(ParseEnhancedCodeError), "{text:?}");
        }
    }

    #[test]
    fn only_a_space_or_the_end_follows_an_enhanced_code() {
        let code = EnhancedCode::new(5, 1, 1).unwrap();
        assert_eq!(EnhancedCode::split(b"5.1.1"), Some((code, &b""[..])));
        assert_eq!(EnhancedCode::split(b"5.1.1 "), Some((code, &b""[..])));
        assert_eq!(EnhancedCode::split(b"5.1.1  x"), Some((code, &b" x"[..])));
        assert_eq!(EnhancedCode::split(b"5.1.1\tx"), None);
        assert_eq!(EnhancedCode::split(b"5.1.1: x"), None);
    }
}
