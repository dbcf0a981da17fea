//! The log engine does the same as the memory engine, for any sequence of calls, and reopening it
//! changes nothing.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::memory::{MemoryOptions, MemoryQueue};
use posthaste_queue::{
    Alteration, Claim, Claimed, DeliverySummary, Derived, Draft, DueClass, Gather, GatherWhen, Lease, ManualClock,
    MessageId, NewDelivery, NewMessage, Outcome, Owner, Priority, Queue, RoutingKey,
};
use proptest::prelude::*;

mod block_on;
use block_on::block_on;

#[derive(Debug, Clone)]
enum Op {
    Put {
        owner: u8,
        priority: i8,
        deliveries: Vec<(u8, u16)>,
        len: usize,
    },
    /// From classes by their places among those that are due, in any order. A place beyond those: a
    /// class that may not be due.
    Claim {
        from: Option<Vec<u8>>,
        max: usize,
    },
    Done {
        lease: usize,
        derived: bool,
    },
    Retry {
        lease: usize,
        delay: u16,
        state: u8,
    },
    Keep {
        lease: usize,
        state: u8,
    },
    /// All leased deliveries of a message at once: one is retried, the others are done.
    Together {
        message: usize,
        state: u8,
    },
    Gather {
        message: usize,
        mark: u8,
        when: GatherWhen,
    },
    Extend {
        lease: usize,
        by: u16,
    },
    Hold {
        message: usize,
    },
    Reschedule {
        message: usize,
        key: Option<u8>,
        delay: u16,
    },
    Reroute {
        message: usize,
        from: Option<u8>,
        to: u8,
    },
    Release {
        message: usize,
    },
    Remove {
        message: usize,
    },
    Advance {
        by: u16,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let deliveries = prop::collection::vec((0..4_u8, 0..3_u16), 1..4);
    let from = prop::option::of(prop::collection::vec(0..9_u8, 0..5));
    let when = prop_oneof![Just(GatherWhen::Now), Just(GatherWhen::AtRest), Just(GatherWhen::Alone)];
    prop_oneof![
        4 => (0..3_u8, -1..2_i8, deliveries, 0..3000_usize)
            .prop_map(|(owner, priority, deliveries, len)| Op::Put { owner, priority, deliveries, len }),
        4 => (from, 1..5_usize).prop_map(|(from, max)| Op::Claim { from, max }),
        3 => (0..20_usize, any::<bool>()).prop_map(|(lease, derived)| Op::Done { lease, derived }),
        2 => (0..20_usize, 0..4_u16, any::<u8>()).prop_map(|(lease, delay, state)| Op::Retry { lease, delay, state }),
        1 => (0..20_usize, 0..4_u8).prop_map(|(lease, state)| Op::Keep { lease, state }),
        1 => (0..20_usize, 0..4_u8).prop_map(|(message, state)| Op::Together { message, state }),
        2 => (0..20_usize, 0..4_u8, when).prop_map(|(message, mark, when)| Op::Gather { message, mark, when }),
        1 => (0..20_usize, 0..9_u16).prop_map(|(lease, by)| Op::Extend { lease, by }),
        1 => (0..20_usize).prop_map(|message| Op::Hold { message }),
        1 => (0..20_usize).prop_map(|message| Op::Release { message }),
        1 => (0..20_usize, prop::option::of(0..4_u8), 0..4_u16)
            .prop_map(|(message, key, delay)| Op::Reschedule { message, key, delay }),
        1 => (0..20_usize, prop::option::of(0..4_u8), 0..4_u8)
            .prop_map(|(message, from, to)| Op::Reroute { message, from, to }),
        1 => (0..20_usize).prop_map(|message| Op::Remove { message }),
        2 => (0..6_u16).prop_map(|by| Op::Advance { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_engine_agrees_with_the_memory_engine(ops in prop::collection::vec(op(), 1..60), index_memory in prop_oneof![Just(0), Just(1 << 20)]) {
        let clock = ManualClock::default();
        let mut memory = MemoryOptions::default();
        memory.clock = Arc::new(clock.clone());
        let dir = tempfile::tempdir().unwrap();
        let mut options = LogOptions::default();
        options.clock = Arc::new(clock.clone());
        (options.segment_size, options.inline_body) = (4096, 1000);
        (options.disk_reserve, options.index_memory) = (0, index_memory);
        let log = LogQueue::open(dir.path(), options.clone()).unwrap();
        let mut model = Side::new(MemoryQueue::new(memory));
        let mut real = Side::new(log);
        for op in &ops {
            if let Op::Advance { by } = op {
                clock.advance(seconds(*by));
            }
            let (mut expected, found) = (block_on(model.apply(op)), block_on(real.apply(op)));
            if matches!(op, Op::Claim { .. }) && index_memory == 0 && expected != found {
                // A checkpoint may have taken messages out of memory since, and a claim passes over
                // them until the next one. It still claims nothing but what is due, and once.
                expected.push_str(&block_on(model.apply(&Op::Claim { from: None, max: usize::MAX })));
                let due: BTreeSet<_> = expected.lines().collect();
                let claimed: BTreeSet<_> = found.lines().collect();
                prop_assert!(claimed.is_subset(&due) && claimed.len() == found.lines().count(), "{:?}: {}", op, found);
                return Ok(());
            }
            prop_assert_eq!(expected, found, "{:?}", op);
            let (due, listed) = block_on(model.due());
            prop_assert_eq!(due, listed, "after {:?}", op);
            // Without free memory, due deliveries appear with the next checkpoint.
            let expected = block_on(model.view(true));
            let mut found = block_on(real.view(true));
            for _ in 0..500 {
                if expected == found {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
                found = block_on(real.view(true));
            }
            prop_assert_eq!(expected, found, "after {:?}", op);
        }
        let before = block_on(real.view(false));
        drop(real.queue);
        real.queue = LogQueue::open(dir.path(), options).unwrap();
        prop_assert!(real.queue.report().damaged.is_empty());
        prop_assert_eq!(block_on(real.view(false)), before, "after opening again");
    }
}

/// A queue, and its messages in order of acceptance, since each engine has its own ids.
struct Side<Q> {
    queue: Q,
    ids: Vec<MessageId>,
    places: HashMap<MessageId, usize>,
    leases: Vec<Lease>,
}

impl<Q: Queue> Side<Q> {
    fn new(queue: Q) -> Self {
        Self { queue, ids: Vec::new(), places: HashMap::new(), leases: Vec::new() }
    }

    /// The result as text without ids.
    async fn apply(&mut self, op: &Op) -> String {
        match op {
            Op::Put { owner, priority, deliveries, len } => {
                let mut draft = self.queue.put(None).await.unwrap();
                draft.write(Bytes::from(vec![*owner; *len])).await.unwrap();
                let id = draft.commit(message(*owner, *priority, deliveries)).await.unwrap();
                self.came(id);
                String::new()
            }
            Op::Claim { from, max } => {
                let claimed = match from {
                    Some(places) => {
                        let due = self.queue.due(None, 99).await.unwrap();
                        let class = |place: &u8| due.get(usize::from(*place)).cloned().unwrap_or_else(|| class(*place));
                        let from: Vec<_> = places.iter().map(class).collect();
                        self.queue.claim(Claim { from: &from, max: *max, lease: seconds(4) }).await
                    }
                    None => self.queue.claim_any(*max, seconds(4)).await,
                };
                let claimed = claimed.unwrap();
                claimed.into_iter().map(|claimed| self.claimed(claimed)).collect()
            }
            Op::Done { lease, derived } => {
                let Some(lease) = self.lease(*lease) else { return String::new() };
                let report = Derived { message: message(9, 0, &[(0, 0)]), body: Bytes::from_static(b"report") };
                let derived = if *derived { vec![report] } else { Vec::new() };
                let done = self.queue.finish(lease, Outcome::Done, derived).await;
                done.map(|ids| ids.into_iter().for_each(|id| self.came(id))).is_ok().to_string()
            }
            Op::Retry { lease, delay, state } => {
                let Some(lease) = self.lease(*lease) else { return String::new() };
                let retry = Outcome::Retry { delay: seconds(*delay), state: Bytes::from(vec![*state]) };
                self.queue.finish(lease, retry, Vec::new()).await.is_ok().to_string()
            }
            Op::Keep { lease, state } => {
                let Some(lease) = self.lease(*lease) else { return String::new() };
                let keep = Outcome::Keep { state: Bytes::from(vec![*state]) };
                self.queue.finish(lease, keep, Vec::new()).await.is_ok().to_string()
            }
            Op::Together { message: of, state } => {
                let Some(of) = self.ids.get(*of) else { return String::new() };
                let (ends, rest) =
                    std::mem::take(&mut self.leases).into_iter().partition::<Vec<_>, _>(|lease| lease.message() == *of);
                self.leases = rest;
                let retry = Outcome::Retry { delay: seconds(1), state: Bytes::from(vec![*state]) };
                let outcomes = std::iter::once(retry).chain(std::iter::repeat(Outcome::Done));
                let report = Derived { message: message(9, 0, &[(0, 0)]), body: Bytes::from_static(b"report") };
                let done = self.queue.finish_all(ends.into_iter().zip(outcomes).collect(), vec![report]).await;
                done.map(|ids| ids.into_iter().for_each(|id| self.came(id))).is_ok().to_string()
            }
            Op::Gather { message, mark, when } => {
                let Some(message) = self.ids.get(*message).copied() else { return String::new() };
                let gather = Gather { message, marks: &[&[*mark]], when: *when, lease: seconds(4) };
                let gathered = self.queue.gather(gather).await.unwrap();
                gathered.into_iter().map(|claimed| self.claimed(claimed)).collect()
            }
            Op::Extend { lease, by } => match self.leases.get(*lease) {
                Some(lease) => self.queue.extend(lease, seconds(*by)).await.is_ok().to_string(),
                None => String::new(),
            },
            Op::Hold { message } => match self.ids.get(*message) {
                Some(id) => format!("{:?}", self.queue.hold(*id).await.ok()),
                None => String::new(),
            },
            Op::Release { message } => match self.ids.get(*message) {
                Some(id) => format!("{:?}", self.queue.release(*id).await.ok()),
                None => String::new(),
            },
            Op::Reschedule { message, key: of, delay } => {
                self.alter(*message, Alteration::Reschedule { key: of.map(key), delay: seconds(*delay) }).await
            }
            Op::Reroute { message, from, to } => {
                self.alter(*message, Alteration::Reroute { from: from.map(key), to: key(*to) }).await
            }
            Op::Remove { message } => match self.ids.get(*message) {
                Some(id) => self.queue.remove(*id).await.is_ok().to_string(),
                None => String::new(),
            },
            Op::Advance { .. } => String::new(),
        }
    }

    async fn alter(&self, message: usize, what: Alteration) -> String {
        match self.ids.get(message) {
            Some(id) => format!("{:?}", self.queue.alter(*id, what).await.ok()),
            None => String::new(),
        }
    }

    /// All that is visible, as text without ids.
    async fn view(&self, leases: bool) -> String {
        let mut view = String::new();
        for mut each in self.queue.list(None, usize::MAX).await.unwrap() {
            let place = self.places[&each.id];
            each.id = MessageId::from_u64(0);
            each.deliveries.iter_mut().for_each(|delivery| delivery.leased &= leases);
            view.push_str(&format!("{place}: {each:?}\n"));
        }
        let stats = self.queue.stats().await;
        view.push_str(&format!("{} {} {} {}", stats.messages, stats.deliveries, stats.held, stats.bytes));
        if leases {
            let due = self.queue.due(None, 99).await.unwrap();
            view.push_str(&format!(" {} {} {} {due:?}", stats.leased, stats.puts, stats.finished));
            view.push_str(if stats.short_of_memory { " and more is due" } else { "" });
        }
        view
    }

    /// The classes that are due, found one by one and from the list of messages.
    async fn due(&self) -> (Vec<DueClass>, Vec<DueClass>) {
        let mut due: Vec<DueClass> = Vec::new();
        while let Some(class) = self.queue.due(due.last(), 1).await.unwrap().pop() {
            due.push(class);
        }
        let mut listed = BTreeSet::new();
        for each in self.queue.list(None, usize::MAX).await.unwrap().into_iter().filter(|each| !each.held) {
            let is_due = |delivery: &DeliverySummary| !delivery.leased && delivery.due_in.is_zero();
            for delivery in each.deliveries.into_iter().filter(is_due) {
                listed.insert(DueClass { key: delivery.key, priority: each.priority, owner: each.owner.clone() });
            }
        }
        (due, listed.into_iter().collect())
    }

    fn came(&mut self, id: MessageId) {
        self.places.insert(id, self.ids.len());
        self.ids.push(id);
    }

    fn claimed(&mut self, claimed: Claimed) -> String {
        let Claimed { lease, key, owner, priority, envelope, state, body_len, attempts, others, age } = claimed;
        let place = self.places[&lease.message()];
        let delivery = lease.delivery();
        self.leases.push(lease);
        format!(
            "{place} {delivery} {key} {owner} {priority:?} {envelope:?} {state:?} {body_len} {attempts} {others} {age:?}\n"
        )
    }

    fn lease(&mut self, at: usize) -> Option<Lease> {
        (at < self.leases.len()).then(|| self.leases.remove(at))
    }
}

fn message(owner: u8, priority: i8, deliveries: &[(u8, u16)]) -> NewMessage {
    let delivery =
        |(to, delay): &(u8, u16)| NewDelivery { key: key(*to), delay: seconds(*delay), state: Bytes::from(vec![*to]) };
    NewMessage {
        owner: Owner::new(&owner.to_string()).unwrap(),
        priority: Priority(priority),
        envelope: Bytes::from(vec![owner]),
        deliveries: deliveries.iter().map(delivery).collect(),
    }
}

fn class(number: u8) -> DueClass {
    let owner = Owner::new(&(number % 3).to_string()).unwrap();
    DueClass { key: key(number % 4), priority: Priority(0), owner }
}

fn key(number: u8) -> RoutingKey {
    RoutingKey::new(&format!("key {number}")).unwrap()
}

fn seconds(count: u16) -> Duration {
    Duration::from_secs(u64::from(count))
}
