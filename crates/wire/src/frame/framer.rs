//! The receiver's side: command lines, DATA content and BDAT chunks.

use core::ops::Range;

use memchr::{memchr, memchr3};

use super::{ContentFault, FaultKind};

/// Cuts a stream into lines, content and chunks.
///
/// It is in one of three modes: a line, the content behind DATA, or a chunk of known length. It keeps no octets; what
/// it does not consume is shown again at the front, and it never leaves more than a line (in line mode) or four octets
/// (in content) unconsumed. It remembers how far it has looked, so that one octet at a time costs linear time.
///
/// Content ends at CRLF.CRLF and nowhere else, the CRLF of the DATA line counting as the first; a bare CR, a bare LF,
/// a NUL or a line beyond the limit is noted as the content's [fault](Framer::fault) while the search for the true end
/// goes on.
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
    /// The most octets of a line, CRLF included.
    max_line: usize,
    fault: Option<ContentFault>,
}

#[derive(Debug, Clone)]
enum Mode {
    Line {
        /// Octets of the unconsumed input that were searched already.
        searched: usize,
        /// Octets of an over-long line that were thrown away.
        discarded: usize,
    },
    Content {
        line_start: bool,
        /// Octets of the current line so far.
        line: usize,
        max_line: usize,
        /// Octets of content so far.
        taken: u64,
    },
    Chunk {
        left: u64,
    },
}

/// What [`Framer::next`] found, and how many octets of the input are done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    /// Octets from the front of the input that must not be shown again.
    pub consumed: usize,
    /// What they are. Ranges index the input.
    pub frame: Frame,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// More input is needed. Octets of an over-long line may have been consumed.
    Incomplete,
    /// A line, without its CRLF.
    Line(Range<usize>),
    /// A line that must be refused as a whole; it was consumed to its LF.
    BadLine(LineFault),
    /// A piece of content or of a chunk.
    Content(Range<usize>),
    /// The end of the content or the chunk; the next octet starts a line.
    End,
}

/// Why a line is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineFault {
    /// It ends in LF without CR (RFC 5321 section 2.3.8).
    BareLf,
    /// It is longer than the limit; so many octets of it were thrown away unread.
    TooLong {
        /// Octets of the line, its end included.
        octets: usize,
    },
}

impl Framer {
    /// A framer at the start of a line of at most `max_line` octets, CRLF included.
    pub const fn new(max_line: usize) -> Self {
        Self { mode: Mode::Line { searched: 0, discarded: 0 }, max_line, fault: None }
    }

    /// Changes the limit for lines, in octets with CRLF.
    pub const fn set_max_line(&mut self, max_line: usize) {
        self.max_line = max_line;
    }

    /// What follows is the content behind DATA; its lines may have `max_line` octets without CRLF, stuffed dots not counted.
    pub const fn expect_content(&mut self, max_line: usize) {
        self.mode = Mode::Content { line_start: true, line: 0, max_line, taken: 0 };
        self.fault = None;
    }

    /// What follows is a chunk of that many octets, which may be any.
    pub const fn expect_chunk(&mut self, octets: u64) {
        self.mode = Mode::Chunk { left: octets };
        self.fault = None;
    }

    /// Whether a line is expected.
    pub const fn is_at_line(&self) -> bool {
        matches!(self.mode, Mode::Line { .. })
    }

    /// The first fault of the content since [`Framer::expect_content`].
    pub const fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// Octets of the current over-long line that were thrown away so far: the caller's bound on an endless line.
    pub const fn discarded(&self) -> usize {
        match self.mode {
            Mode::Line { discarded, .. } => discarded,
            _ => 0,
        }
    }

    /// The next piece at the front of `input`.
    pub fn next(&mut self, input: &[u8]) -> Framed {
        match self.mode {
            Mode::Line { searched, discarded } => self.next_line(input, searched, discarded),
            Mode::Content { .. } => self.next_content(input),
            Mode::Chunk { left } => self.next_chunk(input, left),
        }
    }

    fn next_line(&mut self, input: &[u8], searched: usize, discarded: usize) -> Framed {
        let start = Mode::Line { searched: 0, discarded: 0 };
        let Some(found) = memchr(b'\n', input.get(searched..).unwrap_or_default()) else {
            // One octet over the limit is enough to know, and no more than that is ever held.
            if discarded > 0 || input.len() >= self.max_line {
                self.mode = Mode::Line { searched: 0, discarded: discarded.saturating_add(input.len()) };
                return Framed { consumed: input.len(), frame: Frame::Incomplete };
            }
            self.mode = Mode::Line { searched: input.len(), discarded };
            return Framed { consumed: 0, frame: Frame::Incomplete };
        };
        self.mode = start;
        let end = searched + found;
        let octets = discarded.saturating_add(end + 1);
        let frame = if octets > self.max_line {
            Frame::BadLine(LineFault::TooLong { octets })
        } else if end > 0 && input.get(end - 1) == Some(&b'\r') {
            Frame::Line(0..end - 1)
        } else {
            Frame::BadLine(LineFault::BareLf)
        };
        Framed { consumed: end + 1, frame }
    }

    fn next_content(&mut self, input: &[u8]) -> Framed {
        let Mode::Content { mut line_start, mut line, max_line, taken } = self.mode else {
            return Framed { consumed: 0, frame: Frame::Incomplete };
        };
        let mut start = 0;
        if line_start && input.first() == Some(&b'.') {
            match input {
                [_] | [_, b'\r'] => {
                    return Framed { consumed: 0, frame: Frame::Incomplete };
                }
                [_, b'\r', b'\n', ..] => {
                    self.mode = Mode::Line { searched: 0, discarded: 0 };
                    return Framed { consumed: 3, frame: Frame::End };
                }
                // A dot before anything else was stuffed (RFC 5321 section 4.5.2).
                _ => {
                    start = 1;
                    line_start = false;
                }
            }
        }
        let mut at = start;
        let mut fault = None;
        while at < input.len() {
            if line_start && input.get(at) == Some(&b'.') {
                break;
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
                line = line.saturating_add(rest.len());
                line_start = false;
                at = input.len();
                break;
            };
            let hit = at + found;
            line = line.saturating_add(found);
            line_start = false;
            let kind = match (input.get(hit), input.get(hit + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    at = hit + 2;
                    line_start = true;
                    (line > max_line).then_some(FaultKind::LongLine)
                }
                // What follows the CR decides; it is shown again with it.
                (Some(b'\r'), None) => {
                    at = hit;
                    break;
                }
                (octet, _) => {
                    at = hit + 1;
                    line = line.saturating_add(1);
                    Some(match octet {
                        Some(b'\r') => FaultKind::BareCr,
                        Some(b'\n') => FaultKind::BareLf,
                        _ => FaultKind::Nul,
                    })
                }
            };
            if let Some(kind) = kind {
                let offset = taken.saturating_add((hit - start) as u64);
                fault = fault.or(Some(ContentFault { kind, offset }));
            }
            if line_start {
                line = 0;
            }
        }
        self.fault = self.fault.or(fault);
        let taken = taken.saturating_add((at - start) as u64);
        self.mode = Mode::Content { line_start, line, max_line, taken };
        let frame = if at > start { Frame::Content(start..at) } else { Frame::Incomplete };
        Framed { consumed: at, frame }
    }

    fn next_chunk(&mut self, input: &[u8], left: u64) -> Framed {
        if left == 0 {
            self.mode = Mode::Line { searched: 0, discarded: 0 };
            return Framed { consumed: 0, frame: Frame::End };
        }
        let octets = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        self.mode = Mode::Chunk { left: left - octets as u64 };
        let frame = if octets > 0 { Frame::Content(0..octets) } else { Frame::Incomplete };
        Framed { consumed: octets, frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Feeds the pieces and gives the content, the fault and what is left behind the end.
    fn receive(pieces: &[&[u8]]) -> (Vec<u8>, Option<FaultKind>, Option<Vec<u8>>) {
        let mut framer = Framer::new(512);
        framer.expect_content(998);
        let (mut buffer, mut content) = (Vec::new(), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            buffer.extend_from_slice(piece);
            loop {
                let framed = framer.next(&buffer);
                match framed.frame {
                    Frame::Content(range) => content.extend_from_slice(&buffer[range]),
                    Frame::End => {
                        let rest = [&buffer[framed.consumed..], &pieces[index + 1..].concat()].concat();
                        return (content, framer.fault().map(|fault| fault.kind), Some(rest));
                    }
                    _ => {}
                }
                let done = framed.consumed == 0;
                buffer.drain(..framed.consumed);
                if done {
                    break;
                }
            }
            assert!(buffer.len() <= 4);
        }
        (content, framer.fault().map(|fault| fault.kind), None)
    }

    #[test]
    fn content_ends_at_crlf_dot_crlf_and_nowhere_else() {
        use FaultKind::{BareCr, BareLf, Nul};
        for (sequence, fault) in [
            (&b"\n.\n"[..], Some(BareLf)),
            (b"\n.\r\n", Some(BareLf)),
            (b"\r\n.\n", Some(BareLf)),
            (b"\r.\r", Some(BareCr)),
            (b"\r.\n", Some(BareCr)),
            (b"\n.\r", Some(BareLf)),
            (b"\r.\r\n", Some(BareCr)),
            (b"\r\n.\r", Some(BareCr)),
            (b"\r\n\0.\r\n", Some(Nul)),
            (b"\r\n.\0\r\n", Some(Nul)),
            (b"\r\n.\r\r\n", Some(BareCr)),
            (b"\r\r\n.\r\r\n", Some(BareCr)),
            (b"\n\r.\n\r", Some(BareLf)),
            (b"\r\n .\r\n", None),
            (b"\r\n. \r\n", None),
            (b"\r\n.\t\r\n", None),
            (b"\r\n..\r\n", None),
            (b"\x0b.\x0b", None),
            (b"\xc2\x85.\xc2\x85", None),
        ] {
            let stream = [b"line1", sequence, b"tail\r\n.\r\nNOOP\r\n"].concat();
            for split in 0..=stream.len() {
                let (one, two) = stream.split_at(split);
                let (_, found, rest) = receive(&[one, two]);
                assert_eq!((found, rest.as_deref()), (fault, Some(&b"NOOP\r\n"[..])), "{sequence:?} split at {split}");
            }
        }
    }

    #[test]
    fn an_empty_message_is_a_dot_on_the_first_line() {
        assert_eq!(receive(&[b".\r\nQUIT\r\n"]), (Vec::new(), None, Some(b"QUIT\r\n".to_vec())));
        assert_eq!(receive(&[b".", b"\r", b"\n"]), (Vec::new(), None, Some(Vec::new())));
    }

    #[test]
    fn stuffed_dots_are_removed_wherever_the_stream_is_split() {
        let stream = b"..one\r\n...two\r\n.three\r\nx.\r\n.\r\n";
        for split in 0..=stream.len() {
            let (one, two) = stream.split_at(split);
            assert_eq!(receive(&[one, two]), (b".one\r\n..two\r\nthree\r\nx.\r\n".to_vec(), None, Some(Vec::new())));
        }
    }

    #[test]
    fn long_lines_are_faults() {
        let line = |octets: usize| [&b"x".repeat(octets)[..], b"\r\n.\r\n"].concat();
        assert_eq!(receive(&[&line(998)]).1, None);
        let long = line(999);
        for split in 0..=long.len() {
            assert_eq!(receive(&[&long[..split], &long[split..]]).1, Some(FaultKind::LongLine));
        }
    }

    #[test]
    fn an_over_long_line_is_thrown_away_to_its_end() {
        let mut framer = Framer::new(16);
        let input = b"NOOP aaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(framer.next(input), Framed { consumed: input.len(), frame: Frame::Incomplete });
        assert_eq!(framer.discarded(), input.len());
        let framed = framer.next(b"bb\r\nNOOP\r\n");
        assert_eq!(framed, Framed { consumed: 4, frame: Frame::BadLine(LineFault::TooLong { octets: 33 }) });
        assert_eq!(framer.next(b"NOOP\r\n"), Framed { consumed: 6, frame: Frame::Line(0..4) });
        assert_eq!(framer.next(b"NOOP 4567890123\r\n").frame, Frame::BadLine(LineFault::TooLong { octets: 17 }));
        assert_eq!(framer.next(b"NOOP 456789012\r\n").frame, Frame::Line(0..14));
        assert_eq!(framer.next(b"NOOP\n").frame, Frame::BadLine(LineFault::BareLf));
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
