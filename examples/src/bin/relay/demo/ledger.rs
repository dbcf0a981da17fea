//! Compares what was accepted with what arrived.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use posthaste::queue::MessageId;
use posthaste::relay::{Event, Observer, Totals};
use tokio::sync::Notify;

use super::content::{Fate, fate};

/// The demo's memory, shared by the loader, the next hop and the relay's observer.
#[derive(Debug)]
pub(super) struct Ledger {
    messages: u32,
    /// Notified when half of the messages have arrived.
    pub(super) half_way: Notify,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    started: Instant,
    ended: Instant,
    /// By number.
    each: Vec<Entry>,
    /// When the relay said that it has a message.
    accepted_at: HashMap<MessageId, Instant>,
    /// Messages that no next hop took at the first attempt.
    deferred: HashSet<MessageId>,
    arrived: u32,
    /// When the primary next hop had died, and how long the next message took to arrive.
    death: Option<Instant>,
    failover: Option<Duration>,
    /// From accepted to delivered, of those that a next hop took at once.
    at_once: Vec<Duration>,
    /// The same of the others, the wait included.
    retried: Vec<Duration>,
    octets: u64,
    report: Option<String>,
    /// What went wrong.
    faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    accepted: bool,
    arrived: u32,
    reported: u32,
    deferred: Option<Instant>,
}

impl Entry {
    /// Returns `true` if it has reached the end that its number says.
    fn is_settled(self, fate: Fate) -> bool {
        self.accepted && if fate == Fate::Refused { self.reported > 0 } else { self.arrived > 0 }
    }
}

impl Ledger {
    pub(super) fn new(messages: u32) -> Self {
        let now = Instant::now();
        let entries = Entries {
            started: now,
            ended: now,
            each: vec![Entry::default(); messages as usize],
            accepted_at: HashMap::new(),
            deferred: HashSet::new(),
            arrived: 0,
            death: None,
            failover: None,
            at_once: Vec::new(),
            retried: Vec::new(),
            octets: 0,
            report: None,
            faults: Vec::new(),
        };
        Self { messages, half_way: Notify::new(), entries: Mutex::new(entries) }
    }

    pub(super) fn start(&self) {
        self.entries().started = Instant::now();
    }

    /// The relay has acknowledged a message.
    pub(super) fn acknowledged(&self, number: u32, octets: usize) {
        let mut entries = self.entries();
        entries.octets += octets as u64;
        entries.with(number, |entry| entry.accepted = true);
    }

    /// A next hop has a whole message. `identical`: it is what was sent.
    pub(super) fn arrived(&self, number: u32, identical: bool) {
        let mut entries = self.entries();
        entries.with(number, |entry| entry.arrived += 1);
        entries.arrived += 1;
        if entries.arrived == self.messages / 2 {
            self.half_way.notify_one();
        }
        if let (Some(death), None) = (entries.death, entries.failover) {
            entries.failover = Some(death.elapsed());
        }
        if !identical {
            entries.faults.push(format!("message {number} is not what was sent"));
        }
    }

    /// The sender of a message has got a report about it.
    pub(super) fn reported(&self, number: u32, report: &str) {
        let mut entries = self.entries();
        entries.with(number, |entry| entry.reported += 1);
        entries.report.get_or_insert_with(|| report.to_owned());
    }

    /// The primary next hop is no more.
    pub(super) fn primary_is_dead(&self) {
        self.entries().death = Some(Instant::now());
    }

    /// Returns `true` if a recipient is to be deferred now: at the first attempt, by both next
    /// hops.
    pub(super) fn defer(&self, number: u32) -> bool {
        let mut age = Duration::ZERO;
        self.entries().with(number, |entry| age = entry.deferred.get_or_insert_with(Instant::now).elapsed());
        age < FIRST_ATTEMPT
    }

    pub(super) fn fault(&self, text: String) {
        self.entries().faults.push(text);
    }

    pub(super) fn accepted(&self) -> u64 {
        self.entries().each.iter().filter(|entry| entry.accepted).count() as u64
    }

    pub(super) fn settled(&self) -> u64 {
        let entries = self.entries();
        (0..).zip(&entries.each).filter(|(number, entry)| entry.is_settled(fate(*number))).count() as u64
    }

    pub(super) fn is_complete(&self) -> bool {
        self.settled() == u64::from(self.messages)
    }

    /// The account of everything.
    pub(super) fn account(&self, totals: Totals, fsyncs: u64) -> Account {
        let mut entries = self.entries();
        let (mut duplicates, mut unsettled, mut unwanted) = (0, 0, 0);
        for (number, entry) in (0..).zip(&entries.each) {
            let refused = fate(number) == Fate::Refused;
            duplicates += u64::from(entry.arrived.max(entry.reported).saturating_sub(1));
            unsettled += u64::from(!entry.is_settled(fate(number)));
            unwanted += u64::from(if refused { entry.arrived } else { entry.reported });
        }
        Account {
            totals,
            fsyncs,
            arrived: entries.each.iter().filter(|entry| entry.arrived > 0).count() as u64,
            duplicates,
            unsettled,
            unwanted,
            seconds: entries.ended.duration_since(entries.started).as_secs_f64(),
            octets: entries.octets,
            failover: entries.failover,
            at_once: Percentiles::of(&mut entries.at_once),
            retried: Percentiles::of(&mut entries.retried),
            report: entries.report.clone(),
            faults: entries.faults.clone(),
            accepted: entries.each.iter().filter(|entry| entry.accepted).count() as u64,
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn with(&mut self, number: u32, change: impl FnOnce(&mut Entry)) {
        self.ended = Instant::now();
        match self.each.get_mut(number as usize) {
            Some(entry) => change(entry),
            None => self.faults.push(format!("there is no message {number}")),
        }
    }
}

/// Measures how long messages are in the relay.
pub(super) struct LedgerObserver(pub(super) Arc<Ledger>);

impl Observer for LedgerObserver {
    fn observe(&self, event: &Event<'_>) {
        let mut entries = self.0.entries();
        match event {
            Event::Accepted { message, .. } => {
                entries.accepted_at.entry(*message).or_insert_with(Instant::now);
            }
            Event::Deferred { message, .. } => {
                entries.deferred.insert(*message);
            }
            Event::Delivered { message, .. } => {
                // The delivery may be observed before the acceptance.
                let now = Instant::now();
                let accepted = *entries.accepted_at.entry(*message).or_insert(now);
                let took = now.duration_since(accepted);
                match entries.deferred.contains(message) {
                    true => entries.retried.push(took),
                    false => entries.at_once.push(took),
                }
            }
            _ => {}
        }
    }
}

/// Within this time all next hops are asked once. The retry comes after a second.
const FIRST_ATTEMPT: Duration = Duration::from_millis(500);
/// The most connections to a next hop, each with a message under way.
const IN_FLIGHT: u64 = 20;

/// The median and the 99th percentile.
#[derive(Debug, Clone, Copy)]
struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    fn of(all: &mut [Duration]) -> Self {
        all.sort_unstable();
        let at = |percent: usize| {
            let index = all.len().saturating_sub(1) * percent / 100;
            all.get(index).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99) }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        write!(f, "p50 {:.1} ms, p99 {:.1} ms", milliseconds(self.p50), milliseconds(self.p99))
    }
}

/// The demo's result.
#[derive(Debug)]
pub(super) struct Account {
    totals: Totals,
    fsyncs: u64,
    accepted: u64,
    arrived: u64,
    duplicates: u64,
    unsettled: u64,
    unwanted: u64,
    seconds: f64,
    octets: u64,
    failover: Option<Duration>,
    at_once: Percentiles,
    retried: Percentiles,
    report: Option<String>,
    faults: Vec<String>,
}

impl Account {
    /// Returns `true` if each accepted message is accounted for, and is what was sent. The primary
    /// may have had some that it could not acknowledge any more: those arrive twice.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.unsettled == 0 && self.unwanted == 0 && self.duplicates <= IN_FLIGHT
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            writeln!(f, "\none of the reports:\n")?;
            report.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
            writeln!(f)?;
        }
        writeln!(f, "accepted    {:>8}   {:.1} MB", self.accepted, self.octets as f64 / 1e6)?;
        writeln!(f, "delivered   {:>8}   {} of them twice", self.arrived, self.duplicates)?;
        writeln!(f, "lost        {:>8}", self.unsettled + self.unwanted)?;
        writeln!(f, "retried     {:>8}", self.totals.deferred)?;
        writeln!(f, "reported    {:>8}", self.totals.reported)?;
        if let Some(failover) = self.failover {
            let milliseconds = failover.as_secs_f64() * 1_000.0;
            writeln!(
                f,
                "failover    {milliseconds:>8.1}   ms from the primary's death to the next message at the secondary"
            )?;
        }
        writeln!(
            f,
            "rate        {:>8.0}   messages/s, {:.1} s in all",
            self.accepted as f64 / self.seconds,
            self.seconds
        )?;
        writeln!(f, "latency              from accepted to delivered at the first attempt: {}", self.at_once)?;
        writeln!(f, "                     at a later one, after 1 s: {}", self.retried)?;
        let each = self.fsyncs as f64 / self.accepted.max(1) as f64;
        write!(f, "fsyncs      {:>8}   {each:.3} a message", self.fsyncs)?;
        self.faults.iter().take(10).try_for_each(|fault| write!(f, "\nfault: {fault}"))
    }
}
