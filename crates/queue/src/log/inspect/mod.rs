//! Lists, verifies and repairs a queue that no process has open.
//!
//! An inspection opens the queue over an *overlay*: a file system that shows the folder as it is,
//! and keeps to itself what an opening writes. So the same code as for an opening decides what is
//! there. The folder stays as it is, because the file system below the overlay cannot write. A dry
//! run of a repair works over an overlay too.
//!
//! * [`Inspection`] lists and shows messages.
//! * [`verify`] reads every byte: the log from its beginning, as if there were no index; the index,
//!   which must say the same; every body. It reports [`Finding`]s.
//! * [`repair`] does for each finding what its [remedy](Trouble::remedy) says. It deletes nothing.
//!
//! All of them lock the queue as an opening does.
//!
//! **Index or log.** If the log is intact, it is right, and an index that differs is rebuilt. If
//! the log is damaged, the index may know what the log has lost. Then the index is believed, since
//! each of its rows has a checksum. A repair writes to the log again what the index knows. After
//! that the two agree. Times are not compared: the log has them in milliseconds of the wall clock,
//! the index on the queue's clock.
//!
//! **Bounds of memory.** 16 MiB for messages and 8 MiB for pages of the index; twice that while
//! index and log are compared. 16 MiB for what is written over the folder. What exceeds that goes
//! to a file without a name in [`InspectOptions::scratch`]. If the index is rebuilt, the file has
//! about 0.5 KiB for each message. One record of the log, at most 32 MiB. 8 bytes for each body
//! with a file of its own, and about 200 bytes for each damaged place of the log. A repair keeps
//! its findings, about 300 bytes each.

mod examine;
mod finding;
pub(super) mod overlay;
mod progress;
mod repair;
pub(super) mod scratch;

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::examine::Verified;
use self::examine::{examine, open_body};
pub use self::finding::{Finding, Trouble};
use self::overlay::{Overlay, Reading};
pub use self::progress::{Progress, Stage};
use self::repair::mend;
pub use self::repair::{Repair, Repaired};
use self::scratch::Scratch;
use crate::index::Unreadable;
use crate::log::disk::folder;
use crate::log::disk::names;
use crate::log::disk::vfs::{Os, Vfs};
use crate::log::options::{LogOptions, OpenError, OpenReport};
use crate::log::read::body;
use crate::log::read::readers::Readers;
use crate::log::recover::{self, Bodies, Recovered};
use crate::{Clock, Error, MessageId, Page, Search, Stats, Summary, SystemClock};

/// How to inspect a queue: take the default, then assign fields.
#[derive(Clone)]
#[non_exhaustive]
pub struct InspectOptions {
    /// The clock for ages and times until deliveries are due. Default: [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// The folder for what does not fit into memory. Default `None`: [`std::env::temp_dir`].
    pub scratch: Option<PathBuf>,
    /// Where progress is reported. Keep a clone, and [look](Progress::look) at it from another
    /// thread.
    pub progress: Arc<Progress>,
}

/// A queue could not be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no queue in this folder.
    #[error("there is no queue in {}: name the folder with the file posthaste-queue in it", path.display())]
    NoQueue {
        /// The folder.
        path: PathBuf,
    },
    /// The queue cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The index cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// There is no such message, or its body is damaged.
    #[error(transparent)]
    Message(#[from] Error),
    /// A body could not be passed on.
    #[error("the body could not be passed on: {0}")]
    Output(io::Error),
    /// A repair could not write to the log.
    #[error("{0}")]
    Append(String),
}

/// A queue as an opening would find it now. The folder is locked, and not changed.
pub struct Inspection {
    vfs: Arc<dyn Vfs>,
    readers: Readers,
    dir: PathBuf,
    recovered: Recovered,
    _lock: Box<dyn Any + Send + Sync>,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The segment with its newest record.
    pub segment: PathBuf,
    /// The file with its body.
    pub body: PathBuf,
    /// Where in that file the body begins, in bytes.
    pub at: u64,
    /// CRC-32 of the body.
    pub crc: u32,
}

impl Inspection {
    /// Opens the queue in this folder for inspection.
    ///
    /// # Errors
    /// [`InspectError`], with the file and the remedy.
    pub fn open(dir: impl AsRef<Path>, options: &InspectOptions) -> Result<Self, InspectError> {
        Self::open_on(Arc::new(Reading), dir.as_ref(), options)
    }

    pub(super) fn open_on(vfs: Arc<dyn Vfs>, dir: &Path, options: &InspectOptions) -> Result<Self, InspectError> {
        let folder = Folder::lock(vfs, dir, options)?;
        let vfs = folder.overlay();
        let recovered = folder.recover(&vfs, Bodies::Check)?;
        let readers = Readers::new(Arc::clone(&vfs), names::log(dir));
        Ok(Self { vfs, readers, dir: folder.dir, recovered, _lock: folder.lock })
    }

    /// Returns what an opening would report.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.recovered.report
    }

    /// Returns the counts of a queue that was just opened.
    ///
    /// # Errors
    /// [`InspectError::Unreadable`].
    pub fn stats(&mut self) -> Result<Stats, InspectError> {
        let mut stats = Stats { disk: self.recovered.segments.octets(), ..Stats::default() };
        self.recovered.index.stats(self.recovered.moment, &mut stats)?;
        stats.damaged = self.recovered.report.damages();
        Ok(stats)
    }

    /// Searches messages, as [`Queue::search`](crate::Queue::search) does.
    ///
    /// # Errors
    /// [`InspectError::Unreadable`].
    pub fn search(&mut self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, InspectError> {
        Ok(self.recovered.index.search(self.recovered.moment, search, after, limit)?)
    }

    /// Returns a message and where it is.
    ///
    /// # Errors
    /// [`InspectError::Message`] if there is none, [`InspectError::Unreadable`].
    pub fn show(&self, id: MessageId) -> Result<(Summary, Place), InspectError> {
        let message = self.recovered.index.get(id)?.ok_or(Error::NoSuchMessage(id))?;
        let segment = names::log(&self.dir).join(names::segment(message.stored.sequence));
        let (body, at) = body::place(&self.dir, id, &message.stored);
        let place = Place { segment, body, at, crc: message.stored.crc };
        Ok((message.summary(id, self.recovered.moment), place))
    }

    /// Writes the body of a message to `to`, 64 KiB at a time. The last piece is written only if
    /// the checksum is right.
    ///
    /// # Errors
    /// [`InspectError::Message`] if there is no such message or its body is damaged,
    /// [`InspectError::Output`], [`InspectError::Unreadable`].
    pub fn body(&self, id: MessageId, to: &mut dyn Write) -> Result<(), InspectError> {
        let message = self.recovered.index.get(id)?.ok_or(Error::NoSuchMessage(id))?;
        let mut body = open_body(&*self.vfs, &self.readers, &self.dir, id, &message)?;
        while let Some(chunk) = body.read()? {
            to.write_all(&chunk).map_err(InspectError::Output)?;
        }
        Ok(())
    }
}

/// Reads every byte of the queue in this folder, and calls `found` with what is not as it should
/// be. Changes nothing.
///
/// # Errors
/// [`InspectError`] if it could not be read to its end, with the file and the remedy.
pub fn verify(
    dir: impl AsRef<Path>,
    options: &InspectOptions,
    found: &mut dyn FnMut(Finding),
) -> Result<Verified, InspectError> {
    verify_on(Arc::new(Reading), dir.as_ref(), options, found)
}

/// Does for each finding what its remedy says, and calls `done` with it afterwards.
///
/// # Errors
/// [`InspectError`]. A part of the repair may have been done; it can be repeated.
pub fn repair(
    dir: impl AsRef<Path>,
    options: &InspectOptions,
    how: Repair,
    done: &mut dyn FnMut(&Finding),
) -> Result<Repaired, InspectError> {
    let vfs: Arc<dyn Vfs> = if how.dry_run { Arc::new(Reading) } else { Arc::new(Os::with_reserve()) };
    repair_on(vfs, dir.as_ref(), options, how, done)
}

pub(super) fn verify_on(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: &InspectOptions,
    found: &mut dyn FnMut(Finding),
) -> Result<Verified, InspectError> {
    examine(&Folder::lock(vfs, dir, options)?, found)
}

pub(super) fn repair_on(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: &InspectOptions,
    how: Repair,
    done: &mut dyn FnMut(&Finding),
) -> Result<Repaired, InspectError> {
    let mut folder = Folder::lock(vfs, dir, options)?;
    if how.dry_run {
        folder.vfs = folder.overlay();
    }
    mend(&folder, how, done)
}

/// The folder of a queue, locked.
struct Folder {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: InspectOptions,
    lock: Box<dyn Any + Send + Sync>,
}

impl Folder {
    fn lock(vfs: Arc<dyn Vfs>, dir: &Path, options: &InspectOptions) -> Result<Self, InspectError> {
        let none = || InspectError::NoQueue { path: dir.to_owned() };
        match folder::judge(&*vfs, dir) {
            Ok(true) => {}
            Ok(false) => return Err(none()),
            Err(OpenError::Io { source, path }) if source.kind() == io::ErrorKind::NotFound && path == dir => {
                return Err(none());
            }
            // No file in it says that it is a queue.
            Err(OpenError::Foreign { .. }) => return Err(none()),
            Err(error) => return Err(error.into()),
        }
        let lock = folder::lock(&*vfs, dir)?;
        Ok(Self { vfs, dir: dir.to_owned(), options: options.clone(), lock: Box::new(lock) })
    }

    /// The folder as a file system that can be written without changing it.
    fn overlay(&self) -> Arc<dyn Vfs> {
        let scratch = Scratch::new(self.options.scratch.as_deref());
        Arc::new(Overlay::new(Arc::clone(&self.vfs), scratch, Arc::clone(&self.options.progress)))
    }

    fn recover(&self, vfs: &Arc<dyn Vfs>, bodies: Bodies) -> Result<Recovered, InspectError> {
        folder::prepare(&**vfs, &self.dir)?;
        let options = LogOptions {
            clock: Arc::clone(&self.options.clock),
            index_memory: INDEX_MEMORY,
            index_cache: INDEX_CACHE,
            ..LogOptions::default()
        };
        Ok(recover::recover(vfs, &self.dir, &options, None, bodies)?)
    }
}

impl From<Unreadable> for InspectError {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error.0)
    }
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), scratch: None, progress: Arc::default() }
    }
}

impl fmt::Debug for InspectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectOptions").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("dir", &self.dir).finish_non_exhaustive()
    }
}

const INDEX_MEMORY: usize = 16 << 20;
const INDEX_CACHE: usize = 8 << 20;
