//! What can go wrong, by what the caller does about it.

use std::io;
use std::sync::Arc;

use crate::MessageId;

/// An operation on a queue failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// [`close`](crate::Queue::close) was called.
    #[error("the queue is closed")]
    Closed,
    /// The store could not write or sync, and has stopped. The operation may or may not have been
    /// done. Temporary if the engine goes on by itself, as the log engine does: then
    /// [`changed`](crate::Queue::changed) returns.
    #[error("the queue has stopped: {0}")]
    Broken(Broken),
    /// The message was delivered, reported or removed, or was never in the queue.
    #[error("the queue has no message {0}")]
    NoSuchMessage(MessageId),
    /// The system has run out of something, descriptors for example. The queue itself works: try
    /// again later.
    #[error("the system has run out of something: {0}; check the limit of open files (`ulimit -n`)")]
    Scarce(Arc<str>),
    /// The disk does not give the message's body now. Temporary: the body may be as it was.
    #[error("the body of message {message} cannot be read now: {reason}")]
    Unreadable {
        /// The message.
        message: MessageId,
        /// The file, and what happened.
        reason: Arc<str>,
    },
    /// The message's body is missing, or is not what was accepted. Nothing was deleted.
    #[error("the body of message {message} is damaged: {reason}")]
    Damaged {
        /// The message.
        message: MessageId,
        /// The file, what is wrong with it, and what to do.
        reason: Arc<str>,
    },
}

/// Why a store has stopped: the file, what happened to it, and what to do.
///
/// A failed `fdatasync` stops the store, because the kernel may have thrown away the pages that it
/// could not write, and reports that only once. What was acknowledged before is on the disk, and is
/// read from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub(crate) Arc<str>);

impl Broken {
    /// Creates a reason. For engines.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// A message was not accepted. Nothing of it is left, except as [`Broken`](Self::Broken) says.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// There is no room now: temporary, for SMTP a 452. It ends when mail is delivered or space is
    /// freed.
    #[error("the queue is full: {0}")]
    Full(Full),
    /// The message is beyond a limit: asking again is no use.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A message needs at least one delivery.
    #[error("a message without a delivery would never leave the queue")]
    NoDelivery,
    /// The store has stopped, or it stopped after the draft began and has gone on since. For the
    /// peer this is temporary; an operator should find out why. A message that was being committed
    /// may be in the queue.
    #[error("the queue has stopped: {0}")]
    Broken(Broken),
    /// [`close`](crate::Queue::close) was called.
    #[error("the queue is closed")]
    Closed,
}

/// Which bound refuses a message for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// Free space would fall below the reserve, which lets outcomes be written on a full disk.
    #[error("the queue's disk has {free} bytes free, {wanted} bytes are needed; free some space (queued mail is kept)")]
    Disk {
        /// Bytes that this process may still write.
        free: u64,
        /// The reserve and the size hint together, in bytes.
        wanted: u64,
    },
    /// The file system has almost as many files as it can have. Segments and large bodies are
    /// files.
    #[error(
        "the queue's disk has room for {free} more files, {wanted} files are needed; remove some (queued mail is kept)"
    )]
    Files {
        /// Files that this process may still create.
        free: u64,
        /// Files that are kept back.
        wanted: u64,
    },
    /// The system has run out of something else: descriptors, memory.
    #[error(
        "the system has run out of something: {0}; check the limit of open files (`ulimit -n`); queued mail is kept"
    )]
    Scarce(Arc<str>),
    /// The disk had no room for the write itself.
    #[error("the queue's disk is full: {0}")]
    NoSpace(Arc<str>),
    /// An engine in memory holds as much as it may.
    #[error(
        "the queue would take {wanted} bytes of memory, its limit is {limit} bytes; it empties as mail is delivered"
    )]
    Memory {
        /// The limit in bytes.
        limit: usize,
        /// What the queue would take with this message, in bytes.
        wanted: usize,
    },
    /// As many messages as allowed are being received.
    #[error("{limit} messages are being received, which is the limit; raise it or wait")]
    Drafts {
        /// The limit.
        limit: usize,
    },
}

/// A part of a message is beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has at least {actual} {unit}; the limit is {limit}")]
#[non_exhaustive]
pub struct TooLarge {
    /// The part.
    pub what: &'static str,
    /// The unit of `limit` and `actual`: `bytes` or `deliveries`.
    pub unit: &'static str,
    /// The limit.
    pub limit: u64,
    /// The size, as far as it was counted.
    pub actual: u64,
}

impl TooLarge {
    /// Creates the error for a part that is counted in bytes. For engines.
    #[must_use]
    pub const fn bytes(what: &'static str, limit: u64, actual: u64) -> Self {
        Self { what, unit: "bytes", limit, actual }
    }

    pub(crate) const fn deliveries(limit: u64, actual: u64) -> Self {
        Self { what: "the message", unit: "deliveries", limit, actual }
    }
}

/// Writing back under a lease failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease expired and the delivery was claimed again, or the message was removed. Nothing
    /// was written.
    #[error("the lease is stale: the delivery was claimed again or removed")]
    Stale,
    /// The outcome is larger than a record may be. Nothing was written; the delivery is claimable
    /// again when the lease expires.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A derived message needs at least one delivery. Nothing was written.
    #[error("a derived message without a delivery would never leave the queue")]
    NoDelivery,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The I/O error holds the queue's error: [`downcast`](io::Error::downcast) gives it back.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Damaged { .. } => io::ErrorKind::InvalidData,
            Error::NoSuchMessage(_) => io::ErrorKind::NotFound,
            Error::Closed | Error::Broken(_) | Error::Scarce(_) | Error::Unreadable { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<Error> for PutError {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::Closed,
            Error::Broken(why) => Self::Broken(why),
            Error::Scarce(what) => Self::Full(Full::Scarce(what)),
            other => Self::Broken(Broken::new(&other.to_string())),
        }
    }
}
