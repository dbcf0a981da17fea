//! What a site has taught about how much it takes: its [`Window`] of connections, the [`Pace`] of
//! its messages, and the *rest* that it has asked for.
//!
//! A site that rests keeps its keys due. No delivery is claimed, nothing is written, and no attempt
//! is counted. After the rest one delivery is tried, the *probe*. Its answer ends the rest, or
//! begins a longer one.
//!
//! A site may refuse for days, and its mail must expire and its senders must be told. So from a
//! minute of rests on, the probe itself is deferred as after any other refusal. From half an hour
//! on, the site counts as one that is down: all its deliveries are deferred with its words. That is
//! one write a delivery for each step of the schedule, as for a host that is dead.

use std::time::Duration;

use tokio::time::Instant;

use super::{pace::Pace, window::Window, words::Words};
use crate::{Cause, Diagnostic};

/// The first rest, if the site names no time.
const FIRST: Duration = Duration::from_secs(5);
/// The shortest rest of a site whose rate is known.
const LEAST: Duration = Duration::from_secs(1);
/// The longest rest, if the site names no time.
const MOST: Duration = Duration::from_secs(300);
/// The largest random change of a rest, either way: relays that were refused together then do not
/// come back together.
const JITTER: f64 = 0.1;
/// After this time of rests in a row, the refused delivery is deferred.
const DEFER_AFTER: Duration = Duration::from_secs(60);
/// After this time of rests in a row, all deliveries are deferred.
const DEFER_ALL_AFTER: Duration = Duration::from_secs(1_800);

/// The end of an attempt, as far as it says how much the site takes.
#[derive(Debug)]
pub(super) enum Signal {
    /// The site took the message.
    Took,
    /// The site answered, and did not speak of all mail.
    Answered,
    /// A connection was lost in a transaction, or closed with 421.
    Lost,
    /// The site takes nothing more for now.
    Refused(Words, Diagnostic),
}

/// What follows for the delivery that an attempt was for, if it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// It is settled as usual.
    Settle,
    /// It is given back to the queue, and no attempt is counted.
    GiveBack,
    /// It is settled, and all other deliveries of the site are deferred for the same reason during
    /// this time.
    DeferAll(Duration),
}

/// How much a site takes.
#[derive(Debug)]
pub(super) struct Throttle {
    window: Window,
    pace: Pace,
    rest: Option<Rest>,
}

/// A rest, or the time after it in which the probe runs.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) cause: Cause,
    pub(super) why: Diagnostic,
    pub(super) until: Instant,
    /// When the first rest in a row began, and this one.
    since: Instant,
    begun: Instant,
    in_row: u32,
    /// One delivery is tried after it. After a short rest of a site whose rate is known, the rate
    /// is care enough.
    probes: bool,
}

impl Throttle {
    /// Begins with at most `most` connections.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self { window: Window::new(most), pace: Pace::new(now), rest: None }
    }

    /// Changes the most connections that the site may have.
    pub(super) fn set_most(&mut self, most: usize) {
        self.window.set_most(most);
    }

    /// The connections that the site may have now.
    pub(super) const fn limit(&self) -> usize {
        match &self.rest {
            Some(rest) if rest.probes => 1,
            _ => self.window.limit(),
        }
    }

    /// When the next delivery may begin. `None`: now.
    pub(super) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        let rest = self.rest.as_ref().map(|rest| rest.until).filter(|until| now < *until);
        rest.max(self.pace.waits_until(now))
    }

    /// A delivery begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.pace.begin(now);
    }

    /// There was no delivery to begin.
    pub(super) fn give_back(&mut self) {
        self.pace.give_back();
    }

    /// Learns from an attempt that began then, while this many connections were `open`.
    pub(super) fn end(&mut self, signal: Signal, begun: Instant, open: usize, now: Instant) -> Then {
        match signal {
            Signal::Refused(words, why) => return self.refuse(words, why, (begun, now), open),
            Signal::Took => {
                self.pace.took(now);
                self.window.took(begun, open, now);
            }
            Signal::Lost => {
                self.window.cut(begun, open, 0, now);
            }
            Signal::Answered => {}
        }
        // What began before the rest says nothing of it.
        if self.rest.as_ref().is_some_and(|rest| begun >= rest.until) {
            self.rest = None;
        }
        Then::Settle
    }

    fn refuse(&mut self, words: Words, why: Diagnostic, (begun, now): (Instant, Instant), open: usize) -> Then {
        let Words { cause, wait } = words;
        let (mut first, mut is_paced) = (FIRST, false);
        if cause == Cause::RateLimited {
            match self.pace.step() {
                // There is little too much, for a short time.
                Some(step) => (first, is_paced) = (step.saturating_mul(3).clamp(LEAST, FIRST), true),
                None => {
                    self.window.cut(begun, open, 0, now);
                }
            }
            self.pace.refused(begun, now);
        } else {
            self.window.cut(begun, open, open.saturating_sub(1), now);
            if open > 1 && wait.is_none() {
                // The other connections go on: there are too many, and nothing else is wrong.
                return Then::GiveBack;
            }
        }
        // A rest of long ago begins no row.
        let last = self.rest.as_ref().filter(|rest| now.saturating_duration_since(rest.until) < MOST);
        let last = last.map(|rest| (rest.since, rest.in_row, rest.begun));
        // Deliveries that were under way as the rest began were refused with it.
        if last.is_some_and(|(.., last)| begun <= last) {
            return Then::GiveBack;
        }
        let (since, in_row) = last.map_or((now, 0), |(since, in_row, _)| (since, in_row.saturating_add(1)));
        let doubled = first.saturating_mul(2_u32.saturating_pow(in_row)).min(MOST);
        // If it counts the messages of a minute, then the first of them count no more.
        let frees = self.pace.frees(now).map(|frees| frees.max(first)).filter(|frees| *frees < doubled);
        // A time that the site has named is never cut.
        let (rest, jitter) = match wait.or(frees) {
            Some(rest) => (rest, fastrand::f64()),
            None => (doubled, 2.0 * fastrand::f64() - 1.0),
        };
        let rest = rest.mul_f64(1.0 + JITTER * jitter);
        let probes = !(is_paced && in_row == 0 && wait.is_none());
        self.rest = Some(Rest { cause, why, until: now + rest, since, begun: now, in_row, probes });
        match now.saturating_duration_since(since) {
            run if run >= DEFER_ALL_AFTER => Then::DeferAll(rest),
            run if run >= DEFER_AFTER => Then::Settle,
            _ => Then::GiveBack,
        }
    }

    /// The rest, if there is one now.
    pub(super) fn rest(&self, now: Instant) -> Option<&Rest> {
        self.rest.as_ref().filter(|rest| now < rest.until)
    }

    /// The learnt rate, in messages a minute.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace.rate()
    }

    /// Returns `true` if there is nothing that would be learnt again at a price.
    pub(super) fn knows_nothing(&mut self, now: Instant) -> bool {
        self.rest(now).is_none() && !self.pace.has_learnt(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn refused(cause: Cause, wait: Option<u64>) -> Signal {
        let wait = wait.map(Duration::from_secs);
        Signal::Refused(Words { cause, wait }, Diagnostic::own(None, "no more"))
    }

    /// The rest that lasts.
    fn rest(throttle: &mut Throttle, now: Instant) -> f64 {
        throttle.waits_until(now).map_or(0.0, |until| (until - now).as_secs_f64())
    }

    #[test]
    fn a_rest_lasts_as_long_as_the_site_says() {
        for cause in [Cause::TooManyConnections, Cause::RateLimited] {
            let now = Instant::now();
            let mut throttle = Throttle::new(20, now);
            assert_eq!(throttle.end(refused(cause, Some(300)), now, 3, now), Then::GiveBack);
            let rest = rest(&mut throttle, now);
            assert!((300.0..=330.0).contains(&rest), "{rest}");
        }
    }

    #[test]
    fn rests_double_and_the_mail_is_told_of_long_ones() {
        let mut now = Instant::now();
        let mut throttle = Throttle::new(20, now);
        let begun = now;
        for seconds in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0] {
            let then = throttle.end(refused(Cause::RateLimited, None), now, 1, now);
            let run = (now - begun).as_secs();
            match run {
                0..60 => assert_eq!(then, Then::GiveBack, "{run}"),
                60..1_800 => assert_eq!(then, Then::Settle, "{run}"),
                _ => assert!(matches!(then, Then::DeferAll(_)), "{run}"),
            }
            let rest = rest(&mut throttle, now);
            assert!((seconds * 0.9..=seconds * 1.1).contains(&rest), "{seconds} {rest}");
            assert_eq!(throttle.limit(), 1);
            // Another delivery of the same flight changes nothing.
            assert_eq!(throttle.end(refused(Cause::RateLimited, None), now, 1, now + MS), Then::GiveBack);
            now = throttle.waits_until(now).unwrap();
        }
        assert!(now - begun >= DEFER_ALL_AFTER);
        // What began before the rest ended says nothing.
        throttle.end(Signal::Took, now - MS, 1, now);
        assert_eq!(throttle.limit(), 1);
        throttle.end(Signal::Answered, now, 1, now + MS);
        assert_eq!(
            throttle.end(refused(Cause::TooManyConnections, None), now + 2 * MS, 1, now + 3 * MS),
            Then::GiveBack
        );
        let rest = rest(&mut throttle, now + 3 * MS);
        assert!(rest < 6.0, "{rest}");
    }

    #[test]
    fn a_site_with_too_many_connections_goes_on_with_the_others() {
        let mut now = Instant::now();
        let mut throttle = Throttle::new(20, now);
        for (open, limit) in [(5, 2), (2, 1)] {
            assert_eq!(throttle.end(refused(Cause::TooManyConnections, None), now, open, now), Then::GiveBack);
            assert_eq!((throttle.limit(), rest(&mut throttle, now)), (limit, 0.0));
            now += MS;
        }
        throttle.end(refused(Cause::TooManyConnections, None), now, 1, now);
        assert!(rest(&mut throttle, now) > 4.0, "no other connection is open");
    }

    #[test]
    fn a_site_whose_rate_is_known_rests_shortly_and_keeps_its_window() {
        let mut now = Instant::now();
        let mut throttle = Throttle::new(20, now);
        (0..100).for_each(|_| {
            throttle.end(Signal::Took, now, 20, now);
        });
        throttle.end(refused(Cause::RateLimited, Some(60)), now, 20, now);
        now = throttle.waits_until(now).unwrap();
        throttle.end(Signal::Took, now, 1, now + MS);
        let limit = throttle.limit();
        assert_eq!(limit, 10);
        throttle.end(refused(Cause::RateLimited, None), now + MS, 3, now + 2 * MS);
        assert_eq!(throttle.limit(), limit);
        assert!(rest(&mut throttle, now + 2 * MS) < 6.0);
        assert!(throttle.rate().unwrap() < 98.0);
    }

    #[test]
    fn a_lost_connection_halves_the_window_and_begins_no_rest() {
        let now = Instant::now();
        let mut throttle = Throttle::new(20, now);
        assert_eq!(throttle.end(Signal::Lost, now, 5, now), Then::Settle);
        assert_eq!((throttle.limit(), rest(&mut throttle, now)), (2, 0.0));
    }
}
