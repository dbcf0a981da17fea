//! What the queue keeps of a message's outside, as octets and back.
//!
//! The commands are kept as the lines that say them, which the parser reads back: one grammar, one
//! parser. Everything has its length in front, and what is read is trusted no more than what a
//! client sends.
//!
//! ```text
//! envelope   version(1) = 3, accepted(8: seconds since 1970), flags(1), room(2: octets),
//!            text(the client, empty for none), text(MAIL line)
//!   flags    1 all of the content is ASCII, 2 the client was trusted, 4 a report of ours that returns a message whole
//! state      version(1) = 3, standing(1), count(4), count times: text(RCPT line), flags(1), last
//!   standing 0 to be delivered, 1 to be reported, 2 both
//!   flags    1 the sender was told of the delay, 2 of the deadline; to be reported is 4 the failure, 8 the delay,
//!            16 the relaying: one of these three at most
//!   last     0(1), or 1(1), at(8: seconds since 1970), class(2), subject(2), detail(2), is reply(1),
//!            text(remote, empty for none), text(text)
//! text       length(4), that many octets of UTF-8; numbers are big-endian
//! ```
//!
//! The standing comes first so that the queue can [gather](posthaste_queue::Queue::gather) by it
//! what is to be reported.
//!
//! Versions 1 and 2 are still read. Version 2 has no room, no standing, no trusted client, and
//! nothing to be reported; version 1 has no flags, no client and no `at` either.

mod outside;
mod recipient;

use bytes::{Buf, BufMut, BytesMut};
use posthaste_server::wire::{Command, EncodeError};
use thiserror::Error;

pub(crate) use outside::{Outside, by_after};
pub(crate) use recipient::{AROUND, Last, Recipient, Standing, Told, decode_recipients, encode_recipients};

/// Octets that are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RecordError {
    #[error("the record has version {0}, which this program does not know")]
    Version(u8),
    #[error("the record is damaged")]
    Damaged,
}

/// The version that is written.
const VERSION: u8 = 3;
/// The oldest version that is read.
const OLDEST: u8 = 1;

/// The most octets that a recipient keeps of what was said about it: enough for what people write,
/// and no book.
pub(crate) const MAX_ROOM: u16 = 1_000;
/// The octets that every recipient may keep, however many there are: a code and some words.
pub(crate) const MIN_ROOM: u16 = 100;

fn version(record: &mut &[u8]) -> Result<u8, RecordError> {
    match record.try_get_u8() {
        Ok(version @ OLDEST..=VERSION) => Ok(version),
        Ok(other) => Err(RecordError::Version(other)),
        Err(_) => Err(RecordError::Damaged),
    }
}

/// One octet of flags, of which these may be set.
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
    // Beyond 4 GiB nothing is: lines and replies are bounded long before.
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
