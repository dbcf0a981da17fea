//! The fields that this relay puts before a message: its Received field, and the fields that a
//! submitted message lacks.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use posthaste_queue::MessageId;
use posthaste_server::wire::Domain;

use crate::{
    domains::canonical,
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
}

impl Opening {
    pub(crate) fn new(trace: String) -> Self {
        Self { trace, held: BytesMut::new() }
    }

    /// Holds an inspected piece. Returns it if the opening can be written now.
    pub(crate) fn hold(&mut self, piece: Bytes, inspector: &Inspector<'_>) -> Option<Bytes> {
        if inspector.has_header() || self.held.len().saturating_add(piece.len()) > MAX_HELD {
            return Some(piece);
        }
        self.held.extend_from_slice(&piece);
        None
    }

    /// The opening in three pieces: the Received field, the missing fields (RFC 6409 section 8),
    /// and the pieces held. `whole`: the content has ended, and a header needs no empty line after
    /// it.
    pub(crate) fn write(self, inspector: &Inspector<'_>, whole: bool, own_name: &Domain, id: MessageId) -> [Bytes; 3] {
        let mut added = String::new();
        if inspector.has_header() || whole {
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
