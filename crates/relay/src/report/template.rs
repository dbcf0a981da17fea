//! A text with placeholders in braces.

use std::fmt;

use thiserror::Error;

/// A text with placeholders.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placeholder {
    HostName,
    Message,
    Until,
    Recipients,
    Remote,
    Words,
    Count,
}

/// The placeholders of a text, and how an error names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) placeholders: &'static [Placeholder],
    pub(super) names: &'static str,
    /// Those that have to stand there once.
    pub(super) needed: &'static [Placeholder],
}

/// Why a text cannot be the words of a report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is no such placeholder in this text.
    #[error("`{{{name}}}` is no placeholder here; write {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: &'static str,
    },
    /// A brace opens or closes no placeholder.
    #[error("a single `{0}` opens or closes no placeholder; write it twice for a brace")]
    Brace(char),
    /// A placeholder that is needed is missing, or stands there twice.
    #[error("`{{{name}}}` stands there {times} times; write it once")]
    Times {
        /// The name.
        name: &'static str,
        /// How often it stands there.
        times: usize,
    },
    /// A text of one line has more.
    #[error("it has one line; take the line break out")]
    Line,
    /// It has a character that no text has.
    #[error("it has the control character U+{0:04X}; take it out")]
    Control(u32),
    /// It is empty.
    #[error("it is empty; write some words")]
    Empty,
    /// It is longer than a report may have it.
    #[error("it has {octets} octets, and {limit} are the most; shorten it")]
    TooLong {
        /// Its octets.
        octets: usize,
        /// The most octets.
        limit: usize,
    },
}

/// The values of placeholders.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) host_name: &'a dyn fmt::Display,
    pub(super) message: &'a dyn fmt::Display,
    pub(super) until: &'a str,
    pub(super) recipients: &'a str,
    pub(super) remote: &'a str,
    pub(super) words: &'a str,
    pub(super) count: usize,
}

/// The most octets of a text of one line, so that with a name and an id it stays one.
const MAX_LINE: usize = 200;
/// The most octets of another text, so that it has room beside all else.
const MAX_TEXT: usize = 16 * 1_024;

impl<'a> Values<'a> {
    /// What all texts may have.
    pub(super) const fn new(host_name: &'a dyn fmt::Display, message: &'a dyn fmt::Display) -> Self {
        Self { host_name, message, until: "", recipients: "", remote: "", words: "", count: 0 }
    }
}

impl Template {
    /// A text of the relay's own.
    pub(super) fn own(parts: impl IntoIterator<Item = Part>) -> Self {
        Self(parts.into_iter().collect())
    }

    /// A line, which is not empty.
    pub(super) fn line(text: &str, known: Known) -> Result<Self, TemplateError> {
        if text.trim().is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.contains(['\r', '\n']) {
            return Err(TemplateError::Line);
        }
        Self::read(text, MAX_LINE, known)
    }

    /// Some lines, each with its line end. An empty text has none.
    pub(super) fn lines(text: &str, known: Known) -> Result<Self, TemplateError> {
        let mut lines = String::with_capacity(text.len());
        for line in text.lines() {
            lines.push_str(line);
            lines.push_str("\r\n");
        }
        Self::read(&lines, MAX_TEXT, known)
    }

    fn read(text: &str, limit: usize, known: Known) -> Result<Self, TemplateError> {
        if text.len() > limit {
            return Err(TemplateError::TooLong { octets: text.len(), limit });
        }
        let strange = text.replace("\r\n", "").chars().find(|c| c.is_control() && *c != '\t');
        if let Some(control) = strange {
            return Err(TemplateError::Control(control.into()));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(named) = from.strip_prefix('{') {
                let Some((name, after)) = named.split_once('}').filter(|(name, _)| !name.contains(['{', '\n'])) else {
                    return Err(TemplateError::Brace('{'));
                };
                let found = known.placeholders.iter().find(|placeholder| placeholder.name() == name);
                let Some(placeholder) = found else {
                    return Err(TemplateError::Unknown { name: name.to_owned(), known: known.names });
                };
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Placeholder(*placeholder));
                rest = after;
            } else {
                return Err(TemplateError::Brace('}'));
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        let read = Self(parts);
        let wrong =
            known.needed.iter().map(|needed| (needed.name(), read.count(*needed))).find(|(_, times)| *times != 1);
        wrong.map_or(Ok(read), |(name, times)| Err(TemplateError::Times { name, times }))
    }

    fn count(&self, wanted: Placeholder) -> usize {
        self.0.iter().filter(|part| matches!(part, Part::Placeholder(found) if *found == wanted)).count()
    }

    /// The text with the values, which are not searched for placeholders.
    pub(super) fn filled(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(Placeholder::HostName) => out.push_str(&values.host_name.to_string()),
                Part::Placeholder(Placeholder::Message) => out.push_str(&values.message.to_string()),
                Part::Placeholder(Placeholder::Until) => out.push_str(values.until),
                Part::Placeholder(Placeholder::Recipients) => out.push_str(values.recipients),
                Part::Placeholder(Placeholder::Remote) => out.push_str(values.remote),
                Part::Placeholder(Placeholder::Words) => out.push_str(values.words),
                Part::Placeholder(Placeholder::Count) => out.push_str(&values.count.to_string()),
            }
        }
        out
    }
}

impl Placeholder {
    const fn name(self) -> &'static str {
        match self {
            Self::HostName => "host_name",
            Self::Message => "message",
            Self::Until => "until",
            Self::Recipients => "recipients",
            Self::Remote => "remote",
            Self::Words => "words",
            Self::Count => "count",
        }
    }
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}
