//! A worker of a site: claims deliveries and brings them there, over one connection that it keeps for the next.

use std::sync::Arc;

use posthaste_client::Resolver;
use posthaste_queue::{Claim, Claimed, Error, LeaseError, Queue, RoutingKey};
use posthaste_server::CancellationToken;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{
    attempt,
    job::{Job, Overdue},
    site::{Next, Site, Turn},
};
use crate::shared::Shared;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Crew<Q, R> {
    pub(super) shared: Arc<Shared<Q, R>>,
    /// Deliveries at once. Whoever has one is at work; nobody keeps one while it waits.
    pub(super) slots: Arc<Semaphore>,
    /// Connections that may be kept unused.
    pub(super) spare: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) drain: CancellationToken,
    /// The time for draining is over.
    pub(super) abort: CancellationToken,
}

/// Gives a site one more worker.
pub(super) fn hire<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, turn: Turn, slot: OwnedSemaphorePermit) {
    let (work, abort) = (work(Arc::clone(crew), turn, slot), crew.abort.clone());
    crew.tasks.spawn(async move { abort.run_until_cancelled(work).await });
}

/// Takes deliveries of a site, one after another over one connection, until there are none for a while.
async fn work<Q: Queue, R: Resolver>(crew: Arc<Crew<Q, R>>, mut turn: Turn, slot: OwnedSemaphorePermit) {
    let mut slot = Some(slot);
    let mut connection = None;
    while !crew.drain.is_cancelled() {
        if slot.is_none() {
            slot = tokio::select! {
                slot = Arc::clone(&crew.slots).acquire_owned() => slot.ok(),
                () = crew.drain.cancelled() => break,
            };
        }
        let spare = connection.is_some().then(|| Arc::clone(&crew.spare).try_acquire_owned().ok()).flatten();
        let woken = match turn.next(connection.is_some(), spare.is_some()) {
            Next::Claim(key) => {
                drop(spare);
                match claim(&crew, turn.site(), key).await {
                    Ok(Some(claimed)) => deliver(&crew.shared, turn.site(), claimed, &mut connection).await,
                    Ok(None) => continue,
                    // The loop that waits for changes hears of it too.
                    Err(_) => break,
                }
                // Whoever has waited for a slot comes first.
                slot = None;
                continue;
            }
            Next::Wait(waiting) => {
                slot = None;
                tokio::select! {
                    woken = waiting.for_at_most(crew.shared.options.delivery.idle, turn.site()) => woken,
                    () = crew.drain.cancelled() => break,
                }
            }
            Next::Close => {
                slot = None;
                false
            }
            Next::Leave => return,
        };
        if !woken {
            // Counted until it is closed, so that the next hop never sees more connections than it should.
            close(&mut connection).await;
            if turn.leave() {
                return;
            }
        }
    }
    close(&mut connection).await;
}

/// Claims one delivery. There may be more of the same key: it is put back at once, for another worker to look.
async fn claim<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    site: &Arc<Site>,
    key: RoutingKey,
) -> Result<Option<Claimed>, Error> {
    let keys = [key];
    let claim = Claim { keys: &keys, max: 1, lease: crew.shared.options.delivery.lease };
    let claimed = crew.shared.queue.claim(claim).await?.pop();
    let [key] = keys;
    if claimed.is_some()
        && let Some(turn) = site.offer(key)
        && let Ok(slot) = Arc::clone(&crew.slots).try_acquire_owned()
    {
        hire(crew, turn, slot);
    }
    Ok(claimed)
}

async fn close(connection: &mut Option<attempt::Connected>) {
    if let Some(connection) = connection.take() {
        attempt::close(connection).await;
    }
}

/// One delivery, with its lease kept alive while it runs.
async fn deliver<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    claimed: Claimed,
    connection: &mut Option<attempt::Connected>,
) {
    let message = claimed.lease.message();
    let job = match Job::open(claimed) {
        Ok(job) => job,
        Err(error) => {
            // Never thrown away: it is held, and an operator can look at it.
            warn!(%message, %error, "the queue's record of a message cannot be read; it is held");
            let _ = shared.queue.hold(message).await;
            return;
        }
    };
    if job.recipients().is_empty() {
        return job.report_ended(shared).await;
    }
    match job.overdue() {
        Some(Overdue::Return) => return job.return_overdue(shared).await,
        Some(Overdue::Tell) => return job.tell_overdue(shared).await,
        None => {}
    }
    let beat = shared.options.delivery.lease / 3;
    let verdicts = {
        let attempt = attempt::run(shared, site, &job, connection);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                verdicts = &mut attempt => break verdicts,
                () = tokio::time::sleep(beat) => match job.keep(shared).await {
                    Ok(()) => {}
                    // Somebody else delivers it now, or an operator has removed it: what is on its way is broken off.
                    Err(LeaseError::Stale) => {
                        warn!(%message, "a lease was lost in mid-delivery, which is broken off");
                        return;
                    }
                    Err(error) => warn!(%message, %error, "a lease cannot be extended"),
                },
            }
        }
    };
    job.settle(shared, verdicts).await;
}
