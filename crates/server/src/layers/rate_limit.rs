//! Connections, messages and recipients in a time.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::seconds;
use crate::{
    Context, Layer, Refusal,
    content::after,
    expiring::Expiring,
    refusal,
    wire::{Mail, Rcpt},
};

/// Limits how much a client may do in a time, with a token bucket for each client.
///
/// ```
/// # use std::time::Duration;
/// use posthaste_server::layers::RateLimit;
/// let minute = Duration::from_secs(60);
/// let connections = RateLimit::connections(30, minute);
/// // Users alone.
/// let of_users = RateLimit::messages(500, 60 * minute).by(|cx| cx.peer.identity.clone());
/// // Clients by network, except those of ours.
/// # fn ours() -> Result<RateLimit, posthaste_server::NetworkSetError> {
/// # let minute = Duration::from_secs(60);
/// let ours: posthaste_server::NetworkSet = "10.0.0.0/8".parse()?;
/// let of_strangers = RateLimit::messages(100, 60 * minute).by(move |cx| {
///     (!ours.contains(cx.peer.address.ip_or_loopback())).then_some(cx.peer.network)
/// });
/// # Ok(of_strangers) }
/// ```
///
/// A full bucket allows its number at once. It fills evenly: one more is allowed after the period
/// divided by the number. The refusal says when. The number 0 allows none, and the refusal then
/// names the period. What is refused here takes nothing from the
/// bucket, and what the wrapped handler refuses does.
///
/// A bucket belongs to the identity of a client that has logged in, and else to its
/// [network](crate::Peer::network); [`by`](Self::by) changes that. Clients on local sockets share
/// the network `127.0.0.1`.
///
/// The layer remembers at most 50,000 buckets that are not full, of some 40 bytes each. Beyond it,
/// the quarter that would be full first is forgotten: the clients that did the least.
#[derive(Clone)]
pub struct RateLimit {
    counted: Counted,
    buckets: Arc<Buckets>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Connections,
    Messages,
    Recipients,
}

struct Buckets {
    times: u32,
    period: Duration,
    key: Box<Key>,
    hasher: RandomState,
    /// When each bucket is full again. What strangers choose is hashed: 8 bytes each.
    full_at: Mutex<Expiring<u64>>,
}

type Key = dyn Fn(&Context, &RandomState) -> Option<u64> + Send + Sync;

const MOST: usize = 50_000;

/// A longer period is as good as this one, and the clock may not go as far.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl RateLimit {
    /// Allows this number of connections in a period. Beyond it: 421 in place of the greeting.
    pub fn connections(times: u32, period: Duration) -> Self {
        Self::new(Counted::Connections, times, period)
    }

    /// Allows this number of messages in a period. MAIL counts, so a message that is given up does
    /// too. Beyond it: 451.
    pub fn messages(times: u32, period: Duration) -> Self {
        Self::new(Counted::Messages, times, period)
    }

    /// Allows this number of recipients in a period. RCPT counts, so recipients that do not exist
    /// do too. Beyond it: 451.
    pub fn recipients(times: u32, period: Duration) -> Self {
        Self::new(Counted::Recipients, times, period)
    }

    fn new(counted: Counted, times: u32, period: Duration) -> Self {
        let key: Box<Key> = Box::new(|cx, hasher| {
            Some(
                cx.peer
                    .identity
                    .as_ref()
                    .map_or_else(|| hasher.hash_one(cx.peer.network), |identity| hasher.hash_one(identity)),
            )
        });
        Self { counted, buckets: Arc::new(Buckets::new(times, period, key)) }
    }

    /// The same limit with a bucket for each value that `key` returns. `None`: not limited.
    #[must_use]
    pub fn by<K: Hash>(self, key: impl Fn(&Context) -> Option<K> + Send + Sync + 'static) -> Self {
        let Buckets { times, period, .. } = *self.buckets;
        let key: Box<Key> = Box::new(move |cx, hasher| key(cx).map(|key| hasher.hash_one(key)));
        Self { counted: self.counted, buckets: Arc::new(Buckets::new(times, period, key)) }
    }

    fn take(&self, counted: Counted, cx: &Context) -> Result<(), Refusal> {
        if self.counted != counted {
            return Ok(());
        }
        self.buckets.take(cx).map_err(|wait| match counted {
            Counted::Connections => refusal!("421 4.7.0 Too many connections, try again in {} s", seconds(wait)),
            Counted::Messages => refusal!("451 4.7.1 Too many messages, try again in {} s", seconds(wait)),
            Counted::Recipients => refusal!("451 4.7.1 Too many recipients, try again in {} s", seconds(wait)),
        })
    }
}

impl Buckets {
    fn new(times: u32, period: Duration, key: Box<Key>) -> Self {
        let period = period.min(LONGEST);
        Self { times, period, key, hasher: RandomState::new(), full_at: Mutex::new(Expiring::new(MOST)) }
    }

    /// Takes one from the bucket, or returns how long it will be empty.
    ///
    /// The time when a bucket is full again says how much is in it: an empty one is full after the
    /// period. This is the generic cell rate algorithm.
    fn take(&self, cx: &Context) -> Result<(), Duration> {
        let Some(key) = (self.key)(cx, &self.hasher) else { return Ok(()) };
        let interval = self.period.checked_div(self.times).unwrap_or(Duration::MAX);
        let now = Instant::now();
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = after(buckets.get(&key, now).map_or(now, |(full_at, ())| full_at), interval);
        let wait = full_at.saturating_duration_since(now).saturating_sub(self.period);
        if !wait.is_zero() {
            // A bucket of 0 is never full. One of any other number waits no longer than that.
            return Err(wait.min(self.period));
        }
        buckets.insert(key, (), full_at, now);
        Ok(())
    }
}

impl Layer for RateLimit {
    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        self.take(Counted::Connections, cx)
    }

    async fn mail(&mut self, cx: &Context, _: &Mail) -> Result<(), Refusal> {
        self.take(Counted::Messages, cx)
    }

    async fn rcpt(&mut self, cx: &Context, _: &Rcpt) -> Result<(), Refusal> {
        self.take(Counted::Recipients, cx)
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Buckets { times, period, .. } = &*self.buckets;
        f.debug_struct("RateLimit")
            .field("counted", &self.counted)
            .field("times", times)
            .field("period", period)
            .finish_non_exhaustive()
    }
}
