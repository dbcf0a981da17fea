//! Reading one segment: its records, and its damaged places.

use std::io;
use std::path::Path;

use super::{Failure, Opening};
use crate::MessageId;
use crate::index::Unreadable;
use crate::log::checkpoint::{Meta, Work};
use crate::log::disk::names;
use crate::log::disk::quarantine::copy;
use crate::log::disk::vfs::{VfsFile, is_full, read_exact};
use crate::log::format::frame::{FRAME, Frame, SEGMENT_HEADER, SegmentHeader};
use crate::log::format::place::At;
use crate::log::format::record::{self, Now, Record};
use crate::log::options::{Damage, OpenError};
use crate::log::read::scan::{Scan, next_good, read_record, zeros_from};
use crate::log::write::apply::apply;
use crate::log::write::segment::Segment;

impl Opening<'_> {
    /// Reads the segment from `start_at` on, or only its header.
    pub(super) fn read_segment(
        &mut self,
        sequence: u64,
        start_at: u64,
        header_alone: bool,
        newest: bool,
    ) -> Result<(), Failure> {
        let path = self.segments.dir.join(names::segment(sequence));
        let io = |path: &Path| OpenError::io(path);
        let file = self.vfs.open(&path).map_err(io(&path))?;
        let len = file.len().map_err(io(&path))?;
        if start_at > len {
            let why = format!("log/{} is shorter than when the index was written", names::segment(sequence));
            return Err(Failure::Index(why));
        }
        let mut start = [0; SEGMENT_HEADER + FRAME];
        let have = usize::try_from(len).unwrap_or(usize::MAX).min(start.len());
        let start = start.get_mut(..have).unwrap_or_default();
        read_exact(&*file, start, 0).map_err(io(&path))?;
        let header = SegmentHeader::decode(start).ok().filter(|header| header.sequence == sequence);
        let known = self.position.filter(|position| position.0 == sequence).map(|_| self.tag);
        let tag = match header {
            Some(header) if known.is_some_and(|known| known != header.tag) => {
                return Err(Failure::Index(format!(
                    "log/{} is not the segment that was there when the index was written",
                    names::segment(sequence)
                )));
            }
            Some(header) => {
                self.next_id = self.next_id.max(header.id_ceiling);
                header.tag
            }
            None if newest && len <= SEGMENT_HEADER as u64 && start_at <= len => {
                self.segments.list.remove(&sequence);
                self.vfs.remove(&path).map_err(io(&path))?;
                self.vfs.sync_dir(&self.segments.dir).map_err(io(&self.segments.dir))?;
                return Ok(());
            }
            None => {
                let what = "has a damaged header; its records were read";
                let header = 0..len.min(SEGMENT_HEADER as u64);
                self.report.tell(Damage::within(path.clone(), header, what));
                let first = start.get(SEGMENT_HEADER..).and_then(|record| record.first_chunk());
                known.unwrap_or_else(|| first.map_or(0, |tag| u64::from_le_bytes(*tag)))
            }
        };
        let segment = self.segments.list.entry(sequence).or_insert_with(|| Segment::new(tag, len));
        (segment.tag, segment.len) = (tag, len);
        if header_alone {
            return Ok(());
        }
        let scan = Scan { file: &*file, tag, len };
        let mut position = (SEGMENT_HEADER as u64).min(len).max(start_at);
        // Everything before this is known to be on stable storage. A checkpoint is never ahead of
        // that.
        let mut proven = start_at;
        while position < len {
            match read_record(&scan, position).map_err(io(&path))? {
                Some((frame, payload)) => {
                    self.replay(sequence, &*file, position, frame, &payload, &path)?;
                    proven = proven.max(u64::from(frame.base).min(position));
                    position = position.saturating_add((FRAME + payload.len()) as u64);
                    if self.index.cost() > self.budget {
                        if newest {
                            secure(&*file, proven, position).map_err(io(&path))?;
                            proven = position;
                        }
                        self.write_checkpoint((sequence, position))?;
                    }
                }
                None => {
                    let next = next_good(&scan, position, |_| true).map_err(io(&path))?;
                    // A later record proves that this place was on stable storage when it was
                    // written.
                    let proof = next_good(&scan, position, |frame| u64::from(frame.base) > position);
                    if newest && proof.map_err(io(&path))?.is_none() {
                        let torn = zeros_from(&scan, position).map_err(io(&path))?;
                        self.report.truncated = torn.saturating_sub(position);
                        file.set_len(position).map_err(io(&path))?;
                        self.set_len(sequence, position);
                        break;
                    }
                    let end = next.unwrap_or(len);
                    let what = format!("is damaged from {position} to {end}");
                    self.report.tell(Damage::within(path.clone(), position..end, &what));
                    self.quarantine(&*file, sequence, position, end);
                    position = end;
                }
            }
        }
        if newest {
            secure(&*file, proven, position).map_err(io(&path))?;
        }
        Ok(())
    }

    fn replay(
        &mut self,
        sequence: u64,
        file: &dyn VfsFile,
        position: u64,
        frame: Frame,
        payload: &[u8],
        path: &Path,
    ) -> Result<(), Unreadable> {
        let record = match record::decode(frame.kind, payload, frame.wall, self.now) {
            Ok(record) => record,
            Err(why) => {
                let end = position.saturating_add((FRAME + payload.len()) as u64);
                let what = format!("has an unknown record at {position}: {why}");
                self.report.tell(Damage::within(path.to_owned(), position..end, &what));
                self.quarantine(file, sequence, position, end);
                return Ok(());
            }
        };
        let mut highest = |id: MessageId| self.next_id = self.next_id.max(id.as_u64().saturating_add(1));
        match &record {
            Record::Message(image) => highest(image.id),
            Record::Outcome(outcome) => outcome.derived.iter().for_each(|image| highest(image.id)),
            Record::Ids(ceiling) => self.next_id = self.next_id.max(*ceiling),
            Record::Altered(..) | Record::Removed(_) | Record::Closed => {}
        }
        self.report.records = self.report.records.saturating_add(1);
        let at = At { sequence, payload: position.saturating_add(FRAME as u64), len: (FRAME + payload.len()) as u64 };
        // Unneeded body files are found later, with all that belong to no message.
        apply(&mut self.index, &mut self.segments, record, &at)?;
        Ok(())
    }

    /// Writes a checkpoint, because the log has more than fits into memory.
    pub(super) fn write_checkpoint(&mut self, position: (u64, u64)) -> Result<(), Failure> {
        self.index.advance(self.now.moment)?;
        let frozen = self.index.freeze();
        let Now { moment, wall } = self.now;
        let tag = self.segments.tag(position.0);
        let meta = Meta { position, tag, now: moment, wall, next_id: self.next_id, totals: frozen.totals };
        let promoted = self.checkpoint.write(&Work { frozen, segments: self.segments.living(), meta })?;
        self.index.install(self.checkpoint.snapshot()?, promoted);
        Ok(())
    }

    /// Copies a damaged place to the quarantine. If that fails, the segment stays.
    fn quarantine(&mut self, file: &dyn VfsFile, sequence: u64, from: u64, to: u64) {
        let path = names::copied_part(self.dir, sequence, from, "bad");
        let copied = match self.vfs.exists(&path) {
            Ok(true) => Ok(()),
            Ok(false) => copy(&**self.vfs, file, from, to, &path),
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // The next opening would take a partial copy for a whole one.
            drop(self.vfs.remove(&path));
            if let Some(segment) = self.segments.list.get_mut(&sequence) {
                segment.pinned = true;
            }
        }
    }

    fn set_len(&mut self, sequence: u64, len: u64) {
        if let Some(segment) = self.segments.list.get_mut(&sequence) {
            segment.len = len;
        }
    }
}

/// Writes a part of a file again and syncs it. After a failed sync the system may take it for
/// written, and would not write it by itself.
fn secure(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; SECURE_CHUNK];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX).min(SECURE_CHUNK);
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        read_exact(file, chunk, at)?;
        match file.write_at(chunk, at) {
            Ok(()) => {}
            // Some file systems need room even to overwrite. Then the file is synced as it is.
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
        at = at.saturating_add(want as u64);
    }
    file.sync()
}

const SECURE_CHUNK: usize = 64 << 10;
