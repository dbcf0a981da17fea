//! A clock that stands still until it is told otherwise.

use std::time::Duration;

use posthaste_session::Tick;

/// A virtual clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(Tick);

impl Clock {
    /// What time it is.
    pub const fn now(self) -> Tick {
        self.0
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.0 = self.0 + by;
    }

    /// Goes to a moment, unless that has passed.
    pub fn advance_to(&mut self, moment: Tick) {
        self.0 = self.0.max(moment);
    }
}
