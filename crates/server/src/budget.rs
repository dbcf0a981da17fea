//! Memory that many clients share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use posthaste_tokio::wire::{
    ForwardPath, Mail, Rcpt, ReversePath,
    parameter::{Parameter, Parameters},
};
use tokio::sync::Notify;

/// The bytes that all envelopes of a server may have together, beyond each one's own, or all
/// contents that its handlers have collected.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    short: Notify,
}

/// The bytes of every envelope that count against no budget, whatever other clients have taken:
/// room for some 100 recipients, which RFC 5321 section 4.5.3.1.8 demands of a server.
pub(crate) const OWN: usize = 40 * 1_024;

/// The part of one envelope or content of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// The bytes that do not count.
    own: usize,
    octets: usize,
}

impl Budget {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), short: Notify::const_new() }
    }

    /// There was too little left for what is lost by that.
    pub(crate) fn was_short(&self) {
        self.short.notify_one();
    }

    /// Waits until that happens, or has happened since the last time.
    pub(crate) async fn is_short(&self) {
        self.short.notified().await;
    }
}

impl Share {
    /// That of an envelope.
    pub(crate) const fn new(budget: Arc<Budget>) -> Self {
        Self { budget, own: OWN, octets: 0 }
    }

    /// That of content, of which all bytes count.
    pub(crate) const fn of_content(budget: Arc<Budget>) -> Self {
        Self { budget, own: 0, octets: 0 }
    }

    /// Takes more bytes. Returns `false`, and takes none, if the budget has too few left.
    #[must_use = "without the bytes there is no room for what they are for"]
    pub(crate) fn take(&mut self, octets: usize) -> bool {
        let wanted = self.octets.saturating_add(octets);
        let more = wanted.saturating_sub(self.own).saturating_sub(self.octets.saturating_sub(self.own));
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= self.budget.limit);
        let taken = more == 0 || self.budget.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if taken {
            self.octets = wanted;
        }
        taken
    }

    /// Gives bytes back.
    pub(crate) fn give(&mut self, octets: usize) {
        let left = self.octets.saturating_sub(octets);
        let less = self.octets.saturating_sub(self.own).saturating_sub(left.saturating_sub(self.own));
        self.budget.used.fetch_sub(less, Relaxed);
        self.octets = left;
    }

    /// Gives all bytes back.
    pub(crate) fn free(&mut self) {
        self.give(self.octets);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.free();
    }
}

/// The bytes that an allocation costs beside its own.
const ALLOCATION: usize = 16;

/// The bytes that a recipient takes: those of its texts, and its place in a list that grows by
/// doubling.
pub(crate) fn of_rcpt(rcpt: &Rcpt) -> usize {
    let path = match &rcpt.forward_path {
        ForwardPath::Mailbox(mailbox) => mailbox.as_str().len() + ALLOCATION,
        ForwardPath::Postmaster => 0,
    };
    let orcpt = rcpt.orcpt.as_ref().map_or(0, |orcpt| orcpt.as_str().len() + ALLOCATION);
    let rrvs = rcpt.rrvs.as_ref().map_or(0, |rrvs| rrvs.since.as_str().len() + ALLOCATION);
    2 * size_of::<Rcpt>() + path + orcpt + rrvs + text(&rcpt.parameters) + ALLOCATION
}

/// The bytes that MAIL takes: a parameter is kept as it came and in its field.
pub(crate) fn of_mail(mail: &Mail) -> usize {
    let path = match &mail.reverse_path {
        ReversePath::Mailbox(mailbox) => mailbox.as_str().len(),
        ReversePath::Null => 0,
    };
    size_of::<Mail>() + path + 2 * text(&mail.parameters) + 8 * ALLOCATION
}

fn text(parameters: &Parameters) -> usize {
    let octets =
        |parameter: Parameter<'_>| parameter.keyword.len() + parameter.value.map_or(1, |value| value.len() + 2);
    parameters.borrowed().iter().map(octets).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_own_octets_is_taken_and_given_back_exactly() {
        let budget = Arc::new(Budget::new(1_000));
        let used = || budget.used.load(Relaxed);
        let mut one = Share::new(Arc::clone(&budget));
        let mut other = Share::new(Arc::clone(&budget));
        assert!(one.take(OWN) && other.take(OWN - 1));
        assert_eq!(used(), 0);
        assert!(one.take(600) && !other.take(402) && other.take(401));
        assert_eq!(used(), 1_000);
        assert!(!one.take(1) && one.take(0));
        one.give(700);
        assert_eq!(used(), 400);
        assert!(other.take(500) && !one.take(201) && one.take(200));
        drop(other);
        assert_eq!(used(), 100);
        one.free();
        assert_eq!((used(), one.octets), (0, 0));
        // More than there was.
        one.give(5);
        assert_eq!(used(), 0);
    }

    #[test]
    fn an_envelope_of_100_ordinary_recipients_is_within_its_own_octets() {
        let rcpt = Rcpt::parse("<jo.with.a.name@mail.example.org> NOTIFY=FAILURE").unwrap().into_owned();
        let mail = Mail::parse("<jo.else@example.org> SIZE=100000 BODY=8BITMIME").unwrap().into_owned();
        assert!(of_mail(&mail) + 100 * of_rcpt(&rcpt) <= OWN, "{} {}", of_mail(&mail), of_rcpt(&rcpt));
    }
}
