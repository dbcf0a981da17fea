//! The forms of answers and questions in JSON. Times are in seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use posthaste::relay::{
    Destination, Diagnostic, LastAttempt, MessageFilter, QueuedMessage, QueuedRecipient, RecipientState, SiteState,
};
use serde::{Deserialize, Serialize};

/// A queued message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) priority: i8,
    /// `None`: its record cannot be read.
    pub(crate) sender: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) age: u64,
    pub(crate) octets: u64,
    pub(crate) held: bool,
    pub(crate) damage: Option<String>,
    pub(crate) recipients: Vec<Recipient>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipient {
    pub(crate) address: String,
    pub(crate) domain: String,
    pub(crate) rule: Option<String>,
    /// `due`, `waiting`, `trying` or `reporting`.
    pub(crate) state: String,
    /// The time until it is tried, of one that waits.
    pub(crate) due_in: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) last: Option<Last>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// Seconds since 1970.
    pub(crate) at: Option<u64>,
    #[serde(flatten)]
    pub(crate) why: Why,
}

/// Why a recipient has not got its mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Why {
    pub(crate) host: Option<String>,
    pub(crate) status: String,
    pub(crate) text: String,
    /// The text is a reply of the host. Otherwise it is the relay's own.
    pub(crate) is_reply: bool,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Some(host) if self.is_reply => write!(f, "{host} said: {}", self.text),
            Some(host) => write!(f, "{host}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Message>,
    /// Go on with this as `after`. `None`: this is the last page.
    pub(crate) next: Option<String>,
}

/// Which messages: all that meet each condition that is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) sender: Option<String>,
    pub(crate) recipient: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) held: Option<bool>,
    pub(crate) state: Option<String>,
    pub(crate) older: Option<u64>,
    pub(crate) newer: Option<u64>,
    pub(crate) reply: Option<String>,
    pub(crate) damaged: Option<bool>,
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<usize>,
}

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Hold,
    Release,
    Retry,
    Reroute,
    Remove,
}

/// Changes the messages with these ids. Without ids: those of a page that the filter finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) action: Action,
    /// The rule whose route the messages get. `None`: the route of their domains.
    #[serde(default)]
    pub(crate) rule: Option<String>,
    #[serde(default)]
    pub(crate) ids: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) filter: Filter,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// Messages that have changed.
    pub(crate) changed: u64,
    /// Messages that were so already.
    pub(crate) same: u64,
    /// Messages that are not in the queue any more.
    pub(crate) gone: u64,
    /// Go on with this as `after` of the filter. `None`: all is done.
    pub(crate) next: Option<String>,
}

/// Queued mail for one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) domain: String,
    pub(crate) rule: Option<String>,
    pub(crate) messages: u64,
    pub(crate) recipients: u64,
    pub(crate) held: u64,
    pub(crate) due: u64,
    pub(crate) trying: u64,
    pub(crate) waiting: u64,
    pub(crate) next: Option<u64>,
    pub(crate) oldest: u64,
    pub(crate) reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reason {
    pub(crate) recipients: u64,
    #[serde(flatten)]
    pub(crate) example: Why,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Overview {
    pub(crate) messages: u64,
    /// Recipients of destinations beyond those that are listed.
    pub(crate) others: u64,
    pub(crate) destinations: Vec<Waiting>,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) domains: Option<usize>,
    pub(crate) window: usize,
    pub(crate) open: usize,
    /// The time until it is asked again, and why it rests.
    pub(crate) resting: Option<u64>,
    pub(crate) why: Option<Why>,
    /// Messages a minute that it gets at most, as it has taught.
    pub(crate) rate: Option<f64>,
    /// The time until the configured limits let the next delivery begin.
    pub(crate) limited: Option<u64>,
    pub(crate) due: usize,
}

impl Message {
    pub(crate) fn of(message: QueuedMessage) -> Self {
        Self {
            id: message.id.to_string(),
            owner: message.owner.to_string(),
            priority: message.priority,
            sender: message.sender.map(|sender| sender.to_string()),
            client: message.client,
            age: message.age.as_secs(),
            octets: message.octets,
            held: message.is_held,
            damage: message.damage,
            recipients: message.recipients.into_iter().map(Recipient::of).collect(),
        }
    }
}

impl Recipient {
    fn of(recipient: QueuedRecipient) -> Self {
        let due_in = match recipient.state {
            RecipientState::Waiting(left) => Some(left.as_secs()),
            _ => None,
        };
        Self {
            address: recipient.path.to_string(),
            domain: recipient.domain,
            rule: recipient.label,
            state: recipient.state.name().to_owned(),
            due_in,
            attempts: recipient.attempts,
            last: recipient.last.map(Last::of),
        }
    }
}

impl Last {
    fn of(last: LastAttempt) -> Self {
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
        Self { at: last.at.map(since), why: Why::of(last.diagnostic) }
    }
}

impl Why {
    fn of(diagnostic: Diagnostic) -> Self {
        let Diagnostic { remote, status, text, is_reply, .. } = diagnostic;
        Self { host: remote, status: status.to_string(), text, is_reply }
    }
}

impl Waiting {
    pub(crate) fn of(destination: Destination) -> Self {
        let reasons = destination.reasons.into_iter();
        let reason = |reason: posthaste::relay::Reason| Reason {
            recipients: reason.recipients,
            example: Why::of(reason.example),
        };
        Self {
            domain: destination.domain,
            rule: destination.label,
            messages: destination.messages,
            recipients: destination.recipients,
            held: destination.held,
            due: destination.due,
            trying: destination.trying,
            waiting: destination.waiting,
            next: destination.next.map(|next| next.as_secs()),
            oldest: destination.oldest.as_secs(),
            reasons: reasons.map(reason).collect(),
        }
    }
}

impl Site {
    pub(crate) fn of(site: SiteState) -> Self {
        let (resting, why) = site.resting.map(|rest| (rest.left.as_secs(), Why::of(rest.why))).unzip();
        Self {
            name: site.name,
            domains: site.domains,
            window: site.window,
            open: site.open,
            resting,
            why,
            rate: site.rate,
            limited: site.limited.map(|left| left.as_secs()),
            due: site.due,
        }
    }
}

impl Filter {
    /// The filter of the library, or what is wrong.
    pub(crate) fn read(&self) -> Result<MessageFilter, String> {
        let mut filter = MessageFilter::default();
        filter.sender = parsed("sender", self.sender.as_deref())?;
        filter.recipient = parsed("recipient", self.recipient.as_deref())?;
        filter.owner = parsed("owner", self.owner.as_deref())?;
        (filter.held, filter.damaged) = (self.held, self.damaged);
        filter.older_than = self.older.map(Duration::from_secs);
        filter.newer_than = self.newer.map(Duration::from_secs);
        filter.reply.clone_from(&self.reply);
        filter.state = match self.state.as_deref() {
            None => None,
            Some("due") => Some(RecipientState::Due),
            Some("waiting") => Some(RecipientState::Waiting(Duration::ZERO)),
            Some("trying") => Some(RecipientState::Trying),
            Some("reporting") => Some(RecipientState::Reporting),
            Some(other) => return Err(format!("state {other:?}: write due, waiting, trying or reporting")),
        };
        Ok(filter)
    }
}

/// A value in the form of the library.
pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{name} {text:?}: {error}"))).transpose()
}
