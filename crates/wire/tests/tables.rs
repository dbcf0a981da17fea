//! The clauses of the RFCs as rows: `commands.txt` and `addresses.txt`.

mod support;

use bytes::BytesMut;
use posthaste_wire::{Command, Mailbox, SyntaxError};
use support::{syntax, unescape::unescape};

/// What stands left and right of the arrow. `\u{…}` is a character, the rest as in a transcript.
fn rows(table: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let rows = table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (row, why) = line.rsplit_once(" | ").unwrap_or_else(|| panic!("no reason: {line:?}"));
        assert!(why.len() > 3, "{line:?}");
        let (input, expected) = row.split_once("=> ").unwrap_or_else(|| panic!("no arrow: {line:?}"));
        (line.to_owned(), octets(input.strip_suffix(' ').unwrap_or(input)), octets(expected))
    });
    rows.collect()
}

fn octets(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\u{");
    let mut octets = unescape(parts.next().unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_once('}').expect("a closing brace");
        let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).expect("a character");
        octets.extend(character.to_string().bytes());
        octets.extend(unescape(rest));
    }
    octets
}

/// The reply's codes, and where the text is wrong or cut off.
fn refusal(error: &SyntaxError) -> String {
    let reply = error.reply();
    let enhanced = reply.as_ref().enhanced().expect("every refusal has one");
    format!("{} {enhanced} {} {}", reply.code(), if error.cut_off { "cut off at" } else { "at" }, error.offset)
}

#[test]
fn commands() {
    let rows = rows(include_str!("commands.txt"));
    assert!(rows.len() > 120);
    for (row, line, expected) in rows {
        syntax::command(&line);
        let found = match Command::parse(&line) {
            Ok(command) => {
                let mut out = BytesMut::new();
                command.encode(&mut out).unwrap_or_else(|error| panic!("{row}: {error}"));
                out.strip_suffix(b"\r\n").expect("a line").to_vec()
            }
            Err(error) => refusal(&error).into_bytes(),
        };
        let expected = if expected == b"same" { &line } else { &expected };
        assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{row}");
    }
}

#[test]
fn addresses() {
    for (row, text, expected) in rows(include_str!("addresses.txt")) {
        syntax::address(&text);
        let text = String::from_utf8(text).expect("text");
        let found = match Mailbox::parse(&text) {
            Ok(mailbox) => format!("{} @ {}", mailbox.unquoted_local_part(), mailbox.domain()),
            Err(error) => refusal(&error),
        };
        assert_eq!(found, String::from_utf8_lossy(&expected), "{row}");
    }
}

#[test]
fn lengths_count_octets() {
    let mailbox = |local: usize, domain: usize| {
        let label = "d".repeat(49);
        let domain =
            format!("{}d", format!("{label}.").repeat(domain / 50)) + &"d".repeat((domain % 50).saturating_sub(1));
        format!("{}@{domain}", "a".repeat(local))
    };
    assert!(Mailbox::parse(&mailbox(64, 250)).is_ok(), "RFC 5321 4.5.3.1.1");
    assert!(Mailbox::parse(&mailbox(65, 10)).is_err(), "RFC 5321 4.5.3.1.1");
    assert!(Mailbox::parse(&format!("{}@d", "\u{e9}".repeat(32))).is_ok());
    assert!(Mailbox::parse(&format!("{}@d", "\u{e9}".repeat(33))).is_err(), "octets, not characters");
    assert!(Mailbox::parse(&mailbox(1, 305)).is_err(), "RFC 5321 4.5.3.1.2");
    let path = |octets: usize| format!("RCPT TO:<{}>", mailbox(octets - 2 - 1 - 202, 202));
    assert!(Command::parse(path(256).as_bytes()).is_ok(), "RFC 5321 4.5.3.1.3");
    assert!(Command::parse(path(257).as_bytes()).is_err(), "RFC 5321 4.5.3.1.3");
}
