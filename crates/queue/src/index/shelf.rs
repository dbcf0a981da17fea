//! The base, without what memory knows better.

use std::collections::BTreeMap;

use super::base::{Base, Rank, ReadyRow, Unreadable, WaitingRow};
use super::{Message, Moment};
use crate::MessageId;

/// A base, and how far it has been taken into memory.
///
/// The row of a message that is in memory or gone is *hidden*: it is passed over. Rows are taken
/// from the front, so in each rank the hidden ones are mostly the first. Where they end is
/// remembered; otherwise each claim would walk over a million rows again.
///
/// A hidden row stays hidden, because a message leaves memory only with the next base, and that has
/// a new shelf.
pub(super) struct Shelf<S> {
    base: S,
    /// In each rank, every row before this one is hidden.
    ready: BTreeMap<Rank, ReadyRow>,
    /// Every waiting row before this one is hidden.
    waiting: WaitingRow,
    /// Every message up to this one is hidden.
    oldest: Option<MessageId>,
}

/// What memory knows better than the base.
pub(super) trait Hides {
    fn hides(&self, id: MessageId) -> bool;
}

impl<S: Base> Shelf<S> {
    pub(super) const fn new(base: S) -> Self {
        Self { base, ready: BTreeMap::new(), waiting: NO_WAITING, oldest: None }
    }

    pub(super) fn message(&self, id: MessageId) -> Result<Option<Message<S::Stored>>, Unreadable> {
        self.base.message(id)
    }

    /// The first ready row at or after this place: the beginning of a rank, or the place after one.
    pub(super) fn ready_from(&mut self, from: &ReadyRow, over: &impl Hides) -> Result<Option<ReadyRow>, Unreadable> {
        if !S::IS_EVER_FILLED {
            return Ok(None);
        }
        let mut at = self.base.ready_from(self.ready.get(&from.rank).filter(|taken| *taken > from).unwrap_or(from))?;
        while let Some(row) = at {
            if !over.hides(row.slot.0) {
                return Ok(Some(row));
            }
            // A rank is walked from the end of its hidden rows, so this row is the new end.
            let next = match self.ready.get_mut(&row.rank) {
                Some(taken) if *taken > row => taken.clone(),
                Some(taken) => {
                    *taken = behind(row);
                    taken.clone()
                }
                None => {
                    let taken = behind(row);
                    self.ready.insert(taken.rank.clone(), taken.clone());
                    taken
                }
            };
            at = self.base.ready_from(&next)?;
        }
        Ok(None)
    }

    pub(super) fn first_waiting(&mut self, over: &impl Hides) -> Result<Option<WaitingRow>, Unreadable> {
        if !S::IS_EVER_FILLED {
            return Ok(None);
        }
        while let Some(row) = self.base.waiting_from(self.waiting)? {
            self.waiting = row;
            if !over.hides(row.1.0) {
                return Ok(Some(row));
            }
            self.waiting.1.1 = row.1.1.saturating_add(1);
        }
        self.waiting = (Moment::MAX, (MessageId::from_u64(u64::MAX), u32::MAX));
        Ok(None)
    }

    pub(super) fn id_after(
        &mut self,
        after: Option<MessageId>,
        over: &impl Hides,
    ) -> Result<Option<MessageId>, Unreadable> {
        if !S::IS_EVER_FILLED {
            return Ok(None);
        }
        let from_the_oldest = after <= self.oldest;
        let mut at = self.base.id_after(after.max(self.oldest))?;
        while let Some(id) = at.filter(|id| over.hides(*id)) {
            if from_the_oldest {
                self.oldest = Some(id);
            }
            at = self.base.id_after(Some(id))?;
        }
        Ok(at)
    }
}

/// The place right after a row. Delivery numbers stay below the largest number.
fn behind(mut row: ReadyRow) -> ReadyRow {
    row.slot.1 = row.slot.1.saturating_add(1);
    row
}

const NO_WAITING: WaitingRow = (Moment::MIN, (MessageId::from_u64(0), 0));
