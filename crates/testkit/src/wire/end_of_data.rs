//! Reads the table of sequences that could end content.

use posthaste_wire::frame::FaultKind;

use crate::unescape::unescape;

/// A sequence of octets in content.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The octets before those of the row.
    pub before: &'static [u8],
    /// The sequence.
    pub octets: Vec<u8>,
    /// What a receiver makes of it.
    pub receiving: Verdict,
    /// What a sender makes of it.
    pub sending: Verdict,
}

/// What becomes of a sequence.
#[derive(Debug)]
pub struct Verdict {
    /// `true`: the content ends within it.
    pub ends: bool,
    /// The result for the octets.
    pub becomes: Option<Vec<u8>>,
    /// The first fault.
    pub fault: Option<FaultKind>,
}

impl Verdict {
    fn parse(word: &str) -> Self {
        let fault = |word: &str| match word {
            "bare-cr" => FaultKind::BareCr,
            "bare-lf" => FaultKind::BareLf,
            "nul" => FaultKind::Nul,
            other => panic!("no such verdict: {other}"),
        };
        let (first, rest) = word.split_once(['+', '=']).unwrap_or((word, ""));
        let none = Self { ends: false, becomes: None, fault: None };
        match first {
            "end" => Self { ends: true, fault: (!rest.is_empty()).then(|| fault(rest)), ..none },
            "content" | "stuffed" => Self { becomes: Some(unescape(rest)), ..none },
            _ => Self { fault: Some(fault(first)), ..none },
        }
    }
}

/// The rows of `crates/wire/tests/end_of_data.txt`, which explains them.
///
/// # Panics
/// A line is not a row.
pub fn rows(table: &str) -> Vec<Row> {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("{line:?}"));
        let name = word().to_owned();
        Row {
            before: if name.starts_with("first:") { b"" } else { b"line1" },
            // Every row is also tried in single octets, the smallest segments.
            octets: unescape(&word().replace('/', "")),
            receiving: Verdict::parse(word()),
            sending: Verdict::parse(word()),
            name,
        }
    });
    rows.collect()
}
