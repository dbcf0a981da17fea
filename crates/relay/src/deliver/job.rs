//! A claimed delivery, decoded, and the fate of each of its recipients.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use posthaste_queue::{Claimed, Lease, LeaseError, Queue};
use posthaste_server::wire::{
    Reply,
    parameter::{DeliverBy, DeliverByMode},
};
use tokio::time::Instant;

use super::words::Words;
use crate::{
    Diagnostic, RelayOptions,
    record::{Outside, Recipient, RecordError, by_after, decode_recipients},
    report::Action,
    shared::Shared,
};

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lease: Lease,
    /// The options, taken at the claim for all of the attempt.
    pub(super) options: Arc<RelayOptions>,
    pub(super) outside: Outside,
    /// Recipients that wait for their delivery.
    pub(super) recipients: Vec<Recipient>,
    /// Recipients whose outcome is still to be reported, and no more.
    pub(super) ended: Vec<Recipient>,
    pub(super) attempts: u32,
    /// The octets of the body, without the front.
    pub(super) body_len: u64,
    /// The number of the message's other deliveries.
    pub(super) others: u32,
    /// What is wrong with its body, if no later attempt can read it either.
    damage: OnceLock<Box<str>>,
    /// The age of the message when it was claimed.
    age: Duration,
    claimed: Instant,
}

/// What follows when the time of BY is over (RFC 2852 section 4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Mode R: make no further attempt.
    Return,
    /// Mode N: report the missed deadline, keep trying.
    Tell,
}

/// The servers that a message may go to. A *guarded* connection has TLS that proves the server's
/// identity, and the server offers REQUIRETLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// To every server.
    Any,
    /// It is a report: over a guarded connection if possible, otherwise over another (RFC 8689
    /// section 5).
    May,
    /// Over a guarded connection alone (RFC 8689 section 4.2.1).
    Must,
}

impl Job {
    pub(super) fn open(claimed: Claimed, options: Arc<RelayOptions>) -> Result<Self, RecordError> {
        let outside = Outside::decode(&claimed.envelope)?;
        let (recipients, ended) = decode_recipients(&claimed.state)?.into_iter().partition(Recipient::waits);
        let Claimed { lease, attempts, body_len, others, age, .. } = claimed;
        let claimed = Instant::now();
        Ok(Self {
            lease,
            options,
            outside,
            recipients,
            ended,
            attempts,
            body_len,
            others,
            damage: OnceLock::new(),
            age,
            claimed,
        })
    }

    /// Notes what is wrong with its body.
    pub(super) fn note_damage(&self, why: Option<Box<str>>) {
        if let Some(why) = why {
            // The first one tells as much.
            let _ = self.damage.set(why);
        }
    }

    /// What is wrong with its body. No host can get it then.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.get().map(|why| &**why)
    }

    /// When it was claimed.
    pub(super) const fn claimed(&self) -> Instant {
        self.claimed
    }

    pub(super) const fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The time since the message was accepted.
    pub(super) fn age(&self) -> Duration {
        self.age.saturating_add(self.claimed.elapsed())
    }

    /// BY with the time that is left.
    pub(super) fn by(&self) -> Option<DeliverBy> {
        self.outside.mail.by.map(|by| by_after(by, self.age()))
    }

    /// The time until the deadline of BY. `None`: there is no BY, or its time is over.
    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let given = u64::try_from(self.outside.mail.by?.seconds).ok().map(Duration::from_secs)?;
        given.checked_sub(self.age()).filter(|left| !left.is_zero())
    }

    /// What follows if the time of BY is over. `None` also if it was over when the message arrived:
    /// the host before us has reported that.
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

    /// Returns `true` if the sender is told of this action. If the client was not trusted, the
    /// sender is told of the end alone.
    pub(super) fn hears(&self, recipient: &Recipient, action: Action) -> bool {
        let is_told = self.outside.trusted || action != Action::Delayed;
        is_told && self.outside.mail.reverse_path.mailbox().is_some() && action.is_wanted(recipient.rcpt.notify)
    }

    /// The guard that the message asks for.
    pub(super) fn guard(&self) -> Guard {
        match (self.outside.mail.require_tls, self.outside.mail.reverse_path.mailbox()) {
            (false, _) => Guard::Any,
            (true, Some(_)) => Guard::Must,
            (true, None) => Guard::May,
        }
    }

    /// Ends the lease: the delivery is due as before, and nothing of the attempt is recorded.
    pub(super) async fn give_back<Q: Queue, R>(self, shared: &Shared<Q, R>) {
        // A lease that cannot be ended ends by itself.
        let _ = shared.queue.extend(&self.lease, Duration::ZERO).await;
    }

    /// Returns `true` if nothing is to be told or decided now that the delivery fails for now.
    pub(super) fn can_wait(&self) -> bool {
        let retry = &self.options.delivery.retry;
        let age = self.age().saturating_sub(self.outside.held());
        let is_delayed = retry.warn_after.is_some_and(|after| age >= after);
        let is_told = || self.recipients.iter().all(|recipient| recipient.told.delay);
        age < retry.expire_after && self.outside.mail.by.is_none() && (!is_delayed || is_told())
    }

    /// Extends the lease.
    pub(super) async fn keep<Q: Queue, R>(&self, shared: &Shared<Q, R>) -> Result<(), LeaseError> {
        shared.queue.extend(&self.lease, self.options.delivery.lease).await
    }
}

/// The end of an attempt: one fate for each recipient, in their order.
#[derive(Debug)]
pub(super) enum Tried {
    Settled(Vec<Fate>),
    /// The site takes no mail for now. No attempt is counted.
    NotAtAll,
}

/// The outcome of an attempt for one recipient.
#[derive(Debug)]
pub(super) enum Fate {
    Delivered {
        remote: String,
        reply: Reply,
        /// It went over TLS.
        tls: bool,
        /// The sender is owed a report of this, `relayed` or `delivered`.
        owes: Option<Action>,
    },
    NotNow(Diagnostic, Words),
    Never(Diagnostic),
}
