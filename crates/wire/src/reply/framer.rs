//! Finding the end of a reply in a stream.

use core::fmt;

use memchr::memchr;

use super::{ReplyCode, ReplyRef};

/// Finds where a reply ends and checks its lines as they come.
///
/// It keeps no octets: the caller shows the unconsumed ones again, from the front. It remembers how far it has looked,
/// so a reply that comes one octet at a time costs linear time.
#[derive(Debug, Clone)]
pub struct ReplyFramer {
    limits: ReplyLimits,
    /// Octets of whole lines that were checked.
    checked: usize,
    /// Octets that were searched for a line end.
    searched: usize,
    lines: usize,
    code: Option<ReplyCode>,
}

/// How much a peer may say in one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets of a line with CRLF. Default 2,048: four times what RFC 5321 section 4.5.3.1.5 allows.
    pub line: usize,
    /// Lines. Default 128.
    pub lines: usize,
    /// Octets of the whole reply. Default 16 KiB.
    pub octets: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { line: 2_048, lines: 128, octets: 16 * 1_024 }
    }
}

/// Octets that are no reply. The stream cannot be trusted after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// The reply is not finished. Only [`ReplyRef::parse`] says so; for a stream it is no error.
    Incomplete,
    /// Something follows the reply. Only [`ReplyRef::parse`] says so.
    TrailingOctets,
    /// A line does not start with a code from 200 to 599 and a space, a hyphen or its end.
    Code,
    /// The lines have different codes (RFC 5321 section 4.2.1).
    DifferingCodes,
    /// A line ends in LF without CR, or has a bare CR or a NUL in it.
    LineEnding,
    /// More than a limit of [`ReplyLimits`].
    TooLong,
}

impl ReplyFramer {
    /// A framer at the start of a reply.
    pub const fn new(limits: ReplyLimits) -> Self {
        Self { limits, checked: 0, searched: 0, lines: 0, code: None }
    }

    /// The reply at the front of `input`, once it is whole; the framer then stands at the start of the next one.
    ///
    /// `input` starts where the reply starts, and has what earlier calls have seen.
    ///
    /// # Errors
    /// [`ReplyError`] at the first line that is none.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<ReplyRef<'a>>, ReplyError> {
        while let Some(found) = memchr(b'\n', input.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + found + 1;
            let line = input.get(self.checked..end).unwrap_or_default();
            let (code, last) = self.check(line)?;
            self.checked = end;
            self.searched = end;
            if end > self.limits.octets {
                return Err(ReplyError::TooLong);
            }
            if last {
                *self = Self::new(self.limits);
                let octets = input.get(..end).unwrap_or_default();
                return Ok(Some(ReplyRef { octets, code }));
            }
        }
        self.searched = input.len();
        // The unfinished line counts too, or a peer could send it for ever.
        if input.len() - self.checked > self.limits.line || input.len() > self.limits.octets {
            return Err(ReplyError::TooLong);
        }
        Ok(None)
    }

    fn check(&mut self, line: &[u8]) -> Result<(ReplyCode, bool), ReplyError> {
        self.lines += 1;
        if line.len() > self.limits.line || self.lines > self.limits.lines {
            return Err(ReplyError::TooLong);
        }
        let text = line.strip_suffix(b"\r\n").ok_or(ReplyError::LineEnding)?;
        if text.iter().any(|octet| matches!(octet, b'\r' | 0)) {
            return Err(ReplyError::LineEnding);
        }
        let (digits, rest) = text.split_first_chunk::<3>().ok_or(ReplyError::Code)?;
        let code = ReplyCode::from_digits(*digits).ok_or(ReplyError::Code)?;
        let last = match rest.first() {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::Code),
        };
        match self.code.replace(code) {
            Some(earlier) if earlier != code => Err(ReplyError::DifferingCodes),
            _ => Ok((code, last)),
        }
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "the reply is not finished",
            Self::TrailingOctets => "something follows the reply",
            Self::Code => "a reply line does not start with a code from 200 to 599",
            Self::DifferingCodes => "the lines of a reply have different codes",
            Self::LineEnding => "a reply line does not end in CRLF, or has CR or NUL in it",
            Self::TooLong => "the reply is longer than the limit",
        })
    }
}

impl core::error::Error for ReplyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_octet_at_a_time_gives_the_same_replies() {
        let stream = b"220 hi\r\n250-a\r\n250-b\r\n250 c\r\n250\r\n";
        let mut framer = ReplyFramer::new(ReplyLimits::default());
        let (mut start, mut replies) = (0, alloc::vec::Vec::new());
        for end in 0..=stream.len() {
            if let Some(reply) = framer.next(&stream[start..end]).unwrap() {
                start += reply.as_bytes().len();
                replies.push((reply.code().get(), reply.lines().count()));
            }
        }
        assert_eq!(replies, [(220, 1), (250, 3), (250, 1)]);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for (stream, error) in [
            (&b"hello\r\n"[..], ReplyError::Code),
            (b"25\r\n", ReplyError::Code),
            (b"150 x\r\n", ReplyError::Code),
            (b"600 x\r\n", ReplyError::Code),
            (b"250x\r\n", ReplyError::Code),
            (b"250 x\n", ReplyError::LineEnding),
            (b"250 x\ry\r\n", ReplyError::LineEnding),
            (b"250 x\0\r\n", ReplyError::LineEnding),
            (b"250-x\r\n550 y\r\n", ReplyError::DifferingCodes),
            (&[b'2'; 3_000], ReplyError::TooLong),
            (&b"250-x\r\n".repeat(129), ReplyError::TooLong),
        ] {
            assert_eq!(ReplyFramer::new(ReplyLimits::default()).next(stream), Err(error));
        }
    }
}
