//! The base, without what memory knows better.

use std::collections::BTreeMap;

use super::base::{Base, ReadyRow, Unreadable, WaitingRow};
use super::{Message, Moment};
use crate::MessageId;

/// A base, and how far it has been taken into memory.
///
/// The row of a message that is in memory or gone is *hidden*: it is passed over. Rows are taken
/// from the front of a class, and a checkpoint has the rows of messages that stay in memory. So
/// hidden rows mostly stand together. Their *stretches* are remembered; otherwise each claim would
/// walk over a million rows again.
///
/// A hidden row stays hidden, because a message leaves memory only with the next base, and that has
/// a new shelf.
pub(super) struct Shelf<S> {
    base: S,
    /// Stretches of hidden ready rows: from a place to before another. They are apart, and each has
    /// a row, so there are at most as many as hidden rows.
    hidden: BTreeMap<ReadyRow, ReadyRow>,
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
        Self { base, hidden: BTreeMap::new(), waiting: NO_WAITING, oldest: None }
    }

    pub(super) fn message(&self, id: MessageId) -> Result<Option<Message<S::Stored>>, Unreadable> {
        self.base.message(id)
    }

    /// The first ready row at or after `from`. `before`: and before this place.
    pub(super) fn ready_from(
        &mut self,
        from: &ReadyRow,
        before: Option<&ReadyRow>,
        over: &impl Hides,
    ) -> Result<Option<ReadyRow>, Unreadable> {
        if !S::IS_EVER_FILLED {
            return Ok(None);
        }
        let is_before = |row: &ReadyRow| before.is_none_or(|before| row < before);
        let (mut at, mut has_walked) = (self.behind_hidden(from.clone()), false);
        let mut found = None;
        while is_before(&at) {
            let Some(row) = self.base.ready_from(&at)?.filter(is_before) else { break };
            if !over.hides(row.slot.0) {
                found = Some(row);
                break;
            }
            at = self.behind_hidden(behind(row));
            has_walked = true;
        }
        if has_walked {
            self.hide(from, at);
        }
        Ok(found)
    }

    /// The first place at or after this one that is in no hidden stretch.
    fn behind_hidden(&self, at: ReadyRow) -> ReadyRow {
        match self.hidden.range(..=&at).next_back() {
            Some((_, end)) if *end > at => end.clone(),
            _ => at,
        }
    }

    /// Remembers that every row from here to before `end` is hidden. `end` is in no hidden stretch.
    fn hide(&mut self, from: &ReadyRow, end: ReadyRow) {
        let around = self.hidden.range(..=from).next_back().filter(|(_, end)| *end >= from);
        let start = around.map_or_else(|| from.clone(), |(start, _)| start.clone());
        while let Some((inner, _)) = self.hidden.range(&start..&end).next() {
            let inner = inner.clone();
            self.hidden.remove(&inner);
        }
        self.hidden.insert(start, end);
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
