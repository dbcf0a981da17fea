//! The limits of sources hold, and what they hold back waits without a deferral.

use std::time::{Duration, Instant};

use posthaste_client::Tls;
use posthaste_relay::{Rate, RelayOptions, Route, RouteTable, SiteLimits, SourceLimits};
use posthaste_server::Tls as ServerTls;
use posthaste_testkit::pki::tls;

use crate::support::{Noting, PATIENCE, Running, options, source, start, through};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A count in a day: no further one comes during a test.
fn a_day(count: u32) -> Option<Rate> {
    Rate::new(count, Duration::from_secs(86_400))
}

fn limited(route: Route, set: impl FnOnce(&mut SourceLimits)) -> RelayOptions {
    limited_routes([("*", route)], set)
}

fn limited_routes<const N: usize>(routes: [(&str, Route); N], set: impl FnOnce(&mut SourceLimits)) -> RelayOptions {
    let mut limits = SiteLimits::default();
    limits.connections = Some(8);
    set(&mut limits.per_source);
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    routes.into_iter().for_each(|(domains, route)| options.routes.push([domains.parse().unwrap()], route));
    options.delivery.idle = Duration::from_secs(60);
    options.delivery.site_limits.push(["*".parse().unwrap()], limits);
    options
}

/// Waits until the limits hold mail back and no delivery runs.
async fn held_back(running: &Running) {
    let begun = Instant::now();
    while !running.relay.sites().iter().any(|site| site.limited.is_some() && site.open == 0 && site.due > 0) {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", running.relay.sites(), running.log.all());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn submit(running: &Running, count: usize) {
    for _ in 0..count {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
}

#[tokio::test]
async fn each_source_has_no_more_connections_to_a_site_than_its_limit() {
    let (hop, port) = Noting::slow(Duration::from_millis(20)).await;
    let route = through(port, [(source("first", 2), 1), (source("second", 3), 1)]);
    let running = start(limited(route, |limits| limits.connections = Some(2)));
    submit(&running, 60).await;
    running.log.wait("delivered", 60).await;
    assert_eq!((hop.most(2), hop.most(3), running.log.count("deferred")), (2, 2, 0));
    assert!(hop.count(2) > 9 && hop.count(3) > 9, "{:?}", hop.taken());
    let sources = running.relay.sites().pop().unwrap().sources;
    let open: Vec<_> = sources.iter().map(|state| (&*state.source, state.connections)).collect();
    assert_eq!(open, [("first", 2), ("second", 2)], "they are kept");
    running.end().await;
}

#[tokio::test]
async fn messages_of_a_source_to_a_site_wait_until_a_reload_lifts_the_limit() {
    let (hop, port) = Noting::start(None).await;
    let route = || through(port, [(source("first", 2), 1), (source("second", 3), 0)]);
    let running = start(limited(route(), |limits| limits.messages = a_day(3)));
    submit(&running, 12).await;
    running.log.wait("delivered", 6).await;
    held_back(&running).await;
    assert_eq!((hop.count(2), hop.count(3), running.log.count("deferred")), (3, 3, 0));
    let sources = running.relay.sites().pop().unwrap().sources;
    assert!(sources.iter().all(|state| state.limited.is_some()), "{sources:?}");
    // What they have had still counts.
    running.relay.reload(limited(route(), |limits| limits.messages = a_day(4))).unwrap();
    held_back(&running).await;
    assert_eq!((hop.count(2), hop.count(3)), (3, 3));
    running.relay.reload(limited(route(), |limits| limits.messages = None)).unwrap();
    running.log.wait("delivered", 12).await;
    assert_eq!(running.log.count("deferred"), 0);
    running.end().await;
}

#[tokio::test]
async fn messages_of_a_source_are_counted_over_all_sites() {
    let ((one, one_port), (other, other_port)) = (Noting::start(None).await, Noting::start(None).await);
    let mut few = source("few", 2);
    few.messages = a_day(5);
    let with_another = through(other_port, [(few.clone(), 9), (source("any", 3), 0)]);
    let running = start(limited_routes([("e.test", with_another), ("*", through(one_port, [(few, 1)]))], |_| {}));
    for count in 0..8 {
        let to = if count % 2 == 0 { "<a@d.test>" } else { "<a@e.test>" };
        running.submit("<me@s.test>", &[to], CONTENT).await;
    }
    held_back(&running).await;
    // All mail leaves that has another source.
    let begun = Instant::now();
    while other.count(2) + other.count(3) < 4 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", other.taken());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((one.count(2) + other.count(2), other.count(2) + other.count(3)), (5, 4));
    assert_eq!(running.log.count("deferred"), 0);
    running.end().await;
}

/// Two routes to one site are two pools, and the site sees one address.
#[tokio::test]
async fn connections_of_a_source_are_counted_over_all_routes() {
    let (hop, port) = Noting::slow(Duration::from_millis(20)).await;
    let with_another = through(port, [(source("a", 2), 1), (source("b", 3), 0)]);
    let routes = [("e.test", with_another), ("*", through(port, [(source("a", 2), 1)]))];
    let mut options = limited_routes(routes, |limits| limits.connections = Some(1));
    options.delivery.idle = Duration::from_millis(50);
    let running = start(options);
    for _ in 0..6 {
        running.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        running.submit("<me@s.test>", &["<a@e.test>"], CONTENT).await;
    }
    running.log.wait("delivered", 12).await;
    assert_eq!((hop.most(2), running.log.count("deferred")), (1, 0));
    running.end().await;
}

/// A kept connection counts. So it is closed for a message that it does not suit.
#[tokio::test]
async fn a_kept_connection_makes_room_for_one_that_the_message_needs() {
    let (server, client) = tls("127.0.0.1");
    let (hop, port) = Noting::with_tls(ServerTls::StartTls(server)).await;
    let mut route = through(port, [(source("first", 2), 1)]);
    route.tls = Tls::opportunistic().unwrap();
    let mut options = limited(route, |limits| limits.connections = Some(1));
    options.delivery.verified_tls = Some(client);
    let running = start(options);
    for count in 0..6 {
        let mail = if count % 2 == 0 { "<me@s.test>" } else { "<me@s.test> REQUIRETLS" };
        running.submit(mail, &["<a@d.test>"], CONTENT).await;
        running.log.wait("delivered", count + 1).await;
    }
    assert_eq!((hop.count(2), hop.most(2), running.log.count("deferred")), (6, 1, 0));
    running.end().await;
}

#[tokio::test]
async fn a_source_whose_address_was_not_there_is_looked_at_again_after_a_reload() {
    let (hop, port) = Noting::start(None).await;
    let mut foreign = source("foreign", 0);
    foreign.v4 = Some([192, 0, 2, 1].into());
    let options = limited(through(port, [(foreign, 9), (source("own", 3), 0)]), |_| {});
    let running = start(options.clone());
    submit(&running, 1).await;
    running.log.wait("delivered", 1).await;
    assert_eq!(running.relay.resting_sources()[0].source, "foreign");
    running.relay.reload(options).unwrap();
    assert!(running.relay.resting_sources().is_empty());
    submit(&running, 1).await;
    running.log.wait("delivered", 2).await;
    assert_eq!((hop.count(3), running.relay.resting_sources().len()), (2, 1));
    running.end().await;
}
