//! What operators see and change.

use std::time::Duration;

use bytes::Bytes;

use crate::{MessageId, Owner, Priority, RoutingKey};

/// What to change about a queued message: see [`Queue::alter`](crate::Queue::alter).
///
/// A delivery whose lease is out is concerned too, as soon as it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// Nothing of it is claimed until it is released.
    Hold,
    /// Ends a hold.
    Release,
    /// Its deliveries become due at another time than they would. A hold stays, and so does the count of attempts.
    Reschedule {
        /// Only those for this key. [`None`]: all.
        key: Option<RoutingKey>,
        /// How long from now. Zero: they are tried at once. At most [`MAX_DELAY`](crate::MAX_DELAY), to which it is cut.
        delay: Duration,
    },
    /// Its deliveries go elsewhere. When they are due does not change.
    Reroute {
        /// Only those for this key. [`None`]: all.
        from: Option<RoutingKey>,
        /// Where they go from now on.
        to: RoutingKey,
    },
}

/// Which messages to look for: those that all given conditions hold for. The default finds all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// Of this owner.
    pub owner: Option<Owner>,
    /// With a delivery for this key.
    pub key: Option<RoutingKey>,
    /// On hold, or not on hold.
    pub held: Option<bool>,
    /// With these octets somewhere in the envelope or in the state of a delivery. Empty octets are everywhere.
    pub containing: Bytes,
}

/// Some of what a search finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// By id.
    pub messages: Vec<Summary>,
    /// Behind which message to go on. [`None`]: there is nothing more.
    pub next: Option<MessageId>,
}

impl Search {
    /// Whether this is one of them. For engines.
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
    /// Its name.
    pub id: MessageId,
    /// Whose.
    pub owner: Owner,
    /// How urgent.
    pub priority: Priority,
    /// Its envelope.
    pub envelope: Bytes,
    /// The size of its body in octets.
    pub body_len: u64,
    /// Time since it was accepted.
    pub age: Duration,
    /// Whether it is on hold.
    pub held: bool,
    /// What is left to do.
    pub deliveries: Vec<DeliverySummary>,
}

/// One delivery, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySummary {
    /// Which of the message's deliveries.
    pub delivery: u32,
    /// Where to.
    pub key: RoutingKey,
    /// Its state as last written.
    pub state: Bytes,
    /// How often an attempt was finished with [`Outcome::Retry`](crate::Outcome::Retry).
    pub attempts: u32,
    /// Time until it is due, zero when it is.
    pub due_in: Duration,
    /// Whether somebody holds a lease on it.
    pub leased: bool,
}
