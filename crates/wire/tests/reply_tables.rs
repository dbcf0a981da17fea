//! The clauses about replies as rows: `replies.txt`.

mod table;

use posthaste_testkit::fuzz;
use posthaste_wire::reply::{ReplyFramer, ReplyLimits};
use table::rows;

#[test]
fn replies() {
    for row in rows(include_str!("replies.txt")) {
        fuzz::reply(&row.input);
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
        assert_eq!(shown.join(" / "), row.expected, "{}", row.text);
    }
}
