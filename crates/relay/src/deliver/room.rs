//! The room for due classes, at each site and in the relay.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

/// How many due classes are known, over all sites. What lies beyond the bounds stays in the queue,
/// for a later look.
#[derive(Debug)]
pub(super) struct Room {
    /// The bound for the relay: 32,768. A class takes about 200 bytes, so all take 7 MB. An eighth
    /// of it is for what is urgent.
    relay: usize,
    /// The bound for each site: 4,096. So it takes 8 sites to fill the relay, and a look that fills
    /// a site costs little for each class. An eighth of it is for what is urgent.
    site: usize,
    known: AtomicUsize,
    has_missed: AtomicBool,
    has_held: AtomicBool,
    /// Notified when a site that has missed classes has few others.
    pub(super) hungry: Notify,
}

/// What a look has passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Classes for which there was no room.
    pub(super) missed: bool,
    /// Classes that are held by their routes.
    pub(super) held: bool,
}

/// The classes that each site may know while the relay's room is full, so that every site has work.
pub(super) const LEAST: usize = 4;

impl Default for Room {
    fn default() -> Self {
        Self::new(32_768, 4_096)
    }
}

impl Room {
    pub(super) fn new(relay: usize, site: usize) -> Self {
        let (known, hungry) = (AtomicUsize::new(0), Notify::new());
        let (has_missed, has_held) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { relay, site, known, has_missed, has_held, hungry }
    }

    /// The most classes of a site now, if the next one is not urgent.
    pub(super) fn of_site(&self) -> usize {
        self.within(self.relay - self.relay / 8, self.site - self.site / 8)
    }

    /// The most classes of a site now, if the next one is urgent.
    pub(super) fn of_site_for_urgent(&self) -> usize {
        self.within(self.relay, self.site)
    }

    fn within(&self, relay: usize, site: usize) -> usize {
        if self.known.load(Relaxed) < relay { site } else { LEAST.min(site) }
    }

    pub(super) fn enter(&self) {
        self.known.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self, count: usize) {
        self.known.fetch_sub(count, Relaxed);
    }

    /// A look has offered a class for which there is no room now.
    pub(super) fn note_missed(&self) {
        self.has_missed.store(true, Relaxed);
    }

    /// A class was offered that is held by its route.
    pub(super) fn note_held(&self) {
        self.has_held.store(true, Relaxed);
    }

    /// What was passed over since the last call.
    pub(super) fn take_passed(&self) -> Passed {
        Passed { missed: self.has_missed.swap(false, Relaxed), held: self.has_held.swap(false, Relaxed) }
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.load(Relaxed)
    }
}
