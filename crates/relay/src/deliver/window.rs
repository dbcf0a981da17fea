//! How many connections a site may have at once: few at first, more while it takes mail, half when
//! it does not.

use std::time::Duration;

use tokio::time::Instant;

/// Connections to a site that is not known.
const FIRST: usize = 5;
/// How long a window does not grow after a cut. For each cut in a row, it is as long again before
/// the window grows beyond what fitted.
const CALM: Duration = Duration::from_secs(5);
/// The longest time of this kind.
const MOST_CALM: Duration = Duration::from_secs(300);
/// After this time without a cut, the next cut is the first in a row again.
const FORGET: Duration = Duration::from_secs(300);

/// The connections that a site may have. Begins at 5, or at the ceiling if that is lower; never
/// below 1.
#[derive(Debug)]
pub(super) struct Window {
    now: usize,
    most: usize,
    /// Messages that were taken since the window grew last. It grows after as many as it has room
    /// for.
    taken: usize,
    /// It grows with each message that is taken. Ends with the first cut.
    starts: bool,
    cut: Option<Instant>,
    cuts: u32,
    /// The connections that fitted at the last cut.
    fits: usize,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { now: FIRST.min(most), most, taken: 0, starts: true, cut: None, cuts: 0, fits: 0 }
    }

    /// Changes the most that it may become.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.max(1);
        self.now = self.now.min(self.most);
    }

    pub(super) const fn limit(&self) -> usize {
        self.now
    }

    /// Takes note that the site took a message of work that began then. The window grows only if
    /// this many `open` connections need it.
    pub(super) fn took(&mut self, begun: Instant, open: usize, now: Instant) {
        if self.now >= self.most || open < self.now || self.is_of_old(begun) || self.is_calm(now) {
            return;
        }
        self.taken += 1;
        if self.starts || self.taken >= self.now {
            (self.now, self.taken) = (self.now + 1, 0);
        }
    }

    /// Cuts the window to half of the open connections. Work that began before the last cut says
    /// nothing new. Returns `true` if it was cut. This many connections `fit`: the site has said
    /// so.
    pub(super) fn cut(&mut self, begun: Instant, open: usize, fit: usize, now: Instant) -> bool {
        if self.is_of_old(begun) {
            return false;
        }
        let is_in_row = self.cut.is_some_and(|at| now.saturating_duration_since(at) < FORGET);
        self.cuts = if is_in_row { self.cuts.saturating_add(1) } else { 1 };
        self.cut = Some(now);
        (self.starts, self.taken, self.fits) = (false, 0, fit);
        self.now = (open.min(self.now) / 2).max(1);
        true
    }

    fn is_of_old(&self, begun: Instant) -> bool {
        self.cut.is_some_and(|at| begun <= at)
    }

    fn is_calm(&self, now: Instant) -> bool {
        let times = if self.now < self.fits { 1 } else { self.cuts };
        let calm = CALM.saturating_mul(times).min(MOST_CALM);
        self.cut.is_some_and(|at| now.saturating_duration_since(at) < calm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_reaches_its_ceiling_within_some_dozens_of_messages() {
        let (mut window, begun) = (Window::new(20), Instant::now());
        let taken = (0..100).take_while(|_| {
            let limit = window.limit();
            window.took(begun, limit, begun);
            limit < 20
        });
        assert_eq!(taken.count(), 15);
        assert_eq!(window.limit(), 20);
        assert_eq!(Window::new(3).limit(), 3);
        assert_eq!(Window::new(0).limit(), 1);
    }

    #[test]
    fn a_window_that_is_not_full_does_not_grow() {
        let (mut window, now) = (Window::new(20), Instant::now());
        for _ in 0..100 {
            window.took(now, 4, now);
        }
        assert_eq!(window.limit(), 5);
    }

    #[test]
    fn a_flight_cuts_the_window_once_and_never_below_one() {
        let (mut window, begun) = (Window::new(20), Instant::now());
        for _ in 0..15 {
            window.took(begun, 20, begun);
        }
        for open in (1..=20).rev() {
            window.cut(begun, open, 0, begun + MS);
        }
        assert_eq!(window.limit(), 10);
        let mut now = begun + MS;
        for limit in [5, 2, 1, 1] {
            now += MS;
            assert!(window.cut(now, window.limit(), 0, now + MS));
            now += MS;
            assert_eq!(window.limit(), limit);
        }
    }

    #[test]
    fn a_window_grows_again_after_a_calm_and_by_one_a_window() {
        let (mut window, begun) = (Window::new(20), Instant::now());
        window.cut(begun, 5, 0, begun);
        assert_eq!(window.limit(), 2);
        // Messages of before the cut, and in the calm, do not count.
        for (begun, now) in [(begun, begun + CALM), (begun + MS, begun + CALM - MS)] {
            (0..10).for_each(|_| window.took(begun, 2, now));
        }
        assert_eq!(window.limit(), 2);
        let mut grew = Vec::new();
        for count in 1..=9 {
            let limit = window.limit();
            window.took(begun + MS, limit, begun + CALM);
            if window.limit() > limit {
                grew.push(count);
            }
        }
        assert_eq!(grew, [2, 5, 9]);
    }

    #[test]
    fn the_calm_grows_with_the_cuts_in_a_row() {
        let (mut window, mut now) = (Window::new(20), Instant::now());
        window.cut(now, 5, 0, now);
        window.cut(now + MS, 5, 0, now + MS);
        now += MS;
        for (after, grows) in [(CALM, false), (CALM * 2, true)] {
            let limit = window.limit();
            (0..limit).for_each(|_| window.took(now + MS, limit, now + after));
            assert_eq!(window.limit() > limit, grows);
        }
        // The row ends after some minutes.
        now += FORGET;
        window.cut(now + MS, 5, 0, now + MS);
        let limit = window.limit();
        (0..limit).for_each(|_| window.took(now + 2 * MS, limit, now + MS + CALM));
        assert!(window.limit() > limit);
    }

    #[test]
    fn a_window_grows_up_to_what_fitted_after_one_calm() {
        let (mut window, begun) = (Window::new(20), Instant::now());
        (0..15).for_each(|_| window.took(begun, 20, begun));
        window.cut(begun, 9, 8, begun);
        window.cut(begun + MS, 9, 8, begun + MS);
        assert_eq!(window.limit(), 2);
        for (after, limit) in [(CALM, 8), (CALM + MS, 8), (CALM * 2 + MS, 20)] {
            for _ in 0..1_000 {
                let open = window.limit();
                window.took(begun + 2 * MS, open, begun + MS + after);
            }
            assert_eq!(window.limit(), limit, "{after:?}");
        }
    }
}
