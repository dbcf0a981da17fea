//! The last checkpoint, for reading.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction};

use super::rows::decode_message;
use super::{Error, MESSAGES, READY, ReadyKey, WAITING, WaitingClass, WaitingKey};
use crate::index::{Base, Message, Moment, ReadyRow, Slot, Unreadable};
use crate::log::format::place::Stored;
use crate::{DueClass, MessageId, Owner, Priority, RoutingKey};

/// A checkpoint as of when the snapshot was taken, whatever is written afterwards.
pub(in crate::log) struct Snapshot {
    messages: ReadOnlyTable<u64, &'static [u8]>,
    ready: ReadOnlyTable<ReadyKey, ()>,
    waiting: ReadOnlyTable<WaitingKey, WaitingClass>,
    path: Arc<Path>,
}

impl Snapshot {
    pub(super) fn new(transaction: &ReadTransaction, path: Arc<Path>) -> Result<Self, Error> {
        Ok(Self {
            messages: transaction.open_table(MESSAGES)?,
            ready: transaction.open_table(READY)?,
            waiting: transaction.open_table(WAITING)?,
            path,
        })
    }

    fn unreadable(&self, why: impl std::fmt::Display) -> Unreadable {
        Unreadable(format!(
            "{} cannot be read: {why}; check the disk (the index is rebuilt from the log)",
            self.path.display()
        ))
    }
}

impl Base for Snapshot {
    type Stored = Stored;
    const IS_EVER_FILLED: bool = true;

    fn message(&self, id: MessageId) -> Result<Option<Message<Stored>>, Unreadable> {
        let row = self.messages.get(id.as_u64()).map_err(|error| self.unreadable(error))?;
        row.map(|row| decode_message(row.value()).map_err(|error| self.unreadable(error))).transpose()
    }

    fn id_after(&self, after: Option<MessageId>) -> Result<Option<MessageId>, Unreadable> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_u64()));
        let mut range = self.messages.range((start, Bound::Unbounded)).map_err(|error| self.unreadable(error))?;
        let first = range.next().transpose().map_err(|error| self.unreadable(error))?;
        Ok(first.map(|(id, _)| MessageId::from_u64(id.value())))
    }

    fn ready_from(&self, from: &ReadyRow) -> Result<Option<ReadyRow>, Unreadable> {
        let mut range = self.ready.range(ready_key(from)..).map_err(|error| self.unreadable(error))?;
        let Some((key, _)) = range.next().transpose().map_err(|error| self.unreadable(error))? else {
            return Ok(None);
        };
        let (key, negative, owner, due, id, number) = key.value();
        let named = || {
            let priority = Priority(i8::try_from(negative.checked_neg()?).ok()?);
            let (key, owner) = (RoutingKey::new(key).ok()?, Owner::new(owner).ok()?);
            let slot = (MessageId::from_u64(id), number);
            Some(ReadyRow { class: DueClass { key, priority, owner }, due, slot })
        };
        named().map(Some).ok_or_else(|| self.unreadable("a key or an owner in it is beyond 255 bytes"))
    }

    fn waiting_from(&self, (due, slot): (Moment, Slot)) -> Result<Option<(Moment, Slot)>, Unreadable> {
        let from = (due, slot.0.as_u64(), slot.1);
        let mut range = self.waiting.range(from..).map_err(|error| self.unreadable(error))?;
        let first = range.next().transpose().map_err(|error| self.unreadable(error))?;
        Ok(first.map(|(key, _)| {
            let (due, id, number) = key.value();
            (due, (MessageId::from_u64(id), number))
        }))
    }
}

/// So that higher priorities come first.
pub(super) fn negated(priority: Priority) -> i16 {
    -i16::from(priority.0)
}

fn ready_key(row: &ReadyRow) -> (&str, i16, &str, i64, u64, u32) {
    let DueClass { key, priority, owner } = &row.class;
    (key.as_str(), negated(*priority), owner.as_str(), row.due, row.slot.0.as_u64(), row.slot.1)
}
