//! Inputs that could make a parser read the same octets again and again. Some are refused early, by
//! a limit or at their first octets, and are here so that this remains true.
//!
//! `growth OCTETS` gives every parser inputs of that size, and `cargo xtask instructions` counts.
//! Each line of its output is a name, a tab and `1`.

use std::{hint::black_box, process::ExitCode};

use posthaste_benches::{counted, parse};
use posthaste_wire::{
    Capabilities, Command, Domain, EhloName, Mailbox, Xtext,
    reply::{ReplyFramer, ReplyLimits},
};

fn main() -> ExitCode {
    let Some(octets) = std::env::args().nth(1).and_then(|octets| octets.parse().ok()) else {
        eprintln!("Usage: growth OCTETS; `cargo xtask instructions` runs it under valgrind.");
        return ExitCode::from(2);
    };

    for shape in COMMANDS {
        shape.count(octets, "command", |line| Command::parse(line.as_bytes()).is_ok());
    }
    // A known parameter that comes twice is refused, so these all differ.
    let mut line = String::from("MAIL FROM:<a@b>");
    let mut number = 0;
    while line.len() < octets {
        line.push_str(&format!(" X{number}=y"));
        number += 1;
    }
    count("command, different parameters", || Command::parse(black_box(line.as_bytes())).is_ok());

    for shape in MAILBOXES {
        shape.count(octets, "mailbox", |text| Mailbox::parse(text).is_ok());
    }
    for shape in DOMAINS {
        shape.count(octets, "domain", |text| Domain::parse(text).is_ok());
        shape.count(octets, "EHLO name", |text| EhloName::parse(text).is_ok());
    }
    for shape in XTEXTS {
        shape.count(octets, "xtext", |text| Xtext::parse(text).is_ok_and(|text| text.decode().is_empty()));
    }
    for shape in LINES {
        shape.count(octets, "lines", |lines| parse::commands(lines.as_bytes()) > 0);
        shape.count(octets, "lines, arriving", |lines| parse::growing(lines.as_bytes(), PIECE, usize::MAX) > 0);
        shape.count(octets, "lines, too long, arriving", |lines| parse::growing(lines.as_bytes(), PIECE, 512) > 0);
    }
    for shape in REPLIES {
        shape.count(octets, "reply", |lines| reply(lines.as_bytes(), octets));
        shape.count(octets, "reply, arriving", |lines| reply(lines.as_bytes(), PIECE));
    }
    for shape in CONTENTS {
        shape.count(octets, "content in", |wire| parse::content(wire.as_bytes(), octets) > 0);
        shape.count(octets, "content in, arriving", |wire| parse::content(wire.as_bytes(), PIECE) > 0);
        shape.count(octets, "content out", |content| {
            parse::stuff(content.as_bytes(), octets, |segments| {
                black_box(segments);
            });
            true
        });
    }
    ExitCode::SUCCESS
}

/// Text that is repeated up to a size, with a prefix and a suffix.
struct Shape(&'static str, &'static str, &'static str);

impl Shape {
    fn count(&self, octets: usize, parser: &str, parse: impl Fn(&str) -> bool) {
        let Self(before, repeated, after) = self;
        let times = octets.saturating_sub(before.len() + after.len()) / repeated.len();
        let text = format!("{before}{}{after}", repeated.repeat(times));
        count(&format!("{parser} {before:?} {repeated:?}... {after:?}"), || parse(black_box(&text)));
    }
}

fn count(name: &str, work: impl Fn() -> bool) {
    counted(&mut || {
        black_box(work());
    });
    println!("{name}\t1");
}

/// Frames a reply that arrives in pieces, without the limits that would end it early, and reads all
/// its parts.
fn reply(octets: &[u8], piece: usize) -> bool {
    let mut limits = ReplyLimits::default();
    (limits.line, limits.lines, limits.octets) = (usize::MAX, usize::MAX, usize::MAX);
    let mut framer = ReplyFramer::new(limits);
    let mut shown = 0;
    while shown < octets.len() {
        shown = octets.len().min(shown + piece);
        match framer.next(&octets[..shown]) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                black_box((reply.enhanced(), reply.lines().count(), reply.text()));
                black_box(Capabilities::from_reply(&reply));
                return true;
            }
            Err(_) => return false,
        }
    }
    false
}

/// Octets that arrive at once: few, so that a parser is called often.
const PIECE: usize = 50;
const COMMANDS: &[Shape] = &[
    Shape("", "A", ""),
    Shape("", " ", ""),
    Shape("NOOP", " ", ""),
    Shape("NOOP ", "\u{fc}", ""),
    Shape("BDAT", " ", "1 LAST"),
    Shape("BDAT ", "9", ""),
    Shape("AUTH PLAIN ", "AGFs", ""),
    Shape("AUTH", " A", ""),
    Shape("EHLO ", "a.", "a"),
    Shape("MAIL FROM:", " ", "<a@b>"),
    Shape("MAIL FROM:", "<", ""),
    Shape("MAIL FROM:<", "a", ""),
    Shape("MAIL FROM:<", "a.", "a@b>"),
    Shape("MAIL FROM:<a@", "b.", "b>"),
    Shape("MAIL FROM:<a", "@", "b>"),
    Shape("MAIL FROM:<", "\"", "@b>"),
    Shape("MAIL FROM:<\"", "\\\"", "\"@b>"),
    Shape("MAIL FROM:<\"", "\\", ""),
    Shape("MAIL FROM:<\"", "a>", ""),
    Shape("MAIL FROM:<", "@b,", "@b:a@b>"),
    Shape("MAIL FROM:<", "@b,", ""),
    Shape("MAIL FROM:<", "@b:", "a@b>"),
    Shape("MAIL FROM:<@", "b.", "b:a@b>"),
    Shape("MAIL FROM:<a@b>", " ", ""),
    Shape("MAIL FROM:<a@b>", " \t", "x"),
    Shape("MAIL FROM:<a@b>", " X", ""),
    Shape("MAIL FROM:<a@b>", "    X", ""),
    Shape("MAIL FROM:<a@b> ", "X=y", ""),
    Shape("MAIL FROM:<a@b>", " SIZE=1", ""),
    Shape("MAIL FROM:<a@b> SIZE=", "0", ""),
    Shape("MAIL FROM:<a@b> ENVID=", "+2B", ""),
    Shape("MAIL FROM:<a@b> AUTH=", "+2B", ""),
    Shape("MAIL FROM:<a@b> X=", "\u{fc}", ""),
    Shape("RCPT TO:<", "@b,", "@b:a@b>"),
    Shape("RCPT TO:<a@b>", " X", ""),
    Shape("RCPT TO:<a@b> NOTIFY=", "SUCCESS,", "DELAY"),
    Shape("RCPT TO:<a@b> NOTIFY=", ",", ""),
    Shape("RCPT TO:<a@b> ORCPT=", "a", ";a"),
    Shape("RCPT TO:<a@b> ORCPT=rfc822;", "+2B", ""),
    Shape("RCPT TO:<a@b> ORCPT=", ";", ""),
];
const MAILBOXES: &[Shape] = &[
    Shape("", "a", "@b"),
    Shape("", "a.", "a@b"),
    Shape("", "\u{fc}", "@b"),
    Shape("", "@", ""),
    Shape("a@", "b.", "b"),
    Shape("\"", "\\\"", "\"@b"),
    Shape("\"", "a ", "\"@b"),
    Shape("", "\"", "@b"),
    Shape("", "a@b,", "a@b"),
];
const DOMAINS: &[Shape] = &[
    Shape("", "a", ""),
    Shape("", "a.", "a"),
    Shape("", "a-", "a"),
    Shape("", "\u{fc}.", "b"),
    Shape("[IPv6:", "0:", ":1]"),
    Shape("[", "1.", "1]"),
    Shape("[tag:", "x", "]"),
    Shape("", "[", ""),
];
const XTEXTS: &[Shape] = &[Shape("", "a", ""), Shape("", "+2B", ""), Shape("", "+", "")];
const LINES: &[Shape] =
    &[Shape("", "NOOP\r\n", ""), Shape("", "\n", ""), Shape("", "\r", "\r\n"), Shape("", "x", "\r\n")];
const REPLIES: &[Shape] = &[
    Shape("", "250-x\r\n", "250 x\r\n"),
    Shape("", "250-AUTH PLAIN\r\n", "250 x\r\n"),
    Shape("250-x\r\n250 AUTH", " PLAIN", "\r\n"),
    Shape("250 ", "x", "\r\n"),
    Shape("250-2.0.0 x\r\n", "250-2.0.0 x\r\n", "250 2.0.0 x\r\n"),
    Shape("250-\u{fc}\r\n", "250-\u{fc}\r\n", "250 x\r\n"),
    Shape("250-x\r\n250 ", "=", "\r\n"),
    Shape("", "\r", ""),
];
const CONTENTS: &[Shape] = &[
    Shape("", "x", "\r\n.\r\n"),
    Shape("", "some line\r\n", ".\r\n"),
    Shape("", "..\r\n", ".\r\n"),
    Shape("", ".", "\r\n.\r\n"),
    Shape("", "\r\n", ".\r\n"),
    Shape("", "\r", ""),
    Shape("", "\n", ""),
    Shape("", "\r\n.\r", ""),
    Shape("", "\0", "\r\n.\r\n"),
];
