//! What an opening is told, and what it tells.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Clock, SystemClock};

/// What a [`LogQueue`](crate::log::LogQueue) may take.
#[derive(Clone)]
pub struct LogOptions {
    /// Where it takes the time from. Default: [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// Octets of a log segment, within 4 KiB and 1 GiB. Default: 64 MiB, which is read in a fraction of a second and small enough that
    /// the space of delivered mail comes back soon.
    pub segment_size: u64,
    /// A body up to this many octets goes into the log, a larger one into a file of its own. At most 8 MiB. Default: 256 KiB, above
    /// which a file costs nothing compared with the octets.
    pub inline_body: usize,
    /// The largest body in octets; beyond it a draft is `TooLarge`. Default: 256 MiB.
    pub max_body: u64,
    /// Octets of memory for messages, without their bodies: about 0.5 KiB for each and for each of its deliveries, and their envelopes
    /// and states. The others are looked up on the disk when it is their turn, so this bounds no queue; it should hold what
    /// comes and goes within some seconds. Beyond it new messages wait for the next checkpoint of the index. Outcomes do not: one that
    /// ends a message leaves 64 octets until then, whatever this is. At least 4 KiB. Default: 32 MiB, about 30,000 small messages.
    pub index_memory: usize,
    /// Octets of memory for pages of the index on the disk. Default: 16 MiB.
    pub index_cache: usize,
    /// Octets of memory for bodies being received, of all drafts together. Beyond it a draft goes on in a file of its own, however
    /// small it is. A batch that is being written takes up to 16 MiB beside it. Default: 64 MiB.
    pub draft_memory: usize,
    /// Messages being received at once, those waiting for their commit included; beyond it puts are `Full`. Default: 2,000.
    pub max_drafts: usize,
    /// Deliveries that are leased at once, those counted whose outcome is being written; beyond it claims give nothing. Of so many at
    /// most nobody knows after a crash whether they were made: they are offered again. At least 1. Default: 1,000.
    pub max_leases: usize,
    /// Octets that must be free on the disk beside the announced size for a put not to be `Full`. Outcomes are written down to the
    /// last octet. Once there was less, puts are `Full` until there is a quarter more than this. Of a small disk no more than a sixteenth
    /// is kept back. Likewise 1,024 files that can still be made, where the disk has a limit. 0: nothing is kept back. Default: 64 MiB.
    pub disk_reserve: u64,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Messages in the queue.
    pub messages: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Octets cut off the end of the log: a batch that was being written when the process or the machine stopped, which nobody was
    /// told about.
    pub truncated: u64,
    /// Bodies that belonged to no message: of drafts that were never accepted, or of messages that are gone.
    pub orphans: u64,
    /// What should not be as it is, 1,000 of it at most. Nothing of it was deleted: look into the folder `quarantine`.
    pub damaged: Vec<Damage>,
    /// What would stand in `damaged` too if there were not 1,000 in it. [`verify`](super::inspect::verify) tells all.
    pub further: u64,
    /// What other users of this host may do with the queue that they should not, each with its remedy.
    pub warnings: Vec<String>,
    /// How much may stand in `damaged`.
    most: usize,
}

impl OpenReport {
    /// How much is damaged, whether it stands in `damaged` or not.
    #[must_use]
    pub fn damages(&self) -> u64 {
        self.further.saturating_add(self.damaged.len() as u64)
    }

    /// Whose `damaged` never has more than `most`.
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// A disk that lost a whole folder is one misfortune, and not a report as long as the queue.
    pub(super) fn tell(&mut self, damage: Damage) {
        if self.damaged.len() < self.most {
            self.damaged.push(damage);
        } else {
            self.further = self.further.saturating_add(1);
        }
    }
}

/// Something on the disk that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Which octets of it, unless it is the whole file.
    pub place: Option<Range<u64>>,
    /// What is the matter with it.
    pub what: String,
}

/// The queue could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is locked by another process: stop that one first, or choose another folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Everybody on this host may put files into the folder, and take files away.
    #[error("everybody may write to {}: say chmod 700 {} when it is known what is in it", path.display(), path.display())]
    Writable {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has something else in it.
    #[error("{} does not belong to a queue: choose an empty folder, or move it away", path.display())]
    Foreign {
        /// What does not belong there.
        path: PathBuf,
    },
    /// The folder is a queue of another version.
    #[error("{} says \"{found}\": use the program that wrote it, and let its queue run empty", path.display())]
    Version {
        /// The marker.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file could not be read, written or synced.
    #[error("{}: {source}; see that the disk is well, has room, and that this user may write there", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The log could not be written.
    #[error("the queue in {} could not be started: {why}", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
        /// The file and what happened to it.
        why: String,
    },
}

impl Damage {
    pub(super) fn new(path: PathBuf, what: &str) -> Self {
        Self { path, place: None, what: what.to_owned() }
    }

    pub(super) fn within(path: PathBuf, place: Range<u64>, what: &str) -> Self {
        Self { path, place: Some(place), what: what.to_owned() }
    }
}

impl LogOptions {
    pub(super) fn within_bounds(mut self) -> Self {
        self.segment_size = self.segment_size.clamp(4 << 10, 1 << 30);
        self.inline_body = self.inline_body.min(MAX_INLINE);
        self.index_memory = self.index_memory.max(4 << 10);
        self.max_leases = self.max_leases.max(1);
        self
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            segment_size: 64 << 20,
            inline_body: 256 << 10,
            max_body: 256 << 20,
            index_memory: 32 << 20,
            index_cache: 16 << 20,
            draft_memory: 64 << 20,
            max_drafts: 2_000,
            max_leases: 1_000,
            disk_reserve: 64 << 20,
        }
    }
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("segment_size", &self.segment_size)
            .field("inline_body", &self.inline_body)
            .field("max_body", &self.max_body)
            .field("index_memory", &self.index_memory)
            .field("index_cache", &self.index_cache)
            .field("draft_memory", &self.draft_memory)
            .field("max_drafts", &self.max_drafts)
            .field("max_leases", &self.max_leases)
            .field("disk_reserve", &self.disk_reserve)
            .finish_non_exhaustive()
    }
}

/// No body in the log is longer.
pub(super) const MAX_INLINE: usize = 8 << 20;
