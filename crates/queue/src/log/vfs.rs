//! What the engine asks of an operating system, so that tests can give it a worse one.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A file system.
pub(super) trait Vfs: Send + Sync + 'static {
    /// Makes a file that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Whether a file or folder is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The names in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder unless it is there, and its parents.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How much room the disk has.
    fn room(&self, path: &Path) -> io::Result<Room>;
    /// Makes the file unless it is there and locks it until the value is dropped. `None`: somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// The room on a disk, in octets and in files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// What this process may still write.
    pub(super) free: u64,
    /// The size of the whole.
    pub(super) total: u64,
    /// How many files this process may still make.
    pub(super) files_free: u64,
    /// Of so many; 0 where there is no such number.
    pub(super) files_total: u64,
}

/// An open file. It can be read and written after its name is gone.
pub(super) trait VfsFile: Send + Sync {
    /// Reads up to as much as fits; 0 at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all or fails, having written any part.
    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Makes data and length durable, not the name.
    fn sync(&self) -> io::Result<()>;
}

/// Reads exactly so much, or fails with `UnexpectedEof`.
pub(super) fn read_exact(file: &dyn VfsFile, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let read = file.read_at(into, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = into.get_mut(read..).unwrap_or_default();
        at = at.saturating_add(read as u64);
    }
    Ok(())
}

/// The disk has no room: temporary, and nothing is wrong with it.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The operating system's.
#[derive(Debug)]
pub(super) struct Os;

impl Vfs for Os {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        // Mail is nobody else's business.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Arc::new(options.read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours: whatever stands for it will be refused.
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(path)?;
        let octets = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Room {
            free: octets(stat.f_bavail),
            total: octets(stat.f_blocks),
            files_free: stat.f_favail,
            files_total: stat.f_files,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        try_lock(file)
    }
}

/// Locks a file until the value is dropped. `None`: somebody else has it.
pub(super) fn try_lock(file: File) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(Lock(file)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A file that is locked. To close it is not enough: a process that is being started has it open too until it is another program.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where it fails, closing it does the same a moment later.
        drop(self.0.unlock());
    }
}

impl VfsFile for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, into, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(from, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
