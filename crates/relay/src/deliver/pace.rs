//! The rate at which a site takes messages, learnt from its refusals.
//!
//! A site that refuses since it has had enough for now took what it takes in the minute before. So
//! the messages of that minute are counted, and from then on a little less than that is sent. While
//! nothing is refused, the rate grows: a site may take more than it did.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds for which messages are counted.
const SECONDS: u64 = 60;
const SLOTS: usize = 60;
/// The part of what the site took that is sent from then on.
const LESS: f64 = 0.97;
/// One refusal cuts the rate to this part at least.
const AGAIN: f64 = 0.99;
/// The least rate, in messages a minute.
const LEAST: f64 = 1.0;
/// One refusal cuts the rate to this part at most. The site may have refused the messages after a
/// rest, when few had been taken lately.
const CUT: f64 = 0.5;
/// Growth in a minute near the rate at which the site refused.
const SLOWLY: f64 = 0.02;
/// Growth in a minute below [`FAR`] of that rate.
const FAST: f64 = 0.2;
const FAR: f64 = 0.8;
/// Minutes without a refusal after which the growth doubles each minute, up to [`FASTEST`]: the
/// rate is far from what the site takes.
const STEADY: f64 = 2.0;
const FASTEST: f64 = 1.0;
/// A rate is forgotten after this time without mail.
const FORGET: Duration = Duration::from_secs(3_600);

/// The messages that a site took in the last minute, and the rate that it has taught.
#[derive(Debug)]
pub(super) struct Pace {
    taken: Ring,
    learnt: Option<Learnt>,
}

#[derive(Debug)]
struct Learnt {
    /// Messages a minute.
    rate: f64,
    /// The rate at which the site refused.
    refused_at: f64,
    refused: Instant,
    /// A message was taken since.
    has_taken: bool,
    /// Until when the rate has grown.
    grown: Instant,
    /// When the next message may begin.
    next: Instant,
    /// When the last message began.
    used: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { taken: Ring::new(now), learnt: None }
    }

    /// Takes note of a message that the site took.
    pub(super) fn took(&mut self, now: Instant) {
        self.taken.add(now);
        if let Some(learnt) = &mut self.learnt {
            learnt.has_taken = true;
        }
    }

    /// Learns from a refusal, unless the site took nothing lately, or the message began before the
    /// last refusal.
    pub(super) fn refused(&mut self, begun: Instant, now: Instant) {
        self.keep_up(now);
        let count = f64::from(self.taken.sum(now));
        if count == 0.0 || self.learnt.as_ref().is_some_and(|learnt| begun <= learnt.refused) {
            return;
        }
        // It refused the probe: the rest was too short, and the rate may be right.
        if let Some(learnt) = self.learnt.as_mut().filter(|learnt| !learnt.has_taken) {
            learnt.refused = now;
            return;
        }
        let mut rate = (count * LESS).max(LEAST);
        let mut refused_at = count;
        let mut used = now;
        if let Some(known) = &self.learnt {
            rate = rate.min(known.rate * AGAIN).max(known.rate * CUT).max(LEAST);
            refused_at = refused_at.max(known.refused_at * FAR);
            used = known.used;
        }
        self.learnt = Some(Learnt { rate, refused_at, refused: now, has_taken: false, grown: now, next: now, used });
    }

    /// When the next message may begin. `None`: now.
    pub(super) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        self.keep_up(now);
        self.learnt.as_ref().map(|learnt| learnt.next).filter(|next| now < *next)
    }

    /// A message begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if let Some(learnt) = &mut self.learnt {
            // A message that is late does not delay those after it; a pause saves nothing up.
            let step = learnt.step();
            let late = now.checked_sub(step).map_or(learnt.next, |earliest| learnt.next.max(earliest));
            (learnt.next, learnt.used) = (late + step, now);
        }
    }

    /// There was no message to begin.
    pub(super) fn give_back(&mut self) {
        if let Some(learnt) = &mut self.learnt {
            learnt.next = learnt.next.checked_sub(learnt.step()).unwrap_or(learnt.next);
        }
    }

    /// The time until the first of the messages of the last minute is more than a minute old.
    pub(super) fn frees(&mut self, now: Instant) -> Option<Duration> {
        self.taken.frees(now)
    }

    /// The time between two messages, if the rate is learnt.
    pub(super) fn step(&self) -> Option<Duration> {
        self.learnt.as_ref().map(Learnt::step)
    }

    /// The learnt rate, in messages a minute.
    pub(super) fn rate(&self) -> Option<f64> {
        self.learnt.as_ref().map(|learnt| learnt.rate)
    }

    pub(super) fn has_learnt(&mut self, now: Instant) -> bool {
        self.keep_up(now);
        self.learnt.is_some()
    }

    /// Forgets the rate, or lets it grow.
    fn keep_up(&mut self, now: Instant) {
        let Some(learnt) = &mut self.learnt else { return };
        if now.saturating_duration_since(learnt.used) >= FORGET {
            self.learnt = None;
            return;
        }
        let minutes = |since: Instant| now.saturating_duration_since(since).as_secs_f64() / 60.0;
        let grown = minutes(learnt.grown);
        // Once a second is often enough.
        if grown < 1.0 / 60.0 {
            return;
        }
        let steady = (minutes(learnt.refused) - STEADY).max(0.0);
        let least = if learnt.rate < learnt.refused_at * FAR { FAST } else { SLOWLY };
        let growth = (SLOWLY * steady.exp2()).clamp(least, FASTEST);
        // A site that is not used for long must not be tried at any rate.
        learnt.rate = (learnt.rate * (1.0 + growth * grown.min(1.0))).min(MOST);
        learnt.grown = now;
    }
}

/// The largest rate, in messages a minute: beyond it no wait is long enough to matter.
const MOST: f64 = 600_000.0;

impl Learnt {
    fn step(&self) -> Duration {
        Duration::from_secs_f64(60.0 / self.rate.max(LEAST))
    }
}

/// Counts of the last sixty seconds.
#[derive(Debug)]
struct Ring {
    counts: [u32; SLOTS],
    epoch: Instant,
    /// The second of the last count, since the epoch.
    last: u64,
}

impl Ring {
    const fn new(epoch: Instant) -> Self {
        Self { counts: [0; SLOTS], epoch, last: 0 }
    }

    fn add(&mut self, now: Instant) {
        self.turn(now);
        if let Some(count) = self.slot(self.last) {
            *count = count.saturating_add(1);
        }
    }

    fn sum(&mut self, now: Instant) -> u32 {
        self.turn(now);
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn frees(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        let last = self.last;
        let oldest = (last.saturating_sub(SECONDS - 1)..=last)
            .find(|second| self.slot(*second).is_some_and(|count| *count > 0))?;
        let frees = Duration::from_secs(oldest.saturating_add(SECONDS + 1));
        Some(frees.saturating_sub(now.saturating_duration_since(self.epoch)))
    }

    /// Empties the seconds that have passed since the last count.
    fn turn(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.epoch).as_secs();
        let from = self.last.max(second.saturating_sub(SECONDS)).saturating_add(1);
        for passed in from..=second {
            if let Some(count) = self.slot(passed) {
                *count = 0;
            }
        }
        self.last = self.last.max(second);
    }

    fn slot(&mut self, second: u64) -> Option<&mut u32> {
        let index = usize::try_from(second % SECONDS).ok()?;
        self.counts.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ring_counts_a_minute() {
        let begun = Instant::now();
        let mut ring = Ring::new(begun);
        for second in 0..200 {
            ring.add(begun + SECOND * second);
            assert_eq!(ring.sum(begun + SECOND * second), (second + 1).min(60), "{second}");
            let frees = 61_u32.saturating_sub(second.min(59));
            assert_eq!(ring.frees(begun + SECOND * second), Some(SECOND * frees), "{second}");
        }
        assert_eq!(ring.sum(begun + SECOND * 229), 30);
        assert_eq!(ring.sum(begun + SECOND * 10_000), 0);
        ring.add(begun + SECOND * 10_000);
        assert_eq!(ring.sum(begun + SECOND * 10_000), 1);
    }

    /// A pace that was refused after this many messages.
    fn refused(count: u32, now: Instant) -> Pace {
        let mut pace = Pace::new(now);
        (0..count).for_each(|_| pace.took(now));
        pace.refused(now, now);
        pace
    }

    #[test]
    fn a_site_that_refuses_teaches_a_little_less_than_it_took() {
        let now = Instant::now();
        for (count, rate) in [(0, None), (1, Some(1.0)), (100, Some(97.0))] {
            assert_eq!(refused(count, now).rate(), rate, "{count}");
        }
        let mut pace = refused(100, now);
        // Of the same flight.
        pace.refused(now, now + SECOND);
        assert!(pace.rate().unwrap() < 97.1);
        // Few were taken lately: there was a rest.
        pace.took(now + SECOND * 71);
        pace.refused(now + SECOND * 71, now + SECOND * 72);
        let rate = pace.rate().unwrap();
        assert!((48.0..52.0).contains(&rate), "{rate}");
        // None was taken lately: the rest teaches nothing.
        pace.refused(now + SECOND * 171, now + SECOND * 172);
        assert!(pace.rate().unwrap() >= rate);
    }

    #[test]
    fn messages_begin_at_the_rate_and_a_pause_saves_nothing_up() {
        let begun = Instant::now();
        let mut pace = refused(100, begun);
        let mut now = begun;
        let mut count = 0;
        while now < begun + SECOND * 60 {
            if pace.waits_until(now).is_none() {
                pace.begin(now);
                count += 1;
            }
            now += Duration::from_millis(7);
        }
        assert!((97..=99).contains(&count), "{count}");
        now += SECOND * 120;
        let at_once = (0..100).take_while(|_| pace.waits_until(now).is_none().then(|| pace.begin(now)).is_some());
        assert!(at_once.count() <= 2);
        let until = pace.waits_until(now).unwrap();
        pace.give_back();
        assert!(pace.waits_until(now).is_none_or(|earlier| earlier < until));
    }

    #[test]
    fn a_rate_grows_slowly_near_the_refusal_and_is_forgotten_after_an_hour() {
        let begun = Instant::now();
        let mut pace = refused(100, begun);
        let grow = |pace: &mut Pace, from: u32, to: u32| {
            (from..to).for_each(|second| {
                pace.waits_until(begun + SECOND * second);
                pace.begin(begun + SECOND * second);
            });
            pace.rate().unwrap()
        };
        let rate = grow(&mut pace, 0, 61);
        assert!((98.0..99.2).contains(&rate), "{rate}");
        let rate = grow(&mut pace, 61, 420);
        assert!((150.0..1_000.0).contains(&rate), "{rate}");
        assert!(pace.waits_until(begun + SECOND * 419 + FORGET).is_none() && pace.rate().is_none());
    }

    #[test]
    fn a_rate_far_below_the_refusal_grows_fast() {
        let begun = Instant::now();
        let mut pace = refused(100, begun);
        for at in [70, 140] {
            let at = begun + SECOND * at;
            pace.took(at);
            pace.refused(at, at);
        }
        let low = pace.rate().unwrap();
        assert!(low < 30.0, "{low}");
        for second in 140..320 {
            pace.waits_until(begun + SECOND * second);
        }
        let rate = pace.rate().unwrap();
        assert!(rate > low * 1.7, "{low} {rate}");
    }
}
