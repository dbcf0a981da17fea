//! Which delivery may be claimed when: the messages in memory, and below them the
//! [base](base::Base) for all others.
//!
//! A changed message is in memory until a checkpoint has it. Other messages may be left to the base
//! when memory is short. A message is in one of the two, with all its deliveries. This module does
//! no I/O and reads no clock.

mod alter;
mod base;
mod checkpoint;
mod claim;
mod lease;
mod look;
mod memory;
mod message;
mod schedule;
mod shelf;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::alter::Altered;
pub(crate) use self::base::{Base, Nothing, ReadyRow, Unreadable};
pub(crate) use self::checkpoint::{Frozen, Totals};
pub(crate) use self::lease::{End, Next, Stale};
use self::memory::{Memory, Resident};
use self::message::SlotState;
pub(crate) use self::message::{Delivery, Message};
use self::schedule::{Schedule, class};
use self::shelf::{Hides, Shelf};
use crate::{MAX_DELAY, MessageId};

/// A time on the queue's clock in microseconds.
pub(crate) type Moment = i64;
/// A delivery: its message, and its number there.
pub(crate) type Slot = (MessageId, u32);

/// Invariant: each message is either in `memory`, or in the base without a note in `memory` that it
/// is gone.
pub(crate) struct Index<S: Base> {
    memory: Memory<S::Stored>,
    shelf: Shelf<S>,
    schedule: Schedule,
    next_generation: u64,
    totals: Totals,
    /// The estimated memory of the messages in memory, in bytes.
    cost: usize,
    bounds: Bounds,
    /// A claim asked for more leases than are allowed.
    is_out_of_leases: bool,
    now: Moment,
    /// When to look next at what waits in the base. `None`: there is no room for it.
    base_event: Option<Moment>,
    /// A delivery has become claimable since the last signal.
    stirred: bool,
}

/// The limits of an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Beyond this cost in bytes, due messages are left to the base.
    pub(crate) memory: usize,
    /// The largest number of deliveries that are leased or whose outcome is being written.
    pub(crate) leases: usize,
}

impl<S: Base> Index<S> {
    /// An index over a base with these totals. `first_generation` should differ from that of any
    /// earlier opening, so that an earlier lease does not match by accident.
    pub(crate) fn new(base: S, totals: Totals, now: Moment, bounds: Bounds, first_generation: u64) -> Self {
        Self {
            memory: Memory::default(),
            shelf: Shelf::new(base),
            schedule: Schedule::default(),
            next_generation: first_generation,
            totals,
            cost: 0,
            bounds,
            is_out_of_leases: false,
            now,
            base_event: Some(now),
            stirred: false,
        }
    }

    /// Adds a message, or replaces an older copy of it, which is returned. A message without
    /// deliveries is not kept, but returned.
    pub(crate) fn insert(
        &mut self,
        id: MessageId,
        mut message: Message<S::Stored>,
    ) -> Result<Option<Arc<Message<S::Stored>>>, Unreadable> {
        let in_base = self.load(id)? && self.memory.is_in_base(id);
        let old = self.take(id)?;
        if message.deliveries.is_empty() {
            return Ok(old.or_else(|| Some(Arc::new(message))));
        }
        self.totals.add(&message);
        if !message.held {
            for delivery in &mut message.deliveries {
                delivery.slot_state = self.schedule.wait(id, delivery);
            }
        }
        self.memory.gone.remove(&id);
        self.keep(id, message, in_base);
        self.note(id);
        Ok(old)
    }

    /// Lets time pass: due deliveries and those with an expired lease become claimable. Returns
    /// `true` if any delivery did since the last call.
    pub(crate) fn advance(&mut self, now: Moment) -> Result<bool, Unreadable> {
        self.now = self.now.max(now);
        while let Some(slot) = self.schedule.pop_due(now) {
            self.make_ready(slot);
        }
        while let Some(slot) = self.schedule.pop_expired(now) {
            self.come_back(slot);
        }
        self.take_what_is_due(now)?;
        if self.is_out_of_leases && self.schedule.in_doubt() < self.bounds.leases {
            self.is_out_of_leases = false;
            self.stirred = true;
        }
        Ok(mem::take(&mut self.stirred))
    }

    /// When [`advance`](Self::advance) next has something to do.
    pub(crate) fn next_event(&self) -> Option<Moment> {
        [self.schedule.next_event(), self.base_event].into_iter().flatten().min().filter(|at| *at < Moment::MAX)
    }

    /// Removes a message, whatever the state of its deliveries.
    pub(crate) fn take(&mut self, id: MessageId) -> Result<Option<Arc<Message<S::Stored>>>, Unreadable> {
        self.load(id)?;
        let Some(entry) = self.forget(id) else { return Ok(None) };
        self.totals.subtract(&entry.message);
        if entry.in_base {
            self.memory.gone.insert(id);
            self.note(id);
        } else {
            self.memory.changed.remove(&id);
        }
        Ok(Some(entry.message))
    }

    /// Changes a field that no schedule depends on. Returns `false` if there is no such message.
    pub(crate) fn update(
        &mut self,
        id: MessageId,
        update: impl FnOnce(&mut Message<S::Stored>),
    ) -> Result<bool, Unreadable> {
        self.load(id)?;
        Ok(self.change(id, update))
    }

    /// Bytes of memory for messages, as [`Message::cost`] estimates them.
    pub(crate) fn cost(&self) -> usize {
        self.cost.saturating_add(self.memory.notes().saturating_mul(NOTE))
    }

    /// Loads due messages from the base, as far as there is room.
    fn take_what_is_due(&mut self, now: Moment) -> Result<(), Unreadable> {
        if self.base_event.is_some_and(|at| at > now) {
            return Ok(());
        }
        for _ in 0..TAKEN_AT_ONCE {
            let first = self.shelf.first_waiting(&self.memory)?;
            let Some((due, slot)) = first.filter(|(due, _)| *due <= now) else {
                self.base_event = Some(first.map_or(Moment::MAX, |(due, _)| due));
                return Ok(());
            };
            if self.cost() >= self.bounds.memory {
                // The next checkpoint makes it ready in the base.
                self.base_event = None;
                return Ok(());
            }
            self.load(slot.0)?;
            let is_so = self.memory.find(slot).is_some_and(|(message, delivery)| !message.held && delivery.due == due);
            if !is_so {
                return Err(inconsistent(slot));
            }
        }
        self.base_event = Some(now);
        Ok(())
    }

    /// Returns `true` if a due delivery waits for a checkpoint, because memory has no room for it.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.base_event.is_none()
    }

    /// Loads a message into memory. Returns `false` if there is no such message.
    fn load(&mut self, id: MessageId) -> Result<bool, Unreadable> {
        if self.memory.hides(id) {
            return Ok(self.memory.messages.contains_key(&id));
        }
        let Some(mut message) = self.shelf.message(id)? else { return Ok(false) };
        if !message.held {
            let mut deliveries = mem::take(&mut message.deliveries);
            for delivery in &mut deliveries {
                delivery.slot_state = if delivery.due <= self.now {
                    self.stirred = true;
                    self.schedule.ready(class(&message, delivery), delivery.due, (id, delivery.number))
                } else {
                    self.schedule.wait(id, delivery)
                };
            }
            message.deliveries = deliveries;
        }
        self.keep(id, message, true);
        Ok(true)
    }

    fn keep(&mut self, id: MessageId, message: Message<S::Stored>, in_base: bool) {
        self.cost = self.cost.saturating_add(message.cost());
        self.memory.messages.insert(id, Resident { message: Arc::new(message), in_base });
    }

    /// Takes a message out of memory.
    fn forget(&mut self, id: MessageId) -> Option<Resident<S::Stored>> {
        let entry = self.memory.messages.remove(&id)?;
        for delivery in &entry.message.deliveries {
            self.schedule.cancel(id, &entry.message, delivery);
        }
        self.cost = self.cost.saturating_sub(entry.message.cost());
        Some(entry)
    }

    fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Message<S::Stored>)) -> bool {
        Self::change_in(&mut self.memory, &mut self.cost, id, change)
    }

    /// Changes a message in memory, and notes it for the next checkpoint.
    fn change_in(
        memory: &mut Memory<S::Stored>,
        cost: &mut usize,
        id: MessageId,
        change: impl FnOnce(&mut Message<S::Stored>),
    ) -> bool {
        let Some(entry) = memory.messages.get_mut(&id) else { return false };
        let message = Arc::make_mut(&mut entry.message);
        let before = message.cost();
        change(message);
        *cost = cost.saturating_sub(before).saturating_add(message.cost());
        if S::IS_EVER_FILLED {
            memory.changed.insert(id);
        }
        true
    }

    fn note(&mut self, id: MessageId) {
        if S::IS_EVER_FILLED {
            self.memory.changed.insert(id);
        }
    }

    /// A lease has expired. In the meantime the message may have been held, or the delivery
    /// rescheduled.
    fn come_back(&mut self, slot: Slot) {
        let Some((message, delivery)) = self.memory.find(slot) else { return };
        if message.held {
            self.set_slot_state(slot, SlotState::Idle);
        } else if delivery.due > self.now {
            let slot_state = self.schedule.wait(slot.0, delivery);
            self.set_slot_state(slot, slot_state);
        } else {
            self.make_ready(slot);
        }
    }

    fn make_ready(&mut self, slot: Slot) {
        let Some((message, delivery)) = self.memory.find(slot) else { return };
        let slot_state = self.schedule.ready(class(message, delivery), delivery.due, slot);
        self.set_slot_state(slot, slot_state);
        self.stirred = true;
    }

    fn set_slot_state(&mut self, slot: Slot, slot_state: SlotState) {
        if let Some(delivery) = self.memory.delivery_mut(slot) {
            delivery.slot_state = slot_state;
        }
    }
}

/// Never 0: no claim has that generation, so it marks a delivery without a lease.
pub(crate) fn first_generation(random: u64) -> u64 {
    // Half of the range is left to count in.
    (random >> 1) | 1
}

pub(crate) fn moment(time: Duration) -> Moment {
    Moment::try_from(time.as_micros()).unwrap_or(Moment::MAX)
}

pub(crate) fn after(now: Moment, delay: Duration) -> Moment {
    now.saturating_add(moment(delay.min(MAX_DELAY)))
}

pub(crate) fn between(from: Moment, to: Moment) -> Duration {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn inconsistent((id, number): Slot) -> Unreadable {
    Unreadable(format!(
        "the index contradicts itself about delivery {number} of message {id}; the index is rebuilt from the log"
    ))
}

/// Bytes for a note that a message has changed or is gone.
const NOTE: usize = 32;
/// The largest number of messages loaded at once while callers wait: some milliseconds.
const TAKEN_AT_ONCE: usize = 1_000;
