//! A disk that loses what was not synced, and fails when it is told to.
//!
//! The weakest that POSIX allows: unsynced writes survive a crash in any selection and cut anywhere, names only when their folder
//! was synced.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use crate::log::vfs::{Room, Vfs, VfsFile};

#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>, Arc<Stall>);

/// Whether syncs wait, and for what.
#[derive(Default)]
struct Stall {
    stalled: Mutex<bool>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    now: Tree,
    dirs: BTreeSet<PathBuf>,
    files: Vec<Inode>,
    /// What happened to names since their folder was synced.
    unsynced_names: Vec<NameChange>,
    durable: Tree,
    locks: BTreeMap<PathBuf, Weak<()>>,
    fault: Option<Fault>,
    operations: u64,
    /// Octets that may still be written; `None`: any number.
    free: Option<u64>,
    /// The size of the whole; without it the disk is as large as can be.
    total: Option<u64>,
    cut_after: Option<u64>,
    /// After a crash the old handles do nothing any more.
    crashed: bool,
}

type Tree = BTreeMap<PathBuf, usize>;

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    /// Which blocks of it take room on the disk.
    blocks: Vec<bool>,
    durable: Vec<u8>,
    unsynced: Vec<DataChange>,
}

#[derive(Clone)]
enum DataChange {
    Write(usize, Vec<u8>),
    Len(usize),
}

enum NameChange {
    Create(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// The operation with this number, counted from now over everything that changes or syncs the disk, fails.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) kind: io::ErrorKind,
    /// How many octets of a failing write are written all the same.
    pub(super) partial: usize,
}

struct Handle(Disk, usize);

impl Disk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::default())), Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn fail(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        state.operations = 0;
        state.fault = fault;
    }

    /// From the operation with this number on nothing happens any more.
    pub(super) fn cut_after(&self, operations: u64) {
        let mut state = self.lock();
        state.operations = 0;
        state.cut_after = Some(operations);
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(super) fn set_total(&self, total: Option<u64>) {
        self.lock().total = total;
    }

    pub(super) fn set_free(&self, free: Option<u64>) {
        self.lock().free = free;
    }

    /// Until it ends, no sync does.
    pub(super) fn stall(&self, stalled: bool) {
        *self.1.stalled.lock().unwrap() = stalled;
        self.1.over.notify_all();
    }

    fn wait(&self) {
        drop(self.1.over.wait_while(self.1.stalled.lock().unwrap(), |stalled| *stalled).unwrap());
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.lock().now.keys().cloned().collect()
    }

    pub(super) fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        state.files[state.now[path]].now.clone()
    }

    pub(super) fn set_contents(&self, path: &Path, octets: Vec<u8>) {
        let mut state = self.lock();
        let at = state.now[path];
        state.files[at] = Inode::settled(octets);
    }

    /// Takes a file away.
    pub(super) fn forget(&self, path: &Path) {
        let mut state = self.lock();
        state.now.remove(path);
        state.durable.remove(path);
    }

    /// The same disk later, everything written: as after a process was killed.
    pub(super) fn killed(&self) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|file| Inode::settled(file.now.clone())).collect();
        Self::settled(state.now.clone(), state.dirs.clone(), files)
    }

    /// The same disk after the power was cut, and nothing more happens on this one.
    pub(super) fn power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let mut state = self.lock();
        state.crashed = true;
        let mut names = state.durable.clone();
        for change in &state.unsynced_names {
            if random.bool() {
                apply_name(&mut names, change);
            }
        }
        let keep = random.u8(0..4);
        let mut files = Vec::new();
        for file in &state.files {
            let mut octets = file.durable.clone();
            for change in &file.unsynced {
                match (keep, change) {
                    (0, _) => {}
                    (1, change) => apply_data(&mut octets, change),
                    (_, DataChange::Write(at, data)) => {
                        // Sector by sector, in any selection.
                        for (sector, part) in data.chunks(512.min(data.len() / 4 + 1)).enumerate() {
                            if random.bool() {
                                let at = at + sector * 512.min(data.len() / 4 + 1);
                                apply_data(&mut octets, &DataChange::Write(at, part.to_vec()));
                            }
                        }
                    }
                    (_, change) if random.bool() => apply_data(&mut octets, change),
                    _ => {}
                }
            }
            files.push(Inode::settled(octets));
        }
        Self::settled(names, state.dirs.clone(), files)
    }

    fn settled(names: Tree, dirs: BTreeSet<PathBuf>, files: Vec<Inode>) -> Self {
        let state = State { now: names.clone(), durable: names, dirs, files, ..State::default() };
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }
}

impl Inode {
    fn settled(octets: Vec<u8>) -> Self {
        let blocks = vec![true; octets.len().div_ceil(BLOCK)];
        Self { now: octets.clone(), blocks, durable: octets, unsynced: Vec::new() }
    }
}

impl State {
    /// Counts an operation and says how it fails, if it does.
    fn operate(&mut self) -> Result<(), (io::Error, usize)> {
        if self.crashed {
            return Err((io::Error::other("the power is off"), 0));
        }
        self.operations += 1;
        if self.cut_after.is_some_and(|cut| self.operations > cut) {
            self.crashed = true;
            return Err((io::Error::other("the power is off"), 0));
        }
        match self.fault {
            Some(fault) if fault.at == self.operations => Err((fault.kind.into(), fault.partial)),
            _ => Ok(()),
        }
    }

    /// How many of these octets there is room for. What is overwritten needs none.
    fn take_room(&mut self, file: usize, at: usize, len: usize) -> usize {
        for block in at / BLOCK..(at + len).div_ceil(BLOCK) {
            let blocks = &mut self.files[file].blocks;
            blocks.resize(blocks.len().max(block + 1), false);
            if blocks[block] {
                continue;
            }
            if let Some(free) = &mut self.free {
                let Some(left) = free.checked_sub(BLOCK as u64) else {
                    return (block * BLOCK).saturating_sub(at);
                };
                *free = left;
            }
            self.files[file].blocks[block] = true;
        }
        len
    }

    fn change(&mut self, file: usize, change: DataChange) {
        apply_data(&mut self.files[file].now, &change);
        self.files[file].unsynced.push(change);
    }

    fn rename(&mut self, change: NameChange) {
        apply_name(&mut self.now, &change);
        self.unsynced_names.push(change);
    }
}

/// What a file takes of a disk is a multiple of this: little, so that there is no room in what is taken already.
const BLOCK: usize = 16;

fn apply_data(octets: &mut Vec<u8>, change: &DataChange) {
    match change {
        DataChange::Write(at, data) => {
            octets.resize(octets.len().max(at + data.len()), 0);
            octets[*at..at + data.len()].copy_from_slice(data);
        }
        DataChange::Len(len) => octets.resize(*len, 0),
    }
}

fn apply_name(names: &mut Tree, change: &NameChange) {
    match change {
        NameChange::Create(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

impl Vfs for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.lock();
        state.operate().map_err(|(error, _)| error)?;
        if state.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Inode::default());
        state.rename(NameChange::Create(path.to_owned(), file));
        Ok(Arc::new(Handle(self.clone(), file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = *self.lock().now.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(self.clone(), file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock();
        Ok(state.now.contains_key(path) || state.dirs.contains(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let inside = state.now.keys().chain(&state.dirs).filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate().map_err(|(error, _)| error)?;
        if !state.now.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate().map_err(|(error, _)| error)?;
        state.rename(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        // Folders are made at the first opening alone, and are durable at once here.
        let mut state = self.lock();
        state.operate().map_err(|(error, _)| error)?;
        state.dirs.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.wait();
        let mut state = self.lock();
        state.operate().map_err(|(error, _)| error)?;
        let changes = std::mem::take(&mut state.unsynced_names);
        for change in changes {
            let dir = match &change {
                NameChange::Create(name, _) | NameChange::Remove(name) | NameChange::Rename(_, name) => name.parent(),
            };
            if dir == Some(path) {
                apply_name(&mut state.durable, &change);
            } else {
                state.unsynced_names.push(change);
            }
        }
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<Room> {
        let state = self.lock();
        Ok(Room { free: state.free.unwrap_or(u64::MAX), total: state.total.unwrap_or(u64::MAX) })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut state = Self::lock(self);
        state.operate().map_err(|(error, _)| error)?;
        if state.locks.get(path).is_some_and(|lock| lock.strong_count() > 0) {
            return Ok(None);
        }
        let lock = Arc::new(());
        state.locks.insert(path.to_owned(), Arc::downgrade(&lock));
        Ok(Some(Box::new(lock)))
    }
}

impl VfsFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.0.lock();
        let octets = &state.files[self.1].now;
        let at = usize::try_from(at).unwrap().min(octets.len());
        let len = into.len().min(octets.len() - at);
        into[..len].copy_from_slice(&octets[at..at + len]);
        Ok(len)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let at = usize::try_from(at).unwrap();
        if let Err((error, partial)) = state.operate() {
            if partial > 0 && !state.crashed {
                state.change(self.1, DataChange::Write(at, from[..partial.min(from.len())].to_vec()));
            }
            return Err(error);
        }
        let room = state.take_room(self.1, at, from.len());
        state.change(self.1, DataChange::Write(at, from[..room].to_vec()));
        if room < from.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.operate().map_err(|(error, _)| error)?;
        let len = usize::try_from(len).unwrap();
        let blocks = &mut state.files[self.1].blocks;
        let kept = blocks.len().min(len.div_ceil(BLOCK));
        let freed = blocks.drain(kept..).filter(|taken| *taken).count();
        if let Some(free) = &mut state.free {
            *free += (freed * BLOCK) as u64;
        }
        state.change(self.1, DataChange::Len(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().files[self.1].now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.wait();
        let mut state = self.0.lock();
        state.operate().map_err(|(error, _)| error)?;
        let file = &mut state.files[self.1];
        for change in file.unsynced.drain(..) {
            apply_data(&mut file.durable, &change);
        }
        Ok(())
    }
}
