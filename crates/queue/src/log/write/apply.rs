//! What a record does to index and segments. The same code runs after a write and at an opening, so
//! both give the same state.

use std::mem;

use crate::MessageId;
use crate::index::{Base, Index, Message, Unreadable};
use crate::log::format::place::{At, Stored};
use crate::log::format::record::{Image, Record, StoredBody};
use crate::log::write::segment::Segments;

/// Applies a record. Returns the messages whose body files are no longer needed.
pub(in crate::log) fn apply<S: Base<Stored = Stored>>(
    index: &mut Index<S>,
    segments: &mut Segments,
    record: Record,
    at: &At,
) -> Result<Vec<MessageId>, Unreadable> {
    let mut files = Vec::new();
    match record {
        Record::Message(image) => accept(index, segments, image, at, &mut files)?,
        Record::Outcome(outcome) => {
            let id = outcome.id;
            for end in outcome.ends {
                let slot = (id, end.delivery);
                match end.next {
                    Some(next) => {
                        index.retry(slot, next)?;
                        // An age never shrinks, whatever the wall clock did.
                        index.update(id, |message| message.born = message.born.min(outcome.born))?;
                    }
                    None => {
                        if let Some(gone) = index.done(slot)? {
                            forget(segments, id, &gone, &mut files);
                        }
                    }
                }
            }
            for image in outcome.derived {
                accept(index, segments, image, at, &mut files)?;
            }
        }
        Record::Altered(id, what) => {
            index.alter(id, &what)?;
        }
        Record::Removed(id) => {
            if let Some(gone) = index.take(id)? {
                forget(segments, id, &gone, &mut files);
            }
        }
        Record::Ids(_) | Record::Closed => {}
    }
    Ok(files)
}

fn accept<S: Base<Stored = Stored>>(
    index: &mut Index<S>,
    segments: &mut Segments,
    image: Image,
    at: &At,
    files: &mut Vec<MessageId>,
) -> Result<(), Unreadable> {
    let id = image.id;
    let message = image.message.map(|body| Stored::new(body, at));
    let stored = message.stored;
    if let Some(older) = index.insert(id, message)? {
        segments.subtract(older.stored.sequence, older.stored.len);
        if stored.inline.is_some() && older.stored.inline.is_none() {
            files.push(id);
        }
    }
    segments.add(stored.sequence, stored.len);
    Ok(())
}

fn forget(segments: &mut Segments, id: MessageId, gone: &Message<Stored>, files: &mut Vec<MessageId>) {
    segments.subtract(gone.stored.sequence, gone.stored.len);
    if gone.stored.inline.is_none() {
        files.push(id);
    }
}

/// Applies a copy forward: the copy is the message's newest image from now on.
pub(in crate::log) fn moved<S: Base<Stored = Stored>>(
    index: &mut Index<S>,
    segments: &mut Segments,
    id: MessageId,
    body: StoredBody,
    at: &At,
) -> Result<(), Unreadable> {
    let stored = Stored::new(body, at);
    let mut old = None;
    index.update(id, |message| old = Some(mem::replace(&mut message.stored, stored)))?;
    if let Some(old) = old {
        segments.subtract(old.sequence, old.len);
        segments.add(stored.sequence, stored.len);
    }
    Ok(())
}
