//! What lies below the index: the queue as of a checkpoint.

use std::marker::PhantomData;

use super::{Message, Moment, Slot};
use crate::{DueClass, MessageId, Owner, Priority, RoutingKey};

/// The queue as of the last checkpoint, on a disk. It does not change. Messages that are not in
/// memory are read from here.
///
/// A delivery of a message that is not on hold has one row: a ready row if it was due at the
/// checkpoint's moment, otherwise a waiting row. Deliveries that were leased then have a row as
/// well.
pub(crate) trait Base: Send + 'static {
    /// What the engine needs to find a body again.
    type Stored: Clone + Send + Sync;
    /// `false`: the base is always empty, so looking into it can be skipped.
    const IS_EVER_FILLED: bool;

    /// A message, with none of its deliveries in a schedule.
    fn message(&self, id: MessageId) -> Result<Option<Message<Self::Stored>>, Unreadable>;
    /// The first message after this one.
    fn id_after(&self, after: Option<MessageId>) -> Result<Option<MessageId>, Unreadable>;
    /// The first ready row at or after this place.
    fn ready_from(&self, from: &ReadyRow) -> Result<Option<ReadyRow>, Unreadable>;
    /// The first waiting row at or after this place.
    fn waiting_from(&self, from: WaitingRow) -> Result<Option<WaitingRow>, Unreadable>;
}

/// A delivery that can be claimed. Those of one class are claimed in the order in which they became
/// due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyRow {
    pub(crate) class: DueClass,
    pub(crate) due: Moment,
    pub(crate) slot: Slot,
}

/// A delivery that is not due yet.
pub(crate) type WaitingRow = (Moment, Slot);

/// The base cannot be read: the file, what happened to it, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

/// An empty base, for an engine that keeps everything in memory.
pub(crate) struct Nothing<B>(PhantomData<fn() -> B>);

impl<B> Nothing<B> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<B: Clone + Send + Sync + 'static> Base for Nothing<B> {
    type Stored = B;
    const IS_EVER_FILLED: bool = false;

    fn message(&self, _: MessageId) -> Result<Option<Message<B>>, Unreadable> {
        Ok(None)
    }

    fn id_after(&self, _: Option<MessageId>) -> Result<Option<MessageId>, Unreadable> {
        Ok(None)
    }

    fn ready_from(&self, _: &ReadyRow) -> Result<Option<ReadyRow>, Unreadable> {
        Ok(None)
    }

    fn waiting_from(&self, _: WaitingRow) -> Result<Option<WaitingRow>, Unreadable> {
        Ok(None)
    }
}

impl ReadyRow {
    /// At or before every row.
    pub(crate) fn first() -> Self {
        let (key, owner) = (RoutingKey::first(), Owner::default());
        Self::first_in(DueClass { key, priority: Priority(i8::MAX), owner })
    }

    /// At or before every row of the class.
    pub(crate) const fn first_in(class: DueClass) -> Self {
        Self { class, due: Moment::MIN, slot: (MessageId::from_u64(0), 0) }
    }

    /// After every row of the class, and before the first row of the next class.
    pub(crate) const fn behind(class: DueClass) -> Self {
        Self { class, due: Moment::MAX, slot: (MessageId::from_u64(u64::MAX), u32::MAX) }
    }
}
