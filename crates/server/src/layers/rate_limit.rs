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
    wire::{Mail, Mailbox, Rcpt},
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
/// // Senders, of all users together. Beyond it the mail comes back to them.
/// let of_senders = RateLimit::messages(500, 60 * minute)
///     .by(|cx| cx.peer.identity.as_ref().map(|_| ()))
///     .by_sender()
///     .permanently();
/// ```
///
/// A full bucket allows its number at once. It fills evenly: one more is allowed after the period
/// divided by the number. The refusal says when. The number 0 allows none, and the refusal then
/// names the period. What is refused here takes nothing from the
/// bucket, and what the wrapped handler refuses does.
///
/// A bucket belongs to the identity of a client that has logged in, and else to its
/// [network](crate::Peer::network); [`by`](Self::by) changes that, and
/// [`by_sender`](Self::by_sender) divides it. Clients on local sockets share the network
/// `127.0.0.1`.
///
/// The layer remembers at most 50,000 buckets that are not full, of some 40 bytes each. Beyond it,
/// the quarter that would be full first is forgotten: the clients that did the least.
#[derive(Clone)]
pub struct RateLimit {
    counted: Counted,
    /// Each sender has a bucket of its own.
    by_sender: bool,
    is_permanent: bool,
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
        let buckets = Arc::new(Buckets::new(times, period, key));
        Self { counted, by_sender: false, is_permanent: false, buckets }
    }

    /// The same limit with a bucket for each value that `key` returns. `None`: not limited.
    #[must_use]
    pub fn by<K: Hash>(self, key: impl Fn(&Context) -> Option<K> + Send + Sync + 'static) -> Self {
        let Buckets { times, period, .. } = *self.buckets;
        let key: Box<Key> = Box::new(move |cx, hasher| key(cx).map(|key| hasher.hash_one(key)));
        Self { buckets: Arc::new(Buckets::new(times, period, key)), ..self }
    }

    /// The same limit with a bucket for each reverse-path of each value of [`by`](Self::by).
    ///
    /// Upper and lower case are the same. The null reverse-path is not limited. Neither are
    /// connections, which have no sender.
    ///
    /// Clients can forge a sender, and so use up its bucket. For clients without a login leave
    /// [`by`](Self::by) as it is, or let it return `None`.
    #[must_use]
    pub fn by_sender(self) -> Self {
        Self { by_sender: true, ..self }
    }

    /// The same limit with refusals for good: the mail comes back to its sender at once.
    ///
    /// They are 550 5.7.1 to MAIL and RCPT, and 554 5.7.1 in place of the greeting. By default the
    /// client is asked to try again.
    #[must_use]
    pub fn permanently(self) -> Self {
        Self { is_permanent: true, ..self }
    }

    fn take(&self, counted: Counted, cx: &Context, mail: Option<&Mail>) -> Result<(), Refusal> {
        if self.counted != counted {
            return Ok(());
        }
        let sender = match (self.by_sender, mail.and_then(|mail| mail.reverse_path.mailbox())) {
            (true, None) => return Ok(()),
            (true, sender) => sender,
            (false, _) => None,
        };
        self.buckets.take(cx, sender).map_err(|wait| {
            let wait = seconds(wait);
            match (counted, self.is_permanent) {
                (Counted::Connections, false) => refusal!("421 4.7.0 Too many connections, try again in {} s", wait),
                (Counted::Connections, true) => {
                    refusal!("554 5.7.1 Too many connections, none is taken for {} s", wait)
                }
                (Counted::Messages, false) => refusal!("451 4.7.1 Too many messages, try again in {} s", wait),
                (Counted::Messages, true) => refusal!("550 5.7.1 Too many messages, none is taken for {} s", wait),
                (Counted::Recipients, false) => refusal!("451 4.7.1 Too many recipients, try again in {} s", wait),
                (Counted::Recipients, true) => refusal!("550 5.7.1 Too many recipients, none is taken for {} s", wait),
            }
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
    fn take(&self, cx: &Context, sender: Option<&Mailbox>) -> Result<(), Duration> {
        let Some(mut key) = (self.key)(cx, &self.hasher) else { return Ok(()) };
        if let Some(sender) = sender {
            key = self.hasher.hash_one((key, sender.as_str().to_lowercase()));
        }
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
        self.take(Counted::Connections, cx, None)
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        self.take(Counted::Messages, cx, Some(mail))
    }

    async fn rcpt(&mut self, cx: &Context, _: &Rcpt) -> Result<(), Refusal> {
        self.take(Counted::Recipients, cx, cx.envelope.as_ref().map(|envelope| &envelope.mail))
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Buckets { times, period, .. } = &*self.buckets;
        f.debug_struct("RateLimit")
            .field("counted", &self.counted)
            .field("by_sender", &self.by_sender)
            .field("is_permanent", &self.is_permanent)
            .field("times", times)
            .field("period", period)
            .finish_non_exhaustive()
    }
}
