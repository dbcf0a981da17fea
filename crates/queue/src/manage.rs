//! What operators see and change.

use std::time::Duration;

use bytes::Bytes;

use crate::{MessageId, Owner, Priority, RoutingKey};

/// A change of a queued message: see [`Queue::alter`](crate::Queue::alter).
///
/// A leased delivery is changed too: the change takes effect when its lease ends. There is one
/// exception: if the lease ends with the outcome [`Retry`](crate::Outcome::Retry), that outcome
/// sets the due time, and not a reschedule before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// Keeps the message from being claimed until it is released.
    Hold,
    /// Ends a hold.
    Release,
    /// Its deliveries become due at another time. A hold stays, and so does the number of attempts.
    Reschedule {
        /// Only deliveries for this key. `None`: all.
        key: Option<RoutingKey>,
        /// Time from now. Zero: at once. Cut to [`MAX_DELAY`](crate::MAX_DELAY).
        delay: Duration,
    },
    /// Its deliveries get another key. Their due times stay.
    Reroute {
        /// Only deliveries for this key. `None`: all.
        from: Option<RoutingKey>,
        /// The new key.
        to: RoutingKey,
    },
}

/// Which messages to look for: those that fulfill all given conditions. The default finds all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Search {
    /// Of this owner. `None`: of any.
    pub owner: Option<Owner>,
    /// With a delivery for this key. `None`: for any.
    pub key: Option<RoutingKey>,
    /// On hold, or not on hold. `None`: either.
    pub held: Option<bool>,
    /// With these bytes in the envelope or in the state of a delivery. Empty: any message.
    pub containing: Bytes,
}

/// A part of what a search finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In the order of their ids.
    pub messages: Vec<Summary>,
    /// The message after which to go on. `None`: this is the last page.
    pub next: Option<MessageId>,
}

impl Search {
    /// Returns `true` if the message fulfills all conditions. For engines.
    #[must_use]
    pub fn finds(&self, message: &Summary) -> bool {
        let Self { owner, key, held, containing } = self;
        owner.as_ref().is_none_or(|owner| *owner == message.owner)
            && held.is_none_or(|held| held == message.held)
            && key.as_ref().is_none_or(|key| message.deliveries.iter().any(|each| each.key == *key))
            && (contains(&message.envelope, containing)
                || message.deliveries.iter().any(|each| contains(&each.state, containing)))
    }
}

fn contains(octets: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(octets, wanted).is_some()
}

/// One message, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: MessageId,
    /// Whose mail it is.
    pub owner: Owner,
    /// How urgent it is.
    pub priority: Priority,
    /// Its envelope.
    pub envelope: Bytes,
    /// The size of its body in bytes.
    pub body_len: u64,
    /// Time since it was accepted.
    pub age: Duration,
    /// `true` if it is on hold.
    pub held: bool,
    /// The deliveries that are left.
    pub deliveries: Vec<DeliverySummary>,
}

/// One delivery, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySummary {
    /// Its number in the message.
    pub delivery: u32,
    /// Where it goes.
    pub key: RoutingKey,
    /// Its state as last written.
    pub state: Bytes,
    /// The number of attempts that were finished with [`Outcome::Retry`](crate::Outcome::Retry).
    pub attempts: u32,
    /// Time until it is due. Zero: it is due.
    pub due_in: Duration,
    /// `true` if a caller holds a lease on it.
    pub leased: bool,
}
