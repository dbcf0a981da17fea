//! Space for an overlay's writes.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::disk::vfs::{Os, Vfs as _, VfsFile, read_exact};

/// The unit in which writes lie over the file below, in bytes.
pub(in crate::log) const BLOCK: usize = 4096;
pub(in crate::log) type Block = [u8; BLOCK];

/// Blocks: the first [`IN_MEMORY`] bytes in memory, the others in a file without a name, which
/// vanishes however the process ends.
pub(in crate::log) struct Scratch {
    folder: PathBuf,
    blocks: Mutex<Blocks>,
}

#[derive(Default)]
struct Blocks {
    memory: Vec<u8>,
    file: Option<Arc<dyn VfsFile>>,
    /// Blocks that were given out.
    count: u64,
    /// Blocks that were given back.
    free: Vec<u64>,
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Spot(u64);

impl Scratch {
    pub(in crate::log) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map_or_else(env::temp_dir, Path::to_owned), blocks: Mutex::default() }
    }

    pub(in crate::log) fn write(&self, spot: Option<Spot>, block: &Block) -> io::Result<Spot> {
        let mut blocks = self.lock();
        let spot = match spot {
            Some(spot) => spot.0,
            None => blocks.take(),
        };
        let at = spot.saturating_mul(BLOCK as u64);
        if let Some(part) = blocks.in_memory(at) {
            part.copy_from_slice(block);
        } else {
            let file = match &blocks.file {
                Some(file) => Arc::clone(file),
                None => Arc::clone(blocks.file.insert(nameless(&self.folder)?)),
            };
            let told = |error| {
                let folder = self.folder.display();
                io::Error::other(format!(
                    "{folder} has no room for the inspection: {error}; choose another folder for scratch files"
                ))
            };
            file.write_at(block, at.saturating_sub(IN_MEMORY as u64)).map_err(told)?;
        }
        Ok(Spot(spot))
    }

    pub(in crate::log) fn read(&self, spot: Spot, block: &mut Block) -> io::Result<()> {
        let mut blocks = self.lock();
        let at = spot.0.saturating_mul(BLOCK as u64);
        if let Some(part) = blocks.in_memory(at) {
            block.copy_from_slice(part);
            return Ok(());
        }
        let file = blocks.file.clone().ok_or(io::ErrorKind::NotFound)?;
        drop(blocks);
        read_exact(&*file, block, at.saturating_sub(IN_MEMORY as u64))
    }

    pub(in crate::log) fn free(&self, spot: Spot) {
        self.lock().free.push(spot.0);
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            let spot = self.count;
            self.count = spot.saturating_add(1);
            let end = self.count.saturating_mul(BLOCK as u64);
            if let Ok(end @ ..=IN_MEMORY) = usize::try_from(end) {
                self.memory.resize(end, 0);
            }
            spot
        })
    }

    fn in_memory(&mut self, at: u64) -> Option<&mut [u8]> {
        let at = usize::try_from(at).ok()?;
        self.memory.get_mut(at..at.checked_add(BLOCK)?)
    }
}

fn nameless(folder: &Path) -> io::Result<Arc<dyn VfsFile>> {
    let path = folder.join(format!("posthaste-queue-{:016x}.scratch", Os::default().random()?));
    let told = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}; choose another folder for scratch files", path.display()))
    };
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.read(true).write(true).create_new(true).open(&path).map_err(told)?;
    fs::remove_file(&path).map_err(told)?;
    Ok(Arc::new(file))
}

/// 16 MiB: opening an intact queue writes much less.
const IN_MEMORY: usize = 16 << 20;
