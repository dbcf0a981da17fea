//! From memory into the next base, and out of memory when that stands.

use std::mem;
use std::sync::Arc;

use super::{Base, Index, Message, Moment};
use crate::MessageId;

/// What a base has to be told to become the next one.
pub(crate) struct Frozen<B> {
    /// By id.
    pub(crate) changes: Vec<Version<B>>,
    /// The moment that divides ready from waiting.
    pub(crate) now: Moment,
    pub(crate) totals: Totals,
}

/// What became of a message: its newest version, or nothing when it is gone.
pub(crate) type Version<B> = (MessageId, Option<Arc<Message<B>>>);

/// What is in the queue, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
    pub(crate) held: u64,
    /// Octets of bodies.
    pub(crate) bytes: u64,
}

impl<S: Base> Index<S> {
    /// What has changed since this was asked last. Until [`install`](Self::install) or [`thaw`](Self::thaw) it stays in memory.
    pub(crate) fn freeze(&mut self) -> Frozen<S::Stored> {
        let memory = &mut self.memory;
        memory.changed_before = mem::take(&mut memory.changed);
        memory.gone_before = mem::take(&mut memory.gone);
        let mut changes = Vec::with_capacity(memory.changed_before.len());
        for id in &memory.changed_before {
            let entry = memory.messages.get_mut(id);
            changes.push((
                *id,
                entry.map(|entry| {
                    entry.in_base = true;
                    Arc::clone(&entry.message)
                }),
            ));
        }
        Frozen { changes, now: self.now, totals: self.totals }
    }

    /// The base as of the last [`freeze`](Self::freeze), in which something has become ready unless `promoted` is false. What is
    /// too much for memory is left to it from now on.
    pub(crate) fn install(&mut self, base: S, promoted: bool) {
        self.shelf = super::Shelf::new(base);
        self.memory.changed_before.clear();
        self.memory.gone_before.clear();
        self.evict();
        self.base_event = Some(self.now);
        self.stirred |= promoted;
    }

    /// The last base once more: the checkpoint came to nothing.
    pub(crate) fn thaw(&mut self, base: S) {
        self.shelf = super::Shelf::new(base);
        let memory = &mut self.memory;
        memory.changed.append(&mut memory.changed_before);
        memory.gone.append(&mut memory.gone_before);
    }

    /// Leaves messages to the base until those in memory cost half of what they may: first those that wait, then the newest.
    fn evict(&mut self) {
        let keep = self.bounds.memory / 2;
        for waiting_only in [true, false] {
            if self.cost() <= keep {
                return;
            }
            let mut ids = Vec::new();
            let mut left = self.cost();
            for (id, entry) in self.memory.messages.iter().rev() {
                let message = &entry.message;
                let is_clean = entry.in_base && !self.memory.changed.contains(id);
                if is_clean && message.is_at_rest() && !(waiting_only && message.is_ready()) {
                    ids.push(*id);
                    left = left.saturating_sub(message.cost());
                    if left <= keep {
                        break;
                    }
                }
            }
            for id in ids {
                self.forget(id);
            }
        }
    }
}

impl Totals {
    pub(super) fn add<B>(&mut self, message: &Message<B>) {
        self.messages = self.messages.saturating_add(1);
        self.deliveries = self.deliveries.saturating_add(message.deliveries.len() as u64);
        self.held = self.held.saturating_add(u64::from(message.held));
        self.bytes = self.bytes.saturating_add(message.body_len);
    }

    pub(super) fn subtract<B>(&mut self, message: &Message<B>) {
        self.messages = self.messages.saturating_sub(1);
        self.deliveries = self.deliveries.saturating_sub(message.deliveries.len() as u64);
        self.held = self.held.saturating_sub(u64::from(message.held));
        self.bytes = self.bytes.saturating_sub(message.body_len);
    }
}
