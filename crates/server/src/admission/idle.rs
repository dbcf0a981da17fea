//! The clients that may have to leave.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed},
    time::Duration,
};

use super::{BUSY, LEAVING, Taken};

/// Idle clients, as a search has found them. Some may be busy again by now.
#[derive(Debug, Default)]
pub(super) struct Idle {
    strangers: Candidates,
    known: Candidates,
}

/// [`CANDIDATES`] at most, the one that is idle for the longest time last.
#[derive(Debug, Default)]
struct Candidates(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    number: u64,
    since: u64,
}

/// Who needs a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomer {
    Known,
    Stranger,
    /// The system has no descriptor for it, so it may be either.
    Unseen,
}

/// How many candidates one search finds.
pub(super) const CANDIDATES: usize = 64;
/// How long a stranger has to be idle before another stranger gets its seat: some round trips to
/// the other side of the world. A flood of newcomers would otherwise take the seats of those who
/// are about to speak.
pub(super) const STRANGER_IDLE: Duration = Duration::from_secs(2);
/// The same for a known client, before a stranger gets its seat.
pub(super) const KNOWN_IDLE: Duration = Duration::from_secs(60);

impl Idle {
    /// Looks at every seat.
    pub(super) fn search(&mut self, taken: &HashMap<u64, Taken>, now: u64) {
        self.strangers.search(taken, now, false);
        self.known.search(taken, now, true);
    }

    /// The client that has to leave. It cannot become busy any more.
    pub(super) fn leaver(&mut self, taken: &HashMap<u64, Taken>, now: u64, newcomer: Newcomer) -> Option<u64> {
        let (stranger, known) = match newcomer {
            Newcomer::Known => (Duration::ZERO, STRANGER_IDLE),
            Newcomer::Stranger => (STRANGER_IDLE, KNOWN_IDLE),
            Newcomer::Unseen => (Duration::ZERO, KNOWN_IDLE),
        };
        self.strangers.leaver(taken, now, stranger).or_else(|| self.known.leaver(taken, now, known))
    }
}

impl Candidates {
    /// Finds those that are known, or that are not.
    fn search(&mut self, taken: &HashMap<u64, Taken>, now: u64, known: bool) {
        self.0.clear();
        let of_kind = taken.iter().filter(|(_, taken)| taken.place.is_known.load(Relaxed) == known);
        self.0.extend(of_kind.filter_map(|(number, taken)| {
            let since = taken.place.state.load(Acquire);
            // `LEAVING` and the time of content that is allowed are still to come.
            (since != BUSY && since <= now).then_some(Candidate { number: *number, since })
        }));
        if self.0.len() > CANDIDATES {
            self.0.select_nth_unstable_by_key(CANDIDATES, |candidate| candidate.since);
            self.0.truncate(CANDIDATES);
        }
        self.0.sort_unstable_by_key(|candidate| Reverse(candidate.since));
        self.0.shrink_to(CANDIDATES);
    }

    /// The client that has to leave, if one is idle for at least this time.
    fn leaver(&mut self, taken: &HashMap<u64, Taken>, now: u64, least: Duration) -> Option<u64> {
        loop {
            let long = |candidate: &mut Candidate| u128::from(now.saturating_sub(candidate.since)) >= least.as_millis();
            let Candidate { number, since } = self.0.pop_if(long)?;
            // Fails if it is not idle any more, or again.
            let leave = |taken: &Taken| taken.place.state.compare_exchange(since, LEAVING, AcqRel, Relaxed);
            if taken.get(&number).is_some_and(|taken| leave(taken).is_ok()) {
                return Some(number);
            }
        }
    }
}
