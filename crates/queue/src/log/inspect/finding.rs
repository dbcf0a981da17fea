//! What an inspection finds.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::MessageId;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The kind of trouble.
    pub trouble: Trouble,
    /// The file.
    pub path: PathBuf,
    /// The bytes concerned. `None`: the whole file.
    pub place: Option<Range<u64>>,
    /// The message concerned. `None`: it is not about one message.
    pub message: Option<MessageId>,
    /// What is wrong.
    pub what: String,
    /// `true`: a repair has no more to do. The bytes are in `quarantine/`, the message is on hold,
    /// or the index has what mattered of a missing segment. Such a finding is shown, but counts in
    /// [`Verified::settled`](super::Verified::settled) alone.
    pub is_settled: bool,
}

/// The kinds of trouble, each with its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// The end of the log is a batch that was being written. It was never acknowledged.
    Torn,
    /// Bytes of the log that are no intact record.
    Damaged,
    /// A missing segment, or other damage without a remedy.
    Lost,
    /// A file that is not the queue's.
    Stray,
    /// A body that belongs to no message.
    Orphan,
    /// The index cannot be used, or contradicts an intact log.
    Index,
    /// The index has a message that is on a damaged or missing part of the log.
    Unlogged,
    /// A message has ended according to the index. The record of that is on a damaged part of the
    /// log.
    Ended,
    /// A body is missing, or is not what was accepted.
    Body,
}

impl Trouble {
    /// Returns the kind in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
            Self::Stray => "stray",
            Self::Orphan => "orphan",
            Self::Index => "index",
            Self::Unlogged => "unlogged",
            Self::Ended => "ended",
            Self::Body => "body",
        }
    }

    /// Returns what a repair does.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Torn => "copied to quarantine/ and cut off",
            Self::Damaged => "copied to quarantine/; reading goes on after it",
            Self::Lost => "left as it is: only a backup can restore it",
            Self::Stray | Self::Orphan => "moved to quarantine/",
            Self::Index => "index moved to quarantine/ and rebuilt from the log",
            Self::Unlogged => "message written to the log again, as the index has it",
            Self::Ended => "end of the message written to the log again",
            Self::Body => "message put on hold: restore the body from a backup, or remove the message",
        }
    }
}

impl Finding {
    pub(super) fn new(trouble: Trouble, path: &Path, what: impl Into<String>) -> Self {
        Self { trouble, path: path.to_owned(), place: None, message: None, what: what.into(), is_settled: false }
    }

    pub(super) fn within(self, place: Option<Range<u64>>) -> Self {
        Self { place, ..self }
    }

    pub(super) fn about(self, message: MessageId) -> Self {
        Self { message: Some(message), ..self }
    }

    pub(super) fn settled(self, is_settled: bool) -> Self {
        Self { is_settled, ..self }
    }

    /// Returns `true` if a repair has a remedy for it: for every kind but [`Trouble::Lost`].
    #[must_use]
    pub fn is_repairable(&self) -> bool {
        self.trouble != Trouble::Lost
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(Range { start, end }) = &self.place {
            write!(f, " at {start} to {end}")?;
        }
        if let Some(message) = self.message {
            write!(f, ", message {message}")?;
        }
        write!(f, ": {}", self.what)
    }
}
