//! Who may have which delivery when: the messages in memory, and below them the [base](base::Base) for all others.
//!
//! What changes is in memory until the next checkpoint has it; what does not may be left to the base when memory is short. A
//! message is in one of the two, with all its deliveries. Nothing here writes or reads a clock.

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
pub(crate) use self::base::{Base, Nothing, Rank, ReadyRow, Unreadable};
pub(crate) use self::checkpoint::{Frozen, Totals};
pub(crate) use self::lease::{End, Next, Stale};
use self::memory::{Memory, Resident};
use self::message::SlotState;
pub(crate) use self::message::{Delivery, Message};
use self::schedule::{Schedule, rank};
use self::shelf::{Hides, Shelf};
use crate::{MAX_DELAY, MessageId, Owner};

/// A time on the queue's clock in microseconds.
pub(crate) type Moment = i64;
/// A delivery of a message.
pub(crate) type Slot = (MessageId, u32);

/// Invariant: a message is in `memory`, or in the base with no note there that it is gone; never in both and in neither.
pub(crate) struct Index<S: Base> {
    memory: Memory<S::Stored>,
    shelf: Shelf<S>,
    schedule: Schedule,
    /// Whose turn it was last.
    turn: Option<Owner>,
    next_generation: u64,
    totals: Totals,
    /// What the messages in memory cost, in octets.
    cost: usize,
    bounds: Bounds,
    /// Somebody asked for more leases than there may be.
    is_out_of_leases: bool,
    now: Moment,
    /// When there is something to do about what waits in the base; [`None`] while there is no room for it.
    base_event: Option<Moment>,
    /// Something has become claimable since somebody was told.
    stirred: bool,
}

/// What an index may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Beyond this cost messages are left to the base as they fall due.
    pub(crate) memory: usize,
    /// So many deliveries may be leased, or have an outcome that is being written.
    pub(crate) leases: usize,
}

impl<S: Base> Index<S> {
    /// What is in the queue is what is in the base, which has `totals`. It is `now`. `first_generation` should be unlike that of any
    /// earlier opening, so that a lease from there does not match by accident.
    pub(crate) fn new(base: S, totals: Totals, now: Moment, bounds: Bounds, first_generation: u64) -> Self {
        Self {
            memory: Memory::default(),
            shelf: Shelf::new(base),
            schedule: Schedule::default(),
            turn: None,
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

    /// Adds a message, or puts a newer copy in an older one's place, which is returned. A message without deliveries is not kept
    /// but returned too.
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

    /// Lets time pass: what is due and what is no longer leased becomes claimable. Whether anything did since this was asked last.
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

    /// When [`advance`](Self::advance) will find something next.
    pub(crate) fn next_event(&self) -> Option<Moment> {
        [self.schedule.next_event(), self.base_event].into_iter().flatten().min().filter(|at| *at < Moment::MAX)
    }

    /// Takes a message out, whatever its deliveries are doing.
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

    /// Changes something about a message that no schedule depends on. Whether it is there.
    pub(crate) fn update(
        &mut self,
        id: MessageId,
        update: impl FnOnce(&mut Message<S::Stored>),
    ) -> Result<bool, Unreadable> {
        self.load(id)?;
        Ok(self.change(id, update))
    }

    /// Octets of memory for messages, as estimated by [`Message::cost`].
    pub(crate) fn cost(&self) -> usize {
        self.cost.saturating_add(self.memory.notes().saturating_mul(NOTE))
    }

    /// Takes what is due out of the base, as far as there is room.
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
                // The next checkpoint makes it ready where it is.
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

    /// Whether something is due that has to wait for a checkpoint, because there is no room for it.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.base_event.is_none()
    }

    /// Sees to it that a message is in memory, if there is such a message.
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
                    self.schedule.ready(rank(&message, delivery), delivery.due, (id, delivery.number))
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

    /// Changes a message in memory, so that the next checkpoint has to write it.
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

    /// A lease has expired. Meanwhile the message may have been held, or the delivery been put off.
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
        let slot_state = self.schedule.ready(rank(message, delivery), delivery.due, slot);
        self.set_slot_state(slot, slot_state);
        self.stirred = true;
    }

    fn set_slot_state(&mut self, slot: Slot, slot_state: SlotState) {
        if let Some(delivery) = self.memory.delivery_mut(slot) {
            delivery.slot_state = slot_state;
        }
    }
}

/// Never at generation 0, which no claim gives out, so a delivery that was not claimed matches no lease.
pub(crate) fn first_generation(random: u64) -> u64 {
    // Half of the room is left to count in.
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
    Unreadable(format!("the index contradicts itself about delivery {number} of message {id}"))
}

/// Octets that it takes to remember that a message has changed or is gone.
const NOTE: usize = 32;
/// The most messages that are taken out of the base in one go, while others wait: some milliseconds.
const TAKEN_AT_ONCE: usize = 1_000;
