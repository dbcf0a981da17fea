//! The faults of message content (RFC 5321 sections 2.3.8 and 4.5.3.1.6).

use core::fmt;

/// An octet or a line that message content must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentFault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The octet of the content at which the fault is, counted from 0, without stuffed dots.
    pub offset: u64,
}

/// The kinds of fault in message content. Exhaustive: a server has to decide about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that follows no CR.
    BareLf,
    /// A NUL (RFC 2045 sections 2.7 and 2.8).
    Nul,
    /// A line beyond the limit. The offset is that of its first octet beyond.
    LongLine,
}

impl FaultKind {
    /// The fault in words.
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
    fn a_content_fault_says_what_and_where() {
        let text = ContentFault { kind: FaultKind::BareLf, offset: 7 }.to_string();
        assert!(text.contains('7') && text.contains("LF"), "{text}");
    }
}
