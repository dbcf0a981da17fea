//! Finds the route of each key. A table answers at once. An application is asked apart from the
//! loop, which must not wait.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posthaste_client::Resolver;
use posthaste_queue::{DueClass, Queue, RoutingKey};
use posthaste_server::wire::EnhancedCode;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    due::Offer,
    offer,
    site::{Leads, Unreachable},
    worker::Crew,
};
use crate::{Diagnostic, NextHop, RelayOptions, Route, RouteQuery, rule::key_parts};

/// How long an answer counts.
pub(super) const KNOWN: Duration = Duration::from_secs(60);
/// The most answers that are kept, each of up to half a kilobyte beside its route. Beyond it all
/// are forgotten.
const ANSWERS: usize = 32_768;
/// The most octets of the routes of these answers. Equal routes are kept once. Beyond it all are
/// forgotten.
const OCTETS: usize = 32 << 20;
/// The most domains and labels that the application is asked for at once.
const AT_ONCE: usize = 64;
/// The most domains that wait to be asked for, each in a task. The deliveries of others stay in the
/// queue until an answer comes. The backlog has three quarters of them: see [`Offer::part_of`].
const WAITING: usize = 8_192;
/// How long the application has for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What the loop does with a class.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Hand it to the site of this route.
    Site(Leads),
    /// Pass it over: its route is not known yet. The loop is woken when it is.
    Asked,
    /// Pass it over: it is held until it has another route.
    Held,
}

/// What the application has answered, and what it is being asked.
#[derive(Debug)]
pub(super) struct Routing {
    state: Mutex<State>,
    permits: Semaphore,
}

/// What is known of a key's route.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Known(Leads),
    /// The caller asks now.
    Ask,
    /// It is being asked for, or there is no room to ask.
    Wait,
}

#[derive(Debug, Default)]
struct State {
    /// Answers, and until when they count.
    known: HashMap<RoutingKey, (Instant, Leads)>,
    /// The routes of these answers.
    routes: HashSet<Arc<Route>>,
    /// The octets of these routes.
    octets: usize,
    asked: HashSet<RoutingKey>,
}

impl Default for Routing {
    fn default() -> Self {
        Self { state: Mutex::default(), permits: Semaphore::new(AT_ONCE) }
    }
}

/// Finds the route of a class that is offered.
pub(super) fn find<Q: Queue, R: Resolver>(
    crew: &Arc<Crew<Q, R>>,
    options: &Arc<RelayOptions>,
    (class, how): (&DueClass, Offer),
) -> Next {
    let key = &class.key;
    if crew.shared.hooks.routes.is_none() {
        let (domain, label) = key_parts(key);
        let route = options.routes.route(&RouteQuery::queued(domain, label));
        return next(route.map(Arc::clone).ok_or_else(|| no_route(key)));
    }
    match crew.routing.look(key, how) {
        Look::Known(leads) => return next(leads),
        Look::Wait => return Next::Asked,
        Look::Ask => {}
    }
    let (crew, options, class, key) = (Arc::clone(crew), Arc::clone(options), class.clone(), key.clone());
    crew.tasks.clone().spawn(async move {
        tokio::select! {
            leads = ask(&crew, &options, &key) => {
                crew.routing.answer(key, leads, options.delivery.retry.down_for());
                if !crew.shared.is_current(&options) {
                    crew.routing.forget();
                }
                // There may be other classes of the key.
                crew.routed.notify_one();
                offer(&crew, class, how.again());
            }
            () = crew.drain.cancelled() => {}
        }
    });
    Next::Asked
}

/// What follows from a route.
fn next(leads: Leads) -> Next {
    match leads.as_ref().map(|route| &route.to) {
        Ok(NextHop::Hold) => Next::Held,
        Ok(NextHop::Refuse(refusal)) => {
            let is_permanent = refusal.is_permanent();
            Next::Site(Err(Unreachable { diagnostic: Diagnostic::refusal(refusal), is_permanent }))
        }
        Ok(NextHop::Mx | NextHop::Hosts(_) | NextHop::Agent(_) | NextHop::Discard) | Err(_) => Next::Site(leads),
    }
}

async fn ask<Q: Queue, R: Resolver>(crew: &Crew<Q, R>, options: &RelayOptions, key: &RoutingKey) -> Leads {
    // The semaphore is never closed.
    let _permit = crew.routing.permits.acquire().await;
    let (domain, label) = key_parts(key);
    let mail = RouteQuery::queued(domain, label);
    let found = timeout(PATIENCE, crew.shared.hooks.route(options, &mail)).await;
    let found = found.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()).into()));
    match found {
        Ok(Some(route)) => Ok(Route::without_label(route)),
        Ok(None) => Err(no_route(key)),
        Err(error) => {
            warn!(domain, label, %error, "route not found, mail deferred");
            let diagnostic = Diagnostic::own(EnhancedCode::new(4, 4, 3), "the route is not known now");
            Err(Unreachable { diagnostic, is_permanent: false })
        }
    }
}

/// How the reason begins if the configuration has no route. Nothing else that the relay finds
/// begins so.
pub(super) const NO_ROUTE: &str = "there is no route for";

fn no_route(key: &RoutingKey) -> Unreachable {
    let text = format_args!("{NO_ROUTE} {}", key_parts(key).0);
    Unreachable { diagnostic: Diagnostic::own(EnhancedCode::new(5, 4, 4), text), is_permanent: true }
}

impl Routing {
    fn look(&self, key: &RoutingKey, offer: Offer) -> Look {
        let mut state = self.state();
        match state.known.get(key) {
            Some((until, leads)) if Instant::now() < *until => return Look::Known(leads.clone()),
            _ => {}
        }
        let is_new = state.asked.len() < offer.part_of(WAITING) && state.asked.insert(key.clone());
        if is_new { Look::Ask } else { Look::Wait }
    }

    /// Forgets all answers: the application is asked again.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.known.clear();
        state.routes.clear();
        state.octets = 0;
    }

    /// Keeps an answer. A failure counts until the deliveries that are deferred for it come back.
    fn answer(&self, key: RoutingKey, leads: Leads, failure: Duration) {
        let known = if matches!(&leads, Err(why) if !why.is_permanent) { failure.min(KNOWN) } else { KNOWN };
        let mut state = self.state();
        state.asked.remove(&key);
        let more = leads.as_ref().map_or(0, |route| if state.routes.contains(route) { 0 } else { route.octets() });
        if state.known.len() >= ANSWERS || state.octets.saturating_add(more) > OCTETS {
            state.known.clear();
            state.routes.clear();
            state.octets = 0;
        }
        let leads = leads.map(|route| match state.routes.get(&route) {
            Some(known) => Arc::clone(known),
            None => {
                state.octets = state.octets.saturating_add(route.octets());
                state.routes.insert(Arc::clone(&route));
                route
            }
        });
        state.known.insert(key, (Instant::now() + known, leads));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> RoutingKey {
        RoutingKey::new(&format!("d{index}.test")).unwrap()
    }

    fn found() -> Leads {
        Ok(Arc::new(Route::new(NextHop::Mx)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_a_minute_and_a_failure_until_mail_comes_back() {
        let failed = Err(Unreachable { diagnostic: Diagnostic::own(None, "gone"), is_permanent: false });
        for (leads, seconds) in [(found(), 60), (Err(no_route(&key(0))), 60), (failed, 7)] {
            let routing = Routing::default();
            assert_eq!(
                (routing.look(&key(0), Offer::Hint), routing.look(&key(0), Offer::Hint)),
                (Look::Ask, Look::Wait)
            );
            routing.answer(key(0), leads.clone(), Duration::from_secs(7));
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert_eq!(routing.look(&key(0), Offer::Hint), Look::Known(leads));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(routing.look(&key(0), Offer::Hint), Look::Ask);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_and_answers_have_bounds() {
        let routing = Routing::default();
        let part = WAITING / 4 * 3;
        (0..part).for_each(|index| assert_eq!(routing.look(&key(index), Offer::Look(1)), Look::Ask));
        assert_eq!(routing.look(&key(part), Offer::Look(1)), Look::Wait, "the rest is for new mail");
        (part..WAITING).for_each(|index| assert_eq!(routing.look(&key(index), Offer::Hint), Look::Ask));
        assert_eq!(routing.look(&key(WAITING), Offer::Hint), Look::Wait);
        routing.answer(key(0), found(), Duration::ZERO);
        assert_eq!(routing.look(&key(WAITING), Offer::Hint), Look::Ask);
        (0..2 * ANSWERS).for_each(|index| routing.answer(key(index), found(), Duration::ZERO));
        assert!(routing.state().known.len() <= ANSWERS && routing.state().asked.is_empty());
        assert_eq!(routing.state().routes.len(), 1, "equal routes are one");
    }

    #[tokio::test(start_paused = true)]
    async fn different_routes_have_a_bound_in_octets() {
        let (routing, name) = (Routing::default(), "a".repeat(16_000));
        let route = |index: usize| Ok(Arc::new(Route::hosts([(format!("{name}{index}"), 25)])));
        for index in 0..5_000 {
            routing.answer(key(index), route(index), Duration::ZERO);
            let held: usize = routing.state().routes.iter().map(|route| route.octets()).sum();
            assert_eq!(held, routing.state().octets);
            assert!((16_000..=OCTETS).contains(&held), "{held}");
            assert_eq!(routing.look(&key(index), Offer::Hint), Look::Known(route(index)));
        }
        // A route that is known needs no more room.
        let before = routing.state().known.len();
        routing.answer(key(5_000), route(4_999), Duration::ZERO);
        assert_eq!(routing.state().known.len(), before + 1);
    }
}
