//! What is due at a site, and whose turn it is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
};

use posthaste_queue::{DueClass, Owner, Priority, RoutingKey};

/// Classes that may have a delivery due, each once.
///
/// The highest priority comes first, over all keys. Within a priority owners come in turn, and so
/// do the keys of an owner. So an owner with a thousand keys gets as many turns as one with a
/// single key. Each call costs O(log *n*). There are at most as many classes as deliveries in the
/// queue.
#[derive(Debug, Default)]
pub(super) struct Due {
    known: HashSet<DueClass>,
    /// No ring is empty.
    rings: BTreeMap<Reverse<Priority>, Ring>,
}

impl Due {
    /// Adds a class, behind the other keys of its owner. Returns `false` if it was there.
    pub(super) fn add(&mut self, class: DueClass) -> bool {
        // Mostly it is there: the queue lists what is due again and again.
        if self.known.contains(&class) {
            return false;
        }
        self.known.insert(class.clone());
        self.rings.entry(Reverse(class.priority)).or_default().add(class.owner, class.key);
        true
    }

    /// Takes the next class. If there was a delivery, add it again.
    pub(super) fn take(&mut self) -> Option<DueClass> {
        let mut first = self.rings.first_entry()?;
        let Reverse(priority) = *first.key();
        let taken = first.get_mut().take();
        if first.get().is_empty() {
            first.remove();
        }
        let (owner, key) = taken?;
        let class = DueClass { key, priority, owner };
        self.known.remove(&class);
        Some(class)
    }

    /// A class that was taken had no delivery, so its owner has the next turn again. Otherwise an
    /// owner whose keys have one delivery each would lose every other turn.
    pub(super) fn give_turn_back(&mut self, class: &DueClass) {
        if let Some(ring) = self.rings.get_mut(&Reverse(class.priority)) {
            ring.advance(&class.owner);
        }
    }

    /// The number of classes.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }
}

/// The owners of one priority, each with its keys.
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
    use super::*;

    fn class(key: &str, priority: i8, owner: &str) -> DueClass {
        let (key, owner) = (RoutingKey::new(key).unwrap(), Owner::new(owner).unwrap());
        DueClass { key, priority: Priority(priority), owner }
    }

    /// Takes *n* classes, and puts each back, as a worker does that finds a delivery in each.
    fn served(due: &mut Due, count: usize) -> Vec<DueClass> {
        let each = |_| {
            let class = due.take().unwrap();
            assert!(due.add(class.clone()));
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
            due.add(class(&format!("d{number}"), 0, "busy"));
        }
        due.add(class("d0", 0, "quiet"));
        let served = served(&mut due, 6);
        assert_eq!(owners(&served), ["busy", "quiet", "busy", "quiet", "busy", "quiet"]);
        let keys: Vec<_> = served.iter().step_by(2).map(|class| class.key.as_str()).collect();
        assert_eq!(keys, ["d0", "d1", "d2"], "its keys come in turn too");
    }

    #[test]
    fn a_higher_priority_goes_first_over_all_keys() {
        let mut due = Due::default();
        for number in 0..100 {
            due.add(class(&format!("d{number}"), 0, "busy"));
        }
        assert_eq!(due.take().unwrap(), class("d0", 0, "busy"));
        for (key, priority, owner) in [("d7", 4, "busy"), ("d9", -1, "quiet"), ("z", 5, "quiet"), ("a", 4, "quiet")] {
            due.add(class(key, priority, owner));
        }
        let order: Vec<_> = std::iter::from_fn(|| due.take()).collect();
        assert_eq!(order[..3], [class("z", 5, "quiet"), class("d7", 4, "busy"), class("a", 4, "quiet")]);
        assert_eq!(order[3..102], (1..100).map(|number| class(&format!("d{number}"), 0, "busy")).collect::<Vec<_>>());
        assert_eq!(order[102..], [class("d9", -1, "quiet")]);
        assert!(due.is_empty());
    }

    #[test]
    fn an_empty_class_costs_its_owner_no_turn() {
        let mut due = Due::default();
        for key in ["empty", "also empty", "full"] {
            due.add(class(key, 0, "one"));
        }
        due.add(class("full", 0, "other"));
        due.add(class("full", 0, "third"));
        for key in ["empty", "also empty"] {
            let taken = due.take().unwrap();
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
                    0 | 1 => assert_eq!(due.add(any.clone()), expected.insert(any)),
                    2 => due.give_turn_back(&any),
                    _ => match due.take() {
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
}
