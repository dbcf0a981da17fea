//! What receiving and delivering share.

use tokio::sync::Semaphore;

use crate::{Event, RelayOptions, event::Counting, report::Budget};

/// The parts of a relay.
#[derive(Debug)]
pub(crate) struct Shared<Q, R> {
    pub(crate) queue: Q,
    pub(crate) resolver: R,
    pub(crate) options: RelayOptions,
    pub(crate) events: Counting,
    /// What senders that may be somebody else are still told.
    pub(crate) reports: Budget,
    /// Reports that are written at once, each with what it returns in memory.
    pub(crate) reporting: Semaphore,
}

/// Reports that are written at once: with the largest that may be returned, some 100 MiB together.
const REPORTS_AT_ONCE: usize = 8;

impl<Q, R> Shared<Q, R> {
    pub(crate) fn new(queue: Q, resolver: R, options: RelayOptions, events: Counting) -> Self {
        let reports = Budget::new(options.delivery.stranger_reports);
        Self { queue, resolver, options, events, reports, reporting: Semaphore::new(REPORTS_AT_ONCE) }
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.events.observe(event);
    }
}
