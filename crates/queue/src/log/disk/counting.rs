//! Counts the waits for stable storage of all threads: log, bodies, checkpoint and folders. Repeats
//! calls that a signal interrupted.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::log::disk::vfs::{Room, Seen, Vfs, VfsFile, uninterrupted};

/// A file system that counts syncs and hides interruptions.
pub(in crate::log) struct Counting {
    vfs: Arc<dyn Vfs>,
    syncs: Arc<AtomicU64>,
}

struct CountingFile {
    file: Arc<dyn VfsFile>,
    syncs: Arc<AtomicU64>,
}

impl Counting {
    pub(in crate::log) fn new(vfs: Arc<dyn Vfs>, syncs: Arc<AtomicU64>) -> Self {
        Self { vfs, syncs }
    }

    fn file(&self, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(CountingFile { file, syncs: Arc::clone(&self.syncs) })
    }
}

impl Vfs for Counting {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        uninterrupted(|| self.vfs.create(path)).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        uninterrupted(|| self.vfs.open(path)).map(|file| self.file(file))
    }

    fn create_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        uninterrupted(|| self.vfs.create_for_caller(path)).map(|file| self.file(file))
    }

    fn open_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        uninterrupted(|| self.vfs.open_for_caller(path)).map(|file| self.file(file))
    }

    fn look(&self, path: &Path) -> io::Result<Seen> {
        uninterrupted(|| self.vfs.look(path))
    }

    fn narrow(&self, path: &Path) -> io::Result<()> {
        uninterrupted(|| self.vfs.narrow(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        uninterrupted(|| self.vfs.exists(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        uninterrupted(|| self.vfs.list(dir))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        uninterrupted(|| self.vfs.remove(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        uninterrupted(|| self.vfs.rename(from, to))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        uninterrupted(|| self.vfs.make_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.syncs.fetch_add(1, Relaxed);
        uninterrupted(|| self.vfs.sync_dir(path))
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        uninterrupted(|| self.vfs.room(path))
    }

    fn random(&self) -> io::Result<u64> {
        uninterrupted(|| self.vfs.random())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        uninterrupted(|| self.vfs.lock(path))
    }
}

impl VfsFile for CountingFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        uninterrupted(|| self.file.read_at(into, at))
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        uninterrupted(|| self.file.write_at(from, at))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        uninterrupted(|| self.file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        uninterrupted(|| self.file.len())
    }

    fn look(&self) -> io::Result<Seen> {
        uninterrupted(|| self.file.look())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Relaxed);
        uninterrupted(|| self.file.sync())
    }
}
