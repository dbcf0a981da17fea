//! Reads the tables in `crates/wire/tests`. `commands.txt` there explains their format.

use crate::unescape::unescape;

/// One row of a table.
#[derive(Debug)]
pub struct Row {
    /// The row in the file.
    pub text: String,
    /// The octets before the arrow.
    pub input: Vec<u8>,
    /// The octets after the arrow.
    pub outcome: Vec<u8>,
}

/// The rows of a table.
///
/// # Panics
/// When a line is not a row.
pub fn rows(table: &str) -> Vec<Row> {
    let rows = table.lines().filter(|line| !line.is_empty() && *line != "#" && !line.starts_with("# ")).map(|line| {
        let (row, reason) = line.rsplit_once(" | ").unwrap_or_else(|| panic!("no reason: {line:?}"));
        assert!(reason.len() > 3, "{line:?}");
        let (input, outcome) = row.rsplit_once(" => ").unwrap_or_else(|| panic!("no arrow: {line:?}"));
        Row { text: line.to_owned(), input: unescape(input), outcome: unescape(outcome) }
    });
    rows.collect()
}
