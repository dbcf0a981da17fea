//! What the engine needs of an operating system, as a trait, so that tests can simulate a failing
//! disk.

use std::any::Any;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::Full;

/// A file system.
pub(in crate::log) trait Vfs: Send + Sync + 'static {
    /// Creates a file that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Creates a file on behalf of a caller. Takes no descriptor of the reserve.
    fn create_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.create(path)
    }
    /// Opens a file on behalf of a caller. Takes no descriptor of the reserve.
    fn open_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open(path)
    }
    /// What the path leads to now.
    fn look(&self, path: &Path) -> io::Result<Seen>;
    /// Removes all permissions but the owner's.
    fn narrow(&self, path: &Path) -> io::Result<()>;
    /// Returns `true` if a file or folder has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The names in a folder, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates a folder and its parents, unless they exist.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable. An error that is [for now](is_for_now) means that this
    /// was not begun.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The free space of the disk.
    fn room(&self, path: &Path) -> io::Result<Room>;
    /// 64 bits that a stranger can neither know nor guess.
    fn random(&self) -> io::Result<u64>;
    /// Locks a file, which is created if missing, or a folder, until the value is dropped. `None`:
    /// another process holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// What a path led to: a file or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Seen {
    pub(in crate::log) device: u64,
    pub(in crate::log) inode: u64,
    pub(in crate::log) len: u64,
    /// Permissions and type, in the system's encoding.
    pub(in crate::log) mode: u32,
    /// The owner's user number.
    pub(in crate::log) owner: u32,
}

impl Seen {
    /// Returns `true` if both are the same file, whatever its length and permissions.
    pub(in crate::log) fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<Metadata> for Seen {
    fn from(found: Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), len: found.len(), mode: found.mode(), owner: found.uid() }
    }
}

/// The room on a disk, in bytes and in files.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Room {
    /// Bytes that this process may still write.
    pub(in crate::log) free: u64,
    /// The size of the disk in bytes.
    pub(in crate::log) total: u64,
    /// Files that this process may still create.
    pub(in crate::log) files_free: u64,
    /// The largest number of files. 0: the file system has no such limit.
    pub(in crate::log) files_total: u64,
}

/// An open file. It can be read and written after its name is gone.
pub(in crate::log) trait VfsFile: Send + Sync {
    /// Reads at most as many bytes as fit. Returns 0 at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all bytes, or fails having written any part of them.
    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// What the open file is, even if its name leads elsewhere by now.
    fn look(&self) -> io::Result<Seen>;
    /// Makes data and length durable, but not the name.
    fn sync(&self) -> io::Result<()>;
}

/// Fills the slice, or fails with `UnexpectedEof`.
pub(in crate::log) fn read_exact(file: &dyn VfsFile, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
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

/// Returns `true` if the disk has no room: temporary, and the disk is well.
pub(in crate::log) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Returns `true` if the system has run out of descriptors, memory or time: the disk is well.
pub(in crate::log) fn is_scarce(error: &io::Error) -> bool {
    let scarce = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::AGAIN];
    error.raw_os_error().is_some_and(|number| scarce.iter().any(|errno| errno.raw_os_error() == number))
}

/// Returns `true` for a refusal: the call was not carried out, may succeed later, and the disk is
/// well.
///
/// Never to be asked about a failed sync: then it is unknown what was carried out.
pub(in crate::log) fn is_for_now(error: &io::Error) -> bool {
    is_full(error) || is_scarce(error)
}

/// The refusal as an error of a put.
pub(in crate::log) fn refusal(path: &Path, error: &io::Error) -> Full {
    let text = format!("{}: {error}", path.display()).into();
    if is_scarce(error) { Full::Scarce(text) } else { Full::NoSpace(text) }
}

/// Repeats a call as long as a signal interrupts it.
pub(in crate::log) fn uninterrupted<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match ask() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answered => return answered,
        }
    }
}

/// The operating system's file system.
#[derive(Debug, Default)]
pub(in crate::log) struct Os {
    /// Descriptors kept for the queue's own threads, for when the process or the system has no
    /// other left.
    reserve: Mutex<Vec<File>>,
}

impl Os {
    /// With descriptors in reserve.
    pub(in crate::log) fn with_reserve() -> Self {
        let os = Self::default();
        os.fill_up(&mut os.reserve());
        os
    }

    /// Opens a file, with a descriptor of the reserve if there is no other.
    fn opened<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut reserve = self.reserve();
        // Fills up what was used before, if others have closed files since.
        self.fill_up(&mut reserve);
        loop {
            match open() {
                Err(error) if is_scarce(&error) && reserve.pop().is_some() => {}
                opened => return opened,
            }
        }
    }

    fn fill_up(&self, reserve: &mut Vec<File>) {
        while reserve.len() < RESERVE {
            let Ok(file) = File::open("/dev/null") else { return };
            reserve.push(file);
        }
    }

    fn reserve(&self) -> std::sync::MutexGuard<'_, Vec<File>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue's own threads open one file and sync one folder at a time.
const RESERVE: usize = 8;
/// Mail is private, whatever the process's umask is.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Opens for reading and writing, and does not follow a link.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // The number is small and positive on all systems.
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    options.read(true).write(true).mode(FILE_MODE).custom_flags(no_link);
    options
}

impl Vfs for Os {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.opened(|| self.create_for_caller(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.opened(|| self.open_for_caller(path))
    }

    fn create_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(options().create_new(true).open(path)?))
    }

    fn open_for_caller(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(options().open(path)?))
    }

    fn look(&self, path: &Path) -> io::Result<Seen> {
        Ok(fs::metadata(path)?.into())
    }

    fn narrow(&self, path: &Path) -> io::Result<()> {
        let owners = fs::metadata(path)?.mode() & DIR_MODE;
        fs::set_permissions(path, fs::Permissions::from_mode(owners))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is no name of ours, and its replacement is refused too.
        self.opened(|| fs::read_dir(dir))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(DIR_MODE).recursive(true).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let folder = self.opened(|| File::open(path))?;
        // Once begun, it is unknown how far it went, whatever the error.
        uninterrupted(|| folder.sync_all())
            .map_err(|error| if is_for_now(&error) { io::Error::other(error) } else { error })
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

    fn random(&self) -> io::Result<u64> {
        Ok(getrandom::u64()?)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        if path.is_dir() {
            return match try_lock(self.opened(|| File::open(path))?) {
                // Some systems cannot lock folders. The file beside it is locked too.
                Err(_) => Ok(Some(Box::new(()))),
                locked => locked,
            };
        }
        try_lock(self.opened(|| options().create(true).truncate(false).open(path))?)
    }
}

/// Locks a file until the value is dropped. `None`: another holder has the lock.
pub(in crate::log) fn try_lock(file: File) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(Lock(file)))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A locked file. It is unlocked explicitly, because closing is not enough: a child process that is
/// being started has the file open too, until it executes its program.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // If this fails, closing the file unlocks it a moment later.
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

    fn look(&self) -> io::Result<Seen> {
        Ok(self.metadata()?.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
