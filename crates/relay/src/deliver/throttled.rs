//! A site's workers against the model of a provider that throttles, without sockets.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use posthaste_client::{
    Health,
    delivery::{Budget, Shelf},
};
use posthaste_queue::{DueClass, Owner, Priority, RoutingKey};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    site::{Held, Look, Site, Turn},
    throttle::Signal,
    words::{Cause, Words},
};
use crate::{DeliveryOptions, Diagnostic, NextHop, Route};

/// How a provider counts the messages that it takes.
#[derive(Debug, Clone, Copy)]
enum Counts {
    /// A number from each full minute to the next; it starts at this second of one.
    Fixed(u64),
    /// A number in any minute.
    Sliding,
    /// A bucket with room for this many messages, filled at the rate.
    Bucket(f64),
}

/// A provider that takes a number of connections, and of messages a minute.
#[derive(Debug)]
struct Provider {
    counts: Counts,
    a_minute: f64,
    connections: usize,
    open: usize,
    begun: Instant,
    window: u64,
    in_window: f64,
    lately: VecDeque<Instant>,
    tokens: f64,
    filled: Instant,
    /// When messages were taken and refused.
    taken: Vec<Duration>,
    refused: Vec<Duration>,
    most_open: usize,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Provider {
    fn new(counts: Counts, a_minute: f64, connections: usize) -> Self {
        let (begun, tokens) = (Instant::now(), if let Counts::Bucket(room) = counts { room } else { 0.0 });
        Self {
            counts,
            a_minute,
            connections,
            open: 0,
            begun,
            window: 0,
            in_window: 0.0,
            lately: VecDeque::new(),
            tokens,
            filled: begun,
            taken: Vec::new(),
            refused: Vec::new(),
            most_open: 0,
        }
    }

    /// Returns `true` if it takes a message now.
    fn takes(&mut self) -> bool {
        let now = Instant::now();
        let since = now - self.begun;
        let takes = match self.counts {
            Counts::Fixed(second) => {
                let window = (since.as_secs() + second) / 60;
                if window != self.window {
                    (self.window, self.in_window) = (window, 0.0);
                }
                self.in_window < self.a_minute
            }
            Counts::Sliding => {
                while self.lately.front().is_some_and(|at| now - *at >= MINUTE) {
                    self.lately.pop_front();
                }
                (self.lately.len() as f64) < self.a_minute
            }
            Counts::Bucket(room) => {
                let filled = (now - self.filled).as_secs_f64() * self.a_minute / 60.0;
                (self.tokens, self.filled) = ((self.tokens + filled).min(room), now);
                self.tokens >= 1.0
            }
        };
        if takes {
            (self.in_window, self.tokens) = (self.in_window + 1.0, self.tokens - 1.0);
            self.lately.push_back(now);
            self.taken.push(since);
        } else {
            self.refused.push(since);
        }
        takes
    }
}

/// The site, its provider, and a queue that always has a message.
#[derive(Debug)]
struct Run {
    site: Arc<Site>,
    provider: Mutex<Provider>,
    takes: Duration,
    class: DueClass,
    has_ended: AtomicBool,
}

impl Run {
    fn start(provider: Provider, takes: Duration) -> Arc<Self> {
        let shelf = Shelf::new(Duration::ZERO, Budget::new(0));
        let leads = Ok(Arc::new(Route::new(NextHop::Mx)));
        let site =
            Arc::new(Site::new("site".to_owned(), leads, None, &DeliveryOptions::default(), shelf, Health::default()));
        let run = Arc::new(Self {
            site,
            provider: Mutex::new(provider),
            takes,
            class: DueClass {
                key: RoutingKey::new("a").unwrap(),
                priority: Priority::default(),
                owner: Owner::default(),
            },
            has_ended: AtomicBool::new(false),
        });
        run.offer();
        run
    }

    /// What the loop and a claim do with a class that has mail.
    fn offer(self: &Arc<Self>) {
        if let Some(turn) = self.site.offer(self.class.clone()) {
            tokio::spawn(Arc::clone(self).work(turn));
        }
    }

    /// What a worker does.
    async fn work(self: Arc<Self>, mut turn: Turn) {
        while !self.has_ended.load(Relaxed) {
            if let Look::Wait(until) = turn.look(Held::Nothing) {
                sleep_until(until).await;
                continue;
            }
            if turn.next(Held::Nothing).is_none() {
                if turn.leave() {
                    return;
                }
                continue;
            }
            self.offer();
            let begun = Instant::now();
            // Signals are told apart from the claim that follows at the same time.
            sleep(Duration::from_millis(1)).await;
            let signal = self.deliver().await;
            self.site.end(signal, begun, false);
            self.offer();
        }
    }

    /// One delivery over its own connection.
    async fn deliver(&self) -> Signal {
        let refuse = |cause, text| Signal::Refused(Words { cause, wait: None }, Diagnostic::own(None, text));
        {
            let mut provider = self.provider.lock().unwrap();
            if provider.open >= provider.connections {
                let since = provider.begun.elapsed();
                provider.refused.push(since);
                return refuse(Cause::TooManyConnections, "421 4.7.0 Too many connections");
            }
            provider.open += 1;
            provider.most_open = provider.most_open.max(provider.open);
        }
        sleep(self.takes.mul_f64(0.5 + fastrand::f64())).await;
        let mut provider = self.provider.lock().unwrap();
        provider.open -= 1;
        match provider.takes() {
            true => Signal::Took,
            false => refuse(Cause::RateLimited, "421 4.7.0 Rate limit"),
        }
    }

    /// The messages taken, and the attempts refused, from one minute to another.
    fn between(&self, from: u32, to: u32) -> (f64, f64) {
        let provider = self.provider.lock().unwrap();
        let count =
            |all: &[Duration]| all.iter().filter(|at| (MINUTE * from..MINUTE * to).contains(*at)).count() as f64;
        (count(&provider.taken), count(&provider.refused))
    }
}

/// After one minute, at least 95 % of what the provider takes is delivered, and fewer than 2 % of
/// the attempts are refused.
#[tokio::test(start_paused = true)]
async fn a_provider_that_throttles_gets_what_it_takes_and_refuses_little() {
    const MINUTES: u32 = 20;
    // The same jitter in each run.
    fastrand::seed(1);
    let kinds = [
        (Counts::Fixed(0), 1),
        (Counts::Fixed(45), 1),
        (Counts::Sliding, 1),
        (Counts::Bucket(100.0), 1),
        (Counts::Bucket(10.0), 12),
    ];
    let mut table = Vec::new();
    for (counts, learns) in kinds {
        for takes in [5, 200, 2_000] {
            let run = Run::start(Provider::new(counts, 100.0, 20), Duration::from_millis(takes));
            sleep(MINUTE * (MINUTES + learns)).await;
            let (taken, refused) = run.between(learns, MINUTES + learns);
            let goodput = taken / (100.0 * f64::from(MINUTES));
            let share = refused / (taken + refused);
            run.has_ended.store(true, Relaxed);
            println!("{counts:?} {takes} ms: {goodput:.3} of it, {share:.4} refused");
            table.push((counts, takes, goodput, share));
        }
    }
    assert!(table.iter().all(|(_, _, goodput, share)| *goodput >= 0.95 && *share < 0.02), "{table:#?}");
}

/// A provider that takes fewer connections than the ceiling, at any rate.
#[tokio::test(start_paused = true)]
async fn connections_stay_near_what_the_provider_takes() {
    fastrand::seed(1);
    let provider = Provider::new(Counts::Fixed(0), f64::MAX, 8);
    let run = Run::start(provider, Duration::from_secs(1));
    sleep(MINUTE * 11).await;
    let (taken, refused) = run.between(1, 11);
    // Eight connections make eight messages a second.
    let goodput = taken / (8.0 * 600.0);
    println!("goodput {goodput}, refused {refused} of {taken}");
    assert!(goodput >= 0.9 && refused / taken < 0.01, "{goodput} {refused} of {taken}");
}

/// A provider that takes everything gets all connections at once.
#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_everything_gets_every_connection_at_once() {
    let run = Run::start(Provider::new(Counts::Fixed(0), f64::MAX, 100), Duration::from_millis(100));
    let begun = Instant::now();
    loop {
        sleep(Duration::from_millis(10)).await;
        let provider = run.provider.lock().unwrap();
        if provider.most_open == 20 {
            assert!(provider.taken.len() <= 60, "{}", provider.taken.len());
            assert!(provider.refused.is_empty());
            break;
        }
        assert!(begun.elapsed() < MINUTE, "{}", provider.most_open);
    }
}

/// A provider that takes nothing for an hour is asked seldom, and gets its mail when it is back.
#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_nothing_is_asked_seldom() {
    let run = Run::start(Provider::new(Counts::Fixed(0), 0.0, 20), Duration::from_secs(1));
    sleep(MINUTE * 60).await;
    let (taken, refused) = run.between(0, 60);
    println!("{refused} refused");
    assert!(taken == 0.0 && (10.0..40.0).contains(&refused), "{taken} {refused}");
    run.provider.lock().unwrap().a_minute = f64::MAX;
    // The rest that has begun may last five and a half minutes more.
    sleep(MINUTE * 8).await;
    let (taken, _) = run.between(60, 69);
    assert!(taken > 500.0, "{taken}");
}
