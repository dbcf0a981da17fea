//! Which delivery is next, of those in memory.

use std::collections::BTreeSet;

use super::base::{ReadyRow, WaitingRow};
use super::{Delivery, Message, Moment, Slot, SlotState};
use crate::{DueClass, MessageId};

/// Invariant: a delivery is in the set that its [`SlotState`] names, and in no other.
#[derive(Default)]
pub(super) struct Schedule {
    waiting: BTreeSet<WaitingRow>,
    ready: BTreeSet<ReadyRow>,
    leases: BTreeSet<(Moment, Slot)>,
    /// Deliveries whose outcome is being written.
    writing: usize,
}

/// The class in which a delivery is once it is ready.
pub(super) fn class<B>(message: &Message<B>, delivery: &Delivery) -> DueClass {
    DueClass { key: delivery.key.clone(), priority: message.priority, owner: message.owner.clone() }
}

impl Schedule {
    /// A delivery always begins by waiting, even if it is due: the next `advance` makes it ready.
    pub(super) fn wait(&mut self, id: MessageId, delivery: &Delivery) -> SlotState {
        self.waiting.insert((delivery.due, (id, delivery.number)));
        SlotState::Waiting
    }

    pub(super) fn ready(&mut self, class: DueClass, due: Moment, slot: Slot) -> SlotState {
        self.ready.insert(ReadyRow { class, due, slot });
        SlotState::Ready
    }

    pub(super) fn lease(&mut self, until: Moment, slot: Slot) -> SlotState {
        self.leases.insert((until, slot));
        SlotState::Leased { until }
    }

    pub(super) fn write(&mut self) -> SlotState {
        self.writing = self.writing.saturating_add(1);
        SlotState::Writing
    }

    /// Takes a delivery out of the set that its slot state names.
    pub(super) fn cancel<B>(&mut self, id: MessageId, message: &Message<B>, delivery: &Delivery) {
        let slot = (id, delivery.number);
        match delivery.slot_state {
            SlotState::Idle => {}
            SlotState::Writing => self.writing = self.writing.saturating_sub(1),
            SlotState::Waiting => {
                self.waiting.remove(&(delivery.due, slot));
            }
            SlotState::Ready => {
                self.ready.remove(&ReadyRow { class: class(message, delivery), due: delivery.due, slot });
            }
            SlotState::Leased { until } => {
                self.leases.remove(&(until, slot));
            }
        }
    }

    pub(super) fn pop_due(&mut self, now: Moment) -> Option<Slot> {
        pop_until(&mut self.waiting, now)
    }

    pub(super) fn pop_expired(&mut self, now: Moment) -> Option<Slot> {
        pop_until(&mut self.leases, now)
    }

    pub(super) fn next_event(&self) -> Option<Moment> {
        let due = self.waiting.first().map(|(due, _)| *due);
        let expiry = self.leases.first().map(|(until, _)| *until);
        [due, expiry].into_iter().flatten().min()
    }

    pub(super) fn ready_from(&self, from: &ReadyRow) -> Option<&ReadyRow> {
        self.ready.range(from..).next()
    }

    pub(super) fn leased(&self) -> usize {
        self.leases.len()
    }

    /// Deliveries that may be made without a record of it, if the process dies now.
    pub(super) fn in_doubt(&self) -> usize {
        self.leases.len().saturating_add(self.writing)
    }
}

fn pop_until(set: &mut BTreeSet<(Moment, Slot)>, now: Moment) -> Option<Slot> {
    let (at, slot) = *set.first()?;
    if at > now {
        return None;
    }
    set.pop_first();
    Some(slot)
}
