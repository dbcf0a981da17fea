//! One file for each message: written under another name, synced, renamed, and the folder synced.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::{Candidate, ENVELOPE};

struct Files {
    folder: PathBuf,
    dir: File,
    count: AtomicU64,
}

pub(super) fn open(folder: &Path) -> Box<dyn Candidate> {
    let dir = File::open(folder).expect("the folder is ours");
    Box::new(Files { folder: folder.to_owned(), dir, count: AtomicU64::new(0) })
}

impl Candidate for Files {
    fn put(&self, body: &Bytes) {
        let number = self.count.fetch_add(1, Relaxed);
        let (path, unfinished) = (self.folder.join(number.to_string()), self.folder.join(format!("{number}.tmp")));
        let mut file = File::create(&unfinished).expect("the folder is ours");
        file.write_all(&[ENVELOPE, body].concat()).expect("the disk has room");
        file.sync_all().expect("the disk works");
        fs::rename(&unfinished, &path).expect("the folder is ours");
        self.dir.sync_all().expect("the disk works");
    }

    fn syncs(&self) -> u64 {
        self.count.load(Relaxed) * 2
    }
}
