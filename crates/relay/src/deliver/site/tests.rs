//! The workers of a site, and what is due for it.

use super::*;
use crate::{
    Cause, NextHop,
    deliver::Words,
    rank::{Rank, Size},
};
use posthaste_client::delivery::Budget;
use posthaste_queue::{Owner, Priority, RoutingKey};

fn class(key: &str) -> DueClass {
    DueClass { key: RoutingKey::new(key).unwrap(), priority: Priority::default(), owner: Owner::default() }
}

fn site(limit: usize) -> Arc<Site> {
    let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
    let options = DeliveryOptions { concurrency_per_site: limit, ..DeliveryOptions::default() };
    site_by(&options, shelf)
}

fn site_by(options: &DeliveryOptions, shelf: Shelf<Connected>) -> Arc<Site> {
    let leads = Ok(Arc::new(Route::new(NextHop::Mx)));
    Arc::new(Site::new("site".to_owned(), leads, None, options, shelf, Health::default()))
}

fn claims(turn: &mut Turn, name: &str) -> bool {
    turn.next(Held::Nothing) == Some(class(name))
}

#[test]
fn a_class_offered_while_a_claim_runs_is_not_lost() {
    let site = site(1);
    let mut turn = site.offer(class("a")).unwrap();
    assert!(claims(&mut turn, "a"));
    assert!(site.offer(class("a")).is_none(), "there is no room for another worker");
    // The claim found no delivery, and the offer came after it.
    assert!(claims(&mut turn, "a"));
    assert!(turn.next(Held::Nothing).is_none() && turn.leave());
    assert_eq!(site.worth(), Worth::Nothing);
}

#[test]
fn a_class_is_due_once_and_classes_come_in_turn() {
    let site = site(1);
    let mut turn = site.offer(class("a")).unwrap();
    for name in ["b", "a", "b", "a"] {
        assert!(site.offer(class(name)).is_none());
    }
    assert!(claims(&mut turn, "a"));
    assert!(site.offer(class("a")).is_none());
    assert!(claims(&mut turn, "b"));
    assert!(claims(&mut turn, "a"));
    assert!(turn.next(Held::Nothing).is_none() && turn.leave());
}

/// The queue names a due class again and again until it is claimed.
#[test]
fn a_class_named_again_hires_a_worker_only_if_none_is_coming() {
    let site = site(5);
    let mut turn = site.offer(class("a")).unwrap();
    assert!(site.offer(class("a")).is_none() && site.offer(class("a")).is_none());
    let other = site.offer(class("b")).unwrap();
    drop(other);
    assert!(site.offer(class("b")).is_none(), "the first is still to come");
    assert!(claims(&mut turn, "a"));
    // The worker is busy now.
    let mut more = site.offer(class("b")).unwrap();
    assert!(claims(&mut more, "b"));
}

#[tokio::test(start_paused = true)]
async fn a_site_counts_as_proven_for_a_while_and_only_while_it_answers() {
    let site = site(1);
    let why = Unreachable { diagnostic: Diagnostic::own(None, "dead"), is_permanent: false };
    assert_eq!(site.standing(), Standing::New);
    site.end(Signal::Took, Instant::now(), true);
    assert_eq!(site.standing(), Standing::Proven);
    assert_eq!(site.worth(), Worth::Taught);
    site.mark_silent();
    assert_eq!(site.standing(), Standing::New);
    site.end(Signal::Took, Instant::now(), true);
    site.mark_down(why, Duration::from_secs(10));
    assert_eq!(site.standing(), Standing::Doubtful);
    tokio::time::advance(DOUBTFUL).await;
    assert_eq!(site.standing(), Standing::New);
    site.end(Signal::Took, Instant::now(), true);
    tokio::time::advance(PROVEN).await;
    assert_eq!(site.standing(), Standing::New);
}

#[tokio::test(start_paused = true)]
async fn a_dead_site_stays_down_for_its_time() {
    let site = site(1);
    let why = Unreachable { diagnostic: Diagnostic::own(None, "dead"), is_permanent: false };
    site.mark_down(why, Duration::from_secs(10));
    assert!(site.down().is_some() && site.worth() == Worth::Down);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(site.down().is_none() && site.worth() == Worth::Nothing);
}

/// Puts the site to rest.
fn refuse(site: &Site) -> Then {
    let words = Words { cause: Cause::RateLimited, wait: Some(Duration::from_secs(60)) };
    site.end(Signal::Refused(words, Diagnostic::own(None, "no more")), Instant::now(), false)
}

#[tokio::test(start_paused = true)]
async fn one_worker_waits_for_the_end_of_a_rest_and_the_others_leave() {
    let site = site(5);
    let mut turns: Vec<_> = (0..3).filter_map(|_| site.offer(class("a"))).collect();
    assert_eq!(turns.len(), 1, "it is still to come");
    turns.extend(["b", "c"].map(|name| site.offer(class(name)).unwrap()));
    assert!(claims(&mut turns[0], "a"));
    assert_eq!(refuse(&site), Then::GiveBack);
    drop(site.offer(class("a")));
    let [first, second, third] = &mut turns[..] else { panic!() };
    let Look::Wait(until) = first.look(Held::Nothing) else { panic!("the first that asks waits") };
    assert!(until >= Instant::now() + Duration::from_secs(60));
    for other in [second, third] {
        assert_eq!(other.look(Held::Nothing), Look::Leave);
        assert!(other.next(Held::Nothing).is_none() && other.leave());
    }
    assert!(site.offer(class("d")).is_none(), "one waits for all");
    assert_eq!(site.what_is_known().open, 0);
    tokio::time::sleep_until(until).await;
    assert_eq!(first.look(Held::Nothing), Look::Prepare);
    assert!(first.next(Held::Nothing).is_some());
    assert!(site.offer(class("e")).is_none(), "there is one probe");
    site.end(Signal::Took, Instant::now(), true);
    assert!(site.offer(class("f")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_as_it_waits_leaves_its_wait_to_another() {
    let site = site(1);
    let mut turn = site.offer(class("a")).unwrap();
    refuse(&site);
    assert!(matches!(turn.look(Held::Nothing), Look::Wait(_)));
    drop(turn);
    let mut turn = site.offer(class("a")).unwrap();
    assert!(matches!(turn.look(Held::Nothing), Look::Wait(_)));
    assert_eq!((site.what_is_known().due, site.what_is_known().open), (1, 0));
}

/// Deliveries to a site that is down make no connection, so they do not wait. One worker defers
/// them all.
#[tokio::test(start_paused = true)]
async fn a_site_that_is_down_defers_its_mail_as_it_rests() {
    let site = site(8);
    let why = Unreachable { diagnostic: Diagnostic::own(None, "no more"), is_permanent: false };
    refuse(&site);
    assert_eq!(site.why_not(), None);
    site.mark_down(why.clone(), Duration::from_secs(60));
    assert_eq!(site.why_not(), Some(why));
    let mut turn = site.offer(class("a")).unwrap();
    for name in ["b", "c"] {
        assert!(site.offer(class(name)).is_none(), "one worker is enough");
    }
    for name in ["a", "b", "c"] {
        assert_eq!(turn.look(Held::Nothing), Look::Prepare);
        assert!(claims(&mut turn, name));
    }
    assert!(turn.next(Held::Nothing).is_none() && turn.leave());
}

/// A worker with a connection goes on while the others wait for the time of the next one.
#[tokio::test(start_paused = true)]
async fn new_connections_come_at_their_rate() {
    let mut options = DeliveryOptions::default();
    let limits = SiteLimits { connects: crate::Rate::new(2, Duration::from_secs(60)), ..SiteLimits::default() };
    options.site_limits.push(["mx.test".parse().unwrap()], limits);
    let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
    let leads = Ok(Arc::new(Route::hosts([("mx.test", 25)])));
    let site = Arc::new(Site::new("site".to_owned(), leads, None, &options, shelf, Health::default()));
    let mut turns: Vec<_> = ["a", "b", "c", "d"].iter().filter_map(|name| site.offer(class(name))).collect();
    let [first, second, third, fourth] = &mut turns[..] else { panic!("{turns:?}") };
    assert!(first.next(Held::Nothing).is_some() && second.next(Held::Nothing).is_some());
    // One found a connection after all, so the third may make one.
    first.dials();
    drop(site.offer(class("b")));
    assert!(second.next(Held::Connection(None)).is_some());
    assert_eq!(third.look(Held::Nothing), Look::Prepare);
    assert!(third.next(Held::Nothing).is_some());
    third.dials();
    drop(site.offer(class("a")));
    let Look::Wait(until) = fourth.look(Held::Nothing) else { panic!("none is left") };
    assert_eq!(until - Instant::now(), Duration::from_secs(30));
    assert_eq!(first.look(Held::Connection(None)), Look::Prepare);
    assert!(first.next(Held::Connection(None)).is_some());
    drop(site.offer(class("a")));
    tokio::time::sleep_until(until).await;
    assert_eq!(fourth.look(Held::Nothing), Look::Prepare);
    assert!(fourth.next(Held::Nothing).is_some());
}

#[tokio::test(start_paused = true)]
async fn messages_come_at_their_rate() {
    let mut options = DeliveryOptions::default();
    let limits = SiteLimits { messages: crate::Rate::new(100, Duration::from_secs(60)), ..SiteLimits::default() };
    options.site_limits.push(["*".parse().unwrap()], limits);
    let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
    let leads = Ok(Arc::new(Route::hosts([("mx.test", 25)])));
    let site = Arc::new(Site::new("site".to_owned(), leads, None, &options, shelf, Health::default()));
    let mut turn = site.offer(class("a")).unwrap();
    let (begun, mut counts) = (Instant::now(), [0; 5]);
    loop {
        if let Look::Wait(until) = turn.look(Held::Connection(None)) {
            tokio::time::sleep_until(until).await;
            continue;
        }
        let minute = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
        let Some(count) = counts.get_mut(minute) else { break };
        *count += 1;
        assert!(claims(&mut turn, "a"));
        // Every tenth time there was no delivery.
        if *count % 10 == 0 {
            site.is_unused();
        }
        drop(site.offer(class("a")));
    }
    // The first minute has what came at once too.
    assert!((219..=223).contains(&counts[0]), "{counts:?}");
    assert!(counts[1..].iter().all(|count| (110..=112).contains(count)), "{counts:?}");
}

/// Routes that differ in anything lead to sites of their own. A changed route makes a new one.
#[tokio::test(start_paused = true)]
async fn what_a_next_hop_gets_counts_over_all_routes_and_over_a_change_of_them() {
    let mut options = DeliveryOptions::default();
    let limits = SiteLimits {
        messages: crate::Rate::new(3, Duration::from_secs(60)),
        connections: Some(2),
        ..SiteLimits::default()
    };
    options.site_limits.push(["mx.test".parse().unwrap()], limits);
    let table = Arc::default();
    let site = |route: Route| {
        let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
        let site = Site::new("site".to_owned(), Ok(Arc::new(route)), None, &options, shelf, Health::default());
        Arc::new(site.capped_in(&table))
    };
    let (first, second) = (site(Route::hosts([("mx.test", 25)])), site(Route::hosts([("MX.test", 26)])));
    let (mut one, mut two) = (first.offer(class("a")).unwrap(), second.offer(class("b")).unwrap());
    let mut more = first.offer(class("c")).unwrap();
    assert!(claims(&mut one, "a") && claims(&mut two, "b"));
    // Both connections are in use.
    let Look::Wait(until) = more.look(Held::Nothing) else { panic!("there are two already") };
    assert_eq!(until - Instant::now(), Duration::from_millis(100));
    assert!(two.next(Held::Nothing).is_none() && two.leave());
    assert!(claims(&mut more, "c"));
    drop((one, two, more, first, second));
    // All three of the minute have gone.
    let third = site(Route::hosts([("mx.test", 27)]));
    let mut turn = third.offer(class("d")).unwrap();
    let Look::Wait(until) = turn.look(Held::Nothing) else { panic!("it has had three") };
    assert_eq!(until - Instant::now(), Duration::from_secs(20));
    let other = site(Route::hosts([("mx.test", 25), ("other.test", 25)]));
    let mut turn = other.offer(class("d")).unwrap();
    assert_eq!(turn.look(Held::Nothing), Look::Prepare);
}

/// Producers offer, workers claim from counters that stand for the queue. At the end no
/// delivery may be left.
#[test]
fn no_class_is_left_without_a_worker_when_the_last_one_leaves() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    const EACH: u32 = 20_000;
    let (site, work) = (site(2), Arc::new([AtomicU32::new(0), AtomicU32::new(0)]));
    let names = ["a", "b"];
    let run = |mut turn: Turn| {
        let work = Arc::clone(&work);
        std::thread::spawn(move || {
            loop {
                let Some(found) = turn.next(Held::Nothing) else {
                    match turn.leave() {
                        true => break,
                        false => continue,
                    }
                };
                let index = usize::from(found == class("b"));
                let claimed = work[index].fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
                if claimed {
                    // There is room for two; a turn that is not used is given back.
                    drop(turn.site().offer(found));
                } else {
                    turn.found_none(&found);
                }
            }
        })
    };
    let mut workers = Vec::new();
    for round in 0..EACH {
        let index = usize::try_from(round % 2).unwrap();
        work[index].fetch_add(1, SeqCst);
        if let Some(turn) = site.offer(class(names[index])) {
            workers.push(run(turn));
        }
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!((work[0].load(SeqCst), work[1].load(SeqCst)), (0, 0));
    assert_eq!(site.worth(), Worth::Nothing);
}

fn large(key: &str) -> DueClass {
    DueClass { priority: Rank::new(0, u64::MAX).number(), ..class(key) }
}

/// Each worker ends its message and takes the next one. A class of a size that is `left` has
/// another delivery, so that it goes back, and a worker is hired if the site wants one.
fn go_on(site: &Arc<Site>, workers: &mut Vec<(Turn, Size)>, mut hired: Vec<Turn>, left: impl Fn(Size) -> bool) {
    for (mut turn, _) in std::mem::take(workers) {
        match turn.look(Held::Nothing) {
            Look::Prepare => hired.push(turn),
            _ => assert!(turn.leave()),
        }
    }
    while let Some(mut turn) = hired.pop() {
        let Some(class) = turn.next(Held::Nothing) else {
            assert!(turn.leave());
            continue;
        };
        let size = Rank::read(class.priority).size;
        workers.push((turn, size));
        if left(size) {
            hired.extend(site.offer(class));
        }
    }
}

/// The workers with a large message, and all of them.
fn count(workers: &[(Turn, Size)]) -> (usize, usize) {
    (workers.iter().filter(|(_, size)| *size == Size::Large).count(), workers.len())
}

#[tokio::test(start_paused = true)]
async fn large_mail_gets_half_of_the_workers_while_small_mail_waits_or_came_lately() {
    for (limit, half) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let (site, mut workers) = (site(limit), Vec::new());
        let first = site.offer(large("a")).into_iter().collect();
        go_on(&site, &mut workers, first, |_| true);
        assert_eq!(count(&workers), (limit, limit), "all of them without small mail");
        assert!(site.offer(class("a")).is_none(), "there is no room for another worker");
        let mut had = Vec::new();
        for _ in 0..4 {
            go_on(&site, &mut workers, Vec::new(), |_| true);
            had.push(count(&workers));
        }
        // A single worker takes both in turn.
        let expected = if limit == 1 { [(0, 1), (1, 1)] } else { [(half, limit); 2] };
        assert_eq!(had, expected.repeat(2), "{limit}");
        // No small mail is left, and its part of the workers leaves.
        for _ in 0..2 {
            go_on(&site, &mut workers, Vec::new(), |size| size == Size::Large);
        }
        assert_eq!(count(&workers), (half, half));
        assert!(site.offer(large("a")).is_none(), "no worker is hired that would find no turn");
        if limit > 1 {
            let mut small: Vec<_> = site.offer(class("a")).into_iter().collect();
            assert!(small.len() == 1 && small[0].next(Held::Nothing) == Some(class("a")), "small mail need not wait");
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        go_on(&site, &mut workers, Vec::new(), |_| true);
        assert_eq!(count(&workers), (limit, limit), "small mail came a minute ago");
    }
}

/// A worker whose server is dead may have begun its content, and waits for long.
#[tokio::test(start_paused = true)]
async fn large_mail_of_stuck_workers_does_not_count() {
    let mut sizes = Sizes::default();
    for worker in 0..3 {
        sizes.begin(worker, Size::Large, Instant::now());
    }
    for (limit, waits, may) in [(3, false, false), (4, false, true), (6, true, false), (8, true, true)] {
        assert_eq!(sizes.may_be_large(limit, |_| false, waits, Instant::now()), may);
    }
    assert!(sizes.may_be_large(6, |worker| worker == 1, true, Instant::now()));
    sizes.end(0);
    assert!(sizes.may_be_large(6, |_| false, true, Instant::now()));
}
