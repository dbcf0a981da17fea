//! Segments open for reading.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::disk::names;
use crate::log::disk::vfs::{Vfs, VfsFile};

/// Keeps at most [`OPEN`] descriptors, however many segments there are.
pub(in crate::log) struct Readers {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    files: BTreeMap<u64, (u64, Arc<dyn VfsFile>)>,
    /// Counts uses, to find the segment used longest ago.
    used: u64,
}

impl Readers {
    /// `dir` is the folder with the segments.
    pub(in crate::log) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf) -> Self {
        Self { vfs, dir, open: Mutex::default() }
    }

    pub(in crate::log) fn get(&self, sequence: u64) -> io::Result<Arc<dyn VfsFile>> {
        let mut open = self.lock();
        let used = open.used.wrapping_add(1);
        open.used = used;
        if let Some((last, file)) = open.files.get_mut(&sequence) {
            *last = used;
            return Ok(Arc::clone(file));
        }
        drop(open);
        let file = self.vfs.open_for_caller(&self.dir.join(names::segment(sequence)))?;
        let mut open = self.lock();
        let oldest = open.files.iter().min_by_key(|(_, (last, _))| *last).map(|(sequence, _)| *sequence);
        if let (true, Some(oldest)) = (open.files.len() >= OPEN, oldest) {
            open.files.remove(&oldest);
        }
        open.files.insert(sequence, (used, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes a removed segment, so that its space is freed.
    pub(in crate::log) fn forget(&self, sequence: u64) {
        self.lock().files.remove(&sequence);
    }

    /// Closes all segments, so that they are opened again after a failure of the disk.
    pub(in crate::log) fn forget_all(&self) {
        self.lock().files.clear();
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const OPEN: usize = 32;
