//! A message as the index holds it.

use std::time::Duration;

use bytes::Bytes;

use super::{Moment, after, between};
use crate::{DeliverySummary, MAX_DELAY, MessageId, NewMessage, Owner, Priority, RoutingKey, Summary};

#[derive(Debug, Clone)]
pub(crate) struct Message<B> {
    pub(crate) owner: Owner,
    pub(crate) priority: Priority,
    pub(crate) envelope: Bytes,
    pub(crate) born: Moment,
    pub(crate) held: bool,
    pub(crate) body_len: u64,
    pub(crate) stored: B,
    /// In the order of their numbers.
    pub(crate) deliveries: Vec<Delivery>,
    /// Its removal is being written: no other record about it may be.
    pub(super) removing: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) number: u32,
    pub(crate) key: RoutingKey,
    pub(crate) state: Bytes,
    pub(crate) due: Moment,
    /// The delay that `due` was computed from. It bounds `due` after a restart with another wall
    /// clock.
    pub(crate) delay: Duration,
    pub(crate) attempts: u32,
    /// The generation of the last lease, until its outcome is written; 0: none.
    pub(crate) generation: u64,
    pub(super) slot_state: SlotState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// In no schedule, because the message is on hold.
    Idle,
    Waiting,
    Ready,
    Leased {
        until: Moment,
    },
    /// Its outcome is being written: it cannot expire.
    Writing,
}

impl<B> Message<B> {
    pub(crate) fn new(new: NewMessage, now: Moment, body_len: u64, stored: B) -> Self {
        let deliveries = (0..).zip(new.deliveries).map(|(number, delivery)| {
            let delay = delivery.delay.min(MAX_DELAY);
            // A state may be a slice of a large buffer, which it would keep alive for days.
            let state = Bytes::copy_from_slice(&delivery.state);
            Delivery::new(number, delivery.key, state, after(now, delay), delay, 0)
        });
        let deliveries = deliveries.collect();
        let envelope = Bytes::copy_from_slice(&new.envelope);
        Self::restore(new.owner, new.priority, envelope, now, false, body_len, stored, deliveries)
    }

    #[expect(clippy::too_many_arguments, reason = "one for each field")]
    pub(crate) fn restore(
        owner: Owner,
        priority: Priority,
        envelope: Bytes,
        born: Moment,
        held: bool,
        body_len: u64,
        stored: B,
        deliveries: Vec<Delivery>,
    ) -> Self {
        Self { owner, priority, envelope, born, held, body_len, stored, deliveries, removing: false }
    }

    pub(crate) fn map<C>(self, stored: impl FnOnce(B) -> C) -> Message<C> {
        let Self { owner, priority, envelope, born, held, body_len, stored: old, deliveries, removing } = self;
        let stored = stored(old);
        Message { owner, priority, envelope, born, held, body_len, stored, deliveries, removing }
    }

    /// The estimated memory in bytes: what it carries, 512 for the structures around it, and 384
    /// for each delivery.
    pub(crate) fn cost(&self) -> usize {
        let deliveries = self.deliveries.iter().map(|each| 384 + each.key.as_str().len() + each.state.len());
        deliveries.fold(512 + self.envelope.len() + self.owner.as_str().len(), usize::saturating_add)
    }

    pub(super) fn delivery(&self, number: u32) -> Option<&Delivery> {
        self.position(number).and_then(|at| self.deliveries.get(at))
    }

    pub(super) fn delivery_mut(&mut self, number: u32) -> Option<&mut Delivery> {
        self.position(number).and_then(|at| self.deliveries.get_mut(at))
    }

    pub(super) fn position(&self, number: u32) -> Option<usize> {
        self.deliveries.binary_search_by_key(&number, |delivery| delivery.number).ok()
    }

    /// Returns `true` if the base can stand for it: no lease is out, expired or being written back.
    pub(super) fn is_at_rest(&self) -> bool {
        let at_rest = |each: &Delivery| {
            each.generation == 0 && matches!(each.slot_state, SlotState::Idle | SlotState::Waiting | SlotState::Ready)
        };
        !self.removing && self.deliveries.iter().all(at_rest)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.deliveries.iter().any(|each| each.slot_state == SlotState::Ready)
    }

    pub(crate) fn summary(&self, id: MessageId, now: Moment) -> Summary {
        let deliveries = self.deliveries.iter().map(|delivery| DeliverySummary {
            delivery: delivery.number,
            key: delivery.key.clone(),
            state: delivery.state.clone(),
            attempts: delivery.attempts,
            due_in: between(now, delivery.due),
            leased: delivery.is_leased() || delivery.slot_state == SlotState::Writing,
        });
        Summary {
            id,
            owner: self.owner.clone(),
            priority: self.priority,
            envelope: self.envelope.clone(),
            body_len: self.body_len,
            age: between(self.born, now),
            held: self.held,
            deliveries: deliveries.collect(),
        }
    }
}

impl Delivery {
    pub(crate) fn new(number: u32, key: RoutingKey, state: Bytes, due: Moment, delay: Duration, attempts: u32) -> Self {
        Self { number, key, state, due, delay, attempts, generation: 0, slot_state: SlotState::Idle }
    }

    pub(super) fn is_leased(&self) -> bool {
        matches!(self.slot_state, SlotState::Leased { .. })
    }
}
