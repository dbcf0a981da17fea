//! The bound on messages that are being received: their number, and their memory.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::Error;
use crate::core::Core;
use crate::log::checkpoint::Snapshot;
use crate::log::disk::vfs::Vfs;
use crate::log::options::LogOptions;

/// What all drafts take together.
pub(in crate::log) struct DraftSlots {
    core: Arc<Core<Snapshot>>,
    max_drafts: usize,
    max_memory: usize,
    max_inline: usize,
    drafts: AtomicUsize,
    memory: AtomicUsize,
}

/// What one draft takes, given back when this is dropped: its place among the drafts, its share of
/// the memory, and its file unless that is [kept](Self::keep).
pub(in crate::log) struct DraftSlot {
    slots: Arc<DraftSlots>,
    /// The life of the [lanes](super::lanes::Lanes) in which the draft began.
    pub(super) life: u64,
    memory: usize,
    file: Option<(Arc<dyn Vfs>, PathBuf)>,
}

impl DraftSlots {
    pub(in crate::log) fn new(core: Arc<Core<Snapshot>>, options: &LogOptions) -> Self {
        Self {
            core,
            max_drafts: options.max_drafts,
            max_memory: options.draft_memory,
            max_inline: options.inline_body,
            drafts: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
        }
    }

    /// `None`: there are as many drafts as there may be.
    pub(in crate::log) fn take(self: &Arc<Self>, life: u64) -> Option<DraftSlot> {
        let more = |drafts: usize| (drafts < self.max_drafts).then(|| drafts.saturating_add(1));
        self.drafts.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(DraftSlot { slots: Arc::clone(self), life, memory: 0, file: None })
    }

    pub(in crate::log) fn drafts(&self) -> usize {
        self.drafts.load(Relaxed)
    }

    /// Bytes of memory that all drafts take.
    pub(in crate::log) fn memory(&self) -> usize {
        self.memory.load(Relaxed)
    }
}

impl DraftSlot {
    /// The draft's file, removed with the slot.
    pub(super) fn own(&mut self, vfs: Arc<dyn Vfs>, path: PathBuf) {
        self.file = Some((vfs, path));
    }

    /// The message is accepted, or may be: its file stays.
    pub(super) fn keep(&mut self) {
        self.file = None;
    }

    /// Makes room for `more` bytes in the buffer. `false`: the drafts have no memory left.
    pub(super) fn grow(&mut self, buffer: &mut Vec<u8>, more: usize) -> bool {
        let wanted = buffer.len().saturating_add(more);
        if wanted <= buffer.capacity() {
            return true;
        }
        let slots = &self.slots;
        let capacity = buffer.capacity().saturating_mul(2).min(slots.max_inline).max(wanted).max(LEAST_BUFFER);
        let grown = capacity.saturating_sub(self.memory);
        let taken = slots
            .memory
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(grown).filter(|used| *used <= slots.max_memory));
        if taken.is_err() {
            return false;
        }
        self.memory = capacity;
        buffer.reserve_exact(capacity.saturating_sub(buffer.len()));
        true
    }

    /// Counts `bytes` of memory in place of what the slot had, beyond the limit if need be.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.slots.memory.fetch_add(bytes, Relaxed);
        self.slots.memory.fetch_sub(mem::replace(&mut self.memory, bytes), Relaxed);
    }
}

impl Drop for DraftSlot {
    fn drop(&mut self) {
        self.charge(0);
        self.slots.drafts.fetch_sub(1, Relaxed);
        // After a failure the disk's content is unknown: the file stays for the next opening to
        // judge.
        if let Some((vfs, path)) = self.file.take()
            && self.slots.core.ended().is_none_or(|why| matches!(why, Error::Closed))
        {
            // A file that cannot be removed is an orphan: the next opening removes it.
            drop(vfs.remove(&path));
        }
    }
}

const LEAST_BUFFER: usize = 1024;
