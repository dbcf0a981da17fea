//! Mail that would loop ends soon, and so does its report.

use std::time::Duration;

use crate::support::{self, Behavior, Hop, Log, PATIENCE, submit};
use posthaste_client::SystemResolver;
use posthaste_queue::{Queue as _, memory::MemoryQueue};
use posthaste_relay::{NextHop, Relay, RelayOptions, Route, RouteTable};
use posthaste_server::{Listener, session::ServerSettings};
use tokio_util::sync::CancellationToken;

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A relay for all clients on this host, which sends all mail to the next hop in `to`. `to` gets
/// the port of its own listener on `on`.
async fn relay(
    on: &str,
    to: impl FnOnce(u16, &mut RelayOptions),
) -> (Relay<MemoryQueue, SystemResolver>, Log, CancellationToken) {
    let listener = Listener::bind(on, ServerSettings::new("relay.test".parse().unwrap())).await.unwrap();
    let mut options = support::options(&[]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    to(listener.local_address().unwrap().port(), &mut options);
    let log = Log::default();
    let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options).observer(log.clone()).build();
    let drain = CancellationToken::new();
    let (serving, ends) = (relay.clone(), drain.clone());
    tokio::spawn(async move { serving.serve(serving.server().listen(listener), ends.cancelled_owned()).await });
    (relay, log, drain)
}

fn to_hosts(options: &mut RelayOptions, hosts: Vec<(String, u16)>) {
    options.routes = RouteTable::all(Route::hosts(hosts));
}

async fn is_empty(relay: &Relay<MemoryQueue, SystemResolver>) {
    let waiting = async {
        while relay.queue().stats().await.messages > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn mail_for_the_relay_itself_as_its_next_hop_is_not_sent() {
    for on in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        for is_mx in [false, true] {
            let (relay, log, drain) = relay(on, |port, options| {
                options.delivery.mx_port = port;
                options.delivery.allow_private = true;
                if is_mx {
                    options.routes = RouteTable::all(Route::new(NextHop::Mx));
                } else {
                    to_hosts(options, vec![("[127.0.0.1]".to_owned(), port)]);
                }
            })
            .await;
            submit(&relay, "<me@[127.0.0.1]>", &["<you@[127.0.0.1]>"], CONTENT).await;
            log.wait("failed", 2).await;
            is_empty(&relay).await;
            // The message and its report have not come back.
            assert_eq!((log.count("accepted"), log.count("delivered")), (1, 0), "{on} {is_mx}");
            assert!(log.of("failed").iter().all(|seen| seen.text.starts_with("5.4.6")), "{:?}", log.all());
            drain.cancel();
        }
    }
}

#[tokio::test]
async fn the_other_hosts_of_a_route_are_tried_if_one_is_the_relay_itself() {
    let hop = Hop::start(Behavior::default()).await;
    let port = hop.port;
    let (relay, log, drain) = relay("127.0.0.1:0", move |own, options| {
        to_hosts(options, vec![("[127.0.0.1]".to_owned(), own), ("[127.0.0.1]".to_owned(), port)]);
    })
    .await;
    submit(&relay, "<me@s.test>", &["<you@d.test>"], CONTENT).await;
    log.wait("delivered", 1).await;
    assert_eq!((hop.count(), log.count("failed")), (1, 0));
    drain.cancel();
}

/// A proxy, a translated address or a second relay lies between, and no address shows that.
#[tokio::test]
async fn mail_that_comes_back_again_and_again_is_refused_at_the_fourth_hop_of_our_own() {
    let between = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = between.local_addr().unwrap().port();
    let (relay, log, drain) = {
        let (own, told) = tokio::sync::oneshot::channel();
        let started = relay("127.0.0.1:0", move |port_of_own, options| {
            own.send(port_of_own).unwrap();
            to_hosts(options, vec![("[127.0.0.1]".to_owned(), port)]);
        })
        .await;
        let own = told.await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = between.accept().await {
                tokio::spawn(async move {
                    let mut to = tokio::net::TcpStream::connect(("127.0.0.1", own)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        started
    };
    submit(&relay, "<me@s.test>", &["<you@d.test>"], CONTENT).await;
    log.wait("failed", 2).await;
    is_empty(&relay).await;
    assert!(log.of("failed").iter().all(|seen| seen.text.starts_with("5.4.6")), "{:?}", log.all());
    // The message and its report: each was accepted once, and looped four times.
    assert_eq!(log.count("accepted"), 1 + 2 * 4, "{:?}", log.all());
    drain.cancel();
}

/// Each of two relays takes the other for the host that has the mailboxes.
#[tokio::test]
async fn two_relays_that_send_to_each_other_end_in_one_report() {
    let sender = Hop::start(Behavior::default()).await;
    let reports = sender.port;
    let second = Listener::bind("127.0.0.1:0", ServerSettings::new("second.test".parse().unwrap())).await.unwrap();
    let to_second = second.local_address().unwrap().port();
    let mut to_first = 0;
    let (first, log, drain) = relay("127.0.0.1:0", |port, options| {
        to_first = port;
        route(options, reports, to_second);
    })
    .await;
    let mut options = support::options(&[]);
    options.host_name = "second.test".parse().unwrap();
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    route(&mut options, reports, to_first);
    let (other, other_log) = support::relay(options);
    let (serving, ends) = (other.clone(), drain.clone());
    tokio::spawn(async move { serving.serve(serving.server().listen(second), ends.cancelled_owned()).await });

    submit(&first, "<me@s.test>", &["<you@d.test>", "<them@d.test>"], CONTENT).await;
    let begun = std::time::Instant::now();
    while sender.reports().is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_empty(&first).await;
    is_empty(&other).await;
    let all = [log.all(), other_log.all()].concat();
    assert_eq!(sender.reports().len(), 1, "{all:?}");
    let failed: Vec<_> = all.iter().filter(|seen| seen.what == "failed").collect();
    assert!(failed.len() == 2 && failed.iter().all(|seen| seen.text.starts_with("5.4.6")), "{all:?}");
    // The first has it from the application, and each of them four times at most.
    assert!(log.count("accepted") + other_log.count("accepted") <= 1 + 2 * 4, "{all:?}");
    drain.cancel();
}

/// Reports go to the sender's host, and all other mail to the other relay.
fn route(options: &mut RelayOptions, reports: u16, other: u16) {
    options.routes = RouteTable::empty();
    let to = |port| Route::hosts(vec![("[127.0.0.1]", port)]);
    options.routes.push(["s.test".parse().unwrap()], to(reports));
    options.routes.push(["*".parse().unwrap()], to(other));
}

/// Hosts between the relay's turns have taken the Received fields away.
#[tokio::test]
async fn mail_that_was_delivered_to_one_address_again_and_again_is_refused() {
    let mut client = support::Client::of({
        let mut options = support::options(&[1]);
        options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
        options
    })
    .await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for (times, wanted) in [(3, "250"), (4, "554 5.4.6 Too many hops, this is a loop")] {
        client.talk(&["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<you@d.test>\r\n", "DATA\r\n"]).await;
        let fields = "Delivered-To: <You@d.test>\r\nDelivered-To: mailing list l@d.test\r\n".repeat(times);
        let said = client.talk(&[&format!("{fields}\r\nDelivered-To: <you@d.test>\r\n.\r\n")]).await;
        assert!(said.starts_with(wanted), "{times}: {said}");
    }
}
