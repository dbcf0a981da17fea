//! Delivery: from work that is due to connections that do it.
//!
//! One loop waits for the queue to say that something may be due and hands the keys to *sites*, the
//! places that mail goes to. Each site has workers, each worker a connection of its own, which it
//! keeps for the next message. Nothing polls.
//!
//! **Architecture invariant: looking up costs no place, waiting costs no place, and the loop waits
//! for neither.** The way of a worker is: the hosts of its site are looked up ([`lookup`]), it
//! takes one of the [`places`], it claims a delivery, and it goes over the addresses of the hosts
//! ([`attempt`]). So nothing is claimed, and no lease runs, before there is a place for it. A place
//! is a connection on which something moves. A connection that is silent for a fifth of a second
//! gives its place up and has it back when something moves ([`flow`]). Mute hosts therefore fill
//! the room for silent connections and never the places, and the room is made anew by giving up who
//! has been silent longest.
//!
//! The alternatives were a pool per kind of work, and a short bound for each wait. A pool per kind
//! cannot tell a mute host from a healthy one that is new, since both look alike before the
//! greeting. A short bound for each wait breaks hosts that are slow by intent. What they have in
//! common, and healthy hosts have not, is silence, so silence is what is counted.
//!
//! Half of the places are for sites that took mail lately. Reports never use that half, and never
//! earn it for a site: whoever sends a message chooses where its report goes.

mod attempt;
mod connect;
mod fit;
mod flow;
mod health;
mod job;
mod lookup;
mod outcome;
mod places;
mod round;
mod site;
mod worker;
mod write_back;

use std::{collections::HashMap, sync::Arc, time::Duration};

use posthaste_client::Resolver;
use posthaste_queue::{Change, Error, Queue, RoutingKey};
use posthaste_server::wire::Domain;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{NextHop, shared::Shared};
use health::Health;
use places::{Bounds, Places};
use site::Site;
use worker::Crew;

/// Keys that are taken from the queue at once.
const PAGE: usize = 256;
/// Pages that are taken one behind the other. After so many, and at the end of more than one, the
/// queue is left alone for
/// [`PAUSE`]: a bound on the cost of looking through many keys.
const PAGES: usize = 16;
const PAUSE: Duration = Duration::from_millis(50);
/// Sites that have had no work for a while are forgotten when there are more than this many.
const SITES: usize = 1_024;
/// The most sites that have work, or had some not long ago: each may have a task that waits, and
/// takes about two kilobytes. What is due for others is left in the queue until a worker of these
/// leaves.
const SITES_AT_MOST: usize = 8_192;

/// Delivers until `drain` is cancelled and what runs has ended.
pub(crate) async fn run<Q: Queue, R: Resolver>(
    shared: Arc<Shared<Q, R>>,
    drain: CancellationToken,
) -> Result<(), Error> {
    let (concurrency, patience) = (shared.options.delivery.concurrency.max(1), shared.options.delivery.drain);
    let (tasks, abort) = (TaskTracker::new(), CancellationToken::new());
    // Whoever drops this future does not leave workers behind.
    let _abort = abort.clone().drop_guard();
    let silent = concurrency.saturating_mul(3);
    let crew = Arc::new(Crew {
        shared,
        places: Places::new(Bounds { moving: concurrency, silent }),
        lookups: Places::new(lookup::BOUNDS),
        health: Health::default(),
        spare: Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS))),
        left: Notify::new(),
        tasks: tasks.clone(),
        drain: drain.clone(),
        abort: abort.clone(),
    });
    for places in [&crew.places, &crew.lookups] {
        let (places, abort) = (Arc::clone(places), abort.clone());
        // Not among the deliveries, which a drain waits for.
        tokio::spawn(async move { abort.run_until_cancelled(places.relieve()).await });
    }
    let mut sites = Sites::default();
    let mut seen = Change::default();
    let mut has_missed = false;
    let result = loop {
        tokio::select! {
            changed = crew.shared.queue.changed(seen) => match changed {
                Ok(changed) => seen = changed,
                Err(error) => break Err(error),
            },
            () = crew.left.notified(), if has_missed => {}
            () = drain.cancelled() => break Ok(()),
        }
        let looked = tokio::select! {
            looked = look(&crew, &mut sites) => looked,
            () = drain.cancelled() => break Ok(()),
        };
        match looked {
            Ok(missed) => has_missed = missed,
            // The queue's disk has failed. Waiting for a change waits until it is well again, or
            // ends when that cannot be.
            Err(error @ Error::Broken(_)) => warn!(%error, "nothing is delivered until the queue goes on"),
            Err(error) => break Err(error),
        }
    };
    tasks.close();
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        warn!(left = tasks.len(), "deliveries did not end in time and are dropped; they are tried again later");
        abort.cancel();
        tasks.wait().await;
    }
    match result {
        // Closed by whoever drains: an end and no failure.
        Err(Error::Closed) if drain.is_cancelled() => Ok(()),
        result => result,
    }
}

/// Hands every key that is due to its site, and hires where somebody is wanted. It waits for
/// nothing but the queue: who is hired waits for itself. Says whether there were keys of sites that
/// there is no room for.
async fn look<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, sites: &mut Sites) -> Result<bool, Error> {
    let (mut after, mut has_missed): (Option<RoutingKey>, _) = (None, false);
    sites.forget();
    for page in 1.. {
        let keys = crew.shared.queue.due_keys(after.as_ref(), PAGE).await?;
        let more = keys.len() == PAGE;
        after = keys.last().cloned();
        for key in keys {
            match sites.of(&crew.shared, &key) {
                Some(site) => {
                    if let Some(turn) = site.offer(key) {
                        worker::hire(crew, turn);
                    }
                }
                None => has_missed = true,
            }
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
    Ok(has_missed)
}

/// The sites that have work, or had some not long ago.
#[derive(Debug, Default)]
struct Sites {
    /// By domain: those that DNS names the hosts of.
    by_domain: HashMap<RoutingKey, Arc<Site>>,
    /// By the place of their route: those with hosts of their own. Nothing: the one without a
    /// route, which fails mail.
    by_route: HashMap<Option<usize>, Arc<Site>>,
    /// How many domains there have to be before any is forgotten.
    forget_at: usize,
}

impl Sites {
    /// The site of a key; nothing when there is no room for one more.
    fn of<Q, R>(&mut self, shared: &Shared<Q, R>, key: &RoutingKey) -> Option<Arc<Site>> {
        if let Some(site) = self.by_domain.get(key) {
            return Some(Arc::clone(site));
        }
        let (routes, limit) = (&shared.options.routes, shared.options.delivery.concurrency_per_site);
        let route = Domain::parse(key.as_str()).ok().and_then(|domain| routes.find(&domain));
        if route.and_then(|index| routes.get(index)).is_some_and(|route| route.to == NextHop::Mx) {
            if self.by_domain.len() >= SITES_AT_MOST {
                return None;
            }
            let site = Arc::new(Site::new(key.as_str().to_owned(), route, limit));
            self.by_domain.insert(key.clone(), Arc::clone(&site));
            return Some(site);
        }
        let name = || route.map_or_else(|| "nowhere".to_owned(), |index| format!("route {index}"));
        let site = self.by_route.entry(route).or_insert_with(|| Arc::new(Site::new(name(), route, limit)));
        Some(Arc::clone(site))
    }

    /// Forgets domains without work. What is left sets when that is worth the next look, so that it
    /// costs little for each.
    fn forget(&mut self) {
        if self.by_domain.len() > self.forget_at.max(SITES) {
            self.by_domain.retain(|_, site| !site.is_forgettable(false));
            if self.by_domain.len() >= SITES_AT_MOST {
                self.by_domain.retain(|_, site| !site.is_forgettable(true));
            }
            self.forget_at = self.by_domain.len().saturating_mul(2).min(SITES_AT_MOST - 1);
        }
    }
}
