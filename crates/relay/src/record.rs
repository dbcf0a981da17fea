//! What the queue keeps of a message's outside, as octets and back.
//!
//! The commands are kept as the lines that say them, which the parser reads back: one grammar, one parser. Everything has
//! its length in front, and what is read is trusted no more than what a client sends.
//!
//! ```text
//! envelope   version(1) = 1, accepted(8: seconds since 1970), text(MAIL line)
//! state      version(1) = 1, count(4), count times: text(RCPT line), diagnostic
//! diagnostic 0(1), or 1(1), class(2), subject(2), detail(2), is reply(1), text(remote, empty for none), text(text)
//! text       length(4), that many octets of UTF-8; numbers are big-endian
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use posthaste_server::wire::{Command, EncodeError, EnhancedCode, Mail, Rcpt};
use thiserror::Error;

use crate::Diagnostic;

/// The outside of a message, once for all its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outside {
    /// When it was accepted, in seconds since 1970.
    pub(crate) accepted: i64,
    pub(crate) mail: Mail,
}

/// A recipient that is still to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) rcpt: Rcpt,
    /// Why it was deferred last.
    pub(crate) last: Option<Diagnostic>,
}

/// Octets that are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RecordError {
    #[error("the record has version {0}, which this program does not know")]
    Version(u8),
    #[error("the record is damaged")]
    Damaged,
}

const VERSION: u8 = 1;

impl Outside {
    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_i64(self.accepted);
        put_command(&mut out, &Command::Mail(self.mail.borrowed()))?;
        Ok(out.freeze())
    }

    pub(crate) fn decode(mut record: &[u8]) -> Result<Self, RecordError> {
        version(&mut record)?;
        let accepted = record.try_get_i64().map_err(|_| RecordError::Damaged)?;
        let line = text(&mut record)?;
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) if record.is_empty() => Ok(Self { accepted, mail: mail.into_owned() }),
            _ => Err(RecordError::Damaged),
        }
    }
}

/// Packs the recipients of a delivery.
pub(crate) fn encode_recipients(recipients: &[Recipient]) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u32(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
    for recipient in recipients {
        put_command(&mut out, &Command::Rcpt(recipient.rcpt.borrowed()))?;
        let Some(diagnostic) = &recipient.last else {
            out.put_u8(0);
            continue;
        };
        out.put_u8(1);
        let status = diagnostic.status;
        [status.class(), status.subject(), status.detail()].into_iter().for_each(|part| out.put_u16(part));
        out.put_u8(diagnostic.is_reply.into());
        put_text(&mut out, diagnostic.remote.as_deref().unwrap_or_default());
        put_text(&mut out, &diagnostic.text);
    }
    Ok(out.freeze())
}

/// Unpacks the recipients of a delivery.
pub(crate) fn decode_recipients(mut record: &[u8]) -> Result<Vec<Recipient>, RecordError> {
    version(&mut record)?;
    let count = record.try_get_u32().map_err(|_| RecordError::Damaged)?;
    let mut recipients = Vec::new();
    for _ in 0..count {
        let line = text(&mut record)?;
        let Ok(Command::Rcpt(rcpt)) = Command::parse(line.as_bytes()) else { return Err(RecordError::Damaged) };
        let last = diagnostic(&mut record)?;
        recipients.push(Recipient { rcpt: rcpt.into_owned(), last });
    }
    if record.is_empty() { Ok(recipients) } else { Err(RecordError::Damaged) }
}

fn diagnostic(record: &mut &[u8]) -> Result<Option<Diagnostic>, RecordError> {
    let damaged = |_| RecordError::Damaged;
    match record.try_get_u8().map_err(damaged)? {
        0 => return Ok(None),
        1 => {}
        _ => return Err(RecordError::Damaged),
    }
    let mut part = || record.try_get_u16().map_err(damaged);
    let status = EnhancedCode::new(part()?, part()?, part()?).ok_or(RecordError::Damaged)?;
    let is_reply = record.try_get_u8().map_err(damaged)? == 1;
    let remote = Some(text(record)?.to_owned()).filter(|remote| !remote.is_empty());
    Ok(Some(Diagnostic { remote, status, text: text(record)?.to_owned(), is_reply }))
}

fn version(record: &mut &[u8]) -> Result<(), RecordError> {
    match record.try_get_u8() {
        Ok(VERSION) => Ok(()),
        Ok(other) => Err(RecordError::Version(other)),
        Err(_) => Err(RecordError::Damaged),
    }
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
mod tests {
    use super::*;

    fn recipients() -> Vec<Recipient> {
        let rcpt = |line: &str| match Command::parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt.into_owned(),
            _ => panic!("{line}"),
        };
        let status = EnhancedCode::new(4, 2, 1).unwrap();
        let said = Diagnostic { remote: Some("mx.test".into()), status, text: "450 4.2.1 busy".into(), is_reply: true };
        let found = Diagnostic { remote: None, is_reply: false, ..said.clone() };
        vec![
            Recipient { rcpt: rcpt("RCPT TO:<\"a b\"@c.test>"), last: None },
            Recipient { rcpt: rcpt("RCPT TO:<Postmaster>"), last: Some(said) },
            Recipient { rcpt: rcpt("RCPT TO:<x@y.test>"), last: Some(found) },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for line in ["MAIL FROM:<>", "MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME"] {
            let Ok(Command::Mail(mail)) = Command::parse(line.as_bytes()) else { panic!() };
            let outside = Outside { accepted: 1_700_000_000, mail: mail.into_owned() };
            let read = Outside::decode(&outside.encode().unwrap()).unwrap();
            assert_eq!((read.accepted, read.mail.to_string()), (outside.accepted, outside.mail.to_string()));
        }
        assert_eq!(decode_recipients(&encode_recipients(&recipients()).unwrap()).unwrap(), recipients());
    }

    #[test]
    fn what_is_cut_or_longer_is_damaged() {
        let record = encode_recipients(&recipients()).unwrap();
        for end in 0..record.len() {
            assert_eq!(decode_recipients(&record[..end]), Err(RecordError::Damaged));
        }
        assert_eq!(decode_recipients(&[&record[..], b"x"].concat()), Err(RecordError::Damaged));
        assert_eq!(decode_recipients(&[2]), Err(RecordError::Version(2)));
        assert_eq!(decode_recipients(&[1, 0xff, 0xff, 0xff, 0xff]), Err(RecordError::Damaged));
    }
}
