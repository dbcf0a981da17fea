//! Bounds the connections, or look-ups, that go on at once, and decides which go next.
//!
//! A *holder* of a place moves octets, or may be about to. A holder that is silent for a moment is
//! *parked*: it gives its place up and waits in a separate room. It is back in a place as soon as
//! octets move, without waiting in line. So silence costs no place, and places are held for as long
//! as work takes, and not for as long as a peer likes.
//!
//! Two rules keep strangers from taking everything. First, a part of the places, and of the room
//! for the parked, is kept for [`Standing::Proven`]. Second, when the room is full, the holder that
//! has been silent longest is given up for one that waits in line, if it has nothing to lose. Few
//! are given up at a time when the line is short, so that a slow peer mostly gets its time. More
//! are given up when the line is long.
//!
//! The line is served from both ends in turn. From the front, so that each gets its place; from the
//! back, so that the last does not wait for a crowd before it. Those that failed lately get every
//! fourth turn.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep},
};

/// How well a site is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has answered lately: all places are open to it.
    Proven,
    /// It is not known.
    New,
    /// It failed lately, or its mail has little weight.
    Doubtful,
}

/// The bounds of [`Places`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The number of places. Half of them are kept for [`Standing::Proven`].
    pub(super) moving: usize,
    /// The room for the parked. A third of it is kept for [`Standing::Proven`].
    pub(super) silent: usize,
}

/// The interval at which some of the parked are given up while the room is full.
const GIVE_UP_EVERY: Duration = Duration::from_millis(50);
/// One of the parked is given up for this many in the line, and one at least. The line is then gone
/// within half a second, or as fast as the next bound permits.
const LINE_FOR_EACH: usize = 10;
/// No holder is given up before it has been parked for this long.
pub(super) const SILENT_FOR: Duration = Duration::from_millis(300);

/// The places, the room for the parked, and the lines of those that wait.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when a line waits because the room is full.
    pressed: Notify,
}

#[derive(Debug, Default)]
struct State {
    moving: Count,
    silent: Count,
    /// The parked that may be given up, the longest silent first.
    idle: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    next_ticket: u64,
    proven: VecDeque<oneshot::Sender<Place>>,
    new: VecDeque<oneshot::Sender<Place>>,
    doubtful: VecDeque<oneshot::Sender<Place>>,
    turn: u8,
}

/// How many there are, and how many of them are not proven.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    all: usize,
    unproven: usize,
}

/// A place, or while parked the right to take it again. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: it was never taken.
    places: Option<Arc<Places>>,
    proven: bool,
    parked: Option<Parked>,
}

/// The ticket is present only if the holder may be given up.
#[derive(Debug)]
struct Parked(Option<u64>);

impl Places {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let bounds = Bounds { moving: bounds.moving.max(1), silent: bounds.silent.max(3) };
        Arc::new(Self { bounds, state: Mutex::default(), pressed: Notify::new() })
    }

    /// Takes a place as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>, standing: Standing) -> Place {
        loop {
            let waiting = {
                let mut state = self.state();
                if self.is_free(&state, standing) {
                    return self.give(&mut state, standing == Standing::Proven);
                }
                let (give, waiting) = oneshot::channel();
                state.line(standing).push_back(give);
                if self.is_pressed(&state) {
                    self.pressed.notify_one();
                }
                waiting
            };
            // It is not closed while it waits in line.
            if let Ok(place) = waiting.await {
                return place;
            }
        }
    }

    /// Gives up parked holders, the longest silent first, while a line waits because the room is
    /// full. It never ends.
    pub(super) async fn relieve(&self) {
        loop {
            self.pressed.notified().await;
            while self.give_up_some() {
                sleep(GIVE_UP_EVERY).await;
            }
        }
    }

    /// Returns `true` if a line waits because the room is full. A holder that is given up leaves
    /// the room itself, and so lets the next one in.
    fn give_up_some(&self) -> bool {
        let mut state = self.state();
        state.sweep();
        if !self.is_pressed(&state) {
            return false;
        }
        let now = Instant::now();
        let line = state.proven.len().saturating_add(state.new.len()).saturating_add(state.doubtful.len());
        for _ in 0..(line / LINE_FOR_EACH).max(1) {
            let longest = state.idle.iter().find(|(_, (until, _))| *until <= now).map(|(ticket, _)| *ticket);
            let Some((_, give_up)) = longest.and_then(|ticket| state.idle.remove(&ticket)) else { break };
            let _ = give_up.send(());
        }
        true
    }

    /// Room is kept for those with a place, since each of them may fall silent.
    fn is_free(&self, state: &State, standing: Standing) -> bool {
        let is_proven = standing == Standing::Proven;
        let has_place =
            state.moving.all < self.bounds.moving && (is_proven || state.moving.unproven < common(self.bounds.moving));
        has_place && !self.is_full(state, is_proven)
    }

    fn is_full(&self, state: &State, is_proven: bool) -> bool {
        let Bounds { moving, silent, .. } = self.bounds;
        let sum = |one: usize, other: usize| one.saturating_add(other);
        let is_full = sum(state.moving.all, state.silent.all) >= sum(moving, silent);
        let is_share_full =
            sum(state.moving.unproven, state.silent.unproven) >= sum(common(moving), silent - silent / 3);
        is_full || (!is_proven && is_share_full)
    }

    /// Returns `true` if a line waits because the room is full.
    fn is_pressed(&self, state: &State) -> bool {
        let is_unproven = !state.new.is_empty() || !state.doubtful.is_empty();
        (is_unproven && self.is_full(state, false)) || (!state.proven.is_empty() && self.is_full(state, true))
    }

    fn give(self: &Arc<Self>, state: &mut State, proven: bool) -> Place {
        state.moving.add(proven);
        Place { places: Some(Arc::clone(self)), proven, parked: None }
    }

    /// Gives free places to the lines.
    fn serve(self: &Arc<Self>, state: &mut State) {
        loop {
            let standing = match () {
                () if !state.proven.is_empty() && self.is_free(state, Standing::Proven) => Standing::Proven,
                () if !self.is_free(state, Standing::New) => return,
                () if state.new.is_empty() && state.doubtful.is_empty() => return,
                () if state.new.is_empty() => Standing::Doubtful,
                () if state.turn % 4 == 3 && !state.doubtful.is_empty() => Standing::Doubtful,
                () => Standing::New,
            };
            let from_the_back = standing != Standing::Proven && state.turn % 2 == 1;
            if standing != Standing::Proven {
                state.turn = state.turn.wrapping_add(1);
            }
            let line = state.line(standing);
            let waiting = if from_the_back { line.pop_back() } else { line.pop_front() };
            let Some(waiting) = waiting.filter(|waiting| !waiting.is_closed()) else { continue };
            let place = self.give(state, standing == Standing::Proven);
            if let Err(mut place) = waiting.send(place) {
                // The receiver no longer waits. The place is taken back here, since the state is
                // locked.
                place.places = None;
                state.moving.remove(place.proven);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places that are open to all: half of them, and one at least.
const fn common(moving: usize) -> usize {
    moving - moving / 2
}

impl State {
    fn line(&mut self, standing: Standing) -> &mut VecDeque<oneshot::Sender<Place>> {
        match standing {
            Standing::Proven => &mut self.proven,
            Standing::New => &mut self.new,
            Standing::Doubtful => &mut self.doubtful,
        }
    }

    /// Forgets those that no longer wait.
    fn sweep(&mut self) {
        for line in [&mut self.proven, &mut self.new, &mut self.doubtful] {
            line.retain(|waiting| !waiting.is_closed());
        }
    }
}

impl Count {
    fn add(&mut self, proven: bool) {
        self.all = self.all.saturating_add(1);
        self.unproven = self.unproven.saturating_add(usize::from(!proven));
    }

    fn remove(&mut self, proven: bool) {
        self.all = self.all.saturating_sub(1);
        self.unproven = self.unproven.saturating_sub(usize::from(!proven));
    }
}

impl Place {
    /// Returns `true` if the place is one for [`Standing::Proven`] alone.
    pub(super) const fn is_reserved(&self) -> bool {
        self.proven
    }

    /// Gives the place up while no octets move. With a `patience` the holder may be given up after
    /// it: then the receiver completes, and the holder must end.
    pub(super) fn park(&mut self, patience: Option<Duration>) -> Option<oneshot::Receiver<()>> {
        let places = self.places.as_ref().filter(|_| self.parked.is_none())?;
        let mut state = places.state();
        state.moving.remove(self.proven);
        state.silent.add(self.proven);
        let (ticket, given_up) = if let Some(patience) = patience {
            let (give_up, given_up) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket = ticket.wrapping_add(1);
            state.idle.insert(ticket, (Instant::now() + patience, give_up));
            (Some(ticket), Some(given_up))
        } else {
            (None, None)
        };
        self.parked = Some(Parked(ticket));
        places.serve(&mut state);
        if places.is_pressed(&state) {
            places.pressed.notify_one();
        }
        given_up
    }

    /// Takes the place again at once, even if all are taken. The surplus is never larger than the
    /// number of the parked was.
    pub(super) fn resume(&mut self) {
        let (Some(places), Some(Parked(ticket))) = (&self.places, self.parked.take()) else { return };
        let mut state = places.state();
        state.silent.remove(self.proven);
        state.moving.add(self.proven);
        if let Some(ticket) = ticket {
            state.idle.remove(&ticket);
        }
        // The parked have room for one more.
        places.serve(&mut state);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(places) = &self.places else { return };
        let mut state = places.state();
        match self.parked.take() {
            Some(Parked(ticket)) => {
                state.silent.remove(self.proven);
                if let Some(ticket) = ticket {
                    state.idle.remove(&ticket);
                }
            }
            None => state.moving.remove(self.proven),
        }
        places.serve(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn places(moving: usize, silent: usize) -> Arc<Places> {
        Places::new(Bounds { moving, silent })
    }

    fn at_once(taking: Pin<&mut impl Future<Output = Place>>) -> Option<Place> {
        match taking.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    fn now(places: &Arc<Places>, standing: Standing) -> Option<Place> {
        at_once(pin!(places.take(standing)))
    }

    #[test]
    fn half_of_the_places_are_kept_for_proven_sites() {
        for (moving, unproven) in [(1, 1), (2, 1), (3, 2), (200, 100)] {
            let places = places(moving, 600);
            let held: Vec<_> = (0..moving).map_while(|_| now(&places, Standing::New)).collect();
            assert_eq!(held.len(), unproven);
            let proven: Vec<_> = (0..moving).map_while(|_| now(&places, Standing::Proven)).collect();
            assert_eq!(proven.len(), moving - unproven);
            drop(held);
            assert!(now(&places, Standing::Doubtful).is_some());
        }
    }

    #[test]
    fn a_silent_holder_has_no_place_and_takes_it_back_without_waiting() {
        let places = places(1, 3);
        let mut first = now(&places, Standing::New).unwrap();
        assert!(now(&places, Standing::New).is_none());
        let _ = first.park(Some(SILENT_FOR));
        let second = now(&places, Standing::New).unwrap();
        first.resume();
        assert!(now(&places, Standing::New).is_none());
        drop((first, second));
        assert!(now(&places, Standing::New).is_some());
    }

    #[test]
    fn the_line_is_served_from_both_ends_in_turn() {
        let places = places(1, 3);
        let held = now(&places, Standing::New).unwrap();
        let mut line: Vec<_> = (0..10).map(|_| Box::pin(places.take(Standing::New))).collect();
        line.iter_mut().for_each(|waiting| assert!(at_once(waiting.as_mut()).is_none()));
        drop(held);
        for expected in [0, 9, 1, 8, 2] {
            let place = at_once(line[expected].as_mut());
            assert!(place.is_some(), "{expected}");
        }
    }

    #[test]
    fn doubtful_sites_get_every_fourth_turn() {
        let places = places(1, 3);
        let held = now(&places, Standing::New).unwrap();
        let mut doubtful: Vec<_> = (0..9).map(|_| Box::pin(places.take(Standing::Doubtful))).collect();
        let mut new: Vec<_> = (0..9).map(|_| Box::pin(places.take(Standing::New))).collect();
        doubtful.iter_mut().chain(&mut new).for_each(|waiting| assert!(at_once(waiting.as_mut()).is_none()));
        drop(held);
        let mut served = String::new();
        while !new.is_empty() {
            let mut found = None;
            for (name, line) in [('d', &mut doubtful), ('n', &mut new)] {
                if let Some(at) = line.iter_mut().position(|waiting| {
                    let place = at_once(waiting.as_mut());
                    let is_there = place.is_some();
                    found = found.take().or(place);
                    is_there
                }) {
                    drop(line.remove(at));
                    served.push(name);
                    break;
                }
            }
            drop(found.unwrap());
        }
        assert_eq!(served, "nnndnnndnnn");
    }

    #[test]
    fn a_place_is_free_again_when_its_receiver_leaves_the_line() {
        let places = places(1, 3);
        let held = now(&places, Standing::New).unwrap();
        drop(now(&places, Standing::New));
        let mut waiting = Box::pin(places.take(Standing::New));
        assert!(at_once(waiting.as_mut()).is_none());
        drop(held);
        // It was given a place, and is dropped before it saw that.
        drop(waiting);
        assert!(now(&places, Standing::New).is_some());
        let state = places.state();
        assert_eq!((state.moving.all, state.silent.all, state.new.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_holders_are_given_up_one_after_another_when_the_room_is_full() {
        let places = places(2, 3);
        let relieve = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.relieve().await }
        });
        let mut parked = Vec::new();
        for _ in 0..3 {
            let mut place = now(&places, Standing::New).unwrap();
            let given_up = place.park(Some(SILENT_FOR)).unwrap();
            parked.push((place, given_up));
        }
        // A third of the room, and half of the places, are kept for the proven.
        let mut proven = now(&places, Standing::Proven).unwrap();
        assert!(proven.park(None).is_none(), "a holder without patience is never given up");
        let mut waiting = Box::pin(places.take(Standing::New));
        assert!(at_once(waiting.as_mut()).is_none());
        sleep(SILENT_FOR - GIVE_UP_EVERY).await;
        assert!(parked[0].1.try_recv().is_err(), "it has not been silent for long enough");
        sleep(3 * GIVE_UP_EVERY / 2).await;
        let (first, mut given_up) = parked.remove(0);
        assert!(given_up.try_recv().is_ok());
        assert!(parked[0].1.try_recv().is_err());
        drop(proven);
        drop(first);
        let place = waiting.await;
        sleep(Duration::from_secs(1)).await;
        assert!(parked[0].1.try_recv().is_err(), "the line is empty");
        drop(place);
        relieve.abort();
    }
}
