//! What callers and the threads of a queue share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::LogOptions;
use super::checkpoint::Snapshot;
use super::folder::Locks;
use super::format::Now;
use super::lanes::{Job, Lanes};
use super::readers::Readers;
use super::vfs::Vfs;
use super::watermark::Watermark;
use super::whereabouts::Whereabouts;
use crate::core::Core;
use crate::{Broken, Clock, Error, MessageId};

/// What callers, the syncing thread and the store's thread share.
pub(super) struct Shared {
    pub(super) core: Core<Snapshot>,
    pub(super) readers: Readers,
    pub(super) lanes: Lanes,
    pub(super) ids: Ids,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    pub(super) counts: Counts,
    pub(super) watermark: Watermark,
    /// How often stable storage was waited for since the queue was open.
    pub(super) syncs: Arc<AtomicU64>,
    pub(super) whereabouts: Whereabouts,
    /// Empty when the queue is closed.
    pub(super) locks: Mutex<Locks>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) drafts: AtomicUsize,
    pub(super) draft_memory: AtomicUsize,
    pub(super) puts: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) disk: AtomicU64,
    pub(super) index_disk: AtomicU64,
    pub(super) reopened: AtomicU64,
}

/// Message ids: below the ceiling, which is on stable storage, they may be given out.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) next: AtomicU64,
    pub(super) ceiling: AtomicU64,
}

impl Shared {
    /// Hands a job to the store's thread.
    pub(super) fn submit(&self, job: Job) {
        if self.lanes.push(job) {
            self.core.bell.ring();
        }
    }

    /// Why nobody answered.
    pub(super) fn gone(&self) -> Error {
        let silent = || Error::Broken(Broken::new("the store's thread ended; close the queue and open it again"));
        self.core.ended().unwrap_or_else(silent)
    }

    pub(super) fn now(&self) -> Now {
        Now { moment: self.core.now(), wall: wall(&*self.options.clock) }
    }

    pub(super) fn bodies(&self) -> PathBuf {
        self.dir.join("bodies")
    }

    pub(super) fn body_path(&self, id: MessageId) -> PathBuf {
        self.bodies().join(format!("{:016x}", id.as_u64()))
    }

    pub(super) fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the store when what it writes would not be found again.
    pub(super) fn check_whereabouts(&self) {
        if self.core.ended().is_none()
            && let Err(why) = self.whereabouts.check(&*self.vfs)
        {
            self.fail(&why);
        }
    }

    /// The store is done for: everybody is told. Its thread opens the queue again.
    pub(super) fn fail(&self, why: &str) {
        let error = self.core.stop(Broken::new(why));
        self.lanes.close(&error);
    }
}

impl Ids {
    /// No id below this one is given out any more.
    pub(super) fn skip_to(&self, next: u64) {
        let before = self.next.fetch_max(next, Relaxed);
        self.ceiling.fetch_max(before.max(next), Relaxed);
    }

    /// An id that will never be given out again, if one is left of the block.
    pub(super) fn next(&self) -> Option<MessageId> {
        let ceiling = self.ceiling.load(Relaxed);
        let next = self.next.fetch_update(Relaxed, Relaxed, |next| (next < ceiling).then(|| next.saturating_add(1)));
        next.ok().map(MessageId::from_u64)
    }

    pub(super) fn low(&self) -> bool {
        self.ceiling.load(Relaxed).saturating_sub(self.next.load(Relaxed)) < ID_BLOCK / 2
    }
}

/// The wall clock, in milliseconds since 1970.
pub(super) fn wall(clock: &dyn Clock) -> u64 {
    let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

/// Ids are reserved on stable storage so many at once.
pub(super) const ID_BLOCK: u64 = 65_536;
