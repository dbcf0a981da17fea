//! Content ends at CRLF.CRLF and nowhere else: the sequences of `end_of_data.txt` in both directions, and every string
//! over the octets that matter.

use posthaste_testkit::{choices::Chunking, fuzz, reference, transcript::unescape};
use posthaste_wire::frame::FaultKind;

struct Row {
    name: String,
    octets: Vec<u8>,
    ends: bool,
    fault: Option<FaultKind>,
}

fn rows() -> Vec<Row> {
    let rows = include_str!("end_of_data.txt").lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("{line:?}"));
        let (name, octets, verdict) = (word().to_owned(), word(), word());
        let octets = unescape(octets);
        let fault = match verdict {
            "end" | "content" => None,
            "bare-cr" => Some(FaultKind::BareCr),
            "bare-lf" => Some(FaultKind::BareLf),
            "nul" => Some(FaultKind::Nul),
            other => panic!("{name}: no such verdict: {other}"),
        };
        Row { name, octets, ends: verdict == "end", fault }
    });
    rows.collect()
}

#[test]
fn received() {
    for Row { name, octets, ends, fault } in rows() {
        let before: &[u8] = if name.starts_with("first:") { b"" } else { b"line1" };
        let stream = [before, &octets, b"line2\r\n.\r\nNOOP\r\n"].concat();
        let expected = reference::content(&stream);
        let true_end = stream.len() - b"NOOP\r\n".len();
        if ends {
            assert!(expected.end.unwrap() <= before.len() + octets.len(), "{name}");
        } else {
            assert_eq!((expected.end, expected.fault.map(|(kind, _)| kind)), (Some(true_end), fault), "{name}");
        }
        for chunking in Chunking::all(stream.len()) {
            fuzz::compare(&stream, &expected, chunking);
        }
    }
}

#[test]
fn sent() {
    for Row { name, octets, .. } in rows() {
        let before: &[u8] = if name.starts_with("first:") { b"" } else { b"line1" };
        let content = [before, &octets, b"line2\r\n"].concat();
        fuzz::stuffer(&content);
        if let Ok(wire) = fuzz::stuff(&content, Chunking::Whole) {
            let back = reference::content(&wire);
            assert_eq!((back.end, back.fault, back.octets), (Some(wire.len()), None, content), "{name}");
        }
    }
}

/// Every string over CR, LF, dot, NUL and a letter: up to 7 octets in a debug build (98 thousand strings), up to 9 in
/// a release build (2.4 million); whole, octet by octet, and split at every position.
#[test]
fn every_string_over_the_octets_that_matter() {
    let longest = if cfg!(debug_assertions) { 7 } else { 9 };
    let mut strings = 0_u64;
    let mut string = Vec::new();
    for length in 0..=longest {
        let count = 5_u64.pow(length);
        strings += count;
        for number in 0..count {
            let mut rest = number;
            string.clear();
            for _ in 0..length {
                string.push(b"\r\n.\0a"[(rest % 5) as usize]);
                rest /= 5;
            }
            let expected = reference::content(&string);
            for chunking in Chunking::all(string.len()) {
                fuzz::compare(&string, &expected, chunking);
            }
            fuzz::stuffer(&string);
        }
    }
    assert!(strings >= 97_656);
}
