//! What is due, in turn and within bounds.

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
            || Pin::new(&mut Box::pin(room.hungry.notified())).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        {
            look += 1;
            for class in classes {
                due.add(class.clone(), Offer::Look(look));
                assert!(due.len() <= room.of_site_for_urgent().max(LEAST));
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
    assert_eq!(due.len(), 28);
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
    assert_eq!(sites.each_ref().map(Due::len), [56, 32, LEAST, LEAST]);
}

/// A site with room for 64 classes, of which 400 owners have more. The look is the second one.
fn crowded(room: &Arc<Room>) -> Due {
    let mut due = Due::default();
    due.share(room);
    for look in 1..=2 {
        for number in 0..400 {
            due.add(class("a", 0, &format!("owner{number:03}")), Offer::Look(look));
        }
    }
    due
}

#[test]
fn a_higher_priority_goes_first_at_a_crowded_site() {
    let rooms = [Room::new(1_000, 64), Room::new(64, 1_000)];
    for room in rooms.map(Arc::new) {
        for offer in [Offer::Hint, Offer::Look(2), Offer::Look(3)] {
            let mut due = crowded(&room);
            assert_eq!(due.len(), 56);
            assert_eq!(due.add(class("a", 0, "new"), Offer::Hint), Added::Missed);
            for owner in ["one", "other"] {
                assert_eq!(due.add(class("a", 4, owner), offer), Added::New, "{offer:?}");
            }
            // They need not leave after their turn, as the others must.
            assert_eq!(owners(&served(&mut due, 4)), ["one", "other", "one", "other"]);
            assert_eq!([due.take(true), due.take(true)].map(|class| class.unwrap().priority), [Priority(4); 2]);
            let taken = due.take(true).unwrap();
            assert_eq!((taken.priority, due.add(taken, Offer::Turn)), (Priority(0), Added::Missed));
        }
    }
}

#[test]
fn small_mail_has_room_at_a_site_that_is_crowded_with_large_mail() {
    let (room, mut due) = (Arc::new(Room::new(1_000, 64)), Due::default());
    due.share(&room);
    for number in 0..400 {
        let class = class("a", 0, &format!("owner{number:03}"));
        due.add(DueClass { priority: Rank::new(0, u64::MAX).number(), ..class }, Offer::Look(1));
    }
    assert_eq!(due.add(class("a", 0, "new"), Offer::Hint), Added::New);
    assert_eq!(due.take(false), Some(class("a", 0, "new")));
}

/// So the place is free for another owner, or for a priority that is higher still.
#[test]
fn urgent_mail_of_one_owner_takes_half_of_the_eighth() {
    let room = Arc::new(Room::new(1_000, 64));
    let mut due = crowded(&room);
    let keys: Vec<_> = (0..9).map(|number| format!("d{number}")).collect();
    let new = |due: &mut Due, priority, owner: &str| {
        let add = |key: &&String| due.add(class(key, priority, owner), Offer::Hint) == Added::New;
        keys.iter().filter(add).count()
    };
    let added = [(4, "one"), (4, "other"), (5, "one")].map(|(priority, owner)| new(&mut due, priority, owner));
    assert_eq!(added, [4, 2, 1]);
    assert_eq!((new(&mut due, 4, "third"), new(&mut due, 5, "third"), due.len()), (1, 0, 64));
    // The room is full. The highest that was missed comes in turn with the others, and what leaves
    // makes room for a priority above that.
    assert_eq!(due.take(true).unwrap().priority, Priority(5));
    assert_eq!(due.add(class("a", 5, "third"), Offer::Hint), Added::Missed);
    assert_eq!(due.add(class("a", 6, "third"), Offer::Hint), Added::New);
}
