//! What callers and the threads of a queue share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::core::Core;
use crate::log::checkpoint::Snapshot;
use crate::log::disk::folder::Locks;
use crate::log::disk::names;
use crate::log::disk::vfs::Vfs;
use crate::log::disk::watermark::Watermark;
use crate::log::disk::whereabouts::Whereabouts;
use crate::log::format::record::Now;
use crate::log::options::LogOptions;
use crate::log::read::readers::Readers;
use crate::log::write::lanes::{Job, Lanes};
use crate::log::write::slot::DraftSlots;
use crate::{Broken, Clock, Error, MessageId};

/// What callers, the syncing thread, the store's thread and the index thread share.
pub(in crate::log) struct Shared {
    pub(in crate::log) core: Arc<Core<Snapshot>>,
    pub(in crate::log) readers: Readers,
    pub(in crate::log) lanes: Lanes,
    pub(in crate::log) slots: Arc<DraftSlots>,
    pub(in crate::log) ids: Ids,
    pub(in crate::log) vfs: Arc<dyn Vfs>,
    pub(in crate::log) dir: PathBuf,
    pub(in crate::log) options: LogOptions,
    pub(in crate::log) counts: Counts,
    pub(in crate::log) watermark: Watermark,
    /// The number of waits for stable storage since the queue was opened.
    pub(in crate::log) syncs: Arc<AtomicU64>,
    pub(in crate::log) whereabouts: Whereabouts,
    /// Empty once the queue is closed.
    pub(in crate::log) locks: Mutex<Locks>,
}

#[derive(Debug, Default)]
pub(in crate::log) struct Counts {
    pub(in crate::log) puts: AtomicU64,
    pub(in crate::log) finished: AtomicU64,
    pub(in crate::log) damaged: AtomicU64,
    pub(in crate::log) disk: AtomicU64,
    pub(in crate::log) index_disk: AtomicU64,
    pub(in crate::log) reopened: AtomicU64,
}

/// Message ids. Those below the ceiling, which is on stable storage, may be given out.
#[derive(Debug)]
pub(in crate::log) struct Ids {
    pub(in crate::log) next: AtomicU64,
    pub(in crate::log) ceiling: AtomicU64,
}

impl Shared {
    /// Hands a job to the store's thread.
    pub(in crate::log) fn submit(&self, job: Job) {
        if self.lanes.push(job) {
            self.core.bell.ring();
        }
    }

    /// Why a job was not answered.
    pub(in crate::log) fn gone(&self) -> Error {
        let silent = || Error::Broken(Broken::new("the store's thread ended; close the queue and open it again"));
        self.core.ended().unwrap_or_else(silent)
    }

    pub(in crate::log) fn now(&self) -> Now {
        Now { moment: self.core.now(), wall: wall(&*self.options.clock) }
    }

    pub(in crate::log) fn bodies(&self) -> PathBuf {
        names::bodies(&self.dir)
    }

    pub(in crate::log) fn body_path(&self, id: MessageId) -> PathBuf {
        self.bodies().join(names::body(id))
    }

    pub(in crate::log) fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called once no thread works on the queue: later calls fail, and other processes may
    /// open it.
    pub(in crate::log) fn let_go(&self) {
        self.core.end(Error::Closed);
        self.locks().clear();
    }

    /// Stops the store if what it writes would not be found again.
    pub(in crate::log) fn check_whereabouts(&self) {
        if self.core.ended().is_none()
            && let Err(why) = self.whereabouts.check(&*self.vfs)
        {
            self.fail(&why);
        }
    }

    /// Stops the store and fails all waiting calls. The store's thread opens the queue again.
    pub(in crate::log) fn fail(&self, why: &str) {
        let error = self.core.stop(Broken::new(why));
        self.lanes.close(&error);
    }
}

impl Ids {
    /// From now on, gives out no id below `next`.
    pub(in crate::log) fn skip_to(&self, next: u64) {
        let before = self.next.fetch_max(next, Relaxed);
        self.ceiling.fetch_max(before.max(next), Relaxed);
    }

    /// Returns an id that is never given out again. `None`: the block is used up.
    pub(in crate::log) fn next(&self) -> Option<MessageId> {
        let ceiling = self.ceiling.load(Relaxed);
        let next = self.next.fetch_update(Relaxed, Relaxed, |next| (next < ceiling).then(|| next.saturating_add(1)));
        next.ok().map(MessageId::from_u64)
    }

    pub(in crate::log) fn low(&self) -> bool {
        self.ceiling.load(Relaxed).saturating_sub(self.next.load(Relaxed)) < ID_BLOCK / 2
    }
}

/// The wall clock, in milliseconds since 1970.
pub(in crate::log) fn wall(clock: &dyn Clock) -> u64 {
    let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

/// The number of ids reserved on stable storage at once.
pub(in crate::log) const ID_BLOCK: u64 = 65_536;
