//! A clock that moves only when a test moves it.

use std::time::Duration;

use posthaste_session::Tick;

/// A virtual clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(Tick);

impl Clock {
    /// The time.
    pub const fn now(self) -> Tick {
        self.0
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.0 = self.0 + by;
    }

    /// Moves to a moment, unless the moment has passed.
    pub fn advance_to(&mut self, moment: Tick) {
        self.0 = self.0.max(moment);
    }
}
