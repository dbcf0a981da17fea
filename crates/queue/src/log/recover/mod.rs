//! Reading checkpoint and log at an opening, and dealing with damage.

mod bodies;
mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::Stats;
use crate::index::{Bounds, Index, Moment, Unreadable, after, first_generation};
use crate::log::checkpoint::{self, Checkpoint, Meta, Snapshot};
use crate::log::disk::names;
use crate::log::disk::vfs::Vfs;
use crate::log::format::place::Living;
use crate::log::format::record::Now;
use crate::log::options::{Damage, LogOptions, OpenError, OpenReport};
use crate::log::write::segment::{Segment, Segments};
use crate::log::write::shared::wall;

/// What an opening found.
pub(super) struct Recovered {
    pub(super) checkpoint: Checkpoint,
    /// The checkpoint contains the log up to here.
    pub(super) position: (u64, u64),
    pub(super) index: Index<Snapshot>,
    pub(super) segments: Segments,
    pub(super) next_id: u64,
    pub(super) report: OpenReport,
    /// The time on the queue's clock.
    pub(super) moment: Moment,
}

/// The state of an opening.
struct Opening<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    now: Now,
    /// The index's limit of memory in bytes.
    budget: usize,
    checkpoint: Checkpoint,
    /// The checkpoint contains the log up to here. `None`: it is empty.
    position: Option<(u64, u64)>,
    /// The tag of that segment.
    tag: u64,
    index: Index<Snapshot>,
    segments: Segments,
    next_id: u64,
    report: OpenReport,
}

/// What an opening does about the folder `bodies/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    /// Check that each message has its body, and each body its message.
    Check,
    /// Do not look: the caller will.
    Leave,
}

/// Reads the checkpoint, and the log after it. On return everything read is synced, even if an
/// earlier process's sync failed. `moment`: the time on the queue's clock; `None`: it goes on from
/// the checkpoint's.
pub(super) fn recover(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: &LogOptions,
    moment: Option<Moment>,
    bodies: Bodies,
) -> Result<Recovered, OpenError> {
    let mut report = OpenReport::of_at_most(if bodies == Bodies::Check { MOST_TOLD } else { usize::MAX });
    let sequences = list_segments(&**vfs, &names::log(dir), &mut report)?;
    let wall = wall(&*options.clock);
    loop {
        let checkpoint = open_checkpoint(vfs, dir, options.index_cache, &sequences, &mut report)?;
        let mut opening = Opening::new(vfs, dir, options, wall, moment, checkpoint, report.clone())?;
        match opening.read(&sequences) {
            Ok(()) => return opening.end(bodies),
            Err(Failure::Open(error)) => return Err(error),
            // Rebuilt once. If the rebuilt one contradicts itself too, the disk is not to blame.
            Err(Failure::Index(why)) if opening.position.is_some() => {
                // What it found is found again.
                drop(opening);
                set_aside(&**vfs, dir, &why, &mut report)?;
            }
            Err(Failure::Index(why)) => return Err(OpenError::Failed { path: names::index(dir), why }),
        }
    }
}

/// Why reading the log ended early.
enum Failure {
    Open(OpenError),
    /// The checkpoint cannot be believed, or could not be written.
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

impl From<checkpoint::Error> for Failure {
    fn from(error: checkpoint::Error) -> Self {
        Self::Index(error.to_string())
    }
}

fn list_segments(vfs: &dyn Vfs, log: &Path, report: &mut OpenReport) -> Result<Vec<u64>, OpenError> {
    let mut sequences = Vec::new();
    for name in vfs.list(log).map_err(OpenError::io(log))? {
        match names::sequence(&name) {
            Some(sequence) => sequences.push(sequence),
            None => report.tell(Damage::new(log.join(name), "is no segment; it was left as it is")),
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// Opens the checkpoint, if it is intact and the log that it is of is there.
fn open_checkpoint(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    cache: usize,
    sequences: &[u64],
    report: &mut OpenReport,
) -> Result<Option<(Checkpoint, Meta)>, OpenError> {
    let why = match Checkpoint::open(vfs, dir, cache) {
        Ok(None) => return Ok(None),
        Ok(Some((checkpoint, meta))) => {
            let sequence = meta.position.0;
            if sequence == 0 || sequences.binary_search(&sequence).is_ok() {
                return Ok(Some((checkpoint, meta)));
            }
            format!("it contains the log up to a place in log/{}, which is missing", names::segment(sequence))
        }
        Err(checkpoint::Error::Full(source) | checkpoint::Error::Io(source)) => {
            return Err(OpenError::Io { path: names::index(dir), source });
        }
        Err(checkpoint::Error::Content(why)) => why,
    };
    set_aside(&**vfs, dir, &why, report)?;
    Ok(None)
}

/// Moves a checkpoint to the quarantine, so that it is rebuilt.
fn set_aside(vfs: &dyn Vfs, dir: &Path, why: &str, report: &mut OpenReport) -> Result<(), OpenError> {
    let path = names::index(dir);
    let quarantine = names::quarantine(dir);
    let taken = vfs.list(&quarantine).map_err(OpenError::io(&quarantine))?;
    // One name more than are taken, so one is free, even after an operator removed some.
    let name =
        (0..=taken.len()).map(|number| format!("{}-{number}.bad", names::INDEX)).find(|name| !taken.contains(name));
    let target = quarantine.join(name.unwrap_or_default());
    report.tell(Damage::new(
        path.clone(),
        &format!("{why}; the index was moved to quarantine/ and rebuilt from the log"),
    ));
    vfs.rename(&path, &target).and_then(|()| vfs.sync_dir(dir)).map_err(OpenError::io(&path))
}

impl<'a> Opening<'a> {
    fn new(
        vfs: &'a Arc<dyn Vfs>,
        dir: &'a Path,
        options: &LogOptions,
        wall: u64,
        moment: Option<Moment>,
        found: Option<(Checkpoint, Meta)>,
        report: OpenReport,
    ) -> Result<Self, OpenError> {
        let path = names::index(dir);
        let failed = |error: checkpoint::Error| OpenError::Failed { path: path.clone(), why: error.to_string() };
        // The queue's clock goes on from the checkpoint's, by what the wall clock says has passed.
        // The limit keeps a wall clock set far ahead from expiring all mail at once.
        let moment = match (moment, &found) {
            (Some(moment), _) => moment,
            (None, Some((_, meta))) => {
                after(meta.now, Duration::from_millis(wall.saturating_sub(meta.wall)).min(LONGEST_PAUSE))
            }
            (None, None) => i64::try_from(wall.saturating_mul(1_000)).unwrap_or(i64::MAX / 2),
        };
        let log = names::log(dir);
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
        let generation = first_generation(vfs.random().map_err(OpenError::io(dir))?);
        let index = Index::new(snapshot, meta.totals, moment, bounds, generation);
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
            report,
        })
    }

    fn read(&mut self, sequences: &[u64]) -> Result<(), Failure> {
        let (first, at) = self.position.unwrap_or_default();
        let known = mem::take(&mut self.segments.list);
        let (there, missing): (BTreeMap<_, _>, BTreeMap<_, _>) =
            known.into_iter().partition(|(sequence, _)| sequences.binary_search(sequence).is_ok());
        self.segments.list = there;
        self.segments.missing = missing.iter().map(|(sequence, segment)| (*sequence, segment.live_octets)).collect();
        for (at, sequence) in sequences.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| sequences.get(at));
            // Segments missing before its place are not needed by the checkpoint, or are reported
            // already.
            if *sequence > first && before.is_some_and(|before| before.checked_add(1) != Some(*sequence)) {
                self.damage(
                    self.segments.dir.join(names::segment(*sequence)),
                    "has no predecessor: a segment before it is missing",
                );
            }
        }
        // A name may not be on stable storage yet, while its segment or body is about to be used.
        for dir in [&self.segments.dir, &names::bodies(self.dir)] {
            self.vfs.sync_dir(dir).map_err(OpenError::io(dir))?;
        }
        for (place, sequence) in sequences.iter().enumerate() {
            let start = if *sequence == first { at } else { 0 };
            let newest = place + 1 == sequences.len();
            self.read_segment(*sequence, start, *sequence < first, newest)?;
        }
        self.report_missing();
        Ok(())
    }

    /// A segment is removed only after its last message has ended. So one that is missing now is
    /// lost.
    fn report_missing(&mut self) {
        self.segments.missing.retain(|_, octets| *octets > 0);
        for sequence in self.segments.missing.keys() {
            let path = self.segments.dir.join(names::segment(*sequence));
            let what = "is missing; the messages whose bodies were in it are on hold: restore it, or remove them";
            self.report.tell(Damage::new(path, what));
        }
    }

    fn end(mut self, bodies: Bodies) -> Result<Recovered, OpenError> {
        let files = if bodies == Bodies::Check { self.list_bodies()? } else { BTreeSet::new() };
        if self.next_id == 0 {
            // Far from the ids of an earlier queue in this folder, so that log lines of the two are
            // not confused.
            self.next_id = (self.now.wall / 1000) << 20;
        }
        if !self.report.damaged.is_empty() {
            // The lost part may have had records of ids.
            self.next_id = self.next_id.saturating_add(1 << 32);
        }
        let failed = |error: Unreadable| OpenError::Failed { path: names::index(self.dir), why: error.0 };
        if bodies == Bodies::Check {
            self.check_bodies(files).map_err(|failure| match failure {
                Failure::Open(error) => error,
                Failure::Index(why) => failed(Unreadable(why)),
            })?;
        }
        let mut stats = Stats::default();
        self.index.stats(self.now.moment, &mut stats).map_err(failed)?;
        self.report.messages = stats.messages;
        self.report.segments = self.segments.list.len() as u64;
        let Self { checkpoint, position, index, segments, next_id, report, now, .. } = self;
        let position = position.unwrap_or_default();
        Ok(Recovered { checkpoint, position, index, segments, next_id, report, moment: now.moment })
    }

    fn damage(&mut self, path: PathBuf, what: &str) {
        self.report.tell(Damage::new(path, what));
    }
}

/// The largest number of damages that an opening lists one by one.
const MOST_TOLD: usize = 1_000;

/// The longest time that a queue is taken to have been closed: the wall clock may be wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
