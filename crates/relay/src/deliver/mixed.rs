//! Mail of several kinds at one slow next hop, in virtual time and without sockets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use posthaste_queue::{MessageId, Owner, memory::MemoryQueue};
use posthaste_server::{Envelope, accepted};
use posthaste_testkit::counting::Counting;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::backlog::{Zone, queue};
use crate::{
    Event, Relay, RelayOptions, Route, RouteTable,
    agent::{Agent, AgentLetter, Decision},
};

/// A next hop that takes 20 KiB a second on each connection.
struct Slow;

impl Agent for Slow {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        sleep(SECOND.mul_f64(letter.octets as f64 / 20_480.0)).await;
        vec![Ok(accepted!("250 2.0.0 taken")); letter.envelope.recipients.len()]
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// A minute, and a tenth of a second.
const LARGE: usize = 60 * 20_480;
const SMALL: usize = 2_048;
const COUNT: usize = 100;

/// How long each message took.
type Took = Arc<Mutex<HashMap<MessageId, Duration>>>;

struct Running {
    relay: Relay<Counting<MemoryQueue>, Zone>,
    took: Took,
}

impl Running {
    fn start() -> Self {
        let took = Took::default();
        let noted = Arc::clone(&took);
        let observe = move |event: &Event<'_>| {
            if let Event::Delivered { message, age, .. } = event {
                noted.lock().unwrap().insert(*message, *age);
            }
        };
        let mut options = RelayOptions::new("relay.test".parse().unwrap());
        options.routes = RouteTable::empty();
        options.routes.push(["*".parse().unwrap()], Route::agent("slow", Slow));
        let relay = Relay::builder(queue(), Zone, options).observer(observe).build();
        tokio::spawn(relay.deliver(CancellationToken::new().cancelled_owned()));
        Self { relay, took }
    }

    async fn submit(&self, owner: &str, content: &Bytes) -> MessageId {
        self.submit_to("b.test", owner, "<me@a.test>", content).await
    }

    async fn submit_to(&self, domain: &str, owner: &str, mail: &str, content: &Bytes) -> MessageId {
        let recipient = format!("<you@{domain}>").parse().unwrap();
        let envelope = Envelope::from_commands(mail.parse().unwrap(), vec![recipient]);
        self.relay.submit(Owner::new(owner).unwrap(), &envelope, content.clone()).await.unwrap()
    }

    /// How long these messages took, the shortest first.
    fn took(&self, messages: &[MessageId]) -> Vec<Duration> {
        let took = self.took.lock().unwrap();
        let mut took: Vec<_> = messages.iter().map(|message| took[message]).collect();
        took.sort_unstable();
        took
    }
}

fn content(octets: usize) -> Bytes {
    let header = "Subject: x\r\n\r\n";
    format!("{header}{}", "x\r\n".repeat((octets - header.len()) / 3)).into()
}

/// Large mail has all connections when the small mail comes, which waits until the first large
/// message ends. From then on half of the connections are free of large mail.
#[tokio::test(start_paused = true)]
async fn a_hundred_large_messages_do_not_delay_small_ones_by_more_than_one() {
    let (large, small) = (content(LARGE), content(SMALL));
    let alone = Running::start();
    let mut messages = Vec::new();
    for _ in 0..COUNT {
        messages.push(alone.submit("one", &large).await);
    }
    sleep(900 * SECOND).await;
    let longest = alone.took(&messages)[COUNT - 1];
    for owner in ["one", "other"] {
        let running = Running::start();
        let (mut larges, mut smalls, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..COUNT {
            larges.push(running.submit("one", &large).await);
        }
        sleep(SECOND).await;
        for _ in 0..COUNT {
            smalls.push(running.submit(owner, &small).await);
        }
        sleep(90 * SECOND).await;
        for _ in 0..COUNT {
            later.push(running.submit(owner, &small).await);
            sleep(SECOND).await;
        }
        sleep(900 * SECOND).await;
        let (large, small, later) = (running.took(&larges), running.took(&smalls), running.took(&later));
        let p99 = COUNT - 2;
        assert!(small[p99] <= 61 * SECOND, "{owner}: one large message and no more: {:?}", small[p99]);
        assert!(later[p99] <= SECOND, "{owner}: small mail came lately: {:?}", later[p99]);
        assert!(large[COUNT - 1] <= longest, "{owner}: {:?} {longest:?}", large[COUNT - 1]);
    }
}

/// The site knows four thousand classes, in which no urgent message is.
#[tokio::test(start_paused = true)]
async fn urgent_mail_does_not_wait_behind_five_thousand_due_classes() {
    let (running, small) = (Running::start(), content(SMALL));
    let mut usual = Vec::new();
    for number in 0..5_000 {
        let (domain, owner) = (format!("d{number:04}.test"), format!("owner{number}"));
        usual.push(running.submit_to(&domain, &owner, "<me@a.test>", &small).await);
    }
    sleep(3 * SECOND).await;
    let due = running.relay.sites().iter().map(|site| site.due).max();
    assert!(due.is_some_and(|due| due > 3_000), "{due:?}");
    let mut urgent = Vec::new();
    for number in 0..100 {
        let (domain, owner) = (format!("u{number:04}.test"), format!("owner{}", number % 3));
        urgent.push(running.submit_to(&domain, &owner, "<me@a.test> MT-PRIORITY=4", &small).await);
    }
    sleep(60 * SECOND).await;
    // Twenty connections take two hundred messages a second.
    let (usual, urgent) = (running.took(&usual), running.took(&urgent));
    assert!(urgent[99] <= SECOND && usual[4_999] >= 20 * SECOND, "{:?} {:?}", urgent[99], usual[4_999]);
}
