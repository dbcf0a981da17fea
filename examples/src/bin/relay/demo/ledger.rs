//! Compares what was accepted with what arrived.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use posthaste::queue::MessageId;
use posthaste::relay::{Event, Observer, Totals};

use super::content::{Fate, fate, number};

/// The demo's memory, shared by the loader, the next hop and the relay's observer.
#[derive(Debug)]
pub(super) struct Ledger {
    messages: u32,
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
    /// From accepted to delivered, of those that the next hop took at once.
    at_once: Vec<Duration>,
    /// The same of those that it deferred first, the wait included.
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
    deferred: bool,
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
            at_once: Vec::new(),
            retried: Vec::new(),
            octets: 0,
            report: None,
            faults: Vec::new(),
        };
        Self { messages, entries: Mutex::new(entries) }
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

    /// The next hop has a whole message. `identical`: it is what was sent.
    pub(super) fn arrived(&self, number: u32, identical: bool) {
        let mut entries = self.entries();
        entries.with(number, |entry| entry.arrived += 1);
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

    /// Returns `true` if a recipient is to be deferred now: the first time only.
    pub(super) fn defer(&self, number: u32) -> bool {
        let mut first = false;
        self.entries().with(number, |entry| first = !std::mem::replace(&mut entry.deferred, true));
        first
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
            Event::Delivered { message, recipient, .. } => {
                // The delivery may be observed before the acceptance.
                let now = Instant::now();
                let accepted = *entries.accepted_at.entry(*message).or_insert(now);
                let took = now.duration_since(accepted);
                let number = recipient.mailbox().and_then(|mailbox| number(mailbox.local_part()));
                match number.map(fate) {
                    Some(Fate::DeferredOnce) => entries.retried.push(took),
                    _ => entries.at_once.push(took),
                }
            }
            _ => {}
        }
    }
}

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
    at_once: Percentiles,
    retried: Percentiles,
    report: Option<String>,
    faults: Vec<String>,
}

impl Account {
    /// Returns `true` if each accepted message is accounted for, once, and is what was sent.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.unsettled == 0 && self.unwanted == 0 && self.duplicates == 0
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
        writeln!(f, "delivered   {:>8}   {} duplicates", self.arrived, self.duplicates)?;
        writeln!(f, "retried     {:>8}", self.totals.deferred)?;
        writeln!(f, "reported    {:>8}", self.totals.reported)?;
        writeln!(f, "unsettled   {:>8}", self.unsettled + self.unwanted)?;
        writeln!(
            f,
            "rate        {:>8.0}   messages/s, {:.1} s in all",
            self.accepted as f64 / self.seconds,
            self.seconds
        )?;
        writeln!(f, "latency              from accepted to delivered at the first attempt: {}", self.at_once)?;
        writeln!(f, "                     with a retry after 1 s: {}", self.retried)?;
        let each = self.fsyncs as f64 / self.accepted.max(1) as f64;
        write!(f, "fsyncs      {:>8}   {each:.3} a message", self.fsyncs)?;
        self.faults.iter().take(10).try_for_each(|fault| write!(f, "\nfault: {fault}"))
    }
}
