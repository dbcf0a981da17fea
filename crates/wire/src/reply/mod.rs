//! Replies (RFC 5321 section 4.2). Received and built replies have the same form: their octets.

mod code;
mod decision;
mod enhanced;
mod error;
mod framer;
mod odd;
mod registry;

use alloc::{string::String, vec::Vec};
use core::fmt::{self, Write as _};

use bytes::Bytes;
use memchr::memchr;

pub use code::{ReplyCode, Severity};
#[doc(hidden)]
pub use decision::{__accepted, __code, __fixed, __format, __refusal};
pub use decision::{Accepted, Refusal, WrongSeverity};
pub use enhanced::{EnhancedCode, ParseEnhancedCodeError};
pub use error::{ParseReplyError, ReplyError, ReplyErrorKind};
pub use framer::{ReplyFramer, ReplyLimits};

/// The most octets of a reply line that this crate emits, with CRLF (RFC 5321 section 4.5.3.1.5).
pub const MAX_REPLY_LINE: usize = 512;
/// The most lines of a reply that this crate builds: 32 of 512 octets keep a reply within 16 KiB.
pub const MAX_REPLY_LINES: usize = 32;

/// Cuts a text into pieces of at most `most` octets, at least one. `most` is 4 or more.
fn pieces(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest.take()?;
        let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end))?;
        let (piece, more) = text.split_at_checked(end)?;
        rest = (!more.is_empty()).then_some(more);
        Some(piece)
    })
}

/// A reply that borrows its octets: lines with one code, each ending in CRLF.
///
/// A reply of a [tolerant](ReplyFramer::tolerant) framer may be less than
/// [well formed](Self::is_well_formed).
///
/// ```
/// use posthaste_wire::ReplyRef;
/// let reply = ReplyRef::parse(b"550-5.1.1 No such user\r\n550 5.1.1 here\r\n")?;
/// assert_eq!(reply.code().get(), 550);
/// assert_eq!(reply.enhanced().unwrap().to_string(), "5.1.1");
/// assert_eq!(reply.text(), "No such user here");
/// # Ok::<(), posthaste_wire::reply::ParseReplyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyRef<'a> {
    octets: &'a [u8],
    code: ReplyCode,
    form: Form,
}

/// How well a reply is formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// Well formed.
    Whole,
    /// Not well formed, but its end is known.
    Odd,
    /// Not well formed, and its end is unknown.
    Cut,
}

impl<'a> ReplyRef<'a> {
    /// Parses the octets of exactly one whole reply, within the default [`ReplyLimits`]. Use
    /// [`ReplyFramer`] for a stream.
    ///
    /// # Errors
    /// [`ParseReplyError`], which distinguishes unfinished replies from malformed ones.
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseReplyError> {
        match ReplyFramer::new(ReplyLimits::default()).next(octets)? {
            Some(reply) if reply.octets.len() == octets.len() => Ok(reply),
            Some(reply) => Err(ParseReplyError::TrailingOctets { offset: reply.octets.len() }),
            None => Err(ParseReplyError::Incomplete),
        }
    }

    /// The code.
    pub const fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced status code of the first line (RFC 2034). `None`: it has none, or one of
    /// another class than the code.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        // This needs no search for the line's end: CR follows a code alone.
        match EnhancedCode::prefix(self.octets.get(4..)?) {
            Some((enhanced, [b' ' | b'\r' | b'\n', ..])) if enhanced.class() == self.code.class() => Some(enhanced),
            _ => None,
        }
    }

    /// The text of the lines as octets. It includes the enhanced code, but not the reply code,
    /// separator and CRLF.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Lines { rest: self.octets }
    }

    /// The whole text on one line for people, without enhanced codes. Undecodable octets and
    /// control characters are replaced.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            let rest = match EnhancedCode::split(line) {
                Some((enhanced, rest)) if enhanced.class() == self.code.class() => rest,
                _ => line,
            };
            if !text.is_empty() {
                text.push(' ');
            }
            text.extend(String::from_utf8_lossy(rest).chars().map(|c| if c.is_control() { '?' } else { c }));
        }
        text
    }

    /// The octets, as they came.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.octets
    }

    /// Returns `true` if the reply follows RFC 5321 section 4.2.
    ///
    /// Otherwise only its code is certain: that of its last line, or of its first if it is
    /// [cut](Self::is_cut). Send no other message over the connection after such a reply.
    pub const fn is_well_formed(&self) -> bool {
        matches!(self.form, Form::Whole)
    }

    /// Returns `true` if the end of the reply is unknown. The octets after it cannot be read then.
    pub const fn is_cut(&self) -> bool {
        matches!(self.form, Form::Cut)
    }

    /// The owned form: the same octets. A reply that is not well formed becomes a well-formed one
    /// with its code and text.
    pub fn into_owned(self) -> Reply {
        match self.form {
            Form::Whole => Reply { octets: Bytes::copy_from_slice(self.octets), code: self.code },
            Form::Odd | Form::Cut => odd::normalized(self.octets, self.code),
        }
    }
}

/// The text of lines that start with a code and end in CRLF, or in an odd reply in LF.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // A line without an end is the last line of a reply that was cut.
        let end = memchr(b'\n', self.rest).map_or(self.rest.len(), |lf| lf + 1);
        let (line, rest) = self.rest.split_at_checked(end).filter(|(line, _)| !line.is_empty())?;
        self.rest = rest;
        // A line without a separator has no text.
        Some(match line.get(4..).unwrap_or_default() {
            [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] | text => text,
        })
    }
}

/// A reply that owns its octets, cheap to clone. It holds the octets on the wire, built or
/// received.
///
/// ```
/// use posthaste_wire::{EnhancedCode, Reply, ReplyCode};
/// let reply = Reply::new(ReplyCode::MAILBOX_UNAVAILABLE, EnhancedCode::new(5, 1, 1), "No such user\r\n250 here");
/// assert_eq!(reply.as_bytes(), b"550-5.1.1 No such user?\r\n550 5.1.1 250 here\r\n");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    octets: Bytes,
    code: ReplyCode,
}

impl Reply {
    /// Builds one well-formed reply from any text.
    ///
    /// A line feed in the text starts a new line. Another control character becomes `?`. A line
    /// beyond 512 octets continues on the next line. The reply is cut after 32 lines.
    pub fn new(code: ReplyCode, enhanced: Option<EnhancedCode>, text: &str) -> Self {
        let mut start = alloc::format!("{code}-");
        if let Some(enhanced) = enhanced {
            // A write to a String cannot fail.
            let _ = write!(start, "{enhanced} ");
        }
        let room = MAX_REPLY_LINE - "\r\n".len() - start.len();
        let mut octets = Vec::with_capacity(start.len() + text.len() + "\r\n".len());
        let mut last_line = 0;
        let lines = text.split('\n').flat_map(|paragraph| pieces(paragraph, room));
        for line in lines.take(MAX_REPLY_LINES) {
            last_line = octets.len();
            octets.extend_from_slice(start.as_bytes());
            for (index, part) in line.split(char::is_control).enumerate() {
                octets.extend_from_slice(if index > 0 { b"?" } else { b"" });
                octets.extend_from_slice(part.as_bytes());
            }
            octets.extend_from_slice(b"\r\n");
        }
        if let Some(separator) = octets.get_mut(last_line + "250".len()) {
            *separator = b' ';
        }
        Self { octets: octets.into(), code }
    }

    /// A fixed reply of one line with its CRLF, such as `"250 2.0.0 OK\r\n"`. Meant for constants;
    /// [`reply!`](crate::reply!) adds the CRLF.
    ///
    /// # Panics
    /// When the text is not one well-formed reply line. In a `const` that is a compile error.
    #[must_use]
    pub const fn from_static(line: &'static str) -> Self {
        let octets = line.as_bytes();
        assert!(octets.len() >= 6 && octets[3] == b' ', "a reply begins with its code and a blank: `250 2.0.0 OK`");
        assert!(octets.len() <= MAX_REPLY_LINE, "a reply line has 512 octets at most");
        assert!(octets[octets.len() - 2] == b'\r' && octets[octets.len() - 1] == b'\n', "the line ends in CRLF");
        let mut at = 0;
        while at + 2 < octets.len() {
            assert!(
                octets[at] >= b' ' && octets[at] <= b'~',
                "a fixed reply is one line of printable ASCII; the macros add its CRLF"
            );
            at += 1;
        }
        let Some(code) = ReplyCode::from_digits([octets[0], octets[1], octets[2]]) else {
            panic!("a reply begins with a code of three digits, from 200 to 599")
        };
        Self { octets: Bytes::from_static(octets), code }
    }

    /// The code.
    pub const fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced status code of the first line (RFC 2034). `None`: it has none, or one of
    /// another class than the code.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.borrowed().enhanced()
    }

    /// The octets, with a CRLF after each line.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The same with `?` for each octet that is not ASCII: a client that has not asked for SMTPUTF8
    /// must not get others (RFC 6531 section 3.7.4).
    #[must_use]
    pub fn into_ascii(self) -> Self {
        if self.octets.is_ascii() {
            return self;
        }
        let octets = self.octets.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }).collect();
        Self { octets, code: self.code }
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> ReplyRef<'_> {
        ReplyRef { octets: &self.octets, code: self.code, form: Form::Whole }
    }
}

impl fmt::Debug for ReplyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({:?})", String::from_utf8_lossy(self.octets))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}

/// For logs and reports: code, enhanced code and text on one line, free of control characters.
impl fmt::Display for ReplyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced() {
            write!(f, " {enhanced}")?;
        }
        match self.text() {
            text if text.is_empty() => Ok(()),
            text => write!(f, " {text}"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn any_text_makes_one_well_formed_reply() {
        for text in
            ["", "one", "one\ntwo", "a\r\nb\0c", &"x".repeat(5_000), &"\u{20ac}".repeat(700), &"l\n".repeat(500)]
        {
            let reply = Reply::new(ReplyCode::OK, EnhancedCode::new(2, 0, 0), text);
            let parsed = ReplyRef::parse(reply.as_bytes()).unwrap();
            assert_eq!(parsed.code(), ReplyCode::OK);
            assert!(parsed.as_bytes().split(|octet| *octet == b'\n').all(|line| line.len() < MAX_REPLY_LINE));
        }
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = ReplyRef::parse(b"250 5.1.1 odd\r\n").unwrap();
        assert_eq!(reply.enhanced(), None);
        let reply = ReplyRef::parse(b"550 5.7.999\r\n").unwrap();
        assert_eq!(reply.enhanced().unwrap().to_string(), "5.7.999");
        assert_eq!(reply.to_string(), "550 5.7.999");
    }
}
