//! The part of a site's connections that large mail may have.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::rank::Size;

/// How long large mail leaves connections free after small mail.
const KEPT: Duration = Duration::from_secs(60);

/// Which workers of a site have a large message.
///
/// A large message takes minutes where a small one takes a moment. Without a rule large messages
/// would sooner or later have every connection of a site, and small ones would wait for minutes.
/// So large mail gets half of the connections, and one at least. It gets all of them while no small
/// mail waits, and none came within a minute.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The workers with a large message, by their numbers.
    large: HashSet<u64>,
    /// When a small message last began.
    small: Option<Instant>,
}

impl Sizes {
    /// A worker begins a message.
    pub(super) fn begin(&mut self, worker: u64, size: Size, now: Instant) {
        match size {
            Size::Small => self.small = Some(now),
            Size::Large => {
                self.large.insert(worker);
            }
        }
    }

    /// A worker has no message any more.
    pub(super) fn end(&mut self, worker: u64) {
        self.large.remove(&worker);
    }

    /// Returns `true` if one more worker may have a large message, of this `limit` of workers.
    /// Those that are `stuck` do not count. `waits`: small mail is due.
    pub(super) fn may_be_large(&self, limit: usize, stuck: impl Fn(u64) -> bool, waits: bool, now: Instant) -> bool {
        let lately = || self.small.is_some_and(|at| now.saturating_duration_since(at) < KEPT);
        let most = if waits || lately() { (limit / 2).max(1) } else { limit };
        self.large.len() < most || self.large.iter().filter(|worker| !stuck(**worker)).count() < most
    }
}
