//! Takes a block apart into what is wrapped by itself: paragraphs, items of lists, rows of tables.
//! What is none of them is for the eye (code, drawings, rules, link definitions) and is left alone.

use super::comments::{Block, Kind};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) shape: Shape,
    /// Index of the first line in the block.
    pub(super) first: usize,
    /// The lines without prefix, indentation and marker of an item. Spaces at their ends are still
    /// there.
    pub(super) lines: Vec<String>,
    /// What stands before the first line after the prefix: a space, the indentation, the marker of
    /// an item.
    pub(super) lead: String,
    /// What stands before the other lines after the prefix.
    pub(super) hang: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A paragraph, or an item of a list.
    Prose,
    Heading,
    /// One row of a table.
    Row,
}

pub(super) fn units(block: &Block) -> Vec<Unit> {
    let mut parser = Parser { units: Vec::new(), open: false, fence: None, content: 0, after_blank: true };
    for (index, line) in block.lines.iter().enumerate() {
        parser.line(index, line, block.kind);
    }
    parser.units
}

struct Parser {
    units: Vec<Unit>,
    /// The last unit may go on.
    open: bool,
    /// Inside a code block that ends with this.
    fence: Option<&'static str>,
    /// Columns of indentation that the content of the current list item has.
    content: usize,
    after_blank: bool,
}

impl Parser {
    fn line(&mut self, index: usize, line: &str, kind: Kind) {
        let (space, text) = match (kind, line.strip_prefix(' ')) {
            (Kind::Markdown, _) => ("", line),
            (_, Some(text)) => (" ", text),
            (_, None) if line.trim().is_empty() => ("", ""),
            // `//text` is not how prose is written.
            (_, None) => return self.close(false),
        };
        let words = text.trim_start();
        let indent = text.len() - words.len();
        if let Some(fence) = self.fence {
            if words.trim_end() == fence {
                self.fence = None;
            }
            return;
        }
        if words.is_empty() {
            return self.close(true);
        }
        if let Some(fence) = ["```", "~~~"].into_iter().find(|fence| words.starts_with(fence)) {
            self.fence = Some(fence);
            return self.close(false);
        }
        if indent == 0 && self.after_blank {
            self.content = 0;
        }
        let is_code = !self.open && self.after_blank && indent >= self.content + 4;
        if is_code || is_for_the_eye(words) {
            // `after_blank` stays: the next line of an indented code block is code as well.
            self.open = false;
            return;
        }
        let unit = |shape, lead: String, hang: String, text: &str| Unit {
            shape,
            first: index,
            lines: vec![text.to_owned()],
            lead,
            hang,
        };
        let lead = format!("{space}{}", &text[..indent]);
        if words.starts_with('|') {
            self.units.push(unit(Shape::Row, lead.clone(), lead, words));
            return self.close(false);
        }
        if kind != Kind::Comment && words.trim_start_matches('#').starts_with(' ') && words.starts_with('#') {
            self.units.push(unit(Shape::Heading, lead.clone(), lead, words));
            return self.close(false);
        }
        let marker = length_of_item_marker(words);
        if marker > 0 {
            self.content = indent + marker;
            let hang = format!("{space}{}", " ".repeat(self.content));
            self.units.push(unit(Shape::Prose, format!("{lead}{}", &words[..marker]), hang, &words[marker..]));
        } else if self.open
            && let Some(last) = self.units.last_mut()
            && (last.lines.len() == 1 || last.hang == lead)
        {
            // The second line says how the unit hangs, where it differs from what is usual.
            last.hang = lead;
            last.lines.push(words.to_owned());
        } else {
            self.units.push(unit(Shape::Prose, lead.clone(), lead, words));
        }
        self.after_blank = false;
        // Markdown's hard line breaks.
        self.open = !text.ends_with("  ") && !text.ends_with('\\');
    }

    fn close(&mut self, blank: bool) {
        self.open = false;
        self.after_blank = blank;
    }
}

/// The length of `- `, `* `, `+ `, `1. ` or `1) ` with the spaces after it, 0 if the line begins no
/// item.
fn length_of_item_marker(words: &str) -> usize {
    let marker = words.split(' ').next().unwrap_or_default();
    let number = marker.strip_suffix(['.', ')']);
    let is_number = number.is_some_and(|n| !n.is_empty() && n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()));
    if !is_number && !["-", "*", "+"].contains(&marker) {
        return 0;
    }
    let content = words[marker.len()..].trim_start();
    if content.is_empty() { 0 } else { words.len() - content.len() }
}

/// Drawings, rules, transcripts, link definitions, quotations and HTML.
fn is_for_the_eye(words: &str) -> bool {
    let is_rule = words.chars().all(|c| "-=_*#~+. \t".contains(c));
    let is_drawing = words.trim_end().contains("   ") || words.contains(|c| ('\u{2500}'..'\u{2600}').contains(&c));
    let is_transcript = words.starts_with("C: ") || words.starts_with("S: ");
    let is_definition = words.starts_with('[') && words.contains("]: ");
    is_rule || is_drawing && !words.starts_with('|') || is_transcript || is_definition || words.starts_with(['>', '<'])
}

/// Would this word, at the begin of a line, be taken for something else than a word?
pub(super) fn is_structure(word: &str) -> bool {
    let marker = word.strip_suffix(['.', ')']).unwrap_or(word);
    let is_number = marker.len() < word.len() && !marker.is_empty() && marker.bytes().all(|b| b.is_ascii_digit());
    is_number
        || is_for_the_eye(word)
        || ["|", "#", "```", "~~~"].iter().any(|start| word.starts_with(start))
        || ["-", "*", "+", "C:", "S:"].contains(&word)
        || word.starts_with('[') && word.ends_with("]:")
}

#[cfg(test)]
mod tests {
    use super::super::comments::blocks;
    use super::*;

    /// The units of a file as `(shape, lead, hang, number of lines)`.
    #[track_caller]
    fn check(extension: &str, source: &str, expected: &[(Shape, &str, &str, usize)]) {
        let found: Vec<Unit> = blocks(extension, source).iter().flat_map(units).collect();
        let found: Vec<_> = found.iter().map(|u| (u.shape, u.lead.as_str(), u.hang.as_str(), u.lines.len())).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn paragraphs_items_and_tables_are_units() {
        use Shape::{Heading, Prose, Row};
        check("md", "a\nb\n\nc\n", &[(Prose, "", "", 2), (Prose, "", "", 1)]);
        check("md", "- a\n  b\n- c\n", &[(Prose, "- ", "  ", 2), (Prose, "- ", "  ", 1)]);
        check("md", "- a\nb\n", &[(Prose, "- ", "", 2)]);
        check("md", "10. a\n    b\n", &[(Prose, "10. ", "    ", 2)]);
        check("md", "# a\nb\n", &[(Heading, "", "", 1), (Prose, "", "", 1)]);
        check("md", "| a | b |\n|---|---|\n| c | d |\n", &[(Row, "", "", 1), (Row, "", "", 1), (Row, "", "", 1)]);
        check("rs", "/// a\n/// b\n///\n///   - c\n", &[(Prose, " ", " ", 2), (Prose, "   - ", "     ", 1)]);
    }

    #[test]
    fn code_and_drawings_are_no_units() {
        check("md", "```text\na\n\nb\n```\n", &[]);
        check("md", "    a\n    b\n", &[]);
        check("md", "- a\n\n      b\n", &[(Shape::Prose, "- ", "  ", 1)]);
        check("rs", "//! a   --->   b\n// -----\n//code()\n", &[]);
        check("rs", "/// C: EHLO a\n/// S: 250 b\n", &[]);
        check("md", "[a]: https://a.example/\n> quoted\n<br>\n", &[]);
    }

    #[test]
    fn a_change_of_indentation_ends_a_unit() {
        check("rs", "// a\n//   b\n//   c\n// d\n", &[(Shape::Prose, " ", "   ", 3), (Shape::Prose, " ", " ", 1)]);
        check(
            "md",
            "a  \nb\\\nc\n",
            &[(Shape::Prose, "", "", 1), (Shape::Prose, "", "", 1), (Shape::Prose, "", "", 1)],
        );
    }
}
