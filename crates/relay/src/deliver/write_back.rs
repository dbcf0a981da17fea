//! Writes back what came of deliveries, with the report of it, in one step that always fits.
//!
//! What is written is bounded where it comes from: a recipient keeps so much of what was said that
//! all of them fit, and a report says no more than the queue takes. Should the queue refuse it all
//! the same, the least that can be said is written; should it refuse that, the message is held:
//! nothing that may have been delivered is delivered again by itself.

use std::time::Duration;

use jiff::Timestamp;
use posthaste_queue::{Body, Derived, Lease, LeaseError, MAX_DERIVED, MessageId, Outcome, Owner, Queue};
use posthaste_server::{
    Envelope,
    wire::{EncodeError, ForwardPath, Mailbox, Rcpt, parameter::DeliverByMode},
};
use tokio::sync::SemaphorePermit;
use tracing::{error, warn};

use crate::{
    Event, NotReported,
    message::{Origin, new_message},
    record::{Outside, Recipient, encode_recipients},
    report::{self, About, Action, Entry, Grant, MAX_HEADER, Original},
    shared::Shared,
};

/// What came of a delivery.
#[derive(Debug)]
pub(super) struct End {
    pub(super) lease: Lease,
    /// Those that something is left to do for.
    pub(super) recipients: Vec<Recipient>,
    /// When, if there are any.
    pub(super) after: After,
}

/// When what is left is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// In so long.
    Retry(Duration),
    /// When it was to be done before.
    Keep,
}

/// What is sent because of it.
#[derive(Debug)]
pub(super) enum Says {
    Nothing,
    /// A report to the sender.
    Report(Vec<Entry>),
    /// A report once more, without the message that it returned.
    Plain(Box<Derived>),
}

impl Says {
    /// A report of what there is to report of these recipients, which stay if they wait for their
    /// delivery.
    pub(super) fn report(recipients: &mut Vec<Recipient>) -> Self {
        let mut says = Self::Nothing;
        says.add(recipients);
        says
    }

    /// The same, beside what there is to report already.
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
    /// How many recipients the report says have failed, are delayed and were relayed.
    counts: [usize; 3],
    /// Octets of what was sent.
    octets: Option<usize>,
    /// There was something to report, and too much was reported to this sender already.
    is_withheld: bool,
}

impl Written {
    /// Tells what was reported.
    pub(super) fn observe<Q, R>(&self, shared: &Shared<Q, R>, message: MessageId, outside: &Outside) {
        let (sender, [failed, delayed, relayed]) = (&outside.mail.reverse_path, self.counts);
        if failed + delayed + relayed == 0 {
            return;
        }
        for report in self.reports.iter().copied() {
            shared.observe(&Event::Reported { message, report, sender, failed, delayed, relayed });
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
    /// The least that can be said.
    Least,
}

/// Writes all of it back, or nothing: [`None`], and the log says why.
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
                error!(%message, %error, "outcome cannot be written down");
                break;
            }
        };
        let derived = letter.write(shared, message, outside, form);
        let octets = derived.as_ref().map(|derived| derived.body.len());
        match shared.queue.finish_all(outcomes, derived.into_iter().collect()).await {
            Ok(reports) => {
                written = Some(letter.written(reports, octets));
                break;
            }
            Err(LeaseError::TooLarge(error)) => warn!(%message, %error, "outcome too large to be recorded"),
            Err(error) => {
                warn!(%message, %error, "outcome not recorded, delivery may be made once more");
                letter.give_back(shared, None);
                return None;
            }
        }
    }
    letter.give_back(shared, written.as_ref().and_then(|written| written.octets));
    if written.is_none() {
        error!(%message, "message held: its outcome cannot be recorded, and it may have been delivered; look and remove it");
        let _ = shared.queue.hold(message).await;
    }
    written
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

/// For another try to write back under it.
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
        /// How much a sender that may be somebody else is told. [`None`]: this one may be believed.
        grant: Option<Grant>,
        _turn: Option<SemaphorePermit<'s>>,
    },
    /// Too much was reported to this sender already.
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
        // Never about a report (RFC 5321 section 6.1): nothing is news to a null sender.
        let (Some(to), Some(end)) = (outside.mail.reverse_path.mailbox(), end) else { return Self::Nothing };
        let turn = shared.reporting.acquire().await.ok();
        let most = match report::returns_whole(outside, &entries) {
            true => usize::try_from(shared.options.delivery.return_at_most).unwrap_or(usize::MAX).min(MAX_RETURNED),
            false => 0,
        };
        let mut original = beginning(shared, &end.lease, most).await.unwrap_or_default();
        let mut grant = None;
        if !outside.trusted {
            original.octets.truncate(HEADER_FOR_STRANGERS);
            grant = shared.reports.take(&to.to_string(), original.of.saturating_sub(OWN_TRACE));
            if grant.is_none() {
                warn!(%message, sender = %to, "report withheld, this sender has had as many as it may in an hour");
                return Self::Withheld(entries);
            }
        }
        Self::Report { to: to.clone(), entries, original, grant, _turn: turn }
    }

    fn write<Q, R>(
        &mut self,
        shared: &Shared<Q, R>,
        message: MessageId,
        outside: &Outside,
        form: Form,
    ) -> Option<Derived> {
        let Self::Report { to, entries, original, grant, .. } = self else {
            return match self {
                Self::Plain(derived) => Some((**derived).clone()),
                _ => None,
            };
        };
        let own_name = &shared.options.host_name;
        let will_retry_until = until(outside, shared.options.delivery.retry.expire_after);
        let about = About { own_name, message, outside, will_retry_until, now: Timestamp::now() };
        let granted = grant.as_ref().map_or(MAX_REPORT, |grant| grant.octets.min(MAX_REPORT));
        let most = if form == Form::Least { 0 } else { granted };
        let report = report::write(&about, to, entries, original, most);
        if report.body.len() > granted {
            warn!(%message, sender = %to, "report withheld, it would be more than what came in this sender's name");
            return None;
        }
        let rcpt = Rcpt::new(ForwardPath::Mailbox(report.to.borrowed())).into_owned();
        let mut envelope = Envelope::new(report.mail, vec![rcpt]);
        shared.options.forward_postmaster(None, &mut envelope);
        let (all_ascii, returns_whole) = (report.body.is_ascii(), report.returns_whole);
        let origin = Origin { client: None, all_ascii, trusted: outside.trusted, returns_whole };
        match new_message(own_name, Owner::default(), &envelope, origin) {
            Ok(message) => Some(Derived { message, body: report.body }),
            Err(error) => {
                error!(%message, %error, "report cannot be addressed");
                None
            }
        }
    }

    fn written(&self, reports: Vec<MessageId>, octets: Option<usize>) -> Written {
        let (Self::Report { entries, .. } | Self::Withheld(entries)) = self else {
            return Written { reports, octets, counts: [0; 3], is_withheld: false };
        };
        let count = |action| entries.iter().filter(|entry| entry.action == action).count();
        let counts = [Action::Failed, Action::Delayed, Action::Relayed].map(count);
        Written { is_withheld: reports.is_empty(), reports, octets, counts }
    }

    fn give_back<Q, R>(self, shared: &Shared<Q, R>, used: Option<usize>) {
        if let Self::Report { grant: Some(grant), .. } = self {
            shared.reports.give_back(grant, used);
        }
    }
}

/// A message from its first octet on: the header at least, and all of it if that is at most so many
/// octets. [`None`]: it cannot be read.
pub(super) async fn beginning<Q: Queue, R>(shared: &Shared<Q, R>, lease: &Lease, most: usize) -> Option<Original> {
    let mut body = shared.queue.body(lease).await.ok()?;
    let whole = usize::try_from(body.len()).is_ok_and(|len| len <= most);
    let mut original = Original { octets: Vec::new(), whole, of: body.len() };
    loop {
        let octets = &mut original.octets;
        match body.chunk().await {
            Ok(Some(piece)) => {
                // The end of the header may lie across two pieces.
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

/// When a message is given up, in seconds since 1970.
fn until(outside: &Outside, expire_after: Duration) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    let age = seconds(outside.held().saturating_add(expire_after));
    let by = outside.mail.by.filter(|by| by.mode == DeliverByMode::Return);
    let age = by.map_or(age, |by| age.min(by.seconds.into()));
    outside.accepted.saturating_add(age)
}

/// The most that a report returns, whatever the options say: half of what the queue takes for all
/// that an outcome derives.
const MAX_RETURNED: usize = MAX_DERIVED / 2;
/// The most octets of a report: what the queue takes, less what is around it.
const MAX_REPORT: usize = MAX_DERIVED - (64 << 10);
/// Octets of a message that are ours and did not come in: about as many as our trace field has.
const OWN_TRACE: u64 = 256;
/// The most octets of a header that is returned to a sender that may be somebody else.
const HEADER_FOR_STRANGERS: usize = 8 << 10;
