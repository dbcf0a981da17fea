//! One host of two is dead, in every way: how soon the first message is delivered, and how much
//! mail goes on, beside a route whose hosts are both well.
//!
//! ```text
//! cargo bench -p posthaste-benches --bench one_dead
//! ```

mod hosts;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hosts::{DEATHS, Dead, Death, Well};
use posthaste_client::{Identity, SystemResolver, Tls, tls::any_certificate};
use posthaste_queue::{Owner, memory::MemoryQueue};
use posthaste_relay::{Event, Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use tokio_util::sync::CancellationToken;

/// How long each row runs after its timer.
const TIME: Duration = Duration::from_secs(4);
/// The part of that time that does not count: the first second may find out that the host is dead.
const WARM_UP: Duration = Duration::from_secs(1);
/// Messages in the queue at once.
const BACKLOG: u64 = 200;
/// The timer of hosts that hang in a transaction.
const TIMER: Duration = Duration::from_secs(2);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    println!(
        "| the first of two hosts | first delivery, ms | messages a second | of both well, % | deferred | to it |"
    );
    println!("|---|---|---|---|---|---|");
    let deaths = if is_trial { DEATHS.get(..1).unwrap_or_default() } else { DEATHS };
    let time = if is_trial { Duration::from_millis(200) } else { TIME };
    for death in deaths {
        // In turn, so that other load on the machine meets both.
        let well = runtime.block_on(measure(None, death, time));
        let row = runtime.block_on(measure(Some(death), death, time));
        println!(
            "| {} | {} | {:.0} | {:.0} | {} | {} |",
            death.name,
            row.first.map_or_else(|| "none".to_owned(), |first| first.as_millis().to_string()),
            row.rate,
            100.0 * row.rate / well.rate.max(1.0),
            row.deferred,
            row.connections,
        );
    }
}

/// What was measured.
struct Row {
    first: Option<Duration>,
    /// Deliveries a second after the warm-up.
    rate: f64,
    deferred: u64,
    /// Connections to the first host.
    connections: usize,
}

/// What the relay says of its deliveries.
#[derive(Default)]
struct Seen {
    delivered: AtomicU64,
    deferred: AtomicU64,
    first: Mutex<Option<Instant>>,
}

/// Runs a relay with a full queue. `dead`: the first of its two hosts, otherwise both are well.
async fn measure(dead: Option<&'static Death>, row: &Death, time: Duration) -> Row {
    let well = Well::start(row.by_tls).await;
    let (first, other) = match dead {
        Some(death) => (Some(Dead::start(death).await), None),
        None => (None, Some(Well::start(row.by_tls).await)),
    };
    let ports = [first.as_ref().map(Dead::port).or(other.as_ref().map(|well| well.port)), Some(well.port)];
    let mut route = Route::hosts(ports.into_iter().flatten().map(|port| ("127.0.0.1", port)));
    if row.by_tls {
        route.tls = Tls::Required(Identity::Unverified(any_certificate().expect("a provider")));
    }
    let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
    options.routes = RouteTable::all(route);
    if row.in_transaction {
        let timeouts = &mut options.delivery.timeouts;
        (timeouts.mail, timeouts.end_of_data) = (TIMER, TIMER);
    }
    let seen = Arc::new(Seen::default());
    let observer = Arc::clone(&seen);
    let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options)
        .observer(move |event: &Event<'_>| match event {
            Event::Delivered { .. } => {
                observer.delivered.fetch_add(1, Relaxed);
                observer.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
            }
            Event::Deferred { .. } => _ = observer.deferred.fetch_add(1, Relaxed),
            Event::Failed { diagnostic, .. } => panic!("{diagnostic}"),
            _ => {}
        })
        .build();
    let drain = CancellationToken::new();
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let envelope = Envelope::new("me@s.test", ["you@d.test"]).expect("addresses");
    let content = Bytes::from(format!("Subject: x\r\n\r\n{}", "Some words that fill a line.\r\n".repeat(32)));
    let (begun, mut submitted) = (Instant::now(), 0_u64);
    let timer = if row.in_transaction && dead.is_some() { TIMER } else { Duration::ZERO };
    let (counts_from, ends) = (begun + timer + WARM_UP.min(time / 2), begun + timer + time);
    let mut before = None;
    while Instant::now() < ends {
        let delivered = seen.delivered.load(Relaxed);
        if before.is_none() && Instant::now() >= counts_from {
            before = Some((delivered, Instant::now()));
        }
        if submitted - delivered < BACKLOG {
            let queued = relay.submit(Owner::default(), &envelope, content.clone()).await;
            submitted += u64::from(queued.is_ok());
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let delivered = seen.delivered.load(Relaxed);
    let rate = before.map_or(0.0, |(before, at)| (delivered - before) as f64 / at.elapsed().as_secs_f64());
    delivering.abort();
    let first_at = *seen.first.lock().unwrap_or_else(PoisonError::into_inner);
    Row {
        first: first_at.map(|at| at.duration_since(begun)),
        rate,
        deferred: seen.deferred.load(Relaxed),
        connections: first.map_or(0, |dead| dead.connections()),
    }
}
