//! The fields that this relay puts before a message: its Received field, and the fields that a
//! submitted message lacks.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use posthaste_queue::MessageId;
use posthaste_server::{Refusal, wire::Domain};

use crate::{
    domains::canonical,
    submission::too_long,
    trace::{Inspector, date},
};

/// The most octets of a header that are held back until its fields are known. A longer header gets
/// no fields.
pub(crate) const MAX_HELD: usize = 64 * 1_024;

/// The opening of a message, held back until the end of the header. It also holds pieces of the
/// header. Mostly it holds none: the first piece has the whole header.
#[derive(Debug)]
pub(crate) struct Opening {
    trace: String,
    held: BytesMut,
    /// Fields that are missing are added.
    adds: bool,
    /// The header is read, so that all of it must be held.
    reads: bool,
}

impl Opening {
    pub(crate) fn new(trace: String, adds: bool, reads: bool) -> Self {
        Self { trace, held: BytesMut::new(), adds, reads }
    }

    /// Holds an inspected piece. Returns what is left of it if the opening can be written now.
    ///
    /// # Errors
    /// The refusal of a header that is read and has more than [`MAX_HELD`] octets.
    pub(crate) fn hold(&mut self, mut piece: Bytes, inspector: &Inspector<'_>) -> Result<Option<Bytes>, Refusal> {
        if self.reads {
            // Of content without a header too, since it may begin with a blank.
            let wanted = if inspector.has_header() { inspector.header_len().max(1) } else { usize::MAX };
            let missing = wanted.saturating_sub(self.held.len()).min(piece.len());
            if self.held.len().saturating_add(missing) > MAX_HELD {
                return Err(too_long());
            }
            self.held.extend_from_slice(&piece.split_to(missing));
            return Ok(inspector.has_header().then_some(piece));
        }
        if inspector.has_header() || self.held.len().saturating_add(piece.len()) > MAX_HELD {
            return Ok(Some(piece));
        }
        self.held.extend_from_slice(&piece);
        Ok(None)
    }

    /// The header, if it is read: all of it, once it can be written. Empty if there is none.
    pub(crate) fn header(&mut self, inspector: &Inspector<'_>) -> Option<&mut BytesMut> {
        (self.reads && !inspector.headless).then_some(&mut self.held)
    }

    /// The opening in three pieces: the Received field, the missing fields (RFC 6409 section 8),
    /// and the pieces held. `whole`: the content has ended, and a header needs no empty line after
    /// it.
    pub(crate) fn write(self, inspector: &Inspector<'_>, whole: bool, own_name: &Domain, id: MessageId) -> [Bytes; 3] {
        let mut added = String::new();
        if !self.adds {
            // Such content would go on in our field. It has no header.
            if matches!(self.held.first(), Some(b' ' | b'\t')) {
                added.push_str("\r\n");
            }
        } else if inspector.has_header() || whole {
            if !inspector.has_date {
                added.push_str(&format!("Date: {}\r\n", date(Timestamp::now())));
            }
            if !inspector.has_message_id {
                let own_name = own_name.borrowed();
                let right = canonical(&own_name).unwrap_or_else(|| "localhost".into());
                added.push_str(&format!("Message-ID: <{id}.{:016x}@{right}>\r\n", fastrand::u64(..)));
            }
            if inspector.headless {
                added.push_str("\r\n");
            }
        }
        [self.trace.into(), added.into(), self.held.freeze()]
    }
}
