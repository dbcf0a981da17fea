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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::collections::{BTreeSet, HashSet};
    use std::rc::Rc;

    use super::*;
    use crate::{DueClass, Owner, Priority, RoutingKey};

    /// Counts how often ready rows are looked up.
    struct Rows {
        ready: BTreeSet<ReadyRow>,
        looks: Cell<usize>,
    }

    impl Base for Rows {
        type Stored = ();
        const IS_EVER_FILLED: bool = true;

        fn message(&self, _: MessageId) -> Result<Option<Message<()>>, Unreadable> {
            Ok(None)
        }

        fn id_after(&self, _: Option<MessageId>) -> Result<Option<MessageId>, Unreadable> {
            Ok(None)
        }

        fn ready_from(&self, from: &ReadyRow) -> Result<Option<ReadyRow>, Unreadable> {
            self.looks.set(self.looks.get() + 1);
            Ok(self.ready.range(from..).next().cloned())
        }

        fn waiting_from(&self, _: WaitingRow) -> Result<Option<WaitingRow>, Unreadable> {
            Ok(None)
        }
    }

    #[derive(Clone, Default)]
    struct Hidden(Rc<std::cell::RefCell<HashSet<MessageId>>>);

    impl Hides for Hidden {
        fn hides(&self, id: MessageId) -> bool {
            self.0.borrow().contains(&id)
        }
    }

    impl Hidden {
        fn add(&self, row: &ReadyRow) {
            self.0.borrow_mut().insert(row.slot.0);
        }
    }

    fn class(number: u64) -> DueClass {
        let key = RoutingKey::new(&format!("{:05}", number / 2)).unwrap();
        DueClass { key, priority: Priority(i8::from(number.is_multiple_of(2))), owner: Owner::default() }
    }

    fn row(of: u64, id: u64) -> ReadyRow {
        ReadyRow { class: class(of), due: 0, slot: (MessageId::from_u64(id), 0) }
    }

    fn shelf(ready: impl IntoIterator<Item = ReadyRow>) -> Shelf<Rows> {
        Shelf::new(Rows { ready: ready.into_iter().collect(), looks: Cell::new(0) })
    }

    #[test]
    fn a_shelf_finds_the_first_row_that_is_not_hidden() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rows: Vec<_> = (0..60).map(|id| row(random.u64(0..12), id)).collect();
            let (mut shelf, hidden) = (shelf(rows.clone()), Hidden::default());
            for _ in 0..200 {
                if random.bool() {
                    hidden.add(&rows[random.usize(..rows.len())]);
                }
                let mut place = || match random.u8(0..3) {
                    0 => ReadyRow::first_in(class(random.u64(0..13))),
                    1 => ReadyRow::behind(class(random.u64(0..13))),
                    _ => rows[random.usize(..rows.len())].clone(),
                };
                let from = place();
                let before = Some(place()).filter(|_| random.bool());
                let is_asked = |row: &&ReadyRow| {
                    **row >= from && before.as_ref().is_none_or(|before| *row < before) && !hidden.hides(row.slot.0)
                };
                let expected = rows.iter().filter(is_asked).min().cloned();
                let found = shelf.ready_from(&from, before.as_ref(), &hidden).unwrap();
                assert_eq!(found, expected, "seed {seed}: from {from:?} to {before:?}");
                let stretches: Vec<_> = shelf.hidden.iter().collect();
                assert!(stretches.iter().all(|(start, end)| start < end));
                assert!(stretches.is_sorted_by(|(_, end), (start, _)| end <= start), "they do not meet");
            }
        }
    }

    #[test]
    fn a_hidden_row_is_walked_over_once() {
        let all: Vec<_> = (0..1_000).map(|id| row(id, id)).chain((1_000..2_000).map(|id| row(500, id))).collect();
        let (mut shelf, hidden) = (shelf(all.clone()), Hidden::default());
        // Claims, from the front of one class.
        let first = ReadyRow::first_in(class(500));
        while let Some(row) = shelf.ready_from(&first, Some(&ReadyRow::behind(class(500))), &hidden).unwrap() {
            hidden.add(&row);
        }
        assert!(shelf.base.looks.take() <= 2 * 1_001 + 1);
        // Then the whole base is in memory.
        all.iter().for_each(|row| hidden.add(row));
        let first = ReadyRow::first();
        assert_eq!(shelf.ready_from(&first, Some(&all[3]), &hidden).unwrap(), None);
        assert!(shelf.base.looks.take() <= 4, "it stops at the row that memory has");
        assert_eq!(shelf.ready_from(&first, None, &hidden).unwrap(), None);
        assert!(shelf.base.looks.take() <= 1_000);
        for number in 0..1_000 {
            assert_eq!(shelf.ready_from(&ReadyRow::behind(class(number)), None, &hidden).unwrap(), None);
        }
        assert!(shelf.base.looks.take() <= 1_000, "one look for each");
        assert_eq!(shelf.hidden.len(), 1);
    }
}
