//! Parsing a command or a reply, and finding where lines and content end, takes no memory from the heap.
//!
//! One test alone in its program: the counter counts for its own thread, and nothing else shall run beside it.

mod support;

use std::hint::black_box;

use posthaste_wire::{
    Command, ReplyRef,
    frame::{Frame, Framer, SegmentList, Stuffer},
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
    for reply in inputs(include_str!("replies.txt")) {
        let count = allocations(|| {
            if let Ok(reply) = black_box(ReplyRef::parse(black_box(&reply))) {
                black_box((reply.code(), reply.enhanced(), reply.lines().count()));
            }
        });
        assert_eq!(count, 0, "{:?}", reply.escape_ascii().to_string());
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
