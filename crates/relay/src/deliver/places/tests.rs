//! What the places promise, with fake work.

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

/// Takes a place for a site of its own.
async fn alone(places: &Arc<Places>, standing: Standing) -> Place {
    places.take(standing, &Arc::default()).await
}

fn now(places: &Arc<Places>, standing: Standing) -> Option<Place> {
    at_once(pin!(places.take(standing, &Arc::default())))
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
    let mut line: Vec<_> = (0..10).map(|_| Box::pin(alone(&places, Standing::New))).collect();
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
    let mut doubtful: Vec<_> = (0..9).map(|_| Box::pin(alone(&places, Standing::Doubtful))).collect();
    let mut new: Vec<_> = (0..9).map(|_| Box::pin(alone(&places, Standing::New))).collect();
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
    let mut waiting = Box::pin(alone(&places, Standing::New));
    assert!(at_once(waiting.as_mut()).is_none());
    drop(held);
    // It was given a place, and is dropped before it saw that.
    drop(waiting);
    assert!(now(&places, Standing::New).is_some());
    let state = places.state();
    assert_eq!((state.moving.all, state.silent.all, state.new.len(), state.sites), (0, 0, 0, 0));
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
    let mut waiting = Box::pin(alone(&places, Standing::New));
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

#[test]
fn no_site_takes_the_last_quarter_from_the_others() {
    for standing in [Standing::Proven, Standing::New] {
        let places = places(200, 600);
        let of = if standing == Standing::Proven { 200 } else { 100 };
        let take = |share: &Arc<Share>| at_once(pin!(places.take(standing, share)));
        let slow: Vec<Arc<Share>> = (0..10).map(|_| Arc::default()).collect();
        // Ten slow sites take turns until none gets a place any more.
        let mut held = Vec::new();
        loop {
            let before = held.len();
            slow.iter().for_each(|share| held.extend(take(share)));
            if held.len() == before {
                break;
            }
        }
        assert_eq!(held.len(), of * 3 / 4, "{standing:?}");
        let fast = Arc::default();
        let its: Vec<_> = (0..of).map_while(|_| take(&fast)).collect();
        assert_eq!(its.len(), of / 2 / 11, "its fair share");
        // Each site with work gets one, as long as there are any.
        let others: Vec<_> = (0..of).map_while(|_| take(&Arc::default())).collect();
        assert_eq!(others.len(), of - held.len() - its.len());
        drop((held, its, others));
        assert_eq!(places.state().sites, 0);
    }
}

#[test]
fn few_places_are_for_all() {
    for moving in 1..4 {
        let places = places(moving, 3);
        let share = Arc::default();
        let held: Vec<_> = (0..moving).map_while(|_| at_once(pin!(places.take(Standing::Proven, &share)))).collect();
        assert_eq!(held.len(), moving);
    }
}

#[test]
fn free_places_go_to_sites_with_few_before_a_site_with_many() {
    for standing in [Standing::Proven, Standing::New] {
        let places = places(8, 24);
        let take = |share| Box::pin(places.take(standing, share));
        let (busy, others) = (Arc::default(), [(); 3].map(|()| Arc::default()));
        let mut its: Vec<_> = (0..8).map_while(|_| at_once(take(&busy).as_mut())).collect();
        let mut more: Vec<_> = (0..20).map(|_| take(&busy)).collect();
        assert!(more.iter_mut().all(|waiting| at_once(waiting.as_mut()).is_none()));
        let mut held = Vec::new();
        let mut quiet: Vec<_> = others.iter().map(take).collect();
        quiet.retain_mut(|waiting| {
            let place = at_once(waiting.as_mut());
            let waits = place.is_none();
            held.extend(place);
            waits
        });
        // The last quarter, and each place that is given up, is for the others.
        for mut waiting in quiet {
            its.pop();
            held.push(at_once(waiting.as_mut()).expect("a place"));
        }
        assert!(more.iter_mut().all(|waiting| at_once(waiting.as_mut()).is_none()));
        drop(held);
        its.clear();
        let got = more.iter_mut().filter_map(|waiting| at_once(waiting.as_mut())).collect::<Vec<_>>().len();
        assert_eq!(got, if standing == Standing::Proven { 6 } else { 3 });
    }
}
