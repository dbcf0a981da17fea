//! Parsing commands, addresses and replies, well formed or not, and framing lines and content take
//! no memory from the heap.
//!
//! The program has one test: the counter counts its own thread, and no other test may run at the
//! same time.

use std::hint::black_box;

use posthaste_testkit::rows::rows;
use posthaste_wire::{
    Capabilities, Command, Domain, EhloName, Mailbox, Mechanism, ReplyRef, Utf8Xtext, Xtext,
    frame::{Frame, Framer, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};

/// The octets before the arrow in each row of a table.
fn inputs(table: &str) -> Vec<Vec<u8>> {
    rows(table).into_iter().map(|row| row.input).collect()
}

fn allocations(what: impl FnOnce()) -> u64 {
    allocation_counter::measure(what).count_total
}

#[test]
fn parsing_and_framing_do_not_allocate() {
    assert!(allocations(|| drop(black_box(vec![1_u8]))) > 0, "the counter counts");
    let mut refused = 0;
    for line in inputs(include_str!("commands.txt")) {
        let count = allocations(|| {
            // An error is a value. Only `reply` builds its reply.
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
