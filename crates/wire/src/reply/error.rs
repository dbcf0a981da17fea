//! The fault in a reply, and its place.

use core::fmt;

/// Octets that are not a reply: what was expected, and where. Do not trust the stream after it.
///
/// An unfinished reply is not an error: see [`ReplyFramer::next`](super::ReplyFramer::next).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyError {
    /// The kind of fault.
    pub kind: ReplyErrorKind,
    /// The line of the reply that has the fault, counted from 0.
    pub line: usize,
    /// The octet of the reply at which the fault is, counted from 0 over all lines.
    pub offset: usize,
}

/// The kinds of fault in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyErrorKind {
    /// The line does not start with a code from 200 to 599 and a space, a hyphen or its end (RFC
    /// 5321 section 4.2).
    Code,
    /// The line has another code than the line before (RFC 5321 section 4.2.1).
    DifferingCodes,
    /// The line ends in LF without CR, or has a bare CR or a NUL (RFC 5321 section 2.3.8).
    LineEnding,
    /// The line is longer than [`ReplyLimits::line`](super::ReplyLimits::line).
    LineTooLong,
    /// The reply has more lines than [`ReplyLimits::lines`](super::ReplyLimits::lines).
    TooManyLines,
    /// The reply is longer than [`ReplyLimits::octets`](super::ReplyLimits::octets).
    TooLong,
}

/// The error of [`ReplyRef::parse`](super::ReplyRef::parse): the octets are not exactly one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseReplyError {
    /// The octets are the beginning of a reply, without a fault so far.
    Incomplete,
    /// Octets follow a whole reply.
    TrailingOctets {
        /// The end of the reply.
        offset: usize,
    },
    /// The octets are not a reply.
    Malformed(ReplyError),
}

impl ReplyErrorKind {
    /// What was expected, in words.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Code => "a code from 200 to 599 and a space, a hyphen or the line's end were expected",
            Self::DifferingCodes => "the same code as on the line before was expected",
            Self::LineEnding => "CRLF was expected, and no CR, LF or NUL elsewhere",
            Self::LineTooLong => "the line is longer than the limit",
            Self::TooManyLines => "the reply has more lines than the limit",
            Self::TooLong => "the reply is longer than the limit",
        }
    }
}

impl From<ReplyError> for ParseReplyError {
    fn from(error: ReplyError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply line {}, octet {}: {}", self.line, self.offset, self.kind.message())
    }
}

impl fmt::Display for ParseReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("the reply is not finished"),
            Self::TrailingOctets { offset } => write!(f, "octets follow the reply, from octet {offset} on"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReplyError {}

impl core::error::Error for ParseReplyError {}
