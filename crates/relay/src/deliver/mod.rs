//! Delivery: from deliveries that are due to the connections that make them.
//!
//! What is due is told by *class*: a key, a priority and an owner. One loop finds the route of each
//! key ([`routing`]) and, if that leads by MX, the mail hosts of its domain ([`domains`]). It hands
//! the class to a *site*, the next hop that the mail goes to. Domains with the same mail hosts are
//! one site. The site gives owners their turns ([`due`]), and has *workers*. Each worker has a
//! connection of its own, which it keeps for the next message.
//!
//! The loop hears of classes in two ways. What the relay itself puts into the queue is a *hint*,
//! and served at once ([`hints`]). And when the queue says that something may be due, the loop
//! *looks*: it goes through all due classes, page by page. Looks have a pace ([`looks`]), so their
//! cost does not grow with the number of messages. A hint that is lost costs time, and nothing
//! else. Nothing polls; only what routes hold is looked at each minute. Of the bounds on sites and
//! on questions, looks leave a quarter to hints. So new mail does not wait for the backlog.
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
#[cfg(test)]
mod backlog;
mod bucket;
mod caps;
mod connect;
#[cfg(test)]
mod crowd;
mod defer;
mod domains;
mod due;
mod egress;
mod fit;
mod flow;
mod hand_over;
mod hints;
mod job;
mod letter;
mod looks;
mod lookup;
#[cfg(test)]
mod mixed;
mod outcome;
mod pace;
mod places;
mod room;
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

use std::sync::{Arc, PoisonError};

use posthaste_client::{
    Resolver,
    delivery::{Budget, Shelf},
};
use posthaste_queue::{Change, DueClass, Error, Queue};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{RelayOptions, shared::Shared};
pub(crate) use caps::CapsTable;
use due::Offer;
pub(crate) use egress::Egress;
pub(crate) use hints::{Hint, Hints};
use looks::{Looks, PAGE};
use places::{Bounds, Places};
use room::Room;
use routing::{Next, Routing};
use site::Site;
pub(crate) use sites::KnownSites;
pub use words::Cause;
pub(crate) use words::Words;
use worker::Crew;

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
        room: Arc::new(Room::default()),
        deferring: Semaphore::new(defer::AT_ONCE),
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
    let (sweeping, swept) = (abort.clone(), Arc::clone(&crew.shared));
    tokio::spawn(async move { sweeping.run_until_cancelled(swept.relabel()).await });
    let mut options = crew.shared.options();
    let mut seen = Change::default();
    let mut looks = Looks::new(Instant::now());
    let result = loop {
        tokio::select! {
            // A look that comes soon finds what has changed until then.
            changed = crew.shared.queue.changed(seen),
                if crew.shared.overload.pauses() || !looks.come_soon(Instant::now()) => match changed {
                Ok(changed) => {
                    seen = changed;
                    looks.want(Instant::now());
                }
                Err(error) => break Err(error),
            },
            classes = crew.shared.hints.next() => {
                renew(&crew, &mut options);
                for class in classes {
                    offer(&crew, class, Offer::Hint);
                }
            }
            () = crew.shared.reloaded.notified() => looks.want_at_once(Instant::now()),
            () = crew.routed.notified() => looks.want(Instant::now()),
            () = crew.left.notified(), if looks.has_missed() => looks.want(Instant::now()),
            () = crew.room.hungry.notified() => looks.want_at_once(Instant::now()),
            () = crew.shared.overload.resumed() => looks.want_at_once(Instant::now()),
            () = tokio::time::sleep_until(looks.at()), if looks.is_wanted() && !crew.shared.overload.pauses() => {
                renew(&crew, &mut options);
                let looked = tokio::select! {
                    looked = look(&crew, &mut looks) => looked,
                    () = drain.cancelled() => break Ok(()),
                };
                match looked {
                    Ok(()) => {}
                    // The queue's disk has failed. `changed` returns when the disk works again, or
                    // fails if it never can.
                    Err(error @ Error::Broken(_)) => {
                        warn!(%error, "queue broken, deliveries paused until it works again");
                        looks.give_up();
                    }
                    Err(error) => break Err(error),
                }
            }
            () = drain.cancelled() => break Ok(()),
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

/// Takes the options if they have changed.
fn renew<Q: Queue, R: Resolver>(crew: &Crew<Q, R>, options: &mut Arc<RelayOptions>) {
    if crew.shared.is_current(options) {
        return;
    }
    *options = crew.shared.options();
    crew.routing.forget();
    let gone = crew.sites.lock().unwrap_or_else(PoisonError::into_inner).gone();
    for site in gone {
        crew.tasks.spawn(async move { site.shelf.close().await });
    }
}

/// Hands the due classes of the next page to their sites.
async fn look<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, looks: &mut Looks) -> Result<(), Error> {
    let after = looks.begin();
    if after.is_none() {
        crew.sites.lock().unwrap_or_else(PoisonError::into_inner).forget();
    }
    let classes = crew.shared.queue.due(after.as_ref(), PAGE).await?;
    let (count, last) = (classes.len(), classes.last().cloned());
    for class in classes {
        offer(crew, class, Offer::Look(looks.number()));
    }
    looks.end(Instant::now(), count, last, crew.room.take_passed());
    Ok(())
}

/// Hands a due class to its site, and hires a worker if the site wants one. The worker waits by
/// itself. A class is passed over if it is held, if its route or mail hosts are not known yet, or
/// if there is no room for its site.
fn offer<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, class: DueClass, how: Offer) {
    let options = crew.shared.options();
    let delivery = &options.delivery;
    let make = |name, leads, hosts| {
        let shelf = Shelf::new(delivery.idle, crew.budget.clone());
        let site = Site::new(name, leads, hosts, delivery, shelf, crew.shared.health.clone());
        site.in_room(&crew.room).sent_from(&crew.shared.egress).capped_in(&crew.shared.caps)
    };
    let leads = match routing::find(crew, &options, (&class, how)) {
        Next::Site(leads) => leads,
        Next::Asked => return,
        Next::Held => return crew.room.note_held(),
    };
    let Some((leads, hosts)) = domains::find(crew, (&class, how), leads) else { return };
    let offered = {
        let mut sites = crew.sites.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: what follows a change of options comes after this.
        let is_current = crew.shared.is_current(&options);
        let site = if is_current { sites.of(&class.key, how, leads, hosts, make) } else { None };
        site.map(|site| site.offer_for(class, how))
    };
    match offered {
        Some(Some(turn)) => worker::hire(crew, turn),
        Some(None) => {}
        None => crew.room.note_missed(),
    }
}
