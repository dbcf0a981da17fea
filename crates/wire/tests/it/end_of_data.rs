//! Content ends only at CRLF.CRLF: the sequences of `end_of_data.txt` in both directions, and every
//! string over the octets that matter.

use posthaste_testkit::{
    choices::Chunking,
    wire::{
        end_of_data::{self, Row},
        framing::{receive, received, sent, stuff},
    },
};
use posthaste_wire::frame::Stuffer;

fn rows() -> Vec<Row> {
    end_of_data::rows(include_str!("../end_of_data.txt"))
}

#[test]
fn received_sequences_end_as_their_rows_say() {
    for Row { name, before, octets, receiving, .. } in rows() {
        let stream = [before, &octets, b"line2\r\n.\r\nNOOP\r\n"].concat();
        let true_end = stream.len() - b"NOOP\r\n".len();
        let (found, fault) = receive(&stream, Some(998), Chunking::Whole);
        assert_eq!(fault.map(|(kind, _)| kind), receiving.fault, "{name}");
        if receiving.ends {
            assert!(found.end.unwrap() <= before.len() + octets.len(), "{name}");
        } else {
            assert_eq!(found.end, Some(true_end), "{name}");
        }
        if let Some(becomes) = receiving.becomes {
            assert_eq!(found.octets, [before, &becomes, b"line2\r\n"].concat(), "{name}");
        }
        received(&stream, &Chunking::all(stream.len()).collect::<Vec<_>>());
    }
}

#[test]
fn sent_sequences_end_as_their_rows_say() {
    for Row { name, before, octets, sending, .. } in rows() {
        let content = [before, &octets, b"line2\r\n"].concat();
        let found = stuff(&content, Stuffer::new(), Chunking::Whole).map_err(|fault| fault.kind);
        let expected = match (sending.becomes, sending.fault) {
            (Some(becomes), None) => Ok([before, &becomes, b"line2\r\n.\r\n"].concat()),
            (None, Some(fault)) => Err(fault),
            _ => panic!("{name}: no verdict for sending"),
        };
        assert_eq!(found, expected, "{name}");
        sent(&content, &Chunking::all(content.len()).collect::<Vec<_>>());
    }
}

/// Every string over CR, LF, dot, NUL and a letter, as a stream and as content. A debug build tries
/// up to 6 octets (20 thousand strings), a release build up to 9 (2.4 million). Each is tried
/// whole, in single octets, and with a cut at every position.
#[test]
fn strings_of_the_octets_that_matter_end_at_crlf_dot_crlf_only() {
    let longest = if cfg!(debug_assertions) { 6 } else { 9 };
    let mut strings = 0_u64;
    let mut string = Vec::new();
    for length in 0..=longest {
        let chunkings: Vec<_> = Chunking::all(length as usize).collect();
        let count = 5_u64.pow(length);
        strings += count;
        for number in 0..count {
            let mut rest = number;
            string.clear();
            for _ in 0..length {
                string.push(b"\r\n.\0a"[(rest % 5) as usize]);
                rest /= 5;
            }
            received(&string, &chunkings);
            sent(&string, &chunkings);
        }
    }
    assert_eq!(strings, if cfg!(debug_assertions) { 19_531 } else { 2_441_406 });
}
