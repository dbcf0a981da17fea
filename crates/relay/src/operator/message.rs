//! A message of the queue in clear.

use std::time::{Duration, SystemTime};

use posthaste_queue::{DeliverySummary, MessageId, Owner, Summary};
use posthaste_server::wire::{ForwardPath, ReversePath};

use crate::{
    Diagnostic,
    message::whole_len,
    rank::Rank,
    record::{Outside, Recipient, RecordError, decode_recipients},
    rule::key_parts,
};

/// A message that is in the queue, as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// Its id.
    pub id: MessageId,
    /// Whose mail it is: the user, or the tag of the campaign.
    pub owner: Owner,
    /// How urgent it is (RFC 6710).
    pub priority: i8,
    /// The reverse-path. `None`: the record cannot be read.
    pub sender: Option<ReversePath>,
    /// The client that sent it, such as `client.example.org ([192.0.2.1])`. `None`: the
    /// application, or the relay itself.
    pub client: Option<String>,
    /// The time since it was accepted.
    pub age: Duration,
    /// Octets of its content, with our Received field and our signatures.
    pub octets: u64,
    /// It is on hold, and not tried until it is released.
    pub is_held: bool,
    /// The recipients that are left.
    pub recipients: Vec<QueuedRecipient>,
    /// Why its record cannot be read in part or as a whole. `None`: it can.
    pub damage: Option<String>,
}

/// A recipient that a queued message still has.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueuedRecipient {
    /// The forward-path.
    pub path: ForwardPath,
    /// The domain whose route it takes.
    pub domain: String,
    /// The [label](crate::Label) of the rule whose route it takes instead.
    pub label: Option<String>,
    /// What becomes of it next.
    pub state: RecipientState,
    /// The attempts that have failed for now.
    pub attempts: u32,
    /// The last attempt. `None`: there was none yet.
    pub last: Option<LastAttempt>,
}

/// What becomes of a recipient next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipientState {
    /// It is due, and waits for its turn.
    Due,
    /// It is tried after this time.
    Waiting(Duration),
    /// An attempt is under way.
    Trying,
    /// It has ended. The report to the sender is to be written.
    Reporting,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastAttempt {
    /// When. `None`: an old version of this program has not recorded it.
    pub at: Option<SystemTime>,
    /// Why it failed.
    pub diagnostic: Diagnostic,
}

impl QueuedMessage {
    pub(super) fn read(summary: &Summary) -> Self {
        let outside = Outside::decode(&summary.envelope);
        let mut message = Self {
            id: summary.id,
            owner: summary.owner.clone(),
            priority: Rank::read(summary.priority).priority.0,
            sender: None,
            client: None,
            age: summary.age,
            octets: summary.body_len,
            is_held: summary.held,
            recipients: Vec::new(),
            damage: None,
        };
        match outside {
            Ok(outside) => {
                message.octets = whole_len(&outside.front, summary.body_len);
                message.client = outside.received_from;
                message.sender = Some(outside.mail.reverse_path);
            }
            Err(error) => message.damaged(error),
        }
        for delivery in &summary.deliveries {
            match decode_recipients(&delivery.state) {
                Ok(recipients) => message.recipients.extend(recipients.into_iter().map(|one| read(one, delivery))),
                Err(error) => message.damaged(error),
            }
        }
        message
    }

    fn damaged(&mut self, error: RecordError) {
        self.damage = Some(error.to_string());
    }
}

impl RecipientState {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Waiting(_) => "waiting",
            Self::Trying => "trying",
            Self::Reporting => "reporting",
        }
    }
}

fn read(recipient: Recipient, delivery: &DeliverySummary) -> QueuedRecipient {
    let state = match delivery {
        _ if !recipient.waits() => RecipientState::Reporting,
        DeliverySummary { leased: true, .. } => RecipientState::Trying,
        DeliverySummary { due_in, .. } if due_in.is_zero() => RecipientState::Due,
        DeliverySummary { due_in, .. } => RecipientState::Waiting(*due_in),
    };
    let (domain, label) = key_parts(&delivery.key);
    let last = recipient.last.map(|last| {
        let since = last.at.and_then(|at| u64::try_from(at).ok()).map(Duration::from_secs);
        LastAttempt { at: since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)), diagnostic: last.why }
    });
    QueuedRecipient {
        path: recipient.rcpt.forward_path,
        domain: domain.to_owned(),
        label: label.map(str::to_owned),
        state,
        attempts: delivery.attempts,
        last,
    }
}
