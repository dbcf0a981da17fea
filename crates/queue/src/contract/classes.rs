//! Cases of what is due, in which order it is listed and claimed, and how a caller is fair.

use std::collections::{BTreeMap, VecDeque};

use super::{Harness, LEASE, SECOND, claim, class, message, put, routing_key};
use crate::{Alteration, Claim, Claimed, DueClass, NewMessage, Owner, Priority, Queue};

pub(super) async fn classes_are_listed_by_key_then_priority_then_owner<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    // Twice, since two deliveries of a class are one class.
    for _ in 0..2 {
        for (owner, priority) in [("me", 0), ("you", 0), ("me", -128), ("you", 127), ("", 0), ("é", 0), ("A", 0)] {
            put(&queue, urgent(owner, &["b", "a", ""], priority), b"x").await.expect("put");
        }
    }
    let of = |key| {
        [("you", 127), ("", 0), ("A", 0), ("me", 0), ("you", 0), ("é", 0), ("me", -128)]
            .map(|(owner, priority)| class(key, priority, owner))
    };
    let all = [of(""), of("a"), of("b")].concat();
    assert_eq!(due(&queue).await, all);
    assert!(all.is_sorted(), "classes compare as they are listed");
    for limit in 1..=all.len() {
        assert_eq!(paged(&queue, limit).await, all, "{limit} a page");
    }
}

pub(super) async fn what_is_due_is_listed_after_any_class<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    put(&queue, message("me", &["d", "b", "a"]), b"x").await.expect("put");
    put(&queue, urgent("you", &["b"], 3), b"x").await.expect("put");
    let mut later = message("me", &["later"]);
    later.deliveries[0].delay = SECOND;
    put(&queue, later, b"x").await.expect("put");
    let all = [class("a", 0, "me"), class("b", 3, "you"), class("b", 0, "me"), class("d", 0, "me")];
    assert_eq!(due(&queue).await, all);
    // These are not due, and most do not exist.
    for (after, left) in [
        (class("", 127, ""), &all[..]),
        (class("a", 1, "you"), &all),
        (class("a", 0, "you"), &all[1..]),
        (class("b", 127, ""), &all[1..]),
        (class("b", 3, "us"), &all[1..]),
        (class("b", 2, ""), &all[2..]),
        (class("b", -1, ""), &all[3..]),
        (class("c", 0, "me"), &all[3..]),
        (class("d", -128, "you"), &[]),
    ] {
        assert_eq!(queue.due(Some(&after), 9).await.expect("due"), left, "after {after:?}");
    }
    harness.advance(SECOND).await;
    let left = queue.due(Some(&all[2]), 9).await.expect("due");
    assert_eq!(left, [class("d", 0, "me"), class("later", 0, "me")]);
    // A claim in between takes no class from the pages that follow.
    let from = [all[1].clone(), all[3].clone()];
    assert_eq!(queue.claim(Claim { from: &from, max: 9, lease: LEASE }).await.expect("claim").len(), 2);
    assert_eq!(queue.due(Some(&all[1]), 1).await.expect("due"), [all[2].clone()]);
    assert_eq!(queue.due(Some(&all[2]), 1).await.expect("due"), [class("later", 0, "me")]);
    claim(&queue, 9).await;
    assert!(due(&queue).await.is_empty(), "what is leased is not due");
    harness.advance(LEASE).await;
    assert_eq!(due(&queue).await.len(), 5, "its lease has expired");
}

/// The given order counts, not the order of the classes.
pub(super) async fn claims_are_served_in_the_given_order<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for (owner, priority) in [("me", 0), ("you", 0), ("me", 5)] {
        put(&queue, urgent(owner, &["a", "b", "a"], priority), b"x").await.expect("put");
    }
    let given = [
        class("b", 0, "you"),
        class("a", 0, "me"),
        class("a", 1, "me"),
        class("nowhere", 0, "me"),
        class("a", 0, "nobody"),
        class("b", 5, "me"),
        class("b", 0, "you"),
        class("a", 5, "me"),
    ];
    let claimed = queue.claim(Claim { from: &given, max: 5, lease: LEASE }).await.expect("claim");
    let expected = [0, 1, 1, 5, 7].map(|at: usize| given[at].clone());
    assert_eq!(classes(&claimed), expected);
    assert_eq!(due(&queue).await, [class("a", 5, "me"), class("a", 0, "you"), class("b", 0, "me")]);
    assert!(queue.claim(Claim { from: &given[..3], max: 9, lease: LEASE }).await.expect("claim").is_empty());
}

pub(super) async fn the_longest_due_of_a_class_comes_first<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut expected = Vec::new();
    for (delay, place) in [(2, 3), (1, 1), (3, 5), (0, 0), (2, 4), (1, 2)] {
        let mut new = message("me", &["a"]);
        new.deliveries[0].delay = SECOND * delay;
        expected.push((place, put(&queue, new, b"x").await.expect("put")));
    }
    expected.sort_unstable();
    harness.advance(SECOND * 3).await;
    let mut order = Vec::new();
    for max in [1, 2, 9] {
        let from = [class("a", 0, "me")];
        let claimed = queue.claim(Claim { from: &from, max, lease: LEASE }).await.expect("claim");
        order.extend(claimed.into_iter().map(|each| each.lease.message()));
    }
    assert_eq!(order, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

pub(super) async fn a_claim_from_any_class_takes_the_highest_priority<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for (key, priority) in [("a", 0), ("b", -5), ("c", 5), ("d", 0), ("a", -128), ("e", 127)] {
        put(&queue, urgent("me", &[key], priority), b"x").await.expect("put");
    }
    let mut taken = Vec::new();
    while let Some(claimed) = claim(&queue, 1).await.pop() {
        taken.push((claimed.key.as_str().to_owned(), claimed.priority.0));
    }
    let expected = [("e", 127), ("c", 5), ("a", 0), ("d", 0), ("b", -5), ("a", -128)];
    assert_eq!(taken, expected.map(|(key, priority)| (key.to_owned(), priority)));
}

/// Between a look and a claim, a class may become empty in any way.
pub(super) async fn a_class_that_is_due_no_more_is_passed_over<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let mut ids = BTreeMap::new();
    for key in ["claimed", "held", "later", "removed", "rerouted", "stays"] {
        ids.insert(key, put(&queue, message("me", &[key]), b"x").await.expect("put"));
    }
    let seen = due(&queue).await;
    assert_eq!(seen.len(), ids.len());
    let from = [class("claimed", 0, "me")];
    let leased = queue.claim(Claim { from: &from, max: 1, lease: LEASE }).await.expect("claim");
    queue.hold(ids["held"]).await.expect("hold");
    queue.alter(ids["later"], Alteration::Reschedule { key: None, delay: LEASE }).await.expect("alter");
    queue.remove(ids["removed"]).await.expect("remove");
    let elsewhere = Alteration::Reroute { from: None, to: routing_key("z") };
    queue.alter(ids["rerouted"], elsewhere).await.expect("alter");
    let claimed = queue.claim(Claim { from: &seen, max: 9, lease: LEASE }).await.expect("claim");
    assert_eq!((leased.len(), classes(&claimed)), (1, vec![class("stays", 0, "me")]));
    assert_eq!(due(&queue).await, [class("z", 0, "me")]);
}

/// One owner's mail for hundreds of keys takes no more than every other turn from another owner's.
pub(super) async fn a_caller_can_serve_owners_in_turn<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    let keys: Vec<_> = (0..100).map(|number| format!("k{number:03}")).collect();
    for some in keys.chunks(50) {
        put(&queue, message("busy", &some.iter().map(String::as_str).collect::<Vec<_>>()), b"x").await.expect("put");
    }
    for (owner, key) in [("quiet", "k099"), ("quiet", "k099"), ("quiet", "k099"), ("rare", "other")] {
        put(&queue, message(owner, &[key]), b"x").await.expect("put");
    }
    put(&queue, urgent("busy", &["k050"], 1), b"x").await.expect("put");
    let order = fairly(&queue).await;
    assert_eq!(order.len(), 105);
    assert_eq!(order[..9], ["busy", "busy", "quiet", "rare", "busy", "quiet", "busy", "quiet", "busy"]);
}

/// Claims from one key leave the turns in another alone.
pub(super) async fn no_owner_starves_in_a_key<H: Harness>(harness: &mut H) {
    let queue = harness.open().await;
    for _ in 0..4 {
        for (owner, key) in [("a", "k"), ("b", "k"), ("a", "other")] {
            put(&queue, message(owner, &[key]), b"x").await.expect("put");
        }
    }
    let mut owners = VecDeque::from(["a", "b"]);
    for _ in 0..4 {
        for (key, owner) in [("other", "a"), ("k", owners[0])] {
            let from = [class(key, 0, owner)];
            let claimed = queue.claim(Claim { from: &from, max: 1, lease: LEASE }).await.expect("claim");
            assert_eq!(classes(&claimed), from);
        }
        owners.rotate_left(1);
    }
    assert_eq!(due(&queue).await, [class("k", 0, "a"), class("k", 0, "b")]);
}

/// Claims one after the other as [`Queue::due`] shows. Returns the owners in that order.
async fn fairly<Q: Queue>(queue: &Q) -> Vec<String> {
    let mut order = Vec::new();
    let mut lines: BTreeMap<_, BTreeMap<Owner, VecDeque<DueClass>>> = BTreeMap::new();
    for class in due(queue).await {
        let line = lines.entry(std::cmp::Reverse(class.priority)).or_default().entry(class.owner.clone());
        line.or_default().push_back(class);
    }
    for mut owners in lines.into_values() {
        while !owners.is_empty() {
            for line in owners.values_mut() {
                while let Some(class) = line.pop_front() {
                    let claim = Claim { from: std::slice::from_ref(&class), max: 1, lease: LEASE };
                    if let Some(claimed) = queue.claim(claim).await.expect("claim").pop() {
                        order.push(claimed.owner.as_str().to_owned());
                        line.push_back(class);
                        break;
                    }
                }
            }
            owners.retain(|_, line| !line.is_empty());
        }
    }
    order
}

fn urgent(owner: &str, keys: &[&str], priority: i8) -> NewMessage {
    NewMessage { priority: Priority(priority), ..message(owner, keys) }
}

fn classes(claimed: &[Claimed]) -> Vec<DueClass> {
    let class = |each: &Claimed| DueClass { key: each.key.clone(), priority: each.priority, owner: each.owner.clone() };
    claimed.iter().map(class).collect()
}

async fn due<Q: Queue>(queue: &Q) -> Vec<DueClass> {
    queue.due(None, 999).await.expect("due")
}

async fn paged<Q: Queue>(queue: &Q, limit: usize) -> Vec<DueClass> {
    let mut seen: Vec<DueClass> = Vec::new();
    loop {
        let page = queue.due(seen.last(), limit).await.expect("due");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return seen;
        }
        seen.extend(page);
    }
}
