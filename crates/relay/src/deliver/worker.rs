//! A worker of a site. It claims deliveries and makes them over one connection, which it keeps for
//! the next one.

use std::sync::{Arc, Mutex};

use posthaste_client::{Resolver, delivery::Budget};
use posthaste_queue::{Claim, DueClass, Error, LeaseError, Queue};
use posthaste_server::wire::ReversePath;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    attempt,
    connect::{Connected, health},
    defer,
    domains::{self, Domains, Hosts},
    flow::{Flow, MUTE_BY_MX, MUTE_CHOSEN},
    job::{Job, Overdue, Tried},
    lookup,
    places::{Place, Places, Standing},
    room::Room,
    routing::Routing,
    site::{ASKED_NOW, Held, Look, Site, Turn, Unreachable},
    sites::Sites,
    write_back::set_aside,
};
use crate::{NextHop, RelayOptions, shared::Shared};

/// The state that all workers share.
#[derive(Debug)]
pub(super) struct Crew<Q, R> {
    pub(super) shared: Arc<Shared<Q, R>>,
    /// Places for connections on which octets move.
    pub(super) places: Arc<Places>,
    /// Places for look-ups.
    pub(super) lookups: Arc<Places>,
    /// Bounds the connections that no worker uses.
    pub(super) budget: Budget,
    /// The routes that the application is asked for.
    pub(super) routing: Routing,
    /// The mail hosts that the DNS is asked for.
    pub(super) domains: Arc<Domains>,
    pub(super) sites: Arc<Mutex<Sites>>,
    /// Notified when a route is found, and when due classes may belong to other sites.
    pub(super) routed: Notify,
    /// Notified when a worker leaves.
    pub(super) left: Notify,
    /// The room for due classes.
    pub(super) room: Arc<Room>,
    /// Permits to defer many deliveries at once.
    pub(super) deferring: Semaphore,
    pub(super) tasks: TaskTracker,
    pub(super) drain: CancellationToken,
    /// Cancelled when the time for draining is over.
    pub(super) abort: CancellationToken,
}

/// Hires one more worker for a site. It begins when the hosts of the site are known and there is a
/// place for it.
pub(super) fn hire<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, turn: Turn) {
    let abort = crew.abort.clone();
    let engage = engage(Arc::clone(crew), turn);
    crew.tasks.spawn(async move { abort.run_until_cancelled(engage).await });
}

/// Waits for the place, then starts the work as another task. The task that waits is smaller: there
/// may be thousands of them.
async fn engage<Q: Queue, R: Resolver>(crew: Arc<Crew<Q, R>>, mut turn: Turn) {
    loop {
        match turn.look(Held::Nothing) {
            Look::Prepare => break,
            Look::Wait(until) => tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                // Meanwhile domains may have got other mail hosts.
                () = tokio::time::sleep(domains::LOOK_AGAIN), if turn.site().hosts().is_some() => {
                    crew.routed.notify_one();
                }
                () = crew.drain.cancelled() => return,
            },
            Look::Leave if turn.leave() => return crew.left.notify_one(),
            Look::Leave => {}
        }
    }
    let mut place = None;
    let is_ready = tokio::select! {
        () = prepare(&crew, turn.site(), false, &mut place) => true,
        () = crew.drain.cancelled() => false,
    };
    if is_ready {
        let abort = crew.abort.clone();
        let tasks = crew.tasks.clone();
        // On the heap before it is moved: each move would copy it.
        let work = Box::pin(work(crew, turn, place));
        tasks.spawn(async move { abort.run_until_cancelled(work).await });
    }
}

/// Waits for all that a delivery needs before it is claimed, so that a claimed delivery does not
/// wait. An unreachable site needs nothing: its deliveries are deferred.
async fn prepare<Q: Queue, R: Resolver>(crew: &Crew<Q, R>, site: &Site, is_connected: bool, place: &mut Option<Place>) {
    let Ok(route) = site.leads() else { return };
    if site.down().is_some() || route.to == NextHop::Discard {
        return;
    }
    let has_hosts = !matches!(route.to, NextHop::Agent(_));
    if has_hosts && !is_connected && site.shelf.is_empty() {
        *place = None;
        if lookup::find(crew, site, route, ASKED_NOW).await.is_err() {
            return;
        }
    }
    if place.is_none() {
        *place = Some(crew.places.take(site.standing(), &site.share).await);
    }
}

/// Makes deliveries of a site, one after another over one connection, until none is due. The
/// connection is then kept for the next worker.
async fn work<Q: Queue, R: Resolver>(crew: Arc<Crew<Q, R>>, mut turn: Turn, place: Option<Place>) {
    let (mut place, mut is_prepared) = (place, true);
    let mut connection = None;
    while !crew.drain.is_cancelled() && !crew.shared.overload.pauses() {
        if !is_prepared {
            match turn.look(Held::of(connection.as_ref())) {
                Look::Prepare => tokio::select! {
                    () = prepare(&crew, turn.site(), connection.is_some(), &mut place) => {}
                    () = crew.drain.cancelled() => break,
                },
                Look::Wait(_) => {
                    drop(place);
                    shelve(&crew, turn.site(), connection).await;
                    // The task that waits is smaller.
                    return hire(&crew, turn);
                }
                Look::Leave => {}
            }
        }
        is_prepared = false;
        let options = crew.shared.options();
        let Some(class) = turn.next(Held::of(connection.as_ref())) else {
            // It is kept, or closed, before the worker leaves: so the next hop never sees more
            // connections than the limit.
            place = None;
            shelve(&crew, turn.site(), connection.take()).await;
            if turn.leave() {
                break;
            }
            continue;
        };
        if !crew.shared.is_current(&options) {
            // The class may lead elsewhere by now, and the loop finds that out.
            crew.shared.reloaded.notify_one();
            turn.site().is_unused();
            continue;
        }
        // A connection that is left may still deliver.
        let is_connected = connection.is_some() || !turn.site().shelf.is_empty();
        let claimed = match turn.site().why_not().filter(|_| !is_connected) {
            None => claim(&crew, turn.site(), &class, 1, &options).await,
            Some(why) => defer(&crew, turn.site(), &class, &why, &options).await,
        };
        match claimed {
            Ok(Some((jobs, hosts))) => {
                for job in jobs {
                    connection = connection.or_else(|| turn.site().shelf.take());
                    deliver(&crew, &turn, (job, hosts.as_ref()), &mut connection, &mut place).await;
                }
            }
            Ok(None) => {
                turn.found_none(&class);
                // The place serves the next class too.
                is_prepared = place.is_some();
                turn.site().is_unused();
                continue;
            }
            // The loop in `run` gets the error too.
            Err(_) => break,
        }
        // Workers that wait for a place come first.
        place = None;
    }
    drop(place);
    shelve(&crew, turn.site(), connection).await;
    drop(turn);
    crew.left.notify_one();
}

/// Keeps a connection for the next worker, or closes it.
async fn shelve<Q, R>(crew: &Crew<Q, R>, site: &Site, connection: Option<Connected>) {
    let Some(connection) = connection else { return };
    let left = if crew.drain.is_cancelled() { Some(connection) } else { site.shelf.keep(connection) };
    if let Some(connection) = left {
        crew.budget.close(connection).await;
    }
}

/// Deliveries of one class, and the mail hosts of its domain.
type Jobs = (Vec<Job>, Option<Arc<Hosts>>);

/// Claims deliveries of a class. If there were any, the class goes back to the site at once:
/// another worker may find more. `None`: there was none. Those whose record cannot be read are set
/// aside. With the deliveries come the mail hosts of their domain, if the DNS names them.
async fn claim<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    site: &Arc<Site>,
    class: &DueClass,
    max: usize,
    options: &Arc<RelayOptions>,
) -> Result<Option<Jobs>, Error> {
    let Some(hosts) = domains::serves(crew, site, class) else { return Ok(None) };
    let from = std::slice::from_ref(class);
    let claim = Claim { from, max, lease: options.delivery.lease };
    let claimed = crew.shared.queue.claim(claim).await?;
    if claimed.is_empty() {
        return Ok(None);
    }
    if crew.shared.is_current(options)
        && let Some(turn) = site.offer(class.clone())
    {
        hire(crew, turn);
    }
    let mut jobs = Vec::with_capacity(claimed.len());
    for claimed in claimed {
        let message = claimed.lease.message();
        crew.shared.announcing.told(message).await;
        match Job::open(claimed, Arc::clone(options)) {
            Ok(job) => jobs.push(job),
            Err(error) => set_aside(&crew.shared, message, &error.to_string()).await,
        }
    }
    Ok(Some((jobs, hosts)))
}

/// Claims many deliveries of a class, and settles them without an attempt for this reason. Returns
/// those that are attempted all the same. `None`: there was none.
async fn defer<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    site: &Arc<Site>,
    class: &DueClass,
    why: &Unreachable,
    options: &Arc<RelayOptions>,
) -> Result<Option<Jobs>, Error> {
    // The semaphore is never closed.
    let _permit = crew.deferring.acquire().await;
    let begun = Instant::now();
    let Some((jobs, hosts)) = claim(crew, site, class, defer::BATCH, options).await? else { return Ok(None) };
    let left = defer::all(crew, site, jobs, why).await;
    // The permit is kept meanwhile, so that the rate holds for all sites together.
    defer::pause(begun.elapsed(), &crew.drain).await;
    Ok(Some((left, hosts)))
}

/// Makes one delivery, and extends its lease while it runs.
async fn deliver<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    turn: &Turn,
    (job, hosts): (Job, Option<&Arc<Hosts>>),
    connection: &mut Option<Connected>,
    place: &mut Option<Place>,
) {
    let (shared, site) = (&*crew.shared, turn.site());
    let message = job.lease().message();
    if job.recipients().is_empty() {
        return job.report_ended(shared).await;
    }
    if site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Discard) {
        return job.discard(shared).await;
    }
    match job.overdue() {
        Some(Overdue::Return) => return job.return_overdue(shared).await,
        Some(Overdue::Tell) => return job.tell_overdue(shared).await,
        None => {}
    }
    let (beat, silent) = (job.options.delivery.lease / 3, Notify::new());
    let tried = {
        // Strangers may choose where reports go. So reports come last, and prove nothing about
        // their site.
        let is_report = job.outside.mail.reverse_path == ReversePath::Null;
        let standing = if is_report { Standing::Doubtful } else { site.standing() };
        let time = job.options.delivery.attempt_timeout;
        let is_by_mx = site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Mx);
        let mute = (if is_by_mx { MUTE_BY_MX } else { MUTE_CHOSEN }, health(shared, is_by_mx, false));
        let mut flow = Flow::new(&crew.places, place, (turn, &silent), mute, standing, time, job.attempts);
        let attempt = attempt::run(crew, site, hosts, &job, connection, &mut flow);
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                tried = &mut attempt => break tried,
                // Others of the site may be silent too.
                () = silent.notified() => {
                    if let Some(turn) = site.relieve() {
                        hire(crew, turn);
                    }
                }
                () = tokio::time::sleep(beat) => match job.keep(shared).await {
                    Ok(()) => {}
                    // Another worker delivers it now, or an operator has removed it: this delivery
                    // is aborted.
                    Err(LeaseError::Stale) => {
                        warn!(%message, "lease lost, delivery aborted");
                        return;
                    }
                    Err(error) => warn!(%message, %error, "lease not extended"),
                },
            }
        }
    };
    if let Some(why) = job.damage() {
        set_aside(shared, message, why).await;
    }
    match tried {
        Tried::Settled(fates) => job.settle(shared, fates).await,
        Tried::NotAtAll => job.give_back(shared).await,
    }
}
