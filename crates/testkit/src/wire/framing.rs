//! Framing against the naive reference, and both directions against each other.

use posthaste_wire::frame::{ContentCheck, ContentFault, FaultKind, Frame, Framer, LineFault, SegmentList, Stuffer};

use crate::{
    choices::Chunking,
    reference::{self, Content},
};

/// The checks of content: lines of any length, lines of two octets, and no check.
const CHECKS: [Option<usize>; 3] = [Some(usize::MAX), Some(2), None];

/// Takes a stream as content after DATA, as content to send, as a chunk followed by lines, and as
/// lines, in every chunking.
///
/// # Panics
/// When the framer or the stuffer does not agree with the reference, or depends on the chunking.
pub fn framer(stream: &[u8]) {
    let chunkings = chunkings(stream.len());
    received(stream, &chunkings);
    sent(stream, &chunkings);
    let size = stream.first().copied().map_or(0, u64::from);
    for chunking in &chunkings {
        lines(stream, 0, chunking.clone());
        lines(stream, size, chunking.clone());
    }
}

/// Frames a stream after DATA, with and without the check of every octet. Compares the end, the
/// content and its fault.
///
/// # Panics
/// When it does not agree with the reference.
pub fn received(stream: &[u8], chunkings: &[Chunking]) {
    let expected = reference::content(stream);
    for check in CHECKS {
        let fault = check.and_then(|max_line| reference::fault(&expected.octets, max_line));
        for chunking in chunkings {
            let (found, found_fault) = receive(stream, check, chunking.clone());
            let context = || format!("{:?} {check:?} {chunking:?}", stream.escape_ascii().to_string());
            assert_eq!(found, expected, "{}", context());
            assert_eq!(found_fault, fault, "{}", context());
        }
    }
}

/// Frames a stream after DATA that comes in pieces. Checks every octet if there is a limit for
/// lines.
///
/// # Panics
/// When it breaks its contract.
pub fn receive(stream: &[u8], max_line: Option<usize>, mut chunking: Chunking) -> (Content, Option<(FaultKind, u64)>) {
    let mut framer = Framer::new(512);
    match max_line {
        Some(max_line) => framer.expect_content(max_line),
        None => framer.expect_clean_content(),
    }
    let (mut start, mut arrived) = (0, 0);
    let mut content = Content { octets: Vec::with_capacity(stream.len()), end: None };
    while content.end.is_none() {
        let input = &stream[start..arrived];
        let framed = framer.next(input);
        match framed.frame {
            Frame::Content(range) => {
                assert!(!range.is_empty() && range.end == framed.consumed);
                content.octets.extend_from_slice(&input[range]);
            }
            Frame::End => content.end = Some(start + framed.consumed),
            Frame::Incomplete => assert_eq!(framed.consumed, 0),
            frame => panic!("{frame:?} within content"),
        }
        start += framed.consumed;
        if framed.consumed == 0 {
            assert!(arrived - start <= 2, "{} octets are left", arrived - start);
            if arrived == stream.len() {
                break;
            }
            arrived += chunking.next(arrived, stream.len() - arrived);
        }
    }
    assert_eq!(framer.is_at_line(), content.end.is_some(), "behind the end comes a line");
    (content, framer.fault().map(|fault| (fault.kind, fault.offset)))
}

/// Stuffs content, and frames the result. The stuffer for clean content gives the same octets for
/// clean content.
///
/// # Panics
/// When it does not agree with the reference.
pub fn sent(content: &[u8], chunkings: &[Chunking]) {
    let expected = reference::stuffed(content);
    let fault = reference::fault(content, usize::MAX);
    for chunking in chunkings {
        let context = || format!("{:?} {chunking:?}", content.escape_ascii().to_string());
        match stuff(content, Stuffer::new(), chunking.clone()) {
            Ok(wire) => {
                assert_eq!(Some(&wire), expected.as_ref(), "{}", context());
                assert_eq!(stuff(content, Stuffer::for_clean_content(), chunking.clone()), Ok(wire), "{}", context());
            }
            Err(found) => {
                let open_end = (FaultKind::BareCr, content.len() as u64 - 1);
                assert_eq!(expected, None, "{}", context());
                assert_eq!((found.kind, found.offset), fault.unwrap_or(open_end), "{}", context());
            }
        }
        assert_eq!(check(content, chunking.clone()).is_ok(), expected.is_some(), "{}", context());
    }
    if let Some(wire) = expected {
        let back = reference::content(&wire);
        assert_eq!(back.end, Some(wire.len()), "what leaves ends once, at its end");
        assert_eq!(reference::fault(&back.octets, usize::MAX), None);
        let line_end: &[u8] = if content.is_empty() || content.ends_with(b"\r\n") { b"" } else { b"\r\n" };
        assert_eq!(back.octets.strip_prefix(content), Some(line_end), "unstuffed it is what was stuffed");
    }
}

/// Stuffs content that comes in pieces.
///
/// # Errors
/// The fault of the content.
///
/// # Panics
/// When the stuffer takes no octet although the list has room.
pub fn stuff(content: &[u8], mut stuffer: Stuffer, mut chunking: Chunking) -> Result<Vec<u8>, ContentFault> {
    let (mut wire, mut position) = (Vec::with_capacity(content.len() + 5), 0);
    let mut flush = |segments: &SegmentList<'_>| {
        segments.as_slice().iter().for_each(|segment| wire.extend_from_slice(segment.as_bytes()));
    };
    while position < content.len() {
        let size = chunking.next(position, content.len() - position);
        let mut rest = &content[position..position + size];
        while !rest.is_empty() {
            let mut segments = SegmentList::new();
            let taken = stuffer.stuff(rest, &mut segments)?;
            assert!(taken > 0, "an empty list has room");
            flush(&segments);
            rest = &rest[taken..];
        }
        position += size;
    }
    wire.extend_from_slice(stuffer.finish()?);
    Ok(wire)
}

/// Checks content that comes in pieces.
///
/// # Errors
/// The fault of the content.
pub fn check(content: &[u8], mut chunking: Chunking) -> Result<(), ContentFault> {
    let (mut check, mut position) = (ContentCheck::new(usize::MAX), 0);
    while position < content.len() {
        let size = chunking.next(position, content.len() - position);
        check.check(&content[position..position + size])?;
        position += size;
    }
    check.finish()
}

/// The most octets of a line in [`lines`].
const MAX_LINE: usize = 16;

/// Frames a chunk of `chunk` octets, and the lines after it.
///
/// # Panics
/// When it does not agree with a plain search, or holds more than a line.
pub fn lines(stream: &[u8], chunk: u64, mut chunking: Chunking) {
    let cut = usize::try_from(chunk).unwrap_or(usize::MAX).min(stream.len());
    let (expected_chunk, behind) = stream.split_at(cut);
    let ended = cut as u64 == chunk;
    let expected_lines = reference_lines(behind);

    let mut framer = Framer::new(MAX_LINE);
    framer.expect_chunk(chunk);
    let (mut start, mut arrived, mut content, mut ends, mut found_lines) = (0, 0, Vec::new(), 0, Vec::new());
    loop {
        let input = &stream[start..arrived];
        let framed = framer.next(input);
        start += framed.consumed;
        match framed.frame {
            Frame::Content(range) => content.extend_from_slice(&input[range]),
            Frame::End => ends += 1,
            Frame::Line(range) => found_lines.push(Ok(input[range].to_vec())),
            Frame::BadLine(fault) => found_lines.push(Err(fault)),
            Frame::Incomplete => {
                assert!(arrived - start < MAX_LINE, "{} octets are held", arrived - start);
                if arrived == stream.len() {
                    break;
                }
                arrived += chunking.next(arrived, stream.len() - arrived);
            }
        }
    }
    assert_eq!((content.as_slice(), ends), (expected_chunk, u32::from(ended)), "{chunking:?}");
    assert_eq!(found_lines, expected_lines, "{chunking:?}");
}

/// The naive reference for lines. A line ends at CRLF. One with a bare LF, or too long up to its
/// first LF, is refused once.
fn reference_lines(stream: &[u8]) -> Vec<Result<Vec<u8>, LineFault>> {
    let (mut lines, mut rest) = (Vec::new(), stream);
    while let Some(lf) = rest.iter().position(|octet| *octet == b'\n') {
        let crlf = rest.windows(2).position(|two| two == b"\r\n");
        lines.push(match crlf {
            _ if lf >= MAX_LINE => Err(LineFault::TooLong { octets: lf + 1 }),
            Some(crlf) if crlf + 1 == lf => Ok(rest[..crlf].to_vec()),
            _ => Err(LineFault::BareLf),
        });
        let Some(crlf) = crlf else { break };
        rest = &rest[crlf + 2..];
    }
    lines
}

/// Every chunking of a short stream. Of a long one: whole, in single octets, and some cuts.
fn chunkings(octets: usize) -> Vec<Chunking> {
    let every = octets / 64 + 1;
    let some = Chunking::all(octets).enumerate().filter(|(index, _)| *index < 2 || index % every == 0);
    some.map(|(_, chunking)| chunking).collect()
}
