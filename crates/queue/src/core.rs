//! What an engine's callers share with its thread: the index under a lock, the signal, the timer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::index::{Base, Index, Moment, Stale, Unreadable, moment};
use crate::signal::Signal;
use crate::{
    Broken, Change, Claim, Claimed, Clock, DueClass, Error, Gather, Lease, LeaseError, MessageId, Page, Search, Stats,
    Summary,
};

/// Invariant: the lock is never held over a write or a sync. It is held over reads of the base.
pub(crate) struct Core<S: Base> {
    clock: Arc<dyn Clock>,
    /// The queue's time at the clock's zero. The queue's clock goes on from opening to opening.
    origin: Moment,
    pub(crate) bell: Arc<Bell>,
    signal: Signal,
    guarded: Mutex<Guarded<S>>,
}

struct Guarded<S: Base> {
    state: State<S>,
    /// When the engine's thread will look again by itself.
    armed: Option<Moment>,
}

enum State<S: Base> {
    Live(Box<Index<S>>),
    /// Why, and the last counts. The index is dropped, so that its base can be opened again.
    Ended(Error, Box<Stats>),
}

/// Wakes the engine's thread. A ring while the thread is awake makes its next wait return at once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl<S: Base> Core<S> {
    pub(crate) fn new(clock: Arc<dyn Clock>, origin: Moment, index: Index<S>) -> Self {
        let bell = Arc::new(Bell::default());
        let weak = Arc::downgrade(&bell);
        clock.on_jump(Box::new(move || weak.upgrade().inspect(|bell| bell.ring()).is_some()));
        let guarded = Mutex::new(Guarded { state: State::Live(Box::new(index)), armed: None });
        Self { clock, origin, bell, signal: Signal::new(), guarded }
    }

    /// The time on the queue's clock.
    pub(crate) fn now(&self) -> Moment {
        self.origin.saturating_add(moment(self.clock.now()))
    }

    /// Runs `act` on the index, as of now.
    ///
    /// Afterwards, signals if a delivery became claimable, and wakes the engine's thread if it
    /// would look too late. Stops the engine if the base cannot be read.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Broken`] once the engine has ended.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Index<S>, Moment) -> Result<T, Unreadable>) -> Result<T, Error> {
        let mut guarded = self.lock();
        let index = match &mut guarded.state {
            State::Live(index) => index,
            State::Ended(why, _) => return Err(why.clone()),
        };
        let now = self.now();
        let acted = index.advance(now).and_then(|before| {
            let value = act(index, now)?;
            Ok((value, before | index.advance(now)?))
        });
        let next = index.next_event();
        let (value, moved) = match acted {
            Ok(acted) => acted,
            Err(unreadable) => {
                drop(guarded);
                return Err(self.unreadable(&unreadable));
            }
        };
        let late = next.is_some_and(|next| guarded.armed.is_none_or(|armed| next < armed));
        drop(guarded);
        if moved {
            self.signal.raise();
        }
        if late {
            self.bell.ring();
        }
        Ok(value)
    }

    /// Lets time pass. Returns how long the engine's thread may sleep; `None`: until the bell
    /// rings.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let mut guarded = self.lock();
        let State::Live(index) = &mut guarded.state else { return None };
        let now = self.now();
        let moved = match index.advance(now) {
            Ok(moved) => moved,
            Err(unreadable) => {
                drop(guarded);
                self.unreadable(&unreadable);
                return None;
            }
        };
        let next = index.next_event();
        guarded.armed = next;
        let pause = next.map(|next| crate::index::between(now, next));
        drop(guarded);
        if moved {
            self.signal.raise();
        }
        pause
    }

    fn unreadable(&self, unreadable: &Unreadable) -> Error {
        self.stop(Broken::new(&unreadable.0))
    }

    /// Makes every operation fail until [`restart`](Self::restart). Callers that wait for a change
    /// wait on. Returns the reason: the first one stays.
    pub(crate) fn stop(&self, why: Broken) -> Error {
        let why = self.lock().end(Error::Broken(why));
        self.bell.ring();
        why
    }

    /// Makes every operation fail from now on. The first reason stays, except that `Closed`
    /// replaces `Broken`.
    pub(crate) fn end(&self, why: Error) {
        let mut guarded = self.lock();
        let first = guarded.end(why.clone());
        if let (Error::Broken(broken), Error::Closed, State::Ended(told, last)) = (first, &why, &mut guarded.state) {
            *told = Error::Closed;
            // The caller who closes it can still see why it had stopped.
            last.broken = Some(broken);
        }
        drop(guarded);
        self.signal.end(why);
        self.bell.ring();
    }

    /// Replaces the reason while the engine is stopped.
    pub(crate) fn explain(&self, why: Broken) {
        if let State::Ended(Error::Broken(told), _) = &mut self.lock().state {
            *told = why;
        }
    }

    /// Goes on after a [`stop`](Self::stop) with a new index. Earlier leases are stale if the
    /// index's first generation differs from all earlier ones.
    pub(crate) fn restart(&self, index: Index<S>) {
        let mut guarded = self.lock();
        guarded.state = State::Live(Box::new(index));
        guarded.armed = None;
        drop(guarded);
        self.signal.raise();
        self.bell.ring();
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        match &self.lock().state {
            State::Live(_) => None,
            State::Ended(why, _) => Some(why.clone()),
        }
    }

    pub(crate) async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.signal.wait(seen).await
    }

    pub(crate) fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.with(|index, now| index.claim(now, claim.from, claim.max, claim.lease))
    }

    pub(crate) fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        self.with(|index, now| index.gather(now, gather))
    }

    pub(crate) fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.with(|index, now| Ok(index.extend(lease, crate::index::after(now, lease_for))))??;
        Ok(())
    }

    pub(crate) fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        self.with(|index, _| index.due(after, limit))
    }

    pub(crate) fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        self.with(|index, now| index.search(now, search, after, limit))
    }

    pub(crate) fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        let found = self.with(|index, now| Ok(index.get(message)?.map(|found| found.summary(message, now))))?;
        found.ok_or(Error::NoSuchMessage(message))
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut guarded = self.lock();
        let now = self.now();
        let mut stats = Stats::default();
        match &mut guarded.state {
            State::Live(index) => {
                if let Err(unreadable) = index.stats(now, &mut stats) {
                    drop(guarded);
                    self.unreadable(&unreadable);
                    stats.broken = Some(Broken::new(&unreadable.0));
                }
            }
            State::Ended(why, last) => {
                stats = (**last).clone();
                if let Error::Broken(why) = why {
                    stats.broken = Some(why.clone());
                }
            }
        }
        stats
    }

    fn lock(&self) -> MutexGuard<'_, Guarded<S>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Base> Guarded<S> {
    /// Ends with this reason, unless there is an earlier one. Returns the reason that counts.
    fn end(&mut self, why: Error) -> Error {
        match &self.state {
            State::Live(index) => {
                let mut last = Stats::default();
                index.count(&mut last);
                self.state = State::Ended(why.clone(), Box::new(last));
                why
            }
            State::Ended(first, _) => first.clone(),
        }
    }
}

impl From<Stale> for LeaseError {
    fn from(Stale: Stale) -> Self {
        Self::Stale
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        let was_rung = std::mem::replace(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner), true);
        // If the bell was rung already, the thread has been woken: no second system call.
        if !was_rung {
            self.wake.notify_all();
        }
    }

    /// Returns when the bell is rung, or after the pause.
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
