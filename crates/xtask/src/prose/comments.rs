//! Finds the prose of a file: blocks of comments in Rust and TOML, the whole of a Markdown file.

use std::ops::Range;

/// Lines that belong together: neighbors with the same marker at the same column, or a file of
/// Markdown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// What stands before the text of each line: `    ///`, or an empty string in Markdown.
    pub(super) prefix: String,
    /// Index of the first line in the file.
    pub(super) first: usize,
    /// The lines without their prefix. In Rust and TOML the space after the marker is still there.
    pub(super) lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `///` and `//!`.
    Doc,
    /// `//`, and `#` in TOML.
    Comment,
    /// A comment after code on its line. It is checked and never wrapped.
    Trailing,
    Markdown,
}

pub(super) fn blocks(extension: &str, source: &str) -> Vec<Block> {
    match extension {
        "rs" => of_rust(source),
        "toml" => of_toml(source),
        _ => vec![Block {
            kind: Kind::Markdown,
            prefix: String::new(),
            first: 0,
            lines: source.lines().map(str::to_owned).collect(),
        }],
    }
}

fn of_rust(source: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut line = 0;
    let mut counted = 0;
    for comment in line_comments(source) {
        line += source[counted..comment.start].matches('\n').count();
        counted = comment.start;
        let before = &source[source[..comment.start].rfind('\n').map_or(0, |at| at + 1)..comment.start];
        let text = &source[comment];
        let slashes = text.len() - text.trim_start_matches('/').len();
        let (kind, marker) = match (slashes, text.as_bytes().get(2)) {
            (2, Some(b'!')) => (Kind::Doc, "//!"),
            (3, _) => (Kind::Doc, "///"),
            (2, _) => (Kind::Comment, "//"),
            _ => continue,
        };
        let rest = text[marker.len()..].to_owned();
        if before.trim().is_empty() {
            push(&mut blocks, kind, format!("{before}{marker}"), line, rest);
        } else {
            let prefix = format!("{before}{marker}");
            blocks.push(Block { kind: Kind::Trailing, prefix, first: line, lines: vec![rest] });
        }
    }
    blocks
}

fn of_toml(source: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (line, text) in source.lines().enumerate() {
        if let Some((before, rest)) = text.split_once('#')
            && before.trim().is_empty()
        {
            push(&mut blocks, Kind::Comment, format!("{before}#"), line, rest.to_owned());
        }
    }
    blocks
}

/// Adds a line to the last block if it continues it, otherwise begins a block.
fn push(blocks: &mut Vec<Block>, kind: Kind, prefix: String, line: usize, rest: String) {
    match blocks.last_mut() {
        Some(last) if last.kind == kind && last.prefix == prefix && last.first + last.lines.len() == line => {
            last.lines.push(rest);
        }
        _ => blocks.push(Block { kind, prefix, first: line, lines: vec![rest] }),
    }
}

/// Where `//` begins a comment, to the end of its line: not inside strings, characters or `/* */`.
fn line_comments(source: &str) -> Vec<Range<usize>> {
    const BEGINS: [char; 4] = ['/', '"', '\'', 'r'];
    let mut found = Vec::new();
    let mut at = source.find(BEGINS).unwrap_or(source.len());
    while at < source.len() {
        let rest = &source[at..];
        let end = if rest.starts_with("//") {
            let end = rest.find('\n').map_or(source.len(), |length| at + length);
            found.push(at..end);
            end
        } else if rest.starts_with("/*") {
            at + length_of_block_comment(rest)
        } else if let Some(length) = length_of_raw_string(source, at) {
            at + length
        } else if rest.starts_with('"') {
            at + length_of_string(rest)
        } else if rest.starts_with('\'') {
            at + length_of_character(rest)
        } else {
            at + 1
        };
        at = source[end..].find(BEGINS).map_or(source.len(), |found| end + found);
    }
    found
}

fn length_of_block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    // The loop looks at bytes; a block comment that is not closed ends with the file.
    at.min(rest.len())
}

/// `r"…"`, `r#"…"#`, and the same after `b` or `c`.
fn length_of_raw_string(source: &str, at: usize) -> Option<usize> {
    let rest = &source[at..];
    let after = rest.strip_prefix('r')?;
    let before = source[..at].trim_end_matches(['b', 'c']);
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = content.find(&close).map_or(content.len(), |found| found + close.len());
    Some(1 + hashes + 1 + end)
}

fn length_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character, or the tick alone if it begins a lifetime.
fn length_of_character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // The character after the backslash may be the tick itself.
            chars.next();
            chars.find(|&(_, c)| c == '\'').map_or(rest.len(), |(at, _)| at + 1)
        }
        Some(_) if chars.next().is_some_and(|(_, c)| c == '\'') => {
            rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn comments(source: &str, expected: &[&str]) {
        let found: Vec<&str> = line_comments(source).into_iter().map(|range| &source[range]).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn slashes_in_literals_are_no_comments() {
        comments("let a = \"// no\"; // yes", &["// yes"]);
        comments(r#"let a = "\"// no"; // yes"#, &["// yes"]);
        comments("let a = r\"\\\"; // yes", &["// yes"]);
        comments("let a = r##\"\"# // no\"##; // yes", &["// yes"]);
        comments("let a = br\"\\\"; // yes", &["// yes"]);
        comments("let a = b'\"'; // yes", &["// yes"]);
        comments(r"let a = '\''; // yes", &["// yes"]);
        comments("let a = '\"'; // yes \"", &["// yes \""]);
        comments("fn a<'a>(b: &'a str) {} // it's", &["// it's"]);
        comments("let s = '\u{e9}'; // yes", &["// yes"]);
        comments("/* // no /* */ // no */ // yes", &["// yes"]);
        comments("let str = \"a\nb // no\";\n// yes\n", &["// yes"]);
        comments("var\"// no\" // yes", &["// yes"]);
    }

    #[test]
    fn neighbors_with_one_marker_are_a_block() {
        let source = "//! a\n//! b\n\n/// c\n// d\n    // e\nf(); // g\n// h\n";
        let blocks = of_rust(source);
        let shapes: Vec<_> = blocks.iter().map(|b| (b.kind, b.prefix.as_str(), b.first, b.lines.len())).collect();
        let expected = [
            (Kind::Doc, "//!", 0, 2),
            (Kind::Doc, "///", 3, 1),
            (Kind::Comment, "//", 4, 1),
            (Kind::Comment, "    //", 5, 1),
            (Kind::Trailing, "f(); //", 6, 1),
            (Kind::Comment, "//", 7, 1),
        ];
        assert_eq!(shapes, expected);
        assert_eq!(of_toml("a = 1 # b\n# c\n# d\n").len(), 1);
    }
}
