//! Where message content ends and what it is, by a table: slow, obvious, and written from RFC 5321 alone.

use posthaste_wire::frame::FaultKind;

/// What a stream behind DATA comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The content without stuffed dots, as far as it is certain.
    pub octets: Vec<u8>,
    /// The first octet that content must not have.
    pub fault: Option<(FaultKind, u64)>,
    /// How many octets of the stream the content with its end takes; nothing when the end has not come.
    pub end: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Behind CRLF; the DATA line's own counts (section 4.1.1.4).
    LineStart,
    Inside,
    /// Behind CR.
    Cr,
    /// Behind CRLF and a dot.
    Dot,
    /// Behind CRLF, a dot and CR.
    DotCr,
    End,
}

/// Reads a stream from the first octet behind the DATA line, without a limit for lines.
pub fn content(stream: &[u8]) -> Content {
    use State::{Cr, Dot, DotCr, End, Inside, LineStart};
    let (mut state, mut octets, mut fault, mut used) = (LineStart, Vec::new(), None, 0);
    for &octet in stream {
        used += 1;
        let (next, yields): (State, &[u8]) = match (state, octet) {
            (DotCr, b'\n') => (End, b""),
            (LineStart, b'.') => (Dot, b""),
            (Dot, b'\r') => (DotCr, b""),
            (Cr, b'\n') => (LineStart, b"\r\n"),
            // The dot was stuffed: it goes, what follows stays.
            (LineStart | Inside, b'\r') => (Cr, b""),
            (LineStart | Inside | Dot, _) => (Inside, &[octet]),
            (Cr | DotCr, b'\r') => (Cr, b"\r"),
            (Cr | DotCr, _) => (Inside, &[b'\r', octet]),
            (End, _) => (End, b""),
        };
        let bare = |kind, back: usize| Some((kind, (octets.len() + yields.len() - back) as u64));
        fault = fault.or(match (state, octet) {
            (Cr, b'\n') | (DotCr, b'\n') => None,
            (Cr | DotCr, b'\r') => bare(FaultKind::BareCr, 1),
            (Cr | DotCr, _) => bare(FaultKind::BareCr, 2),
            (_, b'\n') => bare(FaultKind::BareLf, 1),
            (_, 0) => bare(FaultKind::Nul, 1),
            _ => None,
        });
        octets.extend_from_slice(yields);
        state = next;
        if state == End {
            return Content { octets, fault, end: Some(used) };
        }
    }
    Content { octets, fault, end: None }
}

/// Content as it goes behind 354, or nothing when it must not: dots stuffed, CRLF at its end, then the dot.
pub fn stuffed(content: &[u8]) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap_or(rest.len());
        let (line, next) = rest.split_at(end);
        if line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
            return None;
        }
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
        rest = next.get(2..).unwrap_or_default();
    }
    wire.extend_from_slice(b".\r\n");
    Some(wire)
}
