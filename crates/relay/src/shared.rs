//! What receiving and delivering share.

use crate::{Event, RelayOptions, event::Counting};

/// The parts of a relay.
#[derive(Debug)]
pub(crate) struct Shared<Q, R> {
    pub(crate) queue: Q,
    pub(crate) resolver: R,
    pub(crate) options: RelayOptions,
    pub(crate) events: Counting,
}

impl<Q, R> Shared<Q, R> {
    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.events.observe(event);
    }
}
