//! The clock of a session.

use std::time::SystemTime;

use posthaste_session::Tick;
use tokio::time::Instant;

/// A monotonic clock whose origin is the start of a connection. It follows tokio's clock, also when
/// a test pauses that.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time in the session's form.
    pub fn now(&self) -> Tick {
        Tick::new(self.0.elapsed())
    }

    /// The wall-clock time, in seconds since 1970-01-01T00:00:00Z. 0: the system's clock is
    /// earlier.
    pub fn unix_seconds() -> i64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
    }

    /// A session's deadline in tokio's form.
    pub fn instant(&self, tick: Tick) -> Instant {
        // A deadline beyond the range of the clock: a year, which is never.
        self.0.checked_add(tick.since_origin()).unwrap_or_else(|| self.0 + std::time::Duration::from_secs(86_400 * 365))
    }
}
