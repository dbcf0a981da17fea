//! One report for a round of attempts. When none of a message's deliveries is under way any more,
//! their outcomes to be reported are gathered. They are written back together with the report, in
//! one step.
//!
//! Each delivery is written back first and looks for the others afterwards. So the last one of a
//! round finds them all. If the process ends in between, the outcomes stay in the queue, where they
//! fall due by themselves.

use std::{sync::Arc, time::Duration};

use posthaste_queue::{Gather, GatherWhen, MessageId, Queue};
use tracing::warn;

use super::{
    job::Job,
    write_back::{After, End, Says, set_aside, write_back},
};
use crate::{
    record::{Outside, Remaining},
    shared::Shared,
};

/// The longest wait of an outcome to be reported for the message's other deliveries. If the client
/// was trusted: two minutes. Otherwise the sender gets one report, at the message's end; the relay
/// looks for that end once an hour, in case a process ended just then.
pub(super) const fn patience(outside: &Outside) -> Duration {
    if outside.trusted { Duration::from_secs(120) } else { Duration::from_secs(3_600) }
}

/// Reports the outcomes of a message, if `when` holds. If the client was not trusted, that is at
/// the message's end alone.
pub(super) async fn close<Q: Queue, R>(shared: &Shared<Q, R>, message: MessageId, outside: &Outside, when: GatherWhen) {
    const ENDED: [u8; 2] = Remaining::Ended.mark();
    const BOTH: [u8; 2] = Remaining::Both.mark();
    let (marks, when): (&[&[u8]], _) =
        if outside.trusted { (&[&ENDED, &BOTH], when) } else { (&[&ENDED], GatherWhen::Alone) };
    let options = shared.options();
    let gather = Gather { message, marks, when, lease: options.delivery.lease };
    let gathered = match shared.queue.gather(gather).await {
        Ok(gathered) => gathered,
        // The outcomes fall due by themselves.
        Err(error) => return warn!(%message, %error, "report postponed, queue not readable"),
    };
    let mut ends = Vec::with_capacity(gathered.len());
    let mut says = Says::Nothing;
    for claimed in gathered {
        let job = match Job::open(claimed, Arc::clone(&options)) {
            Ok(job) => job,
            Err(error) => return set_aside(shared, message, &error.to_string()).await,
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
