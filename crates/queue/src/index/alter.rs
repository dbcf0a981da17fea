//! What operators change.

use std::mem;
use std::time::Duration;

use super::{Base, Index, Moment, SlotState, Unreadable, after};
use crate::{Alteration, MAX_DELAY, MessageId, RoutingKey};

/// An [`Alteration`] as of the moment at which it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Altered {
    Held(bool),
    Due { key: Option<RoutingKey>, due: Moment, delay: Duration },
    Key { from: Option<RoutingKey>, to: RoutingKey },
}

impl Altered {
    pub(crate) fn new(what: Alteration, now: Moment) -> Self {
        match what {
            Alteration::Hold => Self::Held(true),
            Alteration::Release => Self::Held(false),
            Alteration::Reschedule { key, delay } => {
                Self::Due { key, due: after(now, delay), delay: delay.min(MAX_DELAY) }
            }
            Alteration::Reroute { from, to } => Self::Key { from, to },
        }
    }

    /// Returns `true` if deliveries for this key are meant.
    fn concerns(&self, key: &RoutingKey) -> bool {
        match self {
            Self::Held(_) => true,
            Self::Due { key: of, .. } | Self::Key { from: of, .. } => of.as_ref().is_none_or(|of| of == key),
        }
    }
}

impl<S: Base> Index<S> {
    /// Returns the number of deliveries concerned; for a hold or a release, 1 if it changed
    /// something. `None`: there is no such message.
    pub(crate) fn alter(&mut self, id: MessageId, what: &Altered) -> Result<Option<usize>, Unreadable> {
        self.load(id)?;
        let Some(message) = self.memory.get(id) else { return Ok(None) };
        let concerned = match what {
            Altered::Held(held) => usize::from(message.held != *held),
            Altered::Due { .. } | Altered::Key { .. } => {
                message.deliveries.iter().filter(|each| what.concerns(&each.key)).count()
            }
        };
        if concerned == 0 {
            return Ok(Some(0));
        }
        match what {
            Altered::Held(true) => self.totals.held = self.totals.held.saturating_add(1),
            Altered::Held(false) => self.totals.held = self.totals.held.saturating_sub(1),
            Altered::Due { .. } | Altered::Key { .. } => {}
        }
        let schedule = &mut self.schedule;
        Self::change_in(&mut self.memory, &mut self.cost, id, |message| {
            let mut deliveries = mem::take(&mut message.deliveries);
            // Out of the schedule in the old state, into it in the new one. Leased deliveries are
            // in neither set.
            for delivery in
                deliveries.iter_mut().filter(|each| matches!(each.slot_state, SlotState::Waiting | SlotState::Ready))
            {
                schedule.cancel(id, message, delivery);
                delivery.slot_state = SlotState::Idle;
            }
            match what {
                Altered::Held(held) => message.held = *held,
                Altered::Due { due, delay, .. } => {
                    for delivery in deliveries.iter_mut().filter(|each| what.concerns(&each.key)) {
                        (delivery.due, delivery.delay) = (*due, *delay);
                    }
                }
                Altered::Key { to, .. } => {
                    for delivery in deliveries.iter_mut().filter(|each| what.concerns(&each.key)) {
                        delivery.key = to.clone();
                    }
                }
            }
            if !message.held {
                for delivery in deliveries.iter_mut().filter(|each| each.slot_state == SlotState::Idle) {
                    delivery.slot_state = schedule.wait(id, delivery);
                }
            }
            message.deliveries = deliveries;
        });
        Ok(Some(concerned))
    }
}
