//! From memory into the next base, and out of memory once that base is installed. DESIGN.md
//! describes the protocol.

use std::mem;
use std::sync::Arc;

use super::{Base, Index, Message, Moment};
use crate::MessageId;

/// What the next base has to be told.
pub(crate) struct Frozen<B> {
    /// In the order of ids.
    pub(crate) changes: Vec<Version<B>>,
    /// The moment that divides ready from waiting.
    pub(crate) now: Moment,
    pub(crate) totals: Totals,
}

/// The newest version of a message. `None`: the message is gone.
pub(crate) type Version<B> = (MessageId, Option<Arc<Message<B>>>);

/// Counts of the queue's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
    pub(crate) held: u64,
    /// Bytes of bodies.
    pub(crate) bytes: u64,
}

impl<S: Base> Index<S> {
    /// Returns what has changed since the last call. It stays in memory until
    /// [`install`](Self::install) or [`thaw`](Self::thaw).
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

    /// Takes the base that was written from the last [`freeze`](Self::freeze), and lets messages
    /// leave memory if there are too many. `promoted`: a waiting row became a ready one in it.
    pub(crate) fn install(&mut self, base: S, promoted: bool) {
        self.shelf = super::Shelf::new(base);
        self.memory.changed_before.clear();
        self.memory.gone_before.clear();
        self.evict();
        self.base_event = Some(self.now);
        self.stirred |= promoted;
    }

    /// Takes the last base again: the checkpoint was not written.
    pub(crate) fn thaw(&mut self, base: S) {
        self.shelf = super::Shelf::new(base);
        let memory = &mut self.memory;
        memory.changed.append(&mut memory.changed_before);
        memory.gone.append(&mut memory.gone_before);
    }

    /// Lets messages leave memory until the others cost half the limit: first those that only wait,
    /// then the newest.
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
