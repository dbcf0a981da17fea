//! Silent or very slow hosts and name servers do not hold up mail for other hosts.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::support::{Behavior, Hop, Zone, by_mx, options, start};
use posthaste_client::session::client::ClientTimeouts;
use posthaste_queue::Queue as _;
use posthaste_testkit::script::{Scripted, polite};
use tokio::net::TcpSocket;

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// The longest time of a healthy delivery beside all the others: a fraction of a second on an idle
/// machine.
const SOON: Duration = Duration::from_secs(5);

const MUTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

/// Hosts `mute…` accept and say nothing. The name servers of `silent…` do not answer. All others
/// are healthy.
fn zone(name: &str) -> Option<Vec<IpAddr>> {
    match name {
        name if name.starts_with("silent") => None,
        name if name.starts_with("mute") => Some(vec![MUTE]),
        _ => Some(vec![[127, 0, 0, 1].into()]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mute_hosts_and_silent_name_servers_do_not_hold_up_mail_for_a_healthy_host() {
    for (mute, silent, waits) in [(200, 1_000, [0, 400, 1_000, 3_000]), (1_000, 5_000, [0, 300, 2_000, 2_000])] {
        let hop = Hop::start(Behavior::default()).await;
        let _mute = Scripted::at((MUTE, hop.port).into(), None, |_, _| String::new()).await;
        let relay = by_mx(Zone(zone), hop.port, |options| {
            options.delivery.retry.waits = vec![Duration::from_secs(60)];
        });
        for part in 0..silent / 1_000 {
            let names: Vec<_> = (0..1_000).map(|number| format!("<a@silent{part}x{number}.test>")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            relay.submit("<stranger@s.test>", &names, CONTENT).await;
        }
        for number in 0..mute {
            relay.submit("<>", &[&format!("<a@mute{number}.test>")], CONTENT).await;
        }
        let mut count = 0;
        for wait in waits {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            // First a host that is not known, then one that has just answered.
            for _ in 0..2 {
                let begun = Instant::now();
                relay.submit("<me@s.test>", &[&format!("<a@healthy{wait}.test>")], CONTENT).await;
                count += 1;
                while relay.log.count("delivered") < count {
                    assert!(
                        begun.elapsed() < SOON,
                        "{mute} mute, {silent} silent, after {wait} ms: {:?}",
                        relay.log.all().last()
                    );
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        relay.task.abort();
    }
}

/// Each reply comes just before its timeout.
#[tokio::test]
async fn a_host_that_is_slow_at_every_line_is_given_up_at_the_end_of_the_attempt() {
    let hop = Scripted::start(|_, line| format!("after 250 {}", polite(line, &[]))).await;
    let mut options = options(&[hop.port]);
    options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(400));
    options.delivery.attempt_timeout = Duration::from_millis(800);
    options.delivery.retry.waits = vec![Duration::from_secs(60)];
    let relay = start(options);
    let begun = Instant::now();
    relay.submit("<>", &["<a@d.test>", "<b@d.test>", "<c@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 3).await;
    assert!(begun.elapsed() < Duration::from_millis(1_600), "{:?}", begun.elapsed());
    let text = &relay.log.of("deferred")[0].text;
    assert!(text.contains("the time of one attempt was over"), "{text}");
    relay.end().await;
}

/// A connection to it neither succeeds nor fails: the backlog of its listener is full.
#[tokio::test]
async fn fifty_addresses_that_swallow_everything_take_no_longer_than_an_attempt() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([0, 0, 0, 0], 0).into()).unwrap();
    let full = socket.listen(1).unwrap();
    let port = full.local_addr().unwrap().port();
    let mut fill = Vec::new();
    for _ in 0..8 {
        fill.push(tokio::spawn(tokio::net::TcpStream::connect(("127.0.0.1", port))));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let zone = |_: &str| Some((1..=5).map(|last| IpAddr::from([127, 0, 1, last])).collect());
    let relay = by_mx(Zone(zone), port, |options| {
        options.delivery.attempt_timeout = Duration::from_secs(1);
        options.delivery.retry.waits = vec![Duration::from_secs(60)];
    });
    let begun = Instant::now();
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    relay.end().await;
    fill.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_wait_for_the_reply_to_a_whole_message_may_exceed_the_attempt() {
    let hop = Scripted::start(|_, line| match line {
        "<end>" => format!("after 900 {}", polite(line, &[])),
        line => polite(line, &[]),
    })
    .await;
    let mut options = options(&[hop.port]);
    options.delivery.attempt_timeout = Duration::from_millis(300);
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((relay.log.count("deferred"), hop.count("<end>")), (0, 1));
    relay.end().await;
}

/// A stranger's hosts take mail and then keep their connections open.
#[tokio::test]
async fn hosts_that_do_not_answer_quit_hold_few_connections() {
    let script = |_, line: &str| if line == "QUIT" { String::new() } else { polite(line, &[]) };
    let hop = Scripted::start(script).await;
    let everywhere = |_: &str| Some(vec![IpAddr::from([127, 0, 0, 1])]);
    let relay = by_mx(Zone(everywhere), hop.port, |options| {
        options.delivery.concurrency = 20;
        options.delivery.idle = Duration::ZERO;
    });
    const MESSAGES: usize = 1_000;
    for number in 0..MESSAGES {
        relay.submit("<>", &[&format!("<a@d{number}.test>")], CONTENT).await;
    }
    let mut most = 0;
    while relay.log.count("delivered") < MESSAGES {
        most = most.max(hop.count("<connect>") - hop.count("<eof>"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Each would be open for 5 s, which is longer than all of it takes.
    assert!(most <= MESSAGES / 2, "{most} connections at once");
    relay.end().await;
}

/// There are fewer leases than domains to look up. A delivery that is not claimed yet holds none.
#[tokio::test]
async fn a_look_up_that_is_not_answered_holds_no_lease() {
    let relay = by_mx(Zone(zone), 1, |_| {});
    let names: Vec<_> = (0..50).map(|number| format!("<a@silent{number}.test>")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    relay.submit("<me@s.test>", &names, CONTENT).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(relay.relay.queue().stats().await.leased, 0);
    relay.task.abort();
}

/// There is one place: a host that takes seconds to reply does not hold it.
#[tokio::test]
async fn a_host_that_is_slow_to_reply_holds_no_place() {
    let slow = Scripted::start(|_, line| match line {
        "<end>" => format!("after 5000 {}", polite(line, &[])),
        line => polite(line, &[]),
    })
    .await;
    let _quick = Scripted::at(([127, 0, 0, 2], slow.port).into(), None, |_, line| polite(line, &[])).await;
    let zone = |name: &str| Some(vec![IpAddr::from([127, 0, 0, if name == "slow.test" { 1 } else { 2 }])]);
    let relay = by_mx(Zone(zone), slow.port, |options| options.delivery.concurrency = 1);
    relay.submit("<me@s.test>", &["<a@slow.test>"], CONTENT).await;
    slow.wait("<end>").await;
    let begun = Instant::now();
    for number in 1..=20 {
        relay.submit("<me@s.test>", &[&format!("<a@quick{number}.test>")], CONTENT).await;
    }
    relay.log.wait("delivered", 20).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    relay.log.wait("delivered", 21).await;
    relay.end().await;
}
