//! Lines, content and chunks, in any chunking.

use std::slice;

use posthaste_testkit::{
    choices::{Choices, Chunking},
    reference,
    wire::framing,
};
use posthaste_wire::{
    Command,
    frame::{ContentCheck, FaultKind, Frame, Framed, Framer, LineFault, SegmentList, Stuffer},
};
use proptest::{collection::vec, prelude::*, sample::select};

/// All sequences of up to three of them.
fn clean_contents() -> Vec<Vec<u8>> {
    let words: [&[u8]; 4] = [b"\r\n", b".", b"a", b".\r\n"];
    let mut contents = vec![Vec::new()];
    let mut start = 0;
    for _ in 0..3 {
        let end = contents.len();
        for index in start..end {
            contents.extend(words.map(|word| [&contents[index], word].concat()));
        }
        start = end;
    }
    contents
}

/// The content of each message of a stream, and the octets after the last one.
fn messages(mut stream: &[u8], max_line: Option<usize>, chunking: &Chunking) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let (found, fault) = framing::receive(stream, max_line, chunking.clone());
        assert_eq!(fault, None);
        let Some(end) = found.end else { return (messages, found.octets) };
        messages.push(found.octets);
        stream = &stream[end..];
    }
    (messages, Vec::new())
}

/// `content` with CRLF at its end.
fn terminated(mut content: Vec<u8>) -> Vec<u8> {
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        content.extend_from_slice(b"\r\n");
    }
    content
}

#[test]
fn several_stuffed_messages_are_framed_as_several() {
    let contents = clean_contents();
    let wires: Vec<_> =
        contents.iter().map(|content| framing::stuff(content, Stuffer::new(), Chunking::Whole).unwrap()).collect();
    let expected: Vec<_> = contents.into_iter().map(terminated).collect();
    for (chunking, max_line) in [(Chunking::Whole, None), (Chunking::Whole, Some(998)), (Chunking::Single, Some(998))] {
        assert_eq!(messages(&wires.concat(), max_line, &chunking), (expected.clone(), Vec::new()));
        for (first_wire, first) in wires.iter().zip(&expected) {
            for (second_wire, second) in wires.iter().zip(&expected) {
                let found = messages(&[first_wire.as_slice(), second_wire].concat(), max_line, &chunking);
                assert_eq!(found, (vec![first.clone(), second.clone()], Vec::new()));
            }
        }
    }
}

#[test]
fn a_stuffer_for_clean_content_is_strict_again_for_the_next_message() {
    let (mut stuffer, mut segments) = (Stuffer::for_clean_content(), SegmentList::new());
    assert_eq!(stuffer.stuff(b"taken as\nit is", &mut segments), Ok(14));
    assert!(segments.push_fixed(stuffer.finish().unwrap()));
    assert_eq!(stuffer.stuff(b"not\ntaken", &mut segments).unwrap_err().kind, FaultKind::BareLf);
}

#[test]
fn a_framer_for_clean_content_is_strict_again_for_the_next_message() {
    let mut framer = Framer::new(512);
    framer.expect_clean_content();
    assert_eq!(framer.next(b"a\nb\r\n.\r\n").frame, Frame::Content(0..5));
    assert_eq!(framer.next(b".\r\n").frame, Frame::End);
    assert_eq!(framer.fault(), None);
    framer.expect_content(998);
    assert_eq!(framer.next(b"a\nb\r\n.\r\n").frame, Frame::Content(0..5));
    assert_eq!(framer.fault().map(|fault| (fault.kind, fault.offset)), Some((FaultKind::BareLf, 1)));
}

/// The limit for lines, below and above the number of octets that are checked at once.
#[test]
fn a_line_may_have_max_line_octets_and_no_more() {
    for max_line in [0, 1, 2, 31, 32, 33, 63, 64, 65, 998] {
        for (octets, fault) in [(max_line, None), (max_line + 1, Some(FaultKind::LongLine))] {
            let before: &[u8] = if max_line == 0 { b"\r\n" } else { b"x\r\n" };
            let stream = [before, &b"x".repeat(octets), b"\r\n\r\n.\r\n"].concat();
            let fault = fault.map(|kind| (kind, (before.len() + max_line) as u64));
            let near = stream.len().saturating_sub(12)..stream.len();
            for chunking in [Chunking::Whole, Chunking::Single].into_iter().chain(near.map(Chunking::At)) {
                let (found, found_fault) = framing::receive(&stream, Some(max_line), chunking);
                assert_eq!((found.end, found_fault), (Some(stream.len()), fault), "{max_line} {octets}");
            }
        }
    }
}

/// A fault at every offset of lines that are long enough to be checked at once.
#[test]
fn a_fault_of_content_is_found_at_every_offset() {
    let clean = [&b"x".repeat(70)[..], b"\r\n", &b"y".repeat(40), b"\r\n"].concat();
    for at in 0..clean.len() {
        for octet in [b'\r', b'\n', 0] {
            let mut content = clean.clone();
            content[at] = octet;
            let stream = [content.as_slice(), b".\r\n"].concat();
            for chunking in [Chunking::Whole, Chunking::Single, Chunking::At(at), Chunking::At(at + 1)] {
                framing::received(&stream, slice::from_ref(&chunking));
                framing::sent(&content, slice::from_ref(&chunking));
            }
        }
    }
}

#[test]
fn a_chunk_takes_any_octets_and_ends_by_count() {
    // Cuts within CRLF, a dot first, an end of data, NUL: in a chunk they have no meaning.
    for octets in [&b""[..], b".", b"..\r\n", b"\r\n.\r\n", b"a\r", b"\nb", b"\0\r\0\n", b".\r\nQUIT\r\n"] {
        let stream = [octets, b"BDAT 0 LAST\r\nBDAT 0"].concat();
        for chunking in Chunking::all(stream.len()) {
            framing::lines(&stream, octets.len() as u64, chunking);
        }
    }
}

#[test]
fn a_chunk_of_no_octets_ends_at_once() {
    let mut framer = Framer::new(512);
    for input in [&b""[..], b"NOOP\r\n"] {
        framer.expect_chunk(0);
        assert!(!framer.is_at_line());
        assert_eq!(framer.next(input), Framed { consumed: 0, frame: Frame::End });
        assert!(framer.is_at_line());
    }
}

#[test]
fn a_chunk_of_the_largest_size_is_counted() {
    let mut framer = Framer::new(512);
    framer.expect_chunk(u64::MAX);
    for _ in 0..3 {
        assert_eq!(framer.next(b".\r\nx"), Framed { consumed: 4, frame: Frame::Content(0..4) });
        assert_eq!(framer.next(b""), Framed { consumed: 0, frame: Frame::Incomplete });
    }
    assert_eq!(framer.fault(), None);
}

#[test]
fn a_line_is_cut_at_crlf_and_refused_with_a_bare_lf() {
    let stream = b"NOOP\r\nNOOP\n\r\nNOOP a\rb\r\n0123456789abcd\r\n0123456789abcde\r\n\r\r\n\n";
    for chunking in Chunking::all(stream.len()) {
        framing::lines(stream, 0, chunking);
    }
}

#[test]
fn a_bare_cr_stays_in_the_line_and_the_parser_refuses_it() {
    let mut framer = Framer::new(512);
    let input = b"NOOP a\rb\r\n";
    let framed = framer.next(input);
    assert_eq!(framed.frame, Frame::Line(0..8));
    assert!(Command::parse(&input[..8]).is_err());
}

#[test]
fn octets_of_an_endless_line_are_counted_and_not_held() {
    let mut framer = Framer::new(512);
    let (piece, mut held) = ([b'x'; 100], 0);
    for _ in 0..100 {
        held += piece.len();
        held -= framer.next(&b"x".repeat(held)).consumed;
        assert!(held < 512);
    }
    assert_eq!(framer.discarded() + held, 10_000);
    let end = [&b"x".repeat(held)[..], b"\r\nNOOP\r\n"].concat();
    let framed = framer.next(&end);
    assert_eq!(framed.frame, Frame::BadLine(LineFault::TooLong { octets: 10_002 }));
    assert_eq!(framer.next(&end[framed.consumed..]).frame, Frame::Line(0..4));
}

/// 1 MiB in single octets. Few octets of content and chunks are shown twice. An unfinished line is
/// shown again and again; if the framer searches it again as well, this test takes minutes.
#[test]
fn input_in_single_octets_costs_linear_time() {
    let octets = 1 << 20;
    let expect = |framer: &mut Framer, what| match what {
        "content" => framer.expect_content(usize::MAX),
        "clean content" => framer.expect_clean_content(),
        "chunk" => framer.expect_chunk(u64::MAX),
        _ => {}
    };
    for pattern in [&b"x"[..], b"\r", b".\r\n."] {
        for what in ["line", "content", "clean content", "chunk"] {
            let mut framer = Framer::new(usize::MAX);
            expect(&mut framer, what);
            let stream: Vec<u8> = pattern.iter().copied().cycle().take(octets).collect();
            let (mut start, mut shown) = (0, 0);
            for end in 1..=octets {
                let framed = framer.next(&stream[start..end]);
                shown += end - start;
                start += framed.consumed;
                if framed.frame == Frame::End {
                    expect(&mut framer, what);
                }
            }
            assert!(what == "line" || shown <= 2 * octets, "{what}: {shown} octets were shown");
        }
    }
    let (mut check, mut stuffer) = (ContentCheck::new(998), Stuffer::new());
    for _ in 0..octets / 64 {
        for octet in b"..x..x\r\n".chunks(1) {
            check.check(octet).unwrap();
            assert_eq!(stuffer.stuff(octet, &mut SegmentList::new()), Ok(1));
        }
    }
}

/// Lines without CR, LF and NUL, each with its CRLF.
fn clean_content() -> impl Strategy<Value = Vec<u8>> {
    let line = vec(prop_oneof![4 => Just(b'.'), 8 => 1_u8..=255], 0..90)
        .prop_map(|line| line.into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect::<Vec<u8>>());
    vec(line, 0..40).prop_map(|lines| lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stuffed_content_is_unstuffed_to_itself(content in clean_content(), seed: u64) {
        let chunking = |seed| Chunking::Random(Choices::new(seed));
        let wire = framing::stuff(&content, Stuffer::new(), chunking(seed)).unwrap();
        prop_assert_eq!(&framing::stuff(&content, Stuffer::for_clean_content(), chunking(seed)).unwrap(), &wire);
        let expected = reference::Content { octets: content, end: Some(wire.len()) };
        for max_line in [Some(998), None] {
            prop_assert_eq!(framing::receive(&wire, max_line, chunking(seed ^ 1)), (expected.clone(), None));
        }
    }

    #[test]
    fn any_octets_are_framed_as_the_reference_does(octets in vec(any::<u8>(), 0..80)) {
        framing::framer(&octets);
    }

    #[test]
    fn octets_that_matter_are_framed_as_the_reference_does(octets in vec(select(&b"\r\n.\0xxxxxxxxxx"[..]), 0..300), seed: u64) {
        let chunkings = [Chunking::Whole, Chunking::Random(Choices::new(seed))];
        framing::received(&octets, &chunkings);
        framing::sent(&octets, &chunkings);
    }
}
