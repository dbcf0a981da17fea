//! What came of a delivery, written back in one step: who has it, who is tried again, who is reported.

use posthaste_queue::{Body, Derived, Outcome, Owner, Queue};
use posthaste_server::{
    Envelope,
    wire::{ForwardPath, Mail, Rcpt, ReversePath},
};
use tracing::{error, warn};

use super::job::{Job, Verdict};
use crate::{
    Event,
    message::new_message,
    record::{Recipient, encode_recipients},
    report::{self, Failure, MAX_RETURNED},
    shared::Shared,
};

impl Job {
    /// Writes back what came of it. A report exists exactly when its failures are recorded.
    pub(super) async fn settle<Q: Queue, R>(mut self, shared: &Shared<Q, R>, verdicts: Vec<Verdict>) {
        let message = self.lease.message();
        let retry_in = shared.options.delivery.retry.next(self.attempts, self.age);
        let (mut delivered, mut failures, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (recipient, verdict) in std::mem::take(&mut self.recipients).into_iter().zip(verdicts) {
            let rcpt = recipient.rcpt;
            match (verdict, retry_in) {
                (Verdict::Delivered { remote, reply }, _) => delivered.push((rcpt.forward_path, remote, reply)),
                (Verdict::NotNow(diagnostic), Some(_)) => waiting.push(Recipient { rcpt, last: Some(diagnostic) }),
                (Verdict::NotNow(diagnostic) | Verdict::Never(diagnostic), _) => {
                    failures.push(Failure { rcpt, diagnostic });
                }
            }
        }
        let derived = self.report(shared, &failures).await;
        let outcome = match (&waiting[..], retry_in) {
            ([], _) | (_, None) => Outcome::Done,
            (waiting, Some(delay)) => match encode_recipients(waiting) {
                Ok(state) => Outcome::Retry { delay, state },
                Err(error) => {
                    // It was read from the same form; the lease runs out and it is tried again.
                    error!(%message, %error, "a delivery's state cannot be written down");
                    return;
                }
            },
        };
        let reported = !derived.is_empty();
        let reports = match shared.queue.finish(self.lease, outcome, derived).await {
            Ok(reports) => reports,
            Err(error) => {
                warn!(%message, %error, "what came of a delivery cannot be recorded; it may be delivered once more");
                return;
            }
        };
        // Told only once it is recorded.
        for (recipient, remote, reply) in &delivered {
            shared.observe(&Event::Delivered { message, recipient, remote, reply, age: self.age });
        }
        for Recipient { rcpt, last } in &waiting {
            if let (Some(diagnostic), Some(retry_in)) = (last, retry_in) {
                shared.observe(&Event::Deferred { message, recipient: &rcpt.forward_path, diagnostic, retry_in });
            }
        }
        for failure in &failures {
            let (recipient, diagnostic) = (&failure.rcpt.forward_path, &failure.diagnostic);
            shared.observe(&Event::Failed { message, recipient, diagnostic });
        }
        let sender = &self.outside.mail.reverse_path;
        for report in reports {
            shared.observe(&Event::Reported { message, report, sender });
        }
        if !failures.is_empty() && !reported {
            shared.observe(&Event::NotReported { message });
        }
    }

    /// The report of these failures, unless there is nobody to send it to or nobody wants it.
    async fn report<Q: Queue, R>(&self, shared: &Shared<Q, R>, failures: &[Failure]) -> Vec<Derived> {
        // Never about a report (RFC 5321 section 6.1), and never against NOTIFY (RFC 3461 section 4.1).
        let ReversePath::Mailbox(sender) = &self.outside.mail.reverse_path else { return Vec::new() };
        let wanted: Vec<_> = failures
            .iter()
            .filter(|failure| failure.rcpt.notify.is_none_or(|notify| notify.failure))
            .map(|failure| Failure { rcpt: failure.rcpt.clone(), diagnostic: failure.diagnostic.clone() })
            .collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let own_name = &shared.options.host_name;
        let message = self.lease.message();
        let header = self.start_of_message(shared).await;
        let body = report::failure(own_name, message, &self.outside, &wanted, &header);
        let mail = Mail { size: u64::try_from(body.len()).ok(), ..Mail::new(ReversePath::Null).into_owned() };
        let rcpt = Rcpt::new(ForwardPath::Mailbox(sender.borrowed())).into_owned();
        let envelope = Envelope { mail, recipients: vec![rcpt] };
        match new_message(own_name, Owner::default(), &envelope) {
            Ok(message) => vec![Derived { message, body }],
            Err(error) => {
                error!(%message, %error, "a report cannot be addressed");
                Vec::new()
            }
        }
    }

    async fn start_of_message<Q: Queue, R>(&self, shared: &Shared<Q, R>) -> Vec<u8> {
        let mut start = Vec::new();
        let Ok(mut body) = shared.queue.body(&self.lease).await else { return start };
        while let Ok(Some(piece)) = body.next().await {
            // The end of the header may lie across two pieces.
            let seen = start.len().saturating_sub(3);
            start.extend_from_slice(&piece);
            let has_header = start.get(seen..).is_some_and(|new| new.windows(4).any(|window| window == b"\r\n\r\n"));
            if has_header || start.len() >= MAX_RETURNED {
                start.truncate(MAX_RETURNED);
                break;
            }
        }
        start
    }
}
