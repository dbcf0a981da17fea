//! The states that one message may have, according to what was asked and answered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::{Alteration, NewMessage, Outcome, Owner, Priority, RoutingKey, Summary};

/// A message.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) body: Vec<u8>,
    /// The states it may have, `None`: gone. The last acknowledged one, and those asked for without
    /// an answer.
    pub(super) states: Vec<Option<State>>,
    /// A delivery was finished, and it is unknown if that was written.
    pub(super) is_finish_open: bool,
}

/// All that the queue says about a message but its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) owner: Owner,
    pub(super) priority: Priority,
    pub(super) envelope: Bytes,
    pub(super) held: bool,
    /// When it was accepted, on the clock of the test.
    born: Duration,
    pub(super) deliveries: BTreeMap<u32, Delivery>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) key: RoutingKey,
    pub(super) state: Bytes,
    pub(super) attempts: u32,
    /// On the clock of the test.
    pub(super) due: Duration,
}

pub(super) enum Change {
    Outcome(u32, Outcome),
    Alteration(Alteration),
    Removal,
}

/// What is known about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Done,
    NotDone,
    /// Not done: there is no such message.
    Gone,
    Nothing,
}

impl Entry {
    pub(super) fn new(body: Vec<u8>, states: Vec<Option<State>>) -> Self {
        Self { body, states, is_finish_open: false }
    }

    /// The states after a change.
    pub(super) fn after(&self, change: &Change, now: Duration) -> Vec<Option<State>> {
        self.states.iter().map(|state| state.clone().and_then(|state| state.after(change, now))).collect()
    }

    pub(super) fn may_be_there(&self) -> bool {
        self.states.iter().any(Option::is_some)
    }

    pub(super) fn note(&mut self, change: &Change, now: Duration, known: Known) {
        match known {
            Known::Done => {
                // There was such a message, or the answer would differ.
                self.states.retain(Option::is_some);
                assert!(!self.states.is_empty(), "what was gone was changed");
                self.states = self.after(change, now);
            }
            Known::NotDone => {}
            Known::Gone => {
                assert!(self.states.contains(&None), "there is such a message: {:?}", self.states);
                self.states = vec![None];
            }
            Known::Nothing => {
                for state in self.after(change, now) {
                    if !self.states.contains(&state) {
                        self.states.push(state);
                    }
                }
            }
        }
    }
}

impl State {
    pub(super) fn of(message: &NewMessage, now: Duration) -> Self {
        let NewMessage { owner, priority, envelope, deliveries } = message.clone();
        let deliveries = (0..).zip(deliveries).map(|(number, new)| {
            let due = now + new.delay;
            (number, Delivery { key: new.key, state: new.state, attempts: 0, due })
        });
        Self { owner, priority, envelope, held: false, born: now, deliveries: deliveries.collect() }
    }

    /// The queue does not say since when something is due.
    pub(super) fn settled(mut self, now: Duration) -> Self {
        self.deliveries.values_mut().for_each(|delivery| delivery.due = delivery.due.max(now));
        self
    }

    pub(super) fn found(summary: Summary, now: Duration) -> Self {
        let Summary { owner, priority, envelope, held, age, deliveries, .. } = summary;
        let deliveries = deliveries.into_iter().map(|each| {
            let due = now + each.due_in;
            (each.delivery, Delivery { key: each.key, state: each.state, attempts: each.attempts, due })
        });
        Self { owner, priority, envelope, held, born: now - age, deliveries: deliveries.collect() }
    }

    fn after(mut self, change: &Change, now: Duration) -> Option<Self> {
        match change {
            Change::Outcome(number, Outcome::Done) => {
                self.deliveries.remove(number);
            }
            Change::Outcome(number, Outcome::Retry { delay, state }) => {
                if let Some(delivery) = self.deliveries.get_mut(number) {
                    let attempts = delivery.attempts + 1;
                    (delivery.state, delivery.attempts, delivery.due) = (state.clone(), attempts, now + *delay);
                }
            }
            Change::Outcome(number, Outcome::Keep { state }) => {
                if let Some(delivery) = self.deliveries.get_mut(number) {
                    delivery.state = state.clone();
                }
            }
            Change::Alteration(Alteration::Hold) => self.held = true,
            Change::Alteration(Alteration::Release) => self.held = false,
            Change::Alteration(Alteration::Reschedule { key, delay }) => {
                self.concerned(key.as_ref()).for_each(|delivery| delivery.due = now + *delay);
            }
            Change::Alteration(Alteration::Reroute { from, to }) => {
                self.concerned(from.as_ref()).for_each(|delivery| delivery.key = to.clone());
            }
            Change::Removal => return None,
        }
        (!self.deliveries.is_empty()).then_some(self)
    }

    fn concerned(&mut self, key: Option<&RoutingKey>) -> impl Iterator<Item = &mut Delivery> {
        self.deliveries.values_mut().filter(move |delivery| key.is_none_or(|key| *key == delivery.key))
    }
}
