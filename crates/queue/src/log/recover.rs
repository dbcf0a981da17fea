//! Reading the log at an opening: what it says, what is damaged.

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::apply::{Stored, apply};
use super::checkpoint::{self, Checkpoint, Meta, Snapshot, Work};
use super::format::{self, Now, Record};
use super::frame::{FRAME, Frame, SEGMENT_HEADER, SegmentHeader};
use super::quarantine::{copy, set_aside};
use super::scan::{Scan, next_good, read_record, zeros_from};
use super::segment::{At, Living, Segment, Segments, name, random, sequence};
use super::shared::wall;
use super::vfs::{Vfs, VfsFile, is_full, read_exact};
use super::{Damage, LogOptions, OpenError, OpenReport, hex};
use crate::index::{Altered, Bounds, Index, Message, Moment, Unreadable, after, first_generation};
use crate::{MessageId, Stats};

/// What an opening found.
pub(super) struct Recovered {
    pub(super) checkpoint: Checkpoint,
    /// The log up to here is in the checkpoint.
    pub(super) position: (u64, u64),
    pub(super) index: Index<Snapshot>,
    pub(super) segments: Segments,
    pub(super) next_id: u64,
    pub(super) report: OpenReport,
    /// The time on the queue's clock.
    pub(super) moment: Moment,
}

/// Everything that opening works with.
struct Opening<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    now: Now,
    /// How much memory the index may take.
    budget: usize,
    checkpoint: Checkpoint,
    /// The log up to here is in the checkpoint; [`None`] while there is none.
    position: Option<(u64, u64)>,
    /// The tag of the segment there.
    tag: u64,
    index: Index<Snapshot>,
    segments: Segments,
    next_id: u64,
    report: OpenReport,
}

/// What an opening does about the folder `bodies/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    /// See that each message has its file and each file its message.
    Check,
    /// Nothing: whoever asks will look.
    Leave,
}

/// Reads the checkpoint, and the log from there on. What it read is on stable storage then, whatever a sync has failed to do before.
/// `moment` is the time on the queue's clock, if that is known: otherwise it goes on from the checkpoint's.
pub(super) fn recover(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: &LogOptions,
    moment: Option<Moment>,
    bodies: Bodies,
) -> Result<Recovered, OpenError> {
    let mut damaged = Vec::new();
    let sequences = list_segments(&**vfs, &dir.join("log"), &mut damaged)?;
    let wall = wall(&*options.clock);
    loop {
        let checkpoint = open_checkpoint(vfs, dir, options.index_cache, &sequences, &mut damaged)?;
        let mut opening = Opening::new(vfs, dir, options, wall, moment, checkpoint, damaged)?;
        match opening.read(&sequences) {
            Ok(()) => return opening.end(bodies),
            Err(Failure::Open(error)) => return Err(error),
            // Made anew once: one that contradicts itself then is no matter of the disk.
            Err(Failure::Index(why)) if opening.position.is_some() => {
                damaged = mem::take(&mut opening.report.damaged);
                drop(opening);
                set_aside(&**vfs, dir, &why, &mut damaged)?;
            }
            Err(Failure::Index(why)) => return Err(OpenError::Failed { path: checkpoint::path(dir), why }),
        }
    }
}

/// Why reading the log came to an end.
enum Failure {
    Open(OpenError),
    /// The checkpoint is not to be believed, or could not be written.
    Index(String),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::Index(error.0)
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        Self::Index(error.to_string())
    }
}

fn list_segments(vfs: &dyn Vfs, log: &Path, damaged: &mut Vec<Damage>) -> Result<Vec<u64>, OpenError> {
    let mut sequences = Vec::new();
    for name in vfs.list(log).map_err(OpenError::io(log))? {
        match sequence(&name) {
            Some(sequence) => sequences.push(sequence),
            None => damaged.push(Damage::new(log.join(name), "is no segment; it was left alone")),
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// The checkpoint, if it is good and the log that goes with it is there.
fn open_checkpoint(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    cache: usize,
    sequences: &[u64],
    damaged: &mut Vec<Damage>,
) -> Result<Option<(Checkpoint, Meta)>, OpenError> {
    let opened = catch(|| {
        let Some(checkpoint) = Checkpoint::open(vfs, dir, cache)? else { return Ok(None) };
        let (meta, living) = (checkpoint.meta()?, checkpoint.living()?);
        Ok(Some((checkpoint, meta, living)))
    });
    let why = match opened {
        Ok(None) => return Ok(None),
        Ok(Some((checkpoint, meta, living))) => {
            let missing = living.iter().filter(|each| each.octets > 0).map(|each| each.sequence);
            let position = Some(meta.position.0).filter(|position| *position > 0);
            let is_missing = |sequence: &u64| sequences.binary_search(sequence).is_err();
            match missing.chain(position).find(is_missing) {
                None => return Ok(Some((checkpoint, meta))),
                Some(sequence) => format!("it counts on log/{}, which is missing", name(sequence)),
            }
        }
        // redb's word for a file that is none of its own.
        Err(redb::Error::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            return Err(OpenError::Io { path: checkpoint::path(dir), source });
        }
        Err(error) => error.to_string(),
    };
    set_aside(&**vfs, dir, &why, damaged)?;
    Ok(None)
}

/// redb promises an error for a damaged file where it can and a panic where it cannot.
fn catch<T>(open: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let corrupted = |_| Err(redb::Error::Corrupted("it is damaged".to_owned()));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(corrupted)
}

impl<'a> Opening<'a> {
    fn new(
        vfs: &'a Arc<dyn Vfs>,
        dir: &'a Path,
        options: &LogOptions,
        wall: u64,
        moment: Option<Moment>,
        found: Option<(Checkpoint, Meta)>,
        damaged: Vec<Damage>,
    ) -> Result<Self, OpenError> {
        let path = checkpoint::path(dir);
        let failed = |error: redb::Error| OpenError::Failed { path: path.clone(), why: error.to_string() };
        // The queue's clock goes on from where it was, by what the wall clock says has passed. Set forward by mistake, that is not
        // to end all mail at once.
        let moment = match (moment, &found) {
            (Some(moment), _) => moment,
            (None, Some((_, meta))) => {
                after(meta.now, Duration::from_millis(wall.saturating_sub(meta.wall)).min(LONGEST_PAUSE))
            }
            (None, None) => i64::try_from(wall.saturating_mul(1_000)).unwrap_or(i64::MAX / 2),
        };
        let log = dir.join("log");
        let mut segments = Segments::new(Arc::clone(vfs), log, options.segment_size);
        let (checkpoint, meta) = match found {
            Some(found) => found,
            None => {
                let created = Checkpoint::create(vfs, dir, options.index_cache, moment, wall).map_err(failed)?;
                let meta = created.meta().map_err(failed)?;
                (created, meta)
            }
        };
        for Living { sequence, octets, pinned } in checkpoint.living().map_err(failed)? {
            segments.list.insert(sequence, Segment { live_octets: octets, pinned, ..Segment::new(0, 0) });
        }
        let snapshot = checkpoint.snapshot().map_err(failed)?;
        let bounds = Bounds { memory: options.index_memory, leases: options.max_leases };
        let index = Index::new(snapshot, meta.totals, moment, bounds, first_generation(random()));
        Ok(Self {
            vfs,
            dir,
            now: Now { moment, wall },
            budget: options.index_memory,
            checkpoint,
            position: Some(meta.position).filter(|position| position.0 > 0),
            tag: meta.tag,
            index,
            segments,
            next_id: meta.next_id,
            report: OpenReport { damaged, ..OpenReport::default() },
        })
    }

    fn read(&mut self, sequences: &[u64]) -> Result<(), Failure> {
        let (first, at) = self.position.unwrap_or_default();
        // What the checkpoint knew and is not there any more had nothing living in it.
        self.segments.list.retain(|sequence, _| sequences.binary_search(sequence).is_ok());
        for (at, sequence) in sequences.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| sequences.get(at));
            // What is missing before its place the checkpoint does not need, or it would have been set aside.
            if *sequence > first && before.is_some_and(|before| before.checked_add(1) != Some(*sequence)) {
                self.damage(self.segments.dir.join(name(*sequence)), "has no predecessor: a segment is missing");
            }
        }
        // A name may be there that is not on stable storage: its segment or body is, and is written on or believed in.
        for dir in [&self.segments.dir, &self.dir.join("bodies")] {
            self.vfs.sync_dir(dir).map_err(OpenError::io(dir))?;
        }
        for (place, sequence) in sequences.iter().enumerate() {
            let start = if *sequence == first { at } else { 0 };
            let newest = place + 1 == sequences.len();
            self.read_segment(*sequence, start, *sequence < first, newest)?;
        }
        Ok(())
    }

    fn end(mut self, bodies: Bodies) -> Result<Recovered, OpenError> {
        if self.next_id == 0 {
            // Far from the ids of any earlier queue in the same place, so that log lines of the two are not mistaken for each other.
            self.next_id = (self.now.wall / 1000) << 20;
        }
        if !self.report.damaged.is_empty() {
            // Ids may have been on the part that is lost.
            self.next_id = self.next_id.saturating_add(1 << 32);
        }
        let failed = |error: Unreadable| OpenError::Failed { path: checkpoint::path(self.dir), why: error.0 };
        if bodies == Bodies::Check {
            self.check_bodies()?;
        }
        let mut stats = Stats::default();
        self.index.stats(self.now.moment, &mut stats).map_err(failed)?;
        self.report.messages = stats.messages;
        self.report.segments = self.segments.list.len() as u64;
        let Self { checkpoint, position, index, segments, next_id, report, now, .. } = self;
        let position = position.unwrap_or_default();
        Ok(Recovered { checkpoint, position, index, segments, next_id, report, moment: now.moment })
    }
}

impl Opening<'_> {
    /// From `start` on, or its header alone.
    fn read_segment(&mut self, sequence: u64, start_at: u64, header_alone: bool, newest: bool) -> Result<(), Failure> {
        let path = self.segments.dir.join(name(sequence));
        let io = |path: &Path| OpenError::io(path);
        let file = self.vfs.open(&path).map_err(io(&path))?;
        let len = file.len().map_err(io(&path))?;
        if start_at > len {
            let why = format!("log/{} ends before what it has seen of it", name(sequence));
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
                return Err(Failure::Index(format!("log/{} is not the one that it has seen", name(sequence))));
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
                let what = "has a bad header; its records were read all the same";
                let header = 0..len.min(SEGMENT_HEADER as u64);
                self.report.damaged.push(Damage::within(path.clone(), header, what));
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
        // Up to where it is known to be on stable storage: a checkpoint is never ahead of that.
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
                    // A record that was written later knows whether this place was on stable storage then.
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
                    self.report.damaged.push(Damage::within(path.clone(), position..end, &what));
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
        let record = match format::decode(frame.kind, payload, frame.wall, self.now) {
            Ok(record) => record,
            Err(why) => {
                let end = position.saturating_add((FRAME + payload.len()) as u64);
                let what = format!("has a record at {position} that is not understood: {why}");
                self.report.damaged.push(Damage::within(path.to_owned(), position..end, &what));
                self.quarantine(file, sequence, position, end);
                return Ok(());
            }
        };
        let mut highest = |id: MessageId| self.next_id = self.next_id.max(id.as_u64().saturating_add(1));
        match &record {
            Record::Message(image) => highest(image.id),
            Record::Outcome(outcome) => outcome.derived.iter().for_each(|image| highest(image.id)),
            Record::Ids(ceiling) => self.next_id = self.next_id.max(*ceiling),
            _ => {}
        }
        self.report.records = self.report.records.saturating_add(1);
        let at = At { sequence, payload: position.saturating_add(FRAME as u64), len: (FRAME + payload.len()) as u64 };
        // Body files that are of no use any more are found below, with the other ones that nobody names.
        apply(&mut self.index, &mut self.segments, record, &at)?;
        Ok(())
    }

    /// There is more in the log than fits into memory.
    fn write_checkpoint(&mut self, position: (u64, u64)) -> Result<(), Failure> {
        self.index.advance(self.now.moment)?;
        let frozen = self.index.freeze();
        let Now { moment, wall } = self.now;
        let tag = self.segments.tag(position.0);
        let meta = Meta { position, tag, now: moment, wall, next_id: self.next_id, totals: frozen.totals };
        let promoted = self.checkpoint.write(&Work { frozen, segments: self.segments.living(), meta })?;
        self.index.install(self.checkpoint.snapshot()?, promoted);
        Ok(())
    }

    /// Copies a damaged place away before the segment goes one day. If that fails the segment stays.
    fn quarantine(&mut self, file: &dyn VfsFile, sequence: u64, from: u64, to: u64) {
        let path = self.dir.join("quarantine").join(format!("{sequence:016x}-{from}.bad"));
        let copied = match self.vfs.exists(&path) {
            Ok(true) => Ok(()),
            Ok(false) => copy(&**self.vfs, file, from, to, &path),
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // A part of a copy would be taken for the whole next time.
            drop(self.vfs.remove(&path));
            if let Some(segment) = self.segments.list.get_mut(&sequence) {
                segment.pinned = true;
            }
        }
    }

    /// Every living message has its body, and every body its message.
    fn check_bodies(&mut self) -> Result<(), OpenError> {
        let bodies = self.dir.join("bodies");
        let mut files = BTreeSet::new();
        for name in self.vfs.list(&bodies).map_err(OpenError::io(&bodies))? {
            match hex(&name) {
                Some(id) => {
                    files.insert(MessageId::from_u64(id));
                }
                None => self.damage(bodies.join(name), "is no body; it was left alone"),
            }
        }
        let path = checkpoint::path(self.dir);
        let mut named = BTreeSet::new();
        let in_base = self.checkpoint.each_body(|id| named.extend([id]));
        in_base.map_err(|error| OpenError::Failed { path: path.clone(), why: error.to_string() })?;
        let has_file = |message: &Message<Stored>| message.stored.inline.is_none();
        named.extend(self.index.in_memory().filter(|(_, message)| has_file(message)).map(|(id, _)| id));
        let failed = |error: Unreadable| OpenError::Failed { path: path.clone(), why: error.0 };
        for id in named {
            let message = self.index.get(id).map_err(failed)?.filter(|message| has_file(message));
            let Some(message) = message else { continue };
            let path = bodies.join(format!("{:016x}", id.as_u64()));
            let is_there = files.remove(&id);
            let len = if is_there { self.vfs.open(&path).and_then(|file| file.len()).ok() } else { None };
            if len != Some(message.body_len) {
                self.index.alter(id, &Altered::Held(true)).map_err(failed)?;
                self.damage(path, &format!("should be the body of message {id}, which is on hold now"));
            }
        }
        // Whatever is left is named by nobody: no draft outlives a process.
        for id in files {
            let name = format!("{:016x}", id.as_u64());
            let path = bodies.join(&name);
            let swept = if self.report.damaged.is_empty() {
                self.vfs.remove(&path)
            } else {
                self.vfs.rename(&path, &self.dir.join("quarantine").join(&name))
            };
            swept.map_err(OpenError::io(&path))?;
            self.report.orphans = self.report.orphans.saturating_add(1);
        }
        Ok(())
    }

    fn set_len(&mut self, sequence: u64, len: u64) {
        if let Some(segment) = self.segments.list.get_mut(&sequence) {
            segment.len = len;
        }
    }

    fn damage(&mut self, path: PathBuf, what: &str) {
        self.report.damaged.push(Damage::new(path, what));
    }
}

/// Makes a part of a file durable that may have been written long ago: after a sync that failed the system takes it for written, and
/// would not write it again by itself.
fn secure(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; SECURE_CHUNK];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX).min(SECURE_CHUNK);
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        read_exact(file, chunk, at)?;
        match file.write_at(chunk, at) {
            Ok(()) => {}
            // Some file systems need room to write what is there already. It is synced as it is then, as far as that goes.
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
        at = at.saturating_add(want as u64);
    }
    file.sync()
}

const SECURE_CHUNK: usize = 64 << 10;
/// The longest that a queue is taken to have been closed: its wall clock may be wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
