//! The yardstick: as little as anything can do that shares one log.
//!
//! Writers append their record to a buffer in memory. One thread takes the buffer, writes it with
//! one write, makes it durable with one `fdatasync`, and wakes everybody whose record was in it;
//! meanwhile the next buffer fills. Nothing is checked, indexed, allocated or looked up again, the
//! log has no end, and nothing could be read back from it.

use std::fs::File;
use std::io::Write as _;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};

use bytes::Bytes;

use super::{Candidate, ENVELOPE};

struct GroupCommit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Batch>,
    /// How many batches are durable.
    durable: AtomicU64,
    stop: AtomicBool,
}

#[derive(Default)]
struct Batch {
    number: u64,
    records: Vec<u8>,
    writers: Vec<Thread>,
}

pub(super) fn open(folder: &Path) -> Box<dyn Candidate> {
    let file = File::create(folder.join("log")).expect("the folder is ours");
    let shared = Arc::new(Shared::default());
    let store = Arc::clone(&shared);
    let thread = thread::Builder::new().name(WORKER.to_owned()).spawn(move || store.run(file));
    Box::new(GroupCommit { shared, thread: Some(thread.expect("a thread")) })
}

impl Shared {
    fn run(&self, mut file: File) {
        let mut batch = Batch::default();
        while !self.stop.load(Ordering::Acquire) {
            batch.records.clear();
            batch.writers.clear();
            let mut next = self.next.lock().expect("no writer panics");
            if next.writers.is_empty() {
                drop(next);
                thread::park();
                continue;
            }
            batch.number = next.number + 1;
            mem::swap(&mut *next, &mut batch);
            drop(next);
            file.write_all(&batch.records).expect("the disk has room");
            file.sync_data().expect("the disk works");
            self.durable.store(batch.number + 1, Ordering::Release);
            batch.writers.iter().for_each(Thread::unpark);
        }
    }
}

impl Candidate for GroupCommit {
    fn put(&self, body: &Bytes) {
        let (number, is_first) = {
            let mut next = self.shared.next.lock().expect("no writer panics");
            next.records.extend_from_slice(ENVELOPE);
            next.records.extend_from_slice(body);
            next.writers.push(thread::current());
            (next.number, next.writers.len() == 1)
        };
        if let (true, Some(thread)) = (is_first, &self.thread) {
            thread.thread().unpark();
        }
        while self.shared.durable.load(Ordering::Acquire) <= number {
            thread::park();
        }
    }

    fn syncs(&self) -> u64 {
        self.shared.durable.load(Ordering::Relaxed)
    }

    fn worker(&self) -> &'static str {
        WORKER
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

const WORKER: &str = "group-commit";
