//! What every engine holds in memory: the messages without their bodies, and who may have which delivery when.
//!
//! Nothing here waits, writes or reads a clock. `B` is whatever the engine needs to find a body again.

mod message;
mod schedule;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use bytes::Bytes;

use self::message::Phase;
pub(crate) use self::message::{Delivery, Message};
use self::schedule::Schedule;
use crate::{Claimed, Keys, Lease, MAX_DELAY, MessageId, RoutingKey, Stats, Summary};

/// A time on the engine's monotonic clock in microseconds; negative before the clock's origin.
pub(crate) type Moment = i64;
/// A delivery of a message.
pub(crate) type Slot = (MessageId, u32);

/// Invariant: a delivery is in the schedule as its [`Phase`] says, and nowhere else.
pub(crate) struct Index<B> {
    messages: BTreeMap<MessageId, Message<B>>,
    schedule: Schedule,
    next_generation: u64,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    memory: usize,
    deliveries: u64,
    leased: u64,
    held: u64,
    bytes: u64,
}

/// Why a lease does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale;

impl<B> Index<B> {
    /// `first_generation` should be unlike that of any earlier opening, so that a lease from there does not match by accident.
    pub(crate) fn new(first_generation: u64) -> Self {
        Self {
            messages: BTreeMap::new(),
            schedule: Schedule::default(),
            next_generation: first_generation,
            totals: Totals::default(),
        }
    }

    /// Adds a message, or puts a newer copy in an older one's place, which is returned. A message without deliveries is not kept
    /// but returned too.
    pub(crate) fn insert(&mut self, id: MessageId, message: Message<B>) -> Option<Message<B>> {
        let old = self.take(id);
        if message.deliveries.is_empty() {
            return old.or(Some(message));
        }
        self.totals.memory = self.totals.memory.saturating_add(message.cost());
        self.totals.deliveries = self.totals.deliveries.saturating_add(message.deliveries.len() as u64);
        self.totals.held = self.totals.held.saturating_add(u64::from(message.held));
        self.totals.bytes = self.totals.bytes.saturating_add(message.body_len);
        let mut message = message;
        if !message.held {
            for delivery in &mut message.deliveries {
                delivery.phase = self.schedule.plan(id, delivery);
            }
        }
        self.messages.insert(id, message);
        old
    }

    /// Lets time pass: what is due and what is no longer leased becomes claimable. Whether anything did.
    pub(crate) fn advance(&mut self, now: Moment) -> bool {
        let mut moved = false;
        while let Some(slot) = self.schedule.pop_due(now) {
            let Some((message, at)) = find(&mut self.messages, slot) else {
                continue;
            };
            let Message { owner, priority, deliveries, .. } = message;
            let Some(delivery) = deliveries.get_mut(at) else {
                continue;
            };
            delivery.phase = self.schedule.ready(owner, *priority, slot.0, delivery);
            moved = true;
        }
        while let Some(slot) = self.schedule.pop_expired(now) {
            let Some((message, at)) = find(&mut self.messages, slot) else {
                continue;
            };
            let Message { owner, priority, deliveries, held, .. } = message;
            let Some(delivery) = deliveries.get_mut(at) else {
                continue;
            };
            self.totals.leased = self.totals.leased.saturating_sub(1);
            delivery.phase = if *held { Phase::Idle } else { self.schedule.ready(owner, *priority, slot.0, delivery) };
            moved |= delivery.phase == Phase::Ready;
        }
        moved
    }

    /// When [`advance`](Self::advance) will find something next.
    pub(crate) fn next_event(&self) -> Option<Moment> {
        self.schedule.next_event()
    }

    pub(crate) fn claim(&mut self, now: Moment, keys: Keys<'_>, max: usize, lease: Duration) -> Vec<Claimed> {
        let until = after(now, lease);
        let mut claimed = Vec::new();
        while claimed.len() < max {
            let Some(slot) = self.schedule.pop_ready(keys) else {
                break;
            };
            let Some((message, at)) = find(&mut self.messages, slot) else {
                continue;
            };
            let Some(delivery) = message.deliveries.get_mut(at) else {
                continue;
            };
            delivery.generation = self.next_generation;
            self.next_generation = self.next_generation.wrapping_add(1);
            delivery.phase = self.schedule.lease(until, slot);
            self.totals.leased = self.totals.leased.saturating_add(1);
            claimed.push(Claimed {
                lease: Lease::new(slot.0, slot.1, delivery.generation),
                key: delivery.key.clone(),
                owner: message.owner.clone(),
                priority: message.priority,
                envelope: message.envelope.clone(),
                state: delivery.state.clone(),
                body_len: message.body_len,
                attempts: delivery.attempts,
                age: between(message.born, now),
            });
        }
        claimed
    }

    pub(crate) fn extend(&mut self, lease: &Lease, until: Moment) -> Result<(), Stale> {
        let slot = self.unschedule(lease)?;
        let (_, at) = find(&mut self.messages, slot).ok_or(Stale)?;
        let phase = self.schedule.lease(until, slot);
        self.totals.leased = self.totals.leased.saturating_add(1);
        self.set_phase(slot, at, phase);
        Ok(())
    }

    /// From here on the delivery neither expires nor is claimed: its outcome is on the way to the disk.
    pub(crate) fn begin_finish(&mut self, lease: &Lease) -> Result<(), Stale> {
        let slot = self.unschedule(lease)?;
        let (_, at) = find(&mut self.messages, slot).ok_or(Stale)?;
        self.set_phase(slot, at, Phase::Writing);
        Ok(())
    }

    /// The message, if that was its last delivery.
    pub(crate) fn done(&mut self, slot: Slot) -> Option<Message<B>> {
        let (message, at) = find(&mut self.messages, slot)?;
        let before = message.cost();
        let Message { owner, priority, deliveries, .. } = message;
        let delivery = deliveries.remove(at);
        self.schedule.cancel(owner, *priority, slot.0, &delivery);
        self.totals.leased = self.totals.leased.saturating_sub(u64::from(delivery.is_leased()));
        self.totals.deliveries = self.totals.deliveries.saturating_sub(1);
        self.totals.memory = self.totals.memory.saturating_sub(before).saturating_add(message.cost());
        if message.deliveries.is_empty() { self.take(slot.0) } else { None }
    }

    pub(crate) fn retry(&mut self, slot: Slot, due: Moment, delay: Duration, attempts: u32, state: Bytes) {
        let Some((message, at)) = find(&mut self.messages, slot) else {
            return;
        };
        let before = message.cost();
        let Message { owner, priority, deliveries, held, .. } = &mut *message;
        let Some(delivery) = deliveries.get_mut(at) else {
            return;
        };
        self.schedule.cancel(owner, *priority, slot.0, delivery);
        self.totals.leased = self.totals.leased.saturating_sub(u64::from(delivery.is_leased()));
        delivery.due = due;
        delivery.delay = delay;
        delivery.attempts = attempts;
        delivery.state = state;
        delivery.phase = if *held { Phase::Idle } else { self.schedule.plan(slot.0, delivery) };
        self.totals.memory = self.totals.memory.saturating_sub(before).saturating_add(message.cost());
    }

    /// `None`: there is no such message. Otherwise whether that is news.
    pub(crate) fn set_held(&mut self, id: MessageId, held: bool) -> Option<bool> {
        let Message { owner, priority, deliveries, held: was, .. } = self.messages.get_mut(&id)?;
        if mem::replace(was, held) == held {
            return Some(false);
        }
        if held {
            self.totals.held = self.totals.held.saturating_add(1);
        } else {
            self.totals.held = self.totals.held.saturating_sub(1);
        }
        for delivery in deliveries {
            match delivery.phase {
                Phase::Future | Phase::Ready if held => {
                    self.schedule.cancel(owner, *priority, id, delivery);
                    delivery.phase = Phase::Idle;
                }
                Phase::Idle if !held => delivery.phase = self.schedule.plan(id, delivery),
                _ => {}
            }
        }
        Some(true)
    }

    /// Makes every lease stale, while the removal is on the way to the disk.
    pub(crate) fn begin_remove(&mut self, id: MessageId) -> Option<()> {
        let message = self.messages.get_mut(&id)?;
        (!mem::replace(&mut message.removing, true)).then_some(())
    }

    /// Takes a message out, whatever its deliveries are doing.
    pub(crate) fn take(&mut self, id: MessageId) -> Option<Message<B>> {
        let message = self.messages.remove(&id)?;
        for delivery in &message.deliveries {
            self.schedule.cancel(&message.owner, message.priority, id, delivery);
            self.totals.leased = self.totals.leased.saturating_sub(u64::from(delivery.is_leased()));
        }
        self.totals.memory = self.totals.memory.saturating_sub(message.cost());
        self.totals.deliveries = self.totals.deliveries.saturating_sub(message.deliveries.len() as u64);
        self.totals.held = self.totals.held.saturating_sub(u64::from(message.held));
        self.totals.bytes = self.totals.bytes.saturating_sub(message.body_len);
        Some(message)
    }

    /// How often the delivery was written back for another attempt.
    pub(crate) fn attempts(&self, (id, number): Slot) -> u32 {
        let delivery = self.messages.get(&id).and_then(|m| m.deliveries.iter().find(|d| d.number == number));
        delivery.map_or(0, |delivery| delivery.attempts)
    }

    pub(crate) fn get(&self, id: MessageId) -> Option<&Message<B>> {
        self.messages.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: MessageId) -> Option<&mut Message<B>> {
        self.messages.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageId, &Message<B>)> {
        self.messages.iter().map(|(id, message)| (*id, message))
    }

    /// Octets, as estimated by [`Message::cost`].
    pub(crate) fn memory(&self) -> usize {
        self.totals.memory
    }

    pub(crate) fn due_keys(&self, after: Option<&RoutingKey>, limit: usize) -> Vec<RoutingKey> {
        self.schedule.ready_keys(after, limit)
    }

    pub(crate) fn list(&self, now: Moment, after: Option<MessageId>, limit: usize) -> Vec<Summary> {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let behind = self.messages.range((start, std::ops::Bound::Unbounded)).take(limit);
        behind.map(|(id, message)| message.summary(*id, now)).collect()
    }

    /// Fills in what the index knows.
    pub(crate) fn stats(&self, now: Moment, stats: &mut Stats) {
        stats.messages = self.messages.len() as u64;
        stats.deliveries = self.totals.deliveries;
        stats.leased = self.totals.leased;
        stats.claimable = self.schedule.claimable();
        stats.held = self.totals.held;
        stats.bytes = self.totals.bytes;
        stats.index_memory = self.totals.memory as u64;
        // Ids grow with the beginning of the draft, so the first is the oldest but for those that took long to arrive.
        stats.oldest = self.messages.first_key_value().map(|(_, message)| between(message.born, now));
    }

    /// Takes the delivery of a good lease out of the schedule.
    fn unschedule(&mut self, lease: &Lease) -> Result<Slot, Stale> {
        let slot = (lease.message, lease.delivery);
        let (message, at) = find(&mut self.messages, slot).ok_or(Stale)?;
        let Message { owner, priority, deliveries, removing, .. } = message;
        let delivery = deliveries.get(at).ok_or(Stale)?;
        if *removing || delivery.generation != lease.generation || delivery.phase == Phase::Writing {
            return Err(Stale);
        }
        self.schedule.cancel(owner, *priority, slot.0, delivery);
        self.totals.leased = self.totals.leased.saturating_sub(u64::from(delivery.is_leased()));
        Ok(slot)
    }

    fn set_phase(&mut self, slot: Slot, at: usize, phase: Phase) {
        if let Some(delivery) = self.messages.get_mut(&slot.0).and_then(|message| message.deliveries.get_mut(at)) {
            delivery.phase = phase;
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

fn find<B>(messages: &mut BTreeMap<MessageId, Message<B>>, slot: Slot) -> Option<(&mut Message<B>, usize)> {
    let message = messages.get_mut(&slot.0)?;
    let at = message.deliveries.binary_search_by_key(&slot.1, |delivery| delivery.number).ok()?;
    Some((message, at))
}
