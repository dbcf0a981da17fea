//! The thread that writes checkpoints, behind the store's back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::shared::Shared;
use crate::log::checkpoint::{Checkpoint, Error, Meta, Work, Written};
use crate::log::disk::names;
use crate::log::format::place::Living;

/// The store's end of the thread. One checkpoint is written at a time.
pub(in crate::log) struct Checkpointer {
    work: Option<Sender<Work>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

/// What came of a checkpoint.
pub(in crate::log) enum Done {
    /// It stands, and is what the index reads from.
    Written { segments: Vec<Living>, meta: Meta },
    /// There was no room for it. The last one stands.
    Full,
    /// Neither stands; the store has been told.
    Failed,
}

impl Checkpointer {
    pub(in crate::log) fn start(shared: &Arc<Shared>, checkpoint: Checkpoint) -> std::io::Result<Self> {
        let (work, todo) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name("posthaste-index".to_owned()).spawn(move || {
            yield_to_the_store();
            let mut checkpoint = Some(checkpoint);
            for work in todo {
                drop(tell.send(make(&shared, &mut checkpoint, work)));
                shared.core.bell.ring();
            }
        })?;
        Ok(Self { work: Some(work), done, thread: Some(thread), is_busy: false })
    }

    pub(in crate::log) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(in crate::log) fn begin(&mut self, work: Work) {
        self.is_busy = self.work.as_ref().is_some_and(|thread| thread.send(work).is_ok());
    }

    /// What came of the one that was begun, once that is known.
    pub(in crate::log) fn poll(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.is_busy = false;
        Some(done)
    }

    /// Waits for the one that was begun.
    pub(in crate::log) fn wait(&mut self) -> Option<Done> {
        let done = if self.is_busy { self.done.recv().ok() } else { None };
        self.is_busy = false;
        done
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked there is nothing to be done about it: the log has everything.
            drop(thread.join());
        }
    }
}

/// Everybody waits for the store's thread; for a checkpoint only who puts while memory is full.
fn yield_to_the_store() {
    // On Linux alone the call is about the calling thread and not the process. One that may not is as nice as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(target_os = "linux")]
const NICE: i32 = 10;

fn make(shared: &Shared, checkpoint: &mut Option<Checkpoint>, work: Work) -> Done {
    let Some(mut open) = checkpoint.take() else { return Done::Failed };
    match open.write_and_renew(&work) {
        Ok(Written { is_promoted, snapshot, old }) => {
            shared.counts.index_disk.store(open.len().unwrap_or_default(), Relaxed);
            *checkpoint = Some(open);
            let Work { segments, meta, .. } = work;
            // An engine that has ended needs none.
            drop(shared.core.with(|index, _| {
                index.install(snapshot, is_promoted);
                Ok(())
            }));
            drop(old);
            Done::Written { segments, meta }
        }
        Err(Error::Full(_)) => {
            // With the index locked: nobody can read until it is open again.
            let thawed = shared.core.with(|index, _| {
                let reopened = open.reopen().and_then(|open| Ok((open.snapshot()?, open)));
                Ok(reopened.map(|(snapshot, open)| {
                    index.thaw(snapshot);
                    *checkpoint = Some(open);
                }))
            });
            match thawed {
                Ok(Ok(())) => Done::Full,
                Ok(Err(error)) => fail(shared, &error),
                Err(_) => Done::Failed,
            }
        }
        Err(error) => fail(shared, &error),
    }
}

fn fail(shared: &Shared, error: &Error) -> Done {
    let path = names::index(&shared.dir);
    shared.fail(&format!("{} could not be written: {error}; check the disk", path.display()));
    Done::Failed
}
