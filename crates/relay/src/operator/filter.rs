//! Which queued messages an operator looks for.

use std::{str::FromStr, time::Duration};

use posthaste_queue::{Owner, Search};
use posthaste_server::wire::{ForwardPath, ReversePath};

use super::{QueuedMessage, QueuedRecipient, RecipientState};
use crate::{MailboxPattern, MailboxPatternError, MailboxSet};

/// Which queued messages to look for: those that meet all given conditions. The default meets all.
///
/// The conditions about recipients have to be met by one and the same recipient.
///
/// ```
/// use posthaste_relay::MessageFilter;
/// let mut filter = MessageFilter::default();
/// filter.recipient = Some("*.example.org".parse()?);
/// filter.reply = Some("greylisted".to_owned());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageFilter {
    /// From this sender.
    pub sender: Option<SenderPattern>,
    /// With a recipient of this pattern.
    pub recipient: Option<MailboxPattern>,
    /// Of this owner.
    pub owner: Option<Owner>,
    /// On hold, or not on hold.
    pub held: Option<bool>,
    /// With a recipient in this [state](RecipientState). The time of
    /// [`Waiting`](RecipientState::Waiting) counts for nothing.
    pub state: Option<RecipientState>,
    /// Accepted at least this time ago.
    pub older_than: Option<Duration>,
    /// Accepted at most this time ago.
    pub newer_than: Option<Duration>,
    /// With a recipient whose last attempt ended with these words, its status or host included.
    /// Upper and lower case of ASCII are the same.
    pub reply: Option<String>,
    /// With a record that cannot be read, or can.
    pub damaged: Option<bool>,
}

/// A pattern for senders: `<>` matches the null reverse-path, and anything else is a
/// [`MailboxPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderPattern {
    /// The null reverse-path, which reports have.
    Null,
    /// These mailboxes.
    Mailbox(MailboxPattern),
}

impl FromStr for SenderPattern {
    type Err = MailboxPatternError;

    fn from_str(text: &str) -> Result<Self, MailboxPatternError> {
        if text == "<>" { Ok(Self::Null) } else { text.parse().map(Self::Mailbox) }
    }
}

/// A filter that is ready to be asked.
pub(super) struct Finder<'f> {
    filter: &'f MessageFilter,
    /// What the queue can look for by itself.
    pub(super) search: Search,
    senders: Option<MailboxSet>,
    recipients: Option<MailboxSet>,
    reply: Option<String>,
}

impl<'f> Finder<'f> {
    pub(super) fn new(filter: &'f MessageFilter) -> Self {
        let mut search = Search::default();
        (search.owner, search.held) = (filter.owner.clone(), filter.held);
        let set = |pattern: &MailboxPattern| MailboxSet::from_iter([pattern.clone()]);
        let senders = filter.sender.as_ref().map(|sender| match sender {
            SenderPattern::Null => MailboxSet::default(),
            SenderPattern::Mailbox(pattern) => set(pattern),
        });
        let reply = filter.reply.as_ref().map(|reply| reply.to_ascii_lowercase());
        Self { filter, search, senders, recipients: filter.recipient.as_ref().map(set), reply }
    }

    /// Returns `true` if a message of the [search](Self::search) meets the other conditions.
    pub(super) fn finds(&self, message: &QueuedMessage) -> bool {
        let MessageFilter { sender, state, older_than, newer_than, damaged, .. } = self.filter;
        let is_from = |senders: &MailboxSet| match &message.sender {
            None => false,
            Some(ReversePath::Null) => *sender == Some(SenderPattern::Null),
            Some(path) => path.mailbox().is_some_and(|mailbox| senders.contains(mailbox)),
        };
        let asks_recipients = state.is_some() || self.recipients.is_some() || self.reply.is_some();
        older_than.is_none_or(|age| message.age >= age)
            && newer_than.is_none_or(|age| message.age <= age)
            && damaged.is_none_or(|damaged| damaged == message.damage.is_some())
            && self.senders.as_ref().is_none_or(is_from)
            && (!asks_recipients || message.recipients.iter().any(|recipient| self.finds_recipient(recipient)))
    }

    fn finds_recipient(&self, recipient: &QueuedRecipient) -> bool {
        let is_to = |set: &MailboxSet| match &recipient.path {
            ForwardPath::Mailbox(mailbox) => set.contains(mailbox),
            ForwardPath::Postmaster => set.has("postmaster", &recipient.domain),
        };
        let has_words = |words: &String| {
            let last = recipient.last.as_ref();
            last.is_some_and(|last| last.diagnostic.to_string().to_ascii_lowercase().contains(words))
        };
        self.filter.state.is_none_or(|state| state.name() == recipient.state.name())
            && self.recipients.as_ref().is_none_or(is_to)
            && self.reply.as_ref().is_none_or(has_words)
    }
}
