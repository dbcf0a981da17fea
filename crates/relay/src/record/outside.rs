//! The outside of a message: its envelope, and what else the relay knows about it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use posthaste_server::wire::{
    Command, EncodeError, Mail,
    parameter::{DeliverBy, Hold},
};

use super::{
    MAX_FRONT, MIN_ROOM, RecordError, VERSION, WITH_ASCII_FIELDS, WITH_FRONT, all_of, flags, put_command, put_text,
    text, version,
};

/// The outside of a message, recorded once for all its deliveries: MAIL, the client, and facts
/// about the content. The recipients are recorded by delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outside {
    /// When it was accepted, in seconds since 1970.
    pub(crate) accepted: i64,
    /// All of the content is ASCII, so that it needs neither 8BITMIME nor SMTPUTF8, whatever MAIL
    /// says.
    pub(crate) all_ascii: bool,
    /// Not all of the content is ASCII, but all header fields are, those of MIME parts included. So
    /// it does not need SMTPUTF8, though MAIL says so (RFC 6531 section 3.6).
    pub(crate) ascii_fields: bool,
    /// The client had logged in or may relay. Otherwise the sender may be forged: it gets one
    /// report at most, and a short one.
    pub(crate) trusted: bool,
    /// It is a report of this relay that returns a message whole. It can be sent again without that
    /// message.
    pub(crate) returns_whole: bool,
    /// The message says `TLS-Required: No`: published policies about TLS are left aside (RFC 8689
    /// section 5).
    pub(crate) tls_not_required: bool,
    /// The octets of diagnostic text that each recipient may keep, so that the states of all
    /// recipients fit into the queue.
    pub(crate) room: u16,
    /// The client that sent it: its name, with its address as a comment. `None`: the application.
    pub(crate) received_from: Option<String>,
    /// MAIL as it came. The time of BY counts from when the message was accepted.
    pub(crate) mail: Mail,
    /// Fields that stand before what the queue has as content, with their line ends: signatures,
    /// which are known last. [`MAX_FRONT`] octets at most. Mostly it is empty.
    pub(crate) front: Bytes,
}

const ALL_ASCII: u8 = 1;
const TRUSTED: u8 = 2;
const RETURNS_WHOLE: u8 = 4;
const TLS_NOT_REQUIRED: u8 = 8;
const ASCII_FIELDS: u8 = 16;

impl Outside {
    /// Makes the outside of an ordinary message from a trusted client.
    #[cfg(test)]
    pub(crate) fn of(mail: Mail) -> Self {
        let (all_ascii, trusted, returns_whole, room) = (false, true, false, super::MAX_ROOM);
        let (ascii_fields, tls_not_required) = (false, false);
        let (received_from, front) = (None, Bytes::new());
        Self {
            accepted: 0,
            all_ascii,
            ascii_fields,
            trusted,
            returns_whole,
            tls_not_required,
            room,
            received_from,
            mail,
            front,
        }
    }

    /// The time from acceptance to the release of the message (RFC 4865).
    pub(crate) fn held(&self) -> Duration {
        match &self.mail.hold {
            None => Duration::ZERO,
            Some(Hold::For(seconds)) => Duration::from_secs((*seconds).into()),
            Some(Hold::Until(time)) => {
                let seconds = time.unix_seconds().saturating_sub(self.accepted);
                Duration::from_secs(seconds.try_into().unwrap_or(0))
            }
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        let version = match (self.ascii_fields, self.front.is_empty()) {
            (true, _) => WITH_ASCII_FIELDS,
            (false, false) => WITH_FRONT,
            (false, true) => VERSION,
        };
        out.put_u8(version);
        out.put_i64(self.accepted);
        out.put_u8(all_of(&[
            (self.all_ascii, ALL_ASCII),
            (self.trusted, TRUSTED),
            (self.returns_whole, RETURNS_WHOLE),
            (self.tls_not_required, TLS_NOT_REQUIRED),
            (self.ascii_fields, ASCII_FIELDS),
        ]));
        out.put_u16(self.room);
        put_text(&mut out, self.received_from.as_deref().unwrap_or_default());
        put_command(&mut out, &Command::Mail(self.mail.borrowed()))?;
        if version >= WITH_FRONT {
            out.put_u32(u32::try_from(self.front.len()).unwrap_or(u32::MAX));
            out.put_slice(&self.front);
        }
        Ok(out.freeze())
    }

    pub(crate) fn decode(mut record: &[u8]) -> Result<Self, RecordError> {
        let version = version(&mut record, WITH_ASCII_FIELDS)?;
        let accepted = record.try_get_i64().map_err(|_| RecordError::Damaged)?;
        let known = match version {
            1 => None,
            2 => Some(ALL_ASCII),
            3 | 4 => Some(ALL_ASCII | TRUSTED | RETURNS_WHOLE | TLS_NOT_REQUIRED),
            _ => Some(ALL_ASCII | TRUSTED | RETURNS_WHOLE | TLS_NOT_REQUIRED | ASCII_FIELDS),
        };
        let set = known.map_or(Ok(0), |known| flags(&mut record, known))?;
        let room = if version < 3 { Ok(MIN_ROOM) } else { record.try_get_u16().map_err(|_| RecordError::Damaged) }?;
        let client = if version < 2 { "" } else { text(&mut record)? };
        let received_from = Some(client.to_owned()).filter(|client| !client.is_empty());
        let line = text(&mut record)?;
        let front = if version < WITH_FRONT { "" } else { text(&mut record)? };
        let is_field = front.is_empty() || front.ends_with("\r\n");
        if !is_field || front.len() > MAX_FRONT {
            return Err(RecordError::Damaged);
        }
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) if record.is_empty() => Ok(Self {
                accepted,
                all_ascii: set & ALL_ASCII != 0,
                ascii_fields: set & ASCII_FIELDS != 0,
                trusted: set & TRUSTED != 0,
                returns_whole: set & RETURNS_WHOLE != 0,
                tls_not_required: set & TLS_NOT_REQUIRED != 0,
                room,
                received_from,
                mail: mail.into_owned(),
                front: Bytes::copy_from_slice(front.as_bytes()),
            }),
            _ => Err(RecordError::Damaged),
        }
    }
}

/// BY after some time has passed; a second that has begun is not counted. The result is always a
/// valid BY, however long ago its time was over.
pub(crate) fn by_after(by: DeliverBy, passed: Duration) -> DeliverBy {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    let left = i64::from(by.seconds).saturating_sub(passed).max(-MAX_BY);
    DeliverBy { seconds: i32::try_from(left).unwrap_or(i32::MIN), ..by }
}

/// The most seconds that BY can have, either way (RFC 2852 section 4).
const MAX_BY: i64 = 999_999_999;
