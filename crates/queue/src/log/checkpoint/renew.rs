//! Shortening the file: redb keeps the pages of removed rows for new ones, and does not give them
//! back.
//!
//! When most of the file is unused, its rows are copied into a new file, which then takes its name.
//! This happens in the background, while the index reads the old file. The next checkpoint waits
//! for it, and so do puts once the index's memory is used up. It takes as long as writing a quarter
//! of the old file.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    Value, WriteTransaction,
};

use super::{BODIES, Checkpoint, Error, MESSAGES, META, READY, SEGMENTS, WAITING, begin, begin_write, open};
use crate::log::disk::names;
use crate::log::disk::vfs::{VfsFile, is_scarce};

/// How much of the file is used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filling {
    /// Bytes in the tables, about.
    used: u64,
    /// The length of the file when it was last shortened. Below twice this length it is not tried
    /// again.
    settled: u64,
}

impl Filling {
    /// Counts by walking through the tables.
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, Error> {
        let messages = transaction.open_table(MESSAGES)?.stats()?.stored_bytes();
        let ready = transaction.open_table(READY)?.stats()?.stored_bytes();
        let waiting = transaction.open_table(WAITING)?.stats()?.stored_bytes();
        Ok(Self { used: messages.saturating_add(ready).saturating_add(waiting), settled: 0 })
    }

    /// Counts a row of this many bytes in place of another. `None`: no row.
    pub(super) fn replaced(&mut self, old: Option<usize>, new: Option<usize>) {
        let octets = |len: Option<usize>| len.map_or(0, |len| len as u64 + KEY);
        self.used = self.used.saturating_add(octets(new)).saturating_sub(octets(old));
    }

    fn is_worth_it(&self, len: u64) -> bool {
        len >= LEAST && len / 2 >= self.settled && self.used < len / USED_PART
    }
}

impl Checkpoint {
    /// Shortens the file if that is worth it, and returns the old one, which must stay open while a
    /// snapshot of it is read. If the disk has no room, the file stays as it is.
    ///
    /// # Errors
    /// The checkpoint cannot be used any more.
    pub(super) fn renew_if_worth_it(&mut self) -> Result<Option<Database>, Error> {
        let len = self.len()?;
        if !self.filling.is_worth_it(len) {
            return Ok(None);
        }
        // The running count is not exact; this one is.
        let Filling { used, .. } = Filling::of(&self.database.begin_read()?)?;
        self.filling.used = used;
        if !self.filling.is_worth_it(len) {
            return Ok(None);
        }
        let unfinished = self.path.with_file_name(names::UNFINISHED_INDEX);
        match self.copied() {
            Ok((file, database)) => {
                // From here a failure leaves the file's name unknown, so even ENOSPC is fatal.
                let named = patiently(|| self.vfs.rename(&unfinished, &self.path));
                let folder = self.path.parent().unwrap_or(&self.path);
                named.and_then(|()| patiently(|| self.vfs.sync_dir(folder))).map_err(io::Error::other)?;
                self.file = file;
                self.filling.settled = self.len()?;
                Ok(Some(std::mem::replace(&mut self.database, database)))
            }
            Err(Error::Full(_)) => {
                // Not tried again before it has grown.
                self.filling.settled = len;
                if self.vfs.exists(&unfinished)? {
                    self.vfs.remove(&unfinished)?;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Copies all rows, durably, into a file under the name of an unfinished checkpoint.
    fn copied(&self) -> Result<(Arc<dyn VfsFile>, Database), Error> {
        let file = begin(&*self.vfs, &self.path)?;
        let database = open(&file, self.cache)?;
        let (from, to) = (self.database.begin_read()?, begin_write(&database)?);
        copy(&from, &to, MESSAGES)?;
        copy(&from, &to, READY)?;
        copy(&from, &to, WAITING)?;
        copy(&from, &to, BODIES)?;
        copy(&from, &to, SEGMENTS)?;
        copy(&from, &to, META)?;
        to.commit()?;
        Ok((file, database))
    }
}

/// Retries while the system has run out of something.
fn patiently(mut ask: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..TRIES {
        match ask() {
            Err(error) if is_scarce(&error) => thread::sleep(PAUSE),
            answered => return answered,
        }
    }
    ask()
}

fn copy<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), Error> {
    let from = from.open_table(table)?;
    let mut to: Table<'_, K, V> = to.open_table(table)?;
    for row in from.iter()? {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// Two seconds in all.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// About how many bytes a row takes beside its value.
const KEY: u64 = 8;
/// Smallest file worth compacting (tests: any).
const LEAST: u64 = if cfg!(test) { 1 } else { 16 << 20 };
/// Compact when less than 1/4 is used.
const USED_PART: u64 = 4;
