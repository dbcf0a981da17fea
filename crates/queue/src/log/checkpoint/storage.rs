//! redb's storage on the engine's files, so that tests can simulate a failing disk.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::log::disk::vfs::{VfsFile, read_exact};

/// The largest number of bytes written without a sync.
///
/// redb writes a checkpoint of many megabytes and syncs it once. The disk would be busy that long,
/// and the log's own syncs, for which senders wait, would queue after it.
const MOST_UNSYNCED: u64 = 512 * 1024;

/// A file as redb wants it.
pub(super) struct Storage {
    file: Arc<dyn VfsFile>,
    unsynced: AtomicU64,
}

impl Storage {
    pub(super) fn new(file: Arc<dyn VfsFile>) -> Self {
        Self { file, unsynced: AtomicU64::new(0) }
    }
}

impl redb::StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact(&*self.file, out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Relaxed);
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)?;
        let len = data.len() as u64;
        if self.unsynced.fetch_add(len, Relaxed).saturating_add(len) >= MOST_UNSYNCED {
            self.sync_data()
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage")
    }
}
