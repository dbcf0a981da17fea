//! The usual work of the parsers, which `cargo xtask instructions` counts. Each line of the output
//! is a name, a tab, and the number of items to divide the count by.

use std::hint::black_box;

use posthaste_benches::{
    Corpus, address, command_streams, content, counted, hello_replies, parse, short_replies, single_commands,
};

fn main() {
    for corpus in single_commands().into_iter().chain(command_streams()) {
        count_whole("command", &corpus, parse::commands);
    }
    count_whole("reply", &short_replies(), parse::replies);
    count_whole("reply", &hello_replies(), parse::replies);
    count_whole("capabilities", &hello_replies(), parse::capabilities);

    let mailboxes: Vec<String> = (0..64).map(address).collect();
    let mailboxes = mailboxes.join("\n");
    count("mailbox", 64, || parse::mailboxes(black_box(&mailboxes)));

    let lines = mailboxes.replace('\n', "\r\n");
    count("an octet of a line, one at a time", lines.len(), || parse::growing(black_box(lines.as_bytes()), 1, 2_048));
    let wire = parse::stuffed(&content(4 * 1_024, None));
    count("an octet of content, one at a time", wire.len(), || parse::content(black_box(&wire), 1));

    for (name, dotted) in [("64 KiB", None), ("64 KiB, dotted", Some(20))] {
        let content = content(WINDOW, dotted);
        let wire = parse::stuffed(&content);
        count(&format!("content in, {name}"), 1, || parse::content(black_box(&wire), WINDOW));
        count(&format!("content out, {name}"), 1, || {
            parse::stuff(black_box(&content), WINDOW, |segments| {
                black_box(segments);
            });
        });
    }
}

/// Counts a whole corpus. Refusals would be cheap, so the parser has to accept all of it.
fn count_whole(parser: &str, corpus: &Corpus, parse: fn(&[u8]) -> usize) {
    assert_eq!(parse(&corpus.octets), corpus.count, "{parser} {}", corpus.name);
    count(&format!("{parser} {}", corpus.name), corpus.count, || parse(black_box(&corpus.octets)));
}

/// Counts the second run. The first run detects the instructions of the machine, and warms the
/// allocator.
fn count<T>(name: &str, items: usize, mut work: impl FnMut() -> T) {
    black_box(work());
    counted(&mut || {
        black_box(work());
    });
    println!("{name}\t{items}");
}

const WINDOW: usize = 64 * 1_024;
