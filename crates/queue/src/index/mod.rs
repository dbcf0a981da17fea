//! Who may have which delivery when: the messages in memory, and below them the [base](base::Base) for all others.
//!
//! What changes is in memory until the next checkpoint has it; what does not may be left to the base when memory is short. A
//! message is in one of the two, with all its deliveries. Nothing here writes or reads a clock.

mod alter;
mod base;
mod checkpoint;
mod claim;
mod message;
mod schedule;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::alter::Altered;
pub(crate) use self::base::{Base, Lane, Nothing, ReadyRow, Unreadable};
pub(crate) use self::checkpoint::{Frozen, Totals};
use self::message::Phase;
pub(crate) use self::message::{Delivery, Message};
use self::schedule::{Schedule, lane};
use self::shelf::{Hides, Shelf};
use crate::{Lease, MAX_DELAY, MessageId, Outcome, Owner, Page, RoutingKey, Search, Stats, TooLarge, limits};

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

struct Memory<B> {
    messages: BTreeMap<MessageId, Entry<B>>,
    /// Messages that the base has and that are gone, by whether the checkpoint that is being written knows.
    gone: BTreeSet<MessageId>,
    gone_before: BTreeSet<MessageId>,
    /// What the base does not have as it is here: what the next checkpoint has to write, and what the present one is writing.
    changed: BTreeSet<MessageId>,
    changed_before: BTreeSet<MessageId>,
}

struct Entry<B> {
    message: Arc<Message<B>>,
    /// Whether the base, or the one that is being written, has some version of it.
    in_base: bool,
}

/// Why a lease does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

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
                delivery.phase = self.schedule.wait(id, delivery);
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

    /// A message; one that is only in the base stays there.
    pub(crate) fn get(&self, id: MessageId) -> Result<Option<Arc<Message<S::Stored>>>, Unreadable> {
        if let Some(entry) = self.memory.messages.get(&id) {
            return Ok(Some(Arc::clone(&entry.message)));
        }
        if self.memory.hides(id) {
            return Ok(None);
        }
        Ok(self.shelf.message(id)?.map(Arc::new))
    }

    /// What is in memory, by id.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = (MessageId, &Message<S::Stored>)> {
        self.memory.messages.iter().map(|(id, entry)| (*id, &*entry.message))
    }

    /// How often the delivery was written back for another attempt. Of a leased one, which is in memory.
    pub(crate) fn attempts(&self, slot: Slot) -> u32 {
        self.memory.find(slot).map_or(0, |(_, delivery)| delivery.attempts)
    }

    /// The keys that have something to claim, in order.
    pub(crate) fn due_keys(&mut self, after: Option<&RoutingKey>, limit: usize) -> Result<Vec<RoutingKey>, Unreadable> {
        let mut keys = Vec::new();
        let mut from = after.map_or_else(RoutingKey::first, RoutingKey::next);
        while keys.len() < limit {
            let Some(row) = self.ready_from(&ReadyRow::first_of(from))? else { break };
            from = row.lane.key.next();
            keys.push(row.lane.key);
        }
        Ok(keys)
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

    /// The next message behind this one, wherever it is.
    pub(crate) fn id_after(&mut self, after: Option<MessageId>) -> Result<Option<MessageId>, Unreadable> {
        let below = self.shelf.id_after(after, &self.memory)?;
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let here = self.memory.messages.range((start, std::ops::Bound::Unbounded)).next().map(|(id, _)| *id);
        Ok(match (below, here) {
            (Some(below), Some(here)) => Some(below.min(here)),
            (below, here) => below.or(here),
        })
    }

    /// Octets of memory for messages, as estimated by [`Message::cost`].
    pub(crate) fn cost(&self) -> usize {
        self.cost.saturating_add(self.memory.notes().saturating_mul(NOTE))
    }

    /// Fills in what the index knows.
    pub(crate) fn stats(&mut self, now: Moment, stats: &mut Stats) -> Result<(), Unreadable> {
        self.count(stats);
        // Ids grow with the beginning of the draft, so the first is the oldest but for those that took long to arrive.
        if let Some(first) = self.id_after(None)? {
            stats.oldest = self.get(first)?.map(|message| between(message.born, now));
        }
        Ok(())
    }

    /// Fills in what the index knows without looking into the base.
    pub(crate) fn count(&self, stats: &mut Stats) {
        stats.messages = self.totals.messages;
        stats.deliveries = self.totals.deliveries;
        stats.leased = self.schedule.leased() as u64;
        stats.held = self.totals.held;
        stats.bytes = self.totals.bytes;
        stats.index_memory = self.cost() as u64;
        stats.short_of_memory = self.is_short_of_room();
    }

    /// The first ready row at or behind this place, in memory or below.
    fn ready_from(&mut self, from: &ReadyRow) -> Result<Option<ReadyRow>, Unreadable> {
        let below = self.shelf.ready_from(from, &self.memory)?;
        let here = self.schedule.ready_from(from);
        Ok(match (here, below) {
            (Some(here), Some(below)) if below < *here => Some(below),
            (Some(here), _) => Some(here.clone()),
            (None, below) => below,
        })
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
                delivery.phase = if delivery.due <= self.now {
                    self.stirred = true;
                    self.schedule.ready(lane(&message, delivery), delivery.due, (id, delivery.number))
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
        self.memory.messages.insert(id, Entry { message: Arc::new(message), in_base });
    }

    /// Takes a message out of memory.
    fn forget(&mut self, id: MessageId) -> Option<Entry<S::Stored>> {
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
            self.set_phase(slot, Phase::Idle);
        } else if delivery.due > self.now {
            let phase = self.schedule.wait(slot.0, delivery);
            self.set_phase(slot, phase);
        } else {
            self.make_ready(slot);
        }
    }

    fn make_ready(&mut self, slot: Slot) {
        let Some((message, delivery)) = self.memory.find(slot) else { return };
        let phase = self.schedule.ready(lane(message, delivery), delivery.due, slot);
        self.set_phase(slot, phase);
        self.stirred = true;
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

    fn set_phase(&mut self, slot: Slot, phase: Phase) {
        if let Some(delivery) = self.memory.delivery_mut(slot) {
            delivery.phase = phase;
        }
    }
}

impl<B: Clone> Memory<B> {
    fn get(&self, id: MessageId) -> Option<&Message<B>> {
        self.messages.get(&id).map(|entry| &*entry.message)
    }

    fn find(&self, slot: Slot) -> Option<(&Message<B>, &Delivery)> {
        let message = self.get(slot.0)?;
        Some((message, message.delivery(slot.1)?))
    }

    fn delivery_mut(&mut self, slot: Slot) -> Option<&mut Delivery> {
        Arc::make_mut(&mut self.messages.get_mut(&slot.0)?.message).delivery_mut(slot.1)
    }

    fn is_in_base(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|entry| entry.in_base)
    }

    fn notes(&self) -> usize {
        self.gone.len() + self.gone_before.len() + self.changed.len() + self.changed_before.len()
    }
}

impl<B> Hides for Memory<B> {
    fn hides(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id) || self.gone.contains(&id) || self.gone_before.contains(&id)
    }
}

impl<B> Default for Memory<B> {
    fn default() -> Self {
        Self {
            messages: BTreeMap::new(),
            gone: BTreeSet::new(),
            gone_before: BTreeSet::new(),
            changed: BTreeSet::new(),
            changed_before: BTreeSet::new(),
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
/// A search looks at so many messages, and at about so many octets of them, while others wait: some milliseconds.
const LOOKED_AT_AT_ONCE: usize = 1_000;
const OCTETS_AT_ONCE: usize = 8 << 20;
