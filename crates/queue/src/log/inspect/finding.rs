//! What an inspection finds.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::MessageId;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Which trouble it is.
    pub trouble: Trouble,
    /// The file.
    pub path: PathBuf,
    /// Which octets of it, unless it is the whole file.
    pub place: Option<Range<u64>>,
    /// Whose, if it is about one message.
    pub message: Option<MessageId>,
    /// What is the matter.
    pub what: String,
    /// Whatever can be done about it here has been: the octets are in `quarantine/`, the message is on hold. It is said, and does
    /// not count.
    pub is_settled: bool,
}

/// The kinds of trouble, each with its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// The end of the log is a batch that was being written. Nobody was told about it.
    Torn,
    /// Octets of the log that are no good record.
    Damaged,
    /// Segments are missing, or what else nothing can be done about.
    Lost,
    /// A file that is none of the queue's.
    Stray,
    /// A body that no message names.
    Orphan,
    /// The index cannot be used, or says something else than a log that is whole.
    Index,
    /// The index knows what is on a damaged or missing part of the log.
    Unlogged,
    /// The record that ended a message is on a damaged part of the log; the index knows that it is gone.
    Ended,
    /// A body is missing or is not what was accepted.
    Body,
}

impl Trouble {
    /// One word.
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

    /// What a repair does.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Torn => "copied to quarantine/ and cut off",
            Self::Damaged => "copied to quarantine/; what is behind is read on",
            Self::Lost => "left as it is: what it held can come from a backup only",
            Self::Stray | Self::Orphan => "moved to quarantine/",
            Self::Index => "index moved to quarantine/ and made anew from the log",
            Self::Unlogged => "message written to the log again, as the index has it",
            Self::Ended => "its end written to the log again",
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

    /// Whether a repair leaves nothing of it that counts.
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
