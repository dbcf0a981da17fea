//! Verifying a queue, byte by byte.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Finding, Folder, InspectError, Stage, Trouble};
use crate::index::Message;
use crate::log::disk::names;
use crate::log::disk::vfs::{Vfs, VfsFile, read_exact};
use crate::log::format::place::Stored;
use crate::log::options::{Damage, OpenError};
use crate::log::read::body::{self, LogBody};
use crate::log::read::readers::Readers;
use crate::log::read::scan::{Scan, zeros_from};
use crate::log::recover::{Bodies, Recovered};
use crate::{Error, MessageId, Stats};

/// What [`verify`](super::verify) went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Messages in the queue.
    pub messages: u64,
    /// The size of their bodies in bytes.
    pub bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// The size of the log in bytes.
    pub log: u64,
    /// Records in it.
    pub records: u64,
    /// Findings that are not settled.
    pub findings: u64,
    /// Findings that are [settled](Finding::is_settled).
    pub settled: u64,
}

pub(super) fn examine(folder: &Folder, found: &mut dyn FnMut(Finding)) -> Result<Verified, InspectError> {
    let mut verified = Verified::default();
    let mut examiner = Examiner {
        folder,
        log: names::log(&folder.dir),
        found: &mut |finding: Finding| {
            let count = if finding.is_settled { &mut verified.settled } else { &mut verified.findings };
            *count = count.saturating_add(1);
            found(finding);
        },
    };
    let mut rebuilt = examiner.rebuild()?;
    let records = rebuilt.report.records;
    folder.options.progress.begin(Stage::Opening, 0);
    let mut normal = folder.recover(&folder.overlay(), Bodies::Leave)?;
    let is_damaged = examiner.log(&rebuilt, &normal)?;
    let mut best = if examiner.index(&mut rebuilt, &mut normal, is_damaged)? { normal } else { rebuilt };
    let mut stats = Stats::default();
    best.index.stats(best.moment, &mut stats)?;
    folder.options.progress.begin(Stage::Bodies, stats.bytes);
    examiner.bodies(&mut best)?;
    verified.messages = stats.messages;
    verified.bytes = stats.bytes;
    verified.segments = best.segments.list.len() as u64;
    verified.log = best.segments.octets();
    verified.records = records;
    Ok(verified)
}

struct Examiner<'a> {
    folder: &'a Folder,
    /// The folder with the segments.
    log: PathBuf,
    found: &'a mut dyn FnMut(Finding),
}

impl Examiner<'_> {
    /// Recovers the queue as if there were no index.
    fn rebuild(&self) -> Result<Recovered, InspectError> {
        let folder = self.folder;
        let vfs = folder.overlay();
        let index = names::index(&folder.dir);
        if vfs.exists(&index).map_err(OpenError::io(&index))? {
            vfs.remove(&index).map_err(OpenError::io(&index))?;
        }
        let mut octets = 0_u64;
        for sequence in self.sequences()? {
            let path = self.log.join(names::segment(sequence));
            let len = vfs.open(&path).and_then(|file| file.len()).map_err(OpenError::io(&path))?;
            octets = octets.saturating_add(len);
        }
        folder.options.progress.begin(Stage::Log, octets);
        folder.recover(&vfs, Bodies::Leave)
    }

    fn sequences(&self) -> Result<Vec<u64>, InspectError> {
        // Opening creates a missing folder.
        if !self.folder.vfs.exists(&self.log).map_err(OpenError::io(&self.log))? {
            return Ok(Vec::new());
        }
        let names = self.folder.vfs.list(&self.log).map_err(OpenError::io(&self.log))?;
        Ok(names.iter().filter_map(|name| names::sequence(name)).collect())
    }

    /// Reports what reading the whole log found. Returns `true` if a part of the log is lost.
    fn log(&mut self, rebuilt: &Recovered, normal: &Recovered) -> Result<bool, InspectError> {
        let mut is_damaged = false;
        let missing = normal.segments.missing.keys().map(|sequence| self.log.join(names::segment(*sequence)));
        let missing: Vec<_> = missing.collect();
        let missed = normal.report.damaged.iter().filter(|damage| missing.contains(&damage.path));
        for damage in missed.chain(&rebuilt.report.damaged) {
            let Damage { path, place, what } = damage;
            let finding = |trouble| Finding::new(trouble, path, what.as_str()).within(place.clone());
            let sequence = path.file_name().and_then(|name| names::sequence(name.to_str()?));
            let finding = match (sequence, place) {
                (Some(sequence), Some(place)) => {
                    is_damaged = true;
                    let is_settled = self.is_in_quarantine(path, sequence, place)?;
                    finding(Trouble::Damaged).settled(is_settled)
                }
                (Some(_), None) => {
                    is_damaged = true;
                    // An index that is past it contains all that matters of it.
                    finding(Trouble::Lost).settled(!normal.report.damaged.contains(damage))
                }
                (None, _) => finding(Trouble::Stray),
            };
            (self.found)(finding);
        }
        for sequence in self.sequences()? {
            let path = self.log.join(names::segment(sequence));
            let file = self.folder.vfs.open(&path).map_err(OpenError::io(&path))?;
            let mut len = file.len().map_err(OpenError::io(&path))?;
            let read = rebuilt.segments.list.get(&sequence).map(|segment| segment.len);
            let end = read.unwrap_or(0);
            let was_whole = normal.position.0 == sequence && normal.position.1 > end;
            if read.is_some() && !was_whole {
                // Zeros written ahead are no batch.
                let scan = Scan { file: &*file, tag: 0, len };
                len = zeros_from(&scan, end).map_err(OpenError::io(&path))?;
            }
            if end == len {
                continue;
            }
            let finding = if was_whole {
                // The index was written after all of it was on stable storage.
                is_damaged = true;
                let is_settled = self.is_in_quarantine(&path, sequence, &(end..len))?;
                Finding::new(Trouble::Damaged, &path, "is damaged at its end").settled(is_settled)
            } else {
                let what = "ends in a batch that was being written, and was not acknowledged";
                Finding::new(Trouble::Torn, &path, what)
            };
            (self.found)(finding.within(Some(end..len)));
        }
        Ok(is_damaged)
    }

    /// Reports what is wrong with the index. Returns `true` if the index can be read.
    fn index(
        &mut self,
        rebuilt: &mut Recovered,
        normal: &mut Recovered,
        is_damaged: bool,
    ) -> Result<bool, InspectError> {
        let path = names::index(&self.folder.dir);
        let bad = if !self.folder.vfs.exists(&path).map_err(OpenError::io(&path))? {
            Some("is missing".to_owned())
        } else if let Some(damage) = normal.report.damaged.iter().find(|damage| damage.path == path) {
            Some(damage.what.clone())
        } else {
            normal.checkpoint.check().unwrap_or_else(|error| Some(error.to_string()))
        };
        if let Some(what) = bad {
            (self.found)(Finding::new(Trouble::Index, &path, what));
            return Ok(false);
        }
        let mut contradictions = 0_u64;
        let mut first = None;
        let mut seen = Stats::default();
        normal.index.stats(normal.moment, &mut seen)?;
        self.folder.options.progress.begin(Stage::Comparing, seen.messages);
        let (mut here, mut there) = (normal.index.id_after(None)?, rebuilt.index.id_after(None)?);
        while let Some(id) = [here, there].into_iter().flatten().min() {
            let (in_index, in_log) = (here == Some(id), there == Some(id));
            let one = if in_index { normal.index.get(id)? } else { None };
            let other = if in_log { rebuilt.index.get(id)? } else { None };
            let finding = match (one, other) {
                (Some(one), Some(other)) => difference(&one, &other).map(|what| {
                    let is_hold = what == ONLY_HELD;
                    (one.stored, Trouble::Unlogged, what, is_hold)
                }),
                (Some(one), None) => {
                    Some((one.stored, Trouble::Unlogged, "is in the index, but not in the log", false))
                }
                (None, Some(other)) => {
                    let what = "has ended according to the index, but not according to the log";
                    Some((other.stored, Trouble::Ended, what, false))
                }
                (None, None) => None,
            };
            match finding {
                Some((stored, trouble, what, is_hold)) if is_damaged || is_hold => {
                    let path = self.log.join(names::segment(stored.sequence));
                    (self.found)(Finding::new(trouble, &path, what).about(id));
                }
                Some((_, _, what, _)) => {
                    contradictions = contradictions.saturating_add(1);
                    first.get_or_insert((id, what));
                }
                None => {}
            }
            if in_index {
                self.folder.options.progress.add(1);
                here = normal.index.id_after(here)?;
            }
            if in_log {
                there = rebuilt.index.id_after(there)?;
            }
        }
        if let Some((id, what)) = first {
            let what = format!("contradicts the intact log about {contradictions} messages: message {id} {what}");
            (self.found)(Finding::new(Trouble::Index, &path, what));
        } else if !is_damaged && let Some(what) = miscounted(normal, rebuilt)? {
            (self.found)(Finding::new(Trouble::Index, &path, what));
        }
        Ok(true)
    }

    /// Reports bodies that are not as accepted, and files that belong to no message.
    fn bodies(&mut self, queue: &mut Recovered) -> Result<(), InspectError> {
        let Folder { vfs, dir, options, .. } = self.folder;
        let bodies = names::bodies(dir);
        let mut files = BTreeSet::new();
        let there = vfs.exists(&bodies).map_err(OpenError::io(&bodies))?;
        let names = if there { vfs.list(&bodies).map_err(OpenError::io(&bodies))? } else { Vec::new() };
        for name in names {
            match names::body_id(&name) {
                Some(id) => {
                    files.insert(id);
                }
                None => (self.found)(Finding::new(Trouble::Stray, &bodies.join(name), "is no body")),
            }
        }
        let readers = Readers::new(Arc::clone(vfs), self.log.clone());
        let mut at = queue.index.id_after(None)?;
        while let Some(id) = at {
            if let Some(message) = queue.index.get(id)? {
                if message.stored.inline.is_none() {
                    files.remove(&id);
                }
                let bad = match open_body(&**vfs, &readers, dir, id, &message) {
                    Ok(body) => check_body(&body, |octets| options.progress.add(octets)),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(why) = bad {
                    let (path, place) = body_place(dir, id, &message);
                    let what = if message.held { format!("{why}; the message is on hold") } else { why };
                    let finding = Finding::new(Trouble::Body, &path, what).within(place).about(id);
                    (self.found)(finding.settled(message.held));
                }
            }
            at = queue.index.id_after(at)?;
        }
        for id in files {
            let path = bodies.join(names::body(id));
            let what = "is the body of no message: the message is gone, or was never accepted";
            (self.found)(Finding::new(Trouble::Orphan, &path, what));
        }
        Ok(())
    }

    /// Returns `true` if the damaged place has been copied already.
    fn is_in_quarantine(&self, path: &Path, sequence: u64, place: &Range<u64>) -> Result<bool, InspectError> {
        let copy = names::copied_part(&self.folder.dir, sequence, place.start, "bad");
        let vfs = &*self.folder.vfs;
        if !vfs.exists(&copy).map_err(OpenError::io(&copy))? {
            return Ok(false);
        }
        let same = vfs.open(path).and_then(|file| begins_alike(&*file, place, &*vfs.open(&copy)?));
        Ok(same.map_err(OpenError::io(path))?)
    }
}

pub(super) fn open_body(
    vfs: &dyn Vfs,
    readers: &Readers,
    dir: &Path,
    message: MessageId,
    found: &Message<Stored>,
) -> Result<LogBody, Error> {
    let (path, place) = body_place(dir, message, found);
    let opened = match found.stored.inline {
        Some(_) => readers.get(found.stored.sequence),
        None => vfs.open(&path),
    };
    let name = path.display().to_string();
    let len = found.body_len;
    let damaged = |why: String| Error::Damaged { message, reason: why.into() };
    let file = opened.map_err(|error| damaged(format!("{name}: {error}; restore the file, or remove the message")))?;
    let at = place.map_or(0, |place| place.start);
    let crc = found.stored.crc;
    Ok(LogBody { message, file, name, at, left: len, len, hasher: crc32fast::Hasher::new(), crc })
}

/// The file with a body, and its bytes there. `None`: the whole file.
fn body_place(dir: &Path, id: MessageId, message: &Message<Stored>) -> (PathBuf, Option<Range<u64>>) {
    let (path, at) = body::place(dir, id, &message.stored);
    (path, message.stored.inline.map(|_| at..at.saturating_add(message.body_len)))
}

/// Returns what is wrong with a body.
fn check_body(body: &LogBody, read: impl Fn(u64)) -> Option<String> {
    let is_alone = body.at == 0;
    match body.file.len() {
        Ok(len) if is_alone && len != body.len => {
            return Some(format!("has {len} bytes, {} bytes were accepted", body.len));
        }
        Err(error) => return Some(error.to_string()),
        Ok(_) => {}
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < body.len {
        let want = usize::try_from(body.len.saturating_sub(done)).unwrap_or(usize::MAX).min(CHUNK);
        let part = buffer.get_mut(..want).unwrap_or_default();
        if let Err(error) = read_exact(&*body.file, part, body.at.saturating_add(done)) {
            return Some(format!("the body cannot be read to its end: {error}"));
        }
        hasher.update(part);
        done = done.saturating_add(want as u64);
        read(want as u64);
    }
    (hasher.finalize() != body.crc).then(|| "the body has a wrong checksum".to_owned())
}

/// Returns how the index differs from the log. Times are not compared.
fn difference(index: &Message<Stored>, log: &Message<Stored>) -> Option<&'static str> {
    let same = |one: &Message<Stored>, other: &Message<Stored>| {
        (&one.owner, one.priority, &one.envelope, one.body_len)
            == (&other.owner, other.priority, &other.envelope, other.body_len)
    };
    if !same(index, log) {
        return Some("is a different message in the log");
    }
    if index.stored != log.stored {
        return Some("is in another place according to the log");
    }
    let deliveries = |message: &Message<Stored>| {
        let each = message.deliveries.iter();
        each.map(|each| (each.number, each.key.clone(), each.state.clone(), each.attempts)).collect::<Vec<_>>()
    };
    if deliveries(index) != deliveries(log) {
        return Some("has other deliveries in the log");
    }
    match (index.held, log.held) {
        (true, false) => Some(ONLY_HELD),
        (false, true) => Some("is on hold according to the log, but not according to the index"),
        _ => None,
    }
}

/// Returns how the counts of the two differ.
fn miscounted(normal: &mut Recovered, rebuilt: &mut Recovered) -> Result<Option<String>, InspectError> {
    let (mut index, mut log) = (Stats::default(), Stats::default());
    normal.index.stats(normal.moment, &mut index)?;
    rebuilt.index.stats(rebuilt.moment, &mut log)?;
    let counted = |stats: &Stats| [stats.messages, stats.deliveries, stats.bytes];
    if counted(&index) != counted(&log) {
        let (index, log) = (counted(&index), counted(&log));
        return Ok(Some(format!("counts messages, deliveries and bytes as {index:?}, the log has {log:?}")));
    }
    for (sequence, segment) in &normal.segments.list {
        let lives = rebuilt.segments.list.get(sequence).map_or(0, |segment| segment.live_octets);
        if segment.live_octets != lives {
            let (name, counted) = (names::segment(*sequence), segment.live_octets);
            return Ok(Some(format!("counts {counted} live bytes in log/{name}, the log has {lives}")));
        }
    }
    Ok(None)
}

fn begins_alike(file: &dyn VfsFile, place: &Range<u64>, copy: &dyn VfsFile) -> io::Result<bool> {
    let len = place.end.saturating_sub(place.start);
    if copy.len()? < len {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len.saturating_sub(done)).unwrap_or(usize::MAX).min(CHUNK);
        let (one, other) = (one.get_mut(..want).unwrap_or_default(), other.get_mut(..want).unwrap_or_default());
        read_exact(file, one, place.start.saturating_add(done))?;
        read_exact(copy, other, done)?;
        if one != other {
            return Ok(false);
        }
        done = done.saturating_add(want as u64);
    }
    Ok(true)
}

const ONLY_HELD: &str = "is on hold according to the index, but not according to the log";
const CHUNK: usize = 64 << 10;
