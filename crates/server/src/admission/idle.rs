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
    pub(super) fn search(&mut self, taken: &HashMap<u64, Taken>) {
        self.strangers.search(taken, false);
        self.known.search(taken, true);
    }

    /// The client that has to leave. It cannot become busy any more.
    pub(super) fn leaver(&mut self, taken: &HashMap<u64, Taken>, now: u64, newcomer: Newcomer) -> Option<u64> {
        let before = |time: Duration| now.checked_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let (stranger, known) = match newcomer {
            // Strangers whose content is waited for too, after all others: a flood of them leaves
            // times in which no other waits.
            Newcomer::Known => (Some(LEAVING), before(STRANGER_IDLE)),
            Newcomer::Stranger => (before(STRANGER_IDLE), before(KNOWN_IDLE)),
            Newcomer::Unseen => (Some(now), before(KNOWN_IDLE)),
        };
        self.strangers.leaver(taken, stranger).or_else(|| self.known.leaver(taken, known))
    }
}

impl Candidates {
    /// Finds those that are known, or that are not, and that the server waits for. Those whose
    /// content may still take its time count as idle from its end on, so they come last.
    fn search(&mut self, taken: &HashMap<u64, Taken>, known: bool) {
        self.0.clear();
        let of_kind = taken.iter().filter(|(_, taken)| taken.place.is_known.load(Relaxed) == known);
        self.0.extend(of_kind.filter_map(|(number, taken)| {
            let since = taken.place.state.load(Acquire);
            (since != BUSY && since != LEAVING).then_some(Candidate { number: *number, since })
        }));
        if self.0.len() > CANDIDATES {
            self.0.select_nth_unstable_by_key(CANDIDATES, |candidate| candidate.since);
            self.0.truncate(CANDIDATES);
        }
        self.0.sort_unstable_by_key(|candidate| Reverse(candidate.since));
        self.0.shrink_to(CANDIDATES);
    }

    /// The client that has to leave, if one is idle since this time at the latest.
    fn leaver(&mut self, taken: &HashMap<u64, Taken>, latest: Option<u64>) -> Option<u64> {
        let latest = latest?;
        loop {
            let Candidate { number, since } = self.0.pop_if(|candidate| candidate.since <= latest)?;
            // Fails if it is not idle any more, or again.
            let leave = |taken: &Taken| taken.place.state.compare_exchange(since, LEAVING, AcqRel, Relaxed);
            if taken.get(&number).is_some_and(|taken| leave(taken).is_ok()) {
                return Some(number);
            }
        }
    }
}
