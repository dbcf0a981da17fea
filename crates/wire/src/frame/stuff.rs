//! Dot-stuffing: the sender's side of DATA (RFC 5321 section 4.5.2).

use super::{ContentCheck, ContentFault, Segment, SegmentList, dots::Dots};

/// Turns message content into the octets after 354: slices of the content with dots between them.
///
/// Content with a bare CR, a bare LF or a NUL is refused. So the output has one CRLF.CRLF, at its
/// end, whatever the content is. The state is kept between calls, wherever the content is split.
///
/// ```
/// use posthaste_wire::frame::{SegmentList, Stuffer};
/// let mut stuffer = Stuffer::new();
/// let mut segments = SegmentList::new();
/// assert_eq!(stuffer.stuff(b".hidden\r\nlast", &mut segments)?, 13);
/// assert!(segments.push_fixed(stuffer.finish()?));
/// let octets: Vec<u8> = segments.as_slice().iter().flat_map(|segment| segment.as_bytes()).copied().collect();
/// assert_eq!(octets, b"..hidden\r\nlast\r\n.\r\n");
/// # Ok::<(), posthaste_wire::frame::ContentFault>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stuffer {
    dots: Dots,
    /// `None`: the content counts as clean.
    check: Option<ContentCheck>,
}

/// Segments of a list that content leaves free.
const FOR_THE_END: usize = 1;

impl Stuffer {
    /// A stuffer at the start of a message. It checks every octet. A line may have any length.
    pub const fn new() -> Self {
        Self { dots: Dots::new(), check: Some(ContentCheck::new(usize::MAX)) }
    }

    /// A stuffer at the start of a clean message: no bare CR, no bare LF and no NUL. The content
    /// passed a [`ContentCheck`], or came after
    /// [`Framer::expect_content`](super::Framer::expect_content) without a
    /// [fault](super::Framer::fault), and has not changed since.
    ///
    /// It searches only for dots at the start of lines, and refuses no content. If the content is
    /// not clean, a server that ends data at LF.LF reads the rest as commands of this client,
    /// written by the author of the message. When in doubt, use [`Stuffer::new`], which costs
    /// little.
    pub const fn for_clean_content() -> Self {
        Self { dots: Dots::new(), check: None }
    }

    /// Appends as much of `content` as the list has room for. Returns the number of octets that it
    /// took from `content`. The last segment of the list stays free for the [end](Self::finish).
    ///
    /// # Errors
    /// The first [`ContentFault`]. The caller must not send what it appended, and must close the
    /// connection to abort the transaction. Each later call returns the same fault, and so does
    /// [`finish`](Self::finish).
    pub fn stuff<'p>(&mut self, content: &'p [u8], segments: &mut SegmentList<'p>) -> Result<usize, ContentFault> {
        let mut rest = content;
        while let Some(first) = rest.first() {
            let dotted = *first == b'.' && self.dots.at_line_start();
            if segments.room() < usize::from(dotted) + 1 + FOR_THE_END {
                break;
            }
            let (lines, behind) = rest.split_at(self.dots.pass(rest));
            if let Some(check) = &mut self.check {
                check.check(lines)?;
            }
            if dotted {
                segments.push(Segment::Fixed(b"."));
            }
            segments.push(Segment::Body(lines));
            rest = behind;
        }
        Ok(content.len() - rest.len())
    }

    /// The octets of the end of data. They begin with a CRLF if the content does not end in one.
    /// The stuffer is then at the start of the next message, and checks every octet of it.
    ///
    /// A list that holds only content of this stuffer has room for them: see
    /// [`SegmentList::push_fixed`].
    ///
    /// # Errors
    /// The first [`ContentFault`]. A CR as the last octet is one.
    pub fn finish(&mut self) -> Result<&'static [u8], ContentFault> {
        if let Some(check) = &self.check {
            check.finish()?;
        }
        let end: &[u8] = if self.dots.at_line_start() { b".\r\n" } else { b"\r\n.\r\n" };
        *self = Self::new();
        Ok(end)
    }
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::FaultKind, *};
    use alloc::vec::Vec;

    fn stuffed(chunks: &[&[u8]]) -> Result<Vec<u8>, ContentFault> {
        let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
        let flush = |segments: &SegmentList<'_>, out: &mut Vec<u8>| {
            segments.as_slice().iter().for_each(|segment| out.extend_from_slice(segment.as_bytes()));
        };
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let mut segments = SegmentList::new();
                let taken = stuffer.stuff(rest, &mut segments)?;
                flush(&segments, &mut out);
                rest = &rest[taken..];
            }
        }
        out.extend_from_slice(stuffer.finish()?);
        Ok(out)
    }

    #[test]
    fn stuffed_octets_are_the_same_for_every_split() {
        for (content, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".a\r\n..b\r\n.\r\n\r\n.", b"..a\r\n...b\r\n..\r\n\r\n..\r\n.\r\n"),
        ] {
            for split in 0..=content.len() {
                let (one, two) = content.split_at(split);
                assert_eq!(stuffed(&[one, two]).unwrap(), wire);
            }
        }
        let many = b".\r\n".repeat(500);
        assert_eq!(stuffed(&[&many]).unwrap(), [b"..\r\n".repeat(500), b".\r\n".to_vec()].concat());
    }

    #[test]
    fn content_that_could_end_the_data_elsewhere_does_not_leave() {
        for (content, kind, offset) in [
            (&b"a\nb"[..], FaultKind::BareLf, 1),
            (b"a\rb", FaultKind::BareCr, 1),
            (b"a\0b", FaultKind::Nul, 1),
            (b"\n.\n", FaultKind::BareLf, 0),
            (b"\r\n\n", FaultKind::BareLf, 2),
            (b"\r\r\n", FaultKind::BareCr, 0),
        ] {
            assert_eq!(stuffed(&[content]), Err(ContentFault { kind, offset }));
        }
    }

    #[test]
    fn a_fault_of_content_has_the_same_octet_for_every_split() {
        let fault = Err(ContentFault { kind: FaultKind::BareCr, offset: 1 });
        assert_eq!(stuffed(&[b"a\r"]), fault);
        assert_eq!(stuffed(&[b"a\rb"]), fault);
        assert_eq!(stuffed(&[b"a\r", b"b"]), fault);
    }

    #[test]
    fn the_end_of_data_fits_into_a_list_full_of_content() {
        let content = b".\r\n".repeat(100);
        let (mut stuffer, mut segments) = (Stuffer::new(), SegmentList::new());
        let taken = stuffer.stuff(&content, &mut segments).unwrap();
        assert!(taken < content.len());
        assert_eq!(stuffer.stuff(&content[taken..], &mut segments), Ok(0));
        assert!(segments.push_fixed(stuffer.finish().unwrap()));
        assert_eq!(segments.as_slice().last(), Some(&Segment::Fixed(b".\r\n")));
    }
}
