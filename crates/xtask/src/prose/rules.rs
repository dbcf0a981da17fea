//! What the check finds in a file.

use super::comments::{Block, Kind, blocks};
use super::units::{Shape, Unit, units};
use super::wrap::{WIDTH, Word, too_wide, words};

/// Words of a sentence in documentation. The rule says 25; the check leaves room for what counts
/// words otherwise.
const SENTENCE: usize = 30;

const ACTOR: &str = "name the actor: peer, client, next hop, handler, caller, operator";
const AMERICAN: &str = "American spelling";

/// Words and phrases that are not used, each with what to do.
const BANNED: &[(&str, &str)] = &[
    ("nobody", ACTOR),
    ("no one", ACTOR),
    ("whoever", ACTOR),
    ("whomever", ACTOR),
    ("who comes", ACTOR),
    ("somebody", ACTOR),
    ("someone", ACTOR),
    ("anybody", ACTOR),
    ("anyone", ACTOR),
    ("anew", "say `again`"),
    ("so many", "say `n`, or give the number a name"),
    ("be it", "say `if`"),
    ("behaviour", AMERICAN),
    ("colour", AMERICAN),
    ("honour", AMERICAN),
    ("licence", AMERICAN),
    ("licences", AMERICAN),
    ("neighbour", AMERICAN),
    ("recognise", AMERICAN),
    ("recognised", AMERICAN),
    ("normalise", AMERICAN),
    ("normalised", AMERICAN),
    ("internationalised", AMERICAN),
    ("vectorised", AMERICAN),
    ("standardised", AMERICAN),
    ("serialise", AMERICAN),
    ("serialised", AMERICAN),
];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) what: String,
    pub(super) remedy: String,
}

/// In the order of the lines.
pub(super) fn findings(extension: &str, source: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for block in blocks(extension, source) {
        for unit in units(&block) {
            check(&block, &unit, &mut found);
        }
    }
    found.sort_by_key(|finding| finding.line);
    found
}

fn check(block: &Block, unit: &Unit, found: &mut Vec<Finding>) {
    let mut report = |line: usize, what: String, remedy: &str| {
        found.push(Finding { line: block.first + unit.first + line + 1, what, remedy: remedy.to_owned() });
    };
    for line in too_wide(block, unit) {
        let remedy = if block.kind == Kind::Trailing {
            "put the comment above the code"
        } else {
            "`cargo xtask prose --fix-width FILE` wraps it"
        };
        report(line, format!("a comment beyond column {WIDTH}"), remedy);
    }
    let words: Vec<Word> = words(&unit.lines);
    let plain: Vec<String> = words.iter().map(|word| plain(&word.text)).collect();
    for (phrase, remedy) in BANNED {
        let phrase_words: Vec<&str> = phrase.split(' ').collect();
        for (at, window) in plain.windows(phrase_words.len()).enumerate() {
            if window == phrase_words {
                report(words[at].line, format!("the word `{phrase}`"), remedy);
            }
        }
    }
    if matches!(block.kind, Kind::Comment | Kind::Trailing) {
        return;
    }
    if plain.iter().find(|word| !word.is_empty()).is_some_and(|word| word == "whether") {
        let remedy = "begin with a verb or a noun: \"Returns `true` if ..\", \"`true`: ..\"";
        report(words[0].line, "documentation that begins with `Whether`".into(), remedy);
    }
    for sentence in sentences(&words, unit.shape) {
        let count = sentence.iter().filter(|word| word.text.contains(char::is_alphanumeric)).count();
        if count > SENTENCE {
            let remedy = "one fact a sentence: the rule, then the exception, then the reason";
            report(sentence[0].line, format!("a sentence of {count} words, {SENTENCE} at most"), remedy);
        }
    }
}

/// The word in lower case without punctuation and emphasis; of a code span, what cannot be in the
/// table.
fn plain(word: &str) -> String {
    if word.contains('`') {
        return "`".into();
    }
    let word = word.split("](").next().unwrap_or_default().trim_matches(|c: char| !c.is_alphanumeric());
    word.strip_suffix("'s").unwrap_or(word).to_lowercase()
}

/// The words, divided after each word that ends a sentence. A cell of a table is never one sentence
/// with the next.
fn sentences(words: &[Word], shape: Shape) -> Vec<&[Word]> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map(|next| next.text.as_str());
        let is_end = next.is_none_or(|next| ends_sentence(&word.text, next))
            || shape == Shape::Row && (word.text.ends_with('|') || next.is_some_and(|next| next.starts_with('|')));
        if is_end {
            sentences.push(&words[start..=at]);
            start = at + 1;
        }
    }
    sentences
}

fn ends_sentence(word: &str, next: &str) -> bool {
    const ABBREVIATIONS: &[&str] = &["e.g.", "i.e.", "cf.", "vs.", "no.", "sec.", "section."];
    let word = word.trim_end_matches([')', '"', '\'', '*', '_', ']', '\u{201d}']);
    let begins = |c: char| c.is_uppercase() || c.is_ascii_digit() || "`[\"'(*_\u{201c}".contains(c);
    word.ends_with(['.', '!', '?'])
        && !ABBREVIATIONS.contains(&word.trim_start_matches('(').to_lowercase().as_str())
        && next.starts_with(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(extension: &str, source: &str, expected: &[(usize, &str)]) {
        let found = findings(extension, source);
        let found: Vec<_> = found.iter().map(|finding| (finding.line, finding.what.as_str())).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn words_are_found_in_comments_and_not_in_code() {
        check("rs", "// Nobody's\nlet nobody = \"nobody\"; // so\n", &[(1, "the word `nobody`")]);
        check("rs", "// `nobody` and nobodys and so much\n", &[]);
        check("rs", "//! There are so\n//! many.\n", &[(1, "the word `so many`")]);
        check("md", "| a | *anew*, |\n", &[(1, "the word `anew`")]);
        check("md", "```\nnobody\n```\n", &[]);
        check("toml", "# Somebody\na = 1\n", &[(1, "the word `somebody`")]);
    }

    #[test]
    fn documentation_does_not_begin_with_whether() {
        let what = "documentation that begins with `Whether`";
        check("rs", "/// Whether a is b.\n", &[(1, what)]);
        check("rs", "/// Says\n/// whether a is b.\n", &[]);
        check("rs", "// Whether a is b is not known.\n", &[]);
        check("md", "a\n\n- Whether\n", &[(3, what)]);
    }

    #[test]
    fn long_sentences_are_found_in_documentation() {
        let long = " w".repeat(30);
        let what = "a sentence of 31 words, 30 at most";
        check("md", &format!("A b.\nW{long}\n"), &[(2, what)]);
        check("md", &format!("A b. W{}\n", " w".repeat(29)), &[]);
        check("rs", &format!("// {}\n", "word word\n// ".repeat(16)), &[]);
        let half = "w ".repeat(20);
        check("md", &format!("{half}e.g.\n{half}\n"), &[(1, "a sentence of 41 words, 30 at most")]);
        check("md", &format!("| {half} | {half} |\n- {half}\n- {half}\n"), &[]);
        check("md", &format!("{half} `a. B` `{half}`\n"), &[]);
    }

    #[test]
    fn a_comment_is_not_wider_than_it_may_be() {
        let wide = "word ".repeat(21);
        check("rs", &format!("// {wide}\n"), &[(1, "a comment beyond column 100")]);
        check("rs", &format!("f(); // {wide}\n"), &[(1, "a comment beyond column 100")]);
        check("rs", &format!("let a = \"{wide}\";\n"), &[]);
        check("md", &format!("{}\n", "a".repeat(101)), &[]);
    }
}
