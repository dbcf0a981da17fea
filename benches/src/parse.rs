//! Our parsers, driven as a connection drives them. `black_box` takes their results by reference,
//! as those of the peers, so that no parser pays for another move.

use std::hint::black_box;

use posthaste_wire::{
    Capabilities, Command, Mailbox, ReplyRef,
    command::MAX_COMMAND_LINE,
    frame::{Frame, Framer, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};

/// Frames and parses command lines. Returns the number of good ones.
#[must_use]
pub fn commands(mut input: &[u8]) -> usize {
    let mut framer = Framer::new(MAX_COMMAND_LINE);
    let mut good = 0;
    loop {
        let framed = framer.next(input);
        let Frame::Line(line) = framed.frame else { return good };
        good += usize::from(black_box(&Command::parse(&input[line])).is_ok());
        input = &input[framed.consumed..];
    }
}

/// Frames the lines of an input that arrives in pieces. Returns their number.
#[must_use]
pub fn growing(input: &[u8], piece: usize, max_line: usize) -> usize {
    let mut framer = Framer::new(max_line);
    let (mut at, mut shown, mut lines) = (0, 0, 0);
    while shown < input.len() {
        shown = input.len().min(shown + piece);
        loop {
            let framed = framer.next(&input[at..shown]);
            at += framed.consumed;
            match framed.frame {
                Frame::Incomplete => break,
                frame => lines += usize::from(matches!(black_box(frame), Frame::Line(_))),
            }
        }
    }
    lines
}

/// Frames replies, and reads the code and the enhanced code of each. Returns their number.
#[must_use]
pub fn replies(input: &[u8]) -> usize {
    each_reply(input, |reply| {
        black_box((reply.code(), reply.enhanced()));
    })
}

/// Frames replies to EHLO, and reads the capabilities of each. Returns their number.
#[must_use]
pub fn capabilities(input: &[u8]) -> usize {
    each_reply(input, |reply| {
        black_box(&Capabilities::from_reply(&reply));
    })
}

fn each_reply(mut input: &[u8], mut each: impl FnMut(ReplyRef<'_>)) -> usize {
    let mut framer = ReplyFramer::new(ReplyLimits::default());
    let mut good = 0;
    while let Ok(Some(reply)) = framer.next(input) {
        input = &input[reply.as_bytes().len()..];
        each(reply);
        good += 1;
    }
    good
}

/// Parses mailboxes, one in each line. Returns the number of good ones.
#[must_use]
pub fn mailboxes(input: &str) -> usize {
    input.lines().filter(|line| black_box(&Mailbox::parse(line)).is_ok()).count()
}

/// Frames the content after 354 that arrives in pieces. Returns its octets. It need not have an
/// end.
#[must_use]
pub fn content(wire: &[u8], piece: usize) -> usize {
    let mut framer = Framer::new(MAX_COMMAND_LINE);
    framer.expect_content(998);
    let (mut at, mut shown, mut octets) = (0, 0, 0);
    while shown < wire.len() {
        shown = wire.len().min(shown + piece);
        loop {
            let framed = framer.next(&wire[at..shown]);
            at += framed.consumed;
            match framed.frame {
                Frame::Content(range) => octets += black_box(range).len(),
                Frame::End => return octets,
                _ => break,
            }
        }
    }
    octets
}

/// The content as a client writes it, with stuffed dots and the end. Refused content has no end.
#[must_use]
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() * 2);
    stuff(content, content.len().max(1), |segments| {
        segments.as_slice().iter().for_each(|segment| wire.extend_from_slice(segment.as_bytes()));
    });
    wire
}

/// Stuffs content that comes in pieces, and passes on the segments that a client writes.
pub fn stuff(content: &[u8], piece: usize, mut write: impl FnMut(&SegmentList<'_>)) {
    let mut stuffer = Stuffer::new();
    for mut rest in content.chunks(piece) {
        while !rest.is_empty() {
            let mut segments = SegmentList::new();
            let Ok(taken) = stuffer.stuff(rest, &mut segments) else { return };
            rest = &rest[taken..];
            write(black_box(&segments));
        }
    }
    let mut segments = SegmentList::new();
    if stuffer.finish().is_ok_and(|end| segments.push_fixed(end)) {
        write(&segments);
    }
}
