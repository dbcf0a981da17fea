//! Looking at messages in memory and in the base, without loading them.

use std::sync::Arc;

use super::shelf::Hides;
use super::{Base, Index, Message, Moment, ReadyRow, Unreadable, between, inconsistent};
use crate::{DueClass, MessageId, Page, Search, Stats};

impl<S: Base> Index<S> {
    /// A message. One that is only in the base stays there.
    pub(crate) fn get(&self, id: MessageId) -> Result<Option<Arc<Message<S::Stored>>>, Unreadable> {
        if let Some(entry) = self.memory.messages.get(&id) {
            return Ok(Some(Arc::clone(&entry.message)));
        }
        if self.memory.hides(id) {
            return Ok(None);
        }
        Ok(self.shelf.message(id)?.map(Arc::new))
    }

    /// The messages in memory, by id.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = (MessageId, &Message<S::Stored>)> {
        self.memory.messages.iter().map(|(id, entry)| (*id, &*entry.message))
    }

    /// The classes with a claimable delivery, in order. Each costs one look-up, however many
    /// deliveries it has.
    pub(crate) fn due(&mut self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Unreadable> {
        let mut classes = Vec::new();
        let mut from = after.cloned().map_or_else(ReadyRow::first, ReadyRow::behind);
        while classes.len() < limit {
            let Some(row) = self.ready_from(&from, None)? else { break };
            classes.push(row.class.clone());
            from = ReadyRow::behind(row.class);
        }
        Ok(classes)
    }

    pub(crate) fn search(
        &mut self,
        now: Moment,
        search: &Search,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Page, Unreadable> {
        let limit = limit.max(1);
        let (mut page, mut octets) = (Page { messages: Vec::new(), next: after }, 0_usize);
        for _ in 0..LOOKED_AT_AT_ONCE {
            page.next = self.id_after(page.next)?;
            let Some(id) = page.next else { break };
            let message = self.get(id)?.ok_or_else(|| inconsistent((id, 0)))?;
            let summary = message.summary(id, now);
            if search.finds(&summary) {
                page.messages.push(summary);
            }
            octets = octets.saturating_add(message.cost());
            if page.messages.len() >= limit || octets >= OCTETS_AT_ONCE {
                break;
            }
        }
        Ok(page)
    }

    /// The next message after this one, in memory or in the base.
    pub(crate) fn id_after(&mut self, after: Option<MessageId>) -> Result<Option<MessageId>, Unreadable> {
        let below = self.shelf.id_after(after, &self.memory)?;
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let here = self.memory.messages.range((start, std::ops::Bound::Unbounded)).next().map(|(id, _)| *id);
        Ok(match (below, here) {
            (Some(below), Some(here)) => Some(below.min(here)),
            (below, here) => below.or(here),
        })
    }

    /// Fills in what the index knows.
    pub(crate) fn stats(&mut self, now: Moment, stats: &mut Stats) -> Result<(), Unreadable> {
        self.count(stats);
        // Ids are given out when a draft begins. So the first message is the oldest, unless it took
        // long to arrive.
        if let Some(first) = self.id_after(None)? {
            stats.oldest = self.get(first)?.map(|message| between(message.born, now));
        }
        Ok(())
    }

    /// Fills in what the index knows without reading the base.
    pub(crate) fn count(&self, stats: &mut Stats) {
        stats.messages = self.totals.messages;
        stats.deliveries = self.totals.deliveries;
        stats.leased = self.schedule.leased() as u64;
        stats.held = self.totals.held;
        stats.bytes = self.totals.bytes;
        stats.index_memory = self.cost() as u64;
        stats.short_of_memory = self.is_short_of_room();
    }

    /// The first ready row at or after `from`, in memory or in the base. `before`: and before this
    /// place.
    pub(super) fn ready_from(
        &mut self,
        from: &ReadyRow,
        before: Option<&ReadyRow>,
    ) -> Result<Option<ReadyRow>, Unreadable> {
        let here = self.schedule.ready_from(from).filter(|here| before.is_none_or(|before| *here < before));
        let below = self.shelf.ready_from(from, here.or(before), &self.memory)?;
        Ok(below.or_else(|| here.cloned()))
    }
}

/// A search looks at this many messages and about this many bytes at once, while other callers
/// wait: some milliseconds.
const LOOKED_AT_AT_ONCE: usize = 1_000;
const OCTETS_AT_ONCE: usize = 8 << 20;
