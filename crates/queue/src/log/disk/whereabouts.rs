//! Whether what is written can be found again: the names still lead to the files that are open.
//!
//! A file that was removed, or whose folder was moved away, takes everything that is written to it, and is gone with the process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::disk::names;
use crate::log::disk::vfs::{Seen, Vfs, VfsFile};
use crate::log::options::OpenError;

/// A file that is written to, where it was begun.
#[derive(Clone)]
pub(in crate::log) struct Placed {
    path: PathBuf,
    seen: Seen,
}

/// Where a queue is, for those who ask how it is and for opening it again.
pub(in crate::log) struct Whereabouts {
    /// The folders that nothing is found without, and their numbers.
    folders: [(PathBuf, u64); 2],
    newest: NewestPlace,
}

/// The segment that is written to. The store's thread sets it.
pub(in crate::log) type NewestPlace = Arc<Mutex<Option<Placed>>>;

/// The segments that there were when a store failed, and how long the records in them were.
pub(in crate::log) type Known = BTreeMap<u64, u64>;

impl Placed {
    pub(in crate::log) fn new(path: PathBuf, file: &dyn VfsFile) -> io::Result<Self> {
        Ok(Self { path, seen: file.look()? })
    }

    /// Whether the path leads to the file, and so much of it is there.
    ///
    /// # Errors
    /// What has happened to it, and what to do.
    pub(in crate::log) fn check(&self, vfs: &dyn Vfs, len: u64) -> Result<(), String> {
        let path = self.path.display();
        let remedy = "put it back, or start again to go on with what is there; nothing was acknowledged since";
        match vfs.look(&self.path) {
            Ok(found) if !found.is_same(&self.seen) => {
                Err(format!("{path} is another file by now, while the queue is open: {remedy}"))
            }
            Ok(found) if found.len < len => {
                let left = found.len;
                Err(format!("{path} was cut to {left} octets from outside, {len} were written: {remedy}"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{path} cannot be found any more, while the queue is open ({error}): {remedy}")),
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

    /// Whether what is written to, and its folders, are where they were.
    ///
    /// # Errors
    /// What has happened, and what to do.
    pub(in crate::log) fn check(&self, vfs: &dyn Vfs) -> Result<(), String> {
        self.check_folders(vfs)?;
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        newest.map_or(Ok(()), |newest| newest.check(vfs, 0))
    }

    /// Whether all is there to open the queue again, after it was open. To begin a new log because the old one is not there for the
    /// moment is not for the program to decide.
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
                Ok(found) => format!("has {found} octets, where {len} were written"),
                Err(error) => error.to_string(),
            };
            let path = path.display();
            return Err(format!("{path}: {wrong}; put it back, or start again to go on with what is there"));
        }
        Ok(())
    }

    fn check_folders(&self, vfs: &dyn Vfs) -> Result<(), String> {
        for (path, inode) in &self.folders {
            let wrong = match vfs.look(path) {
                Ok(found) if found.inode == *inode => continue,
                Ok(_) => "is another folder by now".to_owned(),
                Err(error) => format!("cannot be found any more ({error})"),
            };
            let path = path.display();
            return Err(format!("{path} {wrong}: put it back, or start again to go on with what is there"));
        }
        Ok(())
    }
}
