//! The thread that syncs large bodies, so that small messages do not wait for them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::disk::vfs::{VfsFile, is_for_now, refusal};
use crate::log::disk::whereabouts::Placed;
use crate::log::write::lanes::{Job, PutJob};
use crate::log::write::shared::Shared;
use crate::{Broken, Error, PutError};

/// The way to the thread. Clones share it.
#[derive(Clone)]
pub(in crate::log) struct Syncer(Arc<Mutex<Option<Sender<Unsynced>>>>);

/// A message whose body is written to its file and not synced.
pub(in crate::log) struct Unsynced {
    pub(in crate::log) file: Arc<dyn VfsFile>,
    pub(in crate::log) put: Box<PutJob>,
}

impl Syncer {
    pub(in crate::log) fn new() -> (Self, Receiver<Unsynced>) {
        let (sender, receiver) = mpsc::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    pub(in crate::log) fn submit(&self, shared: &Shared, unsynced: Unsynced) {
        let refused = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => sender.send(unsynced).err().map(|error| error.0),
            None => Some(unsynced),
        };
        if let Some(Unsynced { put, .. }) = refused {
            Job::Put(put).refuse(&shared.core.ended().unwrap_or(Error::Closed));
        }
    }

    /// Lets the thread finish what it has, and end.
    pub(in crate::log) fn stop(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The thread's body: syncs several bodies, then their names with one sync, then hands them to the
/// store.
pub(in crate::log) fn run(shared: &Shared, receiver: &Receiver<Unsynced>) {
    let _stop = Stop(shared);
    while let Ok(first) = receiver.recv() {
        let mut synced = Vec::new();
        for unsynced in std::iter::once(first).chain(receiver.try_iter().take(BATCH - 1)) {
            let Unsynced { file, put } = unsynced;
            match file.sync() {
                Ok(()) => synced.push((file, put)),
                Err(error) => {
                    let path = shared.body_path(put.image.id);
                    if !is_for_now(&error) {
                        shared.fail(&format!("{} could not be synced: {error}; check the disk", path.display()));
                    }
                    // After a failed sync the file is lost, whatever the reason. It belongs to this
                    // message alone.
                    let full = PutError::Full(refusal(&path, &error));
                    let error = shared.core.ended().map_or(full, PutError::from);
                    drop(put.answer.send(Err(error)));
                }
            }
        }
        if synced.is_empty() {
            continue;
        }
        let dir = shared.bodies();
        match shared.vfs.sync_dir(&dir) {
            Err(error) if is_for_now(&error) => {
                let full = refusal(&dir, &error);
                synced.drain(..).for_each(|(_, put)| drop(put.answer.send(Err(PutError::Full(full.clone())))));
            }
            Err(error) => shared.fail(&format!("{} could not be synced: {error}; check the disk", dir.display())),
            Ok(()) => {}
        }
        for (file, put) in synced {
            match find(shared, &*file, &put) {
                Ok(()) => shared.submit(Job::Put(put)),
                Err(why) => {
                    // If the whole folder is gone, no message is safe.
                    shared.check_whereabouts();
                    let error = shared.core.ended().map_or(PutError::Broken(Broken::new(&why)), PutError::from);
                    drop(put.answer.send(Err(error)));
                }
            }
        }
    }
}

/// Stops the store when the thread that feeds it ends, even by a panic.
struct Stop<'a>(&'a Shared);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.lanes.stop();
        self.0.core.bell.ring();
    }
}

/// Checks that the whole body will be found under its name.
fn find(shared: &Shared, file: &dyn VfsFile, put: &PutJob) -> Result<(), String> {
    let path = shared.body_path(put.image.id);
    let placed = Placed::new(path.clone(), file).map_err(|error| format!("{}: {error}", path.display()))?;
    placed.check(&*shared.vfs, put.image.message.body_len)
}

const BATCH: usize = 64;
