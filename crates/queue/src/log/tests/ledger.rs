//! What a queue was asked and what it acknowledged, to compare with its state after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::entry::{Change, Entry, Known, State};
use super::{body_of, everything};
use crate::log::LogQueue;
use crate::{
    Alteration, Claimed, Clock, Derived, Draft, Error, Lease, ManualClock, MessageId, NewDelivery, NewMessage, Outcome,
    Owner, Priority, PutError, Queue, RoutingKey,
};

/// Messages by id.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    /// The queue's clock. `None`: it stands still.
    clock: Option<ManualClock>,
    entries: BTreeMap<MessageId, Entry>,
    /// Messages derived by outcomes without an answer, by the number in their envelope: there if
    /// and only if the outcome is.
    doubtful: BTreeMap<u64, Doubtful>,
    /// All ids given out.
    ids: BTreeSet<MessageId>,
    /// A message on hold that stays in the first segment until it is copied.
    straggler: Option<MessageId>,
    serial: u64,
    pub(super) acknowledged: u64,
    /// Deliveries finished without an answer that are offered again after a crash.
    pub(super) again: u64,
}

#[derive(Clone)]
struct Doubtful {
    state: State,
    body: Vec<u8>,
    parent: MessageId,
    /// The states of the parent if the outcome took place.
    applied: Vec<Option<State>>,
}

/// An operation to do.
enum Wanted {
    Put(NewMessage, Vec<u8>, Option<MessageId>),
    Finish(Lease, Outcome, Vec<Derived>),
    Alter(MessageId, Alteration),
    Remove(MessageId),
}

impl Ledger {
    /// For a queue with this clock, which is set forward now and then.
    pub(super) fn new(clock: &ManualClock) -> Self {
        Self { clock: Some(clock.clone()), ..Self::default() }
    }

    /// Does one or several random operations, several at once so that they may share a batch, and
    /// notes them.
    pub(super) async fn step(&mut self, queue: &LogQueue, random: &mut fastrand::Rng) {
        if queue.stats().await.broken.is_some() {
            return;
        }
        if let Some(clock) = self.clock.as_ref().filter(|_| random.u8(0..6) == 0) {
            clock.advance(Duration::from_secs(random.u64(1..30)));
        }
        if random.u8(0..8) == 0
            && let Ok(draft) = queue.put(None).await
        {
            self.give_out(draft.id());
        }
        let mut wanted = Vec::new();
        let mut chosen: BTreeSet<_> = self.straggler.into_iter().collect();
        if random.u8(0..10) < 6 {
            let count = if random.bool() { 1 } else { random.usize(2..6) };
            wanted.extend((0..count).map(|_| self.some_put(random)));
        }
        if random.u8(0..10) < 6 {
            let claimed = queue.claim_any(random.usize(1..4), Duration::from_secs(5)).await.unwrap_or_default();
            for claimed in claimed {
                self.check_claimed(&claimed);
                // Two outcomes of one message at once would leave two questions open. The lease
                // runs out.
                if chosen.insert(claimed.lease.message()) && random.u8(0..8) > 0 {
                    wanted.push(self.some_outcome(claimed.lease, random));
                }
            }
        }
        let known = self.entries.iter().filter(|(id, entry)| !chosen.contains(id) && entry.may_be_there());
        let known: Vec<_> = known.map(|(id, _)| *id).collect();
        if let Some(id) = random.choice(known).filter(|_| random.bool()) {
            wanted.push(self.some_order(id, random));
        }
        self.perform(queue, wanted).await;
    }

    /// Puts a message on hold that stays.
    pub(super) async fn put_straggler(&mut self, queue: &LogQueue, random: &mut fastrand::Rng) {
        let put = self.some_put(random);
        self.perform(queue, vec![put]).await;
        if let Some(id) = self.entries.keys().next().copied() {
            self.straggler = Some(id);
            self.perform(queue, vec![Wanted::Alter(id, Alteration::Hold)]).await;
        }
    }

    /// Removes all messages but the one that stays.
    pub(super) async fn clear(&mut self, queue: &LogQueue) {
        let all = self.entries.iter().filter(|(id, entry)| Some(**id) != self.straggler && entry.may_be_there());
        let all = all.map(|(id, _)| Wanted::Remove(*id)).collect();
        self.perform(queue, all).await;
    }

    async fn perform(&mut self, queue: &LogQueue, mut wanted: Vec<Wanted>) {
        let answers = all(wanted.iter_mut().map(|wanted| perform(queue, wanted)).collect()).await;
        for (wanted, (known, ids)) in wanted.into_iter().zip(answers) {
            self.acknowledged += u64::from(known == Known::Done);
            self.note(wanted, known, ids);
        }
    }

    fn note(&mut self, wanted: Wanted, known: Known, ids: Vec<MessageId>) {
        let now = self.now();
        match wanted {
            Wanted::Put(message, body, id) => {
                // Without an id there was no draft.
                let Some(id) = id else { return };
                self.give_out(id);
                let state = State::of(&message, now);
                let states = match known {
                    Known::Done => vec![Some(state)],
                    Known::NotDone | Known::Gone => vec![None],
                    Known::Nothing => vec![None, Some(state)],
                };
                self.entries.insert(id, Entry::new(body, states));
            }
            Wanted::Finish(lease, outcome, derived) => {
                let parent = lease.message();
                let Some(entry) = self.entries.get_mut(&parent) else { return };
                let change = Change::Outcome(lease.delivery(), outcome);
                let applied = entry.after(&change, now);
                entry.note(&change, now, known);
                entry.is_finish_open = known == Known::Nothing;
                for (id, Derived { message, body }) in ids.into_iter().zip(&derived) {
                    self.give_out(id);
                    self.entries.insert(id, Entry::new(body.to_vec(), vec![Some(State::of(message, now))]));
                }
                for Derived { message, body } in derived.into_iter().filter(|_| known == Known::Nothing) {
                    let (state, applied) = (State::of(&message, now), applied.clone());
                    let doubtful = Doubtful { state, body: body.to_vec(), parent, applied };
                    self.doubtful.insert(serial(&message.envelope), doubtful);
                }
            }
            Wanted::Alter(id, what) => self.note_change(id, &Change::Alteration(what), known),
            Wanted::Remove(id) => self.note_change(id, &Change::Removal, known),
        }
    }

    fn note_change(&mut self, id: MessageId, change: &Change, known: Known) {
        let now = self.now();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.note(change, now, known);
        }
    }

    fn give_out(&mut self, id: MessageId) {
        assert!(self.ids.insert(id), "{id} was given out twice");
    }

    fn now(&self) -> Duration {
        self.clock.as_ref().map_or(Duration::ZERO, Clock::now)
    }

    /// Checks that a claimed delivery is as last written, due, and not on hold.
    fn check_claimed(&self, claimed: &Claimed) {
        let id = claimed.lease.message();
        let is_so = |state: &State| {
            state.deliveries.get(&claimed.lease.delivery()).is_some_and(|delivery| {
                let known = (&delivery.key, &delivery.state, delivery.attempts);
                (&claimed.envelope, &claimed.owner, claimed.priority) == (&state.envelope, &state.owner, state.priority)
                    && known == (&claimed.key, &claimed.state, claimed.attempts)
                    && delivery.due <= self.now()
                    && !state.held
            })
        };
        let states = self.entries.get(&id).map(|entry| &entry.states[..]).unwrap_or_default();
        assert!(states.iter().flatten().any(is_so), "{claimed:?} was claimed, which is {states:?}");
    }

    /// Checks that all that was acknowledged is there as acknowledged, and nothing else but what
    /// was asked for without an answer. What is there is certain from now on.
    pub(super) async fn check(&mut self, queue: &LogQueue, context: &str) {
        assert!(queue.report().damaged.is_empty(), "{context}: {:?}", queue.report());
        let now = self.now();
        let mut found = BTreeMap::new();
        for summary in everything(queue).await {
            let id = summary.id;
            let body = body_of(queue, id).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(body.len() as u64, summary.body_len, "{context}: {id}");
            found.insert(id, (State::found(summary, now), body));
        }
        self.check_due(queue, &found, context).await;

        for (id, entry) in &self.entries {
            let state = found.get(id).map(|(state, _)| state.clone());
            let states = settled(&entry.states, now);
            assert!(states.contains(&state), "{context}: {id} is {state:#?}, not one of {states:#?}");
            self.again += u64::from(entry.is_finish_open && states.first() == Some(&state));
            if let Some((_, body)) = found.get(id) {
                assert!(*body == entry.body, "{context}: {id} has another body");
            }
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        let mut derived = BTreeSet::new();
        for (id, (state, body)) in found.iter().filter(|(id, _)| !self.entries.contains_key(id)) {
            let number = serial(&state.envelope);
            let Some(asked) = doubtful.get(&number) else { panic!("{context}: {id} comes from nowhere: {state:#?}") };
            let is_so = *state == asked.state.clone().settled(now) && *body == asked.body;
            assert!(is_so, "{context}: {id} is not as it was derived");
            assert!(self.ids.insert(*id), "{context}: {id} was given out twice");
            derived.insert(number);
        }
        for (number, Doubtful { parent, applied, .. }) in doubtful {
            let state = found.get(&parent).map(|(state, _)| state.clone());
            let took_place = settled(&applied, now).contains(&state);
            assert_eq!(took_place, derived.contains(&number), "{context}: {parent} and what it derives are one");
        }

        let mut entries = BTreeMap::new();
        for (id, (state, body)) in found {
            entries.insert(id, Entry::new(body, vec![Some(state)]));
        }
        // A message that is gone stays gone.
        for (id, entry) in std::mem::take(&mut self.entries) {
            entries.entry(id).or_insert(Entry::new(entry.body, vec![None]));
        }
        self.entries = entries;
    }

    /// Checks that exactly the due deliveries not on hold can be claimed, and gives them back.
    async fn check_due(&self, queue: &LogQueue, found: &BTreeMap<MessageId, (State, Vec<u8>)>, context: &str) {
        let mut due = BTreeSet::new();
        for (id, (state, _)) in found.iter().filter(|(_, (state, _))| !state.held) {
            let deliveries = state.deliveries.iter().filter(|(_, delivery)| delivery.due <= self.now());
            due.extend(deliveries.map(|(number, _)| (*id, *number)));
        }
        let mut claimed = BTreeMap::new();
        // What has no room in memory appears with the next checkpoint, which may be written between
        // a claim and the next question.
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            let some = queue.claim_any(usize::MAX, Duration::from_secs(3600)).await.unwrap();
            quiet = if some.is_empty() && !queue.stats().await.short_of_memory { quiet + 1 } else { 0 };
            for each in some {
                let before = claimed.insert((each.lease.message(), each.lease.delivery()), each.lease);
                assert!(before.is_none(), "{context}: {before:?} was claimed twice");
            }
            if claimed.len() >= due.len() || quiet > 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(
            claimed.keys().eq(due.iter()),
            "{context}: {:?} are due and not claimed, or not due and claimed",
            due.symmetric_difference(&claimed.keys().copied().collect())
        );
        for lease in claimed.values() {
            queue.extend(lease, Duration::ZERO).await.unwrap();
        }
    }

    fn some_put(&mut self, random: &mut fastrand::Rng) -> Wanted {
        let len = if random.u8(0..6) == 0 { random.usize(1500..6000) } else { random.usize(0..900) };
        Wanted::Put(self.some_message(random), octets(len, random), None)
    }

    fn some_outcome(&mut self, lease: Lease, random: &mut fastrand::Rng) -> Wanted {
        let (outcome, mut derived) = if random.u8(0..3) > 0 {
            (Outcome::Done, random.u8(0..4) == 0)
        } else {
            let retry =
                Outcome::Retry { delay: some_delay(random), state: random.u64(..).to_le_bytes().to_vec().into() };
            (retry, random.u8(0..8) == 0)
        };
        let mut reports = Vec::new();
        while std::mem::take(&mut derived) {
            let body = Bytes::from(octets(random.usize(0..500), random));
            reports.push(Derived { message: self.some_message(random), body });
            derived = random.u8(0..4) == 0;
        }
        Wanted::Finish(lease, outcome, reports)
    }

    fn some_order(&self, id: MessageId, random: &mut fastrand::Rng) -> Wanted {
        let some_key = |random: &mut fastrand::Rng| if random.bool() { Some(key(random)) } else { None };
        let what = match random.u8(0..8) {
            0 | 1 => Alteration::Hold,
            2 | 3 => Alteration::Release,
            4 => Alteration::Reschedule { key: some_key(random), delay: some_delay(random) },
            5 => Alteration::Reroute { from: some_key(random), to: key(random) },
            _ => return Wanted::Remove(id),
        };
        Wanted::Alter(id, what)
    }

    fn some_message(&mut self, random: &mut fastrand::Rng) -> NewMessage {
        self.serial += 1;
        let mut envelope = self.serial.to_le_bytes().to_vec();
        envelope.extend(octets(random.usize(0..60), random));
        let count = if random.u8(0..4) == 0 { random.usize(2..5) } else { 1 };
        let delivery = |random: &mut fastrand::Rng| NewDelivery {
            key: key(random),
            delay: some_delay(random),
            state: octets(random.usize(0..20), random).into(),
        };
        NewMessage {
            owner: Owner::new(["", "a", "b"][random.usize(0..3)]).unwrap(),
            priority: Priority(random.i8(-1..2)),
            envelope: envelope.into(),
            deliveries: (0..count).map(|_| delivery(random)).collect(),
        }
    }
}

async fn perform(queue: &LogQueue, wanted: &mut Wanted) -> (Known, Vec<MessageId>) {
    match wanted {
        Wanted::Put(message, body, id) => {
            let put = async {
                let mut draft = queue.put(None).await?;
                *id = Some(draft.id());
                for chunk in body.chunks(1000) {
                    draft.write(Bytes::copy_from_slice(chunk)).await?;
                }
                draft.commit(message.clone()).await
            };
            match put.await {
                Ok(id) => (Known::Done, vec![id]),
                Err(PutError::Full(_)) => (Known::NotDone, Vec::new()),
                Err(_) => (Known::Nothing, Vec::new()),
            }
        }
        Wanted::Finish(lease, outcome, derived) => {
            let lease = Lease::new(lease.message(), lease.delivery(), lease.generation());
            match queue.finish(lease, outcome.clone(), derived.clone()).await {
                Ok(ids) => (Known::Done, ids),
                Err(crate::LeaseError::Stale) => (Known::NotDone, Vec::new()),
                Err(_) => (Known::Nothing, Vec::new()),
            }
        }
        Wanted::Alter(id, what) => (known(queue.alter(*id, what.clone()).await.map(drop)), Vec::new()),
        Wanted::Remove(id) => (known(queue.remove(*id).await), Vec::new()),
    }
}

fn known(answer: Result<(), Error>) -> Known {
    match answer {
        Ok(()) => Known::Done,
        Err(Error::NoSuchMessage(_)) => Known::Gone,
        Err(_) => Known::Nothing,
    }
}

/// Waits for all.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, value) in &mut futures {
            if value.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *value = Some(ready);
            }
        }
        if futures.iter().all(|(_, value)| value.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, value)| value).collect()
}

fn settled(states: &[Option<State>], now: Duration) -> Vec<Option<State>> {
    states.iter().map(|state| state.clone().map(|state| state.settled(now))).collect()
}

/// The number of a message.
fn serial(envelope: &[u8]) -> u64 {
    envelope.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

fn some_delay(random: &mut fastrand::Rng) -> Duration {
    Duration::from_secs(if random.u8(0..4) == 0 { random.u64(1..40) } else { 0 })
}

fn key(random: &mut fastrand::Rng) -> RoutingKey {
    RoutingKey::new(["a", "b", "c.example"][random.usize(0..3)]).unwrap()
}

fn octets(len: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    (0..len).map(|_| random.u8(..)).collect()
}

/// The milliseconds that a check waits until everything due has room in memory.
const PATIENCE: usize = 10_000;
