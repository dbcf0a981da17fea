//! What message content must not have (RFC 5321 sections 2.3.8 and 4.5.3.1.6).

use core::fmt;

/// An octet or a line that message content must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentFault {
    /// What it is.
    pub kind: FaultKind,
    /// The octet of the content at which it stands, counted from 0 after the removal of stuffed dots.
    pub offset: u64,
}

/// The kinds of fault in message content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that follows no CR.
    BareLf,
    /// A NUL (RFC 2045 sections 2.7 and 2.8).
    Nul,
    /// A line longer than the limit; its first octet beyond that is the one.
    LongLine,
}

impl FaultKind {
    /// In words.
    pub const fn message(self) -> &'static str {
        match self {
            Self::BareCr => "bare CR",
            Self::BareLf => "bare LF",
            Self::Nul => "NUL",
            Self::LongLine => "line too long",
        }
    }
}

impl fmt::Display for ContentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at octet {} of the content", self.kind.message(), self.offset)
    }
}

impl core::error::Error for ContentFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_fault_says_what_and_where() {
        let text = ContentFault { kind: FaultKind::BareLf, offset: 7 }.to_string();
        assert!(text.contains('7') && text.contains("LF"), "{text}");
    }
}
