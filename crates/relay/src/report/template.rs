//! The words of reports for people, as the operator has written them.

use std::fmt;

use thiserror::Error;

use super::Action;

/// The words of the reports that senders get, each with placeholders in braces. Default: English.
///
/// The part of a report for people has an opening, a section for each fate that recipients have,
/// and a closing, with an empty line between them. The lines about single recipients have words of
/// the relay's own. So has the closing of a report that is shortened to fit its bound. What other
/// hosts have said stands in `{recipients}` alone: folded, shortened to 1,000 octets for each
/// recipient, and with a question mark for each control character.
///
/// | placeholder | in | becomes |
/// |---|---|---|
/// | `{recipients}` | sections, once | a line for each recipient, and one for what its host has said |
/// | `{until}` | the section of delayed recipients | the time until which the relay tries again |
/// | `{host_name}` | all | the relay's name |
/// | `{message}` | all | the id of the message in the queue |
///
/// `{{` and `}}` stand for a brace. A text outside ASCII is encoded where the host of the sender
/// may not take UTF-8.
///
/// ```
/// use posthaste_relay::{RelayOptions, ReportKind};
/// let mut options = RelayOptions::new("relay.example.org".parse()?);
/// options.report_words.set_subject(ReportKind::Failed, "Unzustellbar: Nachricht {message}")?;
/// options.report_words.set_section(ReportKind::Failed, "Nicht zugestellt an:\n\n{recipients}\n")?;
/// let error = options.report_words.set_closing("Gr\u{fc}\u{df}e von {host}").unwrap_err();
/// assert_eq!(error.to_string(), "`{host}` is no placeholder here; write {host_name} or {message}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReportWords {
    /// By kind.
    subjects: [Template; 4],
    /// By kind.
    sections: [Template; 4],
    /// The section of relayed recipients where the next host traces the message (RFC 2852 section
    /// 4.1.4.2).
    traced: Template,
    opening: Template,
    closing: Template,
}

/// The fate that a report tells of. A report of several fates has the subject of the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportKind {
    /// Recipients that are given up.
    Failed,
    /// Recipients that have not got the message yet.
    Delayed,
    /// Recipients whose host will not report the delivery, as the sender has asked for.
    Relayed,
    /// Recipients that have the message, where the sender has asked to hear of that.
    Delivered,
}

/// A text with placeholders.
#[derive(Debug, Clone)]
struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    HostName,
    Message,
    Until,
    Recipients,
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
    /// The recipients are missing, or stand there twice.
    #[error("`{{recipients}}` stands there {0} times; write it once")]
    Recipients(usize),
    /// A subject has more than one line.
    #[error("a subject has one line; take the line break out")]
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
}

/// The most octets of a subject, so that with a name and an id it stays one line.
const MAX_SUBJECT: usize = 200;
/// The most octets of another text, so that it has room beside all else.
const MAX_TEXT: usize = 16 * 1_024;

const IN_FRAME: &[Placeholder] = &[Placeholder::HostName, Placeholder::Message];
const IN_SECTION: &[Placeholder] = &[Placeholder::Recipients, Placeholder::HostName, Placeholder::Message];
const IN_DELAYED: &[Placeholder] =
    &[Placeholder::Recipients, Placeholder::Until, Placeholder::HostName, Placeholder::Message];

impl ReportWords {
    /// Sets the subject of reports of a kind: one line of at most 200 octets.
    ///
    /// # Errors
    /// [`TemplateError`]; then the subject stays as it was.
    pub fn set_subject(&mut self, kind: ReportKind, text: &str) -> Result<(), TemplateError> {
        if text.trim().is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.contains(['\r', '\n']) {
            return Err(TemplateError::Line);
        }
        let template = Template::read(text, MAX_SUBJECT, IN_FRAME)?;
        *of(&mut self.subjects, kind) = template;
        Ok(())
    }

    /// Sets the section about recipients of a kind: at most 16 KiB.
    ///
    /// # Errors
    /// [`TemplateError`]; then the section stays as it was.
    pub fn set_section(&mut self, kind: ReportKind, text: &str) -> Result<(), TemplateError> {
        let known = if kind == ReportKind::Delayed { IN_DELAYED } else { IN_SECTION };
        let template = Template::lines(text, known)?;
        match template.count(Placeholder::Recipients) {
            1 => {}
            times => return Err(TemplateError::Recipients(times)),
        }
        if kind == ReportKind::Relayed {
            self.traced = template.clone();
        }
        *of(&mut self.sections, kind) = template;
        Ok(())
    }

    /// Sets the first words of all reports: at most 16 KiB. Empty: there are none.
    ///
    /// # Errors
    /// [`TemplateError`]; then the words stay as they were.
    pub fn set_opening(&mut self, text: &str) -> Result<(), TemplateError> {
        self.opening = Template::lines(text, IN_FRAME)?;
        Ok(())
    }

    /// Sets the last words of all reports: at most 16 KiB. Empty: there are none.
    ///
    /// # Errors
    /// [`TemplateError`]; then the words stay as they were.
    pub fn set_closing(&mut self, text: &str) -> Result<(), TemplateError> {
        self.closing = Template::lines(text, IN_FRAME)?;
        Ok(())
    }

    pub(super) fn subject(&self, action: Action, values: &Values<'_>) -> String {
        self.subjects.get(index(action.kind())).map(|template| template.filled(values)).unwrap_or_default()
    }

    pub(super) fn section(&self, action: Action, is_traced: bool, values: &Values<'_>) -> String {
        let section = match action {
            Action::Relayed if is_traced => Some(&self.traced),
            _ => self.sections.get(index(action.kind())),
        };
        section.map(|template| template.filled(values)).unwrap_or_default()
    }

    pub(super) fn opening(&self, values: &Values<'_>) -> String {
        self.opening.filled(values)
    }

    pub(super) fn closing(&self, values: &Values<'_>) -> String {
        self.closing.filled(values)
    }
}

const fn index(kind: ReportKind) -> usize {
    match kind {
        ReportKind::Failed => 0,
        ReportKind::Delayed => 1,
        ReportKind::Relayed => 2,
        ReportKind::Delivered => 3,
    }
}

const fn of(templates: &mut [Template; 4], kind: ReportKind) -> &mut Template {
    let [failed, delayed, relayed, delivered] = templates;
    match kind {
        ReportKind::Failed => failed,
        ReportKind::Delayed => delayed,
        ReportKind::Relayed => relayed,
        ReportKind::Delivered => delivered,
    }
}

impl Default for ReportWords {
    fn default() -> Self {
        let section = |parts: [&str; 2]| {
            let [before, after] = parts.map(|text| Part::Text(text.replace('\n', "\r\n")));
            Template(vec![before, Part::Placeholder(Placeholder::Recipients), after])
        };
        let text = |text: &str| Template(vec![Part::Text(text.to_owned())]);
        let until = [
            Part::Placeholder(Placeholder::Until),
            Part::Text(". There is no need to send it once more.\r\n".to_owned()),
        ];
        let mut delayed = section(["Your message has not been delivered yet to:\n\n", "\n\nIt is tried again until "]);
        delayed.0.extend(until);
        let handed_on = "Your message was handed on for:\n\n";
        Self {
            subjects: ["Undelivered mail", "Delayed mail", "Relayed mail", "Delivered mail"].map(text),
            sections: [
                section([
                    "Your message could not be delivered to:\n\n",
                    "\n\nIt was not delivered to them and will not be tried again.\n",
                ]),
                delayed,
                section([handed_on, "\n\nThe hosts that took it may not tell you whether it was delivered.\n"]),
                section(["Your message was delivered to:\n\n", "\n"]),
            ],
            traced: section([handed_on, "\n\nThe hosts that took it may tell you more.\n"]),
            opening: Template(vec![
                Part::Text("This is ".to_owned()),
                Part::Placeholder(Placeholder::HostName),
                Part::Text(".\r\n".to_owned()),
            ]),
            closing: text("Recipients that are not listed are not affected.\r\n"),
        }
    }
}

impl Template {
    /// Some lines, each with its line end. An empty text has none.
    fn lines(text: &str, known: &[Placeholder]) -> Result<Self, TemplateError> {
        let mut lines = String::with_capacity(text.len());
        for line in text.lines() {
            lines.push_str(line);
            lines.push_str("\r\n");
        }
        Self::read(&lines, MAX_TEXT, known)
    }

    fn read(text: &str, limit: usize, known: &[Placeholder]) -> Result<Self, TemplateError> {
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
                let found = known.iter().find(|placeholder| placeholder.name() == name);
                let Some(placeholder) = found else {
                    return Err(TemplateError::Unknown { name: name.to_owned(), known: names(known) });
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
        Ok(Self(parts))
    }

    fn count(&self, wanted: Placeholder) -> usize {
        self.0.iter().filter(|part| matches!(part, Part::Placeholder(found) if *found == wanted)).count()
    }

    /// The text with the values, which are not searched for placeholders.
    fn filled(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(Placeholder::HostName) => out.push_str(&values.host_name.to_string()),
                Part::Placeholder(Placeholder::Message) => out.push_str(&values.message.to_string()),
                Part::Placeholder(Placeholder::Until) => out.push_str(values.until),
                Part::Placeholder(Placeholder::Recipients) => out.push_str(values.recipients),
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
        }
    }
}

const fn names(known: &[Placeholder]) -> &'static str {
    match known.len() {
        2 => "{host_name} or {message}",
        3 => "{recipients}, {host_name} or {message}",
        _ => "{recipients}, {until}, {host_name} or {message}",
    }
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> =
        Values { host_name: &"relay.test", message: &7, until: "then", recipients: "  a@b\r\n    {until} {host_name}" };

    #[test]
    fn placeholders_are_filled_once_and_braces_are_written_twice() {
        let mut words = ReportWords::default();
        for (text, filled) in [
            ("{recipients}", "  a@b\r\n    {until} {host_name}\r\n"),
            ("to\n{recipients}\nuntil {until}", "to\r\n  a@b\r\n    {until} {host_name}\r\nuntil then\r\n"),
            ("{{until}} {recipients}\r\n}}{{", "{until}   a@b\r\n    {until} {host_name}\r\n}{\r\n"),
            ("{message}@{host_name}{recipients}\n\n", "7@relay.test  a@b\r\n    {until} {host_name}\r\n\r\n"),
        ] {
            words.set_section(ReportKind::Delayed, text).unwrap();
            assert_eq!(words.section(Action::Delayed, false, &VALUES), filled, "{text:?}");
        }
        words.set_opening("").unwrap();
        assert_eq!(words.opening(&VALUES), "");
    }

    #[test]
    fn a_wrong_text_is_an_error_that_says_what_to_write() {
        let mut words = ReportWords::default();
        let long = "x".repeat(17_000);
        for (text, error) in [
            ("{recipient}", "`{recipient}` is no placeholder here; write {recipients}, {host_name} or {message}"),
            ("{recipients} {until}", "`{until}` is no placeholder here; write {recipients}, {host_name} or {message}"),
            ("{}", "`{}` is no placeholder here; write {recipients}, {host_name} or {message}"),
            ("{recipients", "a single `{` opens or closes no placeholder; write it twice for a brace"),
            ("{recipients\n}", "a single `{` opens or closes no placeholder; write it twice for a brace"),
            ("recipients}", "a single `}` opens or closes no placeholder; write it twice for a brace"),
            ("none", "`{recipients}` stands there 0 times; write it once"),
            ("{recipients}{recipients}", "`{recipients}` stands there 2 times; write it once"),
            ("{recipients}\u{1b}[1m", "it has the control character U+001B; take it out"),
            ("{recipients}\rX: y", "it has the control character U+000D; take it out"),
            (&long, "it has 17002 octets, and 16384 are the most; shorten it"),
        ] {
            let before = words.section(Action::Failed, false, &VALUES);
            assert_eq!(words.set_section(ReportKind::Failed, text).unwrap_err().to_string(), error, "{text:?}");
            assert_eq!(words.section(Action::Failed, false, &VALUES), before);
        }
        for (text, error) in [
            ("", TemplateError::Empty),
            ("  ", TemplateError::Empty),
            ("x\r\nBcc: you@d.test", TemplateError::Line),
            ("x\n", TemplateError::Line),
            ("x\0", TemplateError::Control(0)),
            (&long[..201], TemplateError::TooLong { octets: 201, limit: 200 }),
        ] {
            assert_eq!(words.set_subject(ReportKind::Failed, text), Err(error), "{text:?}");
        }
        assert!(words.set_subject(ReportKind::Failed, "{recipients}").is_err());
        assert!(words.set_closing("{until}").is_err());
    }
}
