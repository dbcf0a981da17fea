//! What this relay puts in front of a message: its trace, and the fields that a submitted message
//! lacks.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use posthaste_queue::MessageId;
use posthaste_server::wire::Domain;

use crate::{
    domains::canonical,
    trace::{Inspector, date},
};

/// Octets of a header that are held back until it is known which fields it has. A header beyond
/// that gets none.
pub(crate) const MAX_HELD: usize = 64 * 1_024;

/// The front of a message that is not written yet, since its header is not over. Pieces of the
/// header are held in it: none when the first piece has all of the header, as most have.
#[derive(Debug)]
pub(crate) struct Opening {
    trace: String,
    held: BytesMut,
}

impl Opening {
    pub(crate) fn new(trace: String) -> Self {
        Self { trace, held: BytesMut::new() }
    }

    /// Holds a piece that was inspected, or gives it back when the front can be written.
    pub(crate) fn hold(&mut self, piece: Bytes, inspector: &Inspector<'_>) -> Option<Bytes> {
        if inspector.has_header() || self.held.len().saturating_add(piece.len()) > MAX_HELD {
            return Some(piece);
        }
        self.held.extend_from_slice(&piece);
        None
    }

    /// The front in two pieces: the trace with the fields that are missing (RFC 6409 section 8),
    /// and what was held. At the end of the content, `whole`, a header needs no blank line behind
    /// it.
    pub(crate) fn write(self, inspector: &Inspector<'_>, whole: bool, own_name: &Domain, id: MessageId) -> [Bytes; 2] {
        let mut front = self.trace;
        if inspector.has_header() || whole {
            if !inspector.has_date {
                front.push_str(&format!("Date: {}\r\n", date(Timestamp::now())));
            }
            if !inspector.has_message_id {
                let own_name = own_name.borrowed();
                let right = canonical(&own_name).unwrap_or_else(|| "localhost".into());
                front.push_str(&format!("Message-ID: <{id}.{:016x}@{right}>\r\n", fastrand::u64(..)));
            }
            if inspector.headless {
                front.push_str("\r\n");
            }
        }
        [front.into(), self.held.freeze()]
    }
}
