//! What is measured, and from which value on it counts.

use std::fmt;

/// Something that an overloaded relay runs short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Gauge {
    /// Memory in use, in percent of the limit. The application
    /// [reports](crate::Overload::report) it: a library reads no file of the machine.
    Memory,
    /// Bytes that the queue keeps back on its disk, in percent of those that are free
    /// ([`Stats::disk_pressure`](posthaste_queue::Stats::disk_pressure)).
    Disk,
    /// The same for files ([`Stats::files_pressure`](posthaste_queue::Stats::files_pressure)).
    Inodes,
    /// Open files, in percent of the limit. The application reports it.
    Descriptors,
    /// Deliveries in the queue.
    Depth,
    /// Deliveries that run.
    Active,
    /// Milliseconds that a commit to the queue takes: the moving average, or the time for which
    /// none has ended, if that is longer.
    CommitLatency,
}

/// How much of the work an overloaded relay does. Each rung does what those below it do, and more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// All of it.
    #[default]
    Calm,
    /// MAIL of owners who send more than the mean waits, up to a second.
    Slower,
    /// MAIL of the heaviest owners is refused: 452 4.3.1.
    Heaviest,
    /// So is MAIL of owners that are new.
    Newest,
    /// So is every MAIL.
    Everyone,
    /// New connections are refused: 421 4.3.2.
    Closed,
    /// No delivery begins.
    Paused,
}

/// The values of one gauge from which on each rung counts. A gauge below 7/8 of a watermark no
/// longer holds that rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watermarks {
    /// That of [`Rung::Slower`].
    pub slower: u64,
    /// That of [`Rung::Heaviest`].
    pub heaviest: u64,
    /// That of [`Rung::Newest`].
    pub newest: u64,
    /// That of [`Rung::Everyone`].
    pub everyone: u64,
    /// That of [`Rung::Closed`].
    pub closed: u64,
    /// That of [`Rung::Paused`].
    pub paused: u64,
}

/// The watermarks of the [overload ladder](crate::overload_ladder). Make them with
/// [`default`](Self::default), then assign fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverloadOptions {
    /// Of [`Gauge::Memory`], in percent. Default: 75, 80, 85, 90, 95, never.
    pub memory: Watermarks,
    /// Of [`Gauge::Disk`], in percent. Default: 50, 65, 80, 100, never, never. At 100 the queue
    /// itself refuses messages.
    pub disk: Watermarks,
    /// Of [`Gauge::Inodes`], in percent. Default: those of the disk.
    pub inodes: Watermarks,
    /// Of [`Gauge::Descriptors`], in percent. Default: 80, 85, 90, 93, 95, never.
    pub descriptors: Watermarks,
    /// Of [`Gauge::Depth`], in deliveries. Default: 4, 5, 6 and 8 million, never, never. The queue
    /// holds as many on some 10 GiB.
    pub depth: Watermarks,
    /// Of [`Gauge::Active`], in deliveries. Default: never. It tells how busy the relay is, which
    /// [`concurrency`](crate::DeliveryOptions::concurrency) bounds.
    pub active: Watermarks,
    /// Of [`Gauge::CommitLatency`], in milliseconds. Default: 1,000, 1,500, 4,000, 8,000, 12,000,
    /// 16,000. A client waits some minutes for the reply to its message.
    pub commit_latency: Watermarks,
}

/// The number of gauges.
pub(super) const GAUGES: usize = Gauge::ALL.len();

/// The value of each gauge, in the order of [`Gauge::ALL`].
pub(super) type Values = [u64; GAUGES];

impl Gauge {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Memory, Self::Disk, Self::Inodes, Self::Descriptors, Self::Depth, Self::Active, Self::CommitLatency];

    /// Its name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::Descriptors => "descriptors",
            Self::Depth => "depth",
            Self::Active => "active",
            Self::CommitLatency => "commit_latency",
        }
    }
}

impl Rung {
    /// All of them, from below.
    pub const ALL: [Self; 7] =
        [Self::Calm, Self::Slower, Self::Heaviest, Self::Newest, Self::Everyone, Self::Closed, Self::Paused];

    /// Its name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Slower => "slower",
            Self::Heaviest => "heaviest",
            Self::Newest => "newest",
            Self::Everyone => "everyone",
            Self::Closed => "closed",
            Self::Paused => "paused",
        }
    }

    /// The rung of this number, counted from 0.
    pub(super) fn of(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    pub(super) fn below(self) -> Self {
        Self::of((self as u8).saturating_sub(1))
    }
}

impl fmt::Display for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Watermarks {
    /// The gauge climbs no rung.
    pub const NEVER: Self = Self::of([u64::MAX; 6]);

    const fn of([slower, heaviest, newest, everyone, closed, paused]: [u64; 6]) -> Self {
        Self { slower, heaviest, newest, everyone, closed, paused }
    }

    /// The same watermarks in proportion, so that every MAIL is refused from this value on. Those
    /// that are never reached stay so.
    #[must_use]
    pub fn refusing_at(self, everyone: u64) -> Self {
        let scaled = |mark: u64| match mark {
            u64::MAX => u64::MAX,
            mark => {
                let scaled = u128::from(mark) * u128::from(everyone) / u128::from(self.everyone.max(1));
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
        };
        let Self { slower, heaviest, newest, everyone, closed, paused } = self;
        Self::of([slower, heaviest, newest, everyone, closed, paused].map(scaled))
    }

    /// The value from which on a rung counts. `u64::MAX`: it never does.
    pub const fn mark(&self, rung: Rung) -> u64 {
        match rung {
            Rung::Calm => 0,
            Rung::Slower => self.slower,
            Rung::Heaviest => self.heaviest,
            Rung::Newest => self.newest,
            Rung::Everyone => self.everyone,
            Rung::Closed => self.closed,
            Rung::Paused => self.paused,
        }
    }

    /// The value below which a rung is left: 7/8 of its watermark.
    pub const fn resume(&self, rung: Rung) -> u64 {
        let mark = self.mark(rung);
        mark - mark / 8
    }

    /// The rung for a value.
    pub(super) fn rung(&self, value: u64) -> Rung {
        let reached = |rung: &Rung| value >= self.mark(*rung) && self.mark(*rung) < u64::MAX;
        Rung::ALL.into_iter().rfind(reached).unwrap_or_default()
    }

    /// A value between the first two watermarks, in percent of their distance.
    pub(super) fn depth_into_slower(&self, value: u64) -> u64 {
        let (above, distance) = (value.saturating_sub(self.slower), self.heaviest.saturating_sub(self.slower));
        above.saturating_mul(100).checked_div(distance).unwrap_or(100).min(100)
    }
}

impl OverloadOptions {
    /// The watermarks of a gauge.
    pub const fn of(&self, gauge: Gauge) -> &Watermarks {
        match gauge {
            Gauge::Memory => &self.memory,
            Gauge::Disk => &self.disk,
            Gauge::Inodes => &self.inodes,
            Gauge::Descriptors => &self.descriptors,
            Gauge::Depth => &self.depth,
            Gauge::Active => &self.active,
            Gauge::CommitLatency => &self.commit_latency,
        }
    }
}

impl Default for OverloadOptions {
    fn default() -> Self {
        const NEVER: u64 = u64::MAX;
        let disk = Watermarks::of([50, 65, 80, 100, NEVER, NEVER]);
        Self {
            memory: Watermarks::of([75, 80, 85, 90, 95, NEVER]),
            disk,
            inodes: disk,
            descriptors: Watermarks::of([80, 85, 90, 93, 95, NEVER]),
            depth: Watermarks::of([4_000_000, 5_000_000, 6_000_000, 8_000_000, NEVER, NEVER]),
            active: Watermarks::NEVER,
            commit_latency: Watermarks::of([1_000, 1_500, 4_000, 8_000, 12_000, 16_000]),
        }
    }
}
