//! One report for a round of attempts: when none of a message's deliveries is on its way any more,
//! what is to be reported of each is gathered, and written back together with the report in one
//! step.
//!
//! Each delivery is written back first and looks for the others afterwards, so the last one of a
//! round finds them all. A process that ends in between leaves what is to be reported in the queue,
//! where it falls due by itself.

use std::time::Duration;

use posthaste_queue::{Gather, GatherWhen, MessageId, Queue};
use tracing::warn;

use super::{
    job::Job,
    write_back::{After, End, Says, write_back},
};
use crate::{
    record::{Outside, Standing},
    shared::Shared,
};

/// How long what is to be reported waits for the message's other deliveries, at most: two minutes
/// for a sender that may be believed. Any other hears of the message once, at its end; an hour is
/// how often that is looked for, should a process have ended just then.
pub(super) const fn patience(outside: &Outside) -> Duration {
    if outside.trusted { Duration::from_secs(120) } else { Duration::from_secs(3_600) }
}

/// Reports what has ended, if it is `when`. For a sender that may be somebody else that is the
/// message's end.
pub(super) async fn close<Q: Queue, R>(shared: &Shared<Q, R>, message: MessageId, outside: &Outside, when: GatherWhen) {
    const ENDED: [u8; 2] = Standing::Ended.mark();
    const BOTH: [u8; 2] = Standing::Both.mark();
    let (marks, when): (&[&[u8]], _) =
        if outside.trusted { (&[&ENDED, &BOTH], when) } else { (&[&ENDED], GatherWhen::Alone) };
    let gather = Gather { message, marks, when, lease: shared.options.delivery.lease };
    let gathered = match shared.queue.gather(gather).await {
        Ok(gathered) => gathered,
        // What is to be reported falls due by itself.
        Err(error) => return warn!(%message, %error, "report put off, the queue cannot be read"),
    };
    let mut ends = Vec::with_capacity(gathered.len());
    let mut says = Says::Nothing;
    for claimed in gathered {
        let Ok(job) = Job::open(claimed) else {
            warn!(%message, "record of a delivery unreadable, message held");
            let _ = shared.queue.hold(message).await;
            return;
        };
        let mut recipients = job.recipients;
        recipients.extend(job.ended);
        says.add(&mut recipients);
        ends.push(End { lease: job.lease, recipients, after: After::Keep });
    }
    if ends.is_empty() {
        return;
    }
    if let Some(written) = write_back(shared, message, outside, says, ends).await {
        written.observe(shared, message, outside);
    }
}
