//! Connections that are kept for the next message to the same destination.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use crate::Client;

/// The limits of connections to one destination. Start from [`default`](Self::default) and assign
/// what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Connections at once, in use or kept. Default 10. Beyond it a message waits for one. 0 counts
    /// as 1. An unused connection whose time is over, and which waits for the reply to QUIT, is not
    /// counted.
    pub connections: usize,
    /// How long an unused connection is kept. Default 10 s. It is closed with QUIT then.
    pub idle: Duration,
    /// Messages on one connection. Default 100, which most servers allow. Beyond it the connection
    /// is closed with QUIT, and the next message goes over another.
    pub messages: u32,
    /// The most recipients of one transaction. Default 100, which every server must accept (RFC
    /// 5321 section 4.5.3.1.8). A message to more takes several transactions. 0 counts as 1.
    pub recipients: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { connections: 10, idle: Duration::from_secs(10), messages: 100, recipients: 100 }
    }
}

/// The connections to one destination.
#[derive(Debug)]
pub(crate) struct Shelf<S> {
    limits: PoolOptions,
    /// A permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    unused: Mutex<Unused<S>>,
}

#[derive(Debug)]
struct Unused<S> {
    /// The one that was used last is at the end, and is used first.
    connections: Vec<Kept<S>>,
    /// A task closes connections when their time is over.
    is_watched: bool,
    is_closed: bool,
}

/// A connection with the number of messages that it has taken.
#[derive(Debug)]
pub(crate) struct Kept<S> {
    pub(crate) client: Client<S>,
    messages: u32,
    until: Instant,
}

impl<S> Kept<S> {
    /// A connection that has taken this number of messages.
    pub(crate) fn used(client: Client<S>, messages: u32) -> Self {
        Self { client, messages, until: Instant::now() }
    }

    pub(crate) fn into_parts(self) -> (Client<S>, u32) {
        (self.client, self.messages)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Shelf<S> {
    pub(crate) fn new(limits: PoolOptions) -> Self {
        let permits = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let unused = Mutex::new(Unused { connections: Vec::new(), is_watched: false, is_closed: false });
        Self { limits, permits, unused }
    }

    pub(crate) const fn limits(&self) -> &PoolOptions {
        &self.limits
    }

    /// Waits for the right to use a connection. `None`: the shelf was closed.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Takes the connection that was used last of those that the server has not closed.
    pub(crate) fn take(&self) -> Option<Kept<S>> {
        loop {
            let mut kept = self.unused().connections.pop()?;
            if kept.client.is_usable() {
                return Some(kept);
            }
        }
    }

    /// Keeps a connection for the next message, or closes it.
    pub(crate) fn give_back(self: &Arc<Self>, mut kept: Kept<S>, permit: OwnedSemaphorePermit) {
        kept.messages = kept.messages.saturating_add(1);
        let is_worn = kept.messages >= self.limits.messages || self.limits.idle.is_zero();
        let mut unused = self.unused();
        if unused.is_closed || is_worn || !kept.client.is_usable() {
            drop(unused);
            tokio::spawn(async move {
                kept.client.quit().await;
                // Not before, so that the server never has more connections than the limit.
                drop(permit);
            });
            return;
        }
        kept.until = far(self.limits.idle);
        unused.connections.push(kept);
        if !std::mem::replace(&mut unused.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Returns `true` if no connection is in use or kept.
    pub(crate) fn is_empty(&self) -> bool {
        let all = self.limits.connections.clamp(1, Semaphore::MAX_PERMITS);
        self.permits.available_permits() == all && self.unused().connections.is_empty()
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone.
    pub(crate) async fn close(&self) {
        self.permits.close();
        let connections = {
            let mut unused = self.unused();
            unused.is_closed = true;
            std::mem::take(&mut unused.connections)
        };
        let closing: Vec<_> = connections.into_iter().map(|kept| tokio::spawn(kept.client.quit())).collect();
        for one in closing {
            // Only an aborted task is an error, and its connection is closed.
            let _ = one.await;
        }
    }
}

impl<S> Shelf<S> {
    /// The number of connections that are kept.
    pub(crate) fn len(&self) -> usize {
        self.unused().connections.len()
    }

    fn unused(&self) -> MutexGuard<'_, Unused<S>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections whose time is over. Ends when there is none.
async fn watch<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(shelf: Weak<Shelf<S>>) {
    loop {
        let next = {
            let Some(shelf) = shelf.upgrade() else { return };
            let mut unused = shelf.unused();
            let now = Instant::now();
            let (over, left) = std::mem::take(&mut unused.connections).into_iter().partition(|kept| kept.until <= now);
            unused.connections = left;
            for kept in Vec::<Kept<S>>::into_iter(over) {
                tokio::spawn(kept.client.quit());
            }
            let Some(next) = unused.connections.iter().map(|kept| kept.until).min() else {
                unused.is_watched = false;
                return;
            };
            next
        };
        sleep_until(next).await;
    }
}

/// The end of this time. A year, which is never, if the clock cannot say it.
fn far(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + time.min(YEAR)
}
