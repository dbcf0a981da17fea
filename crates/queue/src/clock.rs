//! Where an engine takes the time from.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The two clocks of an engine.
///
/// A running engine goes by the monotonic clock. Only records on the disk carry wall time, because
/// nothing else survives a restart.
pub trait Clock: Send + Sync + 'static {
    /// Time since an origin that the clock chooses. Never goes back.
    fn now(&self) -> Duration;

    /// The wall clock. May jump in either direction.
    fn wall(&self) -> SystemTime;

    /// Registers `wake`, to be called whenever the clock jumps. A clock that only ticks may ignore
    /// it.
    fn on_jump(&self, wake: Wake) {
        drop(wake);
    }
}

/// Wakes an engine after its clock has jumped. Returns `false` if the engine is gone: then it need
/// not be called again.
pub type Wake = Box<dyn Fn() -> bool + Send + Sync>;

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

/// A clock that stands still until a test moves it.
///
/// Clones share the time.
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Mutex<Manual>>,
}

struct Manual {
    now: Duration,
    wall: SystemTime,
    wakes: Vec<Wake>,
}

impl SystemClock {
    /// Starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl ManualClock {
    /// Starts with the monotonic clock at zero and the wall clock at `wall`.
    #[must_use]
    pub fn new(wall: SystemTime) -> Self {
        Self { shared: Arc::new(Mutex::new(Manual { now: Duration::ZERO, wall, wakes: Vec::new() })) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut manual = self.lock();
        manual.now = manual.now.saturating_add(by);
        manual.wall = manual.wall.checked_add(by).unwrap_or(manual.wall);
        manual.wakes.retain(|wake| wake());
    }

    /// Sets the wall clock alone, as an operator or a time server does.
    pub fn set_wall(&self, wall: SystemTime) {
        let mut manual = self.lock();
        manual.wall = wall;
        manual.wakes.retain(|wake| wake());
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// Starts on 9 September 2001 at 01:46:40 UTC.
    fn default() -> Self {
        Self::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn wall(&self) -> SystemTime {
        self.lock().wall
    }

    fn on_jump(&self, wake: Wake) {
        self.lock().wakes.push(wake);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manual = self.lock();
        f.debug_struct("ManualClock").field("now", &manual.now).field("wall", &manual.wall).finish_non_exhaustive()
    }
}
