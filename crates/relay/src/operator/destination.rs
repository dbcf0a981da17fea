//! What waits for each destination.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use posthaste_server::wire::EnhancedCode;

use super::{QueuedMessage, RecipientState};
use crate::Diagnostic;

/// What is in the queue for one destination: a domain, or a domain and the label of a rule.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Destination {
    /// The domain.
    pub domain: String,
    /// The [label](crate::Label) of the rule whose route its mail takes.
    pub label: Option<String>,
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
    /// Recipients of messages on hold. The counts below leave these out.
    pub held: u64,
    /// Recipients that are due, and wait for their turn.
    pub due: u64,
    /// Recipients of which an attempt is under way.
    pub trying: u64,
    /// Recipients that wait for a later attempt.
    pub waiting: u64,
    /// The time until the first of these is due.
    pub next: Option<Duration>,
    /// The age of the oldest message.
    pub oldest: Duration,
    /// Why recipients wait, by the status of their last attempt: the most common status first, at
    /// most 8. Rarer ones may be missing.
    pub reasons: Vec<Reason>,
}

/// A status with which attempts have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// Recipients.
    pub recipients: u64,
    /// What one of them was told.
    pub example: Diagnostic,
}

/// Sums queued mail up by destination. It keeps at most [`MOST`](Self::MOST) destinations, and
/// counts the mail of all further ones together.
///
/// ```
/// # use posthaste_relay::{Destination, Destinations, MessageFilter, Relay, queue::{self, Queue}, client::Resolver};
/// async fn overview<Q: Queue, R: Resolver>(relay: &Relay<Q, R>) -> Result<Vec<Destination>, queue::Error> {
///     let (filter, mut destinations, mut after) = (MessageFilter::default(), Destinations::default(), None);
///     loop {
///         let page = relay.operator().find(&filter, after, 1_000).await?;
///         page.messages.iter().for_each(|message| destinations.add(message));
///         after = page.next;
///         if after.is_none() {
///             return Ok(destinations.list());
///         }
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Destinations {
    by_name: HashMap<(String, Option<String>), Sum>,
    messages: u64,
    others: u64,
}

#[derive(Debug)]
struct Sum {
    counts: Destination,
    /// Misra and Gries: each status beyond the bound takes one from all.
    reasons: BTreeMap<[u16; 3], (u64, u64, Diagnostic)>,
}

/// Statuses that are counted for each destination.
const REASONS: usize = 8;

impl Destinations {
    /// The most destinations: 8,192, of 4 KiB each at most beside their diagnostics.
    pub const MOST: usize = 8_192;

    /// Adds a message.
    pub fn add(&mut self, message: &QueuedMessage) {
        self.messages = self.messages.saturating_add(1);
        let mut seen: Option<(&str, Option<&str>)> = None;
        for recipient in &message.recipients {
            let name = (recipient.domain.clone(), recipient.label.clone());
            let has_room = self.by_name.len() < Self::MOST || self.by_name.contains_key(&name);
            if !has_room {
                self.others = self.others.saturating_add(1);
                continue;
            }
            let sum = self.by_name.entry(name).or_insert_with_key(|(domain, label)| Sum::new(domain, label.as_deref()));
            // The recipients of one destination stand together.
            let name = (recipient.domain.as_str(), recipient.label.as_deref());
            let is_first = seen.replace(name) != Some(name);
            sum.add(message, recipient.state, is_first);
            if let Some(last) = &recipient.last {
                sum.add_reason(&last.diagnostic);
            }
        }
    }

    /// All messages so far.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Recipients for destinations beyond [`MOST`](Self::MOST).
    pub const fn others(&self) -> u64 {
        self.others
    }

    /// The destinations, those with the most recipients first.
    pub fn list(self) -> Vec<Destination> {
        let mut list: Vec<_> = self.by_name.into_values().map(Sum::end).collect();
        list.sort_by(|one, other| {
            let name = |destination: &Destination| (destination.domain.clone(), destination.label.clone());
            other.recipients.cmp(&one.recipients).then_with(|| name(one).cmp(&name(other)))
        });
        list
    }
}

impl Sum {
    fn new(domain: &str, label: Option<&str>) -> Self {
        let counts = Destination {
            domain: domain.to_owned(),
            label: label.map(str::to_owned),
            messages: 0,
            recipients: 0,
            held: 0,
            due: 0,
            trying: 0,
            waiting: 0,
            next: None,
            oldest: Duration::ZERO,
            reasons: Vec::new(),
        };
        Self { counts, reasons: BTreeMap::new() }
    }

    fn add(&mut self, message: &QueuedMessage, state: RecipientState, is_first: bool) {
        let counts = &mut self.counts;
        counts.messages = counts.messages.saturating_add(is_first.into());
        counts.recipients = counts.recipients.saturating_add(1);
        counts.oldest = counts.oldest.max(message.age);
        let count = match state {
            _ if message.is_held => &mut counts.held,
            RecipientState::Due => &mut counts.due,
            RecipientState::Trying | RecipientState::Reporting => &mut counts.trying,
            RecipientState::Waiting(left) => {
                counts.next = Some(counts.next.map_or(left, |next| next.min(left)));
                &mut counts.waiting
            }
        };
        *count = count.saturating_add(1);
    }

    fn add_reason(&mut self, diagnostic: &Diagnostic) {
        let status: EnhancedCode = diagnostic.status;
        let status = [status.class(), status.subject(), status.detail()];
        if let Some((count, _, _)) = self.reasons.get_mut(&status) {
            *count = count.saturating_add(1);
        } else if self.reasons.len() < REASONS {
            self.reasons.insert(status, (1, 0, diagnostic.clone()));
        } else {
            self.reasons.retain(|_, (count, taken, _)| {
                *taken = taken.saturating_add(1);
                *count > *taken
            });
        }
    }

    fn end(self) -> Destination {
        let mut counts = self.counts;
        let reason = |(recipients, _, example)| Reason { recipients, example };
        counts.reasons = self.reasons.into_values().map(reason).collect();
        counts.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.recipients));
        counts
    }
}
