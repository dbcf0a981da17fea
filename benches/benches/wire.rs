//! The parser and the framing beside other parsers, on the same octets in the same run. Plain
//! searches are the floors. Ours is called `posthaste`; `cargo xtask bench` prints the others in
//! proportion to it.

mod settings;

use std::{hint::black_box, slice::Iter};

use criterion::{Criterion, Throughput};
use memchr::{memchr_iter, memmem};
use posthaste_benches::{Corpus, parse};
use posthaste_wire::{
    command::MAX_COMMAND_LINE,
    frame::{Frame, Framer, SegmentList, Stuffer},
};
use smtp_proto::{
    EhloResponse,
    request::receiver::{DataReceiver, DummyDataReceiver, RequestReceiver},
    response::parser::ResponseReceiver,
};

fn main() {
    let mut criterion = settings::criterion();
    commands(&mut criterion);
    replies(&mut criterion);
    received_content(&mut criterion);
    sent_content(&mut criterion);
    criterion.final_summary();
}

/// Framing and parsing, from the octets of a connection to typed commands.
fn commands(criterion: &mut Criterion) {
    for corpus in posthaste_benches::single_commands().into_iter().chain(posthaste_benches::command_streams()) {
        let parsers: &[Parser] = &[
            (OURS, parse::commands),
            ("smtp-proto", smtp_proto_commands),
            ("smtp-message", smtp_message_commands),
            ("smtp-codec", smtp_codec_commands),
            ("floor: memchr LF", count_lines),
        ];
        compare(criterion, "command", &corpus, parsers);
    }
}

/// The peers return owned text, except smtp-codec, which only recognizes a reply.
fn replies(criterion: &mut Criterion) {
    let parsers: &[Parser] = &[
        (OURS, parse::replies),
        ("smtp-proto", smtp_proto_replies),
        ("smtp-message", smtp_message_replies),
        ("smtp-codec", smtp_codec_replies),
    ];
    let hello = posthaste_benches::hello_replies();
    compare(criterion, "reply", &posthaste_benches::short_replies(), parsers);
    compare(criterion, "reply", &hello, parsers);
    let parsers: &[Parser] = &[
        (OURS, parse::capabilities),
        ("smtp-proto", smtp_proto_capabilities),
        ("smtp-codec", smtp_codec_capabilities),
    ];
    compare(criterion, "capabilities", &hello, parsers);
}

/// From the octets after 354 to content. smtp-proto searches for the end only, as ours does for
/// clean content. Otherwise ours also finds bare CR, bare LF, NUL and overlong lines.
fn received_content(criterion: &mut Criterion) {
    for (name, dotted) in [("content in", None), ("content in, dotted", Some(20))] {
        let mut wire = stuffed(&posthaste_benches::content(1 << 20, dotted));
        wire.extend_from_slice(b"QUIT\r\n");
        let (end, wire) = (wire.len() - b"QUIT\r\n".len(), wire);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::BytesDecimal(end as u64));
        for (name, expect) in
            [("posthaste", expect_content as fn(&mut Framer)), ("posthaste, clean", Framer::expect_clean_content)]
        {
            group.bench_function(name, |bencher| bencher.iter(|| frame_content(black_box(&wire), expect)));
        }
        group.bench_function("smtp-proto, scan", |bencher| {
            bencher.iter(|| {
                let mut receiver = DummyDataReceiver::new_data(&DataReceiver::new());
                assert!(black_box(&wire[..end]).chunks(WINDOW).any(|chunk| receiver.ingest(&mut chunk.iter())));
            });
        });
        let mut copy = Vec::with_capacity(wire.len());
        group.bench_function("smtp-proto, copy", |bencher| {
            bencher.iter(|| {
                copy.clear();
                let mut receiver = DataReceiver::new();
                assert!(
                    black_box(&wire[..end]).chunks(WINDOW).any(|chunk| receiver.ingest(&mut chunk.iter(), &mut copy))
                );
            });
        });
        let finder = memmem::Finder::new(b"\r\n.");
        group.bench_function("floor: memmem CRLF dot", |bencher| {
            bencher.iter(|| finder.find_iter(black_box(&wire[..end])).count());
        });
        group.bench_function("floor: memchr LF", |bencher| bencher.iter(|| visit_lines(black_box(&wire[..end]))));
        group.finish();
    }
}

/// From content to the segments that a client writes, with stuffed dots. smtp-proto has no
/// counterpart.
fn sent_content(criterion: &mut Criterion) {
    for (name, dotted) in [("content out", None), ("content out, dotted", Some(20))] {
        let content = posthaste_benches::content(1 << 20, dotted);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::BytesDecimal(content.len() as u64));
        for (name, stuffer) in [("posthaste", Stuffer::new()), ("posthaste, clean", Stuffer::for_clean_content())] {
            group.bench_function(name, |bencher| bencher.iter(|| stuff(black_box(&content), stuffer.clone(), |_| {})));
        }
        let finder = memmem::Finder::new(b"\r\n.");
        group.bench_function("floor: memmem CRLF dot", |bencher| {
            bencher.iter(|| finder.find_iter(black_box(&content)).count());
        });
        group.bench_function("floor: memchr LF", |bencher| bencher.iter(|| visit_lines(black_box(&content))));
        group.finish();
    }
}

/// A parser of a corpus. Returns the number of commands or replies before the first that it
/// refused.
type Parser = (&'static str, fn(&[u8]) -> usize);

/// Runs parsers over the same octets. A peer that refuses some is left out: its time would be that
/// of errors.
fn compare(criterion: &mut Criterion, layer: &str, corpus: &Corpus, parsers: &[Parser]) {
    let mut group = criterion.benchmark_group(format!("{layer} {}", corpus.name));
    group.throughput(Throughput::ElementsAndBytes { elements: corpus.count as u64, bytes: corpus.octets.len() as u64 });
    for (name, parser) in parsers {
        if parser(&corpus.octets) == corpus.count {
            group.bench_function(*name, |bencher| bencher.iter(|| parser(black_box(&corpus.octets))));
        } else {
            assert_ne!(*name, OURS, "{layer} {} must be taken whole", corpus.name);
            eprintln!("{layer} {}: {name} refuses some of the octets and is left out", corpus.name);
        }
    }
    group.finish();
}

fn count_lines(input: &[u8]) -> usize {
    memchr_iter(b'\n', input).map(black_box).count()
}

fn smtp_proto_commands(input: &[u8]) -> usize {
    let mut receiver = RequestReceiver::default();
    each_of(input.iter(), |octets| black_box(&receiver.ingest(octets)).is_ok())
}

fn smtp_proto_replies(input: &[u8]) -> usize {
    let mut receiver = ResponseReceiver::default();
    each_of(input.iter(), |octets| {
        let parsed = black_box(&receiver.parse(octets)).is_ok();
        receiver.reset();
        parsed
    })
}

fn smtp_proto_capabilities(input: &[u8]) -> usize {
    each_of(input.iter(), |octets| black_box(&EhloResponse::<String>::parse(octets)).is_ok())
}

fn each_of(mut octets: Iter<'_, u8>, mut parse: impl FnMut(&mut Iter<'_, u8>) -> bool) -> usize {
    let mut good = 0;
    while !octets.as_slice().is_empty() && parse(&mut octets) {
        good += 1;
    }
    good
}

fn smtp_message_commands(input: &[u8]) -> usize {
    each_front(input, |rest| smtp_message::Command::<&str>::parse(rest).ok())
}

fn smtp_message_replies(input: &[u8]) -> usize {
    each_front(input, |rest| smtp_message::Reply::<&str>::parse(rest).ok())
}

fn smtp_codec_commands(input: &[u8]) -> usize {
    each_front(input, |rest| smtp_codec::parse::command::command(rest).ok())
}

fn smtp_codec_replies(input: &[u8]) -> usize {
    each_front(input, |rest| smtp_codec::parse::response::Reply_line(rest).ok())
}

fn smtp_codec_capabilities(input: &[u8]) -> usize {
    each_front(input, |rest| smtp_codec::parse::response::ehlo_ok_rsp(rest).ok())
}

/// Drives parsers that return the rest of the input.
fn each_front<'a, T>(mut input: &'a [u8], mut parse: impl FnMut(&'a [u8]) -> Option<(&'a [u8], T)>) -> usize {
    let mut good = 0;
    while !input.is_empty() {
        let Some((rest, found)) = parse(input) else { break };
        black_box(&found);
        input = rest;
        good += 1;
    }
    good
}

/// Frames content as a connection with a buffer of 64 KiB does. Returns its octets.
fn frame_content(wire: &[u8], expect: fn(&mut Framer)) -> usize {
    let mut framer = Framer::new(MAX_COMMAND_LINE);
    expect(&mut framer);
    let (mut at, mut octets) = (0, 0);
    loop {
        let end = wire.len().min(at + WINDOW);
        let framed = framer.next(&wire[at..end]);
        match framed.frame {
            Frame::Content(range) => octets += black_box(range).len(),
            Frame::End => break,
            other => unreachable!("{other:?}"),
        }
        at += framed.consumed;
    }
    assert_eq!(framer.fault(), None);
    octets
}

const fn expect_content(framer: &mut Framer) {
    framer.expect_content(998);
}

fn stuff(content: &[u8], mut stuffer: Stuffer, mut write: impl FnMut(&SegmentList<'_>)) {
    for mut piece in content.chunks(WINDOW) {
        while !piece.is_empty() {
            let mut segments = SegmentList::new();
            let taken = stuffer.stuff(piece, &mut segments).expect("clean content");
            piece = &piece[taken..];
            write(black_box(&segments));
        }
    }
    let mut segments = SegmentList::new();
    assert!(segments.push_fixed(stuffer.finish().expect("clean content")));
    write(&segments);
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    stuff(content, Stuffer::new(), |segments| {
        segments.as_slice().iter().for_each(|segment| wire.extend_from_slice(segment.as_bytes()));
    });
    wire
}

fn visit_lines(octets: &[u8]) -> usize {
    memchr_iter(b'\n', octets).fold(0, |sum, at| sum ^ black_box(at))
}

const OURS: &str = "posthaste";
const WINDOW: usize = 64 * 1_024;
