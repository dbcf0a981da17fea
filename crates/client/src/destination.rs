//! The connections to one destination, in use and kept.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    Client,
    shelf::{Budget, Keep, Shelf},
};

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

impl PoolOptions {
    /// The number of connections that may be open at once.
    pub(crate) fn at_once(&self) -> usize {
        self.connections.clamp(1, Semaphore::MAX_PERMITS)
    }
}

/// The connections to one destination.
#[derive(Debug)]
pub(crate) struct Destination<S> {
    pub(crate) limits: PoolOptions,
    pub(crate) shelf: Shelf<Used<S>>,
    budget: Budget,
    /// A permit for each connection that may be in use.
    permits: Arc<Semaphore>,
}

/// A connection with the number of messages that it has taken.
#[derive(Debug)]
pub(crate) struct Used<S> {
    pub(crate) client: Client<S>,
    pub(crate) messages: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Keep for Used<S> {
    fn is_usable(&mut self) -> bool {
        self.client.is_usable()
    }

    async fn close(self) {
        self.client.quit().await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Destination<S> {
    pub(crate) fn new(limits: PoolOptions, budget: Budget) -> Self {
        let permits = Arc::new(Semaphore::new(limits.at_once()));
        Self { shelf: Shelf::new(limits.idle, budget.clone()), limits, budget, permits }
    }

    /// Waits for the right to use a connection. `None`: the destination was closed.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Keeps a connection that has taken a message, or closes it.
    pub(crate) fn give_back(&self, mut used: Used<S>, permit: OwnedSemaphorePermit) {
        used.messages = used.messages.saturating_add(1);
        let is_worn = used.messages >= self.limits.messages;
        let Some(used) = (if is_worn { Some(used) } else { self.shelf.keep(used) }) else { return };
        let budget = self.budget.clone();
        tokio::spawn(async move {
            budget.close(used).await;
            // Not before, so that the server never has more connections than the limit.
            drop(permit);
        });
    }

    /// Returns `true` if no connection is in use or kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.permits.available_permits() == self.limits.at_once() && self.shelf.is_empty()
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone.
    pub(crate) async fn close(&self) {
        self.permits.close();
        self.shelf.close().await;
    }
}
