//! Copying forward: live messages of the oldest segment are written again, so that it can be
//! removed.

use std::sync::atomic::Ordering::Relaxed;

use super::Store;
use super::batch::{Effect, Planned};
use crate::index::Message;
use crate::log::disk::vfs::VfsFile;
use crate::log::format::frame::{FRAME, Kind};
use crate::log::format::place::Stored;
use crate::log::format::record::{self, Image, Now, Record, StoredBody, encode_image};
use crate::log::read::body::carried;
use crate::log::read::scan::{Scan, next_good, read_record};
use crate::log::write::segment::{AppendError, Copied, NewRecord};
use crate::{Error, MessageId};

/// What is copied at once.
struct Slice {
    planned: Vec<Planned>,
    /// Where the next slice begins.
    copied: Copied,
}

impl Store {
    /// Copies one slice forward, if that is worth it: see [`Segments::worth_copying`]. Returns
    /// `true` if it did anything.
    pub(super) fn tidy(&mut self, times: u64) -> Result<bool, String> {
        let Some(oldest) = self.segments.worth_copying(times) else { return Ok(false) };
        // A segment that cannot be opened stays, with its messages.
        let Ok(file) = self.shared.readers.get(oldest) else { return Ok(false) };
        let slice = self.plan_slice(oldest, &*file).map_err(|error| error.to_string())?;
        if !slice.planned.is_empty() {
            match self.write(slice.planned) {
                Ok(()) => {}
                // There is no room for copies, so copying cannot make room either.
                Err((AppendError::Full(_), _)) => return Ok(false),
                Err((AppendError::Fatal(why), _)) => return Err(why),
            }
        }
        if let Some(segment) = self.segments.list.get_mut(&oldest) {
            segment.copied = slice.copied;
        }
        Ok(true)
    }

    fn plan_slice(&self, sequence: u64, file: &dyn VfsFile) -> Result<Slice, Error> {
        let segment = self.segments.list.get(&sequence).map(|segment| (segment.copied, segment.tag, segment.len));
        match segment {
            Some((Copied::Records(at), tag, len)) if at < len => {
                self.plan_records(sequence, &Scan { file, tag, len }, at)
            }
            Some((Copied::Records(_), ..)) => {
                // The index says live data is here, but no intact record contains it.
                self.shared.counts.damaged.fetch_add(1, Relaxed);
                Ok(Slice { planned: Vec::new(), copied: Copied::Index(None) })
            }
            Some((Copied::Index(after), ..)) => self.plan_rest(sequence, file, after),
            Some((Copied::All, ..)) | None => Ok(Slice { planned: Vec::new(), copied: Copied::All }),
        }
    }

    /// Reads on through the records of a segment, and copies the live messages.
    fn plan_records(&self, sequence: u64, scan: &Scan<'_>, from: u64) -> Result<Slice, Error> {
        let now = self.shared.now();
        let (mut planned, mut at, mut octets) = (Vec::new(), from, 0);
        while octets < SLICE_OCTETS && planned.len() < SLICE_MESSAGES && at < scan.len {
            let (frame, payload) = match read_record(scan, at) {
                Ok(Some(good)) => good,
                // A damaged or unreadable place. The index tells which messages are there.
                Ok(None) => {
                    at = next_good(scan, at, |_| true).ok().flatten().unwrap_or(scan.len);
                    continue;
                }
                Err(_) => {
                    at = scan.len;
                    continue;
                }
            };
            let begins = at.saturating_add(FRAME as u64);
            at = begins.saturating_add(payload.len() as u64);
            octets += payload.len();
            let images = match record::decode(frame.kind, &payload, frame.wall, now) {
                Ok(Record::Message(image)) => vec![image],
                Ok(Record::Outcome(outcome)) => outcome.derived,
                Ok(Record::Altered(..) | Record::Removed(_) | Record::Ids(_) | Record::Closed) | Err(_) => Vec::new(),
            };
            for image in images {
                planned.extend(self.plan_image(now, (sequence, begins), &image, &payload)?);
            }
        }
        Ok(Slice { planned, copied: Copied::Records(at) })
    }

    /// Copies a message as it is now, if this is its newest image. The payload begins at `at` in
    /// the segment.
    fn plan_image(
        &self,
        now: Now,
        (sequence, at): (u64, u64),
        image: &Image,
        payload: &[u8],
    ) -> Result<Option<Planned>, Error> {
        let found = self.shared.core.with(|index, _| index.get(image.id))?;
        let (inside, len) = (image.message.stored.inline, image.message.body_len);
        let inline = inside.map(|inside| at.saturating_add(inside as u64));
        // A segment may have two images of a message. Only one of them is the index's.
        let newest = found.filter(|message| {
            (message.stored.sequence, message.stored.inline, message.body_len) == (sequence, inline, len)
        });
        let Some(message) = newest else { return Ok(None) };
        let Some(inside) = inside else { return Ok(Some(copy(now, image.id, &message, None))) };
        let end = usize::try_from(len).ok().and_then(|len| inside.checked_add(len));
        let body = end.and_then(|end| payload.get(inside..end));
        Ok(body.map(|body| copy(now, image.id, &message, Some(body))))
    }

    /// Reads on through the index for messages of this segment without an intact record. The body
    /// is copied as it is, with the checksum that it should have, so that its reader finds the
    /// damage.
    fn plan_rest(&self, sequence: u64, file: &dyn VfsFile, from: Option<MessageId>) -> Result<Slice, Error> {
        let now = self.shared.now();
        let (mut planned, mut after, mut octets) = (Vec::new(), from, 0);
        for _ in 0..SLICE_MESSAGES {
            let next = self.shared.core.with(|index, _| {
                let Some(id) = index.id_after(after)? else { return Ok(None) };
                Ok(Some((id, index.get(id)?)))
            })?;
            let Some((id, message)) = next else { return Ok(Slice { planned, copied: Copied::All }) };
            after = Some(id);
            let Some(message) = message.filter(|message| message.stored.sequence == sequence) else { continue };
            let body = message.stored.inline.map(|at| carried(Some(file), at, message.body_len)).transpose();
            // A body that cannot be read stays, and so does the segment: it may be readable another
            // day.
            let Ok(body) = body else { continue };
            planned.push(copy(now, id, &message, body.as_deref()));
            octets += body.map_or(0, |body| body.len());
            if octets >= SLICE_OCTETS {
                break;
            }
        }
        Ok(Slice { planned, copied: Copied::Index(after) })
    }
}

/// A message as it is now. `body`: its body in the log. `None`: it has a file of its own.
fn copy(now: Now, id: MessageId, message: &Message<Stored>, body: Option<&[u8]>) -> Planned {
    let crc = message.stored.crc;
    let mut payload = Vec::new();
    encode_image(&mut payload, now, id, message, crc, body.is_none());
    let inline = body.map(|_| payload.len());
    payload.extend_from_slice(body.unwrap_or_default());
    let body = StoredBody { crc, inline };
    Planned { entry: NewRecord::new(Kind::Message, payload, now), effect: Effect::Moved { id, body } }
}

/// A slice ends once it exceeds one of these: some milliseconds.
const SLICE_OCTETS: usize = 1 << 20;
const SLICE_MESSAGES: usize = 256;
