//! The receiver's side: command lines, DATA content and BDAT chunks.

use core::ops::Range;

use memchr::memchr;

use super::{ContentCheck, ContentFault, dots::Dots};

/// Cuts a stream into lines, content and chunks.
///
/// It expects a line, the content after DATA, or a chunk of known length. It keeps no octets: the
/// caller shows unconsumed octets again, at the front of the next input. It leaves at most one
/// unfinished line unconsumed, and at most two octets of content. It remembers how far it has
/// searched, so input in single octets costs linear time.
///
/// Content ends only at CRLF.CRLF. The CRLF of the DATA line counts as the first (RFC 5321 section
/// 4.1.1.4). A bare CR, a bare LF, a NUL or a line beyond the limit is the content's
/// [fault](Framer::fault), and does not change where the content ends.
///
/// ```
/// use posthaste_wire::frame::{Frame, Framer};
/// let mut framer = Framer::new(512);
/// let input = b"DATA\r\n..one\r\n.\r\nQUIT\r\n";
/// let framed = framer.next(input);
/// assert_eq!((framed.consumed, framed.frame), (6, Frame::Line(0..4)));
/// framer.expect_content(998);
/// let framed = framer.next(&input[6..]);
/// assert_eq!((framed.consumed, framed.frame), (7, Frame::Content(1..7)));
/// let framed = framer.next(&input[13..]);
/// assert_eq!((framed.consumed, framed.frame), (3, Frame::End));
/// ```
#[derive(Debug, Clone)]
pub struct Framer {
    mode: Mode,
    /// The most octets of a line, with CRLF.
    max_line: usize,
    /// The check of the content. `None`: it counts as clean, or has a fault already.
    check: Option<ContentCheck>,
    fault: Option<ContentFault>,
}

#[derive(Debug, Clone)]
enum Mode {
    Line {
        /// Octets of the unconsumed input that were searched already.
        searched: usize,
    },
    /// A line whose beginning was discarded.
    Discard(Discard),
    Content(Dots),
    Chunk {
        /// The octets that are still expected.
        left: u64,
    },
}

/// A line that is too long, or was refused for a bare LF, and has not ended.
#[derive(Debug, Clone)]
struct Discard {
    /// The octets of the line that were discarded.
    octets: usize,
    /// The last discarded octet is CR.
    after_cr: bool,
    /// The line was refused already.
    told: bool,
}

/// The result of [`Framer::next`]: a frame, and the octets that it consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    /// Octets at the front of the input that the caller must not show again.
    pub consumed: usize,
    /// The frame. Ranges index the input.
    pub frame: Frame,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// More input is needed. Octets of a line that is too long may have been consumed.
    Incomplete,
    /// A line without its CRLF.
    Line(Range<usize>),
    /// A line that the server must refuse as a whole, reported once. It was consumed with its CRLF,
    /// or up to its first bare LF. In the second case the framer discards the rest of the line as
    /// it comes, so that no part of it becomes a line.
    BadLine(LineFault),
    /// A piece of content or of a chunk.
    Content(Range<usize>),
    /// The end of the content or the chunk. The next octet starts a line.
    End,
}

/// The reason to refuse a line as a whole. Exhaustive: a server has to decide about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineFault {
    /// The line has a bare LF, which does not end a line (RFC 5321 section 2.3.8).
    BareLf,
    /// The line is longer than the limit, and was discarded.
    TooLong {
        /// Octets of the line up to its first LF, which counts too. If that LF is bare, the framer
        /// discards the rest of the line as well.
        octets: usize,
    },
}

impl Framer {
    /// A framer at the start of a line. A line may have `max_line` octets, with CRLF.
    pub const fn new(max_line: usize) -> Self {
        Self { mode: Mode::LINE, max_line, check: None, fault: None }
    }

    /// Changes the limit for lines, in octets with CRLF. A line that is too long already remains
    /// so.
    pub const fn set_max_line(&mut self, max_line: usize) {
        self.max_line = max_line;
    }

    /// Expects the content after DATA. A line may have `max_line` octets, without CRLF and stuffed
    /// dots.
    pub const fn expect_content(&mut self, max_line: usize) {
        self.expect_clean_content();
        self.check = Some(ContentCheck::new(max_line));
    }

    /// Expects clean content after DATA: no bare CR, no bare LF, no NUL and no line that is too
    /// long. A trusted peer guarantees that, or the octets passed a [`ContentCheck`] before.
    ///
    /// The content ends at the same place, and dots are unstuffed as usual. Only the check of every
    /// octet is left out: [`Framer::fault`] stays `None`. If the content is not clean, the framer
    /// does not notice. If a relay passes such content on to a server that ends data at LF.LF, that
    /// server can find a second, hidden message in it.
    pub const fn expect_clean_content(&mut self) {
        self.mode = Mode::Content(Dots::new());
        self.check = None;
        self.fault = None;
    }

    /// Expects a chunk of `octets` octets of any value.
    pub const fn expect_chunk(&mut self, octets: u64) {
        self.mode = Mode::Chunk { left: octets };
        self.check = None;
        self.fault = None;
    }

    /// Returns `true` if the framer expects a line.
    pub const fn is_at_line(&self) -> bool {
        matches!(self.mode, Mode::Line { .. } | Mode::Discard(_))
    }

    /// The first fault of the content since [`Framer::expect_content`]. `None`: it has none so far.
    pub const fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// The octets of the current line that were discarded so far. 0: it is neither too long nor has
    /// a bare LF. With this number the caller limits a line without an end.
    pub const fn discarded(&self) -> usize {
        match &self.mode {
            Mode::Discard(line) => line.octets,
            _ => 0,
        }
    }

    /// Finds the next frame at the front of `input`.
    pub fn next(&mut self, input: &[u8]) -> Framed {
        let framed = match &mut self.mode {
            Mode::Line { searched } => {
                let found = match input.get(*searched..).unwrap_or_default() {
                    // For lines in single octets a search costs more than this.
                    [octet] => (*octet == b'\n').then_some(0),
                    rest => memchr(b'\n', rest),
                };
                let Some(found) = found else {
                    // One octet over the limit is enough to know. The caller never holds more.
                    if input.len() >= self.max_line {
                        return self.begin_discard(input);
                    }
                    *searched = input.len();
                    return Framed { consumed: 0, frame: Frame::Incomplete };
                };
                let end = *searched + found;
                let is_whole = end > 0 && input.get(end - 1) == Some(&b'\r');
                if !is_whole || end >= self.max_line {
                    return self.bad_line(is_whole, end + 1);
                }
                *searched = 0;
                return Framed { consumed: end + 1, frame: Frame::Line(0..end - 1) };
            }
            Mode::Discard(_) => return self.discard(input),
            Mode::Content(dots) => next_content(input, dots),
            Mode::Chunk { left } => next_chunk(input, left),
        };
        match &framed.frame {
            Frame::Content(range) => self.look_at(input.get(range.clone()).unwrap_or_default()),
            Frame::End => self.mode = Mode::LINE,
            _ => {}
        }
        framed
    }

    /// A line that is too long or has a bare LF. It has `octets` octets of input up to its first
    /// LF.
    #[cold]
    fn bad_line(&mut self, is_whole: bool, octets: usize) -> Framed {
        self.mode = match is_whole {
            true => Mode::LINE,
            false => Mode::Discard(Discard { octets, after_cr: false, told: true }),
        };
        let is_too_long = octets > self.max_line;
        let fault = if is_too_long { LineFault::TooLong { octets } } else { LineFault::BareLf };
        Framed { consumed: octets, frame: Frame::BadLine(fault) }
    }

    #[cold]
    fn begin_discard(&mut self, input: &[u8]) -> Framed {
        let after_cr = input.last() == Some(&b'\r');
        self.mode = Mode::Discard(Discard { octets: input.len(), after_cr, told: false });
        Framed { consumed: input.len(), frame: Frame::Incomplete }
    }

    /// Discards the rest of a line. If the line was not refused yet, its first LF gives its length.
    /// After CRLF the next line starts.
    #[cold]
    fn discard(&mut self, input: &[u8]) -> Framed {
        let Mode::Discard(line) = &mut self.mode else { return Framed { consumed: 0, frame: Frame::Incomplete } };
        let is_crlf = |lf: usize| match lf.checked_sub(1) {
            Some(before) => input.get(before) == Some(&b'\r'),
            None => line.after_cr,
        };
        let is_end = |(at, octet): (usize, &u8)| *octet == b'\n' && (!line.told || is_crlf(at));
        let Some(end) = input.iter().enumerate().position(is_end) else {
            line.after_cr = input.last().map_or(line.after_cr, |octet| *octet == b'\r');
            line.octets = line.octets.saturating_add(input.len());
            return Framed { consumed: input.len(), frame: Frame::Incomplete };
        };
        let behind = end + 1;
        if !line.told {
            let octets = line.octets.saturating_add(behind);
            self.mode = match is_crlf(end) {
                true => Mode::LINE,
                false => Mode::Discard(Discard { octets, after_cr: false, told: true }),
            };
            return Framed { consumed: behind, frame: Frame::BadLine(LineFault::TooLong { octets }) };
        }
        self.mode = Mode::LINE;
        let Framed { consumed, frame } = self.next(input.get(behind..).unwrap_or_default());
        let frame = match frame {
            Frame::Line(range) => Frame::Line(range.start + behind..range.end + behind),
            frame => frame,
        };
        Framed { consumed: consumed + behind, frame }
    }

    fn look_at(&mut self, content: &[u8]) {
        if let Some(check) = &mut self.check
            && let Err(fault) = check.check(content)
        {
            self.fault = Some(fault);
            self.check = None;
        }
    }
}

impl Mode {
    /// The start of a line.
    const LINE: Self = Self::Line { searched: 0 };
}

fn next_content(input: &[u8], dots: &mut Dots) -> Framed {
    let start = match input {
        [b'.', behind @ ..] if dots.at_line_start() => match behind {
            [b'\r', b'\n', ..] => return Framed { consumed: 3, frame: Frame::End },
            [] | [b'\r'] => return Framed { consumed: 0, frame: Frame::Incomplete },
            // A dot before anything else was stuffed (RFC 5321 section 4.5.2).
            _ => 1,
        },
        [] => return Framed { consumed: 0, frame: Frame::Incomplete },
        _ => 0,
    };
    let end = start + dots.pass(input.get(start..).unwrap_or_default());
    Framed { consumed: end, frame: Frame::Content(start..end) }
}

fn next_chunk(input: &[u8], left: &mut u64) -> Framed {
    if *left == 0 {
        return Framed { consumed: 0, frame: Frame::End };
    }
    let octets = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= octets as u64;
    let frame = if octets > 0 { Frame::Content(0..octets) } else { Frame::Incomplete };
    Framed { consumed: octets, frame }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec, vec::Vec};

    #[test]
    fn an_overlong_line_is_discarded_to_its_end() {
        let mut framer = Framer::new(16);
        let input = b"NOOP aaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(framer.next(input), Framed { consumed: input.len(), frame: Frame::Incomplete });
        assert_eq!(framer.discarded(), input.len());
        assert_eq!(framer.next(b"b"), Framed { consumed: 1, frame: Frame::Incomplete });
        assert_eq!(framer.discarded(), input.len() + 1);
        let framed = framer.next(b"b\r\nNOOP\r\n");
        assert_eq!(framed, Framed { consumed: 3, frame: Frame::BadLine(LineFault::TooLong { octets: 33 }) });
        assert_eq!(framer.next(b"NOOP\r\n"), Framed { consumed: 6, frame: Frame::Line(0..4) });
        assert_eq!(framer.next(b"NOOP 4567890123\r\n").frame, Frame::BadLine(LineFault::TooLong { octets: 17 }));
        assert_eq!(framer.next(b"NOOP 456789012\r\n").frame, Frame::Line(0..14));
    }

    #[test]
    fn octets_between_a_bare_lf_and_crlf_are_never_a_line() {
        for (stream, lines) in [
            (&b"NOOP\nRSET\r\nQUIT\r\n"[..], "[BadLine(BareLf), Line(QUIT)]"),
            (b"NOOP\n\n\nRSET\r\rQUIT\n\r\nQUIT\r\n", "[BadLine(BareLf), Line(QUIT)]"),
            (b"\n\r\nQUIT\r\n", "[BadLine(BareLf), Line(QUIT)]"),
            (b"\nNOOP\nQUIT\n", "[BadLine(BareLf)]"),
            (b"A\n\r\nB\n\r\nQUIT\r\n", "[BadLine(BareLf), BadLine(BareLf), Line(QUIT)]"),
            // Too long before the LF, and after it.
            (b"0123456789abcdefg\nRSET\r\nQUIT\r\n", "[BadLine(TooLong { octets: 18 }), Line(QUIT)]"),
            (b"0123456789abcdef\r\nQUIT\r\n", "[BadLine(TooLong { octets: 18 }), Line(QUIT)]"),
            (b"01234567\n01234567890123\r\nQUIT\r\n", "[BadLine(BareLf), Line(QUIT)]"),
        ] {
            for cut in 0..=stream.len() {
                for single in [false, true] {
                    let (mut framer, mut start, mut found) = (Framer::new(16), 0, Vec::new());
                    let ends = if single { (cut..=stream.len()).collect() } else { vec![cut, stream.len()] };
                    for end in ends {
                        loop {
                            let input = &stream[start..end];
                            let framed = framer.next(input);
                            start += framed.consumed;
                            found.push(match framed.frame {
                                Frame::Incomplete => break,
                                Frame::Line(range) => format!("Line({})", input[range].escape_ascii()),
                                frame => format!("{frame:?}"),
                            });
                        }
                        assert!(end - start < 16, "{} octets are held", end - start);
                    }
                    assert_eq!(format!("[{}]", found.join(", ")), lines, "{}", stream.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn the_end_of_an_overlong_line_is_no_line_after_the_limit_is_raised() {
        let mut framer = Framer::new(16);
        assert_eq!(framer.next(b"NOOP aaaaaaaaaaaaaaaa").frame, Frame::Incomplete);
        framer.set_max_line(512);
        let framed = framer.next(b"QUIT\r\n");
        assert_eq!(framed, Framed { consumed: 6, frame: Frame::BadLine(LineFault::TooLong { octets: 27 }) });
        assert_eq!(framer.next(b"NOOP\r\n").frame, Frame::Line(0..4));
    }

    #[test]
    fn a_chunk_has_any_octets_and_ends_by_count() {
        let mut framer = Framer::new(16);
        framer.expect_chunk(5);
        assert_eq!(framer.next(b"\r\n"), Framed { consumed: 2, frame: Frame::Content(0..2) });
        assert_eq!(framer.next(b".\r\nNOOP\r\n"), Framed { consumed: 3, frame: Frame::Content(0..3) });
        assert_eq!(framer.next(b"NOOP\r\n"), Framed { consumed: 0, frame: Frame::End });
        assert_eq!(framer.next(b"NOOP\r\n"), Framed { consumed: 6, frame: Frame::Line(0..4) });
    }
}
