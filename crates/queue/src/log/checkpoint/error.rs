//! Why a checkpoint cannot be read or written. No other folder sees redb's errors.

use std::io;

use crate::log::disk::vfs::is_for_now;

#[derive(Debug, thiserror::Error)]
pub(in crate::log) enum Error {
    /// The system refused, and may not refuse later: no room, no descriptor. The disk is well.
    #[error("{0}")]
    Full(io::Error),
    /// The disk failed.
    #[error("{0}")]
    Io(io::Error),
    /// The disk is well, but the file is not what was written. This is what is wrong with it.
    #[error("{0}")]
    Content(String),
}

impl Error {
    pub(super) fn content(what: &impl std::fmt::Display) -> Self {
        Self::Content(what.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            _ if is_for_now(&error) => Self::Full(error),
            // redb's kind for a foreign file, and ours for one that is too short.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::content(&error),
            _ => Self::Io(error),
        }
    }
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::Corrupted(what) => Self::Content(what),
            other => Self::content(&other),
        }
    }
}

/// Lets `?` take each of redb's narrower errors.
macro_rules! from {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from!(CommitError DatabaseError SetDurabilityError StorageError TableError TransactionError);
