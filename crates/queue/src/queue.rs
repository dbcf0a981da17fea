//! The contract of every engine.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::{Alteration, Error, LeaseError, MessageId, Owner, Page, Priority, PutError, RoutingKey, Search, Summary};

/// A durable store-and-forward queue.
///
/// The unit of work is a *delivery*: the recipients of one message that share a [`RoutingKey`]. The queue does not look into
/// envelopes and states; it keeps them, says when they are due, and guarantees that
///
/// * [`Draft::commit`] and [`finish`](Self::finish) return `Ok` only once what they say is on stable storage (of an engine
///   that has any),
/// * a message leaves only as finished or removed; an expired lease means *claimable again* and never *deleted*,
/// * of two holders of the same delivery only the later one can write back.
///
/// **When the store fails**, a disk for instance, an engine stops: every call fails with [`Broken`](Error::Broken), and so do those
/// that wait for an answer; what they asked for may have been done, or may not, but was not done in part. Acknowledged
/// is still acknowledged. An engine may go on by itself when it can read its store again: then leases from before are stale,
/// drafts begun before fail, every delivery is claimable again when it is due, and [`changed`](Self::changed) returns.
///
/// Durations are measured on the engine's own clock. Futures name no runtime. Dropping the future of a write, once polled, leaves
/// open whether the write took place; it takes place wholly or not at all.
///
/// No engine detail shows: no paths, no positions, no transactions that the caller holds open.
pub trait Queue: Send + Sync + 'static {
    /// A message that is being received.
    type Draft: Draft;
    /// A message that is being read.
    type Body: Body;

    /// Reserves room for a message. `size_hint` is what the peer announced, in octets.
    ///
    /// # Errors
    /// [`PutError::Full`] when there is no room now, [`PutError::TooLarge`] for a hint beyond the largest body,
    /// [`PutError::Broken`], [`PutError::Closed`].
    fn put(&self, size_hint: Option<u64>) -> impl Future<Output = Result<Self::Draft, PutError>> + Send;

    /// Leases up to [`max`](Claim::max) deliveries that are due: of the highest priority that any has, of the owner whose turn it
    /// is, the one that is due longest. Returns at once, with nothing when nothing is due, or when as many are leased as the engine
    /// allows: wait with [`changed`](Self::changed).
    ///
    /// **The duplicate bound** is that number: of deliveries that were leased when the process died nobody knows whether they were
    /// made, so they are offered again. Of all others it is known.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn claim(&self, claim: Claim<'_>) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Leases whatever is due, for one who does not care for keys: as [`claim`](Self::claim), for the first 32 of the
    /// [`due_keys`](Self::due_keys).
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn claim_any(&self, max: usize, lease: Duration) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send {
        async move {
            let keys = self.due_keys(None, 32).await?;
            self.claim(Claim { keys: &keys, max, lease }).await
        }
    }

    /// Opens the body of a claimed message for reading. The reader may be kept when the lease is finished.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`] when the message is gone meanwhile, [`Error::Damaged`] when its body cannot be read.
    fn body(&self, lease: &Lease) -> impl Future<Output = Result<Self::Body, Error>> + Send;

    /// Lets the lease end `lease_for` from now instead, sooner or later than before.
    ///
    /// An expired lease that nobody has claimed since is revived.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] when the delivery was claimed anew or removed.
    fn extend(&self, lease: &Lease, lease_for: Duration) -> impl Future<Output = Result<(), LeaseError>> + Send;

    /// Leases deliveries of one message by how their states begin, due or not, in the order of their numbers: for what is
    /// said once about several of them. Returns at once, with nothing when the message is on hold or gone, when nothing is
    /// marked, or when it is not [`when`](Gather::when) was asked for.
    ///
    /// Gathered deliveries do not count towards the bound of leases: nothing of them is on its way to anywhere.
    ///
    /// No gathering is missed: of several callers that each finish a delivery and gather afterwards, the last one finds the
    /// message at rest.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn gather(&self, gather: Gather<'_>) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Writes back what came of a delivery and stores the messages derived from it, in one atomic and durable step:
    /// [`finish_all`](Self::finish_all) of one.
    ///
    /// # Errors
    /// As there.
    fn finish(
        &self,
        lease: Lease,
        outcome: Outcome,
        derived: Vec<Derived>,
    ) -> impl Future<Output = Result<Vec<MessageId>, LeaseError>> + Send {
        self.finish_all(vec![(lease, outcome)], derived)
    }

    /// Writes back what came of several deliveries of one message and stores the messages derived from them, in one atomic and
    /// durable step.
    ///
    /// Never refused for want of room. An expired lease that nobody has claimed since is still good: what happened, happened.
    /// Returns the ids of the derived messages, in order.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] when one of the deliveries was claimed anew or removed, when one stands there twice, when they are
    /// of several messages, or when there is none; then nothing was written, and nothing derived.
    fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> impl Future<Output = Result<Vec<MessageId>, LeaseError>> + Send;

    /// The keys that have something to claim now, in order, beginning behind `after`; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Closed`].
    fn due_keys(
        &self,
        after: Option<&RoutingKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RoutingKey>, Error>> + Send;

    /// Waits until something *may* have become claimable that was not when `seen` was returned: a message came, a due time was
    /// reached, a lease expired, a message was released or altered, a lease ended where there could be no more.
    ///
    /// ```text
    /// let mut seen = Change::default();
    /// loop {
    ///     seen = queue.changed(seen).await?;      // the default resolves at once
    ///     while !queue.claim_any(…).await?.is_empty() { … }
    /// }
    /// ```
    ///
    /// No wake-up is lost, with any number of waiters: a [`Change`] counts, and the engine makes work claimable *before* it
    /// counts. Whatever the claims after a return did not see is therefore counted later than the value returned, and the next
    /// call with that value resolves at once. Nothing polls: the engine keeps the timer.
    ///
    /// While the store has stopped and will go on by itself, this waits: it returns when it has, for everything may be claimable
    /// anew then. So a loop that takes [`Error::Broken`] from a claim for "nothing now" comes to rest here, and goes on by itself.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::Broken`] of a store that does not go on: at once, also for those who wait.
    fn changed(&self, seen: Change) -> impl Future<Output = Result<Change, Error>> + Send;

    /// Changes something about a queued message, for operators: see [`Alteration`]. Durable. Leases that are out go on. Returns how
    /// many deliveries it concerned; of a hold and a release 1 when it is news, otherwise 0.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`], [`Error::Broken`], [`Error::Closed`].
    fn alter(&self, message: MessageId, what: Alteration) -> impl Future<Output = Result<usize, Error>> + Send;

    /// Keeps a message from being claimed until it is released. `false`: it was held already.
    ///
    /// # Errors
    /// As [`alter`](Self::alter).
    fn hold(&self, message: MessageId) -> impl Future<Output = Result<bool, Error>> + Send {
        async move { Ok(self.alter(message, Alteration::Hold).await? > 0) }
    }

    /// Ends a hold. `false`: it was not held.
    ///
    /// # Errors
    /// As [`alter`](Self::alter).
    fn release(&self, message: MessageId) -> impl Future<Output = Result<bool, Error>> + Send {
        async move { Ok(self.alter(message, Alteration::Release).await? > 0) }
    }

    /// Throws a message away, reporting to nobody: for operators. Durable. Leases on it become stale.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`].
    fn remove(&self, message: MessageId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Looks through the queue by id, beginning behind `after`, for at most `limit` messages; 0 counts as 1.
    ///
    /// A call looks at no more messages than it can without keeping others waiting (an engine says how many), so a page may hold
    /// fewer, or none at all, and yet not be the last: that one has no [`next`](Page::next).
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

    /// What is in the queue, by id, beginning behind `after`: some of it, at most `limit` as there, and nothing only when there is nothing.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    fn list(&self, after: Option<MessageId>, limit: usize) -> impl Future<Output = Result<Vec<Summary>, Error>> + Send {
        async move { Ok(self.search(&Search::default(), after, limit).await?.messages) }
    }

    /// Counts and gauges; works on a broken queue too.
    fn stats(&self) -> impl Future<Output = Stats> + Send;

    /// Finishes what was begun, stops, and lets go of the store. Every later call fails with `Closed`. Idempotent. Blocks
    /// until it is done.
    fn close(&self);
}

/// A message that is being received. Dropping it leaves nothing.
pub trait Draft: Send {
    /// The id that the message will have: known early, because it belongs into the message's own trace header.
    fn id(&self) -> MessageId;

    /// Octets written so far.
    fn len(&self) -> u64;

    /// Whether nothing was written so far.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends to the body.
    ///
    /// # Errors
    /// [`PutError::TooLarge`], [`PutError::Full`], [`PutError::Broken`]; the draft is of no use afterwards and keeps returning errors.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), PutError>> + Send;

    /// Makes body and envelope durable as one. `Ok` is the promise: the message is on stable storage and will be offered for
    /// delivery until it is finished or removed.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`PutError::NoDelivery`]. Nothing is left.
    fn commit(self, message: NewMessage) -> impl Future<Output = Result<MessageId, PutError>> + Send;
}

/// Reads a body from its beginning.
pub trait Body: Send {
    /// The next chunk, at most 64 KiB, or `None` at the end. The octets are checked against their checksum; the last chunk is only
    /// given once all are found good.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the octets cannot be read or are not those that were accepted.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;

    /// Octets in all.
    fn len(&self) -> u64;

    /// Whether there is nothing to read at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Whose it is.
    pub owner: Owner,
    /// How urgent.
    pub priority: Priority,
    /// Opaque: given back with every claim. At most [`MAX_ENVELOPE`](crate::MAX_ENVELOPE).
    pub envelope: Bytes,
    /// At least one, at most [`MAX_DELIVERIES`](crate::MAX_DELIVERIES).
    pub deliveries: Vec<NewDelivery>,
}

/// The recipients of a message that share a routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Where to.
    pub key: RoutingKey,
    /// How long after acceptance it becomes claimable. At most [`MAX_DELAY`](crate::MAX_DELAY), to which it is cut.
    pub delay: Duration,
    /// Opaque: the packed states of its recipients. Those of a message: at most [`MAX_STATES`](crate::MAX_STATES) together.
    pub state: Bytes,
}

/// A message that comes out of another one's delivery, like a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The message.
    pub message: NewMessage,
    /// Its body. All that one outcome derives: at most [`MAX_DERIVED`](crate::MAX_DERIVED) together.
    pub body: Bytes,
}

/// What to lease.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// For which keys: [`due_keys`](Queue::due_keys) says for which there is something.
    pub keys: &'a [RoutingKey],
    /// At most so many deliveries.
    pub max: usize,
    /// How long the lease lasts. At most [`MAX_DELAY`](crate::MAX_DELAY), to which it is cut.
    pub lease: Duration,
}

/// Which deliveries of a message to lease together: see [`Queue::gather`].
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    /// Of which message.
    pub message: MessageId,
    /// Those whose state begins with one of these octets. The others are unmarked.
    pub marks: &'a [&'a [u8]],
    /// When.
    pub when: GatherWhen,
    /// How long the leases last. At most [`MAX_DELAY`](crate::MAX_DELAY), to which it is cut.
    pub lease: Duration,
}

/// When deliveries are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherWhen {
    /// In any case; those that are leased already are left out.
    Now,
    /// When the message is at rest: none of its deliveries is leased, and none that is unmarked is due.
    AtRest,
    /// When nothing else is left of the message: no delivery is leased, and none is unmarked.
    Alone,
}

/// A delivery that was leased.
#[derive(Debug)]
pub struct Claimed {
    /// The right to write back.
    pub lease: Lease,
    /// Where to.
    pub key: RoutingKey,
    /// Whose.
    pub owner: Owner,
    /// How urgent.
    pub priority: Priority,
    /// The message's envelope.
    pub envelope: Bytes,
    /// The delivery's state as last written.
    pub state: Bytes,
    /// The size of the body in octets.
    pub body_len: u64,
    /// How often an attempt was finished with [`Outcome::Retry`].
    pub attempts: u32,
    /// How many other deliveries of its message are in the queue.
    pub others: u32,
    /// Time since the message was accepted. Never shrinks, also when the wall clock jumps back.
    pub age: Duration,
}

/// The right to write back what came of a delivery. Good until the delivery is claimed anew.
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
    /// Puts a lease together. For engines: the generation must be of no other lease on this delivery, ever.
    pub fn new(message: MessageId, delivery: u32, generation: u64) -> Self {
        Self { message, delivery, generation }
    }

    /// Of which message.
    #[must_use]
    pub fn message(&self) -> MessageId {
        self.message
    }

    /// Which of the message's deliveries, counted from 0 in the order of [`NewMessage::deliveries`].
    #[must_use]
    pub fn delivery(&self) -> u32 {
        self.delivery
    }

    /// Which claim of it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do for it. With the last delivery the message is gone.
    Done,
    /// Something is left to do.
    Retry {
        /// When it becomes claimable again, from now. At most [`MAX_DELAY`](crate::MAX_DELAY), to which it is cut.
        delay: Duration,
        /// The new state.
        state: Bytes,
    },
    /// It is as it was before it was claimed, due when it was due then and after as many attempts, but for its state.
    Keep {
        /// The new state.
        state: Bytes,
    },
}

impl Outcome {
    /// The state from now on. [`None`]: nothing is left to do.
    #[must_use]
    pub const fn state(&self) -> Option<&Bytes> {
        match self {
            Self::Done => None,
            Self::Retry { state, .. } | Self::Keep { state } => Some(state),
        }
    }
}

/// How much had happened when [`changed`](Queue::changed) returned. The default is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Change(pub(crate) u64);

impl Change {
    /// Makes one out of an engine's count, which starts at 1. For engines.
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

/// Counts and gauges. Counts start at zero when the queue is opened.
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
    /// Octets of all bodies.
    pub bytes: u64,
    /// Octets on the disk for them, without what is written ahead of time; 0 for an engine without one.
    pub disk: u64,
    /// Octets on the disk for the index behind them, which can be made anew and is not among those; 0 for an engine without one.
    pub index_disk: u64,
    /// Octets of memory that the messages take which the engine has in memory, without their bodies.
    pub index_memory: u64,
    /// Whether something is due that cannot be claimed yet, because there is no room for it in memory: the engine makes some.
    pub short_of_memory: bool,
    /// Messages being received.
    pub drafts: u64,
    /// Octets of messages being received that are in memory.
    pub draft_memory: u64,
    /// Time since the oldest message was accepted.
    pub oldest: Option<Duration>,
    /// Messages accepted, derived ones included.
    pub puts: u64,
    /// Outcomes written.
    pub finished: u64,
    /// Times that stable storage was waited for.
    pub fsyncs: u64,
    /// Places on the disk that were found damaged and set aside, at opening and since.
    pub damaged: u64,
    /// Why the store has stopped, as long as it has; after closing, why it had stopped, if it had.
    pub broken: Option<crate::Broken>,
    /// How often it went on after it had stopped.
    pub reopened: u64,
}
