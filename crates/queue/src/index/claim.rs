//! Which delivery is claimed next.

use std::time::Duration;

use super::base::{Base, ReadyRow, Unreadable};
use super::message::{Delivery, SlotState};
use super::schedule::class;
use super::{Index, Moment, Slot, after, between, inconsistent};
use crate::{Claimed, DueClass, Gather, GatherWhen, Lease};

impl<S: Base> Index<S> {
    /// Claims from classes in the given order; within a class, the delivery that has been due
    /// longest.
    pub(crate) fn claim(
        &mut self,
        now: Moment,
        from: &[DueClass],
        max: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, Unreadable> {
        let until = after(now, lease);
        let mut claimed = Vec::new();
        for class in from {
            let (first, behind) = (ReadyRow::first_in(class.clone()), ReadyRow::behind(class.clone()));
            while claimed.len() < max {
                if self.schedule.in_doubt() >= self.bounds.leases {
                    self.is_out_of_leases = true;
                    return Ok(claimed);
                }
                let Some(row) = self.ready_from(&first, Some(&behind))? else { break };
                claimed.push(self.take_lease(now, until, &row)?);
            }
        }
        Ok(claimed)
    }

    fn take_lease(&mut self, now: Moment, until: Moment, row: &ReadyRow) -> Result<Claimed, Unreadable> {
        let slot = row.slot;
        self.load(slot.0)?;
        let Some((message, delivery)) = self.memory.find(slot) else { return Err(inconsistent(slot)) };
        if delivery.slot_state != SlotState::Ready || class(message, delivery) != row.class {
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
}
