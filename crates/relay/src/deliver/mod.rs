//! Delivery: from work that is due to connections that do it.
//!
//! One loop waits for the queue to say that something may be due and hands the keys to *sites*, the places that mail goes
//! to. Each site has workers, each worker a connection of its own, which it keeps for the next message. Nothing polls.

mod attempt;
mod outcome;
mod site;

use std::{collections::HashMap, sync::Arc, time::Duration};

use posthaste_client::Resolver;
use posthaste_queue::{Change, Error, Queue, RoutingKey};
use posthaste_server::{CancellationToken, wire::Domain};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{relay::Shared, route::Destination};
use site::Site;

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
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(shared.options.delivery.concurrency));
    let mut sites = HashMap::new();
    let mut seen = Change::default();
    let result = loop {
        seen = tokio::select! {
            changed = shared.queue.changed(seen) => match changed {
                Ok(seen) => seen,
                Err(error) => break Err(error),
            },
            () = drain.cancelled() => break Ok(()),
        };
        if let Err(error) = look(&shared, &mut sites, &tasks, &slots, &drain).await {
            break Err(error);
        }
    };
    tasks.close();
    tasks.wait().await;
    match result {
        // Closed by whoever drains: an end and no failure.
        Err(Error::Closed) if drain.is_cancelled() => Ok(()),
        result => result,
    }
}

/// Hands every key that is due to its site, and gives each of these sites one more worker.
async fn look<Q: Queue, R: Resolver>(
    shared: &Arc<Shared<Q, R>>,
    sites: &mut HashMap<String, Arc<Site>>,
    tasks: &TaskTracker,
    slots: &Arc<Semaphore>,
    drain: &CancellationToken,
) -> Result<(), Error> {
    let mut after: Option<RoutingKey> = None;
    loop {
        let keys = shared.queue.due_keys(after.as_ref(), PAGE).await?;
        let more = keys.len() == PAGE;
        after = keys.last().cloned();
        for key in keys {
            let destination = destination(shared, &key);
            let site = match sites.get(site::name(destination.as_ref())) {
                Some(site) => Arc::clone(site),
                None => {
                    let site = Arc::new(Site::new(destination, &shared.options.delivery));
                    sites.insert(site.name().to_owned(), Arc::clone(&site));
                    site
                }
            };
            site.offer(key);
            if let Some(turn) = site.hire() {
                tasks.spawn(site::work(Arc::clone(shared), site, turn, Arc::clone(slots), drain.clone()));
            }
        }
        if !more {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if sites.len() > SITES {
        sites.retain(|_, site| !site.is_idle());
    }
    Ok(())
}

/// Where a key's mail goes to. Without a route it goes to a site that fails it.
fn destination<Q, R>(shared: &Shared<Q, R>, key: &RoutingKey) -> Option<Destination> {
    Domain::parse(key.as_str()).ok().and_then(|domain| shared.options.routes.find(&domain))
}
