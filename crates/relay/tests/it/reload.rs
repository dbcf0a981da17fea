//! Options that change while a relay runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use posthaste_client::{SystemResolver, session::client::ClientTimeouts};
use posthaste_queue::memory::MemoryQueue;
use posthaste_relay::{Relay, RelayOptions, Route, RouteError, RouteQuery, RouteTable, Routes};
use posthaste_server::refusal;

use crate::support::{Behavior, Client, Hop, Log, PATIENCE, options, relay, run, start, submit};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn slow() -> Behavior {
    Behavior { think: Duration::from_millis(30), ..Behavior::default() }
}

#[tokio::test]
async fn queued_mail_takes_the_new_route_at_once_and_all_of_it_arrives_once() {
    let (first, second) = (Hop::start(slow()).await, Hop::start(Behavior::default()).await);
    let running = start(options(&[first.port]));
    let mut names = Vec::new();
    for number in 0..300 {
        let name = format!("<u{number}@d{}.test>", number % 7);
        running.submit("<a@b.test>", &[&name], CONTENT).await;
        names.push(name);
    }
    until("no delivery", || first.count() >= 20).await;
    running.relay.reload(options(&[second.port])).unwrap();
    // Those that run end as they began: one each on at most 20 connections.
    let most = first.count() + 20;
    running.empty().await;
    assert!(first.count() <= most && second.count() >= 300 - most, "{} {}", first.count(), second.count());
    let mut arrived: Vec<_> = [&first, &second].iter().flat_map(|hop| hop.mail()).flat_map(|one| one.rcpts()).collect();
    arrived.sort();
    names.sort();
    assert_eq!(arrived, names);
    assert_eq!(running.log.count("delivered"), 300);
    running.end().await;
}

#[tokio::test]
async fn domains_that_change_places_between_routes_take_the_other_route() {
    let (first, second) = (Hop::start(slow()).await, Hop::start(slow()).await);
    let table = |one: &str, other: &str| {
        let mut options = options(&[]);
        let mut routes = RouteTable::empty();
        routes.push([one.parse().unwrap()], Route::hosts([("[127.0.0.1]", first.port)]));
        routes.push([other.parse().unwrap()], Route::hosts([("[127.0.0.1]", second.port)]));
        options.routes = routes;
        options
    };
    let running = start(table("one.test", "other.test"));
    for _ in 0..150 {
        running.submit("<a@b.test>", &["<a@one.test>"], CONTENT).await;
        running.submit("<a@b.test>", &["<a@other.test>"], CONTENT).await;
    }
    until("no delivery", || first.count().min(second.count()) >= 10).await;
    running.relay.reload(table("other.test", "one.test")).unwrap();
    let most = [first.count() + 20, second.count() + 20];
    running.empty().await;
    for (hop, domain, most) in [(&first, "one.test", most[0]), (&second, "other.test", most[1])] {
        let of_before = hop.mail().iter().filter(|one| one.rcpts()[0].contains(domain)).count();
        assert!(of_before <= most, "{domain} {of_before}");
    }
    assert_eq!(first.count() + second.count(), 300);
    running.end().await;
}

#[tokio::test]
async fn what_cannot_change_is_named_and_then_nothing_changes() {
    let (first, second) = (Hop::start(Behavior::default()).await, Hop::start(Behavior::default()).await);
    let running = start(options(&[first.port]));
    let mut wanted = options(&[second.port]);
    wanted.host_name = "other.test".parse().unwrap();
    wanted.delivery.concurrency = 7;
    wanted.delivery.idle = Duration::from_secs(9);
    let error = running.relay.reload(wanted).unwrap_err();
    let names: Vec<_> = error.fixed.iter().map(|option| option.name).collect();
    assert_eq!(names, ["host_name", "delivery.concurrency", "delivery.idle"]);
    assert_eq!(
        error.to_string(),
        "no option was changed: `host_name` is relay.test while this relay runs; start it anew for other.test, or leave \
         it as it is; `delivery.concurrency` is 200 while this relay runs; start it anew for 7, or leave it as it is; \
         `delivery.idle` is 2s while this relay runs; start it anew for 9s, or leave it as it is"
    );
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    running.empty().await;
    assert_eq!((first.count(), second.count()), (1, 0));
    running.end().await;
}

#[tokio::test]
async fn kept_connections_are_not_used_by_other_options_and_close_with_their_route() {
    let hop = Hop::start(Behavior::default()).await;
    let to = |port: u16| {
        let mut options = options(&[port]);
        options.delivery.idle = Duration::from_secs(600);
        options
    };
    let running = start(to(hop.port));
    let deliver = async |count: usize| {
        running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
        running.log.wait("delivered", count).await;
    };
    deliver(1).await;
    deliver(2).await;
    assert_eq!(hop.connections(), 1);
    let mut other = to(hop.port);
    other.delivery.timeouts = ClientTimeouts::all(Duration::from_secs(40));
    running.relay.reload(other).unwrap();
    deliver(3).await;
    assert_eq!(hop.connections(), 2);
    running.relay.reload(to(1)).unwrap();
    until("a connection is left", || hop.open() == 0).await;
    running.end().await;
}

/// The queued message failed for now; it has not expired under the old options.
#[tokio::test]
async fn queued_mail_expires_and_is_reported_by_the_new_options() {
    let reports = Hop::start(Behavior::default()).await;
    let refuses = Behavior { rcpt: Box::new(|_| Err(refusal!("450 4.2.0 Later"))), ..Behavior::default() };
    let refusing = Hop::start(refuses).await;
    let table = |port: u16| {
        let mut options = options(&[port]);
        let mut routes = RouteTable::empty();
        routes.push(["b.test".parse().unwrap()], Route::hosts([("[127.0.0.1]", reports.port)]));
        routes.push(["*".parse().unwrap()], Route::hosts([("[127.0.0.1]", port)]));
        options.routes = routes;
        options
    };
    let running = start(table(refusing.port));
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    running.log.wait("deferred", 2).await;
    let mut impatient = table(refusing.port);
    impatient.delivery.retry.expire_after = Duration::ZERO;
    running.relay.reload(impatient).unwrap();
    running.log.wait("failed", 1).await;
    running.empty().await;
    assert_eq!(reports.reports().len(), 1);
    running.end().await;
}

#[tokio::test]
async fn an_application_is_asked_again_for_its_routes() {
    struct Own(Arc<AtomicU16>);
    impl Routes for Own {
        async fn find(&self, _: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
            Ok(Some(Arc::new(Route::hosts([("[127.0.0.1]", self.0.load(SeqCst))]))))
        }
    }
    let (first, second) = (Hop::start(Behavior::default()).await, Hop::start(Behavior::default()).await);
    let (port, log) = (Arc::new(AtomicU16::new(first.port)), Log::default());
    let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options(&[]));
    let running = run(builder.routes(Own(Arc::clone(&port))).observer(log.clone()).build(), log);
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    running.log.wait("delivered", 1).await;
    port.store(second.port, SeqCst);
    // The answer counts for a minute.
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    running.log.wait("delivered", 2).await;
    assert_eq!((first.count(), second.count()), (2, 0));
    running.relay.reload(options(&[])).unwrap();
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    running.log.wait("delivered", 3).await;
    assert_eq!((first.count(), second.count()), (2, 1));
    running.end().await;
}

#[tokio::test]
async fn what_a_site_has_taught_stays_if_its_route_does() {
    let refuses = Behavior {
        message: Box::new(|_| Err(refusal!("421 4.7.0 Too many messages, try again later"))),
        ..Behavior::default()
    };
    let hop = Hop::start(refuses).await;
    let running = start(options(&[hop.port]));
    running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    let rests = || running.relay.sites().iter().filter(|site| site.resting.is_some()).count();
    until("no rest", || rests() == 1).await;
    let mut other = options(&[hop.port]);
    other.delivery.concurrency_per_site = 3;
    other.routes.push(["other.test".parse().unwrap()], Route::hosts([("[127.0.0.1]", 1)]));
    running.relay.reload(other).unwrap();
    assert_eq!(rests(), 1);
    running.relay.reload(options(&[1])).unwrap();
    assert_eq!(rests(), 0);
    running.end().await;
}

#[tokio::test]
async fn the_connections_to_a_site_follow_the_new_limit_both_ways() {
    let hop = Hop::start(slow()).await;
    let with = |most: usize| {
        let mut options = options(&[hop.port]);
        options.delivery.concurrency_per_site = most;
        options
    };
    let running = start(with(2));
    for _ in 0..200 {
        running.submit("<a@b.test>", &["<a@d.test>"], CONTENT).await;
    }
    until("no delivery", || hop.count() >= 10).await;
    assert_eq!(hop.most(), 2);
    running.relay.reload(with(6)).unwrap();
    until("no more connections", || hop.open() == 6).await;
    running.relay.reload(with(1)).unwrap();
    until("too many connections", || hop.open() == 1).await;
    running.end().await;
}

fn relaying() -> RelayOptions {
    let mut options = options(&[1]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    options
}

/// A transaction sees one state of the options, from MAIL to its end.
#[tokio::test]
async fn a_new_policy_counts_from_the_next_mail_on() {
    let (relay, log) = relay(relaying());
    let mut client = Client::with(relay, log).await;
    let said = client.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@d.test>\r\n"]).await;
    assert!(said.starts_with("250"), "{said}");
    client.relay.reload(options(&[1])).unwrap();
    let said = client.talk(&["RCPT TO:<b@d.test>\r\n", "DATA\r\n", "Subject: x\r\n\r\nx\r\n.\r\n"]).await;
    assert!(said.starts_with("250"), "{said}");
    let said = client.talk(&["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@d.test>\r\n"]).await;
    assert!(said.starts_with("550 5.7.1"), "{said}");
    client.relay.reload(relaying()).unwrap();
    let said = client.talk(&["RSET\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@d.test>\r\n"]).await;
    assert!(said.starts_with("250"), "{said}");
    let mut few = relaying();
    few.max_hops = 1;
    client.relay.reload(few).unwrap();
    let content = "Received: from x by y; z\r\nSubject: x\r\n\r\nx\r\n.\r\n";
    let said = client.talk(&["DATA\r\n", content]).await;
    assert!(said.starts_with("250"), "{said}");
    let said = client.talk(&["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@d.test>\r\n", "DATA\r\n", content]).await;
    assert!(said.starts_with("554 5.4.6"), "{said}");
}

#[tokio::test]
async fn a_relay_ends_by_its_handle() {
    for stops in [false, true] {
        let (hop, log) =
            (Hop::start(Behavior { think: Duration::from_secs(3), ..Behavior::default() }).await, Log::default());
        let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options(&[hop.port]));
        let relay = builder.observer(log.clone()).build();
        submit(&relay, "<a@b.test>", &["<a@d.test>"], CONTENT).await;
        let task = tokio::spawn({
            let relay = relay.clone();
            async move { relay.serve(relay.server(), std::future::pending()).await }
        });
        until("no delivery", || hop.open() == 1).await;
        if stops {
            relay.stop()
        } else {
            relay.drain()
        }
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
        assert_eq!(log.count("delivered"), usize::from(!stops));
        // From then on it only drains.
        tokio::time::timeout(PATIENCE, relay.deliver(std::future::pending())).await.unwrap().unwrap();
    }
}
