//! What can go wrong, by what the caller does about it.

use std::sync::Arc;

use crate::MessageId;

/// An operation on a queue failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// [`close`](crate::Queue::close) was called.
    #[error("the queue is closed")]
    Closed,
    /// The store could not write or sync and has stopped: it takes nothing and gives nothing. Whether what was asked for was done is not
    /// known. Temporary for an engine that goes on by itself, as the log engine does: [`changed`](crate::Queue::changed) returns then.
    #[error("the queue has stopped: {0}")]
    Broken(Broken),
    /// There is no such message: delivered, reported or removed.
    #[error("there is no message {0} in the queue")]
    NoSuchMessage(MessageId),
    /// The system has none left of what it takes, descriptors for example. Nothing is wrong with the queue: ask again later.
    #[error("the system is short of something: {0}; see the limit of open files (`ulimit -n`)")]
    Scarce(Arc<str>),
    /// The message's body cannot be read, or is not what was accepted. Nothing was deleted.
    #[error("the body of message {message} is damaged: {reason}")]
    Damaged {
        /// Whose body.
        message: MessageId,
        /// The file, what is wrong with it, and what to do.
        reason: Arc<str>,
    },
}

/// Why a store has stopped: the file, what happened to it, and what to do about it.
///
/// A failed `fdatasync` is fatal for the open store, because the kernel may have thrown away the pages that it could not
/// write and says so only once. Everything acknowledged before is on the disk, and is read from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub(crate) Arc<str>);

impl Broken {
    /// Says why. For engines.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// A message was not accepted. Nothing of it is left, but for what [`Broken`](Self::Broken) leaves open.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// There is no room now: a temporary condition, for SMTP a 452. It ends by itself when mail is delivered or space is
    /// made.
    #[error("the queue is full: {0}")]
    Full(Full),
    /// More than the queue takes at any time; asking again is no use.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A message needs at least one delivery.
    #[error("a message without a delivery would never leave the queue")]
    NoDelivery,
    /// The store has stopped, or has stopped and gone on since the draft was begun: temporary for the peer, a matter for the operator. A
    /// message that was being committed may be in the queue all the same.
    #[error("the queue has stopped: {0}")]
    Broken(Broken),
    /// [`close`](crate::Queue::close) was called.
    #[error("the queue is closed")]
    Closed,
}

/// Which bound keeps a message out for the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// Free space would fall below the reserve that lets outcomes be written on a full disk.
    #[error("{free} octets are free on the queue's disk, {wanted} are wanted; free some space, mail is kept")]
    Disk {
        /// Octets free for this process.
        free: u64,
        /// The reserve and the size hint together, in octets.
        wanted: u64,
    },
    /// Almost as many files are on the disk as it can have. Segments and large bodies are files.
    #[error("{free} files can still be made on the queue's disk, {wanted} are wanted; remove some, mail is kept")]
    Files {
        /// How many this process may still make.
        free: u64,
        /// How many are to be kept back.
        wanted: u64,
    },
    /// The system has none left of something else than room on the disk: descriptors, memory.
    #[error("the system is short of something: {0}; see the limit of open files (`ulimit -n`), mail is kept")]
    Scarce(Arc<str>),
    /// The disk had no room for the write itself.
    #[error("the queue's disk is full: {0}")]
    NoSpace(Arc<str>),
    /// An engine that keeps everything in memory holds as much as it may.
    #[error("the queue would take {wanted} octets of memory, {limit} are its limit; it empties as mail is delivered")]
    Memory {
        /// The limit in octets.
        limit: usize,
        /// What the queue would take with this message, in octets.
        wanted: usize,
    },
    /// As many messages as allowed are being received.
    #[error("{limit} messages are being received at once, which is the limit")]
    Drafts {
        /// The limit.
        limit: usize,
    },
}

/// A part of a message is larger than the queue takes at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has at least {actual} {unit}; the limit is {limit}")]
#[non_exhaustive]
pub struct TooLarge {
    /// Which part.
    pub what: &'static str,
    /// The unit of `limit` and `actual`: `bytes` or `deliveries`.
    pub unit: &'static str,
    /// The limit.
    pub limit: u64,
    /// The size as far as it was counted.
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

/// A write-back under a lease failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease expired and somebody else has claimed the delivery since, or the message was removed. Nothing was written.
    #[error("the lease is stale: the delivery was claimed anew or removed")]
    Stale,
    /// An outcome larger than a record may be. Nothing was written; the delivery is claimable again when the lease expires.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A derived message needs at least one delivery. Nothing was written.
    #[error("a derived message without a delivery would never leave the queue")]
    NoDelivery,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
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
