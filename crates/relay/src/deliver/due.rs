//! What is due at a site, and whose turn it is.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use posthaste_queue::{DueClass, Owner, RoutingKey};

use super::room::Room;
use crate::rank::{Rank, Size};

/// Classes that may have a delivery due, each once.
///
/// The highest priority comes first, over all keys. Within a priority small and large mail come in
/// turn. Within both owners come in turn, and so do the keys of an owner. So an owner with a
/// thousand keys gets as many turns as one with a single key. Each call costs O(log *n*).
///
/// The number of classes has a bound ([`Room`]). What lies beyond is *missed*, and stays due in the
/// queue. A site that has missed classes is *crowded*. Then each class that it knows gets one turn,
/// and makes room. The next look through the queue goes on where the site has missed the first
/// class, so all of them come in a circle. An owner may take a class only while it has fewer than
/// there is room for. So there is room for other owners, however much one owner has due.
///
/// What comes before all that was missed is *urgent*: a higher priority, or small mail beside
/// large. It waits for no circle. The last eighth of the room is for it, and it goes back after its
/// turn.
#[derive(Debug, Default)]
pub(super) struct Due {
    known: HashSet<DueClass>,
    /// No ring is empty.
    rings: BTreeMap<Rank, Ring>,
    /// The size that comes next, where a priority has both.
    next: Size,
    room: Arc<Room>,
    /// The number of the last look that offered a class.
    look: u64,
    /// Classes before this one were taken by earlier looks.
    goes_on_at: Option<DueClass>,
    /// The first class that this look has missed.
    missed: Option<DueClass>,
    /// The first rank of what was missed since this look began, and of what was missed before.
    ranks_missed: [Option<Rank>; 2],
}

/// Why a class is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// For a [hint](super::hints::Hints): it has new mail.
    Hint,
    /// The look of this number came to it. A look goes through all classes in their order.
    Look(u64),
    /// It was offered before, to another site or while it was not known to which.
    Again,
    /// It was taken, and had a delivery.
    Turn,
}

impl Offer {
    /// The part of a bound on sites and questions that it may use. New mail alone has the last
    /// quarter, so that it need not wait for a look while the backlog has the rest.
    pub(super) const fn part_of(self, most: usize) -> usize {
        match self {
            Self::Hint => most,
            Self::Look(_) | Self::Again | Self::Turn => most - most / 4,
        }
    }

    /// The offer that follows when it is known to which site the class goes.
    pub(super) const fn again(self) -> Self {
        match self {
            Self::Hint => Self::Hint,
            Self::Look(_) | Self::Again | Self::Turn => Self::Again,
        }
    }
}

/// What became of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Known,
    /// There is no room. A later look offers it again.
    Missed,
}

impl Due {
    /// Shares the room with others, in place of a room of its own. Nothing is due yet.
    pub(super) fn share(&mut self, room: &Arc<Room>) {
        self.room = Arc::clone(room);
    }

    /// Forgets all classes.
    pub(super) fn clear(&mut self) {
        let mut empty = Self::default();
        empty.share(&self.room);
        *self = empty;
    }

    /// Adds a class, behind the other keys of its owner.
    pub(super) fn add(&mut self, class: DueClass, offer: Offer) -> Added {
        if let Offer::Look(number) = offer
            && number != self.look
        {
            (self.look, self.goes_on_at) = (number, self.missed.take());
            self.ranks_missed = [None, self.ranks_missed[0]];
        }
        // Mostly it is there: the queue lists what is due again and again.
        if self.known.contains(&class) {
            return Added::Known;
        }
        if !self.has_room(&class, offer) {
            match offer {
                Offer::Look(_) => self.room.note_missed(),
                Offer::Turn => self.note_hunger(),
                Offer::Hint | Offer::Again => {}
            }
            return Added::Missed;
        }
        self.room.enter();
        self.known.insert(class.clone());
        self.rings.entry(Rank::read(class.priority)).or_default().add(class.owner, class.key);
        Added::New
    }

    fn has_room(&mut self, class: &DueClass, offer: Offer) -> bool {
        let rank = Rank::read(class.priority);
        let others = self.rings.get(&rank).map_or(0, |ring| ring.keys_of(&class.owner));
        if self.is_urgent(rank) {
            let free = self.room.of_site_for_urgent().saturating_sub(self.known.len());
            if offer == Offer::Turn || free > 0 {
                return offer == Offer::Turn || others < free;
            }
        }
        let has_room = self.has_usual_room(class, offer, others);
        if !has_room {
            let [missed, _] = &mut self.ranks_missed;
            *missed = Some(missed.map_or(rank, |first| first.min(rank)));
        }
        has_room
    }

    /// Its owner has this many `others` of its rank.
    fn has_usual_room(&mut self, class: &DueClass, offer: Offer, others: usize) -> bool {
        if offer == Offer::Turn {
            return !self.is_crowded();
        }
        let most = self.room.of_site();
        let free = most.saturating_sub(self.known.len());
        // An owner that comes in between, and most of all one with new mail.
        let kept = if offer == Offer::Hint { most / 4 } else { most / 2 };
        if others == 0 && free > kept {
            return true;
        }
        match offer {
            Offer::Hint | Offer::Again if self.is_crowded() => false,
            Offer::Look(_) if self.goes_on_at.as_ref().is_some_and(|at| class < at) => false,
            _ if others < free => true,
            Offer::Look(_) => {
                self.missed.get_or_insert_with(|| class.clone());
                false
            }
            Offer::Hint | Offer::Again | Offer::Turn => false,
        }
    }

    /// Returns `true` if all that was missed comes after this rank.
    fn is_urgent(&self, rank: Rank) -> bool {
        self.ranks_missed.iter().flatten().min().is_some_and(|first| rank < *first)
    }

    fn is_crowded(&self) -> bool {
        self.goes_on_at.is_some() || self.missed.is_some()
    }

    /// Asks for a look if there are missed classes, and few others.
    fn note_hunger(&self) {
        if self.is_crowded() && self.known.len() <= self.room.of_site() / 4 {
            self.room.hungry.notify_one();
        }
    }

    /// Takes the next class. If there was a delivery, add it again. Large mail is passed over
    /// unless it `may_be_large`.
    pub(super) fn take(&mut self, may_be_large: bool) -> Option<DueClass> {
        let mut ranks = self.rings.keys().filter(|rank| may_be_large || rank.size == Size::Small);
        let first = *ranks.next()?;
        let other = ranks.next().filter(|other| other.priority == first.priority && other.size == self.next);
        let rank = other.copied().unwrap_or(first);
        self.next = rank.size.other();
        let ring = self.rings.get_mut(&rank)?;
        let taken = ring.take();
        if ring.is_empty() {
            self.rings.remove(&rank);
        }
        let (owner, key) = taken?;
        let class = DueClass { key, priority: rank.number(), owner };
        if self.known.remove(&class) {
            self.room.leave(1);
        }
        self.note_hunger();
        Some(class)
    }

    /// A class that was taken had no delivery, so its size and its owner have the next turn again.
    /// Otherwise an owner whose keys have one delivery each would lose every other turn.
    pub(super) fn give_turn_back(&mut self, class: &DueClass) {
        let rank = Rank::read(class.priority);
        self.next = rank.size;
        if let Some(ring) = self.rings.get_mut(&rank) {
            ring.advance(&class.owner);
        }
    }

    /// Returns `true` if mail of this size is due.
    pub(super) fn has(&self, size: Size) -> bool {
        self.rings.keys().any(|rank| rank.size == size)
    }

    /// The number of classes.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.room.leave(self.known.len());
    }
}

/// The owners of one rank, each with its keys.
///
/// Invariant: an owner has a line if and only if it has a key and a turn.
#[derive(Debug, Default)]
struct Ring {
    /// The smallest number is the next turn.
    turns: BTreeMap<i64, Owner>,
    lines: HashMap<Owner, Line>,
}

#[derive(Debug)]
struct Line {
    turn: i64,
    keys: VecDeque<RoutingKey>,
}

impl Ring {
    fn add(&mut self, owner: Owner, key: RoutingKey) {
        if let Some(line) = self.lines.get_mut(&owner) {
            line.keys.push_back(key);
        } else {
            let turn = self.last_turn();
            self.turns.insert(turn, owner.clone());
            self.lines.insert(owner, Line { turn, keys: VecDeque::from([key]) });
        }
    }

    fn take(&mut self) -> Option<(Owner, RoutingKey)> {
        let (_, owner) = self.turns.pop_first()?;
        let turn = self.last_turn();
        let line = self.lines.get_mut(&owner)?;
        let key = line.keys.pop_front()?;
        if line.keys.is_empty() {
            self.lines.remove(&owner);
        } else {
            line.turn = turn;
            self.turns.insert(turn, owner.clone());
        }
        Some((owner, key))
    }

    fn keys_of(&self, owner: &Owner) -> usize {
        self.lines.get(owner).map_or(0, |line| line.keys.len())
    }

    /// Gives an owner that is here the next turn.
    fn advance(&mut self, owner: &Owner) {
        let first = self.turns.first_key_value().map_or(0, |(turn, _)| turn.saturating_sub(1));
        let Some(line) = self.lines.get_mut(owner) else { return };
        if let Some(owner) = self.turns.remove(&line.turn) {
            line.turn = first;
            self.turns.insert(first, owner);
        }
    }

    /// Behind all others.
    fn last_turn(&self) -> i64 {
        self.turns.last_key_value().map_or(0, |(turn, _)| turn.saturating_add(1))
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}
