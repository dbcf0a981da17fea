//! Where messages and records are in the log.

use super::record::StoredBody;

/// Where a payload is.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct At {
    pub(in crate::log) sequence: u64,
    pub(in crate::log) payload: u64,
    /// The length of the whole record, its frame included.
    pub(in crate::log) len: u64,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Stored {
    /// The segment with its newest image.
    pub(in crate::log) sequence: u64,
    /// Its live bytes in that segment: the length of the record with that image.
    pub(in crate::log) len: u64,
    pub(in crate::log) crc: u32,
    /// Where in the segment the body begins. `None`: it has a file of its own.
    pub(in crate::log) inline: Option<u64>,
}

/// How much of a segment is live, for the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Living {
    pub(in crate::log) sequence: u64,
    pub(in crate::log) octets: u64,
    pub(in crate::log) pinned: bool,
}

impl Stored {
    pub(in crate::log) fn new(body: StoredBody, at: &At) -> Self {
        let inline = body.inline.map(|inside| at.payload.saturating_add(inside as u64));
        Self { sequence: at.sequence, len: at.len, crc: body.crc, inline }
    }
}
