//! Delivery reports: RFC 3464 in the multipart of RFC 6522, with RFC 6533 for addresses outside
//! ASCII.
//!
//! One report tells the sender of a message about all outcomes of a round of attempts. It has a
//! block of fields for each recipient. The functions here depend on nothing but their arguments.
//!
//! A sender whose local part is not ASCII gets its mail by SMTPUTF8, so its report is in UTF-8.
//! Every other report can go to any host: its fields are ASCII, addresses outside ASCII are
//! encoded, and so is the returned header or message if needed.
//!
//! There is one exception: a message that is returned whole and has 8-bit content. MIME forbids
//! encoding it, so the report needs 8BITMIME as the message did. If a report with a whole message
//! cannot be delivered, for this reason or another, it is sent again [without](without_content) it.
//!
//! A report has a bound, and [`write`] finds the longest [`Shape`] within it. So no reply of a
//! host, and no number of recipients, makes a report that the queue refuses.

mod budget;
mod fields;
mod mime;
mod plain;
mod returned;
mod template;
mod text;
mod words;

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use posthaste_queue::MessageId;
use posthaste_server::wire::{BodyType, Domain, ForwardPath, Mail, Mailbox, Notify, Rcpt, ReversePath};

use crate::{
    Diagnostic,
    record::{Outside, Recipient},
    trace::{MAX_ADDRESS, date},
};
use mime::Part;
use template::Values;

pub(crate) use budget::{Budget, Grant};
pub(crate) use plain::without_content;
pub(crate) use returned::{MAX_HEADER, Original, returns_whole};
pub use template::TemplateError;
pub use words::{ReportKind, ReportWords};

/// What the relay has done for a recipient (RFC 3464 section 2.3.3). It expands no lists. The worst
/// action is the least value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// It has given the recipient up.
    Failed,
    /// It has not delivered the message yet.
    Delayed,
    /// It has handed the message to a host that will not report what the sender asked to know.
    Relayed,
    /// An agent in this process has taken the message, and it goes no further.
    Delivered,
}

impl Action {
    /// Returns `true` if the recipient's NOTIFY lets the sender be told (RFC 3461 sections 5.2.5
    /// and 5.2.6). It does not say if a report of the relaying is owed.
    pub(crate) fn is_wanted(self, notify: Option<Notify>) -> bool {
        match self {
            Self::Failed => notify.is_none_or(|notify| notify.failure),
            Self::Delayed => notify.is_none_or(|notify| notify.delay),
            Self::Relayed => notify != Some(Notify::NEVER),
            Self::Delivered => notify.is_some_and(|notify| notify.success),
        }
    }

    const fn kind(self) -> ReportKind {
        match self {
            Self::Failed => ReportKind::Failed,
            Self::Delayed => ReportKind::Delayed,
            Self::Relayed => ReportKind::Relayed,
            Self::Delivered => ReportKind::Delivered,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
        }
    }
}

/// The part of a report about one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) rcpt: Rcpt,
    pub(crate) action: Action,
    /// The reason, with the status.
    pub(crate) diagnostic: Diagnostic,
    /// When the last attempt was, in seconds since 1970. `None`: there was none.
    pub(crate) attempted: Option<i64>,
}

impl Entry {
    /// The entry for the news of a recipient. `None`: there is no news.
    pub(crate) fn of(recipient: &Recipient) -> Option<Self> {
        let (action, last) = recipient.news.zip(recipient.last.as_ref())?;
        let (rcpt, diagnostic) = (recipient.rcpt.clone(), last.why.clone());
        Some(Self { rcpt, action, diagnostic, attempted: last.at })
    }
}

/// How much a report says.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// How much of the message is returned.
    returned: Returned,
    /// The most octets of diagnostic text for each recipient.
    words: usize,
    /// The number of recipients that are named. The others are counted.
    recipients: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    Whole,
    Header,
    Nothing,
}

impl Shape {
    /// Returns `true` if a recipient has the required fields alone (RFC 3464 section 2.3).
    const fn is_bare(self) -> bool {
        self.words == 0
    }

    /// The next shorter shape. `None`: there is none.
    fn next(self) -> Option<Self> {
        const FEW_WORDS: usize = 100;
        Some(match self {
            Self { returned: Returned::Whole, .. } => Self { returned: Returned::Header, ..self },
            Self { words, .. } if words > FEW_WORDS => Self { words: FEW_WORDS, ..self },
            Self { returned: Returned::Header, .. } => Self { returned: Returned::Nothing, ..self },
            Self { words, .. } if words > 0 => Self { words: 0, ..self },
            Self { recipients, .. } if recipients > 1 => Self { recipients: recipients / 2, ..self },
            _ => return None,
        })
    }
}

/// The message that a report is about.
#[derive(Debug)]
pub(crate) struct About<'a> {
    pub(crate) own_name: &'a Domain,
    pub(crate) words: &'a ReportWords,
    pub(crate) message: MessageId,
    pub(crate) outside: &'a Outside,
    /// When the message expires, in seconds since 1970.
    pub(crate) will_retry_until: i64,
    pub(crate) now: Timestamp,
}

/// A report, ready to be queued.
#[derive(Debug)]
pub(crate) struct Report {
    /// The MAIL of the report.
    pub(crate) mail: Mail,
    /// The recipient of the report.
    pub(crate) to: Mailbox,
    pub(crate) body: Bytes,
    /// It returns the message whole.
    pub(crate) returns_whole: bool,
}

/// Writes the report of these entries to the sender of the message, in at most `most` octets if
/// that is possible.
pub(crate) fn write(
    about: &About<'_>,
    sender: &Mailbox,
    entries: &[Entry],
    original: &Original,
    most: usize,
) -> Report {
    let returned = if original.is_returned_whole() { Returned::Whole } else { Returned::Header };
    let mut shape = Shape { returned, words: usize::MAX, recipients: entries.len() };
    let mut entries = Cow::Borrowed(entries);
    loop {
        if shape.recipients < entries.len() {
            // If only some are named, they are the worst.
            entries.to_mut().sort_by_key(|entry| entry.action);
        }
        // A whole message that cannot fit is not tried.
        let is_hopeless = shape.returned == Returned::Whole && original.octets.len() > most;
        if !is_hopeless {
            let report = written(about, sender, &entries, original, shape);
            if report.body.len() <= most {
                return report;
            }
        }
        match shape.next() {
            Some(less) => shape = less,
            None => return written(about, sender, &entries, original, shape),
        }
    }
}

fn written(about: &About<'_>, sender: &Mailbox, entries: &[Entry], original: &Original, shape: Shape) -> Report {
    let of = &about.outside.mail;
    // If only the domain is not ASCII, the address has a form that every host takes.
    let to = sender.to_a_labels().ok().filter(Mailbox::is_ascii).unwrap_or_else(|| sender.clone());
    let sender = to.to_string();
    let charset = if sender.is_ascii() { Charset::Ascii } else { Charset::Utf8 };
    let boundary = format!("{}-{:016x}", about.message, fastrand::u64(..));
    let own_name = about.own_name;
    // The worst fate comes first.
    let worst = entries.iter().map(|entry| entry.action).min().unwrap_or(Action::Relayed);
    let values = Values::new(own_name, &about.message);
    let subject = mime::encoded(&about.words.subject(worst, &values));
    let from = mime::phrase(&about.words.sender_name(&values));
    let gap = if from.len() > SHORT_NAME { "\r\n " } else { " " };
    let header = [
        format!("From: {from}{gap}<MAILER-DAEMON@{own_name}>"),
        match sender.len() <= MAX_ADDRESS {
            true => format!("To: <{sender}>"),
            false => "To: undisclosed-recipients:;".to_owned(),
        },
        format!("Subject: {subject}"),
        format!("Date: {}", date(about.now)),
        format!("Message-ID: <{boundary}@{own_name}>"),
        "Auto-Submitted: auto-replied".to_owned(),
    ];
    let mut parts = vec![
        Part::new("text/plain; charset=", text::write(about, entries, shape)).with_charset(),
        Part::new(
            match charset {
                Charset::Ascii => "message/delivery-status",
                Charset::Utf8 => "message/global-delivery-status",
            },
            fields::write(about, entries, charset, shape),
        ),
    ];
    let is_whole = shape.returned == Returned::Whole;
    if shape.returned != Returned::Nothing {
        parts.push(returned::part(about.outside, original, is_whole));
    }
    let body = mime::report(&header, &parts, &boundary, charset);
    let mail = Mail {
        size: u64::try_from(body.len()).ok(),
        body: (!body.is_ascii()).then_some(BodyType::EightBitMime),
        smtputf8: charset == Charset::Utf8,
        // RFC 8689 section 5.
        require_tls: of.require_tls,
        // RFC 6710 section 4.6.
        mt_priority: of.mt_priority,
        ..Mail::new(ReversePath::Null).into_owned()
    };
    Report { mail, to, body, returns_whole: is_whole }
}

/// The most octets of a name that stands in one line with the address after it.
const SHORT_NAME: usize = 40;

/// The characters that a report may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Ascii,
    Utf8,
}

impl Charset {
    /// The text with a question mark for every character that the line may not have.
    fn fit(self, text: &str) -> String {
        let fits = |c: &char| is_plain(*c) && (self == Self::Utf8 || c.is_ascii());
        text.chars().map(|c| if fits(&c) { c } else { '?' }).collect()
    }
}

/// Returns `false` for characters that change how a text around them is shown: control characters,
/// line and paragraph separators, and changes of direction.
fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The address of a recipient, as in the envelope.
fn address(rcpt: &Rcpt, own_name: &Domain) -> String {
    match &rcpt.forward_path {
        ForwardPath::Mailbox(mailbox) => Mailbox::to_string(mailbox),
        ForwardPath::Postmaster => format!("postmaster@{own_name}"),
    }
}

/// A time in seconds since 1970, as a header has it. `None`: no calendar has the time.
fn date_of(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(date)
}

#[cfg(test)]
mod tests;
