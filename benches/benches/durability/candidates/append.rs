//! The floor for one writer: each record appended to one file, then `fdatasync`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::{Candidate, ENVELOPE};

struct Append {
    file: Mutex<(File, Vec<u8>)>,
    syncs: AtomicU64,
}

pub(super) fn open(folder: &Path) -> Box<dyn Candidate> {
    let file = File::create(folder.join("log")).expect("the folder is ours");
    Box::new(Append { file: Mutex::new((file, Vec::new())), syncs: AtomicU64::new(0) })
}

impl Candidate for Append {
    fn put(&self, body: &Bytes) {
        let mut guard = self.file.lock().expect("no writer panics");
        let (file, record) = &mut *guard;
        record.clear();
        record.extend_from_slice(ENVELOPE);
        record.extend_from_slice(body);
        file.write_all(record).expect("the disk has room");
        file.sync_data().expect("the disk works");
        self.syncs.fetch_add(1, Relaxed);
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }

    fn is_for_one(&self) -> bool {
        true
    }
}
