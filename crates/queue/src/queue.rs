//! The trait that every engine implements. What its calls take and give is in `call.rs`.

use std::cmp::Reverse;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::{
    Alteration, Change, Claim, Claimed, Derived, DueClass, Error, Gather, Lease, LeaseError, MessageId, NewMessage,
    Outcome, Page, PutError, Search, Stats, Summary,
};
#[cfg(doc)]
use crate::{GatherWhen, RoutingKey};

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

    /// Opens the body of a queued message. It can be read on after the message has left the queue.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`] if the message is no longer in the queue, [`Error::Damaged`] if its
    /// body cannot be opened, [`Error::Scarce`] if the system has no descriptor left,
    /// [`Error::Broken`], [`Error::Closed`].
    fn body(&self, message: MessageId) -> impl Future<Output = Result<Self::Body, Error>> + Send;

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

    /// Returns one message as a search shows it.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`], [`Error::Broken`], [`Error::Closed`].
    fn summary(&self, message: MessageId) -> impl Future<Output = Result<Summary, Error>> + Send;

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
/// back), and ends the stream. [`Damaged`](crate::Error::Damaged): the bytes are not those that
/// were accepted. [`Unreadable`](crate::Error::Unreadable): they cannot be read now.
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
