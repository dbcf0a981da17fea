//! The delivery loop beside a large backlog, in virtual time: what it asks of the queue, and when
//! mail is served. The queue counts its calls, and no socket is used.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use posthaste_client::{Answer, MxRecord, ResolveError, Resolver};
use posthaste_queue::{
    Clock, Draft as _, Error, MessageId, NewDelivery, NewMessage, Owner, Priority, Queue as _, RoutingKey,
    memory::{MemoryOptions, MemoryQueue},
};
use posthaste_server::{Envelope, refusal};
use posthaste_testkit::counting::{Calls, Counting};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{sites::SITES_AT_MOST, throttle::Signal};
use crate::{
    Cause, Diagnostic, Event, NextHop, Relay, RelayOptions, Route, RouteTable,
    agent::{Agent, AgentLetter, Decision},
    deliver::Words,
};

/// The time of the runtime.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

pub(super) fn queue() -> Counting<MemoryQueue> {
    let mut options = MemoryOptions::default();
    options.clock = Arc::new(Virtual(Instant::now()));
    Counting::new(MemoryQueue::new(options))
}

/// The name servers of `silent` do not answer, and those of names with `dead` fail at once. No
/// other name exists, so mail for it fails for good.
pub(super) struct Zone;

impl Zone {
    async fn ask<T>(&self, name: &str) -> Result<Answer<T>, ResolveError> {
        match name {
            "silent.test" => std::future::pending().await,
            name if name.contains("dead") => Err(ResolveError::Temporary("no answer".to_owned())),
            _ => Err(ResolveError::NoSuchName),
        }
    }
}

impl Resolver for Zone {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        self.ask(domain).await
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        self.ask(host).await
    }
}

type Times = Arc<Mutex<HashMap<MessageId, Instant>>>;

struct Running {
    relay: Relay<Counting<MemoryQueue>, Zone>,
    /// When each message failed, and when it was set aside.
    failed: Times,
    aside: Times,
    drain: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

fn options() -> RelayOptions {
    let mut options = RelayOptions::new("relay.test".parse().unwrap());
    options.routes = RouteTable::empty();
    options.routes.push(["*.rest.test".parse().unwrap()], Route::hosts([("silent.test", 25)]));
    options.routes.push(["*".parse().unwrap()], Route::new(NextHop::Mx));
    options
}

impl Running {
    fn start(options: RelayOptions) -> Self {
        let (failed, aside) = (Times::default(), Times::default());
        let times = (Arc::clone(&failed), Arc::clone(&aside));
        let observe = move |event: &Event<'_>| {
            let (times, message) = match event {
                Event::Failed { message, .. } => (&times.0, *message),
                Event::SetAside { message, why } => {
                    assert!(why.contains("version"), "{why}");
                    (&times.1, *message)
                }
                _ => return,
            };
            times.lock().unwrap().insert(message, Instant::now());
        };
        let relay = Relay::builder(queue(), Zone, options).observer(observe).build();
        let drain = CancellationToken::new();
        let task = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
        Self { relay, failed, aside, drain, task }
    }

    async fn submit(&self, owner: &str, mail: &str, domain: &str) -> MessageId {
        let recipient = format!("<a@{domain}>").parse().unwrap();
        let envelope = Envelope::from_commands(mail.parse().unwrap(), vec![recipient]);
        let content = Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n");
        self.relay.submit(Owner::new(owner).unwrap(), &envelope, content).await.unwrap()
    }

    /// Lets virtual time pass. The queue's own thread knows none of it.
    async fn pass(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(500).min(until - Instant::now())).await;
            self.relay.queue().queue.due(None, 0).await.unwrap();
        }
    }

    async fn end(self) {
        self.drain.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A next hop that rests has mail of ten thousand domains.
#[tokio::test(start_paused = true)]
async fn new_mail_is_served_at_once_and_looks_are_few_beside_ten_thousand_due_classes() {
    let running = Running::start(options());
    running.submit("busy", "<>", "d0.rest.test").await;
    sleep(Duration::from_millis(100)).await;
    let site = running.relay.shared().sites.all().pop().unwrap();
    let words = Words { cause: Cause::RateLimited, wait: Some(Duration::from_secs(3_600)) };
    site.end(Signal::Refused(words, Diagnostic::own(None, "no more")), Instant::now(), false);
    for number in 1..10_000 {
        running.submit("busy", "<>", &format!("d{number}.rest.test")).await;
    }
    let all = running.relay.queue().queue.due(None, 20_000).await.unwrap().len();
    assert_eq!(all, 10_000);
    // The hints beyond their bound are dropped.
    sleep(Duration::from_secs(2)).await;
    assert!((1_000..4_096).contains(&site.what_is_known().due), "an owner does not fill a site");
    running.relay.queue().take();
    let mut submitted = Vec::new();
    for number in 0..1_000 {
        let at = Instant::now();
        submitted.push((running.submit("live", "<>", &format!("live{}.test", number % 10)).await, at));
        sleep(Duration::from_millis(10)).await;
    }
    let failed = running.failed.lock().unwrap().clone();
    let took = submitted.iter().map(|(message, at)| failed[message] - *at);
    let late: Vec<_> = took.enumerate().filter(|(_, took)| *took > Duration::from_millis(1)).collect();
    assert!(late.is_empty(), "{late:?}");
    let Calls { due, claims, writes } = running.relay.queue().take();
    assert_eq!(writes, 1_000);
    // Forty pages are one look through all classes.
    assert!((40..=300).contains(&due) && claims <= 2_100, "{due} {claims}");
    running.end().await;
}

/// The same mail without hints, as from another process: the next look finds it.
#[tokio::test(start_paused = true)]
async fn mail_without_a_hint_is_found_by_the_next_look() {
    let running = Running::start(options());
    sleep(Duration::from_secs(1)).await;
    let submitted = running.submit("live", "<>", "live.test").await;
    sleep(Duration::from_millis(1)).await;
    assert!(running.failed.lock().unwrap().contains_key(&submitted));
    // A copy of its record goes into the queue itself.
    let again = running.submit("live", "<>", "copied.dead.test").await;
    let (queue, key) = (&running.relay.queue().queue, RoutingKey::new("copied.dead.test").unwrap());
    sleep(Duration::from_millis(100)).await;
    let copied = queue.list(None, 10).await.unwrap().into_iter().find(|message| message.id == again).unwrap();
    let state = copied.deliveries[0].state.clone();
    let key_of = |name: &str| RoutingKey::new(name).unwrap();
    assert_eq!(copied.deliveries[0].key, key);
    let delivery = NewDelivery { key: key_of("other.test"), delay: Duration::ZERO, state };
    let (owner, envelope) = (Owner::default(), copied.envelope.clone());
    let message = NewMessage { owner, priority: Priority(0), envelope, deliveries: vec![delivery] };
    let at = Instant::now();
    let put = queue.put(None).await.unwrap().commit(message).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let took = running.failed.lock().unwrap()[&put] - at;
    assert!(took <= Duration::from_millis(20), "{took:?}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_backlog_of_dead_domains_is_deferred_in_batches_and_fails_in_time() {
    let mut options = options();
    options.delivery.retry.waits = [60, 300, 900].map(Duration::from_secs).into();
    options.delivery.retry.expire_after = Duration::from_secs(1_000);
    let running = Running::start(options);
    let begun = Instant::now();
    let mut submitted = Vec::new();
    for number in 0..2_000 {
        submitted.push(running.submit("busy", "<>", &format!("dead{}.test", number % 4)).await);
    }
    let urgent = running.submit("busy", "<> BY=100;R", "dead0.test").await;
    running.pass(Duration::from_secs(50)).await;
    let Calls { claims, writes, .. } = running.relay.queue().take();
    assert_eq!(writes, 2_001, "each is written once for each step of the schedule");
    assert!(claims <= 150, "{claims}");
    running.pass(Duration::from_secs(900)).await;
    let failed = running.failed.lock().unwrap().clone();
    assert_eq!(failed.len(), 1);
    assert!((100..=101).contains(&(failed[&urgent] - begun).as_secs()));
    let Calls { claims, writes, .. } = running.relay.queue().take();
    assert!((4_000..=4_100).contains(&writes) && claims <= 2_000, "{claims} {writes}");
    running.pass(Duration::from_secs(60)).await;
    let failed = running.failed.lock().unwrap().clone();
    for message in submitted {
        assert!((1_000..=1_002).contains(&(failed[&message] - begun).as_secs()), "the age at which mail expires");
    }
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_is_set_aside_and_the_others_go_on() {
    let running = Running::start(options());
    let (queue, key) = (&running.relay.queue().queue, RoutingKey::new("live.test").unwrap());
    let delivery = |key: &RoutingKey| NewDelivery { key: key.clone(), delay: Duration::ZERO, state: Bytes::new() };
    let message = NewMessage {
        owner: Owner::default(),
        priority: Priority(0),
        envelope: Bytes::from_static(b"\xff is no version"),
        // Both are found to be unreadable.
        deliveries: vec![delivery(&key), delivery(&RoutingKey::new("other.test").unwrap())],
    };
    let unreadable = queue.put(None).await.unwrap().commit(message).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(running.submit("", "<>", "live.test").await);
    }
    running.pass(Duration::from_secs(3_600)).await;
    assert_eq!(running.aside.lock().unwrap().keys().collect::<Vec<_>>(), [&unreadable]);
    let left = queue.list(None, 10).await.unwrap();
    assert_eq!(left.iter().map(|message| (message.id, message.held)).collect::<Vec<_>>(), [(unreadable, true)]);
    assert!(others.iter().all(|message| running.failed.lock().unwrap().contains_key(message)));
    let totals = running.relay.totals();
    assert_eq!((totals.set_aside, totals.failed), (1, 3));
    running.end().await;
}

/// An agent that refuses mail for good, or for an hour.
struct Refuses(bool);

impl Agent for Refuses {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let Self(for_good) = self;
        let refusal =
            if *for_good { refusal!("550 5.7.1 No") } else { refusal!("451 4.7.0 Rate limited, try again in 3600 s") };
        vec![Err(refusal); letter.envelope.recipients.len()]
    }
}

/// Nine thousand next hops rest, and have mail.
#[tokio::test(start_paused = true)]
async fn new_mail_for_a_new_next_hop_is_served_at_once_while_the_backlog_has_all_that_it_may_have() {
    let mut options = options();
    options.routes = RouteTable::empty();
    let mut push = |domain: &str, agent: &str, for_good| {
        options.routes.push([domain.parse().unwrap()], Route::agent(agent, Refuses(for_good)));
    };
    (0..9_000).for_each(|number| push(&format!("d{number}.test"), &format!("rests{number}"), false));
    (0..100).for_each(|number| push(&format!("new{number}.test"), &format!("refuses{number}"), true));
    let running = Running::start(options);
    for number in 0..9_000 {
        running.submit("busy", "<>", &format!("d{number}.test")).await;
    }
    sleep(Duration::from_secs(10)).await;
    let known = running.relay.sites().len();
    assert_eq!(known, SITES_AT_MOST / 4 * 3);
    for number in 0..100 {
        let at = Instant::now();
        let message = running.submit("live", "<>", &format!("new{number}.test")).await;
        sleep(Duration::from_millis(10)).await;
        let failed = running.failed.lock().unwrap().get(&message).copied();
        assert!(failed.is_some_and(|failed| failed - at <= Duration::from_millis(1)), "{number} {failed:?}");
    }
    running.end().await;
}
