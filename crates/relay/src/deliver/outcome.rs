//! Settles a delivery: which recipients are done, which are tried again, and what is reported.
//!
//! One record for each recipient makes the report, the event and the log line. While other
//! deliveries of the message are under way, outcomes to be reported stay in the record. The sender
//! gets one report of all when [the round](super::round) is over.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use posthaste_queue::{Derived, GatherWhen, Owner, Queue};
use posthaste_server::{
    Envelope,
    wire::{EnhancedCode, ForwardPath, Rcpt, Reply},
};
use tracing::{info, warn};

use super::{
    job::{Fate, Job},
    round,
    routing::NO_ROUTE,
    words::Words,
    write_back::{After, End, Says, beginning, report_labels, write_back},
};
use crate::{
    Diagnostic, Event, NotReported,
    message::{Origin, new_message},
    record::{Last, Recipient, Told},
    report::{self, Action},
    shared::Shared,
};

/// What is written back, and observed once it is.
#[derive(Debug, Default)]
struct Settlement {
    /// Recipients that are tried again, and recipients with an outcome to be reported.
    recipients: Vec<Recipient>,
    /// The time until the next attempt.
    retry_in: Duration,
    delivered: Vec<(ForwardPath, String, Reply, bool)>,
    deferred: Vec<(ForwardPath, Diagnostic)>,
    failed: Vec<(Rcpt, Diagnostic)>,
    discarded: Vec<ForwardPath>,
    /// Failures that are not reported: the sender does not want to hear of them, or the
    /// reverse-path is null.
    unheard: usize,
}

impl Job {
    /// Writes back the outcome of an attempt. A report is queued exactly when its outcomes are
    /// recorded.
    pub(super) async fn settle<Q: Queue, R>(mut self, shared: &Shared<Q, R>, fates: Vec<Fate>) {
        let options = Arc::clone(&self.options);
        let retry = &options.delivery.retry;
        // The age of a held message counts from its release.
        let age = self.age().saturating_sub(self.outside.held());
        // The recipients stay together: the one that may come back first decides.
        let words = fates.iter().filter_map(|fate| match fate {
            Fate::NotNow(_, words) => Some(*words),
            Fate::Delivered { .. } | Fate::Never(_) => None,
        });
        let wait = words.map(|words| retry.wait(words, self.attempts)).min();
        let wait = wait.unwrap_or_else(|| retry.wait(Words::default(), self.attempts));
        let retry_in = retry.next(wait, age, self.until_deadline());
        // What is held for an operator does not expire by itself.
        let retry_in = if self.damage().is_some() { retry_in.or(Some(wait)) } else { retry_in };
        // The time of BY has run out during the attempt: what follows is done at once.
        let retry_in = if self.overdue().is_some() { retry_in.map(|_| Duration::ZERO) } else { retry_in };
        let is_delayed = retry.warn_after.is_some_and(|after| age >= after);
        let at = Some(Timestamp::now().as_second());
        let mut settlement = Settlement { retry_in: retry_in.unwrap_or_default(), ..Settlement::default() };
        for (mut recipient, fate) in std::mem::take(&mut self.recipients).into_iter().zip(fates) {
            match (fate, retry_in) {
                (Fate::Delivered { remote, reply, tls, owes }, _) => {
                    let path = recipient.rcpt.forward_path.clone();
                    if let Some(action) = owes.filter(|action| self.hears(&recipient, *action)) {
                        let last = Some(Last { at, why: Diagnostic::reply(&remote, &reply) });
                        settlement.recipients.push(Recipient { news: Some(action), last, ..recipient });
                    }
                    settlement.delivered.push((path, remote, reply, tls));
                }
                (Fate::NotNow(why, _), Some(_)) => {
                    let is_first = is_delayed && !std::mem::replace(&mut recipient.told.delay, true);
                    if is_first && self.hears(&recipient, Action::Delayed) {
                        recipient.news = Some(Action::Delayed);
                    }
                    settlement.deferred.push((recipient.rcpt.forward_path.clone(), why.clone()));
                    settlement.recipients.push(Recipient { last: Some(Last { at, why }), ..recipient });
                }
                (Fate::NotNow(why, _) | Fate::Never(why), _) => {
                    self.fail(&mut settlement, recipient, Last { at, why });
                }
            }
        }
        self.finish(shared, settlement, GatherWhen::AtRest).await;
    }

    /// Fails all recipients: the time of BY in mode R is over, and no further attempt may be made
    /// (RFC 2852 section 4.1.3).
    pub(super) async fn return_overdue<Q: Queue, R>(mut self, shared: &Shared<Q, R>) {
        let mut settlement = Settlement::default();
        for recipient in std::mem::take(&mut self.recipients) {
            let last = overdue(recipient.last.as_ref(), EnhancedCode::new(5, 4, 7));
            self.fail(&mut settlement, recipient, last);
        }
        self.finish(shared, settlement, GatherWhen::AtRest).await;
    }

    /// Reports once that the time of BY in mode N is over. The attempts go on at once (RFC 2852
    /// section 4.1.3).
    pub(super) async fn tell_overdue<Q: Queue, R>(mut self, shared: &Shared<Q, R>) {
        let mut recipients = std::mem::take(&mut self.recipients);
        for recipient in &mut recipients {
            if self.hears_of_deadline(recipient) {
                recipient.news = Some(Action::Delayed);
                recipient.last = Some(overdue(recipient.last.as_ref(), EnhancedCode::new(4, 4, 7)));
            }
            recipient.told = Told { delay: true, deadline: true };
        }
        self.finish(shared, Settlement { recipients, ..Settlement::default() }, GatherWhen::AtRest).await;
    }

    /// Throws the message away for all recipients, as its route says.
    pub(super) async fn discard<Q: Queue, R>(mut self, shared: &Shared<Q, R>) {
        let recipients = std::mem::take(&mut self.recipients).into_iter();
        let discarded = recipients.map(|recipient| recipient.rcpt.forward_path).collect();
        self.finish(shared, Settlement { discarded, ..Settlement::default() }, GatherWhen::AtRest).await;
    }

    /// Reports outcomes that have waited long enough for the message's other deliveries.
    pub(super) async fn report_ended<Q: Queue, R>(self, shared: &Shared<Q, R>) {
        self.finish(shared, Settlement::default(), GatherWhen::Now).await;
    }

    fn fail(&self, settlement: &mut Settlement, recipient: Recipient, last: Last) {
        settlement.failed.push((recipient.rcpt.clone(), last.why.clone()));
        if self.hears(&recipient, Action::Failed) {
            settlement.recipients.push(Recipient { news: Some(Action::Failed), last: Some(last), ..recipient });
        } else {
            settlement.unheard += 1;
        }
    }

    async fn finish<Q: Queue, R>(mut self, shared: &Shared<Q, R>, settlement: Settlement, when: GatherWhen) {
        let (message, age, is_alone) = (self.lease.message(), self.age(), self.others == 0);
        let Settlement { mut recipients, retry_in, delivered, deferred, failed, discarded, unheard } = settlement;
        recipients.append(&mut self.ended);
        let waits = recipients.iter().any(Recipient::waits);
        let plain = if failed.is_empty() { None } else { self.without_content(shared, &failed).await };
        let is_sent_plain = plain.is_some();
        let says = match plain {
            Some(plain) => Says::Plain(Box::new(plain)),
            // If the client was not trusted, the sender gets one report, at the message's end.
            None if is_alone && (self.outside.trusted || !waits) => Says::report(&mut recipients),
            None => Says::Nothing,
        };
        let after = After::Retry(if waits { retry_in } else { round::patience(&self.outside) });
        let ends = vec![End { lease: self.lease, recipients, after }];
        let Some(written) = write_back(shared, message, &self.outside, says, ends).await else { return };
        // Observed only after it is recorded.
        for (recipient, remote, reply, tls) in &delivered {
            shared.observe(&Event::Delivered { message, recipient, remote, reply, tls: *tls, age });
        }
        for (recipient, diagnostic) in &deferred {
            shared.observe(&Event::Deferred { message, recipient, diagnostic, retry_in });
        }
        for (rcpt, diagnostic) in &failed {
            shared.observe(&Event::Failed { message, recipient: &rcpt.forward_path, diagnostic });
        }
        for recipient in &discarded {
            shared.observe(&Event::Discarded { message, recipient, age });
        }
        written.observe(shared, message, &self.outside);
        if is_sent_plain {
            info!(%message, "report refused, sent again without the message that it returned");
        } else if unheard > 0 {
            let is_null = self.outside.mail.reverse_path.mailbox().is_none();
            // Clients are refused such recipients. Only reports are queued for them.
            let no_route = |(_, why): &&(Rcpt, Diagnostic)| why.remote.is_none() && why.text.starts_with(NO_ROUTE);
            if let Some((rcpt, why)) = failed.iter().find(no_route).filter(|_| is_null) {
                let recipient = &rcpt.forward_path;
                warn!(%message, %recipient, %why, "report not sent, and its recipient never hears that mail was not delivered; add a route for all other domains");
            }
            let because = if is_null { NotReported::NullSender } else { NotReported::NotWanted };
            shared.observe(&Event::NotReported { message, because });
        }
        if !is_alone {
            round::close(shared, message, &self.outside, when).await;
        }
    }

    /// A failed report of ours, without the message that it returned whole, for the same
    /// recipients. `None`: this is no such report.
    async fn without_content<Q: Queue, R>(
        &self,
        shared: &Shared<Q, R>,
        failed: &[(Rcpt, Diagnostic)],
    ) -> Option<Derived> {
        if !self.outside.returns_whole {
            return None;
        }
        // Without its front, which signs what is cut off here.
        let whole = beginning(shared, &self.lease, &Bytes::new(), usize::MAX).await?;
        let body = report::without_content(&whole.octets)?;
        let own_name = &self.options.host_name;
        let front = shared.signatures.of_report(&self.options, &body, self.lease.message()).await;
        let mut mail = self.outside.mail.clone();
        let octets = front.len().saturating_add(body.len());
        (mail.size, mail.body) = (u64::try_from(octets).ok(), None);
        let recipients = failed.iter().map(|(rcpt, _)| rcpt.clone()).collect();
        let envelope = Envelope::from_commands(mail, recipients);
        let labels = report_labels(&self.options, &shared.hooks, self.lease.message(), &envelope).await;
        let origin = Origin { all_ascii: body.is_ascii(), front, labels, ..Origin::default() };
        let message = new_message(own_name, Owner::default(), &envelope, origin).ok()?;
        Some(Derived { message, body })
    }
}

/// The outcome of a recipient whose BY time is over: the last reason, with the status of a missed
/// deadline.
fn overdue(last: Option<&Last>, status: Option<EnhancedCode>) -> Last {
    let late = Diagnostic::own(status, "The time that was given for the delivery is over");
    match last {
        Some(Last { at, why }) => Last { at: *at, why: Diagnostic { status: late.status, ..why.clone() } },
        None => Last { at: None, why: late },
    }
}
