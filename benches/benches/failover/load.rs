//! A relay whose queue always has some messages, and the rate at which it delivers them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{Owner, memory::MemoryQueue};
use posthaste_relay::{Event, Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Messages in the queue at once.
const BACKLOG: u64 = 200;
/// The step of the record of deliveries.
const STEP: Duration = Duration::from_millis(100);

pub(crate) struct Load {
    seen: Arc<Seen>,
    submitting: JoinHandle<u64>,
    delivering: JoinHandle<()>,
    is_over: Arc<AtomicBool>,
}

/// What has become of the messages.
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) deferred: u64,
}

struct Seen {
    begun: Instant,
    delivered: AtomicU64,
    deferred: AtomicU64,
    /// Deliveries in each step.
    steps: Mutex<Vec<u32>>,
}

impl Load {
    /// Starts a relay with a route to these ports.
    pub(crate) fn start(ports: &[u16]) -> Self {
        let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
        options.routes = RouteTable::all(Route::hosts(ports.iter().map(|port| ("127.0.0.1", *port))));
        options.delivery.retry.waits = vec![Duration::from_secs(1)];
        let begun = Instant::now();
        let (delivered, deferred) = (AtomicU64::new(0), AtomicU64::new(0));
        let seen = Arc::new(Seen { begun, delivered, deferred, steps: Mutex::default() });
        let observer = Arc::clone(&seen);
        let relay = Relay::builder(MemoryQueue::default(), SystemResolver, options)
            .observer(move |event: &Event<'_>| match event {
                Event::Delivered { .. } => observer.delivered(),
                Event::Deferred { .. } => _ = observer.deferred.fetch_add(1, Relaxed),
                Event::Failed { diagnostic, .. } => panic!("{diagnostic}"),
                _ => {}
            })
            .build();
        let is_over = Arc::new(AtomicBool::new(false));
        let delivering = relay.clone();
        let delivering = tokio::spawn(async move { _ = delivering.deliver(std::future::pending()).await });
        let (seen_too, over) = (Arc::clone(&seen), Arc::clone(&is_over));
        let submitting = tokio::spawn(async move {
            let envelope = Envelope::new("me@s.test", ["you@d.test"]).expect("addresses");
            let mut accepted = 0;
            while !over.load(Relaxed) {
                if accepted - seen_too.delivered.load(Relaxed) >= BACKLOG {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let content = Bytes::from(format!(
                    "Subject: {accepted}\r\n\r\n{}",
                    "Some words that fill a line.\r\n".repeat(32)
                ));
                accepted += u64::from(relay.submit(Owner::default(), &envelope, content).await.is_ok());
            }
            accepted
        });
        Self { seen, submitting, delivering, is_over }
    }

    /// Deliveries a second, from now on for this time.
    pub(crate) async fn rate(&self, time: Duration) -> f64 {
        let begun = Instant::now();
        sleep(time).await;
        self.rate_since(begun)
    }

    /// Deliveries a second since then.
    pub(crate) fn rate_since(&self, begun: Instant) -> f64 {
        let steps = self.seen.steps();
        let from = self.seen.step(begun);
        let done: u32 = steps.iter().skip(from).sum();
        f64::from(done) / begun.elapsed().as_secs_f64()
    }

    /// How long after this time the rate was as high as this again, for half a second. `None`: it
    /// was not.
    pub(crate) fn again_after(&self, begun: Instant, rate: f64) -> Option<Duration> {
        const LONG: usize = 5;
        let steps = self.seen.steps();
        let from = self.seen.step(begun) + 1;
        let most = steps
            .get(from..)?
            .windows(LONG)
            .position(|window| f64::from(window.iter().sum::<u32>()) >= rate * (STEP * LONG as u32).as_secs_f64())?;
        let at = self.seen.begun + STEP * u32::try_from(from + most).ok()?;
        Some(at.saturating_duration_since(begun))
    }

    /// Ends when all that was accepted is delivered, or after a minute.
    pub(crate) async fn end(self) -> Tally {
        self.is_over.store(true, Relaxed);
        let accepted = self.submitting.await.expect("no panic");
        let seen = &self.seen;
        let all = async {
            while seen.delivered.load(Relaxed) < accepted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(Duration::from_secs(60), all).await;
        self.delivering.abort();
        Tally { accepted, deferred: seen.deferred.load(Relaxed) }
    }
}

impl Seen {
    fn delivered(&self) {
        self.delivered.fetch_add(1, Relaxed);
        let step = self.step(Instant::now());
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() <= step {
            steps.resize(step + 1, 0);
        }
        if let Some(count) = steps.get_mut(step) {
            *count += 1;
        }
    }

    fn steps(&self) -> Vec<u32> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn step(&self, at: Instant) -> usize {
        let steps = at.saturating_duration_since(self.begun).as_millis() / STEP.as_millis();
        usize::try_from(steps).unwrap_or(usize::MAX)
    }
}
