//! What is wrong with a configuration: file, line, key, problem, remedy.

use std::fmt;

/// Everything that was found, in the order of the lines. It never shows the value of a secret.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The configuration, and the lists that it names.
    sources: Vec<Source>,
    found: Vec<Finding>,
}

/// A file.
#[derive(Debug)]
struct Source {
    name: String,
    /// Where each line of it starts.
    lines: Vec<usize>,
}

#[derive(Debug)]
struct Finding {
    key: &'static str,
    source: usize,
    /// `None`: it is about something that is missing.
    line: Option<usize>,
    severity: Severity,
    text: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// The relay does not start with it.
    Error,
    /// It is most likely not what the operator meant.
    Warning,
}

/// A key, or a table, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) key: &'static str,
    pub(super) offset: Option<usize>,
    /// The file, by its number. 0: the configuration.
    pub(super) source: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl Place {
    /// A key that is not written down.
    pub(super) const fn absent(key: &'static str) -> Self {
        Self { key, offset: None, source: 0 }
    }

    /// A place in the configuration.
    pub(super) const fn of(key: &'static str, offset: Option<usize>) -> Self {
        Self { key, offset, source: 0 }
    }
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let starts = text.match_indices('\n').map(|(end, _)| end + 1);
        Self { name: name.to_owned(), lines: std::iter::once(0).chain(starts).collect() }
    }

    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }
}

impl Findings {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { sources: vec![Source::new(name, text)], found: Vec::new() }
    }

    /// Adds a file that has places of its own, and returns its number.
    pub(super) fn add_source(&mut self, name: &str, text: &str) -> usize {
        self.sources.push(Source::new(name, text));
        self.sources.len() - 1
    }

    /// The file cannot be read at all.
    pub(super) fn unreadable(name: &str, problem: &str) -> Self {
        let mut findings = Self::new(name, "");
        findings.syntax(None, problem);
        findings
    }

    /// An error: the relay does not start. The text says the problem and, after a semicolon, the
    /// remedy.
    pub(super) fn error(&mut self, place: Place, text: impl fmt::Display) {
        self.add(place, Severity::Error, format!("{}: {text}", place.key));
    }

    /// A warning: it is most likely not what the operator meant.
    pub(super) fn warn(&mut self, place: Place, text: impl fmt::Display) {
        self.add(place, Severity::Warning, format!("{}: warning: {text}", place.key));
    }

    /// A mistake that is found before any key is known.
    pub(super) fn syntax(&mut self, offset: Option<usize>, text: &str) {
        self.add(Place::of("", offset), Severity::Error, text.to_owned());
    }

    /// An unknown key.
    pub(super) fn unknown(&mut self, key: &str, offset: usize, text: impl fmt::Display) {
        self.add(Place::of("", Some(offset)), Severity::Error, format!("{key}: {text}"));
    }

    fn add(&mut self, place: Place, severity: Severity, text: String) {
        let Place { key, offset, source } = place;
        let line = offset.and_then(|offset| Some(self.sources.get(source)?.line(offset)));
        self.found.push(Finding { key, source, line, severity, text });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Returns `true` if a key has a mistake: what would follow from its absence says nothing then.
    pub(super) fn has_error_in(&self, keys: &[&str]) -> bool {
        let is_error = |finding: &&Finding| finding.severity == Severity::Error;
        self.found.iter().filter(is_error).any(|finding| keys.contains(&finding.key))
    }

    /// The number of a line, for people, with the name of the file if it is another one.
    pub(super) fn line(&self, place: Place) -> String {
        let source = self.sources.get(place.source);
        let line = source.zip(place.offset).map_or(0, |(source, offset)| source.line(offset));
        match source {
            Some(source) if place.source > 0 => format!("{line} of {}", source.name),
            _ => line.to_string(),
        }
    }

    /// File and line, for people.
    pub(super) fn place(&self, place: Place) -> String {
        let Some(source) = self.sources.get(place.source) else { return String::new() };
        match place.offset {
            Some(offset) => format!("{}:{}", source.name, source.line(offset)),
            None => source.name.clone(),
        }
    }

    /// A line for each, in the order of their files and lines.
    pub(crate) fn into_lines(mut self) -> Vec<String> {
        self.found.sort_by_key(|finding| (finding.source, finding.line));
        let sources = self.sources;
        let name = |finding: &Finding| sources.get(finding.source).map_or("", |source| &source.name).to_owned();
        let line = |finding: Finding| match finding.line {
            Some(line) => format!("{}:{line}: {}", name(&finding), finding.text),
            None => format!("{}: {}", name(&finding), finding.text),
        };
        self.found.into_iter().map(line).collect()
    }
}
