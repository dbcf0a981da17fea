//! Reading a body, on the caller's thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use crate::log::disk::names;
use crate::log::disk::vfs::{VfsFile, is_scarce, read_exact};
use crate::log::format::place::Stored;
use crate::log::options::MAX_INLINE;
use crate::{Body, Error, MessageId};

/// Reads a body out of a [`LogQueue`](crate::log::LogQueue).
///
/// Each piece is read on the caller's thread, at most 64 KiB, and blocks it for that long:
/// microseconds if the system has the file cached, as with fresh mail. Reading may go on after the
/// message is finished.
pub struct LogBody {
    pub(in crate::log) message: MessageId,
    pub(in crate::log) file: Arc<dyn VfsFile>,
    pub(in crate::log) name: String,
    pub(in crate::log) at: u64,
    pub(in crate::log) left: u64,
    pub(in crate::log) len: u64,
    pub(in crate::log) hasher: crc32fast::Hasher,
    pub(in crate::log) crc: u32,
}

impl LogBody {
    pub(in crate::log) fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
        let mut chunk = BytesMut::zeroed(want);
        read_exact(&*self.file, &mut chunk, self.at).map_err(|error| match error.kind() {
            _ if is_scarce(&error) => Error::Scarce(format!("{}: {error}", self.name).into()),
            io::ErrorKind::UnexpectedEof => self.damaged(&error.to_string()),
            _ => Error::Unreadable { message: self.message, reason: format!("{}: {error}", self.name).into() },
        })?;
        self.hasher.update(&chunk);
        let left = self.left.saturating_sub(want as u64);
        if left == 0 && self.hasher.clone().finalize() != self.crc {
            return Err(self.damaged("its checksum is wrong"));
        }
        self.at = self.at.saturating_add(want as u64);
        self.left = left;
        Ok(Some(chunk.freeze()))
    }

    fn damaged(&self, why: &str) -> Error {
        let reason = format!("{}: {why}; restore the file from a backup, or remove the message", self.name);
        Error::Damaged { message: self.message, reason: reason.into() }
    }
}

/// The bytes of a body in the log as they are, right or wrong, for a message that is written again.
/// Bytes that are missing, or whose file is, are zero.
pub(in crate::log) fn carried(file: Option<&dyn VfsFile>, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "it names a body that is too long for the log");
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_INLINE).ok_or_else(too_long)?;
    let mut octets = vec![0; len];
    if let Some(file) = file {
        let there = usize::try_from(file.len()?.saturating_sub(at)).unwrap_or(usize::MAX).min(len);
        read_exact(file, octets.get_mut(..there).unwrap_or_default(), at)?;
    }
    Ok(octets)
}

/// The file with a message's body, and where in that file it begins.
pub(in crate::log) fn place(dir: &Path, message: MessageId, stored: &Stored) -> (PathBuf, u64) {
    match stored.inline {
        Some(at) => (names::log(dir).join(names::segment(stored.sequence)), at),
        None => (names::bodies(dir).join(names::body(message)), 0),
    }
}

impl Stream for LogBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let read = self.read().transpose();
        if matches!(read, Some(Err(_))) {
            self.left = 0;
        }
        Poll::Ready(read.map(|read| read.map_err(io::Error::from)))
    }
}

impl Body for LogBody {
    fn len(&self) -> u64 {
        self.len
    }
}

impl fmt::Debug for LogBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBody").field("message", &self.message).field("left", &self.left).finish_non_exhaustive()
    }
}

const CHUNK: usize = 64 << 10;
