//! Which delivery is claimed next.

use std::cmp::Reverse;
use std::time::Duration;

use super::base::{Base, Rank, ReadyRow, Unreadable};
use super::message::{Delivery, SlotState};
use super::schedule::rank;
use super::{Index, Moment, Slot, after, between, inconsistent};
use crate::{Claimed, Gather, GatherWhen, Lease, Owner, Priority, RoutingKey};

/// The first rows of a key in its highest priority.
struct Head<'k> {
    key: &'k RoutingKey,
    first: ReadyRow,
    /// The first row of an owner after the one whose turn was last.
    next: Option<ReadyRow>,
}

impl<S: Base> Index<S> {
    /// Claims in this order: the highest priority of any key; within it, the next owner; of that
    /// owner, the delivery that has been due longest.
    ///
    /// Each key is looked up once, and again when one of its deliveries was taken, or one of the
    /// owner who was next there.
    pub(crate) fn claim(
        &mut self,
        now: Moment,
        keys: &[RoutingKey],
        max: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, Unreadable> {
        let until = after(now, lease);
        let mut heads = Vec::with_capacity(keys.len());
        for key in keys {
            heads.extend(self.head(key)?);
        }
        let mut claimed = Vec::new();
        while claimed.len() < max {
            if self.schedule.in_doubt() >= self.bounds.leases {
                self.is_out_of_leases = true;
                break;
            }
            let Some(row) = heads.iter().min_by_key(|head| head.order()).map(Head::row).cloned() else { break };
            claimed.push(self.take_lease(now, until, &row)?);
            let before = self.turn.replace(row.rank.owner.clone());
            let mut changed = Vec::with_capacity(heads.len());
            for head in heads {
                changed.extend(self.after_turn(head, before.as_ref(), &row)?);
            }
            heads = changed;
        }
        Ok(claimed)
    }

    fn take_lease(&mut self, now: Moment, until: Moment, row: &ReadyRow) -> Result<Claimed, Unreadable> {
        let slot = row.slot;
        self.load(slot.0)?;
        let Some((message, delivery)) = self.memory.find(slot) else { return Err(inconsistent(slot)) };
        if delivery.slot_state != SlotState::Ready || rank(message, delivery) != row.rank {
            return Err(inconsistent(slot));
        }
        self.lease(now, until, slot).ok_or(inconsistent(slot))
    }

    /// Leases the marked deliveries of one message, due or not, if the condition `when` holds.
    pub(crate) fn gather(&mut self, now: Moment, gather: Gather<'_>) -> Result<Vec<Claimed>, Unreadable> {
        let (id, until) = (gather.message, after(now, gather.lease));
        self.load(id)?;
        let Some(message) = self.memory.get(id).filter(|message| !message.held && !message.removing) else {
            return Ok(Vec::new());
        };
        let is_marked = |each: &Delivery| gather.marks.iter().any(|mark| each.state.starts_with(mark));
        let is_taken = |each: &Delivery| each.is_leased() || each.slot_state == SlotState::Writing;
        let is_in_the_way = |each: &Delivery| match gather.when {
            GatherWhen::Now => false,
            GatherWhen::AtRest => is_taken(each) || (each.due <= now && !is_marked(each)),
            GatherWhen::Alone => is_taken(each) || !is_marked(each),
        };
        if message.deliveries.iter().any(is_in_the_way) {
            return Ok(Vec::new());
        }
        let marked = message.deliveries.iter().filter(|each| is_marked(each) && !is_taken(each));
        let slots: Vec<_> = marked.map(|each| (id, each.number)).collect();
        Ok(slots.into_iter().filter_map(|slot| self.lease(now, until, slot)).collect())
    }

    /// Leases a delivery that is in memory.
    fn lease(&mut self, now: Moment, until: Moment, slot: Slot) -> Option<Claimed> {
        let (message, delivery) = self.memory.find(slot)?;
        let generation = self.next_generation;
        let claimed = Claimed {
            lease: Lease::new(slot.0, slot.1, generation),
            key: delivery.key.clone(),
            owner: message.owner.clone(),
            priority: message.priority,
            envelope: message.envelope.clone(),
            state: delivery.state.clone(),
            body_len: message.body_len,
            attempts: delivery.attempts,
            others: u32::try_from(message.deliveries.len().saturating_sub(1)).unwrap_or(u32::MAX),
            age: between(message.born, now),
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        self.schedule.cancel(slot.0, message, delivery);
        let slot_state = self.schedule.lease(until, slot);
        if let Some(delivery) = self.memory.delivery_mut(slot) {
            delivery.generation = generation;
            delivery.slot_state = slot_state;
        }
        Some(claimed)
    }

    fn head<'k>(&mut self, key: &'k RoutingKey) -> Result<Option<Head<'k>>, Unreadable> {
        let first = self.ready_from(&ReadyRow::first_of(key.clone()))?;
        let Some(first) = first.filter(|row| row.rank.key == *key) else { return Ok(None) };
        let next = match self.turn.clone() {
            Some(turn) => self.behind_turn(&first, turn)?,
            None => Some(first.clone()),
        };
        Ok(Some(Head { key, first, next }))
    }

    /// The first row of an owner after `turn`, in the key and priority of `first`. `first` is the
    /// first row of any owner.
    fn behind_turn(&mut self, first: &ReadyRow, turn: Owner) -> Result<Option<ReadyRow>, Unreadable> {
        if first.rank.owner > turn {
            return Ok(Some(first.clone()));
        }
        let behind = ReadyRow::behind(Rank { owner: turn, ..first.rank.clone() });
        let next = self.ready_from(&behind)?;
        Ok(next.filter(|next| next.rank.key == first.rank.key && next.rank.priority == first.rank.priority))
    }

    /// The head again, after `taken` was taken: the turn moves from `before` to the owner of
    /// `taken`.
    fn after_turn<'k>(
        &mut self,
        head: Head<'k>,
        before: Option<&Owner>,
        taken: &ReadyRow,
    ) -> Result<Option<Head<'k>>, Unreadable> {
        let turn = &taken.rank.owner;
        if *head.key == taken.rank.key {
            return self.head(head.key);
        }
        // The cached `next` stays valid if no owner lies between the old turn and the new one.
        let is_forward = before.is_some_and(|before| before <= turn);
        let holds = is_forward && head.next.as_ref().is_none_or(|next| next.rank.owner > *turn);
        if holds {
            return Ok(Some(head));
        }
        let next = self.behind_turn(&head.first, turn.clone())?;
        Ok(Some(Head { next, ..head }))
    }
}

impl Head<'_> {
    /// If no owner follows, the first owner has the next turn.
    fn row(&self) -> &ReadyRow {
        self.next.as_ref().unwrap_or(&self.first)
    }

    /// The smallest is claimed first.
    fn order(&self) -> (Reverse<Priority>, bool, &Owner, Moment, Slot) {
        let row = self.row();
        (row.rank.priority, self.next.is_none(), &row.rank.owner, row.due, row.slot)
    }
}
