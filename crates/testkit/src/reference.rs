//! The end of message content, and its fault: slow, obvious, and written from RFC 5321 alone.

use posthaste_wire::frame::FaultKind;

/// The content of a stream after DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The content without stuffed dots, as far as it is certain.
    pub octets: Vec<u8>,
    /// Octets of the stream up to the end of the content, with the end. `None`: the end has not
    /// come.
    pub end: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// After CRLF. That of the DATA line counts (section 4.1.1.4).
    LineStart,
    Inside,
    /// After CR.
    Cr,
    /// After CRLF and a dot.
    Dot,
    /// After CRLF, a dot and CR.
    DotCr,
    End,
}

/// Reads a stream from the first octet after the DATA line.
pub fn content(stream: &[u8]) -> Content {
    use State::{Cr, Dot, DotCr, End, Inside, LineStart};
    let (mut state, mut octets) = (LineStart, Vec::new());
    for (at, &octet) in stream.iter().enumerate() {
        let (next, yields): (State, &[u8]) = match (state, octet) {
            (LineStart, b'.') => (Dot, b""),
            (Dot, b'\r') => (DotCr, b""),
            (DotCr, b'\n') => (End, b""),
            (Cr, b'\n') => (LineStart, b"\n"),
            // The dot was stuffed: only it is removed.
            (DotCr, b'\r') => (Cr, b"\r\r"),
            (DotCr, _) => (Inside, &[b'\r', octet]),
            (_, b'\r') => (Cr, b"\r"),
            (_, _) => (Inside, &[octet]),
        };
        octets.extend_from_slice(yields);
        state = next;
        if state == End {
            return Content { octets, end: Some(at + 1) };
        }
    }
    Content { octets, end: None }
}

/// The first octet that content must not have (sections 2.3.8 and 4.5.3.1.6; for NUL, RFC 2045
/// sections 2.7 and 2.8). A CR at the end of the content does not count.
pub fn fault(content: &[u8], max_line: usize) -> Option<(FaultKind, u64)> {
    let (mut line, mut before) = (0, None);
    for (at, &octet) in content.iter().enumerate() {
        let kind = match (octet, content.get(at + 1)) {
            (b'\r', None | Some(b'\n')) => None,
            (b'\r', _) => Some(FaultKind::BareCr),
            (b'\n', _) if before != Some(b'\r') => Some(FaultKind::BareLf),
            (b'\n', _) => {
                line = 0;
                None
            }
            (0, _) => Some(FaultKind::Nul),
            _ => {
                line += 1;
                (line > max_line).then_some(FaultKind::LongLine)
            }
        };
        if let Some(kind) = kind {
            return Some((kind, at as u64));
        }
        before = Some(octet);
    }
    None
}

/// Content as a client sends it after 354: with stuffed dots, CRLF at its end, then the dot
/// (section 4.5.2). `None`: a client must not send it.
pub fn stuffed(content: &[u8]) -> Option<Vec<u8>> {
    if content.last() == Some(&b'\r') || fault(content, usize::MAX).is_some() {
        return None;
    }
    let mut wire = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line.strip_suffix(b"\r\n").unwrap_or(line));
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    Some(wire)
}
