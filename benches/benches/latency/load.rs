//! A relay, and the messages that it gets.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{
    Owner, Queue as _,
    log::{LogOptions, LogQueue},
};
use posthaste_relay::{Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Beside,
    hops::{self, Taken},
};

/// Messages in the queue at once, when the most is measured.
const BACKLOG: u64 = 200;
/// Messages of the neighbor in the queue at once.
const NEIGHBORS: u64 = 20_000;
/// How long the neighbor's next hop thinks about a message.
const SLOW: Duration = Duration::from_millis(200);

pub(crate) struct Load {
    relay: Relay<LogQueue, SystemResolver>,
    taken: Taken,
    number: AtomicU64,
    /// Stops the relay, and what is beside, with this load.
    _stop: DropGuard,
    _folder: TempDir,
}

impl Load {
    pub(crate) async fn start(beside: Beside) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = LogQueue::open(folder.path(), LogOptions::default()).expect("a queue");
        let taken = Taken::default();
        let hop = hops::start(taken.clone(), Duration::ZERO).await;
        let mut hosts = vec![("127.0.0.1", hop)];
        if beside == Beside::SilentHost {
            hosts.insert(0, ("127.0.0.1", hops::silent().await));
        }
        let slow = hops::start(Taken::default(), SLOW).await;
        let mut options = RelayOptions::new("relay.test".parse().expect("a name"));
        options.routes = RouteTable::empty();
        options.routes.push(["slow.test".parse().expect("a pattern")], Route::hosts([("127.0.0.1", slow)]));
        options.routes.push(["*".parse().expect("a pattern")], Route::hosts(hosts));
        let relay = Relay::new(queue, SystemResolver, options);
        let stop = CancellationToken::new();
        let (delivering, stopped) = (relay.clone(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(delivering.deliver(std::future::pending())).await });
        if beside == Beside::Neighbor {
            let (relay, stopped) = (relay.clone(), stop.clone());
            tokio::spawn(async move { stopped.run_until_cancelled(neighbor(relay)).await });
            // Its first messages are in the queue.
            sleep(Duration::from_millis(500)).await;
        }
        Self { relay, taken, number: AtomicU64::new(0), _stop: stop.drop_guard(), _folder: folder }
    }

    /// Submits a message. Returns its number, and when it was committed.
    async fn submit(relay: &Relay<LogQueue, SystemResolver>, number: u64) -> (u64, Instant) {
        let envelope = Envelope::new(&*format!("m{number}@s.test"), ["you@d.test"]).expect("addresses");
        relay.submit(Owner::default(), &envelope, content()).await.expect("a message");
        (number, Instant::now())
    }

    /// The most messages a second, from 20 senders at once.
    pub(crate) async fn most(&self, time: Duration) -> f64 {
        let begun = Instant::now();
        let mut senders = JoinSet::new();
        for _ in 0..20 {
            let relay = self.relay.clone();
            let first = self.number.fetch_add(1 << 32, Relaxed);
            senders.spawn(async move {
                for number in first.. {
                    if begun.elapsed() > time {
                        break;
                    }
                    while relay.queue().stats().await.messages > BACKLOG {
                        sleep(Duration::from_millis(1)).await;
                    }
                    Self::submit(&relay, number).await;
                }
            });
        }
        senders.join_all().await;
        self.taken.count() as f64 / begun.elapsed().as_secs_f64()
    }

    /// Submits messages at this rate. Returns the times from commit to arrival, from the shortest
    /// to the longest, and how many had not arrived 5 seconds after the last was committed.
    pub(crate) async fn paced(&self, rate: f64, time: Duration) -> (Vec<Duration>, usize) {
        let mut tick = interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let committed = Arc::new(Mutex::new(Vec::new()));
        let begun = Instant::now();
        let mut sending = JoinSet::new();
        while begun.elapsed() < time {
            tick.tick().await;
            let number = self.number.fetch_add(1, Relaxed);
            let (relay, committed) = (self.relay.clone(), Arc::clone(&committed));
            sending.spawn(async move {
                let at = Self::submit(&relay, number).await;
                committed.lock().unwrap_or_else(PoisonError::into_inner).push(at);
            });
            while sending.try_join_next().is_some() {}
        }
        sending.join_all().await;
        let committed = committed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = Instant::now();
        let is_there = |&(number, _): &(u64, Instant)| self.taken.at(number).is_some();
        while !committed.iter().all(is_there) && last.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(5)).await;
        }
        let arrived =
            committed.iter().filter_map(|(number, at)| Some(self.taken.at(*number)?.saturating_duration_since(*at)));
        let mut arrived: Vec<_> = arrived.collect();
        arrived.sort_unstable();
        let late = committed.len() - arrived.len();
        (arrived, late)
    }
}

/// Keeps the queue full of messages of another owner, for a slow next hop.
async fn neighbor(relay: Relay<LogQueue, SystemResolver>) {
    let owner = Owner::new("neighbor").expect("a name");
    let envelope = Envelope::new("bulk@s.test", ["you@slow.test"]).expect("addresses");
    loop {
        if relay.queue().stats().await.messages >= NEIGHBORS {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        let mut senders = JoinSet::new();
        for _ in 0..20 {
            let (relay, owner, envelope) = (relay.clone(), owner.clone(), envelope.clone());
            senders.spawn(async move { relay.submit(owner, &envelope, content()).await.expect("a message") });
        }
        senders.join_all().await;
    }
}

/// A message of a KiB.
fn content() -> Bytes {
    Bytes::from(format!("Subject: x\r\n\r\n{}", "Some words that fill a line.\r\n".repeat(32)))
}
