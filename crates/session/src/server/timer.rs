//! Who is waited for, since when, and until when.

use core::time::Duration;

use crate::Tick;

/// The peer's clock: it runs only between a `NeedInput` and the next input.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    /// Since when, and until when.
    peer: Option<(Tick, Tick)>,
    /// The deadline of a line that has begun: more octets of it do not move it.
    line: Option<Tick>,
    /// How many octets were shown and not consumed when the wait began.
    shown: usize,
    /// For how long the peer was waited for since the content began.
    waited: Duration,
}

/// The minimum rate is looked at after this much waiting.
const RATE_GRACE: Duration = Duration::from_secs(60);

impl Timer {
    pub(super) fn wait_for_peer(&mut self, now: Tick, timeout: Duration, extend: bool, shown: usize) {
        // Asking again without new input gives the peer no more time.
        if self.peer.is_some() {
            return;
        }
        let deadline = match self.line {
            Some(deadline) if !extend => deadline,
            _ => now + timeout,
        };
        self.line = Some(deadline);
        self.peer = Some((now, deadline));
        self.shown = shown;
    }

    pub(super) fn wait_for_handshake(&mut self, now: Tick, timeout: Duration) {
        self.peer = Some((now, now + timeout));
        // What comes is none of ours until it is over.
        self.shown = 0;
    }

    pub(super) fn handshake_ended(&mut self) {
        self.peer = None;
    }

    pub(super) fn input_arrived(&mut self, now: Tick, shown: usize) {
        if let (Some((since, _)), true) = (self.peer, shown > self.shown) {
            self.waited = self.waited.saturating_add(now.since(since));
            self.peer = None;
        }
    }

    pub(super) fn frame_ended(&mut self) {
        self.line = None;
    }

    pub(super) fn content_starts(&mut self) {
        self.waited = Duration::ZERO;
    }

    pub(super) fn content_is_too_slow(&self, octets: u64, minimum_rate: u32) -> bool {
        self.waited > RATE_GRACE && octets / self.waited.as_secs().max(1) < u64::from(minimum_rate)
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.peer.map(|(_, deadline)| deadline)
    }
}
