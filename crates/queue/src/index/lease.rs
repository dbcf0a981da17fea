//! What happens under a lease: it is extended, and its outcome is written.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::message::SlotState;
use super::{Base, Index, Message, Moment, Slot, Unreadable, after};
use crate::{Lease, LeaseError, MAX_DELAY, MessageId, Outcome, TooLarge, limits};

/// The outcome of a delivery, while it is being written.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) delivery: u32,
    pub(crate) generation: u64,
    /// `None`: the delivery is done.
    pub(crate) next: Option<Next>,
}

/// What is left to do for a delivery, and when.
#[derive(Debug, Clone)]
pub(crate) struct Next {
    pub(crate) due: Moment,
    /// The delay that `due` was computed from.
    pub(crate) delay: Duration,
    pub(crate) attempts: u32,
    pub(crate) state: Bytes,
}

/// The lease no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

impl<S: Base> Index<S> {
    pub(crate) fn extend(&mut self, lease: &Lease, until: Moment) -> Result<(), Stale> {
        let slot = self.unschedule(lease)?;
        let slot_state = self.schedule.lease(until, slot);
        self.set_slot_state(slot, slot_state);
        Ok(())
    }

    /// Begins to write outcomes, all of one message: either all of them or none. From here on these
    /// deliveries neither expire nor can be claimed. Returns each with its lease's numbers and its
    /// next state.
    pub(crate) fn begin_finish(
        &mut self,
        now: Moment,
        ends: Vec<(Lease, Outcome)>,
    ) -> Result<Result<Vec<End>, LeaseError>, Unreadable> {
        let Some(id) = ends.first().map(|(lease, _)| lease.message) else { return Ok(Err(LeaseError::Stale)) };
        if let Err(too_large) = self.check_outcomes(id, &ends)? {
            return Ok(Err(too_large.into()));
        }
        let mut numbers: Vec<_> = ends.iter().map(|(lease, _)| lease.delivery).collect();
        numbers.sort_unstable();
        let twice = numbers.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        if twice || !ends.iter().all(|(lease, _)| lease.message == id && self.is_good(lease)) {
            return Ok(Err(LeaseError::Stale));
        }
        let mut begun = Vec::with_capacity(ends.len());
        for (lease, outcome) in ends {
            let Some(next) = self.next(now, &lease, outcome) else { return Ok(Err(LeaseError::Stale)) };
            let Ok(slot) = self.unschedule(&lease) else { return Ok(Err(LeaseError::Stale)) };
            let slot_state = self.schedule.write();
            self.set_slot_state(slot, slot_state);
            begun.push(End { delivery: lease.delivery, generation: lease.generation, next });
        }
        Ok(Ok(begun))
    }

    /// Checks that the deliveries may have these states.
    fn check_outcomes(&mut self, id: MessageId, ends: &[(Lease, Outcome)]) -> Result<Result<(), TooLarge>, Unreadable> {
        let states = || ends.iter().filter_map(|(_, outcome)| outcome.state()).map(Bytes::len);
        if states().all(|state| state <= limits::FAIR_STATE) {
            return Ok(Ok(()));
        }
        let ending: HashSet<_> = ends.iter().map(|(lease, _)| lease.delivery).collect();
        let message = self.get(id)?;
        let deliveries = message.iter().flat_map(|message| &message.deliveries);
        let others = deliveries.filter(|each| !ending.contains(&each.number)).map(|each| each.state.len());
        Ok(limits::check_states(states().fold(0, usize::saturating_add), others))
    }

    fn next(&self, now: Moment, lease: &Lease, outcome: Outcome) -> Option<Option<Next>> {
        let (_, delivery) = self.memory.find((lease.message, lease.delivery))?;
        Some(match outcome {
            Outcome::Done => None,
            Outcome::Retry { delay, state } => {
                let delay = delay.min(MAX_DELAY);
                Some(Next { due: after(now, delay), delay, attempts: delivery.attempts.saturating_add(1), state })
            }
            Outcome::Keep { state } => {
                Some(Next { due: delivery.due, delay: delivery.delay, attempts: delivery.attempts, state })
            }
        })
    }

    /// Removes the delivery. Returns the message if it was the last one.
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

    pub(crate) fn retry(&mut self, slot: Slot, next: Next) -> Result<(), Unreadable> {
        let Next { due, delay, attempts, state } = next;
        self.load(slot.0)?;
        let Some((message, delivery)) = self.memory.find(slot) else { return Ok(()) };
        let is_held = message.held;
        self.schedule.cancel(slot.0, message, delivery);
        let schedule = &mut self.schedule;
        Self::change_in(&mut self.memory, &mut self.cost, slot.0, |message| {
            let Some(delivery) = message.delivery_mut(slot.1) else { return };
            (delivery.due, delivery.delay, delivery.attempts, delivery.state) = (due, delay, attempts, state);
            delivery.generation = 0;
            delivery.slot_state = if is_held { SlotState::Idle } else { schedule.wait(slot.0, delivery) };
        });
        Ok(())
    }

    /// Makes every lease on the message stale while its removal is being written. `None`: there is
    /// no such message, or it is being removed already.
    pub(crate) fn begin_remove(&mut self, id: MessageId) -> Result<Option<()>, Unreadable> {
        self.load(id)?;
        let Some(entry) = self.memory.messages.get_mut(&id) else { return Ok(None) };
        let was = mem::replace(&mut Arc::make_mut(&mut entry.message).removing, true);
        Ok((!was).then_some(()))
    }

    /// Takes the delivery of a good lease out of the schedule. Leased deliveries are always in
    /// memory.
    fn unschedule(&mut self, lease: &Lease) -> Result<Slot, Stale> {
        let slot = (lease.message, lease.delivery);
        let good = self.memory.find(slot).filter(|_| self.is_good(lease));
        let (message, delivery) = good.ok_or(Stale)?;
        self.schedule.cancel(slot.0, message, delivery);
        Ok(slot)
    }

    fn is_good(&self, lease: &Lease) -> bool {
        self.memory.find((lease.message, lease.delivery)).is_some_and(|(message, delivery)| {
            let is_last = delivery.generation == lease.generation && lease.generation != 0;
            is_last && !message.removing && delivery.slot_state != SlotState::Writing
        })
    }
}
