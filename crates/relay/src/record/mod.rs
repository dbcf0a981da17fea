//! The records that the queue keeps for the relay: the outside of a message, and its recipients.
//!
//! Commands are recorded as the lines that say them, and the wire parser reads them back: one
//! grammar, one parser. Every text has its length before it. A record is trusted no more than what
//! a client sends.
//!
//! ```text
//! envelope   version(1) = 3, accepted(8: seconds since 1970), flags(1), room(2: octets),
//!            text(the client, empty for none), text(MAIL line); versions 4 and 5 have text(front) after these
//!   flags    1 all of the content is ASCII, 2 the client was trusted, 4 a report of ours that returns a message whole,
//!            8 the message says TLS-Required: No, 16 (version 5 alone) all header fields are ASCII
//! state      version(1) = 3, remaining(1), count(4), count times: text(RCPT line), flags(1), last
//!   remaining 0 to deliver, 1 to report, 2 both
//!   flags    1 the sender was told of the delay, 2 of the deadline; to be reported is 4 the failure, 8 the delay,
//!            16 the relaying, 32 the delivery by an agent: one of these four at most
//!   last     0(1), or 1(1), at(8: seconds since 1970), class(2), subject(2), detail(2), is reply(1),
//!            text(remote, empty for none), text(text)
//! text       length(4), that many octets of UTF-8; numbers are big-endian
//! ```
//!
//! The priority that the queue has of a message tells its size too ([`Rank`](crate::rank::Rank)).
//!
//! `remaining` comes first, so that the queue can [gather](posthaste_queue::Queue::gather) the
//! deliveries to be reported by it.
//!
//! An envelope has version 5 if the message says SMTPUTF8 and needs only 8BITMIME. Otherwise it has
//! version 4 if the message has a front, and 3 if not. Older programs read those too. Versions 1
//! and 2 can still be read. Version 2 has no room, no `remaining`, no trusted client, and no
//! outcome to be reported. Version 1 also has no flags, no client and no `at`.

mod outside;
mod recipient;

use bytes::{Buf, BufMut, BytesMut};
use posthaste_server::wire::{Command, EncodeError};
use thiserror::Error;

pub(crate) use outside::{Outside, by_after};
pub(crate) use recipient::{AROUND, Last, Recipient, Remaining, Told, decode_recipients, encode_recipients};

/// Why octets are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RecordError {
    #[error("the record has version {0}, which this program does not know")]
    Version(u8),
    #[error("the record is damaged")]
    Damaged,
}

/// The version of states, and of envelopes without a front.
const VERSION: u8 = 3;
/// The version of envelopes with a front.
const WITH_FRONT: u8 = 4;
/// The version of envelopes that say that all header fields are ASCII. Its front may be empty.
const WITH_ASCII_FIELDS: u8 = 5;
/// The oldest version that is read.
const OLDEST: u8 = 1;

/// The most octets of a message's front: some signatures. It is read with each claim.
pub(crate) const MAX_FRONT: usize = 8 * 1_024;
/// The most octets of diagnostic text that a recipient keeps: enough for a usual reply.
pub(crate) const MAX_ROOM: u16 = 1_000;
/// The octets of diagnostic text that every recipient may keep, however many there are: a code and
/// some words.
pub(crate) const MIN_ROOM: u16 = 100;

/// Reads the version, which may be the newest one at most.
fn version(record: &mut &[u8], newest: u8) -> Result<u8, RecordError> {
    match record.try_get_u8() {
        Ok(version) if (OLDEST..=newest).contains(&version) => Ok(version),
        Ok(other) => Err(RecordError::Version(other)),
        Err(_) => Err(RecordError::Damaged),
    }
}

/// Reads one octet of flags, of which only `known` may be set.
fn flags(record: &mut &[u8], known: u8) -> Result<u8, RecordError> {
    record.try_get_u8().ok().filter(|flags| flags & !known == 0).ok_or(RecordError::Damaged)
}

/// The flags that are set, as one octet.
fn all_of(flags: &[(bool, u8)]) -> u8 {
    flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag)
}

fn text<'a>(record: &mut &'a [u8]) -> Result<&'a str, RecordError> {
    let length = record.try_get_u32().map_err(|_| RecordError::Damaged)?;
    let length = usize::try_from(length).map_err(|_| RecordError::Damaged)?;
    let (text, rest) = record.split_at_checked(length).ok_or(RecordError::Damaged)?;
    *record = rest;
    std::str::from_utf8(text).map_err(|_| RecordError::Damaged)
}

fn put_text(out: &mut BytesMut, text: &str) {
    // No text has more than 4 GiB: lines and replies are bounded before.
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

fn put_command(out: &mut BytesMut, command: &Command<'_>) -> Result<(), EncodeError> {
    let mut line = BytesMut::new();
    command.encode(&mut line)?;
    line.truncate(line.len().saturating_sub(2));
    out.put_u32(u32::try_from(line.len()).unwrap_or(u32::MAX));
    out.put_slice(&line);
    Ok(())
}

#[cfg(test)]
mod tests;
