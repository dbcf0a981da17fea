//! The thread that waits for large bodies to reach stable storage, so that small messages do not wait for them.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use super::lanes::{Job, PutJob};
use super::shared::Shared;
use super::vfs::{VfsFile, is_full};
use crate::{Error, Full, PutError};

/// The way to the thread. Clones share it.
#[derive(Clone)]
pub(super) struct Syncer(Arc<Mutex<Option<Sender<Unsynced>>>>);

/// A message whose body is written to its file.
pub(super) struct Unsynced {
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) put: Box<PutJob>,
}

impl Syncer {
    pub(super) fn new() -> (Self, Receiver<Unsynced>) {
        let (sender, receiver) = mpsc::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    pub(super) fn submit(&self, shared: &Shared, unsynced: Unsynced) {
        let refused = match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => sender.send(unsynced).err().map(|error| error.0),
            None => Some(unsynced),
        };
        if let Some(Unsynced { put, .. }) = refused {
            Job::Put(put).refuse(&shared.core.ended().unwrap_or(Error::Closed));
        }
    }

    /// The thread finishes what it has, and ends.
    pub(super) fn stop(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The thread: several bodies, then their names with one sync, then on to the store.
pub(super) fn run(shared: &Shared, receiver: &Receiver<Unsynced>) {
    while let Ok(first) = receiver.recv() {
        let mut synced = Vec::new();
        for unsynced in std::iter::once(first).chain(receiver.try_iter().take(BATCH - 1)) {
            let Unsynced { file, put } = unsynced;
            match file.sync() {
                Ok(()) => synced.push(put),
                Err(error) => {
                    let path = shared.body_path(put.image.id);
                    if !is_full(&error) {
                        shared.fail(&format!("{} could not be synced: {error}; check the disk", path.display()));
                    }
                    // A file whose sync failed is lost whatever the reason; this one is nobody else's.
                    let full = PutError::Full(Full::NoSpace(format!("{}: {error}", path.display()).into()));
                    let error = shared.core.ended().map_or(full, PutError::from);
                    drop(put.reply.send(Err(error)));
                }
            }
        }
        if synced.is_empty() {
            continue;
        }
        if let Err(error) = shared.vfs.sync_dir(&shared.bodies()) {
            let dir = shared.bodies();
            shared.fail(&format!("{} could not be synced: {error}; check the disk", dir.display()));
        }
        for put in synced {
            shared.submit(Job::Put(put));
        }
    }
}

const BATCH: usize = 64;
