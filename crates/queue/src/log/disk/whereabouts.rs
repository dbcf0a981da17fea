//! Checks that what is written can be found again: the names still lead to the open files.
//!
//! A file that was removed, or whose folder was moved, still takes writes, and is lost with the
//! process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::disk::names;
use crate::log::disk::vfs::{Seen, Vfs, VfsFile};
use crate::log::options::OpenError;

/// An open file, and the path under which it was opened.
#[derive(Clone)]
pub(in crate::log) struct Placed {
    path: PathBuf,
    seen: Seen,
}

/// Where a queue is: checked when its state is asked for, and before it is opened again.
pub(in crate::log) struct Whereabouts {
    /// The folders `log` and `bodies`, with their inode numbers.
    folders: [(PathBuf, u64); 2],
    newest: NewestPlace,
}

/// The segment that is being written. Set by the store's thread.
pub(in crate::log) type NewestPlace = Arc<Mutex<Option<Placed>>>;

/// The segments at the time a store failed, with the length of their records.
pub(in crate::log) type Known = BTreeMap<u64, u64>;

impl Placed {
    pub(in crate::log) fn new(path: PathBuf, file: &dyn VfsFile) -> io::Result<Self> {
        Ok(Self { path, seen: file.look()? })
    }

    /// Checks that the path leads to the file, and that the file has at least `len` bytes.
    ///
    /// # Errors
    /// What has happened to it, and what to do.
    pub(in crate::log) fn check(&self, vfs: &dyn Vfs, len: u64) -> Result<(), String> {
        let path = self.path.display();
        let remedy = "put it back, or restart the program with what is left; no mail was acknowledged since";
        match vfs.look(&self.path) {
            Ok(found) if !found.is_same(&self.seen) => {
                Err(format!("{path} was replaced by another file while the queue is open: {remedy}"))
            }
            Ok(found) if found.len < len => {
                let left = found.len;
                Err(format!("{path} was cut to {left} bytes by another program, {len} bytes were written: {remedy}"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{path} is gone while the queue is open ({error}): {remedy}")),
        }
    }
}

impl Whereabouts {
    pub(in crate::log) fn new(vfs: &dyn Vfs, dir: &Path) -> Result<Self, OpenError> {
        let number = |name| {
            let path = dir.join(name);
            let inode = vfs.look(&path).map_err(OpenError::io(&path))?.inode;
            Ok((path, inode))
        };
        Ok(Self { folders: [number(names::LOG)?, number(names::BODIES)?], newest: NewestPlace::default() })
    }

    pub(in crate::log) fn newest(&self) -> &NewestPlace {
        &self.newest
    }

    /// Checks that the folders and the newest segment are where they were.
    ///
    /// # Errors
    /// What has happened, and what to do.
    pub(in crate::log) fn check(&self, vfs: &dyn Vfs) -> Result<(), String> {
        self.check_folders(vfs)?;
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        newest.map_or(Ok(()), |newest| newest.check(vfs, 0))
    }

    /// Checks that everything is there to open the queue again. If the old log is missing, an
    /// operator has to decide whether to begin a new one.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(in crate::log) fn check_known(&self, vfs: &dyn Vfs, known: &Known) -> Result<(), String> {
        self.check_folders(vfs)?;
        let [(log, _), _] = &self.folders;
        for (sequence, len) in known {
            let path = log.join(names::segment(*sequence));
            let found = vfs.look(&path).map(|seen| seen.len);
            let wrong = match found {
                Ok(found) if found >= *len => continue,
                Ok(found) => format!("has {found} bytes, {len} bytes were written"),
                Err(error) => error.to_string(),
            };
            let path = path.display();
            return Err(format!("{path}: {wrong}; put it back, or restart the program with what is left"));
        }
        Ok(())
    }

    fn check_folders(&self, vfs: &dyn Vfs) -> Result<(), String> {
        for (path, inode) in &self.folders {
            let wrong = match vfs.look(path) {
                Ok(found) if found.inode == *inode => continue,
                Ok(_) => "was replaced by another folder".to_owned(),
                Err(error) => format!("is gone ({error})"),
            };
            let path = path.display();
            return Err(format!("{path} {wrong}: put it back, or restart the program with what is left"));
        }
        Ok(())
    }
}
