//! Who is served when there is not room for all.

mod counts;
mod hurry;
mod idle;
mod refused;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

pub(crate) use self::hurry::Hurry;
use self::{
    counts::{Counted, Counts, Limits},
    idle::{Idle, Newcomer},
    refused::Refused,
};
use crate::{Networks, ServerOptions, expiring::Expiring};

/// The seats of a server: one for each connection that it serves.
///
/// A client whose command the server waits for is *idle*. So is one that guesses a password, until
/// it is right. So is one whose message takes more than a minute to come, or a piece of it more
/// than 2 seconds. A stranger whose content is waited for has to leave for a known client sooner,
/// but after all who are idle.
///
/// When all seats are taken, a newcomer gets the seat of the client that has been idle for the
/// longest time. Strangers lose theirs before known clients: those that have logged
/// in, and those of a network of which a message was accepted or that has logged in lately.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    seats: Mutex<Seats>,
    /// The networks that have behaved well.
    known: Mutex<Expiring<IpAddr>>,
    hurry: Hurry,
    refused: Refused,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Seats {
    taken: HashMap<u64, Taken>,
    next: u64,
    counts: Counts,
    /// Clients that have lost their seats and have not left yet.
    leaving: usize,
    idle: Idle,
    /// When candidates were looked for last.
    searched: Option<Instant>,
    /// The same for a known client: a flood of strangers may have used up what they have found.
    searched_for_known: Option<Instant>,
}

/// A seat that is taken.
#[derive(Debug)]
struct Taken {
    place: Arc<Place>,
    /// `None`: a proxy that has not named its client.
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Place {
    is_known: AtomicBool,
    /// This very connection has behaved well.
    has_proved: AtomicBool,
    /// Content comes, which its handler may keep in memory.
    receives: AtomicBool,
    state: AtomicU64,
    leave: Notify,
}

/// The state of a client that the server works for.
const BUSY: u64 = 0;
/// The state of a client that has lost its seat. Any other state is the millisecond since which the
/// client is idle, counted from the server's start, plus 1. It may be still to come.
const LEAVING: u64 = u64::MAX;

/// Networks that are known at a time. Beyond it the quarter that was seen first is forgotten.
const KNOWN: usize = 16_384;
/// How long a network stays known. Each connection that behaves well begins it again.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the content of a message may take to come before its client counts as idle. Clients
/// that send as slowly as they may could hold every seat for hours.
const CONTENT: Duration = Duration::from_secs(60);
/// The same for the next piece of it.
const PIECE: Duration = Duration::from_secs(2);
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
        Self {
            limits: Limits::new(options),
            seats: Mutex::default(),
            known: Mutex::new(Expiring::new(KNOWN)),
            hurry: Hurry::default(),
            refused: Refused::default(),
            begun: Instant::now(),
        }
    }

    pub(crate) const fn hurry(&self) -> &Hurry {
        &self.hurry
    }

    /// A seat for a client with this address, which is idle at first. `None` as the address: a
    /// proxy that is to name its client. `None` returned: there is no seat, and no client has to
    /// leave for this one.
    pub(crate) fn seat(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Seat> {
        self.find_seat(address).map_err(|limit| self.refused.tell(address, limit)).ok()
    }

    /// `Err`: the limit that leaves none.
    fn find_seat(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Seat, &'static str> {
        let counted = address.map(|address| self.limits.counted(address));
        let is_known = counted.is_some_and(|counted| self.is_known(counted.network));
        let mut seats = self.seats();
        counted.map(|counted| seats.counts.add(counted, &self.limits)).transpose()?;
        let newcomer = if is_known { Newcomer::Known } else { Newcomer::Stranger };
        if seats.taken.len() >= self.limits.all && !self.make_room(&mut seats, newcomer) {
            counted.into_iter().for_each(|counted| seats.counts.remove(counted));
            return Err("connections");
        }
        let place = Arc::new(Place {
            is_known: AtomicBool::new(is_known),
            has_proved: AtomicBool::new(false),
            receives: AtomicBool::new(false),
            state: AtomicU64::new(self.now()),
            leave: Notify::new(),
        });
        let number = seats.next;
        seats.next = seats.next.wrapping_add(1);
        seats.taken.insert(number, Taken { place: Arc::clone(&place), counted });
        self.weigh(&seats);
        drop(seats);
        Ok(Seat { place, of: Some((Arc::clone(self), number)) })
    }

    /// Takes the seat of an idle client. Returns `false` if none has to leave.
    fn make_room(&self, seats: &mut Seats, newcomer: Newcomer) -> bool {
        let for_known = newcomer == Newcomer::Known;
        // Who leaves needs a moment to read why, and descriptors are not without end. A flood of
        // strangers who displace each other leaves room for known clients.
        if seats.leaving > self.limits.all / if for_known { 8 } else { 16 } {
            return false;
        }
        let now = self.now();
        loop {
            let found = seats.displace(now, newcomer);
            let searched = if for_known { seats.searched_for_known } else { seats.searched };
            if found || searched.is_some_and(|searched| searched.elapsed() < SEARCH) {
                return found;
            }
            seats.search(for_known);
        }
    }

    /// The system has no descriptors for clients who wait to be accepted. A few idle clients leave.
    /// It looks at every seat.
    pub(crate) fn relieve(&self) {
        let mut seats = self.seats();
        let now = self.now();
        seats.search(false);
        for _ in 0..seats.taken.len().div_ceil(16) {
            if seats.leaving > self.limits.all / 8 || !seats.displace(now, Newcomer::Unseen) {
                break;
            }
        }
        self.weigh(&seats);
    }

    /// The memory for contents is used up. Of the clients that count as idle although their content
    /// comes, the one whose has been waited for the longest leaves, strangers first. It looks at
    /// every seat.
    pub(crate) fn free_memory(&self) {
        let mut seats = self.seats();
        let now = self.now();
        let waited_for = seats.taken.iter().filter_map(|(number, Taken { place, .. })| {
            let since = place.state.load(Acquire);
            let waits = place.receives.load(Relaxed) && since != BUSY && since <= now;
            waits.then(|| (place.is_known.load(Relaxed), since, *number))
        });
        let Some((_, since, number)) = waited_for.min() else { return };
        let idle = seats.taken.get(&number).map(|taken| &taken.place.state);
        if idle.is_some_and(|state| state.compare_exchange(since, LEAVING, AcqRel, Relaxed).is_ok()) {
            seats.dismiss(number);
            self.weigh(&seats);
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
        self.state_from(Instant::now())
    }

    /// The same from another time on.
    fn state_from(&self, time: Instant) -> u64 {
        let passed = time.saturating_duration_since(self.begun).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1).min(LEAVING - 1)
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

/// A smaller server is nearly full with a few honest clients: its sessions never hurry.
const LEAST: usize = 20;

impl Seats {
    /// Ends the session of the client that is idle for the longest time. Returns `false` if none
    /// has to leave.
    fn displace(&mut self, now: u64, newcomer: Newcomer) -> bool {
        let leaver = self.idle.leaver(&self.taken, now, newcomer);
        leaver.is_some_and(|number| self.dismiss(number))
    }

    /// Ends the session of a client that is in the state of leaving.
    fn dismiss(&mut self, number: u64) -> bool {
        let Some(place) = self.give_up(number) else { return false };
        place.leave.notify_one();
        self.leaving += 1;
        true
    }

    /// Finds candidates.
    fn search(&mut self, for_known: bool) {
        self.searched = Some(Instant::now());
        if for_known {
            self.searched_for_known = self.searched;
        }
        self.idle.search(&self.taken);
    }

    /// `None`: this seat is not taken.
    fn give_up(&mut self, number: u64) -> Option<Arc<Place>> {
        let Taken { place, counted } = self.taken.remove(&number)?;
        counted.into_iter().for_each(|counted| self.counts.remove(counted));
        Some(place)
    }
}

impl Seat {
    /// The seat of a session that is not counted.
    pub(crate) fn free() -> Self {
        let place = Place {
            is_known: AtomicBool::new(true),
            has_proved: AtomicBool::new(true),
            receives: AtomicBool::new(false),
            state: AtomicU64::new(BUSY),
            leave: Notify::new(),
        };
        Self { place: Arc::new(place), of: None }
    }

    /// Counts the client that a proxy has named, in place of the one before. Returns its network.
    /// `None`: its networks have too many connections, and none is counted any more.
    pub(crate) fn recount(&self, address: IpAddr) -> Option<IpAddr> {
        let Some((admission, number)) = &self.of else { return Some(Networks::default().of(address)) };
        let counted = admission.limits.counted(address);
        let is_known = admission.is_known(counted.network);
        let mut seats = admission.seats();
        let Seats { taken, counts, .. } = &mut *seats;
        // A client that has lost its seat is not counted.
        let Some(taken) = taken.get_mut(number) else { return Some(counted.network) };
        taken.counted.take().into_iter().for_each(|before| counts.remove(before));
        if let Err(limit) = counts.add(counted, &admission.limits) {
            drop(seats);
            admission.refused.tell(Some(address), limit);
            return None;
        }
        taken.counted = Some(counted);
        self.place.is_known.store(is_known, Relaxed);
        self.place.has_proved.store(false, Relaxed);
        Some(counted.network)
    }

    /// The client is idle from now on.
    pub(crate) fn wait(&self) {
        let Some((admission, _)) = &self.of else { return };
        // A client that has lost its seat stays without.
        let _ = self.place.state.compare_exchange(BUSY, admission.now(), Release, Relaxed);
    }

    /// Content comes, or does not any more.
    pub(crate) fn receives(&self, receives: bool) {
        self.place.receives.store(receives, Relaxed);
    }

    /// The server waits for content. The client keeps its seat for the time that a piece may take,
    /// and for no longer than a message may take. `begun`: when the content began.
    pub(crate) fn receive(&self, begun: Instant) {
        let Some((admission, _)) = &self.of else { return };
        let until = admission.state_from((begun + CONTENT).min(Instant::now() + PIECE));
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
        let Some((admission, number)) = &self.of else { return };
        if self.place.has_proved.swap(true, Relaxed) {
            return;
        }
        self.place.is_known.store(true, Relaxed);
        let counted = admission.seats().taken.get(number).and_then(|taken| taken.counted);
        counted.into_iter().for_each(|counted| admission.know(counted.network));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((admission, number)) = &self.of {
            admission.leave(*number);
        }
    }
}
