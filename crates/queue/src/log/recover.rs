//! Opening a folder: whose it is, what its log says, what is damaged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::apply::{Stored, apply};
use super::format::{self, MARKER, Now, Record};
use super::frame::{FRAME, Frame, SEGMENT_HEADER, SegmentHeader};
use super::scan::{Scan, next_good, read_record};
use super::segment::{At, Segment, Segments, name, random, sequence};
use super::vfs::{Vfs, VfsFile, read_exact};
use super::{Damage, OpenError, OpenReport, hex};
use crate::MessageId;
use crate::index::{Index, first_generation};

/// What an opening found.
pub(super) struct Recovered {
    pub(super) index: Index<Stored>,
    pub(super) segments: Segments,
    pub(super) next_id: u64,
    pub(super) report: OpenReport,
}

/// Everything that opening works with.
struct Opening<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    now: Now,
    index: Index<Stored>,
    segments: Segments,
    next_id: u64,
    report: OpenReport,
}

/// Whether the folder is a queue already. One that is neither that nor empty is refused.
pub(super) fn judge(vfs: &dyn Vfs, dir: &Path) -> Result<bool, OpenError> {
    let marker = dir.join(MARKER_NAME);
    let io = |path: &Path| OpenError::io(path);
    let names = vfs.list(dir).map_err(io(dir))?;
    if names.iter().any(|name| name == MARKER_NAME) {
        let file = vfs.open(&marker).map_err(io(&marker))?;
        // One octet more than it should have shows a longer one.
        let mut text = [0; MARKER.len() + 1];
        let len = file.read_at(&mut text, 0).map_err(io(&marker))?;
        let text = text.get(..len).unwrap_or_default();
        if text == MARKER {
            return Ok(true);
        }
        // Its writing was cut short when nothing else could be there yet: some of it may be missing, some zero.
        let torn = text.iter().zip(MARKER).all(|(octet, ours)| *octet == *ours || *octet == 0);
        if !torn || text.len() > MARKER.len() {
            let found = String::from_utf8_lossy(text).trim_end().to_owned();
            return Err(OpenError::Version { path: marker, found });
        }
    }
    if let Some(name) = names.iter().find(|name| !OUR_NAMES.contains(&name.as_str())) {
        return Err(OpenError::Foreign { path: dir.join(name) });
    }
    for name in FOLDERS.iter().filter(|name| names.iter().any(|found| found == *name)) {
        let folder = dir.join(name);
        if let Some(inside) = vfs.list(&folder).map_err(io(&folder))?.first() {
            return Err(OpenError::Foreign { path: folder.join(inside) });
        }
    }
    Ok(false)
}

/// Makes the folder a queue unless it is one.
pub(super) fn prepare(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    if !judge(vfs, dir)? {
        let marker = dir.join(MARKER_NAME);
        let there = vfs.exists(&marker).map_err(OpenError::io(&marker))?;
        let file = if there { vfs.open(&marker) } else { vfs.create(&marker) };
        let file = file.map_err(OpenError::io(&marker))?;
        let written = file.write_at(MARKER, 0).and_then(|()| file.sync());
        written.map_err(OpenError::io(&marker))?;
    }
    make_dirs(vfs, dir)
}

fn make_dirs(vfs: &dyn Vfs, dir: &Path) -> Result<(), OpenError> {
    for name in FOLDERS {
        let folder = dir.join(name);
        if !vfs.exists(&folder).map_err(OpenError::io(&folder))? {
            vfs.make_dir(&folder).map_err(OpenError::io(&folder))?;
        }
    }
    vfs.sync_dir(dir).map_err(OpenError::io(dir))
}

/// Reads the log from its oldest segment on.
pub(super) fn recover(vfs: &Arc<dyn Vfs>, dir: &Path, segment_size: u64, now: Now) -> Result<Recovered, OpenError> {
    // Far from the ids of any earlier queue in the same place, so that log lines of the two are not mistaken for each other.
    let first_id = (now.wall / 1000) << 20;
    let log = dir.join("log");
    let mut opening = Opening {
        vfs,
        dir,
        now,
        index: Index::new(first_generation(random())),
        segments: Segments::new(Arc::clone(vfs), log.clone(), segment_size),
        next_id: 0,
        report: OpenReport::default(),
    };
    let mut sequences = Vec::new();
    for name in vfs.list(&log).map_err(OpenError::io(&log))? {
        match sequence(&name) {
            Some(sequence) => sequences.push(sequence),
            None => opening.damage(log.join(name), "is no segment; it was left alone".to_owned()),
        }
    }
    sequences.sort_unstable();
    for (at, sequence) in sequences.iter().enumerate() {
        let newest = at + 1 == sequences.len();
        let before = at.checked_sub(1).and_then(|at| sequences.get(at));
        if before.is_some_and(|before| before.checked_add(1) != Some(*sequence)) {
            opening.damage(log.join(name(*sequence)), "has no predecessor: a segment is missing".to_owned());
        }
        opening.read_segment(*sequence, newest)?;
    }
    if opening.next_id == 0 {
        opening.next_id = first_id;
    }
    if !opening.report.damaged.is_empty() {
        // Ids may have been on the part that is lost.
        opening.next_id = opening.next_id.saturating_add(1 << 32);
    }
    opening.check_bodies()?;
    let Opening { index, segments, next_id, mut report, .. } = opening;
    report.messages = index.iter().count() as u64;
    report.segments = segments.list.len() as u64;
    Ok(Recovered { index, segments, next_id, report })
}

impl Opening<'_> {
    fn read_segment(&mut self, sequence: u64, newest: bool) -> Result<(), OpenError> {
        let path = self.segments.dir.join(name(sequence));
        let io = |path: &Path| OpenError::io(path);
        let file = self.vfs.open(&path).map_err(io(&path))?;
        let len = file.len().map_err(io(&path))?;
        let mut start = [0; SEGMENT_HEADER + FRAME];
        let have = usize::try_from(len).unwrap_or(usize::MAX).min(start.len());
        let start = start.get_mut(..have).unwrap_or_default();
        read_exact(&*file, start, 0).map_err(io(&path))?;
        let header = SegmentHeader::decode(start).ok().filter(|header| header.sequence == sequence);
        let tag = match header {
            Some(header) => {
                self.next_id = self.next_id.max(header.id_ceiling);
                header.tag
            }
            None if newest && len <= SEGMENT_HEADER as u64 => {
                self.vfs.remove(&path).map_err(io(&path))?;
                self.vfs.sync_dir(&self.segments.dir).map_err(io(&self.segments.dir))?;
                return Ok(());
            }
            None => {
                self.damage(path.clone(), "has a bad header; its records were read all the same".to_owned());
                let first = start.get(SEGMENT_HEADER..).and_then(|record| record.first_chunk());
                first.map_or(0, |tag| u64::from_le_bytes(*tag))
            }
        };
        self.segments.list.insert(sequence, Segment::new(Arc::clone(&file), tag, len));
        let scan = Scan { file: &*file, tag, len };
        let mut position = (SEGMENT_HEADER as u64).min(len);
        while position < len {
            match read_record(&scan, position).map_err(io(&path))? {
                Some((frame, payload)) => {
                    self.replay(sequence, &file, position, frame, &payload, &path);
                    position = position.saturating_add((FRAME + payload.len()) as u64);
                }
                None => {
                    let next = next_good(&scan, position, |_| true).map_err(io(&path))?;
                    // A record that was written later knows whether this place was on stable storage then.
                    let proof = next_good(&scan, position, |frame| u64::from(frame.base) > position);
                    if newest && proof.map_err(io(&path))?.is_none() {
                        file.set_len(position).and_then(|()| file.sync()).map_err(io(&path))?;
                        self.report.truncated = len.saturating_sub(position);
                        self.set_len(sequence, position);
                        return Ok(());
                    }
                    let end = next.unwrap_or(len);
                    self.damage(path.clone(), format!("is damaged from {position} to {end}"));
                    self.quarantine(&*file, sequence, position, end);
                    position = end;
                }
            }
        }
        Ok(())
    }

    fn replay(
        &mut self,
        sequence: u64,
        file: &Arc<dyn VfsFile>,
        position: u64,
        frame: Frame,
        payload: &[u8],
        path: &Path,
    ) {
        let record = match format::decode(frame.kind, payload, frame.wall, self.now) {
            Ok(record) => record,
            Err(why) => {
                let end = position.saturating_add((FRAME + payload.len()) as u64);
                self.damage(path.to_owned(), format!("has a record at {position} that is not understood: {why}"));
                self.quarantine(&**file, sequence, position, end);
                return;
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
        let at = At {
            sequence,
            file: Arc::clone(file),
            payload: position.saturating_add(FRAME as u64),
            len: (FRAME + payload.len()) as u64,
        };
        // Body files that are of no use any more are found below, with the other ones that nobody names.
        apply(&mut self.index, &mut self.segments, record, &at);
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
        let mut files = std::collections::BTreeSet::new();
        for name in self.vfs.list(&bodies).map_err(OpenError::io(&bodies))? {
            match hex(&name) {
                Some(id) => {
                    files.insert(MessageId::from_u64(id));
                }
                None => self.damage(bodies.join(name), "is no body; it was left alone".to_owned()),
            }
        }
        let mut without = Vec::new();
        for (id, message) in self.index.iter().filter(|(_, message)| message.stored.inline.is_none()) {
            let path = bodies.join(format!("{:016x}", id.as_u64()));
            let named = files.remove(&id);
            let len = if named { self.vfs.open(&path).and_then(|file| file.len()).ok() } else { None };
            if len != Some(message.body_len) {
                without.push((id, path));
            }
        }
        for (id, path) in without {
            self.index.set_held(id, true);
            self.damage(path, format!("should be the body of message {id}, which is on hold now"));
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

    fn damage(&mut self, path: PathBuf, what: String) {
        self.report.damaged.push(Damage { path, what });
    }
}

fn copy(vfs: &dyn Vfs, from: &dyn VfsFile, start: u64, end: u64, path: &Path) -> io::Result<()> {
    let to = vfs.create(path)?;
    let mut buffer = vec![0; COPY_CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(COPY_CHUNK);
        let read = from.read_at(buffer.get_mut(..want).unwrap_or_default(), at)?;
        if read == 0 {
            break;
        }
        to.write_at(buffer.get(..read).unwrap_or_default(), at.saturating_sub(start))?;
        at = at.saturating_add(read as u64);
    }
    to.sync()?;
    path.parent().map_or(Ok(()), |dir| vfs.sync_dir(dir))
}

const MARKER_NAME: &str = "posthaste-queue";
const FOLDERS: [&str; 3] = ["log", "bodies", "quarantine"];
const OUR_NAMES: [&str; 5] = [MARKER_NAME, "LOCK", "log", "bodies", "quarantine"];
const COPY_CHUNK: usize = 64 << 10;
