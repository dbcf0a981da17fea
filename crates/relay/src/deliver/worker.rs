//! A worker of a site: claims deliveries and brings them there, over one connection that it keeps
//! for the next.

use std::sync::Arc;

use posthaste_client::Resolver;
use posthaste_queue::{Claim, Claimed, Error, LeaseError, Queue, RoutingKey};
use posthaste_server::wire::ReversePath;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    attempt,
    connect::Connected,
    flow::Flow,
    health::Health,
    job::{Job, Overdue},
    lookup,
    places::{Place, Places, Standing},
    site::{ASKED_NOW, Next, Site, Turn},
};
use crate::shared::Shared;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Crew<Q, R> {
    pub(super) shared: Arc<Shared<Q, R>>,
    /// Connections on which something moves.
    pub(super) places: Arc<Places>,
    /// Look-ups that are answered.
    pub(super) lookups: Arc<Places>,
    pub(super) health: Health,
    /// Connections that may be kept unused.
    pub(super) spare: Arc<Semaphore>,
    /// A worker has left.
    pub(super) left: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) drain: CancellationToken,
    /// The time for draining is over.
    pub(super) abort: CancellationToken,
}

/// Gives a site one more worker, which begins as soon as the site's hosts are known and there is a
/// place for it.
pub(super) fn hire<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, turn: Turn) {
    let abort = crew.abort.clone();
    let engage = engage(Arc::clone(crew), turn);
    crew.tasks.spawn(async move { abort.run_until_cancelled(engage).await });
}

/// Apart from the work itself, which is a task of another size: there may be thousands of these.
async fn engage<Q: Queue, R: Resolver>(crew: Arc<Crew<Q, R>>, turn: Turn) {
    let mut place = None;
    let is_ready = tokio::select! {
        () = prepare(&crew, turn.site(), false, &mut place) => true,
        () = crew.drain.cancelled() => false,
    };
    if is_ready {
        let abort = crew.abort.clone();
        let tasks = crew.tasks.clone();
        let work = work(crew, turn, place);
        tasks.spawn(async move { abort.run_until_cancelled(work).await });
    }
}

/// Waits for all that a delivery needs before it is claimed, so that nothing is claimed that has to
/// wait. A site that cannot be reached needs nothing: what is due for it is deferred.
async fn prepare<Q: Queue, R: Resolver>(crew: &Crew<Q, R>, site: &Site, is_connected: bool, place: &mut Option<Place>) {
    let Some(route) = site.route(&crew.shared) else { return };
    if site.down().is_some() {
        return;
    }
    if !is_connected {
        *place = None;
        if lookup::find(crew, site, route, ASKED_NOW).await.is_err() {
            return;
        }
    }
    if place.is_none() {
        *place = Some(crew.places.take(site.standing()).await);
    }
}

/// Takes deliveries of a site, one after another over one connection, until there are none for a
/// while.
async fn work<Q: Queue, R: Resolver>(crew: Arc<Crew<Q, R>>, mut turn: Turn, place: Option<Place>) {
    let (mut place, mut is_prepared) = (place, true);
    let mut connection = None;
    while !crew.drain.is_cancelled() {
        if !is_prepared && turn.site().has_due() {
            tokio::select! {
                () = prepare(&crew, turn.site(), connection.is_some(), &mut place) => {}
                () = crew.drain.cancelled() => break,
            }
        }
        is_prepared = false;
        let spare = connection.is_some().then(|| Arc::clone(&crew.spare).try_acquire_owned().ok()).flatten();
        let woken = match turn.next(connection.is_some(), spare.is_some()) {
            Next::Claim(key) => {
                drop(spare);
                match claim(&crew, turn.site(), key).await {
                    Ok(Some(claimed)) => deliver(&crew, turn.site(), claimed, &mut connection, &mut place).await,
                    Ok(None) => {
                        // Its place is as good for the next key.
                        is_prepared = place.is_some();
                        continue;
                    }
                    // The loop that waits for changes hears of it too.
                    Err(_) => break,
                }
                // Whoever has waited for a place comes first.
                place = None;
                continue;
            }
            Next::Wait(waiting) => {
                place = None;
                tokio::select! {
                    woken = waiting.for_at_most(crew.shared.options.delivery.idle, turn.site()) => woken,
                    () = crew.drain.cancelled() => break,
                }
            }
            Next::Close => {
                place = None;
                false
            }
            Next::Leave => break,
        };
        if !woken {
            // Counted until it is closed, so that the next hop never sees more connections than it
            // should.
            close(&mut connection).await;
            if turn.leave() {
                break;
            }
        }
    }
    drop(place);
    close(&mut connection).await;
    drop(turn);
    crew.left.notify_one();
}

/// Claims one delivery. There may be more of the same key: it is put back at once, for another
/// worker to look.
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
    {
        hire(crew, turn);
    }
    Ok(claimed)
}

async fn close(connection: &mut Option<Connected>) {
    if let Some(connection) = connection.take() {
        connection.close().await;
    }
}

/// One delivery, with its lease kept alive while it runs.
async fn deliver<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    claimed: Claimed,
    connection: &mut Option<Connected>,
    place: &mut Option<Place>,
) {
    let shared = &*crew.shared;
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
        // Where reports go, strangers may have chosen: they come last and prove nothing.
        let is_report = job.outside.mail.reverse_path == ReversePath::Null;
        let standing = if is_report { Standing::Doubtful } else { site.standing() };
        let mut flow = Flow::new(&crew.places, place, standing, shared.options.delivery.attempt_timeout, job.attempts);
        let attempt = attempt::run(crew, site, &job, connection, &mut flow);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                verdicts = &mut attempt => break verdicts,
                () = tokio::time::sleep(beat) => match job.keep(shared).await {
                    Ok(()) => {}
                    // Somebody else delivers it now, or an operator has removed it: what is on its
                    // way is broken off.
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
