//! The words of reports for people, as the operator has written them.

use super::{
    Action,
    template::{Known, Part, Placeholder, Template, TemplateError, Values},
};

/// The words of the reports that senders get, each with placeholders in braces. Default: English.
///
/// The part of a report for people has an opening, a section for each fate that recipients have,
/// and a closing, with an empty line between them. A section names its recipients, with a line for
/// what the host of each has said. What the relay itself has found stands there in English, such as
/// that a domain has no host.
///
/// What other hosts have said stands in `{words}` alone: folded, shortened to 1,000 octets for each
/// recipient, and with a question mark for each control character.
///
/// | placeholder | in | becomes |
/// |---|---|---|
/// | `{recipients}` | sections, once | a line for each recipient, and one for what its host has said |
/// | `{remote}`, `{words}` | the line of a host, each once | the name of the host, and its words |
/// | `{count}` | the line about further recipients, once | how many there are |
/// | `{until}` | the section of delayed recipients | the time until which the relay tries again |
/// | `{host_name}` | all other texts | the relay's name |
/// | `{message}` | all other texts | the id of the message in the queue |
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
    shortened: Template,
    /// The name in the From field.
    sender_name: Template,
    said: Template,
    more: Template,
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

const IN_FRAME: Known = Known {
    placeholders: &[Placeholder::HostName, Placeholder::Message],
    names: "{host_name} or {message}",
    needed: &[],
};
const IN_SECTION: Known = Known {
    placeholders: &[Placeholder::Recipients, Placeholder::HostName, Placeholder::Message],
    names: "{recipients}, {host_name} or {message}",
    needed: &[Placeholder::Recipients],
};
const IN_DELAYED: Known = Known {
    placeholders: &[Placeholder::Recipients, Placeholder::Until, Placeholder::HostName, Placeholder::Message],
    names: "{recipients}, {until}, {host_name} or {message}",
    needed: &[Placeholder::Recipients],
};
const IN_SAID: Known = Known {
    placeholders: &[Placeholder::Remote, Placeholder::Words],
    names: "{remote} or {words}",
    needed: &[Placeholder::Remote, Placeholder::Words],
};
const IN_MORE: Known = Known { placeholders: &[Placeholder::Count], names: "{count}", needed: &[Placeholder::Count] };

impl ReportWords {
    /// Sets the subject of reports of a kind: one line of at most 200 octets.
    ///
    /// # Errors
    /// [`TemplateError`]; then the subject stays as it was.
    pub fn set_subject(&mut self, kind: ReportKind, text: &str) -> Result<(), TemplateError> {
        *of(&mut self.subjects, kind) = Template::line(text, IN_FRAME)?;
        Ok(())
    }

    /// Sets the section about recipients of a kind: at most 16 KiB.
    ///
    /// # Errors
    /// [`TemplateError`]; then the section stays as it was.
    pub fn set_section(&mut self, kind: ReportKind, text: &str) -> Result<(), TemplateError> {
        let known = if kind == ReportKind::Delayed { IN_DELAYED } else { IN_SECTION };
        let template = Template::lines(text, known)?;
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

    /// Sets the last words of a report that does not name all recipients, to fit its bound, in
    /// place of the closing: at most 16 KiB. Empty: there are none.
    ///
    /// # Errors
    /// [`TemplateError`]; then the words stay as they were.
    pub fn set_shortened(&mut self, text: &str) -> Result<(), TemplateError> {
        self.shortened = Template::lines(text, IN_FRAME)?;
        Ok(())
    }

    /// Sets the name in the From field of all reports: one line of at most 200 octets.
    ///
    /// # Errors
    /// [`TemplateError`]; then the name stays as it was.
    pub fn set_sender_name(&mut self, text: &str) -> Result<(), TemplateError> {
        self.sender_name = Template::line(text, IN_FRAME)?;
        Ok(())
    }

    /// Sets the line with the words of a recipient's host: one line of at most 200 octets.
    ///
    /// # Errors
    /// [`TemplateError`]; then the line stays as it was.
    pub fn set_said(&mut self, text: &str) -> Result<(), TemplateError> {
        self.said = Template::line(text, IN_SAID)?;
        Ok(())
    }

    /// Sets the line about recipients that a section does not name, since there are more than 100:
    /// one line of at most 200 octets.
    ///
    /// # Errors
    /// [`TemplateError`]; then the line stays as it was.
    pub fn set_more(&mut self, text: &str) -> Result<(), TemplateError> {
        self.more = Template::line(text, IN_MORE)?;
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

    /// `is_short`: the report does not name all recipients.
    pub(super) fn closing(&self, is_short: bool, values: &Values<'_>) -> String {
        let closing = if is_short { &self.shortened } else { &self.closing };
        closing.filled(values)
    }

    pub(super) fn sender_name(&self, values: &Values<'_>) -> String {
        self.sender_name.filled(values)
    }

    pub(super) fn said(&self, values: &Values<'_>) -> String {
        self.said.filled(values)
    }

    pub(super) fn more(&self, values: &Values<'_>) -> String {
        self.more.filled(values)
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
        use Placeholder::{Count, HostName, Recipients, Remote, Until, Words};
        let put = Part::Placeholder;
        let text = |text: &str| Part::Text(text.replace('\n', "\r\n"));
        let section = |[before, after]: [&str; 2]| Template::own([text(before), put(Recipients), text(after)]);
        let handed_on = "Your message was handed on for:\n\n";
        let delayed = [
            text("Your message has not been delivered yet to:\n\n"),
            put(Recipients),
            text("\n\nIt is tried again until "),
            put(Until),
            text(". There is no need to send it once more.\n"),
        ];
        Self {
            subjects: ["Undelivered mail", "Delayed mail", "Relayed mail", "Delivered mail"]
                .map(|subject| Template::own([text(subject)])),
            sections: [
                section([
                    "Your message could not be delivered to:\n\n",
                    "\n\nIt was not delivered to them and will not be tried again.\n",
                ]),
                Template::own(delayed),
                section([handed_on, "\n\nThe hosts that took it may not tell you whether it was delivered.\n"]),
                section(["Your message was delivered to:\n\n", "\n"]),
            ],
            traced: section([handed_on, "\n\nThe hosts that took it may tell you more.\n"]),
            opening: Template::own([text("This is "), put(HostName), text(".\n")]),
            closing: Template::own([text("Recipients that are not listed are not affected.\n")]),
            shortened: Template::own([text("This report is shortened: not all of them are named.\n")]),
            sender_name: Template::own([text("Mail delivery")]),
            said: Template::own([put(Remote), text(" said: "), put(Words)]),
            more: Template::own([text("and "), put(Count), text(" more, see the next part")]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        until: "then",
        recipients: "  a@b\r\n    {until} {host_name}",
        remote: "mx.test",
        words: "{remote} {count}",
        count: 9,
        ..Values::new(&"relay.test", &7)
    };

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
        words.set_shortened("kurz\n").unwrap();
        assert_eq!((words.closing(true, &VALUES), words.closing(false, &VALUES).len()), ("kurz\r\n".to_owned(), 50));
        words.set_said("{words} ({remote})").unwrap();
        assert_eq!(words.said(&VALUES), "{remote} {count} (mx.test)");
        words.set_more("und {count}").unwrap();
        assert_eq!(words.more(&VALUES), "und 9");
        words.set_sender_name("Postamt {host_name}").unwrap();
        assert_eq!(words.sender_name(&VALUES), "Postamt relay.test");
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
        assert!(words.set_closing("{until}").is_err() && words.set_shortened("{count}").is_err());
        for (result, error) in [
            (words.set_said("said: {words}"), "`{remote}` stands there 0 times; write it once"),
            (words.set_said("{remote} {remote} {words}"), "`{remote}` stands there 2 times; write it once"),
            (words.set_said("{remote} {words} {count}"), "`{count}` is no placeholder here; write {remote} or {words}"),
            (words.set_said("{remote}\n{words}"), "it has one line; take the line break out"),
            (words.set_more("more"), "`{count}` stands there 0 times; write it once"),
            (words.set_more("{message} {count}"), "`{message}` is no placeholder here; write {count}"),
            (words.set_more(""), "it is empty; write some words"),
            (words.set_sender_name("a\r\nBcc: b"), "it has one line; take the line break out"),
        ] {
            assert_eq!(result.unwrap_err().to_string(), error);
        }
    }
}
