//! The largest message that every engine takes.

use std::time::Duration;

use crate::{Derived, Lease, LeaseError, NewMessage, Outcome, PutError, TooLarge};

/// The largest envelope in bytes: 1 MiB, which holds a sender, its parameters and a trace a
/// thousand times over.
pub const MAX_ENVELOPE: usize = 1 << 20;
/// The largest number of deliveries of one message: 10,000. RFC 5321 section 4.5.3.1.8 asks servers
/// to take at least 100 recipients, and clients rarely name more than some thousands at once.
pub const MAX_DELIVERIES: usize = 10_000;
/// The largest size of all states of one message together in bytes: 8 MiB. A new state of at most
/// 838 bytes is taken without a look at the others, so outcomes may bring the sum to 16 MiB.
pub const MAX_STATES: usize = 8 << 20;
/// The largest size of all messages that one outcome derives in bytes: 8 MiB, with envelopes,
/// states and bodies.
pub const MAX_DERIVED: usize = 8 << 20;
/// The longest delay and the longest lease: 366 days. Longer ones are cut to it, so that no sum of
/// times overflows.
pub const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);

impl NewMessage {
    /// Checks that it has a delivery and keeps the limits of this crate. For engines, before they
    /// write.
    ///
    /// # Errors
    /// [`PutError::NoDelivery`], [`PutError::TooLarge`].
    pub fn check(&self) -> Result<(), PutError> {
        check(self)
    }
}

impl Outcome {
    /// Checks that the outcome and its derived messages keep the limits of this crate. For engines,
    /// before they write.
    ///
    /// # Errors
    /// [`LeaseError::NoDelivery`], [`LeaseError::TooLarge`].
    pub fn check(&self, derived: &[Derived]) -> Result<(), LeaseError> {
        check_outcome(self, derived)
    }
}

pub(crate) fn check(message: &NewMessage) -> Result<(), PutError> {
    if message.deliveries.is_empty() {
        return Err(PutError::NoDelivery);
    }
    Ok(check_size(message)?)
}

fn check_size(message: &NewMessage) -> Result<(), TooLarge> {
    at_most("the envelope", MAX_ENVELOPE, message.envelope.len())?;
    let deliveries = message.deliveries.len();
    if deliveries > MAX_DELIVERIES {
        return Err(TooLarge::deliveries(MAX_DELIVERIES as u64, deliveries as u64));
    }
    at_most(ALL_STATES, MAX_STATES, states(message))
}

pub(crate) fn check_outcome(outcome: &Outcome, derived: &[Derived]) -> Result<(), LeaseError> {
    if let Some(state) = outcome.state() {
        at_most("the state of a delivery", MAX_STATES, state.len())?;
    }
    check_derived(derived)
}

pub(crate) fn check_outcomes(ends: &[(Lease, Outcome)], derived: &[Derived]) -> Result<(), LeaseError> {
    for state in ends.iter().filter_map(|(_, outcome)| outcome.state()) {
        at_most("the state of a delivery", MAX_STATES, state.len())?;
    }
    check_derived(derived)
}

fn check_derived(derived: &[Derived]) -> Result<(), LeaseError> {
    let mut sum = 0_usize;
    for each in derived {
        let names: usize = each.message.deliveries.iter().map(|d| d.key.as_str().len() + 64).sum();
        let parts = [each.body.len(), each.message.envelope.len(), states(&each.message), names, 1024];
        sum = parts.into_iter().fold(sum, usize::saturating_add);
        if each.message.deliveries.is_empty() {
            return Err(LeaseError::NoDelivery);
        }
        check_size(&each.message)?;
    }
    at_most("the sum of all derived messages", MAX_DERIVED, sum)?;
    Ok(())
}

/// Checks the sum of the new states and of those of the message's other deliveries.
pub(crate) fn check_states(states: usize, others: impl Iterator<Item = usize>) -> Result<(), TooLarge> {
    at_most(ALL_STATES, MAX_STATES, others.fold(states, usize::saturating_add))
}

/// A state of at most this size is taken without adding up the others, which may be many. So all
/// states together may exceed [`MAX_STATES`], by a factor of 2 at most.
pub(crate) const FAIR_STATE: usize = MAX_STATES / MAX_DELIVERIES;

fn states(message: &NewMessage) -> usize {
    message.deliveries.iter().fold(0, |sum, delivery| sum.saturating_add(delivery.state.len()))
}

fn at_most(what: &'static str, limit: usize, actual: usize) -> Result<(), TooLarge> {
    if actual > limit {
        return Err(TooLarge::bytes(what, limit as u64, actual as u64));
    }
    Ok(())
}

const ALL_STATES: &str = "the sum of all delivery states";
