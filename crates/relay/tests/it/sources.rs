//! Connections come from the sources of their route, and from no other.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use posthaste_relay::{DomainPattern, RouteTable, WarmUp};

use crate::support::{Exchange, Noting, options, source, start, through};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

#[tokio::test]
async fn the_next_hop_sees_the_address_and_the_name_and_no_connection_serves_another_pool() {
    let (hop, port) = Noting::start(None).await;
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    let one = || ["one.test".parse::<DomainPattern>().unwrap()];
    options.routes.push(one(), through(port, [(source("first", 2), 1)]));
    options.routes.push([DomainPattern::Any], through(port, [(source("second", 3), 1)]));
    let relay = start(options.clone());
    for count in (0..8).step_by(2) {
        relay.submit("<me@s.test>", &["<a@one.test>"], CONTENT).await;
        relay.submit("<me@s.test>", &["<a@two.test>"], CONTENT).await;
        relay.log.wait("delivered", count + 2).await;
    }
    let seen: BTreeSet<_> = hop.taken().into_iter().collect();
    let row = |address: &str, name: &str, to: &str| (address.to_owned(), name.to_owned(), to.to_owned());
    let wanted = [row("127.0.0.2", "first.test", "<a@one.test>"), row("127.0.0.3", "second.test", "<a@two.test>")];
    assert_eq!(seen, wanted.into());
    // After a reload, connections that were kept from the old source carry nothing more.
    options.routes = RouteTable::all(through(port, [(source("third", 4), 1)]));
    relay.relay.reload(options).unwrap();
    relay.submit("<me@s.test>", &["<a@one.test>"], CONTENT).await;
    relay.log.wait("delivered", 9).await;
    assert_eq!(hop.taken().pop(), Some(row("127.0.0.4", "third.test", "<a@one.test>")));
    relay.end().await;
}

#[tokio::test]
async fn a_new_source_sends_its_messages_of_the_day_and_another_the_rest() {
    let (hop, port) = Noting::start(None).await;
    let mut new = source("new", 2);
    new.warm_up = Some(WarmUp::new(SystemTime::now(), [3]));
    let mut options = options(&[]);
    options.routes = RouteTable::all(through(port, [(new, 1), (source("old", 3), 0)]));
    let relay = start(options);
    // Over connections that are made, and over those that are kept.
    for count in 0..8 {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", count + 1).await;
    }
    let from = |address: &str| hop.taken().iter().filter(|(from, ..)| from == address).count();
    assert_eq!((from("127.0.0.2"), from("127.0.0.3"), relay.log.count("deferred")), (3, 5, 0));
    let counts = relay.relay.source_counts();
    assert_eq!((&*counts[0].source, counts[0].day, counts[0].messages), ("new", 0, 3));
    relay.end().await;
}

#[tokio::test]
async fn another_source_takes_over_at_once_for_one_that_the_site_blocks() {
    let (hop, port) = Noting::start(Some("127.0.0.2")).await;
    let mut options = options(&[]);
    options.routes = RouteTable::all(through(port, [(source("first", 2), 1), (source("second", 3), 0)]));
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(relay.log.count("deferred"), 0);
    assert_eq!(hop.taken()[0].0, "127.0.0.3");
    let [resting] = &relay.relay.resting_sources()[..] else { panic!("{:?}", relay.relay.resting_sources()) };
    assert_eq!((&*resting.source, resting.site.is_some()), ("first", true));
    assert!(resting.why.text.contains("blocked"), "{resting:?}");
    relay.end().await;
}

/// Most sites say it at RCPT.
#[tokio::test]
async fn mail_that_is_refused_for_its_source_alone_goes_from_another_one_and_does_not_fail() {
    for at in [Exchange::Mail, Exchange::Rcpt, Exchange::Body] {
        let (hop, port) = Noting::start_at(Some("127.0.0.2"), Some(at)).await;
        let mut options = options(&[]);
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        options.routes = RouteTable::all(through(port, [(source("first", 2), 100), (source("second", 3), 0)]));
        let relay = start(options);
        for _ in 0..4 {
            relay.submit("<me@s.test>", &["<a@d.test>", "<b@d.test>"], CONTENT).await;
        }
        relay.log.wait("delivered", 8).await;
        assert_eq!(relay.log.count("failed"), 0, "{at:?}");
        assert!(hop.taken().iter().all(|(from, ..)| from == "127.0.0.3"));
        let [resting] = &relay.relay.resting_sources()[..] else { panic!("{:?}", relay.relay.resting_sources()) };
        assert!(resting.source == "first" && resting.why.text.contains("bl.test"), "{resting:?}");
        relay.end().await;
    }
}

#[tokio::test]
async fn mail_waits_while_its_only_source_is_blocked_or_not_of_this_machine() {
    let (hop, port) = Noting::start(Some("127.0.0.2")).await;
    let mut foreign = source("foreign", 0);
    foreign.v4 = Some([192, 0, 2, 1].into());
    let mut of_the_other_family = source("v6", 0);
    (of_the_other_family.v4, of_the_other_family.v6) = (None, Some(std::net::Ipv6Addr::UNSPECIFIED));
    for (source, why) in [
        (source("first", 2), "blocked"),
        (foreign, "192.0.2.1"),
        (of_the_other_family, "source v6 has no IPv4 address"),
    ] {
        let mut options = options(&[]);
        options.routes = RouteTable::all(through(port, [(source, 1)]));
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 1).await;
        let deferred = relay.log.of("deferred");
        assert!(deferred[0].text.contains(why), "{deferred:?}");
        assert_eq!((relay.log.count("failed"), hop.taken().len()), (0, 0));
        relay.end().await;
    }
}
