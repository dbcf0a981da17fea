//! The workers of sites whose sources have limits.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use fastrand::Rng;
use posthaste_client::delivery::Budget;
use posthaste_queue::{Owner, Priority, RoutingKey};

use super::{
    super::egress::{NoSource, To},
    *,
};
use crate::{Rate, Source, SourcePool};

const SECOND: Duration = Duration::from_secs(1);

fn class() -> DueClass {
    DueClass { key: RoutingKey::new("a").unwrap(), priority: Priority::default(), owner: Owner::default() }
}

fn limited(set: impl FnOnce(&mut SiteLimits)) -> DeliveryOptions {
    let (mut limits, mut options) = (SiteLimits::default(), DeliveryOptions::default());
    set(&mut limits);
    options.site_limits.push(["*".parse().unwrap()], limits);
    options
}

fn pool(source: Source) -> SourcePool {
    SourcePool::new([(source, 1)])
}

fn site(name: &str, pool: &SourcePool, options: &DeliveryOptions, egress: &Arc<Egress>) -> Arc<Site> {
    let mut route = Route::hosts([("hop.test", 25)]);
    route.sources = Some(pool.clone());
    let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
    let site = Site::new(name.to_owned(), Ok(Arc::new(route)), None, options, shelf, Health::default());
    Arc::new(site.sent_from(egress))
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_a_connection_goes_on_while_no_source_may_make_another() {
    let (source, egress) = (Source::new("a"), Arc::new(Egress::default()));
    let options = limited(|limits| limits.per_source.connections = Some(1));
    let (pool, limits) = (pool(source.clone()), options.site_limits.of(["hop.test"].into_iter()).per_source);
    let site = site("site", &pool, &options, &egress);
    let to = To { site: "site", limits: &limits, targets: &[] };
    let (mut first, mut second) = (site.offer(class()).unwrap(), None);
    assert_eq!(first.look(Held::Nothing), Look::Prepare);
    assert!(first.next(Held::Nothing).is_some());
    let seat = egress.draw(&pool, &to, &mut Rng::with_seed(7)).unwrap();
    for _ in 0..3 {
        second = second.or(site.offer(class()));
        let Look::Wait(until) = second.as_mut().unwrap().look(Held::Nothing) else { panic!("it has no connection") };
        assert_eq!(until - Instant::now(), SECOND);
        let held = Held::Connection(Some(&source));
        assert_eq!(first.look(held), Look::Prepare);
        assert!(first.next(held).is_some());
        drop(site.offer(class()));
        tokio::time::sleep_until(until).await;
    }
    assert_eq!(site.what_is_known().sources[0].connections, 1);
    drop(seat);
    assert_eq!(second.unwrap().look(Held::Nothing), Look::Prepare);
}

/// What counts is the source of the connection, and not that there is one.
#[tokio::test(start_paused = true)]
async fn a_worker_waits_for_the_rate_of_the_source_that_it_has_a_connection_from() {
    let (mut source, egress) = (Source::new("a"), Arc::new(Egress::default()));
    source.messages = Rate::new(1, SECOND * 10);
    let options = limited(|limits| limits.connects = Rate::new(1, SECOND * 40));
    let site = site("site", &pool(source.clone()), &options, &egress);
    let mut turn = site.offer(class()).unwrap();
    let mut waits = Vec::new();
    for held in [Held::Nothing, Held::Connection(Some(&source)), Held::Connection(None), Held::Nothing] {
        let begun = Instant::now();
        while let Look::Wait(until) = turn.look(held) {
            tokio::time::sleep_until(until).await;
        }
        waits.push(begun.elapsed().as_secs());
        assert!(turn.next(held).is_some());
        if matches!(held, Held::Nothing) {
            turn.dials();
        }
        let to = To { site: "site", limits: &Default::default(), targets: &[] };
        egress.take(&source, &to, false);
        drop(site.offer(class()));
    }
    // A connection without a source waits for none, and a new one for both.
    assert_eq!(waits, [0, 10, 0, 30]);
}

/// A message that seemed to have a source, and has none, is not claimed again at once.
#[tokio::test(start_paused = true)]
async fn a_worker_that_found_no_source_waits_until_it_may_find_one() {
    let (source, egress) = (Source { messages: Rate::new(9, SECOND), ..Source::new("a") }, Arc::default());
    let site = site("site", &pool(source), &DeliveryOptions::default(), &egress);
    let mut turn = site.offer(class()).unwrap();
    let until = Instant::now() + SECOND * 3;
    site.has_no_source(until);
    assert_eq!(turn.look(Held::Nothing), Look::Wait(until));
    assert_eq!(site.what_is_known().limited, Some(SECOND * 3));
    site.renew(&DeliveryOptions::default());
    drop(site.offer(class()));
    assert_eq!(turn.look(Held::Nothing), Look::Prepare);
}

/// A source that sends one message a second for fifty sites: the sites share it, and no site looks
/// for each message of the others.
#[tokio::test(start_paused = true)]
async fn sites_that_share_the_rate_of_a_source_look_about_once_for_each_message() {
    const SITES: usize = 50;
    let (mut source, egress) = (Source::new("a"), Arc::new(Egress::default()));
    source.messages = Rate::new(60, SECOND * 60);
    let (pool, options) = (pool(source), DeliveryOptions::default());
    let looks = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for index in 0..SITES {
        let site = site(&index.to_string(), &pool, &options, &egress);
        let (pool, egress, looks) = (pool.clone(), Arc::clone(&egress), Arc::clone(&looks));
        let mut turn = site.offer(class()).unwrap();
        tasks.push(tokio::spawn(async move {
            let (begun, mut sent, mut random) = (Instant::now(), 0_usize, Rng::with_seed(7));
            while begun.elapsed() < SECOND * 600 {
                looks.fetch_add(1, Relaxed);
                if let Look::Wait(until) = turn.look(Held::Nothing) {
                    // The task that waits looks too, before it waits.
                    assert_eq!(turn.look(Held::Nothing), Look::Wait(until));
                    tokio::time::sleep_until(until).await;
                    continue;
                }
                if turn.next(Held::Nothing).is_none() {
                    continue;
                }
                let limits = site.source_limits();
                let to = To { site: site.name(), limits: &limits, targets: &[] };
                match egress.draw(&pool, &to, &mut random) {
                    Ok(_) => sent += 1,
                    Err(NoSource::Full(until)) => {
                        site.is_unused();
                        site.has_no_source(until);
                    }
                    Err(NoSource::PassedOver(why)) => panic!("{why}"),
                }
                drop(site.offer(class()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sent
        }));
    }
    let mut sent = Vec::new();
    for task in tasks {
        sent.push(task.await.unwrap());
    }
    let (total, looks) = (sent.iter().sum::<usize>(), looks.load(Relaxed));
    assert!((640..=661).contains(&total), "{total} messages");
    assert!(looks <= 3 * total, "{looks} looks for {total} messages");
    // 13 on average.
    assert!(sent.iter().all(|sent| (8..=20).contains(sent)), "{sent:?}");
}
