//! The clauses about replies as rows: `replies.txt` and `capabilities.txt`.

use posthaste_testkit::{rows::rows, wire::replies};
use posthaste_wire::{
    Capability,
    reply::{ReplyFramer, ReplyLimits},
};

#[test]
fn replies_are_as_their_rows_say() {
    for row in rows(include_str!("../replies.txt")) {
        replies::reply(&row.input);
        let mut framer = ReplyFramer::new(ReplyLimits::default());
        let (mut rest, mut shown) = (row.input.as_slice(), Vec::new());
        while !rest.is_empty() {
            match framer.next(rest) {
                Ok(Some(reply)) => {
                    shown.push(reply.to_string());
                    rest = &rest[reply.as_bytes().len()..];
                }
                Ok(None) => {
                    shown.push("open".into());
                    break;
                }
                Err(error) => {
                    shown.push(format!("error {:?} {} {}", error.kind, error.line, error.offset));
                    break;
                }
            }
        }
        assert_eq!(shown.join(" / "), String::from_utf8_lossy(&row.outcome), "{}", row.text);
    }
}

#[test]
fn capabilities_are_as_their_rows_say() {
    for row in rows(include_str!("../capabilities.txt")) {
        let shown = match Capability::parse(&row.input) {
            Some(Capability::Other(line)) => format!("other {line}"),
            Some(capability) => capability.to_string(),
            None => "none".into(),
        };
        assert_eq!(shown, String::from_utf8_lossy(&row.outcome), "{}", row.text);
        replies::reply(&[b"250-mx.example\r\n250 ", row.input.as_slice(), b"\r\n"].concat());
    }
}

#[test]
fn the_tables_of_replies_have_enough_rows() {
    assert!(rows(include_str!("../replies.txt")).len() >= 60);
    assert!(rows(include_str!("../capabilities.txt")).len() >= 70);
}
