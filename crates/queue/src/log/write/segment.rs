//! The segments of the log: appending to the newest, removing the oldest.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::MessageId;
use crate::log::disk::names;
use crate::log::disk::vfs::{Vfs, VfsFile, is_for_now};
use crate::log::disk::whereabouts::{self, Known, Placed};
use crate::log::format::frame::{FRAME, Frame, Kind, SEGMENT_HEADER, SegmentHeader};
use crate::log::format::place::{At, Living};
use crate::log::format::record::Now;

/// All segments, oldest first. Only the store's thread has them.
pub(in crate::log) struct Segments {
    pub(in crate::log) vfs: Arc<dyn Vfs>,
    pub(in crate::log) dir: PathBuf,
    /// The largest size of a segment. A batch that would exceed it begins a new one.
    pub(in crate::log) size: u64,
    pub(in crate::log) list: BTreeMap<u64, Segment>,
    /// Segments that the checkpoint counts on and that are missing, with their live bytes.
    pub(in crate::log) missing: BTreeMap<u64, u64>,
    /// The newest segment's open file. `None`: the next batch begins a new segment.
    newest: Option<Newest>,
    /// Where the newest segment is, for other threads.
    shown: whereabouts::NewestPlace,
    /// A name was removed, and that is not durable yet. The next write makes it so first.
    owes_sync: bool,
    buffer: Vec<u8>,
}

struct Newest {
    file: Arc<dyn VfsFile>,
    placed: Placed,
    /// The file is at most this long, and zeros follow the records. Overwriting zeros is synced in
    /// half to two thirds of the time of growing the file.
    reach: u64,
}

pub(in crate::log) struct Segment {
    pub(in crate::log) tag: u64,
    pub(in crate::log) len: u64,
    /// Bytes of records that are the newest image of a message in the queue.
    pub(in crate::log) live_octets: u64,
    /// Damaged bytes could not be copied to the quarantine, so the segment stays.
    pub(in crate::log) pinned: bool,
    /// The checkpoint on the disk needs neither this segment nor any before it.
    pub(in crate::log) is_done_with: bool,
    /// How far live messages have been copied forward.
    pub(in crate::log) copied: Copied,
}

/// Where the next slice of copying a segment forward begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Copied {
    /// At this record.
    Records(u64),
    /// After this message in the index. All records have been read; messages whose record is
    /// damaged are found in the index.
    Index(Option<MessageId>),
    /// Nowhere: what is still live cannot be read.
    All,
}

/// A record to be written.
pub(in crate::log) struct NewRecord {
    pub(in crate::log) kind: Kind,
    pub(in crate::log) payload: Vec<u8>,
    pub(in crate::log) crc: u32,
    /// The wall time that the payload's times count from. The record may wait for room on the disk.
    wall: u64,
}

/// Why a batch is not on stable storage.
#[derive(Debug)]
pub(in crate::log) enum AppendError {
    /// A refusal. Nothing of the batch is left in the log.
    Full(io::Error),
    /// What is on the disk is unknown. The store must stop.
    Fatal(String),
}

impl NewRecord {
    pub(in crate::log) fn new(kind: Kind, payload: Vec<u8>, now: Now) -> Self {
        let crc = crc32fast::hash(&payload);
        Self { kind, payload, crc, wall: now.wall }
    }
}

impl Segments {
    pub(in crate::log) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, size: u64) -> Self {
        let (list, missing) = (BTreeMap::new(), BTreeMap::new());
        let (newest, shown) = (None, whereabouts::NewestPlace::default());
        Self { vfs, dir, size, list, missing, newest, shown, owes_sync: false, buffer: Vec::new() }
    }

    /// Shows from now on where the newest segment is.
    pub(in crate::log) fn watch(&mut self, shown: &whereabouts::NewestPlace) {
        self.shown = Arc::clone(shown);
        self.show();
    }

    fn show(&self) {
        let placed = self.newest.as_ref().map(|newest| newest.placed.clone());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = placed;
    }

    /// What must be there when the queue is opened again.
    pub(in crate::log) fn known(&self) -> Known {
        self.list.iter().map(|(sequence, segment)| (*sequence, segment.len)).collect()
    }

    /// Writes a batch, and waits until it is on stable storage and found under its name: one write,
    /// one sync.
    pub(in crate::log) fn append<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a NewRecord> + Clone,
        id_ceiling: u64,
    ) -> Result<Vec<At>, AppendError> {
        self.settle()?;
        let total = entries.clone().map(|entry| (FRAME + entry.payload.len()) as u64).sum::<u64>();
        let newest = self.newest.as_ref().and(self.list.last_key_value()).map(|(_, segment)| segment.len);
        let fits = newest.is_some_and(|len| len <= SEGMENT_HEADER as u64 || len.saturating_add(total) <= self.size);
        if !fits {
            self.begin(id_ceiling)?;
        }
        let path = self.newest_path();
        let (Some(mut last), Some(newest)) = (self.list.last_entry(), &mut self.newest) else {
            return Err(AppendError::Fatal("the log has no segment to write to; restart the program".to_owned()));
        };
        let sequence = *last.key();
        let segment = last.get_mut();
        let base = segment.len;
        let fatal = |what: &str, error: &io::Error| fatal(&path, what, error);

        self.buffer.clear();
        let mut places = Vec::new();
        for entry in entries {
            let frame = Frame {
                len: u32::try_from(entry.payload.len()).map_err(|_| too_long())?,
                base: u32::try_from(base).map_err(|_| too_long())?,
                kind: entry.kind,
                crc: entry.crc,
                wall: entry.wall,
            };
            frame.encode(segment.tag, &mut self.buffer);
            let payload = base.saturating_add(self.buffer.len() as u64);
            let len = (FRAME + entry.payload.len()) as u64;
            places.push(At { sequence, payload, len });
            self.buffer.extend_from_slice(&entry.payload);
        }
        let end = base.saturating_add(total);
        let ahead = AHEAD.min(self.size / AHEAD_PART).min(self.size.saturating_sub(end));
        // If the file was cut from outside, the write would leave zeros in place of what was there.
        match newest.file.len() {
            Ok(len) if len >= base => {}
            Ok(_) => newest.placed.check(&*self.vfs, base).map_err(AppendError::Fatal)?,
            Err(error) => return Err(fatal("could not be examined", &error)),
        }
        if let Err(error) = newest.write(&mut self.buffer, base, ahead) {
            if !is_for_now(&error) {
                return Err(fatal("could not be written", &error));
            }
            // What was written must not come back after a crash: the callers are told that it was
            // refused.
            newest.cut(base).map_err(|error| fatal("could not be cut back", &error))?;
            return Err(AppendError::Full(error));
        }
        newest.file.sync().map_err(|error| fatal("could not be synced", &error))?;
        newest.placed.check(&*self.vfs, end).map_err(AppendError::Fatal)?;
        segment.len = end;
        // The memory of one large batch is not kept forever.
        self.buffer.shrink_to(KEPT_BUFFER);
        Ok(places)
    }

    /// Goes on writing to the newest segment that was found, instead of beginning a new one.
    pub(in crate::log) fn resume(&mut self) -> io::Result<()> {
        if !self.list.is_empty() {
            let path = self.newest_path();
            let file = self.vfs.open(&path)?;
            let placed = Placed::new(path, &*file)?;
            self.newest = Some(Newest { file, placed, reach: 0 });
        }
        Ok(())
    }

    /// Cuts the zeros off the newest segment. Only the newest segment of an open queue has any.
    pub(in crate::log) fn seal(&mut self) -> Result<(), AppendError> {
        let path = self.newest_path();
        if let (Some((_, segment)), Some(newest)) = (self.list.last_key_value(), &mut self.newest)
            && newest.reach > segment.len
        {
            match newest.file.set_len(segment.len) {
                Err(error) if is_for_now(&error) => return Err(AppendError::Full(error)),
                cut => cut.and_then(|()| newest.file.sync()),
            }
            .map_err(|error| fatal(&path, "could not be cut at its end", &error))?;
            newest.reach = segment.len;
        }
        Ok(())
    }

    /// Where the next record goes.
    pub(in crate::log) fn position(&self) -> (u64, u64) {
        self.list.last_key_value().map_or((0, 0), |(sequence, segment)| (*sequence, segment.len))
    }

    /// The tag of a segment; 0 if there is none.
    pub(in crate::log) fn tag(&self, sequence: u64) -> u64 {
        self.list.get(&sequence).map_or(0, |segment| segment.tag)
    }

    pub(in crate::log) fn add(&mut self, sequence: u64, len: u64) {
        if let Some(segment) = self.list.get_mut(&sequence) {
            segment.live_octets = segment.live_octets.saturating_add(len);
        }
    }

    pub(in crate::log) fn subtract(&mut self, sequence: u64, len: u64) {
        if let Some(segment) = self.list.get_mut(&sequence) {
            segment.live_octets = segment.live_octets.saturating_sub(len);
        } else if let Some(octets) = self.missing.get_mut(&sequence) {
            *octets = octets.saturating_sub(len);
        }
    }

    pub(in crate::log) fn living(&self) -> Vec<Living> {
        let living = |(sequence, segment): (&u64, &Segment)| Living {
            sequence: *sequence,
            octets: segment.live_octets,
            pinned: segment.pinned,
        };
        let missing = self.missing.iter().filter(|(_, octets)| **octets > 0);
        let missing = missing.map(|(sequence, octets)| Living { sequence: *sequence, octets: *octets, pinned: false });
        self.list.iter().map(living).chain(missing).collect()
    }

    /// Notes a written checkpoint: its live bytes, and the segment of its position.
    pub(in crate::log) fn checkpointed(&mut self, living: &[Living], position: u64) {
        for each in living.iter().filter(|each| each.octets == 0 && each.sequence < position) {
            if let Some(segment) = self.list.get_mut(&each.sequence) {
                segment.is_done_with = true;
            }
        }
    }

    /// Returns `true` if a checkpoint would let the oldest segment be removed.
    pub(in crate::log) fn wants_checkpoint(&self) -> bool {
        let oldest = self.list.first_key_value().map(|(_, segment)| segment);
        self.list.len() > 1
            && oldest.is_some_and(|oldest| oldest.live_octets == 0 && !oldest.is_done_with && !oldest.pinned)
    }

    /// Removes the oldest segment if the checkpoint does not need it, and returns its number.
    ///
    /// One segment at a time, with a sync of the folder after each. If of two removals only the
    /// second were durable, the first segment's messages would come back without the records that
    /// ended them.
    pub(in crate::log) fn drop_oldest(&mut self) -> Result<Option<u64>, AppendError> {
        match self.settle() {
            Err(AppendError::Full(_)) => return Ok(None),
            settled => settled?,
        }
        if self.list.len() < 2 {
            return Ok(None);
        }
        let Some(oldest) = self.list.first_entry() else { return Ok(None) };
        if oldest.get().pinned || !oldest.get().is_done_with {
            return Ok(None);
        }
        let sequence = *oldest.key();
        let path = self.dir.join(names::segment(sequence));
        match self.vfs.remove(&path) {
            // It is tried again later.
            Err(error) if is_for_now(&error) => return Ok(None),
            removed => {
                oldest.remove();
                removed.map_err(|error| fatal(&path, "could not be removed", &error))?;
            }
        }
        self.owes_sync = true;
        match self.settle() {
            Ok(()) | Err(AppendError::Full(_)) => Ok(Some(sequence)),
            Err(error) => Err(error),
        }
    }

    /// Makes an earlier removal of a name durable, if that is still owed.
    fn settle(&mut self) -> Result<(), AppendError> {
        if self.owes_sync {
            self.sync_dir()?;
            self.owes_sync = false;
        }
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), AppendError> {
        self.vfs.sync_dir(&self.dir).map_err(|error| match is_for_now(&error) {
            true => AppendError::Full(error),
            false => fatal(&self.dir, "could not be synced", &error),
        })
    }

    /// Returns the oldest segment with live messages, if enough of the log is dead: `times` the
    /// larger of half the live bytes and two segments. Segments that can be removed as they are do
    /// not count.
    pub(in crate::log) fn worth_copying(&self, times: u64) -> Option<u64> {
        if self.list.len() < 2 {
            return None;
        }
        let mut rest =
            self.list.iter().skip_while(|(_, segment)| segment.live_octets == 0 && !segment.pinned).peekable();
        let (sequence, oldest) = rest.peek().copied()?;
        let (total, live) = rest.fold((0_u64, 0_u64), |(total, live), (_, segment)| {
            (total.saturating_add(segment.len), live.saturating_add(segment.live_octets))
        });
        let least = (live / 2).max(self.size.saturating_mul(2)).saturating_mul(times);
        let is_newest = self.list.last_key_value().is_some_and(|(newest, _)| newest == sequence);
        let worth = total.saturating_sub(live) > least && !oldest.pinned && oldest.copied != Copied::All;
        (worth && !is_newest).then_some(*sequence)
    }

    pub(in crate::log) fn octets(&self) -> u64 {
        self.list.values().map(|segment| segment.len).sum()
    }

    /// Creates the next segment, durably.
    fn begin(&mut self, id_ceiling: u64) -> Result<(), AppendError> {
        self.seal()?;
        let last = self.list.last_key_value().map_or(0, |(sequence, _)| *sequence);
        let sequence = last.checked_add(1).ok_or_else(too_long)?;
        let path = self.dir.join(names::segment(sequence));
        let tag = self.vfs.random().map_err(|error| fatal(&path, "could not be given a random tag", &error))?;
        let header = SegmentHeader { sequence, tag, id_ceiling }.encode();
        let written = self.vfs.create(&path).and_then(|file| file.write_at(&header, 0).map(|()| file));
        let file = match written {
            Ok(file) => file,
            Err(error) if is_for_now(&error) => {
                self.forget_new(&path)?;
                return Err(AppendError::Full(error));
            }
            Err(error) => return Err(fatal(&path, "could not be created", &error)),
        };
        file.sync().map_err(|error| fatal(&path, "could not be synced", &error))?;
        let placed =
            Placed::new(path.clone(), &*file).map_err(|error| fatal(&path, "could not be examined", &error))?;
        if let Err(error) = self.sync_dir() {
            if matches!(error, AppendError::Full(_)) {
                self.forget_new(&path)?;
            }
            return Err(error);
        }
        self.list.insert(sequence, Segment::new(tag, SEGMENT_HEADER as u64));
        self.newest = Some(Newest { file, placed, reach: SEGMENT_HEADER as u64 });
        self.show();
        Ok(())
    }

    /// Removes, durably, the name of a segment that found no room. The segment before it is written
    /// on, and must not seem to have a successor.
    fn forget_new(&mut self, path: &Path) -> Result<(), AppendError> {
        match self.vfs.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fatal(path, "could not be removed", &error));
            }
            _ => {}
        }
        self.owes_sync = true;
        self.settle()
    }

    fn newest_path(&self) -> PathBuf {
        self.dir.join(names::segment(self.list.last_key_value().map_or(0, |(sequence, _)| *sequence)))
    }
}

impl Newest {
    /// Writes a batch, and `ahead` zeros after it if it exceeds the zeros that are there.
    fn write(&mut self, batch: &mut Vec<u8>, at: u64, ahead: u64) -> io::Result<()> {
        let len = batch.len();
        if at.saturating_add(len as u64) > self.reach {
            batch.resize(len.saturating_add(usize::try_from(ahead).unwrap_or(0)), 0);
            self.reach = at.saturating_add(batch.len() as u64);
        }
        match self.file.write_at(batch, at) {
            Err(error) if batch.len() > len && is_for_now(&error) => {
                // There may be room for the batch alone.
                batch.truncate(len);
                self.file.write_at(batch, at)
            }
            written => written,
        }
    }

    /// Cuts the file, durably.
    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.sync()?;
        self.reach = len;
        Ok(())
    }
}

impl Segment {
    pub(in crate::log) fn new(tag: u64, len: u64) -> Self {
        let copied = Copied::Records(SEGMENT_HEADER as u64);
        Self { tag, len, live_octets: 0, pinned: false, is_done_with: false, copied }
    }
}

fn fatal(path: &Path, what: &str, error: &io::Error) -> AppendError {
    AppendError::Fatal(format!("{} {what}: {error}; check the disk (acknowledged mail is on it)", path.display()))
}

fn too_long() -> AppendError {
    AppendError::Fatal(
        "a number is beyond what the log's format holds; let this queue run empty and begin another one".to_owned(),
    )
}

const KEPT_BUFFER: usize = 8 << 20;
/// Zeros written after a batch that exceeds those that are there, in bytes.
const AHEAD: u64 = 256 << 10;
/// At most this part of a small segment.
const AHEAD_PART: u64 = 16;
