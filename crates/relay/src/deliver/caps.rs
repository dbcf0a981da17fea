//! The configured limits of a site over time. What it has taught is
//! [`Throttle`](super::throttle::Throttle).

use tokio::time::Instant;

use super::bucket::Bucket;
use crate::SiteLimits;

/// What a site has had of what it may get. Without limits this does nothing.
#[derive(Debug)]
pub(super) struct Caps {
    limits: SiteLimits,
    connects: Option<Bucket>,
    messages: Option<Bucket>,
    recipients: Option<Bucket>,
}

impl Caps {
    pub(super) fn new(limits: SiteLimits, now: Instant) -> Self {
        let bucket = |rate: Option<_>| rate.map(|rate| Bucket::new(rate, now));
        let (connects, messages, recipients) =
            (bucket(limits.connects), bucket(limits.messages), bucket(limits.recipients));
        Self { limits, connects, messages, recipients }
    }

    /// Takes other limits over. What the site has had still counts.
    pub(super) fn set(&mut self, limits: SiteLimits, now: Instant) {
        Bucket::set(&mut self.connects, limits.connects, now);
        Bucket::set(&mut self.messages, limits.messages, now);
        Bucket::set(&mut self.recipients, limits.recipients, now);
        self.limits = limits;
    }

    pub(super) const fn limits(&self) -> &SiteLimits {
        &self.limits
    }

    /// When the next message may begin. `connects`: it needs a new connection. `None`: now.
    pub(super) fn waits_until(&self, connects: bool, now: Instant) -> Option<Instant> {
        let connects = self.connects.as_ref().filter(|_| connects);
        let buckets = [connects, self.messages.as_ref(), self.recipients.as_ref()];
        buckets.into_iter().flatten().filter_map(|bucket| bucket.waits_until(now)).max()
    }

    /// Returns `true` if a connection may be made now.
    pub(super) fn may_connect(&self, now: Instant) -> bool {
        self.connects.as_ref().is_none_or(|connects| connects.waits_until(now).is_none())
    }

    /// A message begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if let Some(messages) = &mut self.messages {
            messages.take(1, now);
        }
    }

    /// There was no message to begin.
    pub(super) fn give_back(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.give_back();
        }
    }

    /// The message that has begun has this number of recipients.
    pub(super) fn name(&mut self, recipients: usize, now: Instant) {
        if let Some(bucket) = &mut self.recipients {
            bucket.take(u32::try_from(recipients).unwrap_or(u32::MAX), now);
        }
    }

    /// A connection is begun. Returns `true` if that is counted.
    pub(super) fn connect(&mut self, now: Instant) -> bool {
        self.connects.as_mut().map(|connects| connects.take(1, now)).is_some()
    }

    /// The connection was not needed.
    pub(super) fn not_connected(&mut self) {
        if let Some(connects) = &mut self.connects {
            connects.give_back();
        }
    }
}
