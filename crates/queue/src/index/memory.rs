//! The messages in memory, and what the base does not know yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::shelf::Hides;
use super::{Delivery, Message, Slot};
use crate::MessageId;

pub(super) struct Memory<B> {
    pub(super) messages: BTreeMap<MessageId, Resident<B>>,
    /// Messages that the base has and that are gone: since the last freeze, and before it while a
    /// checkpoint is being written.
    pub(super) gone: BTreeSet<MessageId>,
    pub(super) gone_before: BTreeSet<MessageId>,
    /// Messages whose state here the base does not have: for the next checkpoint, and for the one
    /// that is being written.
    pub(super) changed: BTreeSet<MessageId>,
    pub(super) changed_before: BTreeSet<MessageId>,
}

pub(super) struct Resident<B> {
    pub(super) message: Arc<Message<B>>,
    /// The base, or the one that is being written, has some version of it.
    pub(super) in_base: bool,
}

impl<B: Clone> Memory<B> {
    pub(super) fn get(&self, id: MessageId) -> Option<&Message<B>> {
        self.messages.get(&id).map(|entry| &*entry.message)
    }

    pub(super) fn find(&self, slot: Slot) -> Option<(&Message<B>, &Delivery)> {
        let message = self.get(slot.0)?;
        Some((message, message.delivery(slot.1)?))
    }

    pub(super) fn delivery_mut(&mut self, slot: Slot) -> Option<&mut Delivery> {
        Arc::make_mut(&mut self.messages.get_mut(&slot.0)?.message).delivery_mut(slot.1)
    }

    pub(super) fn is_in_base(&self, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|entry| entry.in_base)
    }

    pub(super) fn notes(&self) -> usize {
        self.gone.len() + self.gone_before.len() + self.changed.len() + self.changed_before.len()
    }
}

impl<B> Hides for Memory<B> {
    fn hides(&self, id: MessageId) -> bool {
        self.messages.contains_key(&id) || self.gone.contains(&id) || self.gone_before.contains(&id)
    }
}

impl<B> Default for Memory<B> {
    fn default() -> Self {
        Self {
            messages: BTreeMap::new(),
            gone: BTreeSet::new(),
            gone_before: BTreeSet::new(),
            changed: BTreeSet::new(),
            changed_before: BTreeSet::new(),
        }
    }
}
