//! Deliveries that fail for now without an attempt: their site is down, or there is no route.
//!
//! Each of them is still claimed and written once for each step of its schedule. So its expiry, the
//! deadline of BY and the report of a delay come in time. Many are written at once, so they share
//! the waits for the disk. The alternative is to leave them in the queue until the site is up
//! again. But then those that expire would have to be found among a million.

use std::{sync::Arc, time::Duration};

use posthaste_client::Resolver;
use posthaste_queue::Queue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    job::{Fate, Job, Overdue},
    site::{Site, Unreachable},
    words::Words,
    worker::Crew,
};
use crate::{NextHop, shared::Shared};

/// The deliveries of one class that are deferred at once.
pub(super) const BATCH: usize = 64;
/// The batches at once, over all sites. Their leases are 128 at most, so that those of the other
/// deliveries are left.
pub(super) const AT_ONCE: usize = 2;

/// A batch is followed by a pause of this many times as long. Deferring is never urgent, and the
/// disk and the queue's lock are then left to deliveries and to new mail for most of the time.
const PAUSE: u32 = 3;
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits after a batch that has taken this long.
pub(super) async fn pause(took: Duration, drain: &CancellationToken) {
    let _ = drain.run_until_cancelled(tokio::time::sleep(took.saturating_mul(PAUSE).min(LONGEST))).await;
}

/// Settles deliveries of a site without an attempt, for this reason. Returns those that are to be
/// attempted all the same.
pub(super) async fn all<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    site: &Site,
    jobs: Vec<Job>,
    why: &Unreachable,
) -> Vec<Job> {
    let is_by_mx = site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Mx);
    let follows_policies = |job: &Job| is_by_mx && !job.options.delivery.published.is_empty();
    // What the policies of the domain forbid says nothing of a message that leaves them aside.
    let (left, jobs): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|job| job.outside.tls_not_required && follows_policies(job));
    let mut writes = JoinSet::new();
    for job in jobs {
        let (crew, why) = (Arc::clone(crew), why.clone());
        writes.spawn(async move { defer(&crew.shared, job, why).await });
    }
    while writes.join_next().await.is_some() {}
    left
}

async fn defer<Q: Queue, R: Resolver>(shared: &Shared<Q, R>, job: Job, why: Unreachable) {
    if job.recipients().is_empty() {
        return job.report_ended(shared).await;
    }
    match job.overdue() {
        Some(Overdue::Return) => return job.return_overdue(shared).await,
        Some(Overdue::Tell) => return job.tell_overdue(shared).await,
        None => {}
    }
    let Unreachable { diagnostic, is_permanent } = why;
    let fate = |_| match is_permanent {
        true => Fate::Never(diagnostic.clone()),
        false => Fate::NotNow(diagnostic.clone(), Words::default()),
    };
    let fates = job.recipients().iter().map(fate).collect();
    job.settle(shared, fates).await;
}
