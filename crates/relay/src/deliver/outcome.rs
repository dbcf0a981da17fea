//! What came of a delivery, written back in one step: who has it, who is tried again, who is reported.

use std::time::Duration;

use jiff::Timestamp;
use posthaste_queue::{Body, Derived, Outcome, Owner, Queue};
use posthaste_server::{
    Envelope,
    wire::{EnhancedCode, ForwardPath, Rcpt, Reply, ReversePath, parameter::DeliverByMode},
};
use tracing::{error, warn};

use super::job::{Job, Verdict};
use crate::{
    Diagnostic, Event,
    message::{Origin, new_message},
    record::{Deferral, Recipient, Told, encode_recipients},
    report::{self, About, Action, Entry, MAX_HEADER, Original},
    shared::Shared,
};

/// What is to be written back.
#[derive(Debug, Default)]
struct Settlement {
    delivered: Vec<(ForwardPath, String, Reply)>,
    /// What there is to say of recipients, wanted or not.
    entries: Vec<Entry>,
    waiting: Vec<Recipient>,
    /// When those who wait are tried again.
    retry_in: Duration,
    /// Whether those who wait were tried.
    deferred: bool,
}

impl Job {
    /// Writes back what came of an attempt. A report exists exactly when what it says is recorded.
    pub(super) async fn settle<Q: Queue, R>(mut self, shared: &Shared<Q, R>, verdicts: Vec<Verdict>) {
        let retry = &shared.options.delivery.retry;
        // What was held is as old as its release.
        let age = self.age().saturating_sub(self.outside.held());
        let retry_in = retry.next(self.attempts, age, self.until_deadline());
        // The time of BY has run out meanwhile: what follows from that is done at once.
        let retry_in = if self.overdue().is_some() { retry_in.map(|_| Duration::ZERO) } else { retry_in };
        let is_delayed = retry.warn_after.is_some_and(|after| age >= after);
        let now = Timestamp::now().as_second();
        let mut settlement =
            Settlement { retry_in: retry_in.unwrap_or_default(), deferred: true, ..Settlement::default() };
        let Settlement { delivered, entries, waiting, .. } = &mut settlement;
        for (recipient, verdict) in std::mem::take(&mut self.recipients).into_iter().zip(verdicts) {
            let Recipient { rcpt, mut told, .. } = recipient;
            match (verdict, retry_in) {
                (Verdict::Delivered { remote, reply, owes_report }, _) => {
                    let path = rcpt.forward_path.clone();
                    if owes_report {
                        let diagnostic = Diagnostic::reply(&remote, &reply);
                        entries.push(Entry { rcpt, action: Action::Relayed, diagnostic, attempted: Some(now) });
                    }
                    delivered.push((path, remote, reply));
                }
                (Verdict::NotNow(why), Some(_)) => {
                    if is_delayed && !std::mem::replace(&mut told.delay, true) {
                        let (rcpt, diagnostic) = (rcpt.clone(), why.clone());
                        entries.push(Entry { rcpt, action: Action::Delayed, diagnostic, attempted: Some(now) });
                    }
                    waiting.push(Recipient { rcpt, told, last: Some(Deferral { at: Some(now), why }) });
                }
                (Verdict::NotNow(diagnostic) | Verdict::Never(diagnostic), _) => {
                    entries.push(Entry { rcpt, action: Action::Failed, diagnostic, attempted: Some(now) });
                }
            }
        }
        self.finish(shared, settlement).await;
    }

    /// Gives everybody up: the time of BY in mode R is over, and nothing more may be tried (RFC 2852 section 4.1.3).
    pub(super) async fn return_overdue<Q: Queue, R>(mut self, shared: &Shared<Q, R>) {
        let entries = std::mem::take(&mut self.recipients).into_iter().map(|recipient| {
            let (attempted, diagnostic) = overdue(recipient.last.as_ref(), EnhancedCode::new(5, 4, 7));
            Entry { rcpt: recipient.rcpt, action: Action::Failed, diagnostic, attempted }
        });
        let settlement = Settlement { entries: entries.collect(), ..Settlement::default() };
        self.finish(shared, settlement).await;
    }

    /// Tells the sender that the time of BY in mode N is over, once; the attempts go on at once (RFC 2852 section 4.1.3).
    pub(super) async fn tell_overdue<Q: Queue, R>(mut self, shared: &Shared<Q, R>) {
        let hears = self.recipients.iter().filter(|recipient| self.hears_of_deadline(recipient)).map(|recipient| {
            let (attempted, diagnostic) = overdue(recipient.last.as_ref(), EnhancedCode::new(4, 4, 7));
            Entry { rcpt: recipient.rcpt.clone(), action: Action::Delayed, diagnostic, attempted }
        });
        let entries = hears.collect();
        let mut waiting = std::mem::take(&mut self.recipients);
        waiting.iter_mut().for_each(|recipient| recipient.told = Told { delay: true, deadline: true });
        self.finish(shared, Settlement { entries, waiting, ..Settlement::default() }).await;
    }

    async fn finish<Q: Queue, R>(self, shared: &Shared<Q, R>, settlement: Settlement) {
        let message = self.lease.message();
        let Settlement { delivered, entries, waiting, retry_in, deferred } = settlement;
        let wanted: Vec<_> = entries.iter().filter(|entry| entry.action.is_wanted(entry.rcpt.notify)).collect();
        let derived = self.report(shared, &wanted).await;
        let outcome = match &waiting[..] {
            [] => Outcome::Done,
            waiting => match encode_recipients(waiting) {
                Ok(state) => Outcome::Retry { delay: retry_in, state },
                Err(error) => {
                    // It was read from the same form; the lease runs out and it is tried again.
                    error!(%message, %error, "a delivery's state cannot be written down");
                    return;
                }
            },
        };
        let age = self.age();
        let reports = match shared.queue.finish(self.lease, outcome, derived).await {
            Ok(reports) => reports,
            Err(error) => {
                warn!(%message, %error, "what came of a delivery cannot be recorded; it may be delivered once more");
                return;
            }
        };
        // Told only once it is recorded.
        for (recipient, remote, reply) in &delivered {
            shared.observe(&Event::Delivered { message, recipient, remote, reply, age });
        }
        for Recipient { rcpt, last, .. } in waiting.iter().filter(|_| deferred) {
            if let Some(Deferral { why, .. }) = last {
                let recipient = &rcpt.forward_path;
                shared.observe(&Event::Deferred { message, recipient, diagnostic: why, retry_in });
            }
        }
        for Entry { rcpt, diagnostic, .. } in entries.iter().filter(|entry| entry.action == Action::Failed) {
            shared.observe(&Event::Failed { message, recipient: &rcpt.forward_path, diagnostic });
        }
        let count =
            |entries: &mut dyn Iterator<Item = &Entry>, action| entries.filter(|entry| entry.action == action).count();
        let [failed, delayed, relayed] = [Action::Failed, Action::Delayed, Action::Relayed]
            .map(|action| if reports.is_empty() { 0 } else { count(&mut wanted.iter().copied(), action) });
        let sender = &self.outside.mail.reverse_path;
        for report in reports {
            shared.observe(&Event::Reported { message, report, sender, failed, delayed, relayed });
        }
        if failed == 0 && count(&mut entries.iter(), Action::Failed) > 0 {
            shared.observe(&Event::NotReported { message });
        }
    }

    /// The report of these entries, unless there are none, or nobody to send it to.
    async fn report<Q: Queue, R>(&self, shared: &Shared<Q, R>, entries: &[&Entry]) -> Vec<Derived> {
        // Never about a report (RFC 5321 section 6.1).
        let ReversePath::Mailbox(sender) = &self.outside.mail.reverse_path else { return Vec::new() };
        if entries.is_empty() {
            return Vec::new();
        }
        let (own_name, message) = (&shared.options.host_name, self.lease.message());
        let original = self.original(shared, entries).await;
        let will_retry_until = self.will_retry_until(shared.options.delivery.retry.expire_after);
        let about = About { own_name, message, outside: &self.outside, will_retry_until, now: Timestamp::now() };
        let report = report::write(&about, entries, &original);
        let rcpt = Rcpt::new(ForwardPath::Mailbox(sender.borrowed())).into_owned();
        let envelope = Envelope { mail: report.mail, recipients: vec![rcpt] };
        let origin = Origin { client: None, all_ascii: report.body.is_ascii() };
        match new_message(own_name, Owner::default(), &envelope, origin) {
            Ok(message) => vec![Derived { message, body: report.body }],
            Err(error) => {
                error!(%message, %error, "a report cannot be addressed");
                Vec::new()
            }
        }
    }

    /// When the message is given up, in seconds since 1970.
    fn will_retry_until(&self, expire_after: Duration) -> i64 {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let age = seconds(self.outside.held().saturating_add(expire_after));
        let by = self.outside.mail.by.filter(|by| by.mode == DeliverByMode::Return);
        let age = by.map_or(age, |by| age.min(by.seconds.into()));
        self.outside.accepted.saturating_add(age)
    }

    /// As much of the message as a report of these entries returns.
    async fn original<Q: Queue, R>(&self, shared: &Shared<Q, R>, entries: &[&Entry]) -> Original {
        let mut original = Original::default();
        let Ok(mut body) = shared.queue.body(&self.lease).await else { return original };
        let small = body.len() <= shared.options.delivery.return_at_most.min(MAX_RETURNED);
        let whole = small && report::returns_whole(&self.outside.mail, entries);
        loop {
            let octets = &mut original.octets;
            match body.next().await {
                Ok(Some(piece)) => {
                    // The end of the header may lie across two pieces.
                    let seen = octets.len().saturating_sub(3);
                    octets.extend_from_slice(&piece);
                    let new = octets.get(seen..).unwrap_or_default();
                    let has_header = new.windows(4).any(|window| window == b"\r\n\r\n");
                    if !whole && (has_header || octets.len() >= MAX_HEADER) {
                        return original;
                    }
                }
                Ok(None) => {
                    original.whole = whole;
                    return original;
                }
                Err(_) => return original,
            }
        }
    }
}

/// The most that a report returns, whatever the options say: half of what the queue takes for all that an outcome derives.
const MAX_RETURNED: u64 = 4 << 20;

/// What is said of a recipient for whom the time of BY is over: what kept it last, with the status for that.
fn overdue(last: Option<&Deferral>, status: Option<EnhancedCode>) -> (Option<i64>, Diagnostic) {
    let late = Diagnostic::own(status, "The time that was given for the delivery is over");
    match last {
        Some(Deferral { at, why }) => (*at, Diagnostic { status: late.status, ..why.clone() }),
        None => (None, late),
    }
}
