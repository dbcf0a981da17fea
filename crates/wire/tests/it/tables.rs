//! The clauses of the RFCs as rows: `commands.txt`, `tolerance.txt`, `addresses.txt` and
//! `xtext.txt`.

use bytes::BytesMut;
use posthaste_testkit::{
    rows::{Row, rows},
    wire::{lines, replies, tolerance},
};
use posthaste_wire::{Command, Mailbox, SyntaxError, Utf8Xtext, Xtext, address::AddressLiteral, command::Tolerance};

/// Compares every row with the result for its input, and shows all that differ.
fn check(table: &str, least: usize, found: impl Fn(&[u8]) -> Vec<u8>) {
    let rows = rows(table);
    assert!(rows.len() >= least, "{} rows", rows.len());
    let mut failures = String::new();
    for Row { text, input, outcome } in rows {
        let (found, expected) = (found(&input), if outcome == b"same" { &input } else { &outcome });
        if found != *expected {
            failures += &format!("{text}\n    found: {}\n", found.escape_ascii());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// The reply's codes, and the offset of the fault or the end.
fn refusal(error: &SyntaxError) -> String {
    let reply = error.reply();
    let enhanced = reply.enhanced().expect("every refusal has one");
    format!("{} {enhanced} {}", reply.code(), place(error))
}

fn place(error: &SyntaxError) -> String {
    format!("{} {}", if error.cut_off { "cut off at" } else { "at" }, error.offset)
}

#[test]
fn commands_are_as_their_rows_say() {
    check(include_str!("../commands.txt"), 450, |line| match Command::parse(line) {
        Ok(command) => {
            let mut out = BytesMut::new();
            command.encode(&mut out).unwrap_or_else(|error| panic!("{}: {error}", line.escape_ascii()));
            out.strip_suffix(b"\r\n").expect("a line").to_vec()
        }
        Err(error) => refusal(&error).into_bytes(),
    });
}

#[test]
fn each_departure_is_taken_with_its_switch_and_refused_without_it() {
    check(include_str!("../tolerance.txt"), 150, |row| {
        let space = row.iter().position(|octet| *octet == b' ').expect("a space");
        let (switches, line) = (str::from_utf8(&row[..space]).expect("names"), &row[space + 1..]);
        let with = |switches: &Tolerance| tolerance::taken(switches, line);
        let (none, all) = (with(&Tolerance::STRICT), with(&Tolerance::SUBMISSION));
        let found = match switches {
            "never" => all.map_or(Ok("refused".into()), Err),
            "strict" => {
                if none == all {
                    all.ok_or_else(|| "refused".into())
                } else {
                    Err(format!("{none:?} {all:?}"))
                }
            }
            names => {
                let (mut these, mut wrong) = (Tolerance::STRICT, String::new());
                for name in names.split('+') {
                    *tolerance::switch(&mut these, name) = true;
                    let mut others = Tolerance::SUBMISSION;
                    *tolerance::switch(&mut others, name) = false;
                    wrong.extend(with(&others).map(|line| format!("without {name}: {line} ")));
                }
                wrong.extend(none.map(|line| format!("with none: {line}")));
                match with(&these) {
                    Some(line) if wrong.is_empty() && all.as_ref() == Some(&line) => Ok(line),
                    line => Err(format!("{line:?}, with all: {all:?} {wrong}")),
                }
            }
        };
        found.unwrap_or_else(|wrong| wrong).into_bytes()
    });
}

#[test]
fn addresses_are_as_their_rows_say() {
    check(include_str!("../addresses.txt"), 130, |text| {
        let found = match Mailbox::parse(str::from_utf8(text).expect("text")) {
            Ok(mailbox) => {
                let (local, domain) = (mailbox.unquoted_local_part(), mailbox.domain());
                match domain.address_literal() {
                    None => format!("{local} @ {domain}"),
                    Some(AddressLiteral::Ip(address)) => format!("{local} @ ip {address}"),
                    Some(AddressLiteral::General { tag, content }) => format!("{local} @ general {tag} {content}"),
                    Some(other) => panic!("{other:?}"),
                }
            }
            Err(error) => refusal(&error),
        };
        found.into_bytes()
    });
}

#[test]
fn xtext_is_as_its_rows_say() {
    check(include_str!("../xtext.txt"), 80, |row| {
        let space = row.iter().position(|octet| *octet == b' ').expect("a space");
        let (what, input) = (&row[..space], &row[space + 1..]);
        let text = || str::from_utf8(input).expect("text");
        let found = match what {
            b"xtext" => Xtext::parse(text()).map(|text| text.decode().into_owned()),
            b"utf-8" => Utf8Xtext::parse(text()).map(|text| text.decode().into_owned().into_bytes()),
            b"to-xtext" => Xtext::encode(input).map(|text| text.as_str().into()),
            b"to-utf-8" => Utf8Xtext::encode(text()).map(|text| text.as_str().into()),
            _ => panic!("{}", what.escape_ascii()),
        };
        found.unwrap_or_else(|error| {
            let place = place(&error);
            if error.cut_off { place } else { format!("wrong {place}") }.into_bytes()
        })
    });
}

/// The properties of any line hold for the rows of the tables.
#[test]
fn every_row_holds_what_holds_for_any_line() {
    for (table, body) in [
        (include_str!("../commands.txt"), lines::command as fn(&[u8])),
        (include_str!("../commands.txt"), tolerance::tolerance),
        (include_str!("../tolerance.txt"), tolerance::tolerance),
        (include_str!("../addresses.txt"), lines::address),
        (include_str!("../xtext.txt"), lines::address),
        (include_str!("../replies.txt"), replies::reply),
    ] {
        for row in rows(table) {
            // The output has the failing row before the panic.
            println!("{}", row.text);
            // In a table of texts the input follows the name of its type.
            let text = row.input.iter().position(|octet| *octet == b' ').map_or(0, |space| space + 1);
            body(&row.input);
            body(&row.input[text..]);
        }
    }
}
