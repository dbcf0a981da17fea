//! Repairing what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::examine::{Verified, examine};
use super::{Finding, Folder, InspectError, Stage, Trouble};
use crate::MessageId;
use crate::index::{Altered, Message};
use crate::log::checkpoint::{self, Meta, Work};
use crate::log::disk::folder;
use crate::log::disk::names;
use crate::log::disk::quarantine::copy;
use crate::log::disk::vfs::Vfs;
use crate::log::format::frame::Kind;
use crate::log::format::place::{At, Stored};
use crate::log::format::record::{self, Now, encode_altered, encode_image};
use crate::log::options::OpenError;
use crate::log::read::body::carried;
use crate::log::recover::{Bodies, Recovered};
use crate::log::write::apply::apply;
use crate::log::write::segment::{AppendError, NewRecord};
use crate::log::write::shared::wall;

/// How to repair: take the default, then assign fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Repair {
    /// Do everything over an overlay, and change nothing in the folder.
    pub dry_run: bool,
    /// Rebuild the index from the log, even if it is intact. The old one goes to `quarantine/`.
    pub rebuild_index: bool,
}

/// What [`repair`](super::repair) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Repaired {
    /// What was there before.
    pub before: Verified,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Findings without a remedy.
    pub left: u64,
    /// `true`: the index was rebuilt.
    pub index_rebuilt: bool,
}

/// In an order that loses nothing if it is interrupted: copies of damaged bytes, then the log, then
/// the index.
pub(super) fn mend(folder: &Folder, how: Repair, done: &mut dyn FnMut(&Finding)) -> Result<Repaired, InspectError> {
    let mut findings = Vec::new();
    let before = examine(folder, &mut |finding: Finding| {
        if !finding.is_settled {
            findings.push(finding);
        }
    })?;
    let mut repaired = Repaired { before, ..Repaired::default() };
    if findings.is_empty() && !how.rebuild_index {
        return Ok(repaired);
    }
    folder.options.progress.begin(Stage::Opening, 0);
    folder::prepare(&*folder.vfs, &folder.dir)?;
    for finding in &findings {
        set_aside(folder, finding)?;
    }
    let is_index_bad = findings.iter().any(|finding| finding.trouble == Trouble::Index);
    if is_index_bad {
        index_aside(folder)?;
    }
    if !findings.is_empty() {
        let mut open = Mending::new(folder)?;
        open.write(&findings)?;
        open.checkpoint()?;
    }
    if how.rebuild_index && !is_index_bad {
        index_aside(folder)?;
        Mending::new(folder)?.checkpoint()?;
    }
    repaired.index_rebuilt = is_index_bad || how.rebuild_index;
    for finding in &findings {
        let count = if finding.is_repairable() { &mut repaired.repaired } else { &mut repaired.left };
        *count = count.saturating_add(1);
        done(finding);
    }
    Ok(repaired)
}

/// Copies or moves to the quarantine what a finding is about.
fn set_aside(folder: &Folder, finding: &Finding) -> Result<(), InspectError> {
    let vfs = &*folder.vfs;
    let path = &finding.path;
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let kind = match finding.trouble {
        Trouble::Damaged => "bad",
        Trouble::Torn => "torn",
        Trouble::Stray | Trouble::Orphan => {
            let to = unused(vfs, &names::quarantine(&folder.dir), file_name)?;
            let moved = vfs.rename(path, &to).and_then(|()| path.parent().map_or(Ok(()), |dir| vfs.sync_dir(dir)));
            let moved = moved.and_then(|()| to.parent().map_or(Ok(()), |dir| vfs.sync_dir(dir)));
            return Ok(moved.map_err(OpenError::io(path))?);
        }
        Trouble::Lost | Trouble::Index | Trouble::Unlogged | Trouble::Ended | Trouble::Body => return Ok(()),
    };
    let (Some(sequence), Some(place)) = (names::sequence(file_name), &finding.place) else { return Ok(()) };
    let to = names::copied_part(&folder.dir, sequence, place.start, kind);
    if vfs.exists(&to).map_err(OpenError::io(&to))? {
        // A file of an earlier repair, which is kept under another name.
        let name = to.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let old = unused(vfs, &names::quarantine(&folder.dir), name)?;
        vfs.rename(&to, &old).map_err(OpenError::io(&to))?;
    }
    let file = vfs.open(path).map_err(OpenError::io(path))?;
    copy(vfs, &*file, place.start, place.end, &to).map_err(OpenError::io(&to))?;
    Ok(())
}

/// A free name in this folder.
fn unused(vfs: &dyn Vfs, dir: &Path, name: &str) -> Result<PathBuf, InspectError> {
    let mut path = dir.join(name);
    let mut number = 0_u64;
    while vfs.exists(&path).map_err(OpenError::io(&path))? {
        number = number.saturating_add(1);
        path = dir.join(format!("{name}.{number}"));
    }
    Ok(path)
}

/// Moves the index away, if there is one, so that the next opening rebuilds it.
fn index_aside(folder: &Folder) -> Result<(), InspectError> {
    let vfs = &*folder.vfs;
    let path = names::index(&folder.dir);
    if vfs.exists(&path).map_err(OpenError::io(&path))? {
        let to = unused(vfs, &names::quarantine(&folder.dir), "index.bad")?;
        vfs.rename(&path, &to).and_then(|()| vfs.sync_dir(&folder.dir)).map_err(OpenError::io(&path))?;
    }
    Ok(())
}

/// The queue, opened for writing.
struct Mending<'a> {
    folder: &'a Folder,
    recovered: Recovered,
    now: Now,
}

impl<'a> Mending<'a> {
    fn new(folder: &'a Folder) -> Result<Self, InspectError> {
        let recovered = folder.recover(&folder.vfs, Bodies::Leave)?;
        let now = Now { moment: recovered.moment, wall: wall(&*folder.options.clock) };
        Ok(Self { folder, recovered, now })
    }

    /// Writes what the log lacks.
    fn write(&mut self, findings: &[Finding]) -> Result<(), InspectError> {
        // For each message: put it on hold, and write all of it.
        let mut messages: BTreeMap<MessageId, (bool, bool)> = BTreeMap::new();
        let mut ended = Vec::new();
        for (trouble, id) in findings.iter().filter_map(|finding| Some((finding.trouble, finding.message?))) {
            match trouble {
                Trouble::Body => messages.entry(id).or_default().0 = true,
                Trouble::Unlogged => messages.entry(id).or_default().1 = true,
                Trouble::Ended => ended.push(id),
                Trouble::Torn
                | Trouble::Damaged
                | Trouble::Lost
                | Trouble::Stray
                | Trouble::Orphan
                | Trouble::Index => {}
            }
        }
        let mut batch = Vec::new();
        let mut octets = 0;
        for (id, (hold, whole)) in messages {
            let Some(message) = self.recovered.index.get(id)? else { continue };
            let entry = if whole {
                self.image(id, &message, hold)?
            } else {
                NewRecord::new(Kind::Altered, encode_altered(self.now, id, &Altered::Held(true)), self.now)
            };
            octets += entry.payload.len();
            batch.push(entry);
            if octets > BATCH {
                self.append(&std::mem::take(&mut batch))?;
                octets = 0;
            }
        }
        self.append(&batch)?;
        for ids in ended.chunks(BATCH / 64) {
            let removed = |id: &MessageId| NewRecord::new(Kind::Removed, id.as_u64().to_le_bytes().to_vec(), self.now);
            let batch: Vec<_> = ids.iter().map(removed).collect();
            self.append(&batch)?;
        }
        Ok(())
    }

    /// A message as the index has it. A damaged body is copied as it is, with the checksum that it
    /// should have.
    fn image(&self, id: MessageId, message: &Message<Stored>, hold: bool) -> Result<NewRecord, InspectError> {
        let mut message = message.clone();
        message.held |= hold;
        let Stored { sequence, crc, inline, .. } = message.stored;
        let mut payload = Vec::new();
        encode_image(&mut payload, self.now, id, &message, crc, inline.is_none());
        if let Some(at) = inline {
            let path = names::log(&self.folder.dir).join(names::segment(sequence));
            let is_missing = self.recovered.segments.missing.contains_key(&sequence);
            let file = if is_missing { None } else { Some(self.folder.vfs.open(&path).map_err(OpenError::io(&path))?) };
            let body = carried(file.as_deref(), at, message.body_len).map_err(OpenError::io(&path))?;
            payload.extend_from_slice(&body);
        }
        Ok(NewRecord::new(Kind::Message, payload, self.now))
    }

    /// Writes a batch durably, and applies its records.
    fn append(&mut self, batch: &[NewRecord]) -> Result<(), InspectError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Recovered { segments, index, next_id, .. } = &mut self.recovered;
        let places = segments.append(batch.iter(), *next_id).map_err(|error| match error {
            AppendError::Fatal(why) => InspectError::Append(why),
            AppendError::Full(error) => {
                let dir = self.folder.dir.display();
                InspectError::Append(format!("{dir}: {error}; make room on the disk and repair again"))
            }
        })?;
        for (NewRecord { kind, payload, .. }, at) in batch.iter().zip(places) {
            let at: At = at;
            let record = record::decode(*kind, payload, self.now.wall, self.now);
            let record = record.map_err(|error| InspectError::Append(error.to_string()))?;
            // Unneeded body files are orphans, and were found as such.
            apply(index, segments, record, &at)?;
        }
        Ok(())
    }

    /// Writes a checkpoint as of now.
    fn checkpoint(&mut self) -> Result<(), InspectError> {
        let Recovered { checkpoint, index, segments, next_id, .. } = &mut self.recovered;
        index.advance(self.now.moment)?;
        let frozen = index.freeze();
        let Now { moment, wall } = self.now;
        let position = segments.position();
        let meta = Meta {
            position,
            tag: segments.tag(position.0),
            now: moment,
            wall,
            next_id: *next_id,
            totals: frozen.totals,
        };
        let failed = |error: checkpoint::Error| OpenError::Failed {
            path: names::index(&self.folder.dir),
            why: error.to_string(),
        };
        let promoted = checkpoint.write(&Work { frozen, segments: segments.living(), meta }).map_err(failed)?;
        index.install(checkpoint.snapshot().map_err(failed)?, promoted);
        Ok(())
    }
}

/// Payload bytes written at once; one record more may follow.
const BATCH: usize = 1 << 20;
