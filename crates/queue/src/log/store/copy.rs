//! Copying forward: what lives in the oldest segment is written again, so that it can go.

use std::io;
use std::mem;

use super::Store;
use super::batch::{Effect, Planned};
use crate::MessageId;
use crate::index::{Index, Unreadable};
use crate::log::apply::Stored;
use crate::log::checkpoint::Snapshot;
use crate::log::format::{self, Image, Now, Record, StoredBody, encode_image};
use crate::log::frame::{FRAME, Kind};
use crate::log::scan::{Scan, next_good, read_record};
use crate::log::segment::{AppendError, At, Entry, Segments, name};
use crate::log::shared::Shared;

impl Store {
    /// A slice of copying forward, when that is worth it: see [`Segments::worth_copying`]. Whether anything was done.
    pub(super) fn tidy(&mut self, times: u64) -> Result<bool, String> {
        let Some(oldest) = self.segments.worth_copying(times) else { return Ok(false) };
        let planned = self.plan_copies(oldest).map_err(|error| {
            // Nothing is lost yet: the segment stays, and so do the messages in it.
            format!("log/{} could not be read: {error}; check the disk", name(oldest))
        })?;
        if planned.is_empty() {
            return Ok(true);
        }
        match self.write(planned) {
            Ok(()) => Ok(true),
            // Space is short: what could be freed by copying has to wait for space.
            Err((AppendError::Full(_), _)) => Ok(false),
            Err((AppendError::Fatal(why), _)) => Err(why),
        }
    }

    /// Goes on through a segment, and copies what of it lives.
    fn plan_copies(&mut self, sequence: u64) -> io::Result<Vec<Planned>> {
        let now = self.shared.now();
        let file = self.shared.readers.get(sequence)?;
        let mut planned = Vec::new();
        let Some(segment) = self.segments.list.get_mut(&sequence) else { return Ok(planned) };
        let scan = Scan { file: &*file, tag: segment.tag, len: segment.len };
        let mut octets = 0;
        while octets < SLICE_OCTETS && planned.len() < SLICE_MESSAGES && segment.copied_to < segment.len {
            let Some((frame, payload)) = read_record(&scan, segment.copied_to)? else {
                // It was found damaged before, or is now; what lives behind it can be saved still.
                segment.copied_to = next_good(&scan, segment.copied_to, |_| true)?.unwrap_or(segment.len);
                continue;
            };
            let at = segment.copied_to.saturating_add(FRAME as u64);
            segment.copied_to = at.saturating_add(payload.len() as u64);
            octets += payload.len();
            let images = match format::decode(frame.kind, &payload, frame.wall, now) {
                Ok(Record::Message(image)) => vec![image],
                Ok(Record::Outcome(outcome)) => outcome.derived,
                _ => Vec::new(),
            };
            for image in images {
                planned.extend(plan_copy(&self.shared, now, (sequence, at), &image, &payload)?);
            }
        }
        Ok(planned)
    }
}

/// A copy of a message as it is now, if this is its newest image: one of a payload that begins `at` there in the segment.
fn plan_copy(
    shared: &Shared,
    now: Now,
    (sequence, at): (u64, u64),
    image: &Image,
    payload: &[u8],
) -> io::Result<Option<Planned>> {
    let Some(message) = shared.core.with(|index, _| index.get(image.id)).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let (stored, inside) = (&message.stored, image.message.stored.inline);
    // The same message may be twice in a segment, and only one of them has what the index says.
    let is_newest = stored.sequence == sequence
        && stored.inline == inside.map(|inside| at.saturating_add(inside as u64))
        && message.body_len == image.message.body_len;
    if !is_newest {
        return Ok(None);
    }
    let mut copy = Vec::with_capacity(payload.len());
    encode_image(&mut copy, now, image.id, &message, stored.crc, inside.is_none());
    let inline = inside.map(|_| copy.len());
    if let Some(inside) = inside {
        let len = usize::try_from(message.body_len).map_err(io::Error::other)?;
        let body = inside.checked_add(len).and_then(|end| payload.get(inside..end));
        copy.extend_from_slice(body.ok_or_else(|| io::Error::other("a body ends behind its record"))?);
    }
    let body = StoredBody { crc: stored.crc, inline };
    Ok(Some(Planned { entry: Entry::new(Kind::Message, copy, now), effect: Effect::Moved { id: image.id, body } }))
}

/// The copy is on stable storage: it is the message's newest image from now on.
pub(super) fn moved(
    index: &mut Index<Snapshot>,
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

/// A slice of copying ends where it grows beyond one of these: a few milliseconds.
const SLICE_OCTETS: usize = 1 << 20;
const SLICE_MESSAGES: usize = 256;
