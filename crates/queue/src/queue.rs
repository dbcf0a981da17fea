//! The trait that every engine implements, and what its calls take and give.

use std::cmp::{Ordering, Reverse};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::{Alteration, Error, LeaseError, MessageId, Owner, Page, Priority, PutError, RoutingKey, Search, Summary};

/// A durable store-and-forward queue.
///
/// The unit of work is a *delivery*: the recipients of one message that share a [`RoutingKey`]. The
/// queue keeps envelopes and states, and does not look into them. It says when a delivery is due,
/// and guarantees three things:
///
/// * [`Draft::commit`] and [`finish`](Self::finish) return `Ok` only once what they say is on
///   stable storage, if the engine has any.
/// * A message leaves the queue only as finished or removed. An expired lease means *claimable
///   again*, never *deleted*.
/// * Of two holders of one delivery, only the later one can write back.
///
/// **When the store fails**, an engine stops. Every call fails with [`Broken`](Error::Broken),
/// waiting calls included. Two go on: [`stats`](Self::stats), and [`changed`](Self::changed) if the
/// engine will go on by itself. What the failed calls asked for may or may not have been done, but
/// was not done in part. What was acknowledged stays acknowledged. An engine may go on by itself
/// when it can read its store again. Then earlier leases are stale, earlier drafts fail, every
/// delivery is claimable when it is due, and [`changed`](Self::changed) returns.
///
/// **What blocks.** No call blocks the caller's thread on a write to stable storage: it waits as a
/// future. An engine may block for short reads. `LogQueue` reads pages of its index from the disk
/// in `claim`, `claim_any`, `gather`, `extend`, `due`, `search`, `list` and `stats`. `put`
/// asks the file system for its free space. `body`, each piece of a body, and [`Draft::write`] of a
/// large message read or write a file. That takes microseconds if the pages are in the system's
/// cache, and a disk's time otherwise.
///
/// **What may be dropped.** The future of a write, once polled, may be dropped: the write then
/// takes place wholly or not at all, and the caller does not learn which. A claim that is dropped
/// may leave deliveries leased until the leases expire.
///
/// Durations are measured on the engine's own clock. Futures need no particular runtime. No engine
/// detail shows: no paths, no positions, no open transactions.
pub trait Queue: Send + Sync + 'static {
    /// A message that is being received.
    type Draft: Draft;
    /// A body that is being read.
    type Body: Body;

    /// Begins a message if there is room for it. `size_hint` is the size that the peer announced,
    /// in bytes. The room is checked, not reserved: writing may still fail.
    ///
    /// # Errors
    /// [`PutError::Full`] if there is no room now, [`PutError::TooLarge`] if the hint is beyond the
    /// largest body, [`PutError::Broken`], [`PutError::Closed`].
    fn put(&self, size_hint: Option<u64>) -> impl Future<Output = Result<Self::Draft, PutError>> + Send;

    /// Leases up to [`max`](Claim::max) due deliveries of some [classes](DueClass).
    ///
    /// The order: the classes as they are given; within a class, the delivery that has been due
    /// longest. So the caller decides whose turn it is: see [`due`](Self::due). Returns at once.
    /// The list is empty if no delivery is due, or if the engine's bound on leases is reached: wait
    /// with [`changed`](Self::changed). A class that has no due delivery any more is passed over.
    ///
    /// **The bound on duplicates** is that bound on leases. Only deliveries that were leased when
    /// the process died may have been made without a record of it, so only they can be made twice.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn claim(&self, claim: Claim<'_>) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Leases due deliveries of any class: a [`claim`](Self::claim) from the first 32
    /// [`due`](Self::due) classes, in the order of their priorities, highest first.
    ///
    /// For callers with one owner, or that claim until nothing is due. Owners do not take turns
    /// here: a class with much mail delays those behind it.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn claim_any(&self, max: usize, lease: Duration) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send {
        async move {
            let mut classes = self.due(None, 32).await?;
            classes.sort_by_key(|class| Reverse(class.priority));
            self.claim(Claim { from: &classes, max, lease }).await
        }
    }

    /// Opens the body of a claimed message. It can be read on after the lease is finished.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`] if the message is no longer in the queue, [`Error::Damaged`] if its
    /// body cannot be opened, [`Error::Scarce`] if the system has no descriptor left,
    /// [`Error::Broken`], [`Error::Closed`].
    fn body(&self, lease: &Lease) -> impl Future<Output = Result<Self::Body, Error>> + Send;

    /// Sets the end of a lease to `lease_for` from now, sooner or later than before.
    ///
    /// Revives an expired lease, unless its delivery has been claimed again.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the delivery has been claimed again or removed,
    /// [`LeaseError::Store`].
    fn extend(&self, lease: &Lease, lease_for: Duration) -> impl Future<Output = Result<(), LeaseError>> + Send;

    /// Leases the deliveries of one message whose states begin with a [mark](Gather::marks), due or
    /// not, in the order of their numbers. For one report about several deliveries.
    ///
    /// Returns at once. The list is empty if the message is on hold or gone, if no delivery is
    /// marked, or if the condition [`when`](Gather::when) does not hold.
    ///
    /// The bound on leases does not limit gathering, which sends no message to a next hop. But
    /// gathered leases count, so claims may return fewer deliveries until those are finished.
    ///
    /// If several callers each finish a delivery and gather afterwards, the last one finds the
    /// message [at rest](GatherWhen::AtRest). So one of them always gathers.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn gather(&self, gather: Gather<'_>) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Writes back the outcome of one delivery and stores the messages derived from it, in one
    /// atomic and durable step: [`finish_all`](Self::finish_all) of one.
    ///
    /// # Errors
    /// As [`finish_all`](Self::finish_all).
    fn finish(
        &self,
        lease: Lease,
        outcome: Outcome,
        derived: Vec<Derived>,
    ) -> impl Future<Output = Result<Vec<MessageId>, LeaseError>> + Send {
        self.finish_all(vec![(lease, outcome)], derived)
    }

    /// Writes back the outcomes of several deliveries of one message, and stores the messages
    /// derived from them, in one atomic and durable step.
    ///
    /// Never refused for lack of room: it waits until there is some. An expired lease still counts,
    /// unless its delivery has been claimed again. Returns the ids of the derived messages, in
    /// order.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if a delivery has been claimed again or removed, if one is named
    /// twice, if they belong to several messages, or if the list is empty. [`LeaseError::TooLarge`]
    /// and [`LeaseError::NoDelivery`] if the outcomes or the derived messages are beyond a limit.
    /// In all these cases nothing was written and no message derived. [`LeaseError::Store`] if the
    /// store has failed: with [`Error::Broken`] the outcome is unknown.
    fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> impl Future<Output = Result<Vec<MessageId>, LeaseError>> + Send;

    /// Returns the [classes](DueClass) that have a claimable delivery, in their order, starting
    /// after `after`; at most `limit`. `after` need not be due.
    ///
    /// The queue gives no class a turn: it says what is due, and the caller says in
    /// [`Claim::from`] what it wants. To be fair, a caller puts the classes of each owner in a line
    /// of their own, and takes one delivery from each line in turn, highest priorities first:
    ///
    /// ```
    /// # use std::{cmp::Reverse, collections::{BTreeMap, VecDeque}, time::Duration};
    /// # use posthaste_queue::{Claim, Claimed, DueClass, Error, Owner, Queue};
    /// async fn fairly<Q: Queue>(queue: &Q, lease: Duration, mut each: impl FnMut(Claimed)) -> Result<(), Error> {
    ///     let mut lines: BTreeMap<_, BTreeMap<Owner, VecDeque<DueClass>>> = BTreeMap::new();
    ///     for class in queue.due(None, 1_000).await? {
    ///         let line = lines.entry(Reverse(class.priority)).or_default().entry(class.owner.clone());
    ///         line.or_default().push_back(class);
    ///     }
    ///     for mut owners in lines.into_values() {
    ///         while !owners.is_empty() {
    ///             for line in owners.values_mut() {
    ///                 while let Some(class) = line.pop_front() {
    ///                     let from = std::slice::from_ref(&class);
    ///                     if let Some(claimed) = queue.claim(Claim { from, max: 1, lease }).await?.pop() {
    ///                         each(claimed);
    ///                         line.push_back(class);
    ///                         break;
    ///                     }
    ///                 }
    ///             }
    ///             owners.retain(|_, line| !line.is_empty());
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The cost grows with the number of classes that are returned, and not with the number of
    /// their deliveries.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn due(&self, after: Option<&DueClass>, limit: usize) -> impl Future<Output = Result<Vec<DueClass>, Error>> + Send;

    /// Waits until a delivery may have become claimable since `seen` was returned.
    ///
    /// The causes: a message was accepted, released or altered; a due time was reached; a lease
    /// expired; a lease ended while the bound on leases was reached.
    ///
    /// ```text
    /// let mut seen = Change::default();
    /// loop {
    ///     seen = queue.changed(seen).await?;      // the default resolves at once
    ///     while !queue.claim_any(…).await?.is_empty() { … }
    /// }
    /// ```
    ///
    /// No wake-up is lost, with any number of waiters. A [`Change`] is a count, and the engine
    /// makes work claimable before it raises the count. If a claim did not see some work, the count
    /// is raised after that claim, and this ends the next wait. The engine keeps the timer; callers
    /// do not poll.
    ///
    /// If the store has stopped and will go on by itself, this call waits until it has gone on:
    /// then every delivery may be claimable again. So a loop may treat [`Error::Broken`] from a
    /// claim as "no delivery now" and wait here.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Broken`] if the store will not go on, also for callers that
    /// already wait.
    fn changed(&self, seen: Change) -> impl Future<Output = Result<Change, Error>> + Send;

    /// Changes a queued message, durably: see [`Alteration`]. For operators.
    ///
    /// Leases stay valid. Returns the number of deliveries concerned. Hold and release return 1 if
    /// they changed something, otherwise 0.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`], [`Error::Broken`], [`Error::Closed`].
    fn alter(&self, message: MessageId, what: Alteration) -> impl Future<Output = Result<usize, Error>> + Send;

    /// Keeps a message from being claimed until it is released. `false`: it was on hold already.
    ///
    /// # Errors
    /// As [`alter`](Self::alter).
    fn hold(&self, message: MessageId) -> impl Future<Output = Result<bool, Error>> + Send {
        async move { Ok(self.alter(message, Alteration::Hold).await? > 0) }
    }

    /// Ends a hold. `false`: the message was not on hold.
    ///
    /// # Errors
    /// As [`alter`](Self::alter).
    fn release(&self, message: MessageId) -> impl Future<Output = Result<bool, Error>> + Send {
        async move { Ok(self.alter(message, Alteration::Release).await? > 0) }
    }

    /// Removes a message without a report, durably. Leases on it become stale. For operators.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`], [`Error::Broken`], [`Error::Closed`].
    fn remove(&self, message: MessageId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Looks through the queue by id, starting after `after`, for at most `limit` messages; 0
    /// counts as 1.
    ///
    /// A call looks at a bounded number of messages, so that other callers need not wait; the
    /// engine sets the number. So a page may hold fewer messages than `limit`, or none, before the
    /// last page. Only the last page has no [`next`](Page::next).
    ///
    /// ```
    /// # use posthaste_queue::{Error, Queue, Search, Summary};
    /// async fn each<Q: Queue>(queue: &Q, search: &Search, mut show: impl FnMut(Summary)) -> Result<(), Error> {
    ///     let mut after = None;
    ///     loop {
    ///         let page = queue.search(search, after, 100).await?;
    ///         page.messages.into_iter().for_each(&mut show);
    ///         after = page.next;
    ///         if after.is_none() {
    ///             return Ok(());
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn search(
        &self,
        search: &Search,
        after: Option<MessageId>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Returns messages by id, starting after `after`, at most `limit`; 0 counts as 1. Empty only
    /// at the end of the queue.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    fn list(&self, after: Option<MessageId>, limit: usize) -> impl Future<Output = Result<Vec<Summary>, Error>> + Send {
        async move { Ok(self.search(&Search::default(), after, limit).await?.messages) }
    }

    /// Returns counts and gauges. Works on a stopped queue too.
    fn stats(&self) -> impl Future<Output = Stats> + Send;

    /// Finishes what was begun, stops, and lets go of the store. When it returns, another process
    /// can open the store. Every later call but [`stats`](Self::stats) fails with
    /// [`Error::Closed`].
    ///
    /// Idempotent. Does not block. Once polled, closing goes on even if the future is dropped.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A message that is being received. Dropping it leaves nothing in the queue.
pub trait Draft: Send {
    /// The id that the message will have. It is known before the content, so that the message's
    /// Received field can name it.
    fn id(&self) -> MessageId;

    /// The number of bytes written so far.
    fn len(&self) -> u64;

    /// Returns `true` if no bytes were written so far.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends to the body.
    ///
    /// # Errors
    /// [`PutError::TooLarge`], [`PutError::Full`], [`PutError::Broken`], [`PutError::Closed`].
    /// After an error the draft is of no use: each later call returns the error again.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), PutError>> + Send;

    /// Makes body and envelope durable as one. `Ok` is the promise: the message is on stable
    /// storage, and is offered for delivery until it is finished or removed.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`PutError::NoDelivery`]. Nothing of the message is left,
    /// unless the error is [`PutError::Broken`].
    fn commit(self, message: NewMessage) -> impl Future<Output = Result<MessageId, PutError>> + Send;
}

/// A body that is being read: a stream of its pieces, from the beginning.
///
/// A piece has 1 to 65,536 bytes. The last piece is given only if the checksum over all bytes is
/// right. An error is an [`io::Error`] that holds an [`Error`](crate::Error) (`downcast` gives it
/// back), and ends the stream. [`Damaged`](crate::Error::Damaged): the bytes cannot be read, or are
/// not those that were accepted.
pub trait Body: Stream<Item = io::Result<Bytes>> + Send + Unpin {
    /// The size of the whole body in bytes.
    fn len(&self) -> u64;

    /// Returns `true` if the body has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the next piece: [`Stream::poll_next`] for a loop. `None`: the body has been read
    /// to its end.
    ///
    /// May be dropped: the piece is not lost.
    ///
    /// # Errors
    /// As the stream's items.
    fn chunk(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send
    where
        Self: Sized,
    {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context).map(Option::transpose))
    }
}

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
