//! Parsing a command or a reply, and finding where lines and content end, takes no memory from the heap.
//!
//! One test alone in its program: the counter counts for its own thread, and nothing else shall run beside it.

mod support;

use std::hint::black_box;

use posthaste_wire::{
    Capabilities, Command, Mechanism, ReplyRef,
    frame::{Frame, Framer, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};
use support::unescape::unescape;

/// The left side of each row of a table.
fn inputs(table: &str) -> Vec<Vec<u8>> {
    let rows = table.lines().filter(|line| !line.starts_with('#') && !line.contains("\\u{"));
    rows.map(|row| unescape(row.split_once("=> ").expect("an arrow").0)).collect()
}

fn allocations(what: impl FnOnce()) -> u64 {
    allocation_counter::measure(what).count_total
}

#[test]
fn nothing_is_allocated() {
    assert!(allocations(|| drop(black_box(vec![1_u8]))) > 0, "the counter counts");
    for line in inputs(include_str!("commands.txt")) {
        let count = allocations(|| {
            // An error is a value too; its reply is built only when it is asked for.
            let _ = black_box(Command::parse(black_box(&line)));
        });
        assert_eq!(count, 0, "{:?}", line.escape_ascii().to_string());
    }
    for stream in inputs(include_str!("replies.txt")) {
        let count = allocations(|| {
            let (mut framer, mut rest) = (ReplyFramer::new(ReplyLimits::default()), stream.as_slice());
            while let Ok(Some(reply)) = framer.next(black_box(rest)) {
                rest = &rest[reply.as_bytes().len()..];
                let meaning = reply.enhanced().and_then(|enhanced| enhanced.meaning());
                black_box((reply.code(), meaning, reply.lines().count()));
            }
            let _ = black_box(ReplyRef::parse(black_box(&stream)));
        });
        assert_eq!(count, 0, "{:?}", stream.escape_ascii().to_string());
    }
    for line in inputs(include_str!("capabilities.txt")) {
        let stream = [b"250-mx.example\r\n250 ", line.as_slice(), b"\r\n"].concat();
        let reply = ReplyRef::parse(&stream).expect("a reply");
        let count = allocations(|| {
            let offered = black_box(Capabilities::from_reply(black_box(&reply)));
            black_box((offered.size(), offered.auth().contains(Mechanism::Plain), offered.limits()));
            black_box((offered.lines().count(), offered.iter().count()));
        });
        assert_eq!(count, 0, "{:?}", line.escape_ascii().to_string());
        assert_eq!(allocations(|| drop(black_box(Capabilities::from_reply(&reply).into_owned()))), 1);
    }
    let content = b".line\r\n..another\r\nthe last\r\n".repeat(100);
    let wire = [content.as_slice(), b".\r\n"].concat();
    let count = allocations(|| {
        for expect in [|framer: &mut Framer| framer.expect_content(998), Framer::expect_clean_content] {
            let (mut framer, mut at) = (Framer::new(512), 0);
            expect(&mut framer);
            while !framer.is_at_line() {
                let framed = framer.next(&wire[at..]);
                assert_ne!(framed.frame, Frame::Incomplete);
                at += framed.consumed;
            }
        }
        for mut stuffer in [Stuffer::new(), Stuffer::for_clean_content()] {
            let mut at = 0;
            while at < content.len() {
                let mut segments = SegmentList::new();
                at += stuffer.stuff(&content[at..], &mut segments).expect("clean content");
                black_box(&segments);
            }
        }
    });
    assert_eq!(count, 0, "content");
}
