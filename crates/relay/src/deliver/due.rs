//! What is due at a site, and whose turn it is.

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
}

/// Why a class is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// For a [hint](super::hints::Hints).
    Hint,
    /// The look of this number came to it. A look goes through all classes in their order.
    Look(u64),
    /// It was taken, and had a delivery.
    Turn,
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
        }
        // Mostly it is there: the queue lists what is due again and again.
        if self.known.contains(&class) {
            return Added::Known;
        }
        if !self.has_room(&class, offer) {
            match offer {
                Offer::Look(_) => self.room.note_missed(),
                Offer::Turn => self.note_hunger(),
                Offer::Hint => {}
            }
            return Added::Missed;
        }
        self.room.enter();
        self.known.insert(class.clone());
        self.rings.entry(Rank::read(class.priority)).or_default().add(class.owner, class.key);
        Added::New
    }

    fn has_room(&mut self, class: &DueClass, offer: Offer) -> bool {
        if offer == Offer::Turn {
            return !self.is_crowded();
        }
        let most = self.room.of_site();
        let free = most.saturating_sub(self.known.len());
        let others = self.rings.get(&Rank::read(class.priority)).map_or(0, |ring| ring.keys_of(&class.owner));
        // An owner that comes in between, and most of all one with new mail.
        let kept = if offer == Offer::Hint { most / 4 } else { most / 2 };
        if others == 0 && free > kept {
            return true;
        }
        match offer {
            Offer::Hint if self.is_crowded() => false,
            Offer::Look(_) if self.goes_on_at.as_ref().is_some_and(|at| class < at) => false,
            _ if others < free => true,
            Offer::Look(_) => {
                self.missed.get_or_insert_with(|| class.clone());
                false
            }
            Offer::Hint | Offer::Turn => false,
        }
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

    /// Takes the next class. If there was a delivery, add it again. Large mail is passed over unless
    /// it `may_be_large`.
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

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::Pin,
        task::{Context, Waker},
    };

    use posthaste_queue::Priority;

    use super::*;
    use crate::deliver::room::LEAST;

    fn class(key: &str, priority: i8, owner: &str) -> DueClass {
        let (key, owner) = (RoutingKey::new(key).unwrap(), Owner::new(owner).unwrap());
        DueClass { key, priority: Priority(priority), owner }
    }

    /// Takes *n* classes, and puts each back, as a worker does that finds a delivery in each.
    fn served(due: &mut Due, count: usize) -> Vec<DueClass> {
        let each = |_| {
            let class = due.take(true).unwrap();
            assert_eq!(due.add(class.clone(), Offer::Turn), Added::New);
            class
        };
        (0..count).map(each).collect()
    }

    fn owners(classes: &[DueClass]) -> Vec<&str> {
        classes.iter().map(|class| class.owner.as_str()).collect()
    }

    #[test]
    fn an_owner_with_a_thousand_keys_gets_every_other_turn() {
        let mut due = Due::default();
        for number in 0..1_000 {
            due.add(class(&format!("d{number}"), 0, "busy"), Offer::Hint);
        }
        due.add(class("d0", 0, "quiet"), Offer::Hint);
        let served = served(&mut due, 6);
        assert_eq!(owners(&served), ["busy", "quiet", "busy", "quiet", "busy", "quiet"]);
        let keys: Vec<_> = served.iter().step_by(2).map(|class| class.key.as_str()).collect();
        assert_eq!(keys, ["d0", "d1", "d2"], "its keys come in turn too");
    }

    #[test]
    fn a_higher_priority_goes_first_over_all_keys() {
        let mut due = Due::default();
        for number in 0..100 {
            due.add(class(&format!("d{number}"), 0, "busy"), Offer::Hint);
        }
        assert_eq!(due.take(true).unwrap(), class("d0", 0, "busy"));
        for (key, priority, owner) in [("d7", 4, "busy"), ("d9", -1, "quiet"), ("z", 5, "quiet"), ("a", 4, "quiet")] {
            due.add(class(key, priority, owner), Offer::Hint);
        }
        let order: Vec<_> = std::iter::from_fn(|| due.take(true)).collect();
        assert_eq!(order[..3], [class("z", 5, "quiet"), class("d7", 4, "busy"), class("a", 4, "quiet")]);
        assert_eq!(order[3..102], (1..100).map(|number| class(&format!("d{number}"), 0, "busy")).collect::<Vec<_>>());
        assert_eq!(order[102..], [class("d9", -1, "quiet")]);
        assert!(due.is_empty());
    }

    #[test]
    fn small_and_large_mail_of_a_priority_come_in_turn() {
        let mut due = Due::default();
        let large = |key: &str, priority, owner: &str| {
            let class = class(key, priority, owner);
            DueClass { priority: Rank::new(priority, u64::MAX).number(), ..class }
        };
        for class in [large("a", 0, "one"), large("b", 0, "one"), large("a", 0, "other"), class("a", 0, "one")] {
            due.add(class, Offer::Hint);
        }
        let expected = [class("a", 0, "one"), large("a", 0, "one")];
        assert_eq!(served(&mut due, 2), expected);
        assert_eq!(served(&mut due, 2), [class("a", 0, "one"), large("a", 0, "other")], "owners come in turn in both");
        // It had no delivery.
        let taken = due.take(true).unwrap();
        due.give_turn_back(&taken);
        assert_eq!((taken, due.has(Size::Small)), (class("a", 0, "one"), false));
        due.add(class("z", 0, "one"), Offer::Hint);
        assert_eq!(due.take(true), Some(class("z", 0, "one")));
        // A higher priority comes first, and what may not be large passes it.
        due.add(large("a", 4, "one"), Offer::Hint);
        due.add(class("a", -4, "one"), Offer::Hint);
        assert_eq!(due.take(false), Some(class("a", -4, "one")));
        assert_eq!((due.take(false), due.has(Size::Large)), (None, true));
        assert_eq!(due.take(true), Some(large("a", 4, "one")));
        assert_eq!(due.take(true).map(|class| Rank::read(class.priority).size), Some(Size::Large));
    }

    #[test]
    fn an_empty_class_costs_its_owner_no_turn() {
        let mut due = Due::default();
        for key in ["empty", "also empty", "full"] {
            due.add(class(key, 0, "one"), Offer::Hint);
        }
        due.add(class("full", 0, "other"), Offer::Hint);
        due.add(class("full", 0, "third"), Offer::Hint);
        for key in ["empty", "also empty"] {
            let taken = due.take(true).unwrap();
            assert_eq!(taken, class(key, 0, "one"));
            due.give_turn_back(&taken);
        }
        assert_eq!(owners(&served(&mut due, 4)), ["one", "other", "third", "one"]);
        // There is no turn to give to an owner without a key, or in a priority without an owner.
        due.give_turn_back(&class("full", 0, "gone"));
        due.give_turn_back(&class("full", 1, "one"));
        assert_eq!(owners(&served(&mut due, 2)), ["other", "third"]);
    }

    #[test]
    fn each_class_is_there_once_and_none_is_lost() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut due, mut expected) = (Due::default(), HashSet::new());
            for _ in 0..500 {
                let any = class(["a", "b", "c"][random.usize(0..3)], random.i8(0..2), ["x", "y"][random.usize(0..2)]);
                match random.u8(0..5) {
                    0 | 1 => assert_eq!(due.add(any.clone(), Offer::Hint) == Added::New, expected.insert(any)),
                    2 => due.give_turn_back(&any),
                    _ => match due.take(true) {
                        Some(taken) => {
                            assert!(expected.iter().all(|left| left.priority <= taken.priority));
                            assert!(expected.remove(&taken));
                        }
                        None => assert!(expected.is_empty()),
                    },
                }
                assert_eq!(due.is_empty(), expected.is_empty());
                let ring = |ring: &Ring| !ring.is_empty() && ring.turns.len() == ring.lines.len();
                assert!(due.rings.values().all(ring) && due.known == expected, "seed {seed}");
            }
        }
    }

    /// Classes that always have a delivery, at a site with room for some of them: the turns that
    /// each has had. A look comes whenever the site asks for one.
    fn in_room(room: &Arc<Room>, classes: &[DueClass], turns: usize) -> HashMap<DueClass, usize> {
        let mut due = Due::default();
        due.share(room);
        let (mut had, mut look) = (HashMap::new(), 0);
        for _ in 0..turns {
            if look == 0
                || Pin::new(&mut Box::pin(room.hungry.notified()))
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_ready()
            {
                look += 1;
                for class in classes {
                    due.add(class.clone(), Offer::Look(look));
                    assert!(due.len() <= room.of_site().max(LEAST));
                }
            }
            let class = due.take(true).unwrap();
            *had.entry(class.clone()).or_default() += 1;
            due.add(class, Offer::Turn);
        }
        had
    }

    #[test]
    fn no_class_starves_beyond_the_room_of_a_site() {
        let owners: Vec<_> = (0..120).map(|number| class("a", 0, &format!("owner{number:03}"))).collect();
        let keys: Vec<_> = (0..120).map(|number| class(&format!("d{number:03}"), 0, "one")).collect();
        let mut both: Vec<_> = owners.iter().take(60).chain(keys.iter().take(60)).cloned().collect();
        both.sort();
        for classes in [owners, keys, both] {
            for room in [Room::new(1_000, 32), Room::new(1, 32), Room::new(1_000, 8)] {
                let had = in_room(&Arc::new(room), &classes, 2_000);
                let (least, most) = (had.values().min().unwrap(), had.values().max().unwrap());
                assert_eq!(had.len(), classes.len(), "each has had a turn");
                assert!(*least >= 3, "{least} {most}");
            }
        }
    }

    #[test]
    fn an_owner_with_thousands_of_keys_leaves_room_for_others() {
        let room = Arc::new(Room::new(1_000, 64));
        let mut due = Due::default();
        due.share(&room);
        for number in 0..500 {
            due.add(class(&format!("d{number:03}"), 0, "busy"), Offer::Look(1));
        }
        assert_eq!(due.len(), 32);
        // New mail of another owner comes first, and mail of the busy one waits for a look.
        assert_eq!(due.add(class("z", 0, "quiet"), Offer::Hint), Added::New);
        assert_eq!(due.add(class("z", 0, "busy"), Offer::Hint), Added::Missed);
        assert_eq!(due.take(true).unwrap().owner.as_str(), "busy");
        assert_eq!(due.take(true).unwrap().owner.as_str(), "quiet");
        assert!(room.take_passed().missed);
        drop(due);
        assert_eq!(room.known(), 0);
    }

    #[test]
    fn a_site_knows_some_classes_though_others_fill_the_relay() {
        let room = Arc::new(Room::new(100, 64));
        let mut sites = [(); 4].map(|()| Due::default());
        for due in &mut sites {
            due.share(&room);
            for number in 0..500 {
                due.add(class("a", 0, &format!("owner{number}")), Offer::Look(1));
            }
        }
        assert_eq!(sites.each_ref().map(Due::len), [64, 36, LEAST, LEAST]);
    }
}
