//! Sites that compete for places, and owners that compete for a site, in virtual time and without
//! sockets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{
    Health,
    delivery::{Budget, Shelf},
};
use posthaste_queue::{DueClass, Owner, Priority, RoutingKey};
use tokio::time::{Instant, sleep};

use super::{
    due::Offer,
    places::{Bounds, Places},
    site::{Held, Look, Site, Turn},
    throttle::Signal,
};
use crate::{DeliveryOptions, NextHop, Route};

/// A site whose deliveries take this time each, and what waits for it.
struct Run {
    site: Arc<Site>,
    places: Arc<Places>,
    takes: Duration,
    /// When the deliveries of each class were queued.
    queued: Mutex<HashMap<DueClass, Vec<Instant>>>,
    /// How long each delivery took from then on, by owner.
    took: Mutex<HashMap<Owner, Vec<Duration>>>,
}

fn class(owner: &str) -> DueClass {
    let (key, owner) = (RoutingKey::new("a.test").unwrap(), Owner::new(owner).unwrap());
    DueClass { key, priority: Priority::default(), owner }
}

impl Run {
    fn new(places: &Arc<Places>, takes: Duration) -> Arc<Self> {
        let (shelf, leads) = (Shelf::new(Duration::ZERO, Budget::new(0)), Ok(Arc::new(Route::new(NextHop::Mx))));
        let site =
            Arc::new(Site::new("site".to_owned(), leads, None, &DeliveryOptions::default(), shelf, Health::default()));
        let (places, queued, took) = (Arc::clone(places), Mutex::default(), Mutex::default());
        Arc::new(Self { site, places, takes, queued, took })
    }

    fn queue(self: &Arc<Self>, owner: &str, count: usize) {
        let class = class(owner);
        self.queued.lock().unwrap().entry(class.clone()).or_default().extend(vec![Instant::now(); count]);
        self.hire(self.site.offer_for(class, Offer::Hint));
    }

    fn hire(self: &Arc<Self>, turn: Option<Turn>) {
        if let Some(turn) = turn {
            tokio::spawn(Arc::clone(self).work(turn));
        }
    }

    /// What a worker does.
    async fn work(self: Arc<Self>, mut turn: Turn) {
        loop {
            assert!(!matches!(turn.look(Held::Nothing), Look::Wait(_)));
            let place = self.places.take(self.site.standing(), &self.site.share).await;
            let Some(class) = turn.next(Held::Nothing) else {
                drop(place);
                if turn.leave() {
                    return;
                }
                continue;
            };
            let queued = {
                let mut all = self.queued.lock().unwrap();
                let of_class = all.get_mut(&class).unwrap();
                if of_class.is_empty() { None } else { Some(of_class.remove(0)) }
            };
            let Some(queued) = queued else {
                turn.found_none(&class);
                continue;
            };
            self.hire(self.site.offer(class.clone()));
            let begun = Instant::now();
            sleep(self.takes).await;
            drop(place);
            self.site.end(Signal::Took, begun, true);
            self.took.lock().unwrap().entry(class.owner).or_default().push(queued.elapsed());
        }
    }

    fn took(&self, owner: &str) -> Vec<Duration> {
        self.took.lock().unwrap().get(&Owner::new(owner).unwrap()).cloned().unwrap_or_default()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Each of ten sites takes 5 seconds for a message, and has room for 20 connections: together they
/// could hold all 200 places.
#[tokio::test(start_paused = true)]
async fn ten_slow_sites_leave_places_for_a_fast_one() {
    let places = Places::new(Bounds { moving: 200, silent: 600 });
    let slow: Vec<_> = (0..10).map(|_| Run::new(&places, 5 * SECOND)).collect();
    slow.iter().for_each(|run| run.queue("busy", 5_000));
    sleep(120 * SECOND).await;
    let before: usize = slow.iter().map(|run| run.took("busy").len()).sum();
    let fast = Run::new(&places, 10 * MS);
    for _ in 0..60 {
        fast.queue("quick", 100);
        sleep(SECOND).await;
    }
    let took = fast.took("quick");
    assert_eq!(took.len(), 6_000);
    let longest = took.iter().max().unwrap();
    // It begins with a window of five, then has at least its fair share of nine places.
    assert!(*longest <= 1_000 * MS / 5 + 10 * MS, "{longest:?}");
    // The others go on with three quarters of the places, and with those that are free.
    let since = slow.iter().map(|run| run.took("busy").len()).sum::<usize>() - before;
    assert!(since >= 60 / 5 * 130, "{since}");
}

/// The delay of an owner with one message a second: alone, and beside an owner with 5,000 messages
/// for a slow site, at another site and at the same one.
#[tokio::test(start_paused = true)]
async fn a_noisy_owner_does_not_delay_a_quiet_one() {
    for (at_the_same_site, takes, most) in [(false, 10 * MS, 10 * MS), (true, 2 * SECOND, 2 * SECOND + 200 * MS)] {
        let places = Places::new(Bounds { moving: 200, silent: 600 });
        let noisy = Run::new(&places, 2 * SECOND);
        noisy.queue("noisy", 5_000);
        let quiet = if at_the_same_site { Arc::clone(&noisy) } else { Run::new(&places, takes) };
        // The window of the site has grown.
        sleep(30 * SECOND).await;
        for _ in 0..60 {
            quiet.queue("quiet", 1);
            sleep(SECOND).await;
        }
        sleep(5 * SECOND).await;
        let took = quiet.took("quiet");
        assert_eq!(took.len(), 60);
        let longest = *took.iter().max().unwrap();
        // At the same site it waits until the next of twenty connections is free.
        assert!(longest <= most + if at_the_same_site { 2 * SECOND } else { Duration::ZERO }, "{longest:?}");
        assert!(noisy.took("noisy").len() >= 60 / 2 * 20);
    }
}
