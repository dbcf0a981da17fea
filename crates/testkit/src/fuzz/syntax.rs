//! Replies and content.

use posthaste_wire::{
    Capabilities, ReplyRef,
    frame::{Frame, Framer, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};

use crate::{choices::Chunking, reference};

/// A stream of replies: every chunking gives the same, and a reply is emitted as it came.
///
/// # Panics
/// When it is not.
pub fn reply(stream: &[u8]) {
    let read = |mut chunking: Chunking| {
        let mut framer = ReplyFramer::new(ReplyLimits::default());
        let (mut start, mut end, mut replies) = (0, 0, Vec::new());
        loop {
            match framer.next(&stream[start..end]) {
                Ok(Some(reply)) => {
                    start += reply.as_bytes().len();
                    replies.push(reply.into_owned());
                }
                Ok(None) if end == stream.len() => return (replies, false),
                Ok(None) => end += chunking.next(end, stream.len() - end),
                Err(_) => return (replies, true),
            }
        }
    };
    let (replies, failed) = read(Chunking::Whole);
    for chunking in chunkings(stream.len()) {
        assert_eq!(read(chunking.clone()), (replies.clone(), failed), "{chunking:?}");
    }
    for reply in &replies {
        let reply = reply.as_ref();
        assert_eq!(ReplyRef::parse(reply.as_bytes()).as_ref(), Ok(&reply));
        assert_eq!(reply.into_owned().as_ref(), reply);
        assert!(!reply.to_string().contains(char::is_control), "logs stay on one line");
        assert!(reply.enhanced().is_none_or(|code| code.class() == reply.code().get() / 100));
        assert!(Capabilities::from_reply(&reply).lines().count() <= Capabilities::MAX);
    }
}

/// A stream behind DATA: the framer agrees with the reference on where it ends, what it is and what is wrong with it,
/// in every chunking. The same octets as content to send: the stuffer agrees with the reference, and what it lets
/// through comes back.
///
/// # Panics
/// When they do not agree.
pub fn framer(stream: &[u8]) {
    let expected = reference::content(stream);
    for chunking in chunkings(stream.len()) {
        compare(stream, &expected, chunking);
    }
    stuffer(stream);
}

/// Compares the framer with the reference in one chunking.
///
/// # Panics
/// When they do not agree.
pub fn compare(stream: &[u8], expected: &reference::Content, mut chunking: Chunking) {
    let mut framer = Framer::new(512);
    framer.expect_content(usize::MAX);
    let (mut start, mut arrived, mut octets, mut end) = (0, 0, Vec::new(), None);
    while end.is_none() {
        let framed = framer.next(&stream[start..arrived]);
        match framed.frame {
            Frame::Content(range) => {
                assert!(!range.is_empty() && range.end <= framed.consumed);
                octets.extend_from_slice(&stream[start..arrived][range]);
            }
            Frame::End => end = Some(start + framed.consumed),
            Frame::Incomplete => {}
            frame => panic!("{frame:?} within content"),
        }
        start += framed.consumed;
        if framed.consumed == 0 {
            assert!(arrived - start <= 4, "{} octets are left", arrived - start);
            if arrived == stream.len() {
                break;
            }
            arrived += chunking.next(arrived, stream.len() - arrived);
        }
    }
    let fault = framer.fault().map(|fault| (fault.kind, fault.offset));
    assert_eq!(end, expected.end, "{:?} {chunking:?}", stream.escape_ascii().to_string());
    assert_eq!(octets, expected.octets, "{:?} {chunking:?}", stream.escape_ascii().to_string());
    assert_eq!(fault, expected.fault, "{:?} {chunking:?}", stream.escape_ascii().to_string());
    if end.is_some() {
        assert!(framer.is_at_line(), "behind the end comes a line");
    }
}

/// Compares the stuffer with the reference, in every chunking.
///
/// # Panics
/// When they do not agree.
pub fn stuffer(content: &[u8]) {
    let expected = reference::stuffed(content);
    let mut first_fault = None;
    for chunking in chunkings(content.len()) {
        let found = stuff(content, chunking.clone());
        let context = || format!("{:?} {chunking:?}", content.escape_ascii().to_string());
        assert_eq!(found.as_ref().ok(), expected.as_ref(), "{}", context());
        if let Err(fault) = found {
            assert_eq!(*first_fault.get_or_insert(fault), fault, "{}", context());
        }
    }
    if let Some(wire) = expected {
        let back = reference::content(&wire);
        assert_eq!((back.fault, back.end), (None, Some(wire.len())), "what leaves ends once, at its end");
        assert_eq!(
            back.octets.strip_suffix(b"\r\n").unwrap_or_default(),
            content.strip_suffix(b"\r\n").unwrap_or(content)
        );
    }
}

/// What the stuffer makes of content that comes in pieces.
///
/// # Errors
/// The fault that it finds.
pub fn stuff(content: &[u8], mut chunking: Chunking) -> Result<Vec<u8>, posthaste_wire::frame::ContentFault> {
    let (mut stuffer, mut wire, mut position) = (Stuffer::new(), Vec::new(), 0);
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
    let mut segments = SegmentList::new();
    stuffer.finish(&mut segments)?;
    flush(&segments);
    Ok(wire)
}

/// Every chunking of a short stream; of a long one the whole, the single octets and some cuts.
fn chunkings(octets: usize) -> impl Iterator<Item = Chunking> {
    let every = octets / 64 + 1;
    Chunking::all(octets).enumerate().filter(move |(index, _)| *index < 2 || index % every == 0).map(|(_, c)| c)
}
