//! How long the client is waited for.

use core::time::Duration;

use crate::Tick;

/// The client's clock. It runs only between a `NeedInput` and the next input.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    /// When the current wait began. `None`: the clock stands still.
    waiting: Option<Tick>,
    /// When the client's turn began, and how long it may take: for a frame, or for more content.
    turn: Option<(Tick, Duration)>,
    /// When the current line began, and how long it may take. More octets of it do not move the
    /// end.
    line: Option<(Tick, Duration)>,
    /// Octets that were shown and not consumed when the wait began.
    shown: usize,
    /// Time waited since the rate of content was checked last.
    waited: Duration,
    /// How far the content may fall behind the minimum rate, in microseconds.
    slack: i64,
    /// Every wait is shortened to a tenth.
    hurried: bool,
}

/// How far content may be behind the minimum rate at its start.
const GRACE: i64 = 60_000_000;
/// How far content may be behind after a burst: fast octets pay for at most this much silence.
const MOST_SLACK: i64 = 300_000_000;
/// The divisor of the waits of a hurried session.
const HURRY: u32 = 10;

impl Timer {
    /// `line`: the time for a line that has begun.
    pub(super) fn wait_for_peer(
        &mut self,
        now: Tick,
        timeout: Duration,
        extend: bool,
        line: Option<Duration>,
        shown: usize,
    ) {
        // A second call without new input gives the client no more time.
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
        // Until it ends, every octet belongs to the handshake.
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

    /// Counts octets of content that arrived.
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

    /// A time of the settings, shortened if the session is hurried.
    pub(super) fn scaled(&self, time: Duration) -> Duration {
        if self.hurried { time / HURRY } else { time }
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.waiting?;
        self.turn.into_iter().chain(self.line).map(|(since, time)| since + self.scaled(time)).min()
    }
}
