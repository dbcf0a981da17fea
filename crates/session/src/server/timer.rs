//! Who is waited for, since when, and until when.

use core::time::Duration;

use crate::Tick;

/// The peer's clock: it runs only between a `NeedInput` and the next input.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    /// Since when it runs.
    waiting: Option<Tick>,
    /// Since when the peer has the turn, and for how long: for a frame, or for the next octets of content.
    turn: Option<(Tick, Duration)>,
    /// Since when a line has begun, and how long it may take: more octets of it move nothing.
    line: Option<(Tick, Duration)>,
    /// How many octets were shown and not consumed when the wait began.
    shown: usize,
    /// For how long the peer was waited for since content was last looked at.
    waited: Duration,
    /// How much longer than the minimum rate allows the content may take, in microseconds.
    slack: i64,
    /// Everything has a tenth of its time.
    hurried: bool,
}

/// What content may lag behind the minimum rate at its start.
const GRACE: i64 = 60_000_000;
/// What content may lag behind after it has come fast for a while: the octets of a burst last for no longer.
const MOST_SLACK: i64 = 300_000_000;
/// What a hurried session divides its times by.
const HURRY: u32 = 10;

impl Timer {
    /// `line` is the time for a line of which there are octets.
    pub(super) fn wait_for_peer(
        &mut self,
        now: Tick,
        timeout: Duration,
        extend: bool,
        line: Option<Duration>,
        shown: usize,
    ) {
        // Asking again without new input gives the peer no more time.
        if self.waiting.is_some() {
            return;
        }
        if extend || self.turn.is_none() {
            self.turn = Some((now, timeout));
        }
        if let Some(timeout) = line {
            self.line.get_or_insert((now, timeout));
        }
        self.waiting = Some(now);
        self.shown = shown;
    }

    pub(super) fn wait_for_handshake(&mut self, now: Tick, timeout: Duration) {
        self.turn = Some((now, timeout));
        self.line = None;
        self.waiting = Some(now);
        // What comes is none of ours until it is over.
        self.shown = 0;
    }

    pub(super) fn handshake_ended(&mut self) {
        self.waiting = None;
        self.frame_ended();
    }

    pub(super) fn input_arrived(&mut self, now: Tick, shown: usize) {
        if let (Some(since), true) = (self.waiting, shown > self.shown) {
            self.waited = self.waited.saturating_add(now.since(since));
            self.waiting = None;
        }
    }

    pub(super) fn frame_ended(&mut self) {
        self.turn = None;
        self.line = None;
    }

    pub(super) fn content_starts(&mut self) {
        self.waited = Duration::ZERO;
        self.slack = GRACE;
    }

    /// Counts octets of content that have come.
    pub(super) fn content_is_too_slow(&mut self, octets: u64, minimum_rate: u32) -> bool {
        let rate = u64::from(minimum_rate).saturating_mul(if self.hurried { HURRY.into() } else { 1 });
        let waited = i64::try_from(core::mem::take(&mut self.waited).as_micros()).unwrap_or(i64::MAX);
        let Some(earned) = octets.saturating_mul(1_000_000).checked_div(rate) else { return false };
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.slack = self.slack.saturating_sub(waited).saturating_add(earned).min(MOST_SLACK);
        self.slack < 0
    }

    pub(super) const fn hurry(&mut self, hurried: bool) {
        self.hurried = hurried;
    }

    /// A time of the settings, as this session has it.
    pub(super) fn scaled(&self, time: Duration) -> Duration {
        if self.hurried { time / HURRY } else { time }
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.waiting?;
        self.turn.into_iter().chain(self.line).map(|(since, time)| since + self.scaled(time)).min()
    }
}
