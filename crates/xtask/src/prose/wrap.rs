//! Wraps what is wider than [`WIDTH`]: from the first line that is too wide to the end of its
//! paragraph or item.

use super::comments::{Block, Kind, blocks};
use super::units::{Shape, Unit, is_structure, units};

/// Columns of a line of prose, with everything that stands before it.
pub(super) const WIDTH: usize = 100;

/// A code span up to this many columns stays on one line.
const CODE_SPAN: usize = 60;

/// What is never divided: a word, a short code span, a word with what must not begin a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Index of the line that it begins on.
    pub(super) line: usize,
}

/// The file with its prose wrapped. A second run changes nothing.
pub(super) fn wrapped(extension: &str, source: &str) -> String {
    let mut lines: Vec<String> = source.split('\n').map(str::to_owned).collect();
    // From the last to the first: the indices of earlier lines stay true.
    for block in blocks(extension, source).iter().rev().filter(|block| block.kind != Kind::Trailing) {
        for unit in units(block).iter().rev() {
            let Some(wide) = too_wide(block, unit).next() else {
                continue;
            };
            let first = block.first + unit.first;
            let range = first + wide..first + unit.lines.len();
            lines.splice(range, filled(block, unit, wide));
        }
    }
    lines.join("\n")
}

/// The lines of the unit that are too wide and can be wrapped, as indices in the unit.
pub(super) fn too_wide<'a>(block: &'a Block, unit: &'a Unit) -> impl Iterator<Item = usize> + 'a {
    (0..unit.lines.len()).filter(move |&index| {
        let before = if index == 0 { &unit.lead } else { &unit.hang };
        let line = unit.lines[index].trim_end();
        let width = columns(&block.prefix) + columns(before) + columns(line);
        unit.shape == Shape::Prose && width > WIDTH && words(&unit.lines[index..=index]).len() > 1
    })
}

/// The lines of the unit from this index on, filled.
fn filled(block: &Block, unit: &Unit, from: usize) -> Vec<String> {
    let mut before = if from == 0 { &unit.lead } else { &unit.hang };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(&unit.lines[from..]) {
        if line.is_empty() {
            line = format!("{}{before}{}", block.prefix, word.text);
        } else if columns(&line) + 1 + columns(&word.text) <= WIDTH {
            line = format!("{line} {}", word.text);
        } else {
            before = &unit.hang;
            lines.push(std::mem::replace(&mut line, format!("{}{before}{}", block.prefix, word.text)));
        }
    }
    if unit.lines.last().is_some_and(|last| last.ends_with("  ")) {
        // A hard line break.
        line.push_str("  ");
    }
    lines.push(line);
    lines
}

pub(super) fn words(lines: &[String]) -> Vec<Word> {
    let text: Vec<(usize, char)> =
        lines.iter().enumerate().flat_map(|(index, line)| line.chars().chain([' ']).map(move |c| (index, c))).collect();
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut at = 0;
    while let Some(&(line, c)) = text.get(at) {
        if c == ' ' {
            words.extend(word.take());
            at += 1;
            continue;
        }
        let length = if c == '`' { length_of_code_span(&text[at..]) } else { 1 };
        let part: String = text[at..at + length].iter().map(|&(_, c)| c).collect();
        word.get_or_insert_with(|| Word { text: String::new(), line }).text.push_str(&part);
        at += length;
    }
    let mut glued: Vec<Word> = Vec::new();
    for word in words {
        match glued.last_mut() {
            Some(last) if is_structure(&word.text) => last.text = format!("{} {}", last.text, word.text),
            _ => glued.push(word),
        }
    }
    glued
}

/// The length of the code span that begins here, or of the run of backticks if it is none or a long
/// one.
fn length_of_code_span(text: &[(usize, char)]) -> usize {
    let ticks = |at: usize| text[at..].iter().take_while(|&&(_, c)| c == '`').count();
    let opening = ticks(0);
    let mut at = opening;
    while at < text.len() {
        match ticks(at) {
            0 => at += 1,
            closing if closing == opening => {
                let length = at + closing;
                return if length <= CODE_SPAN { length } else { opening };
            }
            other => at += other,
        }
    }
    opening
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 80 columns.
    const LONG: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";

    #[track_caller]
    fn check(extension: &str, source: &str, expected: &str) {
        let once = wrapped(extension, source);
        assert_eq!(once, expected);
        assert_eq!(wrapped(extension, &once), once, "a second run changes nothing");
    }

    #[track_caller]
    fn unchanged(extension: &str, source: &str) {
        check(extension, source, source);
    }

    #[test]
    fn a_paragraph_is_wrapped_from_its_first_wide_line() {
        let source = format!("/// short\n/// {LONG} fifteen Sixteenth\n/// eighteen\n///\n/// next\nfn f() {{}}\n");
        let expected = format!("/// short\n/// {LONG} fifteen\n/// Sixteenth eighteen\n///\n/// next\nfn f() {{}}\n");
        check("rs", &source, &expected);
    }

    #[test]
    fn items_keep_how_they_hang() {
        let source =
            format!("//! - {LONG} fifteen sixteen\n//!   eighteen\n//! - short\n//! 1. {LONG} 15 16 17 18 19 20\n");
        let expected = format!(
            "//! - {LONG} fifteen\n//!   sixteen eighteen\n//! - short\n//! 1. {LONG} 15 16 17 18\n//!    19 20\n"
        );
        check("rs", &source, &expected);
    }

    #[test]
    fn what_would_begin_a_list_does_not_begin_a_line() {
        let source = format!("{LONG} 15 16 17 18 19 200 - 22\n");
        let expected = format!("{LONG} 15 16 17 18 19\n200 - 22\n");
        check("md", &source, &expected);
    }

    #[test]
    fn code_spans_are_not_divided_unless_they_are_long() {
        check("md", &format!("{LONG} fifteen 16 `a b c d`\n"), &format!("{LONG} fifteen 16\n`a b c d`\n"));
        let long = "b ".repeat(40);
        let wrapped = wrapped("md", &format!("{LONG} `{long}`\n"));
        assert!(wrapped.starts_with(&format!("{LONG} `b b")), "{wrapped}");
    }

    #[test]
    fn what_is_no_paragraph_stays() {
        unchanged("md", &format!("| {LONG} | {LONG} |\n|---|---|\n"));
        unchanged("md", &format!("```\n{LONG} {LONG}\n```\n\n    {LONG} {LONG}\n"));
        unchanged("md", &format!("# {LONG} {LONG}\n"));
        unchanged("md", &format!("[a]: https://a.example/{} \"a b\"\n", "a".repeat(100)));
        unchanged("md", &format!("https://a.example/{}\n", "a".repeat(100)));
        unchanged("rs", &format!("// {LONG}   <--- {LONG}\n"));
        unchanged("rs", &format!("//{}\n// {}\n", "-".repeat(110), "-".repeat(110)));
        unchanged("rs", &format!("let a = \"\n// {LONG} {LONG}\n\";\n"));
        unchanged("rs", &format!("f(); // {LONG} {LONG}\n"));
        unchanged("rs", &format!("/// ```\n/// // {LONG} {LONG}\n/// ```\n"));
        unchanged("toml", &format!("a = \"# {LONG} {LONG}\"\n"));
    }

    #[test]
    fn hard_line_breaks_stay() {
        let source = format!("{LONG} 15 16 17 18 19 20 21  \nnext\n");
        check("md", &source, &format!("{LONG} 15 16 17 18 19 20\n21  \nnext\n"));
        unchanged("md", "short  \nnext\n");
    }
}
