//! The clock of a session.

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

    /// A session's deadline in tokio's form.
    pub fn instant(&self, tick: Tick) -> Instant {
        // A deadline beyond the range of the clock: a year, which is never.
        self.0.checked_add(tick.since_origin()).unwrap_or_else(|| self.0 + std::time::Duration::from_secs(86_400 * 365))
    }
}
