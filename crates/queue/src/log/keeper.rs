//! The store's thread: it runs the store, and opens the queue again after the disk has failed.
//!
//! A failed write or sync ends a store. What is on the disk is unknown then, and the system reports
//! a lost write only once. So nothing in memory is believed any more. The folder is read as at any
//! opening: its last records are written once more before they count, and a new segment is begun.
//! Callers keep their [`LogQueue`](crate::log::LogQueue).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::log::checkpoint::Checkpoint;
use crate::log::disk::folder;
use crate::log::disk::whereabouts::Known;
use crate::log::options::OpenError;
use crate::log::recover::{Bodies, Recovered, recover};
use crate::log::write::checkpointer::Checkpointer;
use crate::log::write::segment::Segments;
use crate::log::write::shared::Shared;
use crate::log::write::store::Store;
use crate::{Broken, Error};

/// The thread's body.
pub(super) fn run(shared: &Arc<Shared>, store: Store) {
    let _guard = Guard(Arc::clone(shared));
    let clock = &shared.options.clock;
    let mut next = Some(store);
    let mut pause = FIRST_PAUSE;
    while let Some(store) = next.take() {
        let began = clock.now();
        let Err(known) = store.run() else { break };
        if clock.now().saturating_sub(began) >= LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        next = open_again(shared, &known, &mut pause);
    }
    shared.core.end(Error::Closed);
}

/// Starts a store on what was read. It takes a block of ids before it returns.
pub(super) fn start(
    shared: &Arc<Shared>,
    segments: Segments,
    checkpoint: Checkpoint,
    position: (u64, u64),
) -> Result<Store, OpenError> {
    shared.counts.index_disk.store(checkpoint.len().unwrap_or_default(), Relaxed);
    let checkpointer = Checkpointer::start(shared, checkpoint).map_err(OpenError::io(&shared.dir))?;
    let mut segments = segments;
    segments.watch(shared.whereabouts.newest());
    let mut store = Store::new(Arc::clone(shared), segments, checkpointer, position);
    store.begin().map_err(|why| OpenError::Failed { path: shared.dir.clone(), why })?;
    Ok(store)
}

/// Tries until the queue is open again. `None`: it was closed.
fn open_again(shared: &Arc<Shared>, known: &Known, pause: &mut Duration) -> Option<Store> {
    let Some(Error::Broken(why)) = shared.core.ended() else { return None };
    loop {
        if !wait(shared, *pause) {
            return None;
        }
        let opened = find(shared, known).and_then(|()| {
            // Looking is cheap, and keeps the pause; reading is not, and doubles it.
            *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            open(shared)
        });
        match opened {
            Ok(store) => return Some(store),
            Err(error) => shared.core.explain(Broken::new(&format!("{why}; opening it again failed: {error}"))),
        }
    }
}

/// Waits by the queue's clock. Returns `false` if the queue was closed in the meantime.
fn wait(shared: &Shared, pause: Duration) -> bool {
    let clock = &shared.options.clock;
    let until = clock.now().saturating_add(pause);
    loop {
        let left = until.saturating_sub(clock.now());
        if shared.lanes.is_stopping() {
            return false;
        }
        if left.is_zero() {
            return true;
        }
        shared.core.bell.wait(Some(left));
    }
}

/// Checks that everything that was there still is.
fn find(shared: &Shared, known: &Known) -> Result<(), OpenError> {
    let (vfs, dir) = (&shared.vfs, &shared.dir);
    let missing = |why| OpenError::Failed { path: dir.clone(), why };
    // A disk that is no longer mounted leaves an empty folder. It must not become another queue.
    if !folder::judge(&**vfs, dir)? {
        let why = "the folder is empty: see that its disk is mounted".to_owned();
        return Err(missing(why));
    }
    shared.whereabouts.check_known(&**vfs, known).map_err(missing)
}

fn open(shared: &Arc<Shared>) -> Result<Store, OpenError> {
    let (vfs, dir) = (&shared.vfs, &shared.dir);
    // The folder may be another one than the one that was locked.
    shared.locks().clear();
    let locks = folder::claim(&**vfs, dir)?;
    shared.locks().extend(locks);
    shared.readers.forget_all();
    let recovered = recover(vfs, dir, &shared.options, Some(shared.core.now()), Bodies::Check)?;
    let Recovered { checkpoint, position, index, segments, next_id, report, .. } = recovered;
    shared.ids.skip_to(next_id);
    shared.counts.damaged.fetch_max(report.damages(), Relaxed);
    let store = start(shared, segments, checkpoint, position)?;
    shared.counts.reopened.fetch_add(1, Relaxed);
    // First the lanes, then the index: a caller that finds the index must find the lanes open.
    shared.lanes.reopen();
    shared.core.restart(index);
    Ok(store)
}

/// If the thread panics, no call waits for it afterwards.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        let why = Broken::new("the store's thread ended; close the queue and open it again");
        self.0.fail(&why.to_string());
        self.0.core.end(Error::Broken(why));
    }
}

/// The first pause after a failure. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. After a store has run this long, the next pause is the first one again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
