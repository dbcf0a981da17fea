//! Greylisting (RFC 6647).

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{LOOPBACK, fixed, is_in, seconds};
use crate::{
    Context, Layer, NetworkSet, Networks, Refusal,
    content::after,
    expiring::Expiring,
    refusal,
    wire::{Mail, Rcpt},
};

/// Puts off the first message of an unknown network, and takes it when the client tries again: what
/// only imitates SMTP does not. The refusal is `451 4.7.1`, at RCPT.
///
/// As RFC 6647 section 5 recommends, an attempt is a network, a sender and the first recipient of
/// the transaction. After one successful retry the whole network passes. Clients that have logged
/// in always pass.
///
/// ```
/// # use std::time::Duration;
/// use posthaste_server::layers::Greylist;
/// # fn layer() -> Result<Greylist, Box<dyn std::error::Error>> {
/// let mut greylist = Greylist::default();
/// greylist.wait = Duration::from_secs(300);
/// greylist.except.push("198.51.100.0/24".parse()?);
/// # Ok(greylist) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Greylist<M = GreylistTable> {
    /// How long after the first attempt a client has to wait. Default 1 minute, as RFC 6647 section
    /// 5 has it: what tries again at all does so later.
    pub wait: Duration,
    /// How long after the first attempt a retry counts. Default 24 hours, as in RFC 6647. Beyond
    /// it, the retry is a first attempt. At least twice the [wait](Self::wait).
    pub window: Duration,
    /// How long a network passes after its last message. Default 36 days, so that senders of a
    /// monthly letter stay known; RFC 6647 asks for at least a week.
    pub passes_for: Duration,
    /// The size of a network. Default: /24 of IPv4 and /64 of IPv6, because large senders try again
    /// from another host.
    pub networks: Networks,
    /// The networks that always pass. Default: loopback, where clients without a queue are.
    pub except: NetworkSet,
    memory: M,
    /// How long the client of this transaction has to wait. `None`: not known yet.
    wait_left: Option<Duration>,
}

/// A memory of keys, which several servers may share. [`GreylistTable`] is one in this process.
/// Clones, of which each connection has one, have the same keys.
///
/// Its time is part of the time for the [verdict](crate::Handler) on RCPT, and its future may be
/// dropped. A refusal is what the client gets: a memory that is away can let clients pass by
/// returning [`Duration::MAX`].
pub trait GreylistMemory: Clone + Send + Sync + 'static {
    /// How long ago a key was [remembered](Self::remember). `None`: never, or its lifetime is over.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn age(&self, key: &str) -> impl Future<Output = Result<Option<Duration>, Refusal>> + Send;

    /// Remembers a key of at most 8 KiB from now on, for a time. A key that is known starts again.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn remember(&self, key: &str, lifetime: Duration) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// A memory in this process, which forgets all when it ends. It has at most 100,000 keys, of some
/// 60 bytes each. Beyond it, the quarter that expires first is forgotten: first attempts, before
/// networks that have passed.
#[derive(Debug, Clone)]
pub struct GreylistTable {
    shared: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    /// Hashes what strangers send with a key of this process: 8 bytes each.
    hasher: RandomState,
    /// When each key was remembered.
    since: Mutex<Expiring<u64, Instant>>,
}

const MOST: usize = 100_000;

impl<M: GreylistMemory> Greylist<M> {
    /// Greylisting with this memory.
    pub fn new(memory: M) -> Self {
        Self {
            wait: Duration::from_secs(60),
            window: Duration::from_secs(24 * 60 * 60),
            passes_for: Duration::from_secs(36 * 24 * 60 * 60),
            networks: Networks { ipv4_prefix: 24, ..Networks::default() },
            except: fixed(LOOPBACK),
            memory,
            wait_left: None,
        }
    }

    /// How long the client has to wait.
    async fn look_up(&self, cx: &Context, rcpt: &Rcpt) -> Result<Duration, Refusal> {
        let network = self.networks.of(cx.peer.address.ip_or_loopback());
        let passed = format!("network {network}");
        if let Some(age) = self.memory.age(&passed).await? {
            // Not for each message: a memory on a disk has to write it.
            if age > self.passes_for / 100 {
                self.memory.remember(&passed, self.passes_for).await?;
            }
            return Ok(Duration::ZERO);
        }
        let sender = cx.envelope.as_ref().map(|envelope| &envelope.mail.reverse_path);
        let sender = sender.map(ToString::to_string).unwrap_or_default();
        // The same host may spell a domain in another way the next time.
        let attempt = format!("attempt {network} {sender} {}", rcpt.forward_path).to_ascii_lowercase();
        // A window that ends before the wait would let no client in.
        let window = self.window.max(self.wait.saturating_mul(2));
        match self.memory.age(&attempt).await? {
            None => self.memory.remember(&attempt, window).await.map(|()| self.wait),
            Some(age) if age < self.wait => Ok(self.wait.saturating_sub(age)),
            Some(_) => self.memory.remember(&passed, self.passes_for).await.map(|()| Duration::ZERO),
        }
    }
}

impl<M: GreylistMemory> Layer for Greylist<M> {
    async fn mail(&mut self, _: &Context, _: &Mail) -> Result<(), Refusal> {
        self.wait_left = None;
        Ok(())
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        if cx.peer.identity.is_some() || is_in(&self.except, cx) {
            return Ok(());
        }
        let wait = match self.wait_left {
            Some(wait) => wait,
            None => *self.wait_left.insert(Box::pin(self.look_up(cx, rcpt)).await?),
        };
        if wait.is_zero() { Ok(()) } else { Err(refusal!("451 4.7.1 Greylisted, try again in {} s", seconds(wait))) }
    }
}

impl Default for Greylist {
    fn default() -> Self {
        Self::new(GreylistTable::default())
    }
}

impl GreylistMemory for GreylistTable {
    async fn age(&self, key: &str) -> Result<Option<Duration>, Refusal> {
        let now = Instant::now();
        let Table { hasher, since } = &*self.shared;
        let table = since.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(table.get(&hasher.hash_one(key), now).map(|(_, since)| now.saturating_duration_since(*since)))
    }

    async fn remember(&self, key: &str, lifetime: Duration) -> Result<(), Refusal> {
        let now = Instant::now();
        let Table { hasher, since } = &*self.shared;
        let mut table = since.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(hasher.hash_one(key), now, after(now, lifetime), now);
        Ok(())
    }
}

impl Default for GreylistTable {
    fn default() -> Self {
        Self { shared: Arc::new(Table { hasher: RandomState::new(), since: Mutex::new(Expiring::new(MOST)) }) }
    }
}
