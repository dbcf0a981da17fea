//! The check of content for DATA: lines end in CRLF and are not too long, and there is no NUL.

use memchr::{memchr3, memrchr};

use super::{ContentFault, FaultKind};

/// Checks every octet of message content.
///
/// [`Framer::expect_content`](super::Framer::expect_content) and
/// [`Stuffer::new`](super::Stuffer::new) contain one. An application can use it alone, for example
/// while it stores content, and pass clean content to
/// [`Stuffer::for_clean_content`](super::Stuffer::for_clean_content) later. It keeps no octets, and
/// the content may be split anywhere.
///
/// ```
/// use posthaste_wire::frame::{ContentCheck, FaultKind};
/// let mut check = ContentCheck::new(998);
/// check.check(b"one\r")?;
/// check.check(b"\ntwo\r\n")?;
/// check.finish()?;
/// assert_eq!(check.check(b"three\nfour").unwrap_err().kind, FaultKind::BareLf);
/// # Ok::<(), posthaste_wire::frame::ContentFault>(())
/// ```
#[derive(Debug, Clone)]
pub struct ContentCheck {
    /// The most octets of a line, without CRLF.
    max_line: usize,
    /// Octets of the current line so far, with a CR at its end.
    line: usize,
    /// The last octet was CR, so LF has to follow.
    after_cr: bool,
    /// Octets of content so far.
    taken: u64,
    /// The first fault of the content.
    fault: Option<ContentFault>,
}

impl ContentCheck {
    /// A check at the start of content. A line may have `max_line` octets without CRLF: 998 in RFC
    /// 5321 section 4.5.3.1.6, `usize::MAX` for no limit.
    pub const fn new(max_line: usize) -> Self {
        Self { max_line, line: 0, after_cr: false, taken: 0, fault: None }
    }

    /// Checks the next piece of the content, which may be empty.
    ///
    /// # Errors
    /// The first [`ContentFault`] of the content, the same however it is split. Each later call
    /// returns it again. A CR at the end of a piece is checked together with the next piece.
    pub fn check(&mut self, piece: &[u8]) -> Result<(), ContentFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let Some(last) = piece.last() else { return Ok(()) };
        // Almost all content is clean. This check alone takes half the time of a search for the
        // fault.
        if self.is_paired(piece)
            && let Some(line) = self.line_after(piece)
        {
            self.line = line;
        } else {
            self.look_closely(piece).inspect_err(|fault| self.fault = Some(*fault))?;
        }
        self.after_cr = *last == b'\r';
        self.taken = self.taken.saturating_add(piece.len() as u64);
        Ok(())
    }

    /// Ends the content, which need not end in CRLF.
    ///
    /// # Errors
    /// The first [`ContentFault`]. A CR as the last octet is one.
    pub const fn finish(&self) -> Result<(), ContentFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.after_cr => Err(self.bare_cr_before()),
            None => Ok(()),
        }
    }

    /// Returns `true` if CR and LF come in pairs only and there is no NUL. Returns `false` for
    /// short pieces.
    fn is_paired(&self, piece: &[u8]) -> bool {
        let (Some((first, behind)), Some((last, before))) = (piece.split_first(), piece.split_last()) else {
            return false;
        };
        let (Some(last_before), Some(last_behind)) = (before.last_chunk(), behind.last_chunk()) else { return false };
        let mut pairs = Pairs::NONE;
        for (octets, next) in before.as_chunks().0.iter().zip(behind.as_chunks().0) {
            pairs.look_at(octets, next);
        }
        // Some of these were checked already. That costs less than to check the others one by one.
        pairs.look_at(last_before, last_behind);
        pairs.are_clean() && *last != 0 && self.after_cr == (*first == b'\n')
    }

    /// The octets of the last line, where every LF ends a line. `None`: a line is too long.
    ///
    /// The longest allowed line and its CRLF must contain an LF. A leap to the last LF within that
    /// many octets skips many lines at once.
    fn line_after(&self, piece: &[u8]) -> Option<usize> {
        let (mut rest, mut line) = (piece, self.line);
        loop {
            let reach = self.max_line.saturating_add(2).saturating_sub(line).min(rest.len());
            let (within, beyond) = rest.split_at_checked(reach)?;
            let Some(end) = memrchr(b'\n', within) else {
                line = line.saturating_add(rest.len());
                let text = line.saturating_sub(usize::from(rest.last() == Some(&b'\r')));
                return (beyond.is_empty() && text <= self.max_line).then_some(line);
            };
            line = 0;
            rest = rest.get(end + 1..)?;
        }
    }

    /// The search for the fault, line by line.
    fn look_closely(&mut self, piece: &[u8]) -> Result<(), ContentFault> {
        let mut at = 0;
        if self.after_cr {
            if piece.first() != Some(&b'\n') {
                return Err(self.bare_cr_before());
            }
            at = 1;
            self.line = 0;
        }
        loop {
            let rest = piece.get(at..).unwrap_or_default();
            let text = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            let room = self.max_line.saturating_sub(self.line);
            let fault = |kind, octets| {
                let offset = self.taken.saturating_add(at as u64).saturating_add(octets as u64);
                Err(ContentFault { kind, offset })
            };
            if text > room {
                return fault(FaultKind::LongLine, room);
            }
            match (rest.get(text), rest.get(text + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    at += text + 2;
                    self.line = 0;
                }
                // The next piece decides about a CR at the end of this one.
                (None, _) | (Some(b'\r'), None) => {
                    self.line = self.line.saturating_add(rest.len());
                    return Ok(());
                }
                (Some(b'\r'), _) => return fault(FaultKind::BareCr, text),
                (Some(b'\n'), _) => return fault(FaultKind::BareLf, text),
                _ => return fault(FaultKind::Nul, text),
            }
        }
    }

    /// The fault of a CR at the end of an earlier piece.
    const fn bare_cr_before(&self) -> ContentFault {
        ContentFault { kind: FaultKind::BareCr, offset: self.taken.saturating_sub(1) }
    }
}

/// Pairs of neighboring octets that are checked at once. All get the same operations without a
/// branch, so that the compiler uses the vector registers of any CPU.
const LANES: usize = 32;

struct Pairs {
    lowest: [u8; LANES],
    unpaired: [u8; LANES],
}

impl Pairs {
    const NONE: Self = Self { lowest: [u8::MAX; LANES], unpaired: [0; LANES] };

    fn look_at(&mut self, octets: &[u8; LANES], next: &[u8; LANES]) {
        let lanes = self.lowest.iter_mut().zip(&mut self.unpaired);
        for ((lowest, unpaired), (octet, next)) in lanes.zip(octets.iter().zip(next)) {
            *lowest = (*lowest).min(*octet);
            *unpaired |= u8::from(*octet == b'\r') ^ u8::from(*next == b'\n');
        }
    }

    fn are_clean(&self) -> bool {
        let lowest = self.lowest.iter().fold(u8::MAX, |lowest, lane| lowest.min(*lane));
        let unpaired = self.unpaired.iter().fold(0, |unpaired, lane| unpaired | lane);
        lowest != 0 && unpaired == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search in clean content would only be slower, which no other test notices.
    #[test]
    fn clean_content_is_not_searched_for_a_fault() {
        let check = ContentCheck::new(998);
        for octets in [31, 32, 76, 998] {
            let content = [&b"x".repeat(octets)[..], b"\r\n"].concat().repeat(3);
            assert!(check.is_paired(&content));
            assert_eq!(check.line_after(&content), Some(0));
            assert_eq!(check.line_after(&content[..content.len() - 1]), Some(octets + 1));
        }
    }
}
