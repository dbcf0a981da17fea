//! Parts that the benchmarks share: the octets to work on, and the loops that drive our parsers.
//!
//! Rates on a shared machine are good to a factor of two, ratios within one run to about 15 %. The
//! program `instructions` counts instead: see `cargo xtask instructions --help`.

pub mod parse;

use std::hint::black_box;

/// The function that callgrind counts, found by its name. callgrind writes a count each time it
/// returns. It must remain a function, and return by itself instead of jumping to `work`.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// Lines for a parser.
#[derive(Debug)]
pub struct Corpus {
    /// The kind of lines.
    pub name: &'static str,
    /// The lines, each with its CRLF.
    pub octets: Vec<u8>,
    /// The number of commands or replies.
    pub count: usize,
}

impl Corpus {
    fn new<I: IntoIterator<Item = String>>(name: &'static str, lines: I) -> Self {
        let mut corpus = Self { name, octets: Vec::new(), count: 0 };
        for line in lines {
            corpus.octets.extend_from_slice(line.as_bytes());
            corpus.count += 1;
        }
        corpus
    }
}

/// A corpus for each kind of command, in 64 variations.
#[must_use]
pub fn single_commands() -> Vec<Corpus> {
    let many = |name, line: fn(usize) -> String| Corpus::new(name, (0..64).map(line));
    vec![
        many("EHLO", ehlo),
        many("MAIL", mail),
        many("MAIL SIZE BODY", mail_size),
        many("MAIL DSN", mail_dsn),
        many("RCPT", rcpt),
        many("RCPT DSN", rcpt_dsn),
        many("DATA", |_| "DATA\r\n".to_owned()),
        many("BDAT", |i| bdat(1_000 + i * 64, i % 4 == 3)),
        many("AUTH PLAIN", |_| AUTH.to_owned()),
        many("RSET", |_| "RSET\r\n".to_owned()),
        many("NOOP", |_| "NOOP\r\n".to_owned()),
        many("QUIT", |_| "QUIT\r\n".to_owned()),
    ]
}

/// Pipelined conversations from EHLO to QUIT: 20 transactions of 5 recipients; 4 of 50 recipients
/// with every DSN parameter; AUTH and 10 transactions of 10 recipients with DSN and BDAT.
#[must_use]
pub fn command_streams() -> Vec<Corpus> {
    let transactions = |count, recipients, mail: fn(usize) -> String, rcpt: fn(usize) -> String, content: &[String]| {
        let mut lines = Vec::new();
        for i in 0..count {
            lines.push(mail(i * 11));
            lines.extend((0..recipients).map(|j| rcpt(i * recipients + j)));
            lines.extend_from_slice(content);
        }
        lines
    };
    let stream = |name, before: &[String], transactions: Vec<String>| {
        let after = ["RSET\r\n", "NOOP\r\n", "QUIT\r\n"].map(str::to_owned);
        Corpus::new(name, [ehlo(0)].iter().chain(before).chain(&transactions).chain(&after).cloned())
    };
    let data = ["DATA\r\n".to_owned()];
    let chunks = [bdat(65_536, false), bdat(1_234, true)];
    vec![
        stream("stream", &[], transactions(20, 5, mail_size, rcpt, &data)),
        stream("stream DSN", &[], transactions(4, 50, mail_dsn, rcpt_dsn, &data)),
        stream("stream full", &[AUTH.to_owned()], transactions(10, 10, mail_dsn, rcpt_dsn, &chunks)),
    ]
}

/// Replies to MAIL, RCPT, DATA and the end of the content.
#[must_use]
pub fn short_replies() -> Corpus {
    Corpus::new(
        "1 line",
        (0..64).map(|i| match i % 4 {
            0 => "250 2.1.0 Ok\r\n".to_owned(),
            1 => "250 2.1.5 Destination address valid\r\n".to_owned(),
            2 => "354 End data with <CR><LF>.<CR><LF>\r\n".to_owned(),
            _ => format!("250 2.0.0 Ok: queued as 4XyZ{i:06}abc\r\n"),
        }),
    )
}

/// Replies to EHLO, of 11 lines each.
#[must_use]
pub fn hello_replies() -> Corpus {
    let reply = "250-mx.example.com Hello client.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-ETRN\r\n\
        250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
        250-SMTPUTF8\r\n250 CHUNKING\r\n";
    Corpus::new("11 lines", (0..16).map(|_| reply.to_owned()))
}

/// Message content of about `octets` octets, in lines of 76 octets as in MIME. Every `dotted`-th
/// line begins with a dot.
#[must_use]
pub fn content(octets: usize, dotted: Option<usize>) -> Vec<u8> {
    let mut content = Vec::with_capacity(octets + 78);
    for line in 1.. {
        if content.len() >= octets {
            break;
        }
        let first = if dotted.is_some_and(|every| line % every == 0) { b'.' } else { b'a' };
        content.push(first);
        content.extend((1..76).map(|column: u8| b'a' + column % 26));
        content.extend_from_slice(b"\r\n");
    }
    content
}

// Names that all peers accept.
const DOMAINS: [&str; 6] =
    ["example.com", "mail.example.org", "mx1.region-4.example.net", "a.example", "sub.example.co", "lists.example.io"];
const LOCAL_PARTS: [&str; 5] = ["alice", "bob.smith", "carol+news", "d", "bounce-12345-67890-abcdef"];

const AUTH: &str = "AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAGNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==\r\n";

/// The `i`-th mailbox.
#[must_use]
pub fn address(i: usize) -> String {
    format!("{}{}@{}", LOCAL_PARTS[i % LOCAL_PARTS.len()], i % 97, DOMAINS[i % DOMAINS.len()])
}

fn ehlo(i: usize) -> String {
    format!("EHLO {}\r\n", DOMAINS[i % DOMAINS.len()])
}

fn mail(i: usize) -> String {
    format!("MAIL FROM:<{}>\r\n", address(i))
}

fn mail_size(i: usize) -> String {
    format!("MAIL FROM:<{}> SIZE={} BODY=8BITMIME\r\n", address(i), 1000 + i * 37)
}

fn mail_dsn(i: usize) -> String {
    let size = 1000 + i * 37;
    format!("MAIL FROM:<{}> SIZE={size} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ{i:08}+2Dx\r\n", address(i))
}

fn rcpt(i: usize) -> String {
    format!("RCPT TO:<{}>\r\n", address(i))
}

fn rcpt_dsn(i: usize) -> String {
    let address = address(i);
    let original = address.replace('+', "+2B");
    format!("RCPT TO:<{address}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{original}\r\n")
}

fn bdat(size: usize, last: bool) -> String {
    format!("BDAT {size}{}\r\n", if last { " LAST" } else { "" })
}
