//! The wish that all sessions hurry.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::sync::{Notify, futures::Notified};

/// The wish that all sessions hurry, while the server is nearly full.
#[derive(Debug, Default)]
pub(crate) struct Hurry {
    wanted: AtomicBool,
    changed: Notify,
}

impl Hurry {
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Completes at the first change after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Sets the wish, and wakes all sessions if it was another one.
    pub(crate) fn set(&self, wanted: bool) {
        if self.is_wanted() != wanted && self.wanted.swap(wanted, SeqCst) != wanted {
            self.changed.notify_waiters();
        }
    }
}
