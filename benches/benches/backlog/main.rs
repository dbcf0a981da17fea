//! A relay with a large backlog: ten of eleven messages for one dead next hop, the others for ten
//! thousand domains, of which every other one is dead. How soon does mail for a live domain arrive,
//! and what does the relay ask of its queue for that?
//!
//! ```text
//! cargo bench -p posthaste-benches --bench backlog
//! MESSAGES=1100000 FOLDER=/var/tmp cargo bench -p posthaste-benches --bench backlog
//! ```

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_client::{Answer, MxRecord, ResolveError, Resolver};
use posthaste_queue::{
    MessageId, Owner,
    log::{LogOptions, LogQueue},
};
use posthaste_relay::{Event, NextHop, Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use posthaste_testkit::{
    counting::{Calls, Counting},
    script::{Scripted, polite},
};
use tokio_util::sync::CancellationToken;

/// How long the live mail is measured.
const TIME: Duration = Duration::from_secs(30);
/// The time between two live messages.
const EVERY: Duration = Duration::from_millis(20);
const DOMAINS: u64 = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let messages = std::env::var("MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let (messages, time) = if is_trial { (200, Duration::from_millis(400)) } else { (messages, TIME) };
    println!(
        "| backlog | live messages | p50, ms | p99, ms | looks, claims and writes | of these for a live message | backlog delivered | memory, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for backlog in [0, messages] {
        runtime.block_on(measure(backlog, time));
    }
}

/// Dead domains have a host where no server listens; all others share one live host.
struct Zone;

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        let address = if host.contains("dead") { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
        Ok(vec![IpAddr::from(address)].into())
    }
}

/// The domain of a message of the backlog.
fn domain(number: u64) -> String {
    match (number % 11, number / 11 % DOMAINS) {
        (0, other) if other % 2 == 0 => format!("dead{other}.test"),
        (0, other) => format!("d{other}.test"),
        _ => "dead.test".to_owned(),
    }
}

async fn measure(backlog: u64, time: Duration) {
    let hop = Scripted::start(move |_, line: &str| polite(line, &[])).await;
    let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
    options.routes = RouteTable::all(Route::new(NextHop::Mx));
    (options.delivery.mx_port, options.delivery.allow_private) = (hop.port, true);
    let folder = match std::env::var("FOLDER") {
        Ok(folder) => tempfile::tempdir_in(folder),
        Err(_) => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    let queue = Counting::new(LogQueue::open(folder.path(), LogOptions::default()).expect("a queue"));
    // When each live message arrived, and how many others did.
    let (arrived, others) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(AtomicU64::new(0)));
    let (seen, count) = (Arc::clone(&arrived), Arc::clone(&others));
    let observe = move |event: &Event<'_>| {
        let Event::Delivered { message, recipient, .. } = event else { return };
        if recipient.to_string().contains("@live") {
            seen.lock().expect("no panic").insert(*message, Instant::now());
        } else {
            count.fetch_add(1, Relaxed);
        }
    };
    let relay = Relay::builder(queue, Zone, options).observer(observe).build();
    let content = Bytes::from(format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(1_000)));
    fill(&relay, backlog, &content).await;
    let drain = CancellationToken::new();
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    relay.queue().take();
    let mut submitted: Vec<(MessageId, Instant)> = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let envelope = Envelope::new("me@s.test", [&*format!("you@live{}.test", submitted.len() % 10)]);
        let owner = Owner::new("live").expect("short");
        let message = relay.submit(owner, &envelope.expect("addresses"), content.clone()).await.expect("a message");
        submitted.push((message, Instant::now()));
        tokio::time::sleep(EVERY).await;
    }
    let Calls { due, claims, writes } = relay.queue().take();
    let memory = memory();
    drain.cancel();
    delivering.await.expect("deliveries").expect("a queue");
    let arrived = arrived.lock().expect("no panic");
    let mut took: Vec<_> = submitted
        .iter()
        .filter_map(|(message, at)| Some(arrived.get(message)?.saturating_duration_since(*at).as_secs_f64() * 1e3))
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    let each = |count: usize| count as f64 / submitted.len() as f64;
    println!(
        "| {backlog} | {} of {} | {:.1} | {:.1} | {due}, {claims}, {writes} | {:.2}, {:.2}, {:.2} | {} | {memory} |",
        took.len(),
        submitted.len(),
        at(0.5),
        at(0.99),
        each(due),
        each(claims),
        each(writes),
        others.load(Relaxed),
    );
}

/// Fills the queue, many messages at once.
async fn fill(relay: &Relay<Counting<LogQueue>, Zone>, backlog: u64, content: &Bytes) {
    let mut filling = tokio::task::JoinSet::new();
    for part in 0..64 {
        let (relay, content) = (relay.clone(), content.clone());
        filling.spawn(async move {
            for number in (part..backlog).step_by(64) {
                let envelope = Envelope::new("me@s.test", [&*format!("you@{}", domain(number))]).expect("addresses");
                let owner = Owner::new("busy").expect("short");
                relay.submit(owner, &envelope, content.clone()).await.expect("a message");
            }
        });
    }
    while filling.join_next().await.is_some() {}
}

/// The memory of this process, in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}
