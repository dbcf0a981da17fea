//! Connections that are kept for the next message.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use crate::Client;

/// How long a connection waits for the reply to QUIT when many do.
const GOODBYE: Duration = Duration::from_millis(100);

/// A connection that can be kept.
pub trait Keep: Send + 'static {
    /// Returns `true` if a message may go over it. It does not wait.
    fn is_usable(&mut self) -> bool;

    /// Sends QUIT and closes it.
    fn close(self) -> impl Future<Output = ()> + Send;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Keep for Client<S> {
    fn is_usable(&mut self) -> bool {
        Self::is_usable(self)
    }

    async fn close(self) {
        self.quit().await;
    }
}

/// The bounds of all shelves that share it: clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    kept: Arc<Semaphore>,
    closing: Arc<Semaphore>,
}

impl Budget {
    /// Makes a budget for this number of kept connections. As many others may wait for the reply to
    /// QUIT; beyond that, one waits for 100 ms.
    pub fn new(connections: usize) -> Self {
        let permits = || Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { kept: permits(), closing: permits() }
    }

    /// Closes a connection with QUIT.
    pub async fn close(&self, connection: impl Keep) {
        let permit = self.closing.try_acquire();
        let most = if permit.is_ok() { Duration::MAX } else { GOODBYE };
        let _ = timeout(most, connection.close()).await;
    }
}

/// The kept connections to one destination. Clones share them.
pub struct Shelf<T>(Arc<Inner<T>>);

struct Inner<T> {
    idle: Duration,
    budget: Budget,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The one that was used last is at the end, and is used first.
    kept: Vec<Kept<T>>,
    /// A task closes connections when their time is over.
    is_watched: bool,
    is_closed: bool,
}

struct Kept<T> {
    connection: T,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Keep> Shelf<T> {
    /// Makes an empty shelf. A connection is kept for the time `idle`, and closed with QUIT then; 0
    /// keeps none.
    pub fn new(idle: Duration, budget: Budget) -> Self {
        let state = Mutex::new(State { kept: Vec::new(), is_watched: false, is_closed: false });
        Self(Arc::new(Inner { idle, budget, state }))
    }

    /// Takes the connection that was used last of those that the server has not closed.
    pub fn take(&self) -> Option<T> {
        self.take_if(|_| true)
    }

    /// Takes the one that was used last of those that suit. `suits` is called under a lock.
    pub fn take_if(&self, suits: impl Fn(&T) -> bool) -> Option<T> {
        loop {
            let mut connection = {
                let mut state = self.0.state();
                let place = state.kept.iter().rposition(|kept| suits(&kept.connection))?;
                state.kept.remove(place).connection
            };
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Returns `true` if one of them suits, whether or not the server has closed it meanwhile.
    /// `suits` is called under a lock.
    pub fn has(&self, suits: impl FnMut(&T) -> bool) -> bool {
        self.0.state().kept.iter().map(|kept| &kept.connection).any(suits)
    }

    /// Keeps a connection for the next message. Returns it if it is of no use or there is no room:
    /// then close it.
    pub fn keep(&self, mut connection: T) -> Option<T> {
        let Ok(permit) = Arc::clone(&self.0.budget.kept).try_acquire_owned() else { return Some(connection) };
        let is_usable = !self.0.idle.is_zero() && connection.is_usable();
        let mut state = self.0.state();
        if state.is_closed || !is_usable {
            return Some(connection);
        }
        state.kept.push(Kept { connection, until: far(self.0.idle), _permit: permit });
        if !std::mem::replace(&mut state.is_watched, true) {
            tokio::spawn(watch(Watching { shelf: Arc::downgrade(&self.0), is_over: false }));
        }
        None
    }

    /// Closes the kept connections with QUIT, and keeps no other.
    pub async fn close(&self) {
        let kept = {
            let mut state = self.0.state();
            state.is_closed = true;
            std::mem::take(&mut state.kept)
        };
        let close = |kept: Kept<T>| {
            let budget = self.0.budget.clone();
            tokio::spawn(async move { budget.close(kept.connection).await })
        };
        let closing: Vec<_> = kept.into_iter().map(close).collect();
        for one in closing {
            // Only an aborted task is an error, and its connection is closed.
            let _ = one.await;
        }
    }
}

impl<T> Shelf<T> {
    /// The number of kept connections.
    pub fn len(&self) -> usize {
        self.0.state().kept.len()
    }

    /// Returns `true` if no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Inner<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("idle", &self.0.idle).field("kept", &self.len()).finish_non_exhaustive()
    }
}

/// Closes connections whose time is over. Ends when there is none.
async fn watch<T: Keep>(mut watching: Watching<T>) {
    loop {
        let next = {
            let Some(shelf) = watching.shelf.upgrade() else { return };
            let mut state = shelf.state();
            let now = Instant::now();
            let (over, left) = std::mem::take(&mut state.kept).into_iter().partition(|kept| kept.until <= now);
            state.kept = left;
            for kept in Vec::<Kept<T>>::into_iter(over) {
                let budget = shelf.budget.clone();
                tokio::spawn(async move { budget.close(kept.connection).await });
            }
            let Some(next) = state.kept.iter().map(|kept| kept.until).min() else {
                // Under the lock, so that a connection that comes now starts another task.
                state.is_watched = false;
                watching.is_over = true;
                return;
            };
            next
        };
        sleep_until(next).await;
    }
}

/// Dropped with its task: that of a runtime which ends watches no more.
struct Watching<T> {
    shelf: Weak<Inner<T>>,
    /// It has said so itself.
    is_over: bool,
}

impl<T> Drop for Watching<T> {
    fn drop(&mut self) {
        if let (Some(shelf), false) = (self.shelf.upgrade(), self.is_over) {
            shelf.state().is_watched = false;
        }
    }
}

/// The end of this time. A year, which is never, if the clock cannot say it.
fn far(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + time.min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with a number. Even ones were closed by the server.
    impl Keep for u8 {
        fn is_usable(&mut self) -> bool {
            *self % 2 == 1
        }

        async fn close(self) {}
    }

    #[tokio::test]
    async fn the_connection_that_was_used_last_of_those_that_suit_is_taken() {
        let shelf = Shelf::new(Duration::from_secs(60), Budget::new(9));
        let mut kept = Vec::new();
        for number in [1, 3, 5, 7, 9] {
            assert_eq!(shelf.keep(number), None);
            kept.push(number);
        }
        for number in [3, 7] {
            // The server closes it while it is on the shelf.
            shelf.0.state().kept[number / 2].connection += 1;
        }
        assert!(shelf.has(|number| *number == 9) && !shelf.has(|number| *number == 3));
        assert_eq!(shelf.take_if(|number| *number < 5), Some(1));
        assert_eq!((shelf.len(), shelf.take_if(|number| *number < 5)), (3, None));
        assert_eq!((shelf.take(), shelf.take(), shelf.take()), (Some(9), Some(5), None));
    }
}
