//! What a record does. The same whether it was written a moment ago or is read at opening, so that opening again gives the same
//! state.

use std::sync::Arc;

use super::format::{Image, Record, StoredBody};
use super::segment::{At, Segments};
use super::vfs::VfsFile;
use crate::MessageId;
use crate::index::{Index, Message};

/// Where a message is.
#[derive(Clone)]
pub(super) struct Stored {
    /// The segment with its newest image.
    pub(super) sequence: u64,
    /// The octets that count as living there.
    pub(super) len: u64,
    pub(super) crc: u32,
    /// The segment's file and where the body begins in it; otherwise it has a file of its own.
    pub(super) inline: Option<(Arc<dyn VfsFile>, u64)>,
}

impl Stored {
    pub(super) fn new(body: StoredBody, at: &At) -> Self {
        let inline = body.inline.map(|inside| (Arc::clone(&at.file), at.payload.saturating_add(inside as u64)));
        Self { sequence: at.sequence, len: at.len, crc: body.crc, inline }
    }
}

/// Returns the messages whose own body files are of no use any more.
pub(super) fn apply(index: &mut Index<Stored>, segments: &mut Segments, record: Record, at: &At) -> Vec<MessageId> {
    let mut files = Vec::new();
    match record {
        Record::Message(image) => accept(index, segments, image, at, &mut files),
        Record::Outcome(outcome) => {
            let slot = (outcome.id, outcome.delivery);
            if let Some(message) = index.get_mut(outcome.id) {
                // An age never shrinks, whatever the wall clock did.
                message.born = message.born.min(outcome.born);
            }
            match outcome.retry {
                Some(retry) => index.retry(slot, retry.due, retry.delay, retry.attempts, retry.state),
                None => {
                    if let Some(gone) = index.done(slot) {
                        forget(segments, outcome.id, &gone, &mut files);
                    }
                }
            }
            for image in outcome.derived {
                accept(index, segments, image, at, &mut files);
            }
        }
        Record::Held(id, held) => {
            index.set_held(id, held);
        }
        Record::Removed(id) => {
            if let Some(gone) = index.take(id) {
                forget(segments, id, &gone, &mut files);
            }
        }
        Record::Ids(_) | Record::Closed => {}
    }
    files
}

fn accept(index: &mut Index<Stored>, segments: &mut Segments, image: Image, at: &At, files: &mut Vec<MessageId>) {
    let id = image.id;
    let message = image.message.map(|body| Stored::new(body, at));
    let (sequence, len, own_file) = (message.stored.sequence, message.stored.len, message.stored.inline.is_none());
    if let Some(older) = index.insert(id, message) {
        segments.subtract(older.stored.sequence, id, older.stored.len);
        if !own_file && older.stored.inline.is_none() {
            files.push(id);
        }
    }
    if index.get(id).is_some() {
        segments.add(sequence, id, len);
    }
}

fn forget(segments: &mut Segments, id: MessageId, gone: &Message<Stored>, files: &mut Vec<MessageId>) {
    segments.subtract(gone.stored.sequence, id, gone.stored.len);
    if gone.stored.inline.is_none() {
        files.push(id);
    }
}
