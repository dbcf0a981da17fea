//! What a queue was told and what it acknowledged, to compare with what it says after a crash.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::{claim, message, put, read};
use crate::log::LogQueue;
use crate::{Derived, MessageId, Outcome, PutError, Queue};

/// Each message by its id.
#[derive(Default)]
pub(super) struct Ledger {
    entries: BTreeMap<MessageId, Entry>,
    /// Bodies of puts that failed or were not answered, and of what outcomes without answer derive: they may or may not be there.
    doubtful: Vec<Vec<u8>>,
    pub(super) acknowledged: u64,
}

#[derive(Clone)]
struct Entry {
    body: Vec<u8>,
    /// The states it may be in: `None` for gone. The last acknowledged one, and one that was asked for without an answer.
    states: Vec<Option<Vec<u8>>>,
}

impl Ledger {
    /// Does something at random, and notes it.
    pub(super) async fn step(&mut self, queue: &LogQueue, random: &mut fastrand::Rng) {
        match random.u8(0..10) {
            0..5 => {
                // Several at once share a batch.
                let count = if random.bool() { 1 } else { random.usize(2..6) };
                let bodies: Vec<_> = (0..count).map(|_| some_body(random)).collect();
                if random.u8(0..4) == 0 {
                    drop(queue.put(None).await);
                }
                let puts = bodies.iter().map(|body| put(queue, message("a", b"new"), body)).collect();
                for (id, body) in all(puts).await.into_iter().zip(bodies) {
                    match id {
                        Ok(id) => self.accepted(id, body),
                        // That it was refused is certain as well.
                        Err(PutError::Full(_)) => {}
                        Err(_) => self.doubtful.push(body),
                    }
                }
            }
            5..9 => {
                for claimed in claim(queue, random.usize(1..4)).await {
                    let id = claimed.lease.message();
                    if random.bool() {
                        let derived = (random.u8(0..4) == 0).then(|| body(random.usize(0..500), random));
                        let made = derived
                            .iter()
                            .map(|body| Derived { message: message("r", b"new"), body: Bytes::copy_from_slice(body) });
                        let done = queue.finish(claimed.lease, Outcome::Done, made.collect()).await;
                        self.outcome(id, None, done.is_ok());
                        match done {
                            Ok(ids) => ids.into_iter().zip(derived).for_each(|(id, body)| self.accepted(id, body)),
                            Err(_) => self.doubtful.extend(derived),
                        }
                    } else {
                        let state = random.u64(..).to_le_bytes().to_vec();
                        let retry = Outcome::Retry { delay: Duration::ZERO, state: Bytes::from(state.clone()) };
                        let done = queue.finish(claimed.lease, retry, Vec::new()).await;
                        self.outcome(id, Some(state), done.is_ok());
                    }
                }
            }
            _ => {
                let known: Vec<_> = self.entries.keys().copied().collect();
                let Some(id) = known.get(random.usize(0..known.len().max(1))) else { return };
                if let Err(error) = queue.remove(*id).await {
                    if !matches!(error, crate::Error::NoSuchMessage(_)) {
                        self.outcome(*id, None, false);
                    }
                } else {
                    self.outcome(*id, None, true);
                }
            }
        }
    }

    fn accepted(&mut self, id: MessageId, body: Vec<u8>) {
        self.acknowledged += 1;
        let before = self.entries.insert(id, Entry { body, states: vec![Some(b"new".to_vec())] });
        assert!(before.is_none(), "{id} was given out twice");
    }

    fn outcome(&mut self, id: MessageId, state: Option<Vec<u8>>, acknowledged: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if acknowledged {
            self.acknowledged += 1;
            entry.states.clear();
        }
        entry.states.push(state);
    }

    /// Everything acknowledged is there as acknowledged, nothing else is but what was asked for without an answer. What is there
    /// is certain from now on.
    pub(super) async fn check(&mut self, queue: &LogQueue, context: &str) {
        assert!(queue.report().damaged.is_empty(), "{context}: {:?}", queue.report());
        let listed = queue.list(None, usize::MAX).await.unwrap();
        let mut found = BTreeMap::new();
        for claimed in claim(queue, usize::MAX).await {
            let body = read(queue, &claimed).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            found.insert(claimed.lease.message(), (body, claimed.state.to_vec()));
            queue.extend(&claimed.lease, Duration::ZERO).await.unwrap();
        }
        assert_eq!(listed.len(), found.len(), "{context}: all that is listed is due");
        for (id, entry) in &self.entries {
            let state = found.get(id).map(|(_, state)| state.clone());
            assert!(entry.states.contains(&state), "{context}: {id} is {state:?}, not one of {:?}", entry.states);
            if let Some((body, _)) = found.get(id) {
                assert!(*body == entry.body, "{context}: {id} has another body");
            }
        }
        let mut entries = BTreeMap::new();
        for (id, (body, state)) in found {
            if !self.entries.contains_key(&id) {
                assert!(self.doubtful.contains(&body), "{context}: {id} comes from nowhere");
            }
            entries.insert(id, Entry { body, states: vec![Some(state)] });
        }
        // What is gone stays gone.
        for (id, entry) in std::mem::take(&mut self.entries) {
            entries.entry(id).or_insert(Entry { body: entry.body, states: vec![None] });
        }
        self.entries = entries;
        self.doubtful.clear();
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

fn some_body(random: &mut fastrand::Rng) -> Vec<u8> {
    let len = if random.u8(0..6) == 0 { random.usize(1500..6000) } else { random.usize(0..900) };
    body(len, random)
}

fn body(len: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    (0..len).map(|_| random.u8(..)).collect()
}
