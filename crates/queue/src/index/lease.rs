//! What is done under a lease: it is extended, and its outcome is written.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::message::Phase;
use super::{Base, Index, Message, Moment, Slot, Unreadable};
use crate::{Lease, MessageId, Outcome, TooLarge, limits};

/// Why a lease does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

impl<S: Base> Index<S> {
    pub(crate) fn extend(&mut self, lease: &Lease, until: Moment) -> Result<(), Stale> {
        let slot = self.unschedule(lease)?;
        let phase = self.schedule.lease(until, slot);
        self.set_phase(slot, phase);
        Ok(())
    }

    /// Whether a delivery may have such a state for the next time.
    pub(crate) fn check_outcome(&mut self, slot: Slot, outcome: &Outcome) -> Result<Result<(), TooLarge>, Unreadable> {
        let Outcome::Retry { state, .. } = outcome else { return Ok(Ok(())) };
        if state.len() <= limits::FAIR_STATE {
            return Ok(Ok(()));
        }
        let message = self.get(slot.0)?;
        let others = message.iter().flat_map(|message| &message.deliveries).filter(|each| each.number != slot.1);
        Ok(limits::check_state(state.len(), others.map(|each| each.state.len())))
    }

    /// From here on the delivery neither expires nor is claimed: its outcome is on the way to the disk.
    pub(crate) fn begin_finish(&mut self, lease: &Lease) -> Result<(), Stale> {
        let slot = self.unschedule(lease)?;
        let phase = self.schedule.write();
        self.set_phase(slot, phase);
        Ok(())
    }

    /// The message, if that was its last delivery.
    pub(crate) fn done(&mut self, slot: Slot) -> Result<Option<Arc<Message<S::Stored>>>, Unreadable> {
        self.load(slot.0)?;
        let Some((message, delivery)) = self.memory.find(slot) else { return Ok(None) };
        self.schedule.cancel(slot.0, message, delivery);
        if message.deliveries.len() == 1 {
            return self.take(slot.0);
        }
        self.change(slot.0, |message| {
            if let Some(at) = message.position(slot.1) {
                message.deliveries.remove(at);
            }
        });
        self.totals.deliveries = self.totals.deliveries.saturating_sub(1);
        Ok(None)
    }

    pub(crate) fn retry(
        &mut self,
        slot: Slot,
        due: Moment,
        delay: Duration,
        attempts: u32,
        state: Bytes,
    ) -> Result<(), Unreadable> {
        self.load(slot.0)?;
        let Some((message, delivery)) = self.memory.find(slot) else { return Ok(()) };
        let is_held = message.held;
        self.schedule.cancel(slot.0, message, delivery);
        let schedule = &mut self.schedule;
        Self::change_in(&mut self.memory, &mut self.cost, slot.0, |message| {
            let Some(delivery) = message.delivery_mut(slot.1) else { return };
            (delivery.due, delivery.delay, delivery.attempts, delivery.state) = (due, delay, attempts, state);
            delivery.generation = 0;
            delivery.phase = if is_held { Phase::Idle } else { schedule.wait(slot.0, delivery) };
        });
        Ok(())
    }

    /// Makes every lease stale, while the removal is on the way to the disk.
    pub(crate) fn begin_remove(&mut self, id: MessageId) -> Result<Option<()>, Unreadable> {
        self.load(id)?;
        let Some(entry) = self.memory.messages.get_mut(&id) else { return Ok(None) };
        let was = mem::replace(&mut Arc::make_mut(&mut entry.message).removing, true);
        Ok((!was).then_some(()))
    }

    /// Takes the delivery of a good lease out of the schedule. What is leased is in memory.
    fn unschedule(&mut self, lease: &Lease) -> Result<Slot, Stale> {
        let slot = (lease.message, lease.delivery);
        let (message, delivery) = self.memory.find(slot).ok_or(Stale)?;
        let is_good = delivery.generation == lease.generation && lease.generation != 0;
        if message.removing || !is_good || delivery.phase == Phase::Writing {
            return Err(Stale);
        }
        self.schedule.cancel(slot.0, message, delivery);
        Ok(slot)
    }
}
