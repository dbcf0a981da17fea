//! The ladder itself: from the values of gauges over time to a rung. No I/O, no clock.

use std::time::Duration;

use super::gauge::{Gauge, OverloadOptions, Rung, Values};

/// How long all gauges have to be below the way back of a rung before it is left. One rung is left
/// at a time, so the whole ladder takes six times as long.
pub(super) const HYSTERESIS: Duration = Duration::from_secs(2);

/// Where the relay stands.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    rung: Rung,
    /// The gauge that holds the rung, or held it last.
    cause: Option<Gauge>,
    /// Since when no gauge holds the rung.
    free_since: Option<Duration>,
}

/// A step from one rung to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) was: Rung,
    pub(super) rung: Rung,
    /// The gauge that holds the higher of the two rungs, or held it last.
    pub(super) gauge: Gauge,
    pub(super) value: u64,
}

impl Ladder {
    pub(super) const fn rung(&self) -> Rung {
        self.rung
    }

    /// The gauge that holds the rung, or held it last. `None`: all is calm.
    pub(super) fn cause(&self) -> Option<Gauge> {
        self.cause.filter(|_| self.rung > Rung::Calm)
    }

    /// Climbs at once, to the highest rung that a gauge asks for. Descends one rung when none has
    /// held it for [`HYSTERESIS`]. `now` is the time since any moment.
    pub(super) fn step(&mut self, options: &OverloadOptions, values: &Values, now: Duration) -> Option<Step> {
        let gauges = || Gauge::ALL.into_iter().zip(*values);
        let was = self.rung;
        let asked = |(gauge, value): &(Gauge, u64)| options.of(*gauge).rung(*value);
        // Of gauges that ask for the same rung the first one counts.
        let highest = gauges().rev().max_by_key(asked);
        if let Some((gauge, value)) = highest
            && asked(&(gauge, value)) > was
        {
            (self.rung, self.cause, self.free_since) = (asked(&(gauge, value)), Some(gauge), None);
            return Some(Step { was, rung: self.rung, gauge, value });
        }
        let holds = |rung: Rung| gauges().find(|(gauge, value)| *value >= options.of(*gauge).resume(rung));
        if was == Rung::Calm {
            return None;
        }
        if let Some((gauge, _)) = holds(was) {
            (self.cause, self.free_since) = (Some(gauge), None);
            return None;
        }
        let since = *self.free_since.get_or_insert(now);
        if now.saturating_sub(since) < HYSTERESIS {
            return None;
        }
        self.rung = was.below();
        let below = holds(self.rung).filter(|_| self.rung > Rung::Calm);
        self.free_since = below.is_none().then_some(now);
        let last = self.cause.unwrap_or(Gauge::Memory);
        self.cause = below.map_or(Some(last), |(gauge, _)| Some(gauge));
        let value = gauges().find(|(gauge, _)| *gauge == last).map_or(0, |(_, value)| value);
        Some(Step { was, rung: self.rung, gauge: last, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::gauge::GAUGES;

    /// Steps at these milliseconds with these values of memory and commit latency.
    fn rungs(rows: &[(u64, u64, u64)]) -> Vec<Rung> {
        let (mut ladder, options) = (Ladder::default(), OverloadOptions::default());
        let step = |(at, memory, latency): &(u64, u64, u64)| {
            let mut values = [0; GAUGES];
            (values[Gauge::Memory as usize], values[Gauge::CommitLatency as usize]) = (*memory, *latency);
            ladder.step(&options, &values, Duration::from_millis(*at));
            ladder.rung()
        };
        rows.iter().map(step).collect()
    }

    #[test]
    fn the_rung_follows_the_gauges_over_time() {
        use Rung::{Calm, Closed, Everyone, Heaviest, Newest, Paused, Slower};
        type Row = (u64, u64, u64, Rung);
        let tables: &[(&str, &[Row])] = &[
            (
                "each watermark of memory",
                &[
                    (0, 74, 0, Calm),
                    (1, 75, 0, Slower),
                    (2, 80, 0, Heaviest),
                    (3, 85, 0, Newest),
                    (4, 90, 0, Everyone),
                    (5, 95, 0, Closed),
                    (6, u64::MAX, 0, Closed),
                ],
            ),
            ("at once to the top", &[(0, 0, 15_999, Closed), (1, 0, 16_000, Paused)]),
            ("the highest of two", &[(0, 75, 8_000, Everyone), (1, 95, 8_000, Closed)]),
            (
                "no way back above the resume mark",
                &[
                    (0, 95, 0, Closed),
                    // 95 - 95 / 8.
                    (10_000, 84, 0, Closed),
                    (10_250, 83, 0, Closed),
                    (12_249, 83, 0, Closed),
                    (12_250, 83, 0, Everyone),
                    // 90 - 90 / 8 = 79 holds it.
                    (20_000, 83, 0, Everyone),
                ],
            ),
            (
                "one rung each two seconds",
                &[
                    (0, 0, 20_000, Paused),
                    (100, 0, 0, Paused),
                    (2_099, 0, 0, Paused),
                    (2_100, 0, 0, Closed),
                    (4_099, 0, 0, Closed),
                    (4_100, 0, 0, Everyone),
                    (6_100, 0, 0, Newest),
                    (8_100, 0, 0, Heaviest),
                    (10_100, 0, 0, Slower),
                    (12_099, 0, 0, Slower),
                    (12_100, 0, 0, Calm),
                ],
            ),
            (
                "a gauge that comes back begins the two seconds again",
                &[
                    (0, 90, 0, Everyone),
                    (100, 0, 0, Everyone),
                    (1_900, 85, 0, Everyone),
                    (2_100, 0, 0, Everyone),
                    (4_099, 0, 0, Everyone),
                    (4_100, 0, 0, Newest),
                ],
            ),
            ("a late look leaves one rung", &[(0, 90, 0, Everyone), (1, 0, 0, Everyone), (60_000, 0, 0, Newest)]),
            (
                "another gauge holds a lower rung",
                &[
                    (0, 90, 1_500, Everyone),
                    (1, 0, 1_500, Everyone),
                    (2_001, 0, 1_500, Newest),
                    (4_001, 0, 1_500, Heaviest),
                    (9_000, 0, 1_313, Heaviest),
                ],
            ),
        ];
        for (what, rows) in tables {
            let inputs: Vec<_> = rows.iter().map(|(at, memory, latency, _)| (*at, *memory, *latency)).collect();
            let wanted: Vec<_> = rows.iter().map(|(_, _, _, rung)| *rung).collect();
            assert_eq!(rungs(&inputs), wanted, "{what}");
        }
    }

    #[test]
    fn a_step_names_the_gauge_that_holds_the_higher_rung() {
        let (mut ladder, options) = (Ladder::default(), OverloadOptions::default());
        let mut values = [0; GAUGES];
        let mut step = |memory, depth, at| {
            (values[Gauge::Memory as usize], values[Gauge::Depth as usize]) = (memory, depth);
            let step = ladder.step(&options, &values, Duration::from_secs(at));
            (step.map(|step| (step.rung, step.gauge, step.value)), ladder.cause())
        };
        let (memory, depth) = (Gauge::Memory, Gauge::Depth);
        assert_eq!(step(91, 4_000_000, 0), (Some((Rung::Everyone, memory, 91)), Some(memory)));
        assert_eq!(step(10, 4_000_000, 1), (None, Some(memory)));
        assert_eq!(step(10, 4_000_000, 3), (Some((Rung::Newest, memory, 10)), Some(memory)));
        assert_eq!(step(10, 4_000_000, 5), (Some((Rung::Heaviest, memory, 10)), Some(memory)));
        assert_eq!(step(10, 4_000_000, 7), (Some((Rung::Slower, memory, 10)), Some(depth)));
        assert_eq!(step(10, 0, 8), (None, Some(depth)));
        assert_eq!(step(10, 0, 10), (Some((Rung::Calm, depth, 0)), None));
    }

    /// Random walks of two gauges. The second walk is never below the first.
    #[test]
    fn the_ladder_is_monotone_in_its_gauges_and_never_faster_than_its_hysteresis() {
        let options = OverloadOptions::default();
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut ladders = [Ladder::default(), Ladder::default()];
            let mut now = Duration::ZERO;
            let mut changed = [None; 2];
            for _ in 0..300 {
                now += Duration::from_millis(random.u64(1..1_500));
                let low = [random.u64(0..100), random.u64(0..20_000)];
                let high = [random.u64(low[0]..=100), random.u64(low[1]..=20_000)];
                for (at, given) in [low, high].into_iter().enumerate() {
                    // Quiet times, in which it comes all the way down.
                    let quiet = (now.as_secs() / 40) % 2 == 1;
                    let given = if quiet { given.map(|value| value / 8) } else { given };
                    let mut values = [0; GAUGES];
                    (values[Gauge::Memory as usize], values[Gauge::CommitLatency as usize]) = (given[0], given[1]);
                    let Some(step) = ladders[at].step(&options, &values, now) else { continue };
                    let last: Option<Duration> = changed[at].replace(now);
                    if step.rung < step.was {
                        assert_eq!(step.rung, step.was.below(), "{seed}");
                        assert!(last.is_some_and(|last| now - last >= HYSTERESIS), "{seed}: {step:?}");
                    }
                }
                let [low, high] = &ladders;
                assert!(low.rung() <= high.rung(), "{seed}: {low:?} {high:?}");
            }
        }
    }
}
