//! Reading tables of clauses.

use posthaste_testkit::transcript::unescape;

/// One row: what stands left and right of the arrow, and the whole row for a message.
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) input: Vec<u8>,
    pub(crate) expected: String,
}

/// The rows of a table, which are not its comments. `\u{…}` is a character, the rest as in a transcript.
pub(crate) fn rows(table: &str) -> Vec<Row> {
    let rows = table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (row, why) = line.rsplit_once(" | ").unwrap_or_else(|| panic!("no reason: {line:?}"));
        assert!(why.len() > 3, "{line:?}");
        let (input, expected) = row.split_once("=> ").unwrap_or_else(|| panic!("no arrow: {line:?}"));
        let expected = String::from_utf8(octets(expected)).expect("text");
        Row { text: line.to_owned(), input: octets(input.strip_suffix(' ').unwrap_or(input)), expected }
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
