//! Bounds the connections, or look-ups, that go on at once, and decides which go next.
//!
//! A *holder* of a place moves octets, or may be about to. A holder that is silent for a moment is
//! *parked*: it gives its place up and waits in a separate room. It is back in a place as soon as
//! octets move, without waiting in line. So silence costs no place, and places are held for as long
//! as work takes, and not for as long as a peer likes.
//!
//! Three rules keep some from taking everything:
//!
//! 1. A part of the places, and of the room for the parked, is kept for [`Standing::Proven`].
//! 2. No site takes the last quarter of the places that are open to it from the others. Beyond its
//!    fair [`Share`] it gets a place only while more than a quarter are free. So ten slow sites
//!    leave room for an eleventh.
//! 3. When the room is full, the holder that has been silent longest is given up for one that waits
//!    in line, if it has nothing to lose. Few are given up at a time when the line is short, so
//!    that a slow peer mostly gets its time. More are given up when the line is long.
//!
//! The line is served from both ends in turn. From the front, so that each gets its place; from the
//! back, so that the last does not wait for a crowd before it. Those that failed lately get every
//! fourth turn.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
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

/// What a site has of the [`Places`]. It is fair that it has as many as there are for each site
/// that holds one or waits for one, from half of the places; one at least.
///
/// The counts change only while the places are locked.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The places that it holds. Those of the parked do not count.
    held: AtomicUsize,
    /// The number of those that wait in its name.
    waiting: AtomicUsize,
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
    proven: Line,
    new: Line,
    doubtful: Line,
    turn: u8,
    /// The sites that hold a place, or wait for one.
    sites: usize,
}

/// Those that wait for a place, each with the share of its site.
type Line = VecDeque<(Arc<Share>, oneshot::Sender<Place>)>;

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
    share: Arc<Share>,
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

    /// Takes a place for the site of this share, as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>, standing: Standing, share: &Arc<Share>) -> Place {
        loop {
            let waiting = {
                let mut state = self.state();
                if self.is_free(&state, standing) && self.may_take(&state, standing, share) {
                    return self.give(&mut state, standing == Standing::Proven, Arc::clone(share));
                }
                let (give, waiting) = oneshot::channel();
                state.change(share, |share| share.waiting.fetch_add(1, Relaxed));
                state.line(standing).push_back((Arc::clone(share), give));
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

    /// Returns `true` if the site leaves enough for others as it takes one of the free places.
    fn may_take(&self, state: &State, standing: Standing, share: &Share) -> bool {
        let (taken, of) = match standing {
            Standing::Proven => (state.moving.all, self.bounds.moving),
            Standing::New | Standing::Doubtful => (state.moving.unproven, common(self.bounds.moving)),
        };
        let held = share.held.load(Relaxed);
        let others = state.sites.saturating_sub(usize::from(share.is_active()));
        let fair = (of / 2 / others.saturating_add(1)).max(1);
        held < fair || of.saturating_sub(taken) > of / 4
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

    fn give(self: &Arc<Self>, state: &mut State, proven: bool, share: Arc<Share>) -> Place {
        state.moving.add(proven);
        state.change(&share, |share| share.held.fetch_add(1, Relaxed));
        Place { places: Some(Arc::clone(self)), share, proven, parked: None }
    }

    /// Gives free places to the lines.
    fn serve(self: &Arc<Self>, state: &mut State) {
        while [Standing::Proven, Standing::New].into_iter().any(|standing| self.serve_one(state, standing)) {}
    }

    /// Gives a free place to a line: that of the proven, or one of the two others. Returns `false`
    /// if none waits that may take one.
    fn serve_one(self: &Arc<Self>, state: &mut State, standing: Standing) -> bool {
        if !self.is_free(state, standing) {
            return false;
        }
        let both = [Standing::New, Standing::Doubtful];
        let lines: &[Standing] = match standing {
            Standing::Proven => &[Standing::Proven],
            _ if state.turn % 4 == 3 => &[Standing::Doubtful, Standing::New],
            _ => &both,
        };
        let from_the_back = standing != Standing::Proven && state.turn % 2 == 1;
        for standing in lines {
            let line = std::mem::take(state.line(*standing));
            // Seldom must any be passed over: those of the sites that have much already.
            let may_take = |(share, _): &(Arc<Share>, _)| self.may_take(state, *standing, share);
            let at = if from_the_back { line.iter().rposition(may_take) } else { line.iter().position(may_take) };
            *state.line(*standing) = line;
            let Some((share, waiting)) = at.and_then(|at| state.line(*standing).remove(at)) else { continue };
            state.change(&share, |share| share.waiting.fetch_sub(1, Relaxed));
            if waiting.is_closed() {
                return true;
            }
            if *standing != Standing::Proven {
                state.turn = state.turn.wrapping_add(1);
            }
            let place = self.give(state, *standing == Standing::Proven, share);
            if let Err(mut place) = waiting.send(place) {
                // The receiver no longer waits. The place is taken back here, since the state is
                // locked.
                place.places = None;
                state.moving.remove(place.proven);
                state.change(&place.share, |share| share.held.fetch_sub(1, Relaxed));
            }
            return true;
        }
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places that are open to all: half of them, and one at least.
const fn common(moving: usize) -> usize {
    moving - moving / 2
}

impl Share {
    fn is_active(&self) -> bool {
        self.held.load(Relaxed) > 0 || self.waiting.load(Relaxed) > 0
    }
}

impl State {
    /// Changes the counts of a share.
    fn change(&mut self, share: &Share, change: impl FnOnce(&Share) -> usize) {
        let was_active = share.is_active();
        change(share);
        match (was_active, share.is_active()) {
            (false, true) => self.sites = self.sites.saturating_add(1),
            (true, false) => self.sites = self.sites.saturating_sub(1),
            _ => {}
        }
    }

    fn line(&mut self, standing: Standing) -> &mut Line {
        match standing {
            Standing::Proven => &mut self.proven,
            Standing::New => &mut self.new,
            Standing::Doubtful => &mut self.doubtful,
        }
    }

    /// Forgets those that no longer wait.
    fn sweep(&mut self) {
        let mut gone = Vec::new();
        for line in [&mut self.proven, &mut self.new, &mut self.doubtful] {
            line.retain(|(share, waiting)| {
                let is_here = !waiting.is_closed();
                if !is_here {
                    gone.push(Arc::clone(share));
                }
                is_here
            });
        }
        for share in gone {
            self.change(&share, |share| share.waiting.fetch_sub(1, Relaxed));
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
        state.change(&self.share, |share| share.held.fetch_sub(1, Relaxed));
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
        state.change(&self.share, |share| share.held.fetch_add(1, Relaxed));
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
            None => {
                state.moving.remove(self.proven);
                state.change(&self.share, |share| share.held.fetch_sub(1, Relaxed));
            }
        }
        places.serve(&mut state);
    }
}
