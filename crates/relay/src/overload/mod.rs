//! What the relay does when it is offered more than it can do: see `OVERLOAD.md` beside the
//! manifest, which is the module [`overload_ladder`](crate::overload_ladder) of the docs.

mod commits;
mod gauge;
mod ladder;
mod owners;
#[cfg(test)]
mod tests;

use std::{
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use posthaste_queue::{Queue, Stats};
use posthaste_server::{Peer, Refusal, refusal};
use tokio::{sync::Notify, time::Instant};

use crate::{Event, RelayOptions, event::Counting, shared::Shared};
pub(crate) use commits::Commit;
use commits::Commits;
use gauge::{GAUGES, Values};
pub use gauge::{Gauge, OverloadOptions, Rung, Watermarks};
use ladder::Ladder;
pub(crate) use owners::OwnerHash;
use owners::Owners;

/// How overloaded a relay is: [`Relay::overload`](crate::Relay::overload).
///
/// The relay measures its queue by itself, at most four times a second, while it takes mail or is
/// overloaded. Memory and open files are for the application to [report](Self::report).
#[derive(Debug)]
pub struct Overload {
    /// Those of the relay, which may change.
    options: Arc<ArcSwap<RelayOptions>>,
    events: Arc<Counting>,
    begun: Instant,
    /// The rung, for those who cannot wait.
    rung: AtomicU8,
    ladder: Mutex<Ladder>,
    values: [AtomicU64; GAUGES],
    commits: Commits,
    owners: Owners,
    /// The millisecond from which on the queue is measured again.
    due: AtomicU64,
    /// How long MAIL of an owner above the mean waits, in milliseconds.
    wait: AtomicU32,
    /// Notified when the relay becomes overloaded.
    climbed: Notify,
    /// Notified when deliveries may begin again.
    resumed: Notify,
    slowed: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

/// Where a relay stands on the ladder, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverloadState {
    /// What it does of its work.
    pub rung: Rung,
    /// The gauge that holds the rung, or held it last, with its value and its watermarks. `None`:
    /// all is [calm](Rung::Calm).
    pub cause: Option<OverloadCause>,
    /// MAIL commands that had to wait, since the start.
    pub slowed: u64,
    /// MAIL commands that were refused, since the start.
    pub refused: u64,
    /// Connections that were refused, since the start.
    pub closed: u64,
}

/// The gauge that holds a rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverloadCause {
    /// The gauge.
    pub gauge: Gauge,
    /// Its value, in its unit.
    pub value: u64,
    /// Its watermarks.
    pub watermarks: Watermarks,
}

/// How often the queue is measured.
const INTERVAL: Duration = Duration::from_millis(250);
/// A queue that takes long for its statistics is asked less often: they take a twentieth of the
/// time at most.
const EASE: u32 = 19;
/// But at least this often.
const SELDOM: Duration = Duration::from_secs(60);
/// When the queue is asked again if the caller that has asked it has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// The shortest and the longest time for which MAIL waits, in milliseconds. It grows between the
/// watermarks of [`Rung::Slower`] and [`Rung::Heaviest`].
const WAITS: [u64; 2] = [50, 1_000];

const BUSY: Refusal = refusal!("452 4.3.1 Overloaded, try again later");
const CLOSED: Refusal = refusal!("421 4.3.2 Overloaded, try again later");

impl Overload {
    pub(crate) fn new(options: Arc<ArcSwap<RelayOptions>>, events: Arc<Counting>) -> Self {
        let begun = Instant::now();
        let [slowed, refused, closed, due] = Default::default();
        Self {
            options,
            events,
            begun,
            rung: AtomicU8::new(0),
            ladder: Mutex::default(),
            values: Default::default(),
            commits: Commits::new(begun),
            owners: Owners::default(),
            due,
            wait: AtomicU32::new(0),
            climbed: Notify::new(),
            resumed: Notify::new(),
            slowed,
            refused,
            closed,
        }
    }

    /// Takes the value of a gauge that the relay cannot measure: [`Gauge::Memory`] or
    /// [`Gauge::Descriptors`]. It counts until the next one, so report it every quarter of a
    /// second. A value of another gauge counts until the relay measures it.
    pub fn report(&self, gauge: Gauge, value: u64) {
        self.set(gauge, value);
        self.evaluate();
    }

    /// Where the relay stands now.
    pub fn state(&self) -> OverloadState {
        self.evaluate();
        let cause = self.ladder().cause().map(|gauge| {
            let value = self.values.get(gauge as usize).map_or(0, |value| value.load(Relaxed));
            OverloadCause { gauge, value, watermarks: *self.options.load().overload.of(gauge) }
        });
        OverloadState {
            rung: self.rung(),
            cause,
            slowed: self.slowed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            closed: self.closed.load(Relaxed),
        }
    }

    /// The rung as it was last found.
    pub(crate) fn rung(&self) -> Rung {
        Rung::of(self.rung.load(Relaxed))
    }

    /// Returns `true` while no delivery may begin.
    pub(crate) fn pauses(&self) -> bool {
        self.rung() == Rung::Paused
    }

    /// Waits until deliveries may begin again that could not.
    pub(crate) async fn resumed(&self) {
        self.resumed.notified().await;
    }

    /// A user, or the network of a client without a login.
    pub(crate) fn owner(&self, peer: &Peer) -> OwnerHash {
        match &peer.identity {
            Some(identity) => self.owners.owner(named(identity)),
            None => self.owners.owner(peer.network),
        }
    }

    /// Decides about a MAIL. `Ok`: how long it has to wait. LMTP never waits: it is the last hop of
    /// mail that others have taken already.
    pub(crate) fn admit(&self, owner: impl FnOnce() -> OwnerHash, is_lmtp: bool) -> Result<Duration, Refusal> {
        let rung = self.rung();
        if rung == Rung::Calm {
            return Ok(Duration::ZERO);
        }
        let load = self.owners.load(owner(), self.begun.elapsed());
        let is_refused = match rung {
            Rung::Calm | Rung::Slower => false,
            Rung::Heaviest => load.is_heavy,
            Rung::Newest => load.is_heavy || load.is_new,
            Rung::Everyone | Rung::Closed | Rung::Paused => true,
        };
        if is_refused {
            self.refused.fetch_add(1, Relaxed);
            return Err(BUSY);
        }
        if is_lmtp || !load.is_above_mean {
            return Ok(Duration::ZERO);
        }
        self.slowed.fetch_add(1, Relaxed);
        Ok(Duration::from_millis(self.wait.load(Relaxed).into()))
    }

    /// Decides about a new connection.
    pub(crate) fn admit_connection(&self) -> Result<(), Refusal> {
        if self.rung() < Rung::Closed {
            return Ok(());
        }
        self.closed.fetch_add(1, Relaxed);
        Err(CLOSED)
    }

    /// Counts a message that was accepted.
    pub(crate) fn accepted(&self, owner: OwnerHash, octets: u64) {
        self.owners.add(owner, octets, self.begun.elapsed());
    }

    /// Begins to time a commit.
    pub(crate) fn commit(&self) -> Commit<'_> {
        self.commits.begin()
    }

    /// Returns `true` to one caller if the queue is to be measured.
    fn is_due(&self) -> bool {
        let (due, now) = (self.due.load(Relaxed), self.begun.elapsed());
        milliseconds(now) >= due
            && self.due.compare_exchange(due, milliseconds(now + PATIENCE), Relaxed, Relaxed).is_ok()
    }

    /// Takes what the queue has said, which took it this time.
    fn measure(&self, stats: &Stats, took: Duration) {
        let pause = took.saturating_mul(EASE).clamp(INTERVAL, SELDOM);
        self.due.store(milliseconds(self.begun.elapsed() + pause), Relaxed);
        let values = [
            (Gauge::Disk, stats.disk_pressure),
            (Gauge::Inodes, stats.files_pressure),
            (Gauge::Depth, stats.deliveries),
            (Gauge::Active, stats.leased),
        ];
        values.into_iter().for_each(|(gauge, value)| self.set(gauge, value));
        self.evaluate();
    }

    /// Finds the rung for what is known, and tells if it is another one.
    fn evaluate(&self) {
        let now = Instant::now();
        self.set(Gauge::CommitLatency, self.commits.latency(now));
        let passed = now.saturating_duration_since(self.begun);
        let options = self.options.load();
        let options = &options.overload;
        let step = {
            let mut ladder = self.ladder();
            let values: Values = std::array::from_fn(|at| self.values.get(at).map_or(0, |value| value.load(Relaxed)));
            let step = ladder.step(options, &values, passed);
            if ladder.rung() > Rung::Calm {
                self.owners.sum(passed);
                self.wait.store(wait_at(options, &ladder, &values), Relaxed);
            }
            self.rung.store(ladder.rung() as u8, Relaxed);
            step
        };
        let Some(step) = step else { return };
        let ladder::Step { was, rung, gauge, value } = step;
        let watermark = options.of(gauge).mark(was.max(rung));
        self.events.observe(&Event::Overload { rung, was, gauge, value, watermark });
        if was == Rung::Paused {
            self.resumed.notify_one();
        }
        if was == Rung::Calm {
            self.climbed.notify_one();
        }
    }

    fn set(&self, gauge: Gauge, value: u64) {
        if let Some(slot) = self.values.get(gauge as usize) {
            slot.store(value, Relaxed);
        }
    }

    fn ladder(&self) -> std::sync::MutexGuard<'_, Ladder> {
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long MAIL of an owner above the mean waits.
fn wait_at(options: &OverloadOptions, ladder: &Ladder, values: &Values) -> u32 {
    let percent = match (ladder.rung(), ladder.cause()) {
        (Rung::Slower, Some(gauge)) => {
            options.of(gauge).depth_into_slower(values.get(gauge as usize).copied().unwrap_or_default())
        }
        _ => 100,
    };
    let [shortest, longest] = WAITS;
    u32::try_from(shortest + (longest - shortest) * percent / 100).unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// No identity is equal to a network.
fn named(identity: &str) -> impl Hash {
    ("identity", identity)
}

impl<Q: Queue, R> Shared<Q, R> {
    /// Measures the queue, if that was not done lately.
    pub(crate) async fn measure(&self) {
        if self.overload.is_due() {
            let begun = Instant::now();
            // A box, so that a question that asks for none has no room for it.
            let stats = Box::pin(self.queue.stats()).await;
            self.overload.measure(&stats, begun.elapsed());
        }
    }

    /// Measures on while the relay is overloaded: it may get no mail that would do so. It wakes up
    /// at no other time, and never ends.
    pub(crate) async fn watch_overload(&self) {
        loop {
            self.overload.climbed.notified().await;
            while self.overload.rung() > Rung::Calm {
                tokio::time::sleep(INTERVAL).await;
                self.measure().await;
            }
        }
    }
}
