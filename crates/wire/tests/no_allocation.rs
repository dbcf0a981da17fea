//! Parsing a command, an address or a reply, well-formed or not, and finding where lines and content end, takes no memory
//! from the heap.
//!
//! One test alone in its program: the counter counts for its own thread, and nothing else shall run beside it.

#[path = "support/rows.rs"]
mod rows;

use std::hint::black_box;

use posthaste_wire::{
    Command, Domain, EhloName, Mailbox, ReplyRef, Utf8Xtext, Xtext,
    frame::{Frame, Framer, SegmentList, Stuffer},
};

/// What stands before the arrow in each row of a table.
fn inputs(table: &str) -> Vec<Vec<u8>> {
    rows::rows(table).into_iter().map(|row| row.input).collect()
}

fn allocations(what: impl FnOnce()) -> u64 {
    allocation_counter::measure(what).count_total
}

#[test]
fn nothing_is_allocated() {
    assert!(allocations(|| drop(black_box(vec![1_u8]))) > 0, "the counter counts");
    let mut refused = 0;
    for line in inputs(include_str!("commands.txt")) {
        let count = allocations(|| {
            // An error is a value too; its reply is built only when it is asked for.
            refused += u32::from(black_box(Command::parse(black_box(&line))).is_err());
        });
        assert_eq!(count, 0, "{:?}", line.escape_ascii().to_string());
    }
    assert!(refused > 200, "{refused}");
    for text in [include_str!("addresses.txt"), include_str!("xtext.txt")].into_iter().flat_map(inputs) {
        let Ok(text) = str::from_utf8(&text) else { continue };
        let count = allocations(|| {
            let _ = black_box((Mailbox::parse(text), Domain::parse(text), EhloName::parse(text)));
            let _ = black_box((Xtext::parse(text), Utf8Xtext::parse(text)));
        });
        assert_eq!(count, 0, "{text:?}");
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
        let mut framer = Framer::new(512);
        framer.expect_content(998);
        let mut at = 0;
        loop {
            let framed = framer.next(&wire[at..]);
            at += framed.consumed;
            if framed.frame == Frame::End {
                break;
            }
        }
        let (mut stuffer, mut at) = (Stuffer::new(), 0);
        while at < content.len() {
            let mut segments = SegmentList::new();
            at += stuffer.stuff(&content[at..], &mut segments).expect("clean content");
            black_box(&segments);
        }
    });
    assert_eq!(count, 0, "content");
}
