//! What every engine shares between its callers and its thread: the index under a lock, the signal, the timer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::index::{Index, Moment, Stale, moment};
use crate::signal::Signal;
use crate::{Change, Claim, Claimed, Clock, Error, Lease, LeaseError, MessageId, RoutingKey, Stats, Summary};

/// Invariant: the lock is never held over input or output, so that claims do not wait for a disk.
pub(crate) struct Core<B> {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bell: Arc<Bell>,
    signal: Signal,
    shared: Mutex<Shared<B>>,
}

struct Shared<B> {
    index: Index<B>,
    ended: Option<Error>,
    /// When the engine's thread will look again by itself.
    armed: Option<Moment>,
}

/// Wakes the engine's thread. A ring while it is awake is not lost: its next wait returns at once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl<B> Core<B> {
    pub(crate) fn new(clock: Arc<dyn Clock>, index: Index<B>) -> Self
    where
        B: Send + 'static,
    {
        let bell = Arc::new(Bell::default());
        let weak = Arc::downgrade(&bell);
        clock.on_jump(Box::new(move || weak.upgrade().inspect(|bell| bell.ring()).is_some()));
        let shared = Mutex::new(Shared { index, ended: None, armed: None });
        Self { clock, bell, signal: Signal::new(), shared }
    }

    /// Runs `act` on the index, as of now.
    ///
    /// Whatever became claimable, by the clock before or by `act`, is signalled afterwards; the thread is woken when it would
    /// look too late.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Broken`] once the engine has ended.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Index<B>, Moment) -> T) -> Result<T, Error> {
        let mut shared = self.lock();
        if let Some(why) = &shared.ended {
            return Err(why.clone());
        }
        let now = moment(self.clock.now());
        let mut moved = shared.index.advance(now);
        let value = act(&mut shared.index, now);
        moved |= shared.index.advance(now);
        let next = shared.index.next_event();
        let late = next.is_some_and(|next| shared.armed.is_none_or(|armed| next < armed));
        drop(shared);
        if moved {
            self.signal.raise();
        }
        if late {
            self.bell.ring();
        }
        Ok(value)
    }

    /// Lets time pass and says how long the engine's thread may sleep.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let mut shared = self.lock();
        let now = moment(self.clock.now());
        let moved = shared.index.advance(now);
        shared.armed = shared.index.next_event();
        let pause = shared.armed.map(|next| crate::index::between(now, next));
        drop(shared);
        if moved {
            self.signal.raise();
        }
        pause
    }

    /// From now on every operation fails. The first reason stays.
    pub(crate) fn end(&self, why: Error) {
        self.lock().ended.get_or_insert_with(|| why.clone());
        self.signal.end(why);
        self.bell.ring();
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.lock().ended.clone()
    }

    pub(crate) async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.signal.wait(seen).await
    }

    pub(crate) fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.with(|index, now| index.claim(now, claim.keys, claim.max, claim.lease))
    }

    pub(crate) fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.with(|index, now| index.extend(lease, crate::index::after(now, lease_for)))??;
        Ok(())
    }

    pub(crate) fn due_keys(&self, after: Option<&RoutingKey>, limit: usize) -> Result<Vec<RoutingKey>, Error> {
        self.with(|index, _| index.due_keys(after, limit))
    }

    pub(crate) fn list(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<Summary>, Error> {
        self.with(|index, now| index.list(now, after, limit))
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let shared = self.lock();
        shared.index.stats(moment(self.clock.now()), &mut stats);
        if let Some(Error::Broken(why)) = &shared.ended {
            stats.broken = Some(why.clone());
        }
        stats
    }

    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Stale> for LeaseError {
    fn from(Stale: Stale) -> Self {
        Self::Stale
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Returns when rung, or after the pause.
    pub(crate) fn wait(&self, pause: Option<Duration>) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = match pause {
            Some(pause) => {
                let woken = self.wake.wait_timeout_while(rung, pause, |rung| !*rung);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.wake.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner),
        };
        *rung = false;
    }
}
