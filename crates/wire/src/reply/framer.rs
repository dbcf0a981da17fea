//! The search for the end of a reply in a stream.

use memchr::{memchr, memchr3};

use super::{Form, ReplyCode, ReplyError, ReplyErrorKind, ReplyRef, odd};

/// Finds the end of a reply, and checks its lines as they come.
///
/// It is strict: [`ReplyFramer::next`] fails at the first fault. A [`tolerant`](Self::tolerant) one
/// also takes replies that are not quite well formed.
///
/// It keeps no octets: the caller shows unconsumed octets again, at the front of the next input. It
/// remembers how far it has searched, so a reply in single octets costs linear time.
///
/// ```
/// use posthaste_wire::reply::{ReplyFramer, ReplyLimits};
/// let mut framer = ReplyFramer::new(ReplyLimits::default());
/// assert_eq!(framer.next(b"250-mx.example\r\n250 DS")?, None);
/// let reply = framer.next(b"250-mx.example\r\n250 DSN\r\n221 Bye\r\n")?.unwrap();
/// assert_eq!((reply.code().get(), reply.as_bytes().len()), (250, 25));
/// # Ok::<(), posthaste_wire::reply::ReplyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReplyFramer {
    limits: ReplyLimits,
    /// The start of the unfinished line.
    line: usize,
    /// Octets that were searched for CR, LF and NUL.
    searched: usize,
    /// Lines that were checked.
    lines: usize,
    /// The code of the lines that were checked, in digits.
    digits: [u8; 3],
    is_tolerant: bool,
    /// The first fault of the reply that has not ended.
    open_fault: Option<ReplyError>,
    /// The first fault of the reply that was returned last.
    fault: Option<ReplyError>,
}

/// The limits of one reply. Beyond them, a strict framer returns a [`ReplyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyLimits {
    /// Octets of a line with CRLF. Default 2,048: four times the limit of RFC 5321 section
    /// 4.5.3.1.5.
    pub line: usize,
    /// Lines of the reply. Default 128: far more than any server offers to EHLO.
    pub lines: usize,
    /// Octets of the whole reply. Default 16 KiB, which bounds the memory that a server can take.
    pub octets: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { line: 2_048, lines: 128, octets: 16 * 1_024 }
    }
}

impl ReplyFramer {
    /// A framer at the start of a reply.
    pub const fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            line: 0,
            searched: 0,
            lines: 0,
            digits: [0; 3],
            is_tolerant: false,
            open_fault: None,
            fault: None,
        }
    }

    /// A framer that reads the three digits at the front of a line, and tolerates other faults.
    ///
    /// A reply with a fault is [not well formed](ReplyRef::is_well_formed), and has the code of its
    /// last line. From its first fault on, each LF ends a line, and the first line without a hyphen
    /// after its digits ends the reply. Only [`ReplyLimits::octets`] limits the lines then. The
    /// framer tolerates
    ///
    /// - a bare LF at the end of a line, a CR or NUL in it, several CR before the LF;
    /// - any octet other than a digit after the code, such as a tab, or none;
    /// - different codes on the lines, and up to 8 empty lines between them;
    /// - lines that are too long or too many.
    ///
    /// A reply beyond the limit, or with a line that does not start with a code, is
    /// [cut](ReplyRef::is_cut) there: the start of the next reply is unknown. It has the code of
    /// its first line. A fault in the first three digits remains an error.
    #[must_use]
    pub const fn tolerant(limits: ReplyLimits) -> Self {
        let mut framer = Self::new(limits);
        framer.is_tolerant = true;
        framer
    }

    /// The first fault of the last reply of [`next`](Self::next). `None`: it was well formed.
    pub const fn fault(&self) -> Option<ReplyError> {
        self.fault
    }

    /// Finds the reply at the front of `input`. `None`: it is not finished.
    ///
    /// `input` starts at the start of the reply, and contains the octets of earlier calls. After a
    /// reply, the framer is at the start of the next one.
    ///
    /// # Errors
    /// [`ReplyError`] at the first fault, the same however the octets are split.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<ReplyRef<'a>>, ReplyError> {
        if !self.is_tolerant {
            return self.well_formed(input);
        }
        self.fault = None;
        let fault = match self.open_fault {
            Some(fault) => fault,
            None => match self.well_formed(input) {
                Err(fault) => {
                    // Search the line again, from its start.
                    self.searched = self.line;
                    self.lines = 0;
                    *self.open_fault.insert(fault)
                }
                framed => return framed,
            },
        };
        let odd = self.odd(input, fault)?;
        if odd.is_some() {
            *self = Self { fault: Some(fault), ..Self::tolerant(self.limits) };
        }
        Ok(odd)
    }

    /// Continues after the first fault, with lines that end in LF.
    #[cold]
    fn odd<'a>(&mut self, input: &'a [u8], fault: ReplyError) -> Result<Option<ReplyRef<'a>>, ReplyError> {
        let first = odd::code(input).ok_or(fault)?;
        let reply = |end: usize, code, form| Ok(input.get(..end).map(|octets| ReplyRef { octets, code, form }));
        loop {
            let found = memchr(b'\n', input.get(self.searched..).unwrap_or_default());
            let end = found.map_or(input.len(), |found| self.searched + found + 1);
            if end > self.limits.octets {
                return reply(self.limits.octets, first, Form::Cut);
            }
            self.searched = end;
            if found.is_none() {
                return Ok(None);
            }
            let line = odd::trimmed(input.get(self.line..end).unwrap_or_default());
            match line {
                [] if self.lines < MAX_EMPTY_LINES => self.lines += 1,
                line => match odd::code(line) {
                    None => return reply(self.line, first, Form::Cut),
                    Some(_) if line.get(3) == Some(&b'-') => {}
                    // If the codes differ, the last one is the server's result.
                    Some(last) => return reply(end, last, Form::Odd),
                },
            }
            self.line = end;
        }
    }

    fn well_formed<'a>(&mut self, input: &'a [u8]) -> Result<Option<ReplyRef<'a>>, ReplyError> {
        loop {
            // One search finds the end of a line, and each octet that a line must not have.
            let rest = input.get(self.searched..).unwrap_or_default();
            let Some(found) = find_break(rest) else {
                self.searched = input.len();
                return self.within_limits(input.len()).map(|()| None);
            };
            let at = self.searched + found;
            match rest.get(found..) {
                Some([b'\r', b'\n', ..]) => {}
                Some([b'\r']) => {
                    self.searched = at;
                    return self.within_limits(input.len()).map(|()| None);
                }
                _ => {
                    self.within_limits(at + 1)?;
                    return Err(self.error(ReplyErrorKind::LineEnding, at));
                }
            }
            let end = at + 2;
            self.within_limits(end)?;
            if let Some(code) = self.check(input.get(self.line..at).unwrap_or_default())? {
                // `digits` keeps its value: only later lines compare with it.
                (self.line, self.searched, self.lines) = (0, 0, 0);
                return Ok(input.get(..end).map(|octets| ReplyRef { octets, code, form: Form::Whole }));
            }
            self.line = end;
            self.searched = end;
            self.lines += 1;
            if self.lines >= self.limits.lines {
                return Err(self.error(ReplyErrorKind::TooManyLines, end));
            }
        }
    }

    /// Checks the limits for a line up to this octet, also for an unfinished line, which could be
    /// endless. Of two limits the one that was reached first counts, so that the error does not
    /// depend on the pieces.
    #[inline]
    fn within_limits(&self, end: usize) -> Result<(), ReplyError> {
        let line_limit = self.line.saturating_add(self.limits.line);
        if end <= line_limit && end <= self.limits.octets {
            Ok(())
        } else if line_limit <= self.limits.octets {
            Err(self.error(ReplyErrorKind::LineTooLong, line_limit))
        } else {
            Err(self.error(ReplyErrorKind::TooLong, self.limits.octets))
        }
    }

    /// Checks a line without its CRLF. Returns the code if it is the last line.
    #[inline]
    fn check(&mut self, line: &[u8]) -> Result<Option<ReplyCode>, ReplyError> {
        // The digits of the line before were checked.
        let [a, b, c] = self.digits;
        if self.lines > 0 && line.first_chunk() == Some(&[a, b, c, b'-']) {
            return Ok(None);
        }
        let (digits, last) = match line {
            [a, b, c] | [a, b, c, b' ', ..] => ([*a, *b, *c], true),
            [a, b, c, b'-', ..] => ([*a, *b, *c], false),
            _ => return Err(self.code_fault(line)),
        };
        let code = ReplyCode::from_digits(digits).ok_or_else(|| self.code_fault(line))?;
        if self.lines > 0 && digits != self.digits {
            return Err(self.error(ReplyErrorKind::DifferingCodes, self.line));
        }
        self.digits = digits;
        Ok(last.then_some(code))
    }

    /// The fault of a line without a code, at the first octet that does not fit.
    #[cold]
    fn code_fault(&self, line: &[u8]) -> ReplyError {
        let fits = |(index, octet): &(usize, &u8)| match index {
            0 => matches!(octet, b'2'..=b'5'),
            1 | 2 => octet.is_ascii_digit(),
            _ => false,
        };
        let fitting = line.iter().enumerate().take_while(fits).count();
        self.error(ReplyErrorKind::Code, self.line + fitting)
    }

    #[cold]
    const fn error(&self, kind: ReplyErrorKind, offset: usize) -> ReplyError {
        ReplyError { kind, line: self.lines, offset }
    }
}

/// The most empty lines within a reply that a tolerant framer takes.
const MAX_EMPTY_LINES: usize = 8;

/// The offset of the first CR, LF or NUL.
///
/// Most lines are short. For them, the call of a vectorized search costs more than a few integers
/// in place.
#[inline]
fn find_break(octets: &[u8]) -> Option<usize> {
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const ABOVE_CR: u64 = u64::from_ne_bytes([b'\r' + 1; 8]);
    let mut searched = 0;
    for window in octets.as_chunks::<8>().0.iter().take(4) {
        let window = u64::from_le_bytes(*window);
        // The lowest octet set is at the first octet up to CR. Those above it may be wrong.
        let low = window.wrapping_sub(ABOVE_CR) & !window & HIGH;
        if low != 0 {
            let at = searched + low.trailing_zeros() as usize / 8;
            if matches!(octets.get(at), Some(b'\r' | b'\n' | 0)) {
                return Some(at);
            }
            // Another control character, such as a tab, is rare: leave the rest to the search.
            break;
        }
        searched += 8;
    }
    memchr3(b'\r', b'\n', 0, octets.get(searched..)?).map(|found| searched + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_in_single_octets_are_the_same() {
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

    /// The replies that a tolerant framer finds in a stream, in pieces with these ends: each with a
    /// mark if it is not whole.
    fn tolerated(limits: ReplyLimits, stream: &[u8], ends: impl IntoIterator<Item = usize>) -> alloc::string::String {
        let mut framer = ReplyFramer::tolerant(limits);
        let (mut start, mut found) = (0, alloc::vec::Vec::new());
        for end in ends {
            loop {
                match framer.next(&stream[start..end]) {
                    Ok(Some(reply)) => {
                        start += reply.as_bytes().len();
                        let mark = if reply.is_cut() { "cut" } else { "" };
                        let odd = if reply.is_well_formed() { "" } else { "~" };
                        assert_eq!(framer.fault().is_none(), reply.is_well_formed());
                        found.push(alloc::format!("{odd}{}{mark}", reply.into_owned()));
                        if reply.is_cut() {
                            return found.join(" / ");
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        found.push(alloc::format!("{:?} {}", error.kind, error.offset));
                        return found.join(" / ");
                    }
                }
            }
        }
        found.join(" / ")
    }

    #[test]
    fn a_tolerant_framer_goes_by_the_first_three_digits_in_every_chunking() {
        let limits = ReplyLimits { line: 16, lines: 3, octets: 64 };
        for (stream, expected) in [
            (&b"250 ok\r\n250 b\r\n"[..], "250 ok / 250 b"),
            (b"250 2.0.0 ok\n550 no\r\n", "~250 2.0.0 ok / 550 no"),
            (b"250 ok\r\r\n550 no\r\n", "~250 ok / 550 no"),
            (b"250 a\rb\r\n", "~250 a?b"),
            (b"250 a\0b\r\n", "~250 a?b"),
            (b"250\tok\r\n", "~250 ok"),
            (b"250ok\r\n", "~250 ok"),
            (b"250\n", "~250"),
            (b"250 ok \t\r\n", "250 ok ?"),
            (b"250-a\r\n251 b\r\n", "~251 a b"),
            (b"250-a\r\n550 b\r\n", "~550 a b"),
            (b"451-a\r\n250 b\r\n", "~250 a b"),
            (b"250-a\n550-b\r\n251 c\r\n250 d\r\n", "~251 a b c / 250 d"),
            (b"250-a\r\n\r\n\n250 b\r\n", "~250 a b"),
            (b"250 0123456789012345\r\n250 b\r\n", "~250 0123456789012345 / 250 b"),
            (b"250-a\r\n250-b\r\n250-c\r\n250 d\r\n", "~250 a b c d"),
            // Cut, because the start of the next reply is unknown.
            (b"550-a\r\nb\r\n250 c\r\n", "~550 acut"),
            (
                b"250 0123456789012345678901234567890123456789012345678901234567890123456789\r\n",
                "~250 012345678901234567890123456789012345678901234567890123456789cut",
            ),
            (b"250-a\r\n\n\n\n\n\n\n\n\n\n250 b\r\n", "~250 acut"),
            // Faults in the first three digits.
            (b"25\n", "LineEnding 2"),
            (b"hello\n", "LineEnding 5"),
            (b"2500 ok\r\n", "Code 3"),
            (b"199 ok\n", "LineEnding 6"),
            (b" 250 ok\r\n", "Code 0"),
            (b"250 ok\n\r\n", "~250 ok / Code 0"),
            (b"2222222222222222222222", "LineTooLong 16"),
        ] {
            let text = stream.escape_ascii();
            for cut in 0..=stream.len() {
                assert_eq!(tolerated(limits, stream, [cut, stream.len()]), expected, "{text} cut at {cut}");
            }
            assert_eq!(tolerated(limits, stream, 0..=stream.len()), expected, "{text} by octets");
        }
    }

    #[test]
    fn a_cr_lf_or_nul_is_found_at_every_offset() {
        for length in 0..80 {
            for at in 0..length {
                for octet in 0..=u8::MAX {
                    for filler in [b'a', b'\t', 0xff, 1] {
                        let mut octets = alloc::vec![filler; length];
                        octets[at] = octet;
                        let expected = matches!(octet, b'\r' | b'\n' | 0).then_some(at);
                        assert_eq!(find_break(&octets), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn reply_limits_are_inclusive_and_the_first_reached_is_named() {
        let limits = ReplyLimits { line: 8, lines: 2, octets: 14 };
        for (stream, expected) in [
            (&b"250 ab\r\n"[..], Ok(true)),
            (b"250-a\r\n250 b\r\n", Ok(true)),
            (b"250 abc\r", Ok(false)),
            (b"250 abc\r\n", Err((ReplyErrorKind::LineTooLong, 0, 8))),
            (b"250 abcde\0", Err((ReplyErrorKind::LineTooLong, 0, 8))),
            (b"250 abc\0", Err((ReplyErrorKind::LineEnding, 0, 7))),
            (b"250-a\r\n250-b\r\n", Err((ReplyErrorKind::TooManyLines, 2, 14))),
            (b"250-ab\r\n250 b\r\n", Err((ReplyErrorKind::TooLong, 1, 14))),
        ] {
            let whole = ReplyFramer::new(limits).next(stream).map(|reply| reply.is_some());
            assert_eq!(whole.map_err(|error| (error.kind, error.line, error.offset)), expected);
            let mut framer = ReplyFramer::new(limits);
            let by_octet =
                (0..=stream.len()).try_fold(false, |_, end| framer.next(&stream[..end]).map(|reply| reply.is_some()));
            assert_eq!(by_octet, whole);
        }
    }
}
