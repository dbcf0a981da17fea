//! What a record does. The same whether it was written a moment ago or is read at opening, so that opening again gives the same
//! state.

use crate::MessageId;
use crate::index::{Base, Index, Message, Unreadable};
use crate::log::format::record::{Image, Record, StoredBody};
use crate::log::write::segment::{At, Segments};

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Stored {
    /// The segment with its newest image.
    pub(in crate::log) sequence: u64,
    /// The octets that count as living there.
    pub(in crate::log) len: u64,
    pub(in crate::log) crc: u32,
    /// Where in the segment the body begins; otherwise it has a file of its own.
    pub(in crate::log) inline: Option<u64>,
}

impl Stored {
    pub(in crate::log) fn new(body: StoredBody, at: &At) -> Self {
        let inline = body.inline.map(|inside| at.payload.saturating_add(inside as u64));
        Self { sequence: at.sequence, len: at.len, crc: body.crc, inline }
    }
}

/// Returns the messages whose own body files are of no use any more.
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
