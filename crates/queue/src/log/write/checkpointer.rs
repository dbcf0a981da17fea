//! The thread that writes checkpoints, in the background of the store's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::shared::Shared;
use crate::log::checkpoint::{Checkpoint, Error, Meta, Work, Written};
use crate::log::disk::names;
use crate::log::format::place::Living;

/// The store's handle on the thread. One checkpoint is written at a time.
pub(in crate::log) struct Checkpointer {
    work: Option<Sender<Work>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

/// What came of a checkpoint.
pub(in crate::log) enum Done {
    /// It is written, and the index reads from it.
    Written { segments: Vec<Living>, meta: Meta },
    /// The disk had no room. The index reads from the last one.
    Full,
    /// It failed. The store has been stopped.
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

    /// The result of the checkpoint that was begun, if there is one yet.
    pub(in crate::log) fn poll(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.is_busy = false;
        Some(done)
    }

    /// Waits for the checkpoint that was begun.
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
            // A panic there loses nothing: the log has everything.
            drop(thread.join());
        }
    }
}

/// All callers wait for the store's thread. Only puts wait for a checkpoint, and only while memory
/// is full.
fn yield_to_the_store() {
    // Only on Linux does this call concern one thread, and not the process. If it is not allowed,
    // the priority stays.
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
            // An engine that has ended needs no base.
            drop(shared.core.with(|index, _| {
                index.install(snapshot, is_promoted);
                Ok(())
            }));
            drop(old);
            Done::Written { segments, meta }
        }
        Err(Error::Full(_)) => {
            // Under the index's lock: the base cannot be read until it is open again.
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
