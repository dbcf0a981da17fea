//! Who is served when there is not room for all.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use tracing::{debug, warn};

use crate::{ServerOptions, expiring::Expiring};

/// The seats of a server: one for each connection that it serves.
///
/// A client whose command the server waits for is *idle*. So is one that guesses a password, until
/// it is right, and one whose message takes more than a minute to come. When all seats are taken, a
/// newcomer gets the seat of the client that has been idle for the longest time. Strangers lose
/// theirs before known clients: those that have logged in, and those of a network of which a
/// message was accepted or that has logged in lately.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    seats: Mutex<Seats>,
    /// The networks that have behaved well.
    known: Mutex<Expiring<IpAddr>>,
    hurry: Hurry,
    refused: Mutex<Refused>,
    begun: Instant,
}

/// Clients that got no seat since the last line about them.
#[derive(Debug, Default)]
struct Refused {
    clients: u64,
    told: Option<Instant>,
}

/// The wish that all sessions hurry, while the server is nearly full.
#[derive(Debug, Default)]
pub(crate) struct Hurry {
    wanted: AtomicBool,
    changed: Notify,
}

impl Hurry {
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Completes at the first change after this call.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Sets the wish, and wakes all sessions if it was another one.
    pub(crate) fn set(&self, wanted: bool) {
        if self.is_wanted() != wanted && self.wanted.swap(wanted, SeqCst) != wanted {
            self.changed.notify_waiters();
        }
    }
}

#[derive(Debug)]
struct Limits {
    all: usize,
    network: Limit,
    prefix: Limit,
}

/// The most connections of a network of some size.
#[derive(Debug)]
struct Limit {
    most: usize,
    networks: crate::Networks,
}

#[derive(Debug, Default)]
struct Seats {
    taken: HashMap<u64, Arc<Place>>,
    next: u64,
    by_network: HashMap<IpAddr, usize>,
    by_prefix: HashMap<IpAddr, usize>,
    /// Clients that have lost their seats and have not left yet.
    leaving: usize,
    /// Some may be busy again by now.
    idle: Idle,
    /// When candidates were looked for last.
    searched: Option<Instant>,
    /// The same for a known client: a flood of strangers may have used up what they have found.
    searched_for_known: Option<Instant>,
}

#[derive(Debug, Default)]
struct Idle {
    strangers: Candidates,
    known: Candidates,
}

/// Idle clients, [`CANDIDATES`] at most, the one that is idle for the longest time last.
#[derive(Debug, Default)]
struct Candidates(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    number: u64,
    since: u64,
}

#[derive(Debug)]
struct Place {
    network: IpAddr,
    prefix: IpAddr,
    known: AtomicBool,
    /// This very connection has behaved well.
    has_proved: AtomicBool,
    state: AtomicU64,
    leave: Notify,
}

/// The state of a client that the server works for.
const BUSY: u64 = 0;
/// The state of a client that has lost its seat. Any other state is the millisecond since which the
/// client is idle, counted from the server's start, plus 1. It may be still to come.
const LEAVING: u64 = u64::MAX;

/// How long a stranger has to be idle before another stranger gets its seat: some round trips to
/// the other side of the world. A flood of newcomers would otherwise take the seats of those who
/// are about to speak.
const STRANGER_IDLE: Duration = Duration::from_secs(2);
/// The same for a known client, before a stranger gets its seat.
const KNOWN_IDLE: Duration = Duration::from_secs(60);
/// Networks that are known at a time. Beyond it the quarter that was seen first is forgotten.
const KNOWN: usize = 16_384;
/// How long a network stays known. Each connection that behaves well begins it again.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the content of a message may take to come before its client counts as idle. Clients
/// that send as slowly as they may could hold every seat for hours.
const CONTENT: Duration = Duration::from_secs(60);
/// The time between two lines of the log about refused clients.
const TELL: Duration = Duration::from_secs(10);
/// How many candidates one search finds.
const CANDIDATES: usize = 64;
/// How long a search that has found too few is not repeated: it looks at every seat.
const SEARCH: Duration = Duration::from_millis(10);

/// A client's seat, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    place: Arc<Place>,
    /// `None`: a session that is not counted, and never loses its seat.
    of: Option<(Arc<Admission>, u64)>,
}

impl Admission {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let limits = Limits {
            all: options.connections,
            network: Limit { most: options.connections_per_network, networks: options.networks },
            prefix: Limit { most: options.connections_per_prefix, networks: options.prefixes },
        };
        Self {
            limits,
            seats: Mutex::default(),
            known: Mutex::new(Expiring::new(KNOWN)),
            hurry: Hurry::default(),
            refused: Mutex::default(),
            begun: Instant::now(),
        }
    }

    pub(crate) const fn hurry(&self) -> &Hurry {
        &self.hurry
    }

    /// A seat for a client with this address, which is idle at first. `None`: there is none, and no
    /// client has to leave for this one.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let seat = self.find_seat(address);
        if seat.is_none() {
            self.tell_refused(address);
        }
        seat
    }

    /// One line in a while, however many clients are refused.
    fn tell_refused(&self, address: IpAddr) {
        debug!(%address, "client refused, no room");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clients += 1;
        if refused.told.is_none_or(|told| told.elapsed() >= TELL) {
            let Refused { clients, .. } =
                std::mem::replace(&mut *refused, Refused { clients: 0, told: Some(Instant::now()) });
            drop(refused);
            warn!(clients, last = %address, "clients refused, no room");
        }
    }

    fn find_seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let factor = if address.to_canonical().is_loopback() { LOOPBACK } else { 1 };
        let (network, prefix) = (self.limits.network.networks.of(address), self.limits.prefix.networks.of(address));
        let known = self.is_known(network);
        let mut seats = self.seats();
        let is_full = |counts: &HashMap<IpAddr, usize>, key, limit: &Limit| {
            counts.get(&key).is_some_and(|count| *count >= limit.most.saturating_mul(factor)) || limit.most == 0
        };
        if is_full(&seats.by_network, network, &self.limits.network)
            || is_full(&seats.by_prefix, prefix, &self.limits.prefix)
            || (seats.taken.len() >= self.limits.all && !self.make_room(&mut seats, known))
        {
            return None;
        }
        let place = Arc::new(Place {
            network,
            prefix,
            known: AtomicBool::new(known),
            has_proved: AtomicBool::new(false),
            state: AtomicU64::new(self.now()),
            leave: Notify::new(),
        });
        let number = seats.next;
        seats.next = seats.next.wrapping_add(1);
        seats.taken.insert(number, Arc::clone(&place));
        *seats.by_network.entry(network).or_default() += 1;
        *seats.by_prefix.entry(prefix).or_default() += 1;
        self.weigh(&seats);
        drop(seats);
        Some(Seat { place, of: Some((Arc::clone(self), number)) })
    }

    /// Takes the seat of an idle client. Returns `false` if none has to leave.
    fn make_room(&self, seats: &mut Seats, for_known: bool) -> bool {
        // Who leaves needs a moment to read why, and descriptors are not without end. A flood of
        // strangers who displace each other leaves room for known clients.
        if seats.leaving > self.limits.all / if for_known { 8 } else { 16 } {
            return false;
        }
        let now = self.now();
        loop {
            let found = seats.displace(now, for_known);
            let searched = if for_known { seats.searched_for_known } else { seats.searched };
            if found || searched.is_some_and(|searched| searched.elapsed() < SEARCH) {
                return found;
            }
            seats.search(now, for_known);
        }
    }

    fn leave(&self, number: u64) {
        let mut seats = self.seats();
        if seats.give_up(number).is_none() {
            seats.leaving = seats.leaving.saturating_sub(1);
        }
        self.weigh(&seats);
    }

    /// Sessions hurry above three quarters of the limit, until half of it is free again.
    fn weigh(&self, seats: &Seats) {
        let (all, free) = (self.limits.all, self.limits.all.saturating_sub(seats.taken.len()));
        let hurried = self.hurry.is_wanted();
        self.hurry.set(if hurried { free < all.div_ceil(2) } else { all >= LEAST && free < all / 4 });
    }

    /// The state of a client that is idle from now on.
    fn now(&self) -> u64 {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        passed.saturating_add(1).min(LEAVING - 1)
    }

    fn is_known(&self, network: IpAddr) -> bool {
        self.known().get(&network, Instant::now()).is_some()
    }

    fn know(&self, network: IpAddr) {
        let now = Instant::now();
        self.known().insert(network, (), now + KNOWN_FOR, now);
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Expiring<IpAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many times as many connections may come from loopback, where a proxy may run.
const LOOPBACK: usize = 10;
/// A smaller server is nearly full with a few honest clients: its sessions never hurry.
const LEAST: usize = 20;

impl Seats {
    /// Ends the session of the candidate that is idle for the longest time.
    fn displace(&mut self, now: u64, for_known: bool) -> bool {
        let (stranger, known) = if for_known { (Duration::ZERO, STRANGER_IDLE) } else { (STRANGER_IDLE, KNOWN_IDLE) };
        let Self { idle, taken, .. } = self;
        let leaver = idle.strangers.leaver(taken, now, stranger).or_else(|| idle.known.leaver(taken, now, known));
        let Some(number) = leaver else { return false };
        if let Some(place) = self.give_up(number) {
            place.leave.notify_one();
        }
        self.leaving += 1;
        true
    }

    /// Finds candidates.
    fn search(&mut self, now: u64, for_known: bool) {
        self.searched = Some(Instant::now());
        if for_known {
            self.searched_for_known = self.searched;
        }
        self.idle.strangers.search(&self.taken, now, false);
        self.idle.known.search(&self.taken, now, true);
    }

    /// `None`: this seat is not taken.
    fn give_up(&mut self, number: u64) -> Option<Arc<Place>> {
        let place = self.taken.remove(&number)?;
        for (counts, key) in [(&mut self.by_network, place.network), (&mut self.by_prefix, place.prefix)] {
            if let Some(count) = counts.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        }
        Some(place)
    }
}

impl Candidates {
    /// Finds those that are known, or that are not.
    fn search(&mut self, taken: &HashMap<u64, Arc<Place>>, now: u64, known: bool) {
        self.0.clear();
        let of_kind = taken.iter().filter(|(_, place)| place.known.load(Relaxed) == known);
        self.0.extend(of_kind.filter_map(|(number, place)| {
            let since = place.state.load(Acquire);
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

    /// The client that has to leave, if it is idle for at least this time. It is told to.
    fn leaver(&mut self, taken: &HashMap<u64, Arc<Place>>, now: u64, least: Duration) -> Option<u64> {
        loop {
            let long = |candidate: &mut Candidate| u128::from(now.saturating_sub(candidate.since)) >= least.as_millis();
            let Candidate { number, since } = self.0.pop_if(long)?;
            // Fails if it is not idle any more, or again.
            let leave = |place: &Arc<Place>| place.state.compare_exchange(since, LEAVING, AcqRel, Relaxed);
            if taken.get(&number).is_some_and(|place| leave(place).is_ok()) {
                return Some(number);
            }
        }
    }
}

impl Seat {
    /// The seat of a session that is not counted.
    pub(crate) fn free() -> Self {
        let nowhere = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let place = Place {
            network: nowhere,
            prefix: nowhere,
            known: AtomicBool::new(true),
            has_proved: AtomicBool::new(true),
            state: AtomicU64::new(BUSY),
            leave: Notify::new(),
        };
        Self { place: Arc::new(place), of: None }
    }

    /// The client is idle from now on.
    pub(crate) fn wait(&self) {
        let Some((admission, _)) = &self.of else { return };
        // A client that has lost its seat stays without.
        let _ = self.place.state.compare_exchange(BUSY, admission.now(), Release, Relaxed);
    }

    /// The client sends content. It keeps its seat for the time that this may take.
    pub(crate) fn receive(&self) {
        let Some((admission, _)) = &self.of else { return };
        let allowed = u64::try_from(CONTENT.as_millis()).unwrap_or(u64::MAX);
        let until = admission.now().saturating_add(allowed).min(LEAVING - 1);
        let _ = self.place.state.compare_exchange(BUSY, until, Release, Relaxed);
    }

    /// The server works for the client, which keeps its seat meanwhile. Waits for ever if the
    /// client has lost its seat: the one who waits for [`lost`](Self::lost) ends the session.
    pub(crate) async fn work(&self) {
        if !self.try_work() {
            std::future::pending().await
        }
    }

    /// The same. Returns `false` if the client has lost its seat.
    #[must_use = "a session without a seat has to end"]
    pub(crate) fn try_work(&self) -> bool {
        let idle = |state| (state != LEAVING).then_some(BUSY);
        self.place.state.fetch_update(AcqRel, Acquire, idle).is_ok()
    }

    /// Completes when the client has lost its seat.
    pub(crate) async fn lost(&self) {
        while self.place.state.load(Acquire) != LEAVING {
            self.place.leave.notified().await;
        }
    }

    /// The client has logged in, or a message of it was accepted.
    pub(crate) fn prove(&self) {
        let Some((admission, _)) = &self.of else { return };
        if !self.place.has_proved.swap(true, Relaxed) {
            self.place.known.store(true, Relaxed);
            admission.know(self.place.network);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((admission, number)) = &self.of {
            admission.leave(*number);
        }
    }
}

#[cfg(test)]
mod tests;
