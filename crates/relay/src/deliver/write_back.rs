//! Writes back the outcomes of deliveries, with their report, in one step that always fits.
//!
//! The sizes are bounded at their source. A recipient keeps so little diagnostic text that all
//! states fit, and a report is no larger than the queue takes. If the queue refuses all the same,
//! the least form is written. If it refuses that too, the message is held: a message that may have
//! been delivered is never delivered again by itself.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use posthaste_queue::{Body, Derived, Lease, LeaseError, MAX_DERIVED, MessageId, Outcome, Owner, Queue};
use posthaste_server::{
    Envelope,
    wire::{EncodeError, ForwardPath, Mail, Mailbox, Rcpt, parameter::DeliverByMode},
};
use tokio::{sync::SemaphorePermit, time::timeout};
use tracing::{error, warn};

use super::{hints::Hint, routing::PATIENCE};
use crate::{
    Event, NotReported, RelayOptions,
    hooks::Hooks,
    labels::{Known, Labels},
    message::{Origin, new_message, whole_len},
    record::{Outside, Recipient, encode_recipients},
    report::{self, About, Action, Budget, Entry, Grant, MAX_HEADER, Original},
    shared::Shared,
};

/// The outcome of one delivery.
#[derive(Debug)]
pub(super) struct End {
    pub(super) lease: Lease,
    /// Recipients with something left to do.
    pub(super) recipients: Vec<Recipient>,
    /// When to do it, if there are any.
    pub(super) after: After,
}

/// When the rest of a delivery is due.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// After this time.
    Retry(Duration),
    /// At the time at which it was due before.
    Keep,
}

/// What is sent because of the outcomes.
#[derive(Debug)]
pub(super) enum Says {
    Nothing,
    /// A report to the sender.
    Report(Vec<Entry>),
    /// A failed report again, without the message that it returned.
    Plain(Box<Derived>),
}

impl Says {
    /// Makes a report of all news of these recipients. Only recipients that wait for their delivery
    /// stay in the list.
    pub(super) fn report(recipients: &mut Vec<Recipient>) -> Self {
        let mut says = Self::Nothing;
        says.add(recipients);
        says
    }

    /// Adds all news of these recipients in the same way.
    pub(super) fn add(&mut self, recipients: &mut Vec<Recipient>) {
        let mut entries: Vec<_> = recipients.iter().filter_map(Entry::of).collect();
        recipients.retain_mut(|recipient| {
            let waits = recipient.waits();
            recipient.news = None;
            waits
        });
        match self {
            Self::Report(all) => all.append(&mut entries),
            _ if entries.is_empty() => {}
            says => *says = Self::Report(entries),
        }
    }
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    reports: Vec<MessageId>,
    /// How many recipients the report calls failed, delayed, relayed and delivered.
    counts: [usize; 4],
    /// Octets of the message that was sent.
    octets: Option<usize>,
    /// There was news, and no report of it: the sender has had its share.
    is_withheld: bool,
}

impl Written {
    /// Observes what was reported.
    pub(super) fn observe<Q, R>(&self, shared: &Shared<Q, R>, message: MessageId, outside: &Outside) {
        let (sender, [failed, delayed, relayed, delivered]) = (&outside.mail.reverse_path, self.counts);
        if self.counts == [0; 4] {
            return;
        }
        for report in self.reports.iter().copied() {
            shared.observe(&Event::Reported { message, report, sender, failed, delayed, relayed, delivered });
        }
        if self.is_withheld {
            shared.observe(&Event::NotReported { message, because: NotReported::TooMany });
        }
    }
}

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Usual,
    /// The least that is possible.
    Least,
}

/// Writes all outcomes back, or none. `None`: none, and the log has the reason.
pub(super) async fn write_back<Q: Queue, R>(
    shared: &Shared<Q, R>,
    message: MessageId,
    outside: &Outside,
    says: Says,
    ends: Vec<End>,
) -> Option<Written> {
    let mut letter = Letter::new(shared, message, outside, says, ends.first()).await;
    let mut written = None;
    for form in [Form::Usual, Form::Least] {
        let outcomes = ends.iter().map(|end| Ok((copied(&end.lease), end.outcome(outside, form)?)));
        let outcomes = match outcomes.collect::<Result<Vec<_>, EncodeError>>() {
            Ok(outcomes) => outcomes,
            Err(error) => {
                error!(%message, %error, "outcome not recorded, it cannot be encoded");
                break;
            }
        };
        let (derived, octets) = letter.write(shared, message, outside, form).await.unzip();
        let hint = derived.as_ref().map(|derived| Hint::of(&derived.message));
        match shared.queue.finish_all(outcomes, derived.into_iter().collect()).await {
            Ok(reports) => {
                hint.into_iter().for_each(|hint| shared.hints.add(hint));
                written = Some(letter.written(reports, octets));
                break;
            }
            Err(LeaseError::TooLarge(error)) => warn!(%message, %error, "outcome not recorded, too large"),
            Err(error) => {
                warn!(%message, %error, "outcome not recorded, delivery may be repeated");
                letter.give_back(None);
                return None;
            }
        }
    }
    letter.give_back(written.as_ref().and_then(|written| written.octets));
    if written.is_none() {
        set_aside(shared, message, "its outcome cannot be recorded, and it may have been delivered").await;
    }
    written
}

/// Holds a message that the relay must not or cannot deliver. It is never thrown away: an operator
/// can look at it, and release or remove it. All other mail goes on.
pub(super) async fn set_aside<Q: Queue, R>(shared: &Shared<Q, R>, message: MessageId, why: &str) {
    match shared.queue.hold(message).await {
        Ok(true) => shared.observe(&Event::SetAside { message, why }),
        // Another delivery of the message was found to be so.
        Ok(false) => {}
        Err(error) => error!(%message, why, %error, "message not held, delivery may be repeated"),
    }
}

impl End {
    fn outcome(&self, outside: &Outside, form: Form) -> Result<Outcome, EncodeError> {
        if self.recipients.is_empty() {
            return Ok(Outcome::Done);
        }
        let room = if form == Form::Least { 0 } else { outside.room };
        let state = encode_recipients(&self.recipients, room)?;
        Ok(match self.after {
            After::Retry(delay) => Outcome::Retry { delay, state },
            After::Keep => Outcome::Keep { state },
        })
    }
}

/// A copy of a lease, for another try to write back.
fn copied(lease: &Lease) -> Lease {
    Lease::new(lease.message(), lease.delivery(), lease.generation())
}

/// What is sent, before it is written.
enum Letter<'s> {
    Nothing,
    Plain(Box<Derived>),
    Report {
        to: Mailbox,
        entries: Vec<Entry>,
        original: Original,
        /// How much the sender may be told, and from which budget. `None`: any number of reports.
        grant: Option<(&'s Budget, Grant)>,
        _permit: Option<SemaphorePermit<'s>>,
    },
    /// The sender has had as many reports as it may.
    Withheld(Vec<Entry>),
}

impl<'s> Letter<'s> {
    async fn new<Q: Queue, R>(
        shared: &'s Shared<Q, R>,
        message: MessageId,
        outside: &Outside,
        says: Says,
        end: Option<&End>,
    ) -> Self {
        let entries = match says {
            Says::Nothing => return Self::Nothing,
            Says::Plain(derived) => return Self::Plain(derived),
            Says::Report(entries) => entries,
        };
        // Never about a report (RFC 5321 section 6.1): a null sender gets no news.
        let (Some(to), Some(end)) = (outside.mail.reverse_path.mailbox(), end) else { return Self::Nothing };
        let permit = shared.reporting.acquire().await.ok();
        let most = match report::returns_whole(outside, &entries) {
            true => usize::try_from(shared.options().delivery.return_at_most).unwrap_or(usize::MAX).min(MAX_RETURNED),
            false => 0,
        };
        let mut original = beginning(shared, &end.lease, &outside.front, most).await.unwrap_or_default();
        let options = shared.options();
        let options = &options.delivery;
        let (budget, most, came_in) = if outside.trusted {
            // The number alone is bounded, not the octets.
            (&shared.trusted_reports, options.trusted_reports, u64::MAX)
        } else {
            original.octets.truncate(HEADER_FOR_STRANGERS);
            (&shared.reports, Some(options.stranger_reports), original.of.saturating_sub(OWN_TRACE))
        };
        let mut grant = None;
        if let Some(most) = most {
            let Some(granted) = budget.take(most, &to.to_string(), came_in) else {
                warn!(%message, sender = %to, "report withheld, this sender has had its reports for this hour");
                return Self::Withheld(entries);
            };
            grant = Some((budget, granted));
        }
        Self::Report { to: to.clone(), entries, original, grant, _permit: permit }
    }

    /// What is sent, and its octets.
    async fn write<Q, R>(
        &mut self,
        shared: &Shared<Q, R>,
        message: MessageId,
        outside: &Outside,
        form: Form,
    ) -> Option<(Derived, usize)> {
        let Self::Report { to, entries, original, grant, .. } = self else {
            return match self {
                Self::Plain(derived) => Some(((**derived).clone(), derived.body.len())),
                _ => None,
            };
        };
        let options = shared.options();
        let own_name = &options.host_name;
        let will_retry_until = until(outside, options.delivery.retry.expire_after);
        let about =
            About { own_name, words: &options.report_words, message, outside, will_retry_until, now: Timestamp::now() };
        let granted = grant.as_ref().map_or(MAX_REPORT, |(_, grant)| grant.octets.min(MAX_REPORT));
        let most = if form == Form::Least { 0 } else { granted };
        let report = report::write(&about, to, entries, original, most);
        if report.body.len() > granted {
            warn!(%message, sender = %to, "report withheld, larger than this sender may get");
            return None;
        }
        let mut front = shared.signatures.of_report(&options, &report.body, message).await;
        // An unsigned report is better than a shorter one, or none.
        if front.len() > granted.saturating_sub(report.body.len()) {
            front = Bytes::new();
        }
        let octets = front.len().saturating_add(report.body.len());
        let rcpt = Rcpt::new(ForwardPath::Mailbox(report.to.borrowed())).into_owned();
        let mail = Mail { size: u64::try_from(octets).ok(), ..report.mail };
        let mut envelope = Envelope::from_commands(mail, vec![rcpt]);
        options.forward_postmaster(None, &mut envelope);
        let (all_ascii, returns_whole) = (report.body.is_ascii(), report.returns_whole);
        let labels = report_labels(&options, &shared.hooks, message, &envelope).await;
        let origin = Origin { all_ascii, trusted: outside.trusted, returns_whole, front, labels, ..Origin::default() };
        match new_message(own_name, Owner::default(), &envelope, origin) {
            Ok(message) => Some((Derived { message, body: report.body }, octets)),
            Err(error) => {
                error!(%message, %error, "report not sent, its envelope cannot be recorded");
                None
            }
        }
    }

    fn written(&self, reports: Vec<MessageId>, octets: Option<usize>) -> Written {
        let (Self::Report { entries, .. } | Self::Withheld(entries)) = self else {
            return Written { reports, octets, counts: [0; 4], is_withheld: false };
        };
        let count = |action| entries.iter().filter(|entry| entry.action == action).count();
        let counts = [Action::Failed, Action::Delayed, Action::Relayed, Action::Delivered].map(count);
        Written { is_withheld: reports.is_empty(), reports, octets, counts }
    }

    fn give_back(self, used: Option<usize>) {
        if let Self::Report { grant: Some((budget, grant)), .. } = self {
            budget.give_back(grant, used);
        }
    }
}

/// The labels of a report. If its route cannot be found now, the report goes to its domain's route:
/// it can be queued at this time alone.
pub(super) async fn report_labels(
    options: &RelayOptions,
    hooks: &Hooks,
    message: MessageId,
    envelope: &Envelope,
) -> Labels {
    let found = timeout(PATIENCE, Labels::find(options, hooks, envelope, Known::default())).await;
    let found = found.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()).into()));
    found.unwrap_or_else(|error| {
        warn!(%message, %error, "route of a report not found, it takes the route of its domain");
        Labels::default()
    })
}

/// The beginning of a message: the header at least, and the whole message if it has at most `most`
/// octets. It begins with the front. `None`: it cannot be read.
pub(super) async fn beginning<Q: Queue, R>(
    shared: &Shared<Q, R>,
    lease: &Lease,
    front: &Bytes,
    most: usize,
) -> Option<Original> {
    let mut body = shared.queue.body(lease.message()).await.ok()?;
    let of = whole_len(front, body.len());
    let whole = usize::try_from(of).is_ok_and(|len| len <= most);
    let mut original = Original { octets: front.to_vec(), whole, of };
    loop {
        let octets = &mut original.octets;
        match body.chunk().await {
            Ok(Some(piece)) => {
                // The end of the header may span two pieces.
                let seen = octets.len().saturating_sub(3);
                octets.extend_from_slice(&piece);
                let new = octets.get(seen..).unwrap_or_default();
                let has_header = new.windows(4).any(|window| window == b"\r\n\r\n");
                if !whole && (has_header || octets.len() >= MAX_HEADER) {
                    return Some(original);
                }
            }
            Ok(None) => return Some(original),
            Err(_) => return Some(Original { whole: false, ..original }),
        }
    }
}

/// When a message expires, in seconds since 1970.
fn until(outside: &Outside, expire_after: Duration) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let age = seconds(outside.held().saturating_add(expire_after));
    let by = outside.mail.by.filter(|by| by.mode == DeliverByMode::Return);
    let age = by.map_or(age, |by| age.min(by.seconds.into()));
    outside.accepted.saturating_add(age)
}

/// The most octets of a message that a report returns, whatever the options say: half of what the
/// queue takes with an outcome.
const MAX_RETURNED: usize = MAX_DERIVED / 2;
/// The most octets of a report: what the queue takes with an outcome, less room for the envelope.
const MAX_REPORT: usize = MAX_DERIVED - (64 << 10);
/// Octets of a stored message that did not come from the client: about the size of our Received
/// field.
const OWN_TRACE: u64 = 256;
/// The most octets of a header that is returned if the client was not trusted.
const HEADER_FOR_STRANGERS: usize = 8 << 10;
