//! The overload ladder: who is refused, what clients and the observer are told, and the way back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::support::{Behavior, Hop, Log, envelope, options};
use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{
    Alteration, Change, Claim, Claimed, Derived, Draft, DueClass, Error, Gather, Lease, LeaseError, MessageId,
    NewMessage, Outcome, Owner, Page, PutError, Queue, Search, Stats, Summary,
    memory::{MemoryBody, MemoryDraft, MemoryQueue},
};
use posthaste_relay::{Gauge, Relay, RelayOptions, Rung};
use posthaste_server::test::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A queue that takes its time for each commit, and says that it holds many deliveries.
#[derive(Default)]
struct Laden {
    queue: MemoryQueue,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    commit: AtomicU64,
    deliveries: AtomicU64,
}

struct LadenDraft(MemoryDraft, Arc<Load>);

impl Draft for LadenDraft {
    fn id(&self) -> MessageId {
        self.0.id()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), PutError> {
        self.0.write(chunk).await
    }

    async fn commit(self, message: NewMessage) -> Result<MessageId, PutError> {
        tokio::time::sleep(Duration::from_millis(self.1.commit.load(SeqCst))).await;
        self.0.commit(message).await
    }
}

impl Queue for Laden {
    type Draft = LadenDraft;
    type Body = MemoryBody;

    async fn put(&self, size_hint: Option<u64>) -> Result<LadenDraft, PutError> {
        Ok(LadenDraft(self.queue.put(size_hint).await?, Arc::clone(&self.load)))
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.queue.claim(claim).await
    }

    async fn body(&self, message: MessageId) -> Result<MemoryBody, Error> {
        self.queue.body(message).await
    }

    async fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.queue.extend(lease, lease_for).await
    }

    async fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        self.queue.gather(gather).await
    }

    async fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Vec<MessageId>, LeaseError> {
        self.queue.finish_all(ends, derived).await
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        self.queue.due(after, limit).await
    }

    async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.queue.changed(seen).await
    }

    async fn alter(&self, message: MessageId, what: Alteration) -> Result<usize, Error> {
        self.queue.alter(message, what).await
    }

    async fn remove(&self, message: MessageId) -> Result<(), Error> {
        self.queue.remove(message).await
    }

    async fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        self.queue.search(search, after, limit).await
    }

    async fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        self.queue.summary(message).await
    }

    async fn stats(&self) -> Stats {
        let mut stats = self.queue.stats().await;
        stats.deliveries += self.load.deliveries.load(SeqCst);
        stats
    }

    async fn close(&self) {
        self.queue.close().await;
    }
}

fn open(mut options: RelayOptions) -> (Relay<Laden, SystemResolver>, Arc<Load>, Log) {
    options.policy.relay_from.push("0.0.0.0/0".parse().unwrap());
    let (queue, log) = (Laden::default(), Log::default());
    let load = Arc::clone(&queue.load);
    (Relay::builder(queue, SystemResolver, options).observer(log.clone()).build(), load, log)
}

const BUSY: &str = "452 4.3.1 Overloaded, try again later";
const CLOSED: &str = "421 4.3.2 Overloaded, try again later";

/// The first network sends more than the second one. `another_from` has the first by default.
const LIGHT: &str = "198.51.100.1";
const NEW: &str = "203.0.113.1";

/// Sends a message, and returns the reply that decided about it.
async fn send(client: &mut Client) -> String {
    let mail = client.says("MAIL FROM:<a@b.test>").await.as_str().to_owned();
    if !mail.starts_with("250") {
        return mail;
    }
    client.says("RCPT TO:<x@one.test>").await.expect("250");
    client.says("DATA").await.expect("354");
    client.write("Subject: x\r\n\r\nbody\r\n.\r\n").await;
    client.reply().await.as_str().to_owned()
}

/// The rungs of the events, with their gauges.
fn rungs(log: &Log) -> Vec<String> {
    log.of("overload").into_iter().map(|seen| format!("{} {}", seen.who, seen.text)).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn slow_commits_refuse_the_heaviest_sender_first_and_a_light_one_goes_on() {
    let (relay, load, log) = open(options(&[1]));
    let mut heavy = Client::connect(relay.service()).await;
    let mut light = heavy.another_from(LIGHT).await;
    for client in [&mut heavy, &mut light] {
        client.ehlo().await;
        assert!(send(client).await.starts_with("250"));
    }
    load.commit.store(2_000, SeqCst);
    let mut said = Vec::new();
    for _ in 0..8 {
        said.push(send(&mut heavy).await);
        if said.last().is_some_and(|said| said == BUSY) {
            break;
        }
    }
    // The average has come near 2 seconds.
    assert_eq!(said.len(), 6, "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some(BUSY));
    assert_eq!(rungs(&log), ["commit_latency slower", "commit_latency heaviest"]);
    let begun = Instant::now();
    assert!(send(&mut light).await.starts_with("250"));
    assert_eq!(begun.elapsed().as_secs(), 2, "it waits for its commit alone");
    assert_eq!(send(&mut heavy).await, BUSY);
    assert_eq!(log.count("accepted"), 8);
    // The disk is well again.
    load.commit.store(1, SeqCst);
    let begun = Instant::now();
    while send(&mut heavy).await == BUSY {
        assert!(begun.elapsed() < 10 * SECOND, "{:?}", relay.overload().state());
        heavy.wait(SECOND / 4).await;
    }
    assert!(begun.elapsed() >= 2 * SECOND);
    assert_eq!(rungs(&log)[2..], ["commit_latency slower"]);
    let state = relay.overload().state();
    assert!(state.refused >= 3 && state.slowed >= 2 && state.closed == 0, "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_every_mail_and_takes_connections_and_messages_of_the_application() {
    let (relay, load, log) = open(options(&[1]));
    let mut client = Client::connect(relay.service()).await;
    client.ehlo().await;
    load.deliveries.store(8_000_000, SeqCst);
    client.wait(SECOND).await;
    assert_eq!(send(&mut client).await, BUSY);
    let mut another = client.another_from(NEW).await;
    another.greeting().expect("220");
    another.ehlo().await;
    assert_eq!(send(&mut another).await, BUSY);
    let content = Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n");
    relay.submit(Owner::default(), &envelope("<a@b.test>", &["<x@one.test>"]), content).await.unwrap();
    let cause = relay.overload().state().cause.unwrap();
    assert_eq!((cause.gauge, cause.value, cause.watermarks.everyone), (Gauge::Depth, 8_000_000, 8_000_000));
    // Each look at the queue brings it one rung down, 2 seconds after the one before.
    load.deliveries.store(0, SeqCst);
    for rung in ["everyone", "newest", "heaviest", "slower", "calm"] {
        client.wait(2 * SECOND).await;
        let refused = send(&mut client).await == BUSY;
        // It is the only owner, and none of its messages has been accepted before.
        assert_eq!(refused, ["everyone", "newest"].contains(&rung), "{rung}");
        assert_eq!(relay.overload().state().rung.name(), rung);
    }
    let climbed = ["depth everyone"];
    let descended = ["depth newest", "depth heaviest", "depth slower", "depth calm"];
    assert_eq!(rungs(&log), [&climbed[..], &descended[..]].concat());
    assert_eq!(relay.totals().overload, 5);
}

#[tokio::test(start_paused = true)]
async fn reported_memory_closes_the_door_and_the_way_back_needs_no_mail() {
    let (relay, _, log) = open(options(&[1]));
    let drain = CancellationToken::new();
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let mut client = Client::connect(relay.service()).await;
    client.ehlo().await;
    relay.overload().report(Gauge::Memory, 96);
    client.another_from(NEW).await.greeting().expect(CLOSED);
    assert_eq!(send(&mut client).await, BUSY);
    client.says("NOOP").await.expect("250");
    assert_eq!((relay.overload().state().closed, relay.overload().state().refused), (1, 1));
    relay.overload().report(Gauge::Memory, 20);
    let begun = Instant::now();
    let mut seen = Vec::new();
    while relay.overload().state().rung > Rung::Calm {
        client.wait(SECOND / 10).await;
        let rung = relay.overload().state().rung;
        if seen.last().is_none_or(|(last, _)| *last != rung) {
            seen.push((rung, begun.elapsed().as_secs()));
        }
    }
    let names: Vec<_> = seen.iter().map(|(rung, at)| format!("{rung} {at}")).collect();
    assert_eq!(names, ["closed 0", "everyone 2", "newest 4", "heaviest 6", "slower 8", "calm 10"]);
    assert!(send(&mut client).await.starts_with("250"));
    client.another_from(NEW).await.greeting().expect("220");
    assert_eq!(rungs(&log).len(), 6);
    drain.cancel();
    delivering.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn newcomers_are_refused_before_those_who_are_known() {
    let (relay, _, _) = open(options(&[1]));
    let mut known = Client::connect(relay.service()).await;
    known.ehlo().await;
    assert!(send(&mut known).await.starts_with("250"));
    known.wait(60 * SECOND).await;
    relay.overload().report(Gauge::Memory, 85);
    let mut new = known.another_from(NEW).await;
    new.ehlo().await;
    assert_eq!(send(&mut new).await, BUSY);
    let begun = Instant::now();
    assert!(send(&mut known).await.starts_with("250"));
    // What it had sent is forgotten, so it is not above the mean.
    assert!(begun.elapsed() < SECOND / 20);
    let begun = Instant::now();
    assert!(send(&mut known).await.starts_with("250"));
    assert_eq!(begun.elapsed(), SECOND, "it is the only one that sends now");
}

/// The order of events says that no delivery began while the relay was paused.
#[tokio::test]
async fn deliveries_pause_on_the_highest_rung_and_go_on_below_it() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[hop.port]);
    options.overload.memory.paused = 99;
    let (relay, _, log) = open(options);
    let drain = CancellationToken::new();
    relay.overload().report(Gauge::Memory, 99);
    let delivering = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    let content = Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n");
    relay.submit(Owner::default(), &envelope("<a@b.test>", &["<x@one.test>"]), content).await.unwrap();
    relay.overload().report(Gauge::Memory, 84);
    log.wait("delivered", 1).await;
    let order: Vec<_> = log.all().into_iter().map(|seen| format!("{} {}", seen.what, seen.text)).collect();
    assert_eq!(order[..4], ["overload paused", "accepted 1", "overload closed", "delivered 250"], "{order:?}");
    drain.cancel();
    delivering.await.unwrap().unwrap();
}
