//! A claimed delivery, read, and what can come of each of its recipients.

use std::time::Duration;

use posthaste_queue::{Claimed, Lease, LeaseError, Queue};
use posthaste_server::wire::{Mail, Reply};

use crate::{
    Diagnostic,
    record::{Outside, Recipient, RecordError, decode_recipients},
    shared::Shared,
};

/// A claimed delivery.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lease: Lease,
    key: String,
    pub(super) outside: Outside,
    pub(super) recipients: Vec<Recipient>,
    pub(super) attempts: u32,
    pub(super) age: Duration,
}

impl Job {
    pub(super) fn open(claimed: Claimed) -> Result<Self, RecordError> {
        let outside = Outside::decode(&claimed.envelope)?;
        let recipients = decode_recipients(&claimed.state)?;
        let key = claimed.key.as_str().to_owned();
        Ok(Self { lease: claimed.lease, key, outside, recipients, attempts: claimed.attempts, age: claimed.age })
    }

    pub(super) const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The domain that all recipients share.
    pub(super) fn domain(&self) -> &str {
        &self.key
    }

    pub(super) fn mail(&self) -> Mail<&str> {
        self.outside.mail.borrowed()
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Extends the lease.
    pub(super) async fn keep<Q: Queue, R>(&self, shared: &Shared<Q, R>) -> Result<(), LeaseError> {
        shared.queue.extend(&self.lease, shared.options.delivery.lease).await
    }
}

/// What came of one recipient.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered { remote: String, reply: Reply },
    NotNow(Diagnostic),
    Never(Diagnostic),
}
