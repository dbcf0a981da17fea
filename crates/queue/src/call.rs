//! What the calls of a [`Queue`] take and give.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use crate::Queue;
use crate::{MessageId, Owner, Priority, RoutingKey};

/// A message without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Whose mail it is.
    pub owner: Owner,
    /// How urgent it is.
    pub priority: Priority,
    /// Opaque: given back with every claim. At most [`MAX_ENVELOPE`](crate::MAX_ENVELOPE) bytes.
    pub envelope: Bytes,
    /// At least one, at most [`MAX_DELIVERIES`](crate::MAX_DELIVERIES).
    pub deliveries: Vec<NewDelivery>,
}

/// The recipients of a message that share a routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where it goes.
    pub key: RoutingKey,
    /// How long after acceptance it becomes claimable. Cut to [`MAX_DELAY`](crate::MAX_DELAY).
    pub delay: Duration,
    /// Opaque: the packed states of its recipients. All states of a message together: at most
    /// [`MAX_STATES`](crate::MAX_STATES) bytes.
    pub state: Bytes,
}

/// A message that is derived from a delivery of another one: a report, for instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The message.
    pub message: NewMessage,
    /// Its body. All messages that one outcome derives: at most [`MAX_DERIVED`](crate::MAX_DERIVED)
    /// bytes together.
    pub body: Bytes,
}

/// The class of a delivery: its key, its priority and its owner.
///
/// [`Queue::due`] returns the classes of deliveries that are due, and [`Queue::claim`] claims from
/// classes. Within a class the queue decides what comes first; between classes the caller does.
///
/// Classes are ordered by key; of one key by priority, the highest first; of both by owner.
///
/// ```
/// use posthaste_queue::{DueClass, Owner, Priority, RoutingKey};
///
/// let class = |priority| DueClass {
///     key: RoutingKey::new("example.org").expect("short"),
///     priority: Priority(priority),
///     owner: Owner::default(),
/// };
/// assert!(class(5) < class(0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DueClass {
    /// Where the deliveries go.
    pub key: RoutingKey,
    /// How urgent they are.
    pub priority: Priority,
    /// Whose mail they are.
    pub owner: Owner,
}

impl Ord for DueClass {
    fn cmp(&self, other: &Self) -> Ordering {
        let priority = || other.priority.cmp(&self.priority);
        self.key.cmp(&other.key).then_with(priority).then_with(|| self.owner.cmp(&other.owner))
    }
}

impl PartialOrd for DueClass {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Which deliveries to lease.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The classes, in the order in which they are served. [`due`](Queue::due) returns those with a
    /// claimable delivery.
    pub from: &'a [DueClass],
    /// The largest number of deliveries.
    pub max: usize,
    /// How long the lease lasts. Cut to [`MAX_DELAY`](crate::MAX_DELAY).
    pub lease: Duration,
}

/// Which deliveries of one message to lease together: see [`Queue::gather`].
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    /// The message.
    pub message: MessageId,
    /// A delivery is *marked* if its state begins with one of these. Only marked deliveries are
    /// leased.
    pub marks: &'a [&'a [u8]],
    /// The condition.
    pub when: GatherWhen,
    /// How long the leases last. Cut to [`MAX_DELAY`](crate::MAX_DELAY).
    pub lease: Duration,
}

/// When marked deliveries are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherWhen {
    /// Always. Those that are leased already are left out.
    Now,
    /// When the message is at rest: no delivery is leased, and no unmarked one is due.
    AtRest,
    /// When only marked deliveries are left of the message, and none is leased.
    Alone,
}

/// A delivery that was leased.
#[derive(Debug)]
pub struct Claimed {
    /// The right to write back.
    pub lease: Lease,
    /// Where it goes.
    pub key: RoutingKey,
    /// Whose mail it is.
    pub owner: Owner,
    /// How urgent it is.
    pub priority: Priority,
    /// The message's envelope.
    pub envelope: Bytes,
    /// The delivery's state as last written.
    pub state: Bytes,
    /// The size of the body in bytes.
    pub body_len: u64,
    /// The number of attempts that were finished with [`Outcome::Retry`].
    pub attempts: u32,
    /// The number of other deliveries of the message that are in the queue.
    pub others: u32,
    /// Time since the message was accepted. Never shrinks, even if the wall clock is set back.
    pub age: Duration,
}

/// The right to write back the outcome of a delivery. Good until the delivery is claimed again.
///
/// Dropping it does nothing: the delivery becomes claimable when the lease expires.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is dropped blocks its delivery until it expires"]
pub struct Lease {
    pub(crate) message: MessageId,
    pub(crate) delivery: u32,
    pub(crate) generation: u64,
}

impl Lease {
    /// Creates a lease. For engines: no two leases on one delivery may ever have the same
    /// generation.
    pub fn new(message: MessageId, delivery: u32, generation: u64) -> Self {
        Self { message, delivery, generation }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> MessageId {
        self.message
    }

    /// The delivery's number, counted from 0 in the order of [`NewMessage::deliveries`].
    #[must_use]
    pub fn delivery(&self) -> u32 {
        self.delivery
    }

    /// The number of the claim.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The delivery is done. With its last delivery the message leaves the queue.
    Done,
    /// The delivery is tried again later.
    Retry {
        /// Time from now until it becomes claimable. Cut to [`MAX_DELAY`](crate::MAX_DELAY).
        delay: Duration,
        /// The new state.
        state: Bytes,
    },
    /// Only the state changes. The due time and the number of attempts stay.
    Keep {
        /// The new state.
        state: Bytes,
    },
}

impl Outcome {
    /// The state from now on. `None`: the delivery is done.
    #[must_use]
    pub const fn state(&self) -> Option<&Bytes> {
        match self {
            Self::Done => None,
            Self::Retry { state, .. } | Self::Keep { state } => Some(state),
        }
    }
}

/// The count of changes when [`changed`](Queue::changed) returned. The default means that no change
/// was seen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Change(pub(crate) u64);

impl Change {
    /// Creates a change from an engine's count, which starts at 1. For engines.
    #[must_use]
    pub const fn from_u64(count: u64) -> Self {
        Self(count)
    }

    /// The engine's count. For engines.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Counts and gauges. Counts start at 0 when the queue is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries in the queue.
    pub deliveries: u64,
    /// Deliveries that are leased.
    pub leased: u64,
    /// Messages on hold.
    pub held: u64,
    /// The size of all bodies in bytes.
    pub bytes: u64,
    /// Bytes of stored messages on the disk, without zeros written ahead. 0: the engine has no
    /// disk.
    pub disk: u64,
    /// Bytes of the index on the disk, which can be rebuilt and does not count in `disk`. 0: the
    /// engine has no such index.
    pub index_disk: u64,
    /// Bytes of memory for messages that the engine has in memory, without their bodies.
    pub index_memory: u64,
    /// `true` if a due delivery waits until the engine has made room for it in memory.
    pub short_of_memory: bool,
    /// Messages being received.
    pub drafts: u64,
    /// Bytes of memory for messages being received.
    pub draft_memory: u64,
    /// Time since the oldest message was accepted. `None`: the queue is empty, or has stopped.
    pub oldest: Option<Duration>,
    /// Messages accepted, derived ones included, since the queue was opened.
    pub puts: u64,
    /// Outcomes written since the queue was opened.
    pub finished: u64,
    /// The number of waits for stable storage.
    pub fsyncs: u64,
    /// Damages found on the disk, at opening and since.
    pub damaged: u64,
    /// Why the store has stopped. `None`: it runs. After closing: why it had stopped before, if it
    /// had.
    pub broken: Option<crate::Broken>,
    /// The number of times that the store went on after it had stopped.
    pub reopened: u64,
    /// How near the disk is to the bytes that are kept back: those bytes, in percent of what is
    /// free. From 100 on puts are `Full`. 0: none are kept back, or the engine has no disk.
    pub disk_pressure: u64,
    /// The same for files, where the file system has a limit on them.
    pub files_pressure: u64,
}
