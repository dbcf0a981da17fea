//! A file system over another one, which it does not change.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::progress::Progress;
use super::scratch::{BLOCK, Block, Scratch, Spot};
use crate::log::disk::vfs::{Os, Room, Seen, Vfs, VfsFile, try_lock};

/// Shows the file system below, with what was written since over it. Writes go to a [`Scratch`].
#[derive(Clone)]
pub(in crate::log) struct Overlay(Arc<Inner>);

struct Inner {
    below: Arc<dyn Vfs>,
    scratch: Scratch,
    state: Mutex<Names>,
    /// Counts bytes that are read out of segments.
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Names {
    /// Names that differ from those below. `None`: the file is removed.
    names: BTreeMap<PathBuf, Option<Arc<Inode>>>,
    dirs: BTreeSet<PathBuf>,
    /// Open files that are still as below. All handles share one inode.
    open: BTreeMap<PathBuf, Weak<Inode>>,
}

struct Inode {
    /// Its path below.
    below: Option<PathBuf>,
    /// Its name when it was opened.
    path: PathBuf,
    bytes: Mutex<FileBytes>,
}

struct FileBytes {
    len: u64,
    /// The length of the file below that shows through.
    shown: u64,
    blocks: BTreeMap<u64, Spot>,
    /// [`Names::names`] has it, or knows that it is removed.
    is_named: bool,
}

struct Handle {
    overlay: Overlay,
    inode: Arc<Inode>,
    below: Option<Arc<dyn VfsFile>>,
}

impl Overlay {
    pub(in crate::log) fn new(below: Arc<dyn Vfs>, scratch: Scratch, progress: Arc<Progress>) -> Self {
        Self(Arc::new(Inner { below, scratch, state: Mutex::default(), progress }))
    }

    fn state(&self) -> MutexGuard<'_, Names> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what has this name now.
    fn find(&self, path: &Path) -> io::Result<Handle> {
        let known = {
            let state = self.state();
            match state.names.get(path) {
                Some(None) => return Err(io::ErrorKind::NotFound.into()),
                Some(Some(inode)) => Some(Arc::clone(inode)),
                None => state.open.get(path).and_then(Weak::upgrade),
            }
        };
        if let Some(inode) = known {
            let below = inode.below.as_ref().map(|below| self.0.below.open(below)).transpose()?;
            return Ok(Handle { overlay: self.clone(), inode, below });
        }
        let file = self.0.below.open(path)?;
        let len = file.len()?;
        let bytes = Mutex::new(FileBytes { len, shown: len, blocks: BTreeMap::new(), is_named: false });
        let inode = Arc::new(Inode { below: Some(path.to_owned()), path: path.to_owned(), bytes });
        let mut state = self.state();
        if state.open.len() >= REMEMBERED {
            state.open.retain(|_, inode| inode.strong_count() > 0);
        }
        state.open.insert(path.to_owned(), Arc::downgrade(&inode));
        Ok(Handle { overlay: self.clone(), inode, below: Some(file) })
    }
}

impl Vfs for Overlay {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        if self.exists(path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Mutex::new(FileBytes { len: 0, shown: 0, blocks: BTreeMap::new(), is_named: true });
        let inode = Arc::new(Inode { below: None, path: path.to_owned(), bytes });
        self.state().name(path, Some(Arc::clone(&inode)));
        Ok(Arc::new(Handle { overlay: self.clone(), inode, below: None }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(self.find(path)?))
    }

    fn look(&self, path: &Path) -> io::Result<Seen> {
        let file = self.find(path)?;
        file.look()
    }

    fn narrow(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        match state.names.get(path) {
            Some(known) => Ok(known.is_some()),
            None => Ok(state.dirs.contains(path) || self.0.below.exists(path)?),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = match self.0.below.list(dir) {
            Ok(names) => names.into_iter().collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.state().dirs.contains(dir) => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        for (path, known) in self.state().names.iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            if known.is_some() {
                names.insert(name)
            } else {
                names.remove(&name)
            };
        }
        Ok(names.into_iter().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.state().name(path, None);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let Handle { inode, .. } = self.find(from)?;
        let mut state = self.state();
        state.name(from, None);
        state.name(to, Some(inode));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            self.state().dirs.insert(path.to_owned());
        }
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        self.0.below.room(path)
    }

    fn random(&self) -> io::Result<u64> {
        self.0.below.random()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.0.below.lock(path)
    }
}

impl Names {
    /// Gives the name to this inode. `None`: removes it. Handles of the old file keep the old
    /// content.
    fn name(&mut self, path: &Path, inode: Option<Arc<Inode>>) {
        if let Some(was) = self.open.remove(path).and_then(|inode| inode.upgrade()) {
            was.bytes().is_named = true;
        }
        self.names.insert(path.to_owned(), inode);
    }
}

impl Inode {
    fn bytes(&self) -> MutexGuard<'_, FileBytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Called before the first change: from now on the inode stands for its name.
    fn keep(&self) {
        let mut state = self.overlay.state();
        let mut bytes = self.inode.bytes();
        if !bytes.is_named {
            bytes.is_named = true;
            state.open.remove(&self.inode.path);
            state.names.insert(self.inode.path.clone(), Some(Arc::clone(&self.inode)));
        }
    }

    /// Reads what shows through of the file below, then zeros.
    fn read_below(&self, into: &mut [u8], at: u64, shown: u64) -> io::Result<()> {
        let mut filled = 0;
        if let Some(below) = &self.below {
            let want = cut(into.len(), shown.saturating_sub(at));
            while filled < want {
                let part = into.get_mut(filled..want).unwrap_or_default();
                match below.read_at(part, at.saturating_add(filled as u64))? {
                    0 => break,
                    read => filled = filled.saturating_add(read),
                }
            }
            if self.inode.path.extension().is_some_and(|extension| extension == "seg") {
                self.overlay.0.progress.add(filled as u64);
            }
        }
        into.get_mut(filled..).unwrap_or_default().fill(0);
        Ok(())
    }

    fn block(&self, bytes: &FileBytes, number: u64) -> io::Result<Block> {
        let mut block = [0; BLOCK];
        match bytes.blocks.get(&number) {
            Some(spot) => self.overlay.0.scratch.read(*spot, &mut block)?,
            None => self.read_below(&mut block, number.saturating_mul(BLOCK as u64), bytes.shown)?,
        }
        Ok(block)
    }

    fn write_block(&self, bytes: &mut FileBytes, number: u64, block: &Block) -> io::Result<()> {
        let old = bytes.blocks.get(&number).copied();
        let spot = self.overlay.0.scratch.write(old, block)?;
        bytes.blocks.insert(number, spot);
        Ok(())
    }
}

impl VfsFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.inode.bytes();
        let want = cut(into.len(), bytes.len.saturating_sub(at));
        let into = into.get_mut(..want).unwrap_or_default();
        let mut done = 0;
        while done < want {
            let at = at.saturating_add(done as u64);
            let (number, inside) = (at / BLOCK as u64, cut(BLOCK, at % BLOCK as u64));
            let rest = into.get_mut(done..).unwrap_or_default();
            let next = bytes.blocks.range(number..).next();
            done = done.saturating_add(match next {
                Some((block, spot)) if *block == number => {
                    let mut octets = [0; BLOCK];
                    self.overlay.0.scratch.read(*spot, &mut octets)?;
                    let part = octets.get(inside..).unwrap_or_default();
                    let len = part.len().min(rest.len());
                    rest.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
                    len
                }
                next => {
                    let end = next.map_or(u64::MAX, |(block, _)| block.saturating_mul(BLOCK as u64));
                    let len = cut(rest.len(), end.saturating_sub(at));
                    self.read_below(rest.get_mut(..len).unwrap_or_default(), at, bytes.shown)?;
                    len
                }
            });
        }
        Ok(want)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        self.keep();
        let mut bytes = self.inode.bytes();
        let mut rest = from;
        let mut at = at;
        while !rest.is_empty() {
            let (number, inside) = (at / BLOCK as u64, cut(BLOCK, at % BLOCK as u64));
            let mut block = self.block(&bytes, number)?;
            let room = block.get_mut(inside..).unwrap_or_default();
            let (part, behind) = rest.split_at(rest.len().min(room.len()));
            room.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.write_block(&mut bytes, number, &block)?;
            at = at.saturating_add(part.len() as u64);
            rest = behind;
            bytes.len = bytes.len.max(at);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.keep();
        let mut bytes = self.inode.bytes();
        if len < bytes.len {
            let gone = bytes.blocks.split_off(&len.div_ceil(BLOCK as u64));
            gone.into_values().for_each(|spot| self.overlay.0.scratch.free(spot));
            bytes.shown = bytes.shown.min(len);
            // If it grows again, what was cut off must not show.
            let last = len / BLOCK as u64;
            if bytes.blocks.contains_key(&last) {
                let mut block = self.block(&bytes, last)?;
                block.get_mut(cut(BLOCK, len % BLOCK as u64)..).unwrap_or_default().fill(0);
                self.write_block(&mut bytes, last, &block)?;
            }
        }
        bytes.len = len;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.bytes().len)
    }

    /// No other process has it, so the identity does not matter.
    fn look(&self) -> io::Result<Seen> {
        Ok(Seen { device: 0, inode: 0, len: self.len()?, mode: 0, owner: 0 })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The operating system's file system, read-only.
#[derive(Debug)]
pub(super) struct Reading;

impl Vfs for Reading {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn look(&self, path: &Path) -> io::Result<Seen> {
        Os::default().look(path)
    }

    fn narrow(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Os::default().exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Os::default().list(dir)
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        Os::default().room(path)
    }

    fn random(&self) -> io::Result<u64> {
        Os::default().random()
    }

    /// Locks the file if it exists. A queue restored from a backup may have none, and then no
    /// process has it open.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Box::new(()))),
            Err(error) => return Err(error),
        };
        try_lock(file)
    }
}

fn cut(len: usize, limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(len)
}

/// Open files are remembered until there are this many names.
const REMEMBERED: usize = 256;
