//! Delivery: from work that is due to connections that do it.
//!
//! One loop waits for the queue to say that something may be due and hands the keys to *sites*, the places that mail goes
//! to. Each site has workers, each worker a connection of its own, which it keeps for the next message. Nothing polls.

mod attempt;
mod fit;
mod job;
mod outcome;
mod round;
mod site;
mod worker;
mod write_back;

use std::{collections::HashMap, sync::Arc, time::Duration};

use posthaste_client::Resolver;
use posthaste_queue::{Change, Error, Queue, RoutingKey};
use posthaste_server::{CancellationToken, wire::Domain};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::{NextHop, shared::Shared};
use site::Site;
use worker::Crew;

/// Keys that are taken from the queue at once.
const PAGE: usize = 256;
/// After more than a page of keys the queue is left alone for so long: a bound on the cost of looking through many keys.
const PAUSE: Duration = Duration::from_millis(50);
/// Sites that have had no work for a while are forgotten when there are more than this many.
const SITES: usize = 1_024;

/// Delivers until `drain` is cancelled and what runs has ended.
pub(crate) async fn run<Q: Queue, R: Resolver>(
    shared: Arc<Shared<Q, R>>,
    drain: CancellationToken,
) -> Result<(), Error> {
    let (concurrency, patience) = (shared.options.delivery.concurrency.max(1), shared.options.delivery.drain);
    let (tasks, abort) = (TaskTracker::new(), CancellationToken::new());
    // Whoever drops this future does not leave workers behind.
    let _abort = abort.clone().drop_guard();
    let crew = Arc::new(Crew {
        shared,
        slots: Arc::new(Semaphore::new(concurrency)),
        spare: Arc::new(Semaphore::new(concurrency)),
        tasks: tasks.clone(),
        drain: drain.clone(),
        abort: abort.clone(),
    });
    let mut sites = Sites::default();
    let mut seen = Change::default();
    let result = loop {
        seen = tokio::select! {
            changed = crew.shared.queue.changed(seen) => match changed {
                Ok(seen) => seen,
                Err(error) => break Err(error),
            },
            () = drain.cancelled() => break Ok(()),
        };
        let looked = tokio::select! {
            looked = look(&crew, &mut sites) => looked,
            () = drain.cancelled() => break Ok(()),
        };
        match looked {
            Ok(()) => {}
            // The queue's disk has failed. Waiting for a change waits until it is well again, or ends when that cannot be.
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

/// Hands every key that is due to its site, and hires where somebody is wanted. It waits for a free slot before it hires:
/// however many sites have work, there are no more workers than slots.
async fn look<Q: Queue, R: Resolver>(crew: &Arc<Crew<Q, R>>, sites: &mut Sites) -> Result<(), Error> {
    let mut after: Option<RoutingKey> = None;
    loop {
        let keys = crew.shared.queue.due_keys(after.as_ref(), PAGE).await?;
        let more = keys.len() == PAGE;
        after = keys.last().cloned();
        for key in keys {
            if let Some(turn) = sites.of(&crew.shared, &key).offer(key) {
                // The semaphore is never closed.
                let Ok(slot) = Arc::clone(&crew.slots).acquire_owned().await else { return Ok(()) };
                worker::hire(crew, turn, slot);
            }
        }
        sites.forget();
        if !more {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The sites that have work, or had some not long ago.
#[derive(Debug, Default)]
struct Sites {
    /// By domain: those that DNS names the hosts of.
    by_domain: HashMap<RoutingKey, Arc<Site>>,
    /// By the place of their route: those with hosts of their own. Nothing: the one without a route, which fails mail.
    by_route: HashMap<Option<usize>, Arc<Site>>,
    /// How many domains there have to be before any is forgotten.
    forget_at: usize,
}

impl Sites {
    fn of<Q, R>(&mut self, shared: &Shared<Q, R>, key: &RoutingKey) -> Arc<Site> {
        if let Some(site) = self.by_domain.get(key) {
            return Arc::clone(site);
        }
        let (routes, limit) = (&shared.options.routes, shared.options.delivery.concurrency_per_site);
        let route = Domain::parse(key.as_str()).ok().and_then(|domain| routes.find(&domain));
        if route.and_then(|index| routes.get(index)).is_some_and(|route| route.to == NextHop::Mx) {
            let site = Arc::new(Site::new(key.as_str().to_owned(), route, limit));
            self.by_domain.insert(key.clone(), Arc::clone(&site));
            return site;
        }
        let name = || route.map_or_else(|| "nowhere".to_owned(), |index| format!("route {index}"));
        let site = self.by_route.entry(route).or_insert_with(|| Arc::new(Site::new(name(), route, limit)));
        Arc::clone(site)
    }

    /// Forgets domains without work. What is left sets when that is worth the next look, so that it costs little for each.
    fn forget(&mut self) {
        if self.by_domain.len() > self.forget_at.max(SITES) {
            self.by_domain.retain(|_, site| !site.is_forgettable());
            self.forget_at = self.by_domain.len().saturating_mul(2);
        }
    }
}
