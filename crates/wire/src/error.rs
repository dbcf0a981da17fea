//! The fault in a line, its place, and its reply.

use core::fmt;

use crate::reply::Reply;

/// A line that the grammar refuses: what it expected, and at which octet.
///
/// [`SyntaxError::reply`] is the reply that the RFCs ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyntaxError {
    /// The kind of fault.
    pub kind: SyntaxErrorKind,
    /// The octet of the text at which the fault is, counted from 0.
    pub offset: usize,
    /// `true`: the text ends too early. It has no wrong octet, and a longer text could be right.
    pub cut_off: bool,
    /// `true`: the fault is in a reverse-path, so its reply has 5.1.7 in place of 5.1.3 (RFC 3463
    /// section 3.2).
    pub of_sender: bool,
}

/// The kinds of syntax error, each with its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyntaxErrorKind {
    /// The line does not start with a verb (RFC 5321 section 4.1.1).
    Verb,
    /// The line is not UTF-8, or has a control character such as NUL, CR or LF.
    ControlCharacter,
    /// The command needs an argument and has none.
    MissingArgument,
    /// The command takes no argument and has one.
    UnexpectedArgument,
    /// `FROM:` after MAIL or `TO:` after RCPT is missing (RFC 5321 sections 4.1.1.2, 4.1.1.3).
    PathKeyword,
    /// The path is not `<mailbox>`, `<>` or `<Postmaster>` (RFC 5321 section 4.1.2).
    Path,
    /// The mailbox is malformed or beyond the limits of RFC 5321 section 4.5.3.1.
    Mailbox,
    /// The domain of a mailbox is malformed.
    Domain,
    /// The reverse-path is not ASCII, and MAIL has no SMTPUTF8 (RFC 6531 section 3.5).
    ReversePathNotAscii,
    /// The forward-path is not ASCII, and MAIL had no SMTPUTF8 (RFC 6531 section 3.5).
    /// [`Rcpt::parse`](crate::Rcpt::parse) does not know MAIL, so only a session finds it.
    ForwardPathNotAscii,
    /// The argument of EHLO, HELO or LHLO is not a name (RFC 5321 section 4.1.1.1).
    HelloName,
    /// A parameter is not `keyword[=value]` (RFC 5321 section 4.1.2).
    Parameter,
    /// A known parameter has a value outside its grammar, or lacks one that it needs.
    ParameterValue,
    /// A known parameter comes twice, or two contradict each other.
    DuplicateParameter,
    /// A number has octets that are not digits, or is beyond 64 bits.
    Number,
    /// The mechanism name or initial response of AUTH is malformed (RFC 4954 section 4).
    Auth,
    /// The argument of BURL is not `URL [LAST]` (RFC 4468 section 3.2).
    Url,
    /// The argument of ETRN is not `[@|#]name` (RFC 1985 section 5).
    Node,
    /// An attribute of XCLIENT or XFORWARD is not `name=value`.
    Attribute,
}

impl SyntaxErrorKind {
    /// What the grammar expected, in words.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Verb => "a command was expected",
            Self::ControlCharacter => "control or non-UTF-8 octet in a command",
            Self::MissingArgument => "an argument is needed",
            Self::UnexpectedArgument => "no argument is allowed",
            Self::PathKeyword => "FROM:<path> or TO:<path> was expected",
            Self::Path => "a path in angle brackets was expected",
            Self::Mailbox => "the mailbox is malformed or too long",
            Self::Domain => "the domain is malformed",
            Self::ReversePathNotAscii | Self::ForwardPathNotAscii => "a non-ASCII address needs SMTPUTF8",
            Self::HelloName => "a host name or address literal was expected",
            Self::Parameter => "keyword=value was expected",
            Self::ParameterValue => "the parameter's value is malformed",
            Self::DuplicateParameter => "the parameter comes twice or contradicts another",
            Self::Number => "a number within 64 bits was expected",
            Self::Auth => "a mechanism and an optional base64 response were expected",
            Self::Url => "a URL and an optional LAST were expected",
            Self::Node => "a host name, @domain or #queue was expected",
            Self::Attribute => "name=value was expected, the value in xtext",
        }
    }
}

impl SyntaxError {
    /// An error at that octet. The text does not end there.
    pub const fn new(kind: SyntaxErrorKind, offset: usize) -> Self {
        Self { kind, offset, cut_off: false, of_sender: false }
    }

    /// An error because the text ends at that octet.
    pub(crate) const fn cut_off(kind: SyntaxErrorKind, offset: usize) -> Self {
        Self { cut_off: true, ..Self::new(kind, offset) }
    }

    /// Turns the error of a path into that of a reverse-path.
    pub(crate) fn of_sender(self) -> Self {
        Self { of_sender: true, ..self }
    }

    /// Turns the error of a part into that of `text`: a part that ends before the text is wrong.
    pub(crate) fn within(self, text: &str) -> Self {
        Self { cut_off: self.cut_off && self.offset >= text.len(), ..self }
    }

    /// Turns the error of a part that starts at `base` into that of the whole line.
    pub(crate) fn at(self, base: usize) -> Self {
        Self { offset: self.offset.saturating_add(base), ..self }
    }

    /// The reply that RFC 5321 section 4.2, RFC 3463 and RFC 6531 ask for.
    pub fn reply(&self) -> Reply {
        use SyntaxErrorKind as K;
        match self.kind {
            K::Verb => Reply::from_static("500 5.5.2 Command not recognized\r\n"),
            K::ControlCharacter => Reply::from_static("500 5.5.2 Control or non-UTF-8 octet in a command\r\n"),
            K::MissingArgument => Reply::from_static("501 5.5.4 An argument is needed\r\n"),
            K::UnexpectedArgument => Reply::from_static("501 5.5.4 No argument is allowed\r\n"),
            K::PathKeyword => Reply::from_static("501 5.5.4 FROM:<path> or TO:<path> was expected\r\n"),
            K::Path if self.of_sender => Reply::from_static("501 5.1.7 A path in angle brackets was expected\r\n"),
            K::Mailbox if self.of_sender => Reply::from_static("501 5.1.7 The mailbox is malformed or too long\r\n"),
            K::Domain if self.of_sender => Reply::from_static("501 5.1.7 The domain is malformed\r\n"),
            K::Path => Reply::from_static("501 5.1.3 A path in angle brackets was expected\r\n"),
            K::Mailbox => Reply::from_static("501 5.1.3 The mailbox is malformed or too long\r\n"),
            K::Domain => Reply::from_static("501 5.1.3 The domain is malformed\r\n"),
            K::ReversePathNotAscii => Reply::from_static("550 5.6.7 A non-ASCII address needs SMTPUTF8\r\n"),
            K::ForwardPathNotAscii => Reply::from_static("553 5.6.7 A non-ASCII address needs SMTPUTF8\r\n"),
            K::HelloName => Reply::from_static("501 5.5.4 A host name or address literal was expected\r\n"),
            K::Parameter => Reply::from_static("501 5.5.4 keyword=value was expected\r\n"),
            K::ParameterValue => Reply::from_static("501 5.5.4 The parameter's value is malformed\r\n"),
            K::DuplicateParameter => {
                Reply::from_static("501 5.5.4 The parameter comes twice or contradicts another\r\n")
            }
            K::Number => Reply::from_static("501 5.5.4 A number within 64 bits was expected\r\n"),
            K::Auth => Reply::from_static("501 5.5.4 AUTH mechanism [base64] was expected\r\n"),
            K::Url => Reply::from_static("501 5.5.4 A URL and an optional LAST were expected\r\n"),
            K::Node => Reply::from_static("501 5.5.4 A host name, @domain or #queue was expected\r\n"),
            K::Attribute => Reply::from_static("501 5.5.4 name=value was expected, the value in xtext\r\n"),
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "octet {}: {}", self.offset, self.kind.message())
    }
}

impl core::error::Error for SyntaxError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_syntax_error_says_what_was_expected_and_where() {
        let error = SyntaxError::new(SyntaxErrorKind::Mailbox, 17);
        assert_eq!(error.to_string(), "octet 17: the mailbox is malformed or too long");
    }
}
