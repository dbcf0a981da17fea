//! When the delivery loop looks through what is due, and how fast.
//!
//! A look goes through the due classes in their order, a page at a time, and pauses between pages.
//! The more classes a look has found, the longer it is until the next one. So looks cost at most a
//! part of a processor, however many messages come in and however many classes are due.

use std::time::Duration;

use posthaste_queue::DueClass;
use tokio::time::Instant;

use super::{room::Passed, routing};

/// Classes that are taken from the queue at once: about a millisecond.
pub(super) const PAGE: usize = 256;
/// The pause between two pages.
const PAUSE: Duration = Duration::from_millis(10);
/// The time from the end of a look to the next one, for each class that it has found; 10 ms at
/// least, and 10 s at most. A class takes some microseconds.
const FOR_EACH: Duration = Duration::from_micros(200);
const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(10);
/// The same if there is room again for classes that were missed.
const FOR_EACH_MISSED: Duration = Duration::from_micros(20);
/// The time until the next look if there was no room for some classes, or for their sites. It comes
/// sooner if there is room again.
const MISSED: Duration = Duration::from_secs(1);

/// Where the loop stands.
#[derive(Debug)]
pub(super) struct Looks {
    /// The number of the look that is under way, or was last.
    number: u64,
    /// The look is under way, and goes on after this class.
    after: Option<DueClass>,
    /// The classes that it has found so far.
    found: usize,
    /// Another look is wanted.
    is_wanted: bool,
    /// What the look that is under way, or the last one, has passed over.
    passed: Passed,
    /// When the next page is to be taken.
    at: Instant,
    /// When the next look may begin, and when if there is room again.
    earliest: (Instant, Instant),
    /// The pause after the next page is left out.
    hurries: bool,
}

impl Looks {
    pub(super) const fn new(now: Instant) -> Self {
        let passed = Passed { missed: false, held: false };
        let (is_wanted, hurries) = (false, false);
        Self { number: 0, after: None, found: 0, is_wanted, passed, at: now, earliest: (now, now), hurries }
    }

    /// Something may have become due. It is looked for soon: a hint may come first, and a single
    /// look then finds all that comes within this moment.
    pub(super) fn want(&mut self, now: Instant) {
        if self.after.is_none() {
            let at = self.earliest.0.max(now + LEAST);
            self.at = if self.is_wanted { self.at.min(at) } else { at };
        }
        self.is_wanted = true;
    }

    /// There is room for classes that were missed.
    pub(super) fn want_at_once(&mut self, now: Instant) {
        let at = if self.after.is_none() { self.earliest.1.max(now) } else { now };
        self.at = if self.is_wanted() { self.at.min(at) } else { at };
        (self.is_wanted, self.hurries) = (true, true);
    }

    /// Returns `true` if a page is to be taken.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted || self.after.is_some()
    }

    /// Returns `true` if a page is taken within a moment.
    pub(super) fn come_soon(&self, now: Instant) -> bool {
        self.is_wanted() && self.at <= now + 2 * LEAST
    }

    /// When the next page is to be taken.
    pub(super) const fn at(&self) -> Instant {
        self.at
    }

    /// Returns `true` if there was no room for some classes.
    pub(super) const fn has_missed(&self) -> bool {
        self.passed.missed
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Begins a page: it lies after the returned class.
    pub(super) fn begin(&mut self) -> Option<DueClass> {
        if self.after.is_none() {
            self.number = self.number.wrapping_add(1);
            (self.found, self.is_wanted, self.passed) = (0, false, Passed::default());
        }
        self.after.clone()
    }

    /// Ends a page with this many classes, and this last one.
    pub(super) fn end(&mut self, now: Instant, count: usize, last: Option<DueClass>, passed: Passed) {
        self.found = self.found.saturating_add(count);
        self.passed.missed |= passed.missed;
        self.passed.held |= passed.held;
        if count == PAGE {
            self.after = last;
            self.at = if self.hurries { now } else { now + PAUSE };
            return;
        }
        (self.after, self.hurries) = (None, false);
        let found = u32::try_from(self.found).unwrap_or(u32::MAX);
        let of_all = |each: Duration| each.saturating_mul(found).min(MOST);
        self.earliest = (now + of_all(FOR_EACH).max(LEAST), now + of_all(FOR_EACH_MISSED));
        self.at = self.earliest.0;
        let wait = match self.passed {
            _ if self.is_wanted => return,
            Passed { missed: true, .. } => MISSED,
            // Their routes may have changed.
            Passed { held: true, .. } => routing::KNOWN,
            Passed { missed: false, held: false } => return,
        };
        self.is_wanted = true;
        self.at = self.at.max(now + wait);
    }

    /// The queue has failed. Waits for its next change.
    pub(super) fn give_up(&mut self) {
        (self.after, self.is_wanted, self.passed, self.hurries) = (None, false, Passed::default(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_queue::{Owner, Priority, RoutingKey};

    const MS: Duration = Duration::from_millis(1);

    /// Runs one look that finds this many classes. Returns when its last page was taken.
    fn look(looks: &mut Looks, classes: usize, missed: bool) -> Instant {
        let (mut left, mut first) = (classes, true);
        loop {
            assert!(looks.is_wanted());
            let now = looks.at();
            assert_eq!(looks.begin().is_none(), first);
            let count = left.min(PAGE);
            let class = DueClass { key: RoutingKey::new("a").unwrap(), priority: Priority(0), owner: Owner::default() };
            looks.end(now, count, Some(class), Passed { missed, held: false });
            (left, first) = (left - count, false);
            if count < PAGE {
                return now;
            }
        }
    }

    #[test]
    fn looks_cost_the_less_the_more_classes_are_due() {
        for (classes, pause) in [(1, 10), (100, 20), (10_000, 2_000), (1_000_000, 10_000)] {
            let now = Instant::now();
            let mut looks = Looks::new(now);
            assert!(!looks.is_wanted());
            looks.want(now);
            assert_eq!(looks.at(), now + LEAST);
            let ended = look(&mut looks, classes, false);
            assert_eq!(ended, now + LEAST + PAUSE * u32::try_from(classes / PAGE).unwrap());
            assert!(!looks.is_wanted());
            // However often it is wanted.
            looks.want(ended);
            looks.want(ended + 3 * MS);
            assert_eq!(looks.at(), ended + pause * MS, "{classes}");
        }
    }

    #[test]
    fn what_changes_in_a_look_is_looked_for_again() {
        let now = Instant::now();
        let mut looks = Looks::new(now);
        looks.want(now);
        let first = looks.number() + 1;
        looks.begin();
        looks.want(looks.at());
        looks.end(looks.at(), 3, None, Passed::default());
        assert!(looks.is_wanted() && looks.number() == first);
        look(&mut looks, 3, false);
        assert!(!looks.is_wanted() && looks.number() == first + 1);
    }

    #[test]
    fn missed_classes_are_looked_for_by_itself_and_sooner_if_there_is_room() {
        let now = Instant::now();
        let mut looks = Looks::new(now);
        looks.want(now);
        let ended = look(&mut looks, 5_000, true);
        assert_eq!((looks.is_wanted(), looks.at()), (true, ended + MISSED));
        looks.want_at_once(ended);
        assert_eq!(looks.at(), ended + 100 * MS);
        let ended = look(&mut looks, 20, true);
        assert_eq!(looks.at(), ended + MISSED);
        looks.want(ended + 500 * MS);
        assert_eq!(looks.at(), ended + 510 * MS);
        look(&mut looks, 20, false);
        assert!(!looks.is_wanted() && !looks.has_missed());
    }

    #[test]
    fn what_routes_hold_is_looked_at_each_minute() {
        let now = Instant::now();
        let mut looks = Looks::new(now);
        looks.want(now);
        for _ in 0..3 {
            looks.begin();
            let now = looks.at();
            looks.end(now, 2, None, Passed { missed: false, held: true });
            assert_eq!((looks.is_wanted(), looks.at()), (true, now + Duration::from_secs(60)));
        }
    }
}
