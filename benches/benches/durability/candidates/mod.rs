//! Ways to make a message durable.

mod append;
mod files;
mod group_commit;
mod log_queue;
mod sqlite;

use std::path::Path;

use bytes::Bytes;

pub(crate) trait Candidate: Sync {
    /// Returns when the message is on stable storage.
    fn put(&self, body: &Bytes);

    /// How often stable storage was waited for.
    fn syncs(&self) -> u64;

    /// The name of the thread that all messages go through, if there is one.
    fn worker(&self) -> &'static str {
        "-"
    }

    /// Returns `true` if several writers make no sense.
    fn is_for_one(&self) -> bool {
        false
    }
}

/// A name, and what begins in an empty folder.
pub(crate) type Named = (&'static str, fn(&Path) -> Box<dyn Candidate>);

/// Ours first; each in a folder of its own.
pub(crate) const CANDIDATES: [Named; 6] = [
    ("LogQueue, put", log_queue::puts),
    ("LogQueue, put + claim + done", log_queue::all),
    ("ideal group commit", group_commit::open),
    ("append + fdatasync", append::open),
    ("file, fsync, rename, fsync folder", files::open),
    ("SQLite, WAL, FULL, grouped", sqlite::open),
];

/// What is written beside each body: about as much as the queue's record has.
const ENVELOPE: &[u8] = &[b'e'; 250];
