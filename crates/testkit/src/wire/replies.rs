//! Streams of replies, framed and emitted.

use posthaste_wire::{
    Capabilities, Capability, ReplyRef,
    reply::{ReplyFramer, ReplyLimits},
};

use crate::choices::Chunking;

/// Frames a stream of replies. Every chunking gives the same replies, emitted as they came.
///
/// # Panics
/// When that does not hold.
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
    tolerant(stream);
    for reply in &replies {
        let reply = reply.borrowed();
        assert_eq!(ReplyRef::parse(reply.as_bytes()).as_ref(), Ok(&reply));
        assert_eq!(reply.into_owned().borrowed(), reply);
        assert!(!reply.to_string().contains(char::is_control), "logs stay on one line");
        assert!(reply.enhanced().is_none_or(|code| code.class() == reply.code().get() / 100));
        capabilities(&reply);
    }
}

/// A tolerant framer takes all replies of a strict one and more, the same in every chunking. Their
/// owned forms are well formed.
fn tolerant(stream: &[u8]) {
    let read = |mut chunking: Chunking| {
        let mut framer = ReplyFramer::tolerant(ReplyLimits::default());
        let (mut start, mut end, mut replies) = (0, 0, Vec::new());
        loop {
            match framer.next(&stream[start..end]) {
                Ok(Some(reply)) => {
                    start += reply.as_bytes().len();
                    assert_eq!(reply.is_well_formed(), framer.fault().is_none());
                    assert_eq!(reply.is_well_formed(), ReplyRef::parse(reply.as_bytes()) == Ok(reply));
                    let owned = reply.into_owned();
                    let normal = ReplyRef::parse(owned.as_bytes()).expect("what is owned is well formed");
                    assert_eq!(normal.code(), reply.code());
                    let code = reply.code().to_string();
                    let mut lines = reply.as_bytes().split(|octet| *octet == b'\n');
                    assert!(lines.any(|line| line.starts_with(code.as_bytes())));
                    assert!(!reply.to_string().contains(char::is_control), "logs stay on one line");
                    replies.push((start, owned));
                    if reply.is_cut() {
                        return (replies, true);
                    }
                }
                Ok(None) if end == stream.len() => return (replies, false),
                Ok(None) => end += chunking.next(end, stream.len() - end),
                Err(_) => return (replies, true),
            }
        }
    };
    let whole = read(Chunking::Whole);
    for chunking in chunkings(stream.len()) {
        assert_eq!(read(chunking.clone()), whole, "{chunking:?}");
    }
}

/// The capabilities of a reply keep all lines up to the bound, and emitted ones parse to the same.
fn capabilities(reply: &ReplyRef<'_>) {
    let borrowed = Capabilities::from_reply(reply);
    assert!(borrowed.lines().eq(reply.lines().skip(1).take(Capabilities::MAX)));
    let owned = borrowed.into_owned();
    assert_eq!(owned.borrowed(), borrowed);
    for capability in owned.iter() {
        assert!(capability.keyword().is_none_or(|keyword| owned.offers(keyword)));
        let emitted = capability.to_string();
        assert!(!emitted.contains(char::is_control));
        let again = Capability::parse(emitted.as_bytes()).expect("what was emitted parses");
        assert_eq!((again, again.to_string()), (capability, emitted.clone()));
    }
}

/// Every chunking of a short stream. Of a long one: whole, in single octets, and some cuts.
fn chunkings(octets: usize) -> impl Iterator<Item = Chunking> {
    let every = octets / 64 + 1;
    Chunking::all(octets).enumerate().filter(move |(index, _)| *index < 2 || index % every == 0).map(|(_, c)| c)
}
