//! A claimed delivery, read, and what can come of each of its recipients.

use std::time::Duration;

use posthaste_queue::{Claimed, Lease, LeaseError, Queue};
use posthaste_server::wire::{
    Reply,
    parameter::{DeliverBy, DeliverByMode},
};
use tokio::time::Instant;

use crate::{
    Diagnostic,
    record::{Outside, Recipient, RecordError, by_after, decode_recipients},
    report::Action,
    shared::Shared,
};

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lease: Lease,
    key: String,
    pub(super) outside: Outside,
    /// Those that are still to be delivered to.
    pub(super) recipients: Vec<Recipient>,
    /// Those of whom nothing is left but to report what came of them.
    pub(super) ended: Vec<Recipient>,
    pub(super) attempts: u32,
    /// How many other deliveries the message has.
    pub(super) others: u32,
    /// The age of the message when it was claimed.
    age: Duration,
    claimed: Instant,
}

/// The time that BY has given is over (RFC 2852 section 4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Mode R: no further attempt may be made.
    Return,
    /// Mode N: somebody is to be told, and it goes on.
    Tell,
}

/// Whether a message goes only where TLS proves who the server is, and the server promises the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// It goes anywhere.
    Any,
    /// It is a report, which should and goes on where that is not possible (RFC 8689 section 5).
    May,
    /// It goes nowhere else (RFC 8689 section 4.2.1).
    Must,
}

impl Job {
    pub(super) fn open(claimed: Claimed) -> Result<Self, RecordError> {
        let outside = Outside::decode(&claimed.envelope)?;
        let (recipients, ended) = decode_recipients(&claimed.state)?.into_iter().partition(Recipient::waits);
        let key = claimed.key.as_str().to_owned();
        let Claimed { lease, attempts, others, age, .. } = claimed;
        Ok(Self { lease, key, outside, recipients, ended, attempts, others, age, claimed: Instant::now() })
    }

    pub(super) const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The domain that all recipients share.
    pub(super) fn domain(&self) -> &str {
        &self.key
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Since the message was accepted.
    pub(super) fn age(&self) -> Duration {
        self.age.saturating_add(self.claimed.elapsed())
    }

    /// BY with the time that is left of it now.
    pub(super) fn by(&self) -> Option<DeliverBy> {
        self.outside.mail.by.map(|by| by_after(by, self.age()))
    }

    /// How long it is until the time of BY is over; nothing when there is none, or it is over
    /// already.
    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let given = u64::try_from(self.outside.mail.by?.seconds).ok().map(Duration::from_secs)?;
        given.checked_sub(self.age()).filter(|left| !left.is_zero())
    }

    /// Whether the time of BY is over and something follows from that. What was over when it came
    /// here was told by who had it before.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        let by = self.outside.mail.by?;
        if by.seconds <= 0 || self.until_deadline().is_some() {
            return None;
        }
        match by.mode {
            DeliverByMode::Return => Some(Overdue::Return),
            DeliverByMode::Notify => {
                self.recipients.iter().any(|it| self.hears_of_deadline(it)).then_some(Overdue::Tell)
            }
        }
    }

    pub(super) fn hears_of_deadline(&self, recipient: &Recipient) -> bool {
        !recipient.told.deadline && self.hears(recipient, Action::Delayed)
    }

    /// Whether the sender is told of this. One that may be somebody else is told of the end alone.
    pub(super) fn hears(&self, recipient: &Recipient, action: Action) -> bool {
        let is_told = self.outside.trusted || action != Action::Delayed;
        is_told && self.outside.mail.reverse_path.mailbox().is_some() && action.is_wanted(recipient.rcpt.notify)
    }

    /// How much TLS the message asks for.
    pub(super) fn guard(&self) -> Guard {
        match (self.outside.mail.require_tls, self.outside.mail.reverse_path.mailbox()) {
            (false, _) => Guard::Any,
            (true, Some(_)) => Guard::Must,
            (true, None) => Guard::May,
        }
    }

    /// Extends the lease.
    pub(super) async fn keep<Q: Queue, R>(&self, shared: &Shared<Q, R>) -> Result<(), LeaseError> {
        shared.queue.extend(&self.lease, shared.options.delivery.lease).await
    }
}

/// What came of one recipient.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered {
        remote: String,
        reply: Reply,
        /// The sender is owed a report that it was relayed.
        owes_report: bool,
    },
    NotNow(Diagnostic),
    Never(Diagnostic),
}
