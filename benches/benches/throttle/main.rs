//! A provider takes 20 connections and 100 messages a minute, and answers 421 4.7.0 beyond it. How
//! much of what it takes is delivered after one minute, and how many attempts does it refuse?
//!
//! ```text
//! cargo bench -p posthaste-benches --bench throttle
//! ```

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{Owner, Queue as _, memory::MemoryQueue};
use posthaste_relay::{Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use posthaste_testkit::script::{Place, Scripted, polite};
use tokio_util::sync::CancellationToken;

/// How long each row is measured, after one minute of learning.
const TIME: Duration = Duration::from_secs(480);
const LEARNING: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const A_MINUTE: u16 = 100;
const CONNECTIONS: usize = 20;
/// Messages in the queue at once.
const BACKLOG: u64 = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let (learning, time) = match is_trial {
        true => (Duration::ZERO, Duration::from_millis(200)),
        false => (LEARNING, TIME),
    };
    println!("| it counts by | of what it takes, % | refused, % of the attempts |");
    println!("|---|---|---|");
    let rows: Vec<_> = [Counts::Fixed, Counts::Sliding, Counts::Bucket]
        .into_iter()
        .map(|counts| (counts, runtime.spawn(measure(counts, learning, time))))
        .collect();
    for (counts, row) in rows {
        let (taken, refused) = runtime.block_on(row).expect("a row");
        let room = f64::from(A_MINUTE) * time.as_secs_f64() / 60.0;
        println!("| {counts:?} | {:.1} | {:.2} |", 100.0 * taken / room, 100.0 * refused / (taken + refused).max(1.0));
    }
}

/// How the provider counts the messages of a minute.
#[derive(Debug, Clone, Copy)]
enum Counts {
    Fixed,
    Sliding,
    Bucket,
}

#[derive(Debug)]
struct Provider {
    counts: Counts,
    begun: Instant,
    lately: VecDeque<Instant>,
    window: u64,
    tokens: f64,
    filled: Instant,
    open: HashSet<usize>,
    /// When messages were taken, and refused.
    taken: Vec<Instant>,
    refused: Vec<Instant>,
}

impl Provider {
    fn new(counts: Counts) -> Self {
        let (begun, tokens) = (Instant::now(), f64::from(A_MINUTE));
        let (lately, open, taken, refused) = (VecDeque::new(), HashSet::new(), Vec::new(), Vec::new());
        Self { counts, begun, lately, window: 0, tokens, filled: begun, open, taken, refused }
    }

    fn says(&mut self, place: Place, line: &str) -> String {
        let now = Instant::now();
        match line {
            "<connect>" if self.open.len() >= CONNECTIONS => {
                self.refused.push(now);
                return "421 4.7.0 Too many connections\r\n<close>".to_owned();
            }
            "<connect>" => _ = self.open.insert(place.connection),
            "QUIT" => _ = self.open.remove(&place.connection),
            "<end>" => {
                self.taken.push(now);
                self.lately.push_back(now);
                self.tokens -= 1.0;
            }
            line if line.starts_with("MAIL") && !self.has_room(now) => {
                self.refused.push(now);
                self.open.remove(&place.connection);
                return "421 4.7.0 Try again later, closing connection\r\n<close>".to_owned();
            }
            _ => {}
        }
        polite(line, &[])
    }

    fn has_room(&mut self, now: Instant) -> bool {
        match self.counts {
            Counts::Fixed => {
                let window = now.duration_since(self.begun).as_secs() / 60;
                if window != self.window {
                    self.window = window;
                    self.lately.clear();
                }
                self.lately.len() < A_MINUTE.into()
            }
            Counts::Sliding => {
                while self.lately.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
                    self.lately.pop_front();
                }
                self.lately.len() < A_MINUTE.into()
            }
            Counts::Bucket => {
                let filled = now.duration_since(self.filled).as_secs_f64() * f64::from(A_MINUTE) / 60.0;
                (self.tokens, self.filled) = ((self.tokens + filled).min(A_MINUTE.into()), now);
                self.tokens >= 1.0
            }
        }
    }
}

/// The messages taken, and the attempts refused, after the time of learning.
async fn measure(counts: Counts, learning: Duration, time: Duration) -> (f64, f64) {
    let provider = Arc::new(Mutex::new(Provider::new(counts)));
    let says = Arc::clone(&provider);
    let hop =
        Scripted::start(move |place, line: &str| says.lock().unwrap_or_else(PoisonError::into_inner).says(place, line))
            .await;
    let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
    options.routes = RouteTable::all(Route::hosts([("127.0.0.1", hop.port)]));
    let relay = Relay::new(MemoryQueue::default(), SystemResolver, options);
    let drain = CancellationToken::new();
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let envelope = Envelope::new("me@s.test", ["you@d.test"]).expect("addresses");
    let content = Bytes::from(format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(1_000)));
    let begun = Instant::now();
    while begun.elapsed() < learning + time {
        while relay.queue().stats().await.messages < BACKLOG {
            relay.submit(Owner::default(), &envelope, content.clone()).await.expect("a message");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drain.cancel();
    delivering.await.expect("deliveries").expect("a queue");
    let provider = provider.lock().unwrap_or_else(PoisonError::into_inner);
    let window = begun + learning..begun + learning + time;
    let count = |all: &[Instant]| all.iter().filter(|at| window.contains(*at)).fold(0.0, |count, _| count + 1.0);
    (count(&provider.taken), count(&provider.refused))
}
