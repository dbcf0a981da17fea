//! A place that mail goes to, and the workers that bring it there.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posthaste_client::Resolver;
use posthaste_queue::{Claim, Claimed, Keys, Queue, RoutingKey};
use posthaste_server::CancellationToken;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::warn;

use super::{attempt, outcome};
use crate::{DeliveryOptions, Diagnostic, relay::Shared, route::Destination};

/// Deliveries to the same next hop, over connections that they share.
#[derive(Debug)]
pub(super) struct Site {
    name: String,
    /// Where; nothing when there is no route.
    pub(super) destination: Option<Destination>,
    state: Mutex<State>,
    work: Notify,
    workers: Arc<Semaphore>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Keys that may have something due, each once, in turn.
    due: VecDeque<RoutingKey>,
    known: HashSet<RoutingKey>,
    /// Nobody could be reached: until when that is taken for granted, and why.
    down: Option<(Instant, Unreachable)>,
}

/// Why nobody could be reached.
#[derive(Debug, Clone)]
pub(super) struct Unreachable {
    pub(super) diagnostic: Diagnostic,
    /// There is nobody, and there will be nobody: what DNS or the configuration says, never what a host says.
    pub(super) for_good: bool,
}

/// The right to be a worker of a site.
pub(super) type Turn = OwnedSemaphorePermit;

/// The site of keys without a route.
const NOWHERE: &str = "nowhere";

impl Site {
    pub(super) fn new(destination: Option<Destination>, options: &DeliveryOptions) -> Self {
        let limit = options.concurrency_per_site;
        Self {
            name: name(destination.as_ref()).to_owned(),
            destination,
            state: Mutex::default(),
            work: Notify::new(),
            workers: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A key may have something due.
    pub(super) fn offer(&self, key: RoutingKey) {
        let mut state = self.state();
        if state.known.insert(key.clone()) {
            state.due.push_back(key);
        }
        drop(state);
        // A worker that waits with its connection takes it; without one the permit is kept for the next to wait.
        self.work.notify_one();
    }

    /// Room for one more worker.
    pub(super) fn hire(&self) -> Option<Turn> {
        Arc::clone(&self.workers).try_acquire_owned().ok()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.workers.available_permits() == self.limit && self.state().due.is_empty()
    }

    /// Nobody could be reached: whatever else is due is deferred for the same reason, without another look.
    pub(super) fn mark_down(&self, why: Unreachable, wait: Duration) {
        self.state().down = Some((Instant::now() + wait, why));
    }

    pub(super) fn mark_up(&self) {
        self.state().down = None;
    }

    pub(super) fn down(&self) -> Option<Unreachable> {
        let state = self.state();
        state.down.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
    }

    /// The next key in turn; it stays among those that may have more.
    fn next_key(&self) -> Option<RoutingKey> {
        let mut state = self.state();
        let key = state.due.pop_front()?;
        state.due.push_back(key.clone());
        Some(key)
    }

    /// Nothing is due for a key.
    fn withdraw(&self, key: &RoutingKey) {
        let mut state = self.state();
        if state.known.remove(key) {
            state.due.retain(|other| other != key);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name under which a destination's site is known.
pub(super) fn name(destination: Option<&Destination>) -> &str {
    destination.map_or(NOWHERE, |destination| &destination.site)
}

/// Takes deliveries of a site, one after another over one connection, until there are none for a while.
pub(super) async fn work<Q: Queue, R: Resolver>(
    shared: Arc<Shared<Q, R>>,
    site: Arc<Site>,
    _turn: Turn,
    slots: Arc<Semaphore>,
    drain: CancellationToken,
) {
    let Ok(_slot) = slots.acquire_owned().await else { return };
    let mut connection = None;
    while !drain.is_cancelled() {
        match claim(&shared, &site).await {
            Some(claimed) => deliver(&shared, &site, claimed, &mut connection).await,
            None => {
                let wait = tokio::time::timeout(shared.options.delivery.idle, site.work.notified());
                let ended = tokio::select! {
                    waited = wait => waited.is_err(),
                    () = drain.cancelled() => true,
                };
                // What was offered at the last moment is not left behind.
                if ended && (drain.is_cancelled() || site.state().due.is_empty()) {
                    break;
                }
            }
        }
    }
    if let Some(connection) = connection {
        attempt::close(connection).await;
    }
}

async fn claim<Q: Queue, R>(shared: &Shared<Q, R>, site: &Site) -> Option<Claimed> {
    while let Some(key) = site.next_key() {
        let keys = [key];
        let claim = Claim { keys: Keys::Of(&keys), max: 1, lease: shared.options.delivery.lease };
        match shared.queue.claim(claim).await {
            Ok(mut claimed) => match claimed.pop() {
                Some(claimed) => return Some(claimed),
                None => keys.iter().for_each(|key| site.withdraw(key)),
            },
            // The loop that waits for changes hears of it too, and ends.
            Err(_) => return None,
        }
    }
    None
}

/// One delivery, with its lease kept alive while it runs.
async fn deliver<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    claimed: Claimed,
    connection: &mut Option<attempt::Connected>,
) {
    let message = claimed.lease.message();
    let job = match outcome::Job::open(claimed) {
        Ok(job) => job,
        Err(error) => {
            // Never thrown away: it is held, and an operator can look at it.
            warn!(%message, %error, "the queue's record of a message cannot be read; it is held");
            let _ = shared.queue.hold(message).await;
            return;
        }
    };
    let lease = shared.options.delivery.lease;
    let beat = lease / 3;
    let verdicts = {
        let attempt = attempt::run(shared, site, &job, connection);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                verdicts = &mut attempt => break verdicts,
                () = tokio::time::sleep(beat) => {
                    if let Err(error) = shared.queue.extend(job.lease(), lease).await {
                        warn!(%message, %error, "a lease was lost in mid-delivery");
                    }
                }
            }
        }
    };
    job.settle(shared, verdicts).await;
}
