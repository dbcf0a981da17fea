//! Delivery reports: RFC 3464 in the multipart of RFC 6522, with RFC 6533 where an address is not
//! ASCII.
//!
//! One report tells the sender of a message everything that came of one attempt, with a block of
//! fields for each recipient that it is to hear of. What is written here depends on nothing but its
//! arguments.
//!
//! A sender whose local part is not ASCII gets its mail by SMTPUTF8, so the report for it is in
//! UTF-8. Every other report can go to any host: its fields are ASCII, with addresses beyond it
//! encoded, and what is returned is encoded where it has to be. The one exception is a message that
//! is returned whole and has 8-bit content: MIME lets nobody encode it, and the report needs the
//! 8BITMIME that the message needed too. When a report that returns a message whole cannot be
//! delivered, for this reason or another, it goes once more [without](without_content).
//!
//! A report has a bound, and [`write`] finds the longest [`Shape`] within it: nobody's words and no
//! number of recipients make a report that the queue cannot take.

mod budget;
mod fields;
mod mime;
mod plain;
mod returned;
mod text;

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

pub(crate) use budget::{Budget, Grant};
pub(crate) use plain::without_content;
pub(crate) use returned::{MAX_HEADER, Original, returns_whole};

/// What the relay has done for a recipient (RFC 3464 section 2.3.3). It never has the last hop to a
/// mailbox, so nothing is ever `delivered`, and it expands no lists. The worst is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Given it up.
    Failed,
    /// Not been able to deliver it yet.
    Delayed,
    /// Handed it to a host that will not report what the sender wants to know.
    Relayed,
}

impl Action {
    /// Whether a recipient's NOTIFY lets the sender be told (RFC 3461 sections 5.2.5 and 5.2.6).
    /// Whether it is owed a report of the relaying is another question.
    pub(crate) fn is_wanted(self, notify: Option<Notify>) -> bool {
        match self {
            Self::Failed => notify.is_none_or(|notify| notify.failure),
            Self::Delayed => notify.is_none_or(|notify| notify.delay),
            Self::Relayed => notify != Some(Notify::NEVER),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
        }
    }
}

/// What is said of one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) rcpt: Rcpt,
    pub(crate) action: Action,
    /// Why, with the status.
    pub(crate) diagnostic: Diagnostic,
    /// When it was tried last, in seconds since 1970, if it was.
    pub(crate) attempted: Option<i64>,
}

impl Entry {
    /// What there is to report of a recipient.
    pub(crate) fn of(recipient: &Recipient) -> Option<Self> {
        let (action, last) = recipient.news.zip(recipient.last.as_ref())?;
        let (rcpt, diagnostic) = (recipient.rcpt.clone(), last.why.clone());
        Some(Self { rcpt, action, diagnostic, attempted: last.at })
    }
}

/// How much a report says.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// As much of the message as there is, or none of it.
    returned: Returned,
    /// The most octets of what a host said of a recipient.
    words: usize,
    /// The recipients that are named; the others are counted.
    recipients: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    Whole,
    Header,
    Nothing,
}

impl Shape {
    /// Whether the fields are those alone that there have to be (RFC 3464 section 2.3).
    const fn is_bare(self) -> bool {
        self.words == 0
    }

    /// The shape that says a little less. [`None`]: less cannot be said.
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

/// What is said of the message.
#[derive(Debug)]
pub(crate) struct About<'a> {
    pub(crate) own_name: &'a Domain,
    pub(crate) message: MessageId,
    pub(crate) outside: &'a Outside,
    /// When it is given up, in seconds since 1970.
    pub(crate) will_retry_until: i64,
    pub(crate) now: Timestamp,
}

/// A report, ready to be queued.
#[derive(Debug)]
pub(crate) struct Report {
    /// MAIL that it goes out with.
    pub(crate) mail: Mail,
    /// Who it goes to.
    pub(crate) to: Mailbox,
    pub(crate) body: Bytes,
    /// Whether it returns the message whole.
    pub(crate) returns_whole: bool,
}

/// Writes the report of these entries to the sender of the message, in at most so many octets if
/// there is any way to.
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
            // Where not all are named, the worst is.
            entries.to_mut().sort_by_key(|entry| entry.action);
        }
        // What cannot fit is not written to see that.
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
    // Whose domain alone is not ASCII has an address that every host takes.
    let to = sender.to_a_labels().ok().filter(Mailbox::is_ascii).unwrap_or_else(|| sender.clone());
    let sender = to.to_string();
    let charset = if sender.is_ascii() { Charset::Ascii } else { Charset::Utf8 };
    let boundary = format!("{}-{:016x}", about.message, fastrand::u64(..));
    let own_name = about.own_name;
    let subject = if entries.iter().any(|entry| entry.action == Action::Failed) {
        "Undelivered mail"
    } else if entries.iter().any(|entry| entry.action == Action::Delayed) {
        "Delayed mail"
    } else {
        "Relayed mail"
    };
    let header = [
        format!("From: Mail delivery <MAILER-DAEMON@{own_name}>"),
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

/// What a report may be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Ascii,
    Utf8,
}

impl Charset {
    /// Text with nothing in it that has no place in a line: anything else becomes a question mark.
    fn fit(self, text: &str) -> String {
        let fits = |c: &char| !c.is_control() && (self == Self::Utf8 || c.is_ascii());
        text.chars().map(|c| if fits(&c) { c } else { '?' }).collect()
    }
}

/// The address of a recipient, as the envelope has it.
fn address(rcpt: &Rcpt, own_name: &Domain) -> String {
    match &rcpt.forward_path {
        ForwardPath::Mailbox(mailbox) => Mailbox::to_string(mailbox),
        ForwardPath::Postmaster => format!("postmaster@{own_name}"),
    }
}

/// A time in seconds since 1970, as a header has it; nothing for one that no calendar has.
fn date_of(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(date)
}

#[cfg(test)]
mod tests;
