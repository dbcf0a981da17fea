//! The durable engine: one log, grouped commits, and an index that is a checkpoint of the log.
//!
//! `FORMAT.md` describes what lies on the disk, `DESIGN.md` the threads and locks. In short: the
//! store's thread owns the log. It takes the jobs that wait, writes them with one write, makes them
//! durable with one `fdatasync`, and only then answers. A second thread writes checkpoints. Claims
//! and look-ups read what is not in memory on the caller's thread, and block it for some pages of
//! the index: microseconds if the system has them cached.

mod checkpoint;
mod disk;
mod format;
pub mod inspect;
mod keeper;
mod options;
mod read;
mod recover;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use self::disk::counting::Counting;
use self::disk::folder;
use self::disk::names;
use self::disk::vfs::{Os, Vfs, is_scarce};
use self::disk::watermark::Watermark;
use self::disk::whereabouts::Whereabouts;
use self::format::place::Stored;
pub use self::options::{Damage, LogOptions, OpenError, OpenReport};
use self::read::body;
pub use self::read::body::LogBody;
use self::read::readers::Readers;
use self::recover::Recovered;
pub use self::write::draft::LogDraft;
use self::write::lanes::{Job, Lanes};
use self::write::shared::{Counts, Ids, Shared};
use self::write::slot::DraftSlots;
use self::write::sync::{self, Syncer};
use crate::core::Core;
use crate::{
    Alteration, Change, Claim, Claimed, Derived, DueClass, Error, Full, Gather, Lease, LeaseError, MessageId, Outcome,
    Page, PutError, Queue, Search, Stats, Summary, TooLarge, limits,
};

/// A queue in a folder of a local disk, not of a network file system.
///
/// Dropping it closes it, and blocks until that is done: await [`close`](Queue::close) first where
/// blocking matters.
pub struct LogQueue {
    shared: Arc<Shared>,
    syncer: Syncer,
    report: OpenReport,
    /// The syncing thread and the store's, in the order in which they end.
    threads: Vec<JoinHandle<()>>,
    /// Its sender is dropped when the store's thread ends.
    ended: watch::Receiver<()>,
}

impl LogQueue {
    /// Opens the queue in this folder, and creates it if there is none. Blocks while it looks
    /// through the index and reads the log after it, about a second for each gigabyte. As a rule
    /// that part of the log has at most four segments.
    ///
    /// # Errors
    /// [`OpenError`], with the file and the remedy. A folder that is not a queue of this version is
    /// not changed.
    pub fn open(dir: impl AsRef<Path>, options: LogOptions) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Os::with_reserve()), dir.as_ref(), options)
    }

    /// Returns what the first opening found.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    fn open_on(vfs: Arc<dyn Vfs>, dir: &Path, options: LogOptions) -> Result<Self, OpenError> {
        let options = options.within_bounds();
        let syncs = Arc::new(AtomicU64::new(0));
        let vfs: Arc<dyn Vfs> = Arc::new(Counting::new(vfs, Arc::clone(&syncs)));
        if !vfs.exists(dir).map_err(OpenError::io(dir))? {
            folder::make(&*vfs, dir)?;
        }
        // Before locking, which creates a file: another program's folder is left as it is.
        folder::judge(&*vfs, dir)?;
        let warnings = folder::guard(&*vfs, dir)?;
        let locks = folder::claim(&*vfs, dir)?;
        let recovered = recover::recover(&vfs, dir, &options, None, recover::Bodies::Check)?;
        let Recovered { checkpoint, position, index, mut segments, next_id, mut report, moment } = recovered;
        report.warnings = warnings;
        segments.resume().map_err(OpenError::io(dir))?;
        // The syncs of opening do not count as those of messages.
        syncs.store(0, Relaxed);
        let whereabouts = Whereabouts::new(&*vfs, dir)?;
        let origin = moment.saturating_sub(crate::index::moment(options.clock.now()));
        let core = Arc::new(Core::new(Arc::clone(&options.clock), origin, index));
        let shared = Arc::new(Shared {
            slots: Arc::new(DraftSlots::new(Arc::clone(&core), &options)),
            core,
            readers: Readers::new(Arc::clone(&vfs), names::log(dir)),
            lanes: Lanes::default(),
            ids: Ids { next: AtomicU64::new(next_id), ceiling: AtomicU64::new(next_id) },
            vfs,
            dir: dir.to_owned(),
            options,
            counts: Counts::default(),
            watermark: Watermark::default(),
            syncs,
            whereabouts,
            locks: Mutex::new(locks),
        });
        shared.counts.damaged.store(report.damages(), Relaxed);
        let store = keeper::start(&shared, segments, checkpoint, position)?;
        let (syncer, unsynced) = Syncer::new();
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let syncing = Arc::clone(&shared);
        let syncing = thread("posthaste-sync").spawn(move || sync::run(&syncing, &unsynced));
        let keeping = Arc::clone(&shared);
        let (alive, ended) = watch::channel(());
        let storing = thread("posthaste-store").spawn(move || {
            // Dropped last, even if the thread panics.
            let _alive = alive;
            keeper::run(&keeping, store);
        });
        let threads = vec![syncing.map_err(OpenError::io(dir))?, storing.map_err(OpenError::io(dir))?];
        Ok(Self { shared, syncer, report, threads, ended })
    }

    async fn ask<T>(&self, job: Job, answered: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        self.shared.submit(job);
        answered.await.unwrap_or_else(|_| Err(self.shared.gone()))
    }
}

impl Queue for LogQueue {
    type Draft = LogDraft;
    type Body = LogBody;

    async fn put(&self, size_hint: Option<u64>) -> Result<LogDraft, PutError> {
        let shared = &self.shared;
        if let Some(why) = shared.core.ended() {
            return Err(why.into());
        }
        let (limit, hint) = (shared.options.max_body, size_hint.unwrap_or(0));
        if hint > limit {
            return Err(TooLarge::bytes("the body", limit, hint).into());
        }
        shared.admit(hint)?;
        let limit = shared.options.max_drafts;
        let slot = shared.slots.take(shared.lanes.life()).ok_or(PutError::Full(Full::Drafts { limit }))?;
        for _ in 0..ID_TRIES {
            if let Some(id) = shared.ids.next() {
                return Ok(LogDraft::new(shared, self.syncer.clone(), slot, id));
            }
            // Rare: this block of ids was used up before the next one was written.
            let (answer, answered) = oneshot::channel();
            shared.submit(Job::Ids { answer });
            answered.await.unwrap_or_else(|_| Err(shared.gone().into()))?;
        }
        // Other puts took the ids of each block first: there are too many at once.
        Err(PutError::Full(Full::Drafts { limit }))
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.shared.core.claim(claim)
    }

    async fn body(&self, message: MessageId) -> Result<LogBody, Error> {
        let mut last = None;
        loop {
            let found = self.shared.core.with(|index, _| index.get(message))?.ok_or(Error::NoSuchMessage(message))?;
            let Stored { sequence, crc, inline, .. } = found.stored;
            let (path, at) = body::place(&self.shared.dir, message, &found.stored);
            let opened = match inline {
                Some(_) => self.shared.readers.get(sequence),
                None => self.shared.vfs.open_for_caller(&path),
            };
            let name = path.display().to_string();
            match opened {
                Ok(file) => {
                    let (left, len) = (found.body_len, found.body_len);
                    return Ok(LogBody { message, file, name, at, left, len, hasher: crc32fast::Hasher::new(), crc });
                }
                Err(error) if is_scarce(&error) => return Err(Error::Scarce(format!("{name}: {error}").into())),
                // The message may have been copied forward or finished in the meantime.
                Err(_) if last != Some(found.stored) => last = Some(found.stored),
                Err(error) => {
                    let reason = format!("{name}: {error}; restore the file, or remove the message").into();
                    return Err(Error::Damaged { message, reason });
                }
            }
        }
    }

    async fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.shared.core.extend(lease, lease_for)
    }

    async fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        self.shared.core.gather(gather)
    }

    async fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Vec<MessageId>, LeaseError> {
        limits::check_outcomes(&ends, &derived)?;
        let (answer, answered) = oneshot::channel();
        self.shared.submit(Job::Finish { ends, derived, answer });
        answered.await.unwrap_or_else(|_| Err(self.shared.gone().into()))
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        self.shared.core.due(after, limit)
    }

    async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.shared.core.changed(seen).await
    }

    async fn alter(&self, message: MessageId, what: Alteration) -> Result<usize, Error> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Alter { id: message, what, answer }, answered).await
    }

    async fn remove(&self, message: MessageId) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Remove { id: message, answer }, answered).await
    }

    async fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        self.shared.core.search(search, after, limit)
    }

    async fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        self.shared.core.summary(message)
    }

    async fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        // Asking for the state finds a moved folder, even if there was no write since.
        self.shared.check_whereabouts();
        let (disk_pressure, files_pressure) = self.shared.pressures();
        Stats {
            disk_pressure,
            files_pressure,
            disk: counts.disk.load(Relaxed),
            index_disk: counts.index_disk.load(Relaxed),
            drafts: self.shared.slots.drafts() as u64,
            draft_memory: self.shared.slots.memory() as u64,
            puts: counts.puts.load(Relaxed),
            finished: counts.finished.load(Relaxed),
            fsyncs: self.shared.syncs.load(Relaxed),
            damaged: counts.damaged.load(Relaxed),
            reopened: counts.reopened.load(Relaxed),
            ..self.shared.core.stats()
        }
    }

    async fn close(&self) {
        // The syncing thread ends and stops the lanes; then the store's thread ends.
        self.syncer.stop();
        let mut ended = self.ended.clone();
        // It ends with an error once the sender is gone, which is what this waits for.
        drop(ended.changed().await);
        self.shared.let_go();
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.syncer.stop();
        // A thread that panicked has answered the calls that waited for it.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        self.shared.let_go();
    }
}

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogQueue").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

/// Blocks of ids that other puts may use up before a put gives up.
const ID_TRIES: usize = 8;
