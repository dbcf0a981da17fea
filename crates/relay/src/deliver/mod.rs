//! Delivery: from deliveries that are due to the connections that make them.
//!
//! One loop waits for the queue to say that something may be due. The queue lists what is due by
//! *class*: a key, a priority and an owner. The loop finds the route of each key ([`routing`]) and,
//! if that leads by MX, the mail hosts of its domain ([`domains`]). It hands the class to a *site*,
//! the next hop that the mail goes to. Domains with the same mail hosts are one site. The site
//! gives owners their turns ([`due`]), and has *workers*. Each worker has a connection of its own,
//! which it keeps for the next message. Nothing polls; only what routes hold is looked at each
//! minute.
//!
//! **Architecture invariant: a look-up costs no place, a wait costs no place, and the loop waits
//! for neither.** A worker takes four steps. It looks up the addresses of its site ([`lookup`]),
//! takes one of the [`places`], claims a delivery, and tries the addresses of the hosts
//! ([`attempt`]). So no delivery is claimed, and no lease runs, before there is a place for it.
//!
//! A *place* is the right to a connection on which octets move. A connection that is silent for a
//! fifth of a second gives its place up, and takes it back when octets move again ([`flow`]). Mute
//! hosts therefore fill the room for silent connections, and never the places. When that room is
//! full, the connections that have been silent longest are given up.
//!
//! The alternatives were a pool for each kind of work, and a short bound for each wait. A pool
//! cannot tell a mute host from a healthy new one, since both look alike before the greeting. A
//! short bound breaks hosts that are slow on purpose. Only silence tells mute hosts from healthy
//! ones, so silence is what is counted.
//!
//! Half of the places are for sites that took mail lately. Reports never use that half, and never
//! earn it for a site: the client that sends a message chooses where its report goes.

mod attempt;
mod connect;
mod domains;
mod due;
mod fit;
mod flow;
mod hand_over;
mod job;
mod letter;
mod lookup;
mod outcome;
mod pace;
mod places;
mod round;
mod routing;
mod site;
mod sites;
mod throttle;
#[cfg(test)]
mod throttled;
mod weights;
mod window;
mod words;
mod worker;
mod write_back;

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use posthaste_client::{
    Resolver,
    delivery::{Budget, Shelf},
};
use posthaste_queue::{Change, DueClass, Error, Queue};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::shared::Shared;
use places::{Bounds, Places};
use routing::{Next, Routing};
use site::Site;
pub(crate) use sites::KnownSites;
pub use words::Cause;
pub(crate) use words::Words;
use worker::Crew;

/// Classes that are taken from the queue at once.
const PAGE: usize = 256;
/// Pages that are taken without a pause. After this many, and after the last of several, the loop
/// pauses for [`PAUSE`]. This bounds the cost of many classes.
const PAGES: usize = 16;
/// How long the loop waits at most if there was no room for the sites of some classes.
const MISSED: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// What a look has passed over.
#[derive(Debug, Clone, Copy, Default)]
struct Passed {
    /// Classes whose sites had no room.
    missed: bool,
    /// Classes that are held by their routes.
    held: bool,
}

/// Delivers until `drain` is cancelled and the running deliveries have ended.
pub(crate) async fn run<Q: Queue, R: Resolver>(
    shared: Arc<Shared<Q, R>>,
    drain: CancellationToken,
) -> Result<(), Error> {
    let concurrency = shared.options().delivery.concurrency.max(1);
    let (tasks, abort) = (TaskTracker::new(), CancellationToken::new());
    // Dropping this future aborts the workers.
    let _abort = abort.clone().drop_guard();
    let silent = concurrency.saturating_mul(3);
    let domains = Arc::default();
    let sites = shared.sites.begin(Arc::clone(&domains));
    let crew = Arc::new(Crew {
        shared,
        places: Places::new(Bounds { moving: concurrency, silent }),
        lookups: Places::new(lookup::BOUNDS),
        budget: Budget::new(concurrency),
        routing: Routing::default(),
        domains,
        sites,
        routed: Notify::new(),
        left: Notify::new(),
        tasks: tasks.clone(),
        drain: drain.clone(),
        abort: abort.clone(),
    });
    for places in [&crew.places, &crew.lookups] {
        let (places, abort) = (Arc::clone(places), abort.clone());
        // Not a tracked task, since a drain waits for those.
        tokio::spawn(async move { abort.run_until_cancelled(places.relieve()).await });
    }
    let (watching, watched) = (abort.clone(), Arc::clone(&crew.shared));
    tokio::spawn(async move { watching.run_until_cancelled(watched.watch_overload()).await });
    let mut options = crew.shared.options();
    let mut seen = Change::default();
    let mut passed = Passed::default();
    let result = loop {
        tokio::select! {
            changed = crew.shared.queue.changed(seen) => match changed {
                Ok(changed) => seen = changed,
                Err(error) => break Err(error),
            },
            () = crew.left.notified(), if passed.missed => {}
            // Sites that are down have no worker that could leave.
            () = tokio::time::sleep(MISSED), if passed.missed => {}
            // Their routes may have changed.
            () = tokio::time::sleep(routing::KNOWN), if passed.held => {}
            () = crew.routed.notified() => {}
            () = crew.shared.reloaded.notified() => {}
            () = drain.cancelled() => break Ok(()),
        }
        if !crew.shared.is_current(&options) {
            options = crew.shared.options();
            renew(&crew);
        }
        if crew.shared.overload.pauses() {
            passed.missed = true;
            continue;
        }
        let looked = tokio::select! {
            looked = look(&crew) => looked,
            () = drain.cancelled() => break Ok(()),
        };
        match looked {
            Ok(looked) => passed = looked,
            // The queue's disk has failed. `changed` returns when the disk works again, or fails if
            // it never can.
            Err(error @ Error::Broken(_)) => warn!(%error, "queue broken, deliveries paused until it works again"),
            Err(error) => break Err(error),
        }
    };
    let all: Vec<_> = crew.sites.lock().unwrap_or_else(PoisonError::into_inner).all().collect();
    for site in all {
        tasks.spawn(async move { site.shelf.close().await });
    }
    tasks.close();
    let patience = crew.shared.options().delivery.drain;
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        warn!(left = tasks.len(), "deliveries aborted at the end of the drain, to be tried again later");
        abort.cancel();
        tasks.wait().await;
    }
    match result {
        // The queue was closed during a drain: this is the normal end.
        Err(Error::Closed) if drain.is_cancelled() => Ok(()),
        result => result,
    }
}

/// The options have changed.
fn renew<Q: Queue, R: Resolver>(crew: &Crew<Q, R>) {
    crew.routing.forget();
    let gone = crew.sites.lock().unwrap_or_else(PoisonError::into_inner).gone();
    for site in gone {
        crew.tasks.spawn(async move { site.shelf.close().await });
    }
}

/// Hands every due class to its site. It waits for the queue alone.
async fn look<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>) -> Result<Passed, Error> {
    let (mut after, mut passed): (Option<DueClass>, _) = (None, Passed::default());
    crew.sites.lock().unwrap_or_else(PoisonError::into_inner).forget();
    for page in 1.. {
        let classes = crew.shared.queue.due(after.as_ref(), PAGE).await?;
        let more = classes.len() == PAGE;
        after = classes.last().cloned();
        for class in classes {
            offer(crew, class, &mut passed);
        }
        if page % PAGES == 0 || (!more && page > 1) {
            tokio::time::sleep(PAUSE).await;
        } else if more {
            tokio::task::yield_now().await;
        }
        if !more {
            break;
        }
    }
    Ok(passed)
}

/// Hands a due class to its site, and hires a worker if the site wants one. The worker waits by
/// itself. A class is passed over if it is held, if its route or mail hosts are not known yet, or
/// if there is no room for its site.
fn offer<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, class: DueClass, passed: &mut Passed) {
    let options = crew.shared.options();
    let delivery = &options.delivery;
    let make = |name, leads, hosts| {
        let shelf = Shelf::new(delivery.idle, crew.budget.clone());
        let site = Site::new(name, leads, delivery.concurrency_per_site, shelf, crew.shared.health.clone());
        site.with_hosts(hosts)
    };
    let leads = match routing::find(crew, &options, &class.key) {
        Next::Site(leads) => leads,
        Next::Asked => return,
        Next::Held => {
            passed.held = true;
            return;
        }
    };
    let Some((leads, hosts)) = domains::find(crew, &class, leads) else { return };
    let offered = {
        let mut sites = crew.sites.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: what follows a change of options comes after this.
        let is_current = crew.shared.is_current(&options);
        let site = if is_current { sites.of(&class.key, leads, hosts, make) } else { None };
        site.map(|site| site.offer(class))
    };
    match offered {
        Some(Some(turn)) => worker::hire(crew, turn),
        Some(None) => {}
        None => passed.missed = true,
    }
}
