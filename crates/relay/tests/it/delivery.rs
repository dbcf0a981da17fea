//! How deliveries reach their next hop: workers, connections, and hosts that are dead or fail.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use crate::support::{self, Behavior, Hop, Log, Zone, options, relay, run, start, submit};
use posthaste_queue::{Queue as _, memory::MemoryQueue};
use posthaste_relay::{Event, NextHop, Observer as _, Relay, Route, RouteTable};
use posthaste_testkit::script::{Place, Scripted, polite};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A port without a listener. It is below the range from which the system picks ports, so that no
/// other process gets it.
async fn dead_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several checkouts may run tests at once.
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if tokio::net::TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

#[tokio::test]
async fn a_burst_for_one_next_hop_takes_exactly_its_limit_of_connections() {
    let hop = Hop::start(Behavior { think: Duration::from_millis(20), ..Behavior::default() }).await;
    let mut options = options(&[hop.port]);
    options.delivery.concurrency_per_site = 8;
    let (relay, log) = relay(options);
    // All messages are there before the loop looks, so that no later change brings a second worker.
    for _ in 0..200 {
        submit(&relay, "<>", &["<a@d.test>"], CONTENT).await;
    }
    let begun = Instant::now();
    let relay = run(relay, log);
    relay.log.wait("delivered", 200).await;
    assert_eq!((hop.most(), hop.connections()), (8, 8));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    relay.end().await;
}

#[tokio::test]
async fn a_connection_is_used_for_the_next_message() {
    let hop = Hop::start(Behavior::default()).await;
    let relay = start(options(&[hop.port]));
    for count in 1..=20 {
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", count).await;
        // Long enough for the worker to wait again.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(hop.connections() <= 2, "{} connections", hop.connections());
    relay.end().await;
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_a_while() {
    let hop = Scripted::polite().await;
    let mut options = options(&[hop.port]);
    options.delivery.idle = Duration::from_millis(100);
    let relay = start(options);
    for count in 1..=2 {
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", count).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!((hop.count("<connect>"), hop.count("QUIT")), (count, count));
    }
    relay.end().await;
}

/// The next hop has closed the kept connection: the message is tried again at once.
#[tokio::test]
async fn a_kept_connection_that_is_dead_costs_no_attempt() {
    for last_word in ["close", "421 4.4.2 too long\r\n"] {
        let hop = Scripted::start(move |place: Place, line| match (place.connection, line) {
            (0, line) if line.starts_with("MAIL FROM:<second@") => last_word.to_owned(),
            (_, line) => polite(line, &[]),
        })
        .await;
        let relay = start(options(&[hop.port]));
        relay.submit("<first@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", 1).await;
        relay.submit("<second@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", 2).await;
        assert_eq!((relay.log.count("deferred"), hop.count("<end>")), (0, 2));
        relay.end().await;
    }
}

#[tokio::test]
async fn the_second_host_is_tried_at_once_when_the_first_is_dead() {
    let refusing = Scripted::start(|_, _| "554 5.3.2 not here\r\n".to_owned()).await;
    for first in [dead_port().await, refusing.port] {
        let hop = Hop::start(Behavior::default()).await;
        let relay = start(options(&[first, hop.port]));
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", 1).await;
        assert_eq!(relay.log.count("deferred"), 0);
        relay.end().await;
    }
}

/// However steadily mail arrives for a dead next hop, it is tried again.
#[tokio::test]
async fn a_next_hop_that_comes_back_gets_its_mail() {
    let port = dead_port().await;
    let mut options = options(&[port]);
    options.delivery.retry.waits = vec![Duration::from_millis(400)];
    let relay = start(options);
    let begun = Instant::now();
    let (mut hop, mut sent) = (None, 0);
    while begun.elapsed() < Duration::from_millis(2_500) {
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if hop.is_none() && begun.elapsed() > Duration::from_millis(500) {
            hop = Some(Hop::on(port, Behavior::default()).await);
        }
    }
    assert!(relay.log.count("delivered") > 0, "{:?}", relay.log.all().last());
    relay.log.wait("delivered", sent).await;
    relay.end().await;
}

/// Deliveries that were deferred because the next hop was dead come back when it is tried again,
/// and not just before.
#[tokio::test]
async fn no_delivery_is_deferred_twice_for_one_attempt_at_a_dead_next_hop() {
    for _ in 0..5 {
        let port = dead_port().await;
        let mut options = options(&[port]);
        options.delivery.retry.waits = vec![Duration::from_millis(200), Duration::from_secs(60)];
        let relay = start(options);
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 1).await;
        let _hop = Hop::on(port, Behavior::default()).await;
        relay.log.wait("delivered", 1).await;
        relay.end().await;
    }
}

#[tokio::test]
async fn a_message_whose_end_of_content_is_not_answered_is_sent_again() {
    let hop = Scripted::start(|place: Place, line| match (place.connection, line) {
        (0, "<end>") => "close".to_owned(),
        (_, line) => polite(line, &[]),
    })
    .await;
    let relay = start(options(&[hop.port]));
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    // Never at once: the next hop may have taken the message.
    assert_eq!((relay.log.count("deferred"), hop.count("<end>")), (1, 2));
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_never_in_memory_as_a_whole() {
    const PIECE: &[u8] = &[b'x'; 64 * 1_024];
    // Lines of 512 octets in one block.
    let block = bytes::Bytes::from([&PIECE[..510], b"\r\n"].concat().repeat(128));
    let pieces = futures_util::stream::iter(std::iter::repeat_n(Ok::<_, std::fmt::Error>(block), 1_600));
    let hop = Hop::start(Behavior::default()).await;
    let log = Log::default();
    let mut memory = posthaste_queue::memory::MemoryOptions::default();
    memory.max_body = 200 << 20;
    let relay = Relay::builder(MemoryQueue::new(memory), posthaste_client::SystemResolver, options(&[hop.port]))
        .observer(log.clone())
        .build();
    let envelope = support::envelope("<>", &["<a@d.test>"]);
    relay.submit(posthaste_queue::Owner::default(), &envelope, posthaste_client::Streamed::new(pieces)).await.unwrap();
    let relay = run(relay, log);
    relay.log.wait("delivered", 1).await;
    assert_eq!(hop.taken()[0].octets, 1_600 * 64 * 1_024);
    relay.end().await;
}

#[tokio::test]
async fn a_panic_of_the_observer_has_no_effect_on_the_message() {
    let hop = Hop::start(Behavior::default()).await;
    let log = Log::default();
    let watched = log.clone();
    let observer = move |event: &Event<'_>| {
        watched.observe(event);
        panic!("an observer's fault");
    };
    let relay = Relay::builder(MemoryQueue::default(), posthaste_client::SystemResolver, options(&[hop.port]));
    let relay = run(relay.observer(observer).build(), log);
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    relay.empty().await;
    assert_eq!((hop.taken().len(), relay.log.count("accepted")), (1, 1));
    relay.end().await;
}

#[tokio::test]
async fn submit_refuses_content_that_no_host_would_take_and_adds_smtputf8() {
    let hop = Hop::with(0, posthaste_relay::offers(), Default::default(), Behavior::default()).await;
    let (relay, log) = relay(options(&[hop.port]));
    let owner = posthaste_queue::Owner::default();
    let envelope = posthaste_server::Envelope::new("j\u{f6}@s.test", ["a@d.test"]).unwrap();
    for content in ["Subject: x\n\nx\n", "Subject: x\r\n\r\nx\0", "Subject: x\r"] {
        let error = relay.submit(owner.clone(), &envelope, content).await.unwrap_err();
        assert!(matches!(error, posthaste_relay::SubmitError::Unsendable(_)), "{error}");
    }
    relay.submit(owner, &envelope, "Subject: x\r\n\r\nx\r\n").await.unwrap();
    let relay = run(relay, log);
    relay.log.wait("delivered", 1).await;
    assert!(hop.taken()[0].envelope.mail.smtputf8);
    relay.end().await;
}

#[tokio::test]
async fn thousands_of_domains_behind_one_host_do_not_wait_for_each_other() {
    let hop = Hop::start(Behavior::default()).await;
    let (relay, log) = relay(options(&[hop.port]));
    for number in 0..2_000 {
        submit(&relay, "<>", &[&format!("<a@d{number}.test>")], CONTENT).await;
    }
    let relay = run(relay, log);
    relay.log.wait("delivered", 2_000).await;
    assert!(hop.connections() <= 20, "{} connections", hop.connections());
    relay.end().await;
}

/// A worker that waits with its connection takes no place from workers with deliveries.
#[tokio::test]
async fn thousands_of_domains_with_hosts_of_their_own_do_not_wait_for_unused_connections() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Mx));
    options.delivery.mx_port = hop.port;
    options.delivery.allow_private = true;
    options.delivery.concurrency = 20;
    options.delivery.idle = Duration::from_secs(30);
    let (log, everywhere) = (Log::default(), |_: &str| Some(vec![IpAddr::from([127, 0, 0, 1])]));
    let relay = Relay::builder(MemoryQueue::default(), Zone(everywhere), options).observer(log.clone()).build();
    for number in 0..1_500 {
        submit(&relay, "<>", &[&format!("<a@d{number}.test>")], CONTENT).await;
    }
    let relay = run(relay, log);
    relay.log.wait("delivered", 1_500).await;
    // 20 in use, 60 silent, as they may be on a busy machine, 20 unused, and those that close: on
    // such a machine the hop sees late that the relay has closed them.
    assert!(hop.most() <= 300, "{} connections at once", hop.most());
    let queue = relay.relay.clone();
    relay.end().await;
    assert_eq!(queue.queue().stats().await.messages, 0);
}

/// Messages arrive just as workers leave, many thousand times. Each of them is delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_arrives_as_the_last_worker_leaves_is_delivered() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[hop.port]);
    options.delivery.idle = Duration::from_millis(1);
    options.delivery.concurrency_per_site = 2;
    let relay = start(options);
    for count in 1..=300 {
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        if count % 3 == 0 {
            relay.log.wait("delivered", count).await;
            tokio::time::sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
        }
    }
    relay.log.wait("delivered", 300).await;
    // Two, and up to two more that have sent QUIT and got 221. The hop counts a connection until
    // its task has ended, and the next connections may arrive before that.
    assert!(hop.most() <= 4, "{} connections at once", hop.most());
    relay.end().await;
}
