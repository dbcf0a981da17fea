//! The parser and the framing, beside smtp-proto on the same octets in the same run, and beside plain searches as floors.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use memchr::{memchr_iter, memmem};
use posthaste_benches::Corpus;
use posthaste_wire::{
    Capabilities, Command, ReplyRef,
    command::MAX_COMMAND_LINE,
    frame::{Frame, Framer, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};
use smtp_proto::{
    EhloResponse,
    request::receiver::{DataReceiver, DummyDataReceiver, RequestReceiver},
    response::parser::ResponseReceiver,
};

fn main() {
    let mut criterion = posthaste_benches::criterion();
    commands(&mut criterion);
    replies(&mut criterion);
    received_content(&mut criterion);
    sent_content(&mut criterion);
    criterion.final_summary();
}

/// Framing and parsing, from the octets of a connection to typed commands.
fn commands(criterion: &mut Criterion) {
    for corpus in posthaste_benches::single_commands().into_iter().chain(posthaste_benches::command_streams()) {
        compare(
            criterion,
            "command",
            &corpus,
            &[("posthaste", parse_commands), ("smtp-proto", peer_commands), ("floor: memchr LF", count_lines)],
        );
    }
}

fn replies(criterion: &mut Criterion) {
    let short = posthaste_benches::short_replies();
    compare(criterion, "reply", &short, &[("posthaste", parse_replies), ("smtp-proto, owned", peer_replies)]);
    let hello = posthaste_benches::hello_replies();
    compare(criterion, "reply", &hello, &[("posthaste", parse_replies), ("smtp-proto, owned", peer_replies)]);
    compare(criterion, "capabilities", &hello, &[("posthaste", capabilities), ("smtp-proto", peer_capabilities)]);
}

/// From the octets behind 354 to content. smtp-proto looks for the end alone, as ours does for content that is known to be
/// clean; otherwise ours also finds bare CR, bare LF, NUL and lines that are too long.
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

/// From content to the segments that a client writes, dots stuffed. smtp-proto has no counterpart.
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

/// A way to take a corpus apart: how many commands or replies it found good.
type Parser = (&'static str, fn(&[u8]) -> usize);

/// Runs parsers over the same octets, having made sure that each of them takes all of it.
fn compare(criterion: &mut Criterion, layer: &str, corpus: &Corpus, parsers: &[Parser]) {
    let mut group = criterion.benchmark_group(format!("{layer} {}", corpus.name));
    group.throughput(Throughput::ElementsAndBytes { elements: corpus.count as u64, bytes: corpus.octets.len() as u64 });
    for (name, parser) in parsers {
        assert_eq!(parser(&corpus.octets), corpus.count, "{name} does not take {}", corpus.name);
        group.bench_function(*name, |bencher| bencher.iter(|| parser(black_box(&corpus.octets))));
    }
    group.finish();
}

fn parse_commands(mut input: &[u8]) -> usize {
    let mut framer = Framer::new(MAX_COMMAND_LINE);
    let mut good = 0;
    loop {
        let framed = framer.next(input);
        let Frame::Line(line) = framed.frame else { return good };
        good += usize::from(black_box(Command::parse(&input[line])).is_ok());
        input = &input[framed.consumed..];
    }
}

fn peer_commands(input: &[u8]) -> usize {
    let mut receiver = RequestReceiver::default();
    let mut octets = input.iter();
    let mut good = 0;
    while !octets.as_slice().is_empty() {
        good += usize::from(black_box(receiver.ingest(&mut octets)).is_ok());
    }
    good
}

fn count_lines(input: &[u8]) -> usize {
    memchr_iter(b'\n', input).map(black_box).count()
}

/// Each reply with its code and its enhanced code.
fn parse_replies(input: &[u8]) -> usize {
    each_reply(input, |reply| {
        black_box((reply.code(), reply.enhanced()));
    })
}

fn capabilities(input: &[u8]) -> usize {
    each_reply(input, |reply| {
        black_box(Capabilities::from_reply(&reply));
    })
}

fn each_reply(mut input: &[u8], mut each: impl FnMut(ReplyRef<'_>)) -> usize {
    let mut framer = ReplyFramer::new(ReplyLimits::default());
    let mut good = 0;
    while let Ok(Some(reply)) = framer.next(input) {
        input = &input[reply.as_bytes().len()..];
        each(reply);
        good += 1;
    }
    good
}

fn peer_replies(input: &[u8]) -> usize {
    let mut receiver = ResponseReceiver::default();
    let mut octets = input.iter();
    let mut good = 0;
    while !octets.as_slice().is_empty() {
        good += usize::from(black_box(receiver.parse(&mut octets)).is_ok());
        receiver.reset();
    }
    good
}

fn peer_capabilities(input: &[u8]) -> usize {
    let mut octets = input.iter();
    let mut good = 0;
    while !octets.as_slice().is_empty() {
        good += usize::from(black_box(EhloResponse::<String>::parse(&mut octets)).is_ok());
    }
    good
}

/// Octets of content, read as a connection with a buffer of 64 KiB would.
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
    stuffer.finish(&mut segments).expect("clean content");
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

const WINDOW: usize = 64 * 1_024;
