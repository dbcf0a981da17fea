//! A relay on loopback, with next hops that behave as a test says.

mod client;
mod hop;
mod noting;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_client::{Answer, MxRecord, ResolveError, Resolver, SystemResolver};
use posthaste_queue::{MessageId, Owner, Queue as _, memory::MemoryQueue};
use posthaste_relay::{Event, NextHop, Observer, Relay, RelayOptions, Route, RouteTable};
use posthaste_server::Envelope;
use tokio_util::sync::CancellationToken;

pub(crate) use client::Client;
pub(crate) use hop::{Behavior, Hop, Taken, offering};
pub(crate) use noting::{Exchange, Noting, source, through};

/// A bound for what must happen: the largest body takes ten seconds of a processor in a debug
/// build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An event in words: what happened, to which address, and the status or host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) what: &'static str,
    pub(crate) who: String,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Observer for Log {
    fn observe(&self, event: &Event<'_>) {
        let (what, who, text) = match event {
            Event::Accepted { sender, recipients, .. } => ("accepted", sender.to_string(), recipients.to_string()),
            Event::Delivered { recipient, reply, .. } => ("delivered", recipient.to_string(), reply.code().to_string()),
            Event::Deferred { recipient, diagnostic, .. } => {
                ("deferred", recipient.to_string(), format!("{} {diagnostic}", diagnostic.status))
            }
            Event::Failed { recipient, diagnostic, .. } => {
                ("failed", recipient.to_string(), format!("{} {diagnostic}", diagnostic.status))
            }
            Event::Reported { sender, failed, delayed, relayed, .. } => {
                ("reported", sender.to_string(), format!("{failed} failed, {delayed} delayed, {relayed} relayed"))
            }
            Event::Discarded { recipient, .. } => ("discarded", recipient.to_string(), String::new()),
            Event::NotReported { .. } => ("not reported", String::new(), String::new()),
            Event::SetAside { message, why, .. } => ("set aside", message.to_string(), (*why).to_owned()),
            Event::Relabeled { seen, moved, together, .. } => {
                ("relabeled", String::new(), format!("{seen} seen, {moved} moved, {together} together"))
            }
            Event::Overload { rung, gauge, .. } => ("overload", gauge.to_string(), rung.to_string()),
            _ => return,
        };
        self.0.lock().unwrap().push(Seen { what, who, text });
    }
}

impl Log {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, what: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.what == what).collect()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| seen.what == what).count()
    }

    /// Waits until an event has happened `count` times.
    pub(crate) async fn wait(&self, what: &str, count: usize) {
        let begun = Instant::now();
        while self.count(what) < count {
            assert!(begun.elapsed() < PATIENCE, "{count} times {what:?}, but: {:?}", self.all());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) struct Running<R = SystemResolver> {
    pub(crate) relay: Relay<MemoryQueue, R>,
    pub(crate) log: Log,
    pub(crate) drain: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<Result<(), posthaste_queue::Error>>,
}

impl<R: Resolver> Running<R> {
    pub(crate) async fn submit(&self, mail: &str, recipients: &[&str], content: &'static [u8]) -> MessageId {
        submit(&self.relay, mail, recipients, content).await
    }

    pub(crate) async fn end(self) {
        self.drain.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Waits until the queue is empty.
    pub(crate) async fn empty(&self) {
        let begun = Instant::now();
        while self.relay.queue().stats().await.messages > 0 {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.log.all());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) async fn submit<R: Resolver>(
    relay: &Relay<MemoryQueue, R>,
    mail: &str,
    recipients: &[&str],
    content: &'static [u8],
) -> MessageId {
    relay.submit(Owner::default(), &envelope(mail, recipients), Bytes::from_static(content)).await.unwrap()
}

pub(crate) fn envelope(mail: &str, recipients: &[&str]) -> Envelope {
    Envelope::from_commands(mail.parse().unwrap(), recipients.iter().map(|rcpt| rcpt.parse().unwrap()).collect())
}

/// Options of a relay that sends all mail to these ports on loopback, in order, with short waits.
pub(crate) fn options(ports: &[u16]) -> RelayOptions {
    let mut options = RelayOptions::new("relay.test".parse().unwrap());
    options.routes = RouteTable::all(Route::hosts(ports.iter().map(|port| ("[127.0.0.1]", *port))));
    options.delivery.retry.waits = vec![Duration::from_millis(100)];
    (options.delivery.retry.greylisted, options.delivery.retry.mailbox_full) = (Vec::new(), Vec::new());
    options.delivery.retry.expire_after = Duration::from_secs(3_600);
    options
}

pub(crate) fn relay(options: RelayOptions) -> (Relay<MemoryQueue, SystemResolver>, Log) {
    let log = Log::default();
    (Relay::builder(MemoryQueue::default(), SystemResolver, options).observer(log.clone()).build(), log)
}

pub(crate) fn start(options: RelayOptions) -> Running {
    let (relay, log) = relay(options);
    run(relay, log)
}

pub(crate) fn run<R: Resolver>(relay: Relay<MemoryQueue, R>, log: Log) -> Running<R> {
    let drain = CancellationToken::new();
    let task = tokio::spawn(relay.deliver(drain.clone().cancelled_owned()));
    Running { relay, log, drain, task }
}

/// A zone in a closure: the addresses of a name. `None`: its name servers are silent. Every domain
/// is its own mail host.
pub(crate) struct Zone<F>(pub(crate) F);

impl<F: Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync + 'static> Resolver for Zone<F> {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        self.addresses(domain).await.map(|_| Answer::default())
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        match (self.0)(host) {
            Some(addresses) => Ok(addresses.into()),
            None => {
                // As long as the bound of a real resolver.
                tokio::time::sleep(Duration::from_secs(20)).await;
                Err(ResolveError::Temporary("timed out".to_owned()))
            }
        }
    }
}

/// Starts a relay that sends all mail by MX, to this port, at the addresses from the zone.
pub(crate) fn by_mx<R: Resolver>(resolver: R, port: u16, change: impl FnOnce(&mut RelayOptions)) -> Running<R> {
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Mx));
    options.delivery.mx_port = port;
    options.delivery.allow_private = true;
    change(&mut options);
    let log = Log::default();
    run(Relay::builder(MemoryQueue::default(), resolver, options).observer(log.clone()).build(), log)
}
