//! A simulated disk that loses what was not synced, and fails on demand.
//!
//! `cut` decides what a power cut leaves of what was not synced.

mod cut;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use rustix::io::Errno;

pub(super) use self::cut::Survival;
use crate::log::disk::vfs::{Room, Seen, Vfs, VfsFile};

#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>, Arc<Stall>);

/// While this is set, syncs wait.
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
    /// Changes of names since their folder was synced, each with its number in the order of all
    /// changes of the disk.
    unsynced_names: Vec<(u64, NameChange)>,
    durable: Tree,
    durable_dirs: BTreeSet<PathBuf>,
    changes: u64,
    locks: BTreeMap<PathBuf, Weak<()>>,
    fault: Option<Fault>,
    /// The first operation that failed.
    refused: Option<Operation>,
    operations: u64,
    syncs: u64,
    /// Bytes that may still be written; `None`: no limit.
    free: Option<u64>,
    /// The size of the disk; `None`: no limit.
    total: Option<u64>,
    /// Files that may still be created; `None`: no limit.
    files_free: Option<u64>,
    cut_after: Option<u64>,
    /// The operation at which the power was cut.
    cut_at: Option<Operation>,
    /// After a crash the old handles have no effect.
    crashed: bool,
}

type Tree = BTreeMap<PathBuf, usize>;

/// An operation that changes or syncs the disk, and the part of the queue's folder that it is in.
pub(super) type Operation = (&'static str, &'static str);

#[derive(Clone, Default)]
struct Inode {
    /// The part of the queue's folder that it was created in.
    part: &'static str,
    now: Vec<u8>,
    /// The blocks of it that take room on the disk.
    blocks: Vec<bool>,
    durable: Vec<u8>,
    /// Each with its number in the order of all changes of the disk.
    unsynced: Vec<(u64, DataChange)>,
    /// Bytes that cannot be read.
    spoilt: Range<usize>,
}

#[derive(Clone)]
enum DataChange {
    Write(usize, Vec<u8>),
    Len(usize),
}

enum NameChange {
    Create(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    MakeDir(PathBuf),
}

/// Lets the operation with this number fail, counted from now over all that change or sync the
/// disk, and some after it. After a failed sync, a part of what was to be synced is lost for good,
/// while reading still shows it, as on real systems.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) kind: Cause,
    /// The bytes of a failing write that are written.
    pub(super) partial: usize,
    /// The number of operations after it that fail too.
    pub(super) and: u64,
}

/// The error of a refusing disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Kind(io::ErrorKind),
    Errno(Errno),
}

impl Cause {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Kind(kind) => kind.into(),
            Self::Errno(errno) => errno.into(),
        }
    }
}

impl From<io::ErrorKind> for Cause {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

struct Handle(Disk, usize);

/// The names of hidden files.
pub(super) struct Names(Tree, Tree);

impl Disk {
    pub(super) fn new() -> Self {
        Self::settled(Tree::new(), BTreeSet::from(["/".into()]), Vec::new())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn fail(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        state.operations = 0;
        state.fault = fault;
        state.refused = None;
    }

    /// Lets no operation after this number have an effect.
    pub(super) fn cut_after(&self, operations: u64) {
        let mut state = self.lock();
        state.operations = 0;
        state.cut_after = Some(operations);
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The first operation that failed since [`fail`](Self::fail).
    pub(super) fn refused(&self) -> Option<Operation> {
        self.lock().refused
    }

    /// The operation at which the power was cut.
    pub(super) fn cut_at(&self) -> Option<Operation> {
        self.lock().cut_at
    }

    /// The number of waits for stable storage.
    pub(super) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(super) fn set_total(&self, total: Option<u64>) {
        self.lock().total = total;
    }

    pub(super) fn set_free(&self, free: Option<u64>) {
        self.lock().free = free;
    }

    pub(super) fn set_files_free(&self, free: Option<u64>) {
        self.lock().files_free = free;
    }

    /// Lets syncs wait until it is called with `false`.
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
        state.files[at] = Inode::settled(state.files[at].part, octets);
    }

    /// Makes these bytes of a file unreadable.
    pub(super) fn spoil(&self, path: &Path, octets: Range<usize>) {
        let mut state = self.lock();
        let at = state.now[path];
        state.files[at].spoilt = octets;
    }

    /// Removes a file.
    pub(super) fn forget(&self, path: &Path) {
        let mut state = self.lock();
        state.now.remove(path);
        state.durable.remove(path);
    }

    /// Cuts a file without the queue's knowledge.
    pub(super) fn shorten(&self, path: &Path, len: usize) {
        let mut state = self.lock();
        let at = state.now[path];
        state.files[at].now.truncate(len);
        state.files[at].durable.truncate(len);
        state.files[at].unsynced.clear();
    }

    /// Renames a file or a folder with its content, without the queue's knowledge.
    pub(super) fn move_away(&self, from: &Path, to: &Path) {
        let State { now, durable, dirs, durable_dirs, .. } = &mut *self.lock();
        let moved = |path: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest).components().collect());
        for names in [now, durable] {
            *names = names.iter().map(|(path, file)| (moved(path).unwrap_or_else(|| path.clone()), *file)).collect();
        }
        for folders in [dirs, durable_dirs] {
            *folders = folders.iter().map(|path| moved(path).unwrap_or_else(|| path.clone())).collect();
        }
    }

    /// Hides all files, as when the disk is no longer mounted.
    pub(super) fn hide(&self) -> Names {
        let mut state = self.lock();
        Names(std::mem::take(&mut state.now), std::mem::take(&mut state.durable))
    }

    pub(super) fn show(&self, Names(now, durable): Names) {
        let mut state = self.lock();
        (state.now, state.durable) = (now, durable);
    }

    /// The disk after the process was killed: everything written is there.
    pub(super) fn killed(&self) -> Self {
        let state = self.lock();
        let files = state.files.iter().map(|file| Inode::settled(file.part, file.now.clone())).collect();
        Self::settled(state.now.clone(), state.dirs.clone(), files)
    }

    fn settled(names: Tree, dirs: BTreeSet<PathBuf>, files: Vec<Inode>) -> Self {
        let (now, durable_dirs) = (names.clone(), dirs.clone());
        let state = State { now, durable: names, dirs, durable_dirs, files, ..State::default() };
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }
}

impl Inode {
    /// Every second write counts as synced, and is not. Lengths are metadata, written later.
    fn lose_some(&mut self) {
        let (mut kept, mut count) = (Vec::new(), 0);
        for (at, change) in std::mem::take(&mut self.unsynced) {
            match change {
                DataChange::Len(_) => kept.push((at, change)),
                DataChange::Write(..) => {
                    count += 1;
                    if count % 2 == 0 {
                        apply_data(&mut self.durable, &change);
                    }
                }
            }
        }
        self.unsynced = kept;
    }

    fn settled(part: &'static str, octets: Vec<u8>) -> Self {
        let blocks = vec![true; octets.len().div_ceil(BLOCK)];
        Self { part, now: octets.clone(), blocks, durable: octets, ..Self::default() }
    }
}

impl State {
    /// Counts an operation. Returns how it fails, if it does.
    fn operate(&mut self, what: &'static str, part: &'static str) -> Result<(), (io::Error, usize)> {
        if self.crashed {
            return Err((io::Error::other("the power is off"), 0));
        }
        self.operations += 1;
        if self.cut_after.is_some_and(|cut| self.operations > cut) {
            self.crashed = true;
            self.cut_at = Some((what, part));
            return Err((io::Error::other("the power is off"), 0));
        }
        match self.fault {
            Some(fault) if (fault.at..=fault.at.saturating_add(fault.and)).contains(&self.operations) => {
                self.refused.get_or_insert((what, part));
                Err((fault.kind.error(), fault.partial))
            }
            _ => Ok(()),
        }
    }

    fn seen(&self, file: usize) -> Seen {
        Seen { device: 1, inode: file as u64, len: self.files[file].now.len() as u64, mode: 0o600, owner: own() }
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// The number of bytes that there is room for. Overwriting needs none.
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
        let at = self.next_change();
        self.files[file].unsynced.push((at, change));
    }

    fn rename(&mut self, change: NameChange) {
        apply_name(&mut self.now, &mut self.dirs, &change);
        let at = self.next_change();
        self.unsynced_names.push((at, change));
    }
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file takes a multiple of this many bytes. Small, so that there is little room in taken blocks.
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

fn apply_name(names: &mut Tree, dirs: &mut BTreeSet<PathBuf>, change: &NameChange) {
    match change {
        NameChange::Create(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, file) => {
            names.remove(from);
            names.insert(to.clone(), *file);
        }
        NameChange::MakeDir(path) => {
            dirs.insert(path.clone());
        }
    }
}

/// The part of a queue's folder that a path is in.
fn part(path: &Path) -> &'static str {
    let names: Vec<_> = path.iter().skip(2).map(|name| name.to_str().unwrap()).collect();
    match names[..] {
        ["log", ..] => "log",
        ["bodies", ..] => "bodies",
        ["quarantine", ..] => "quarantine",
        ["index" | "index.new"] => "index",
        _ => "folder",
    }
}

impl Vfs for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.lock();
        state.operate("create", part(path)).map_err(|(error, _)| error)?;
        if state.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = state.files.len();
        state.files.push(Inode { part: part(path), ..Inode::default() });
        state.rename(NameChange::Create(path.to_owned(), file));
        Ok(Arc::new(Handle(self.clone(), file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = *self.lock().now.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(self.clone(), file)))
    }

    fn look(&self, path: &Path) -> io::Result<Seen> {
        let state = self.lock();
        match state.now.get(path) {
            Some(file) => Ok(state.seen(*file)),
            None if state.dirs.contains(path) => Ok(Seen { device: 1, inode: 0, len: 0, mode: 0o700, owner: own() }),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn narrow(&self, _: &Path) -> io::Result<()> {
        Ok(())
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
        state.operate("unlink", part(path)).map_err(|(error, _)| error)?;
        if !state.now.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate("rename", part(from)).map_err(|(error, _)| error)?;
        let file = *state.now.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(NameChange::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.operate("mkdir", part(path)).map_err(|(error, _)| error)?;
        let mut missing: Vec<_> = path.ancestors().filter(|dir| !state.dirs.contains(*dir)).collect();
        while let Some(dir) = missing.pop() {
            state.rename(NameChange::MakeDir(dir.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.wait();
        let mut state = self.lock();
        state.syncs += 1;
        state.operate("sync folder", part(path)).map_err(|(error, _)| error)?;
        let State { unsynced_names, durable, durable_dirs, .. } = &mut *state;
        unsynced_names.retain(|(_, change)| {
            let (NameChange::Create(name, _)
            | NameChange::Remove(name)
            | NameChange::Rename(_, name, _)
            | NameChange::MakeDir(name)) = change;
            let is_synced = name.parent() == Some(path);
            if is_synced {
                apply_name(durable, durable_dirs, change);
            }
            !is_synced
        });
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<Room> {
        let state = self.lock();
        let (free, total) = (state.free.unwrap_or(u64::MAX), state.total.unwrap_or(u64::MAX));
        Ok(Room { free, total, files_free: state.files_free.unwrap_or(u64::MAX), files_total: u64::MAX })
    }

    fn random(&self) -> io::Result<u64> {
        Ok(fastrand::u64(..))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut state = Self::lock(self);
        state.operate("lock", part(path)).map_err(|(error, _)| error)?;
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
        let Inode { now: octets, spoilt, .. } = &state.files[self.1];
        let at = usize::try_from(at).unwrap().min(octets.len());
        let len = into.len().min(octets.len() - at);
        if at.max(spoilt.start) < (at + len).min(spoilt.end) {
            return Err(io::Error::other("the disk cannot read it"));
        }
        into[..len].copy_from_slice(&octets[at..at + len]);
        Ok(len)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let at = usize::try_from(at).unwrap();
        let part = state.files[self.1].part;
        if let Err((error, partial)) = state.operate("write", part) {
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
        let part = state.files[self.1].part;
        state.operate("set length", part).map_err(|(error, _)| error)?;
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

    fn look(&self) -> io::Result<Seen> {
        Ok(self.0.lock().seen(self.1))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.wait();
        let mut state = self.0.lock();
        state.syncs += 1;
        let part = state.files[self.1].part;
        if let Err((error, _)) = state.operate("sync", part) {
            if !state.crashed {
                state.files[self.1].lose_some();
            }
            return Err(error);
        }
        let file = &mut state.files[self.1];
        for (_, change) in file.unsynced.drain(..) {
            apply_data(&mut file.durable, &change);
        }
        Ok(())
    }
}
