//! What an opening is told, and what it reports.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Clock, SystemClock};

/// Limits of a [`LogQueue`](crate::log::LogQueue): take the default, then assign fields. A value
/// beyond its bounds counts as the nearest bound.
#[derive(Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// Where it takes the time from. Default: [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// The size of a log segment in bytes, 4 KiB to 1 GiB. Default: 64 MiB. It is read in a
    /// fraction of a second, and small enough that the space of delivered mail is soon free again.
    pub segment_size: u64,
    /// The largest body in bytes that goes into the log; a larger one has a file of its own. At
    /// most 8 MiB. Default: 256 KiB, beyond which the cost of a file no longer matters.
    pub inline_body: usize,
    /// The largest body in bytes. Beyond it: `TooLarge`. Default: 256 MiB.
    pub max_body: u64,
    /// Memory for messages in bytes, without their bodies: about 0.5 KiB for each message and each
    /// delivery, and their envelopes and states. Other messages are read from the disk when they
    /// are due, so this is no bound on the queue. It should hold what comes and goes within some
    /// seconds. Beyond it: new messages wait for the next checkpoint. Outcomes do not wait; a
    /// message that has ended still takes 64 bytes until that checkpoint. At least 4 KiB. Default:
    /// 32 MiB, about 30,000 small messages.
    pub index_memory: usize,
    /// Memory for cached pages of the index file in bytes. Default: 16 MiB.
    pub index_cache: usize,
    /// Memory for bodies being received in bytes, all drafts together. Beyond it: a draft goes on
    /// in a file of its own, however small it is. A batch being written takes up to 16 MiB more.
    /// Default: 64 MiB.
    pub draft_memory: usize,
    /// Messages that may be received at once, those waiting for their commit included. Beyond it:
    /// puts are `Full`. Default: 2,000.
    pub max_drafts: usize,
    /// Deliveries that may be leased at once, those whose outcome is being written included. Beyond
    /// it: claims return an empty list, and only `gather` leases more. As many deliveries may be
    /// made twice after a crash. The least value is 1. Default: 1,000.
    pub max_leases: usize,
    /// Bytes that must stay free on the disk, beside the announced size of a message. If fewer are
    /// free, puts are `Full` until a quarter more than this is free. Outcomes are still written,
    /// down to the last byte. At most a sixteenth of the disk is kept back. Likewise 1,024 files
    /// are kept back, where the file system has a limit. 0: nothing is kept back. Default: 64 MiB.
    pub disk_reserve: u64,
}

/// What the opening of a queue found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Messages in the queue.
    pub messages: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Bytes cut off the end of the log: a batch that was being written when the process or the
    /// machine stopped. It was never acknowledged.
    pub truncated: u64,
    /// Bodies that belonged to no message: those of drafts that were never accepted, or of messages
    /// that are gone.
    pub orphans: u64,
    /// Damages, at most 1,000. Nothing was deleted: look into the folder `quarantine`.
    pub damaged: Vec<Damage>,
    /// Number of damages beyond the 1,000 listed in `damaged`. [`verify`](super::inspect::verify)
    /// lists all.
    pub further: u64,
    /// Unsafe permissions of the folder, each with its remedy.
    pub warnings: Vec<String>,
    /// The largest length of `damaged`.
    most: usize,
}

impl OpenReport {
    /// Returns the number of damages, listed in `damaged` or not.
    #[must_use]
    pub fn damages(&self) -> u64 {
        self.further.saturating_add(self.damaged.len() as u64)
    }

    /// A report that lists at most `most` damages.
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Lists a damage, or counts it beyond the limit: a lost folder must not make a report as long
    /// as the queue.
    pub(super) fn tell(&mut self, damage: Damage) {
        if self.damaged.len() < self.most {
            self.damaged.push(damage);
        } else {
            self.further = self.further.saturating_add(1);
        }
    }
}

/// A file, or part of it, that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The damaged bytes. `None`: the whole file.
    pub place: Option<Range<u64>>,
    /// What is wrong with it.
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
    /// Every user of this host may create files in the folder, and remove them.
    #[error("every user of this host may write to {}: check what is in it, then say chmod 700 {}", path.display(), path.display())]
    Writable {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has other files in it.
    #[error("{} does not belong to a queue: choose an empty folder, or move the file away", path.display())]
    Foreign {
        /// One of the other files.
        path: PathBuf,
    },
    /// The file that marks the folder as a queue is missing or damaged.
    #[error(
        "{} is missing or damaged, and should mark the folder as a queue: if that is a queue of this program, leave \
         its files there and say printf 'posthaste-queue 1\\n' > {}", path.display(), path.display()
    )]
    Marker {
        /// The marker.
        path: PathBuf,
    },
    /// The folder is a queue of another version.
    #[error("{} says \"{found}\": use the program that wrote it, and let its queue run empty", path.display())]
    Version {
        /// The marker.
        path: PathBuf,
        /// What the marker says.
        found: String,
    },
    /// A file could not be read, written or synced.
    #[error("{}: {source}; check the disk, its free space, and that this user may write there", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
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

/// The largest body in the log in bytes.
pub(super) const MAX_INLINE: usize = 8 << 20;
