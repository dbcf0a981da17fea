//! What the queue keeps of a message's outside, as octets and back.
//!
//! The commands are kept as the lines that say them, which the parser reads back: one grammar, one parser. Everything has
//! its length in front, and what is read is trusted no more than what a client sends.
//!
//! ```text
//! envelope   version(1) = 2, accepted(8: seconds since 1970), flags(1: 1 all of the content is ASCII),
//!            text(the client, empty for none), text(MAIL line)
//! state      version(1) = 2, count(4), count times: text(RCPT line), told(1: 1 of the delay, 2 of the deadline), last
//! last       0(1), or 1(1), at(8: seconds since 1970), class(2), subject(2), detail(2), is reply(1),
//!            text(remote, empty for none), text(text)
//! text       length(4), that many octets of UTF-8; numbers are big-endian
//! ```
//!
//! Version 1 is still read: it has no flags, no client, no `told` and no `at`.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use posthaste_server::wire::{
    Command, EncodeError, EnhancedCode, Mail, Rcpt,
    parameter::{DeliverBy, Hold},
};
use thiserror::Error;

use crate::Diagnostic;

/// The outside of a message, once for all its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outside {
    /// When it was accepted, in seconds since 1970.
    pub(crate) accepted: i64,
    /// Whether all of the content is ASCII, so that it needs neither 8BITMIME nor SMTPUTF8, whatever MAIL says.
    pub(crate) all_ascii: bool,
    /// The client that it came from, its name with its address as a comment, unless it came from the application itself.
    pub(crate) received_from: Option<String>,
    /// MAIL as it came. The time of BY counts from when the message was accepted.
    pub(crate) mail: Mail,
}

/// A recipient that is still to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) rcpt: Rcpt,
    pub(crate) told: Told,
    /// Why it was deferred last.
    pub(crate) last: Option<Deferral>,
}

/// Which delays of a recipient were over when they were looked at: each is looked at once, whoever wants to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// That it takes longer than usual.
    pub(crate) delay: bool,
    /// That the time of BY in mode N has passed.
    pub(crate) deadline: bool,
}

/// A recipient was deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deferral {
    /// When, in seconds since 1970; nothing for a record of version 1.
    pub(crate) at: Option<i64>,
    pub(crate) why: Diagnostic,
}

/// Octets that are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum RecordError {
    #[error("the record has version {0}, which this program does not know")]
    Version(u8),
    #[error("the record is damaged")]
    Damaged,
}

/// The version that is written.
const VERSION: u8 = 2;
/// The oldest version that is read.
const OLDEST: u8 = 1;

const ALL_ASCII: u8 = 1;

const TOLD_DELAY: u8 = 1;
const TOLD_DEADLINE: u8 = 2;

impl Outside {
    /// How long after it was accepted the message is released (RFC 4865).
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
        out.put_u8(VERSION);
        out.put_i64(self.accepted);
        out.put_u8(if self.all_ascii { ALL_ASCII } else { 0 });
        put_text(&mut out, self.received_from.as_deref().unwrap_or_default());
        put_command(&mut out, &Command::Mail(self.mail.borrowed()))?;
        Ok(out.freeze())
    }

    pub(crate) fn decode(mut record: &[u8]) -> Result<Self, RecordError> {
        let version = version(&mut record)?;
        let accepted = record.try_get_i64().map_err(|_| RecordError::Damaged)?;
        let (mut all_ascii, mut received_from) = (false, None);
        if version > 1 {
            all_ascii = flags(&mut record, ALL_ASCII)? == ALL_ASCII;
            received_from = Some(text(&mut record)?.to_owned()).filter(|client| !client.is_empty());
        }
        let line = text(&mut record)?;
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) if record.is_empty() => {
                Ok(Self { accepted, all_ascii, received_from, mail: mail.into_owned() })
            }
            _ => Err(RecordError::Damaged),
        }
    }
}

/// BY with so much less time, begun seconds not counted: what is still a BY, however long ago its time was over.
pub(crate) fn by_after(by: DeliverBy, passed: Duration) -> DeliverBy {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    let left = i64::from(by.seconds).saturating_sub(passed).max(-MAX_BY);
    DeliverBy { seconds: i32::try_from(left).unwrap_or(i32::MIN), ..by }
}

/// The most seconds that BY can have, either way (RFC 2852 section 4).
const MAX_BY: i64 = 999_999_999;

/// Packs the recipients of a delivery.
pub(crate) fn encode_recipients(recipients: &[Recipient]) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u32(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
    for recipient in recipients {
        put_command(&mut out, &Command::Rcpt(recipient.rcpt.borrowed()))?;
        let Told { delay, deadline } = recipient.told;
        out.put_u8(if delay { TOLD_DELAY } else { 0 } | if deadline { TOLD_DEADLINE } else { 0 });
        let Some(Deferral { at, why }) = &recipient.last else {
            out.put_u8(0);
            continue;
        };
        out.put_u8(1);
        out.put_i64(at.unwrap_or(UNKNOWN));
        let status = why.status;
        [status.class(), status.subject(), status.detail()].into_iter().for_each(|part| out.put_u16(part));
        out.put_u8(why.is_reply.into());
        put_text(&mut out, why.remote.as_deref().unwrap_or_default());
        put_text(&mut out, &why.text);
    }
    Ok(out.freeze())
}

/// A time that is not known.
const UNKNOWN: i64 = i64::MIN;

/// Unpacks the recipients of a delivery.
pub(crate) fn decode_recipients(mut record: &[u8]) -> Result<Vec<Recipient>, RecordError> {
    let version = version(&mut record)?;
    let count = record.try_get_u32().map_err(|_| RecordError::Damaged)?;
    let mut recipients = Vec::new();
    for _ in 0..count {
        let line = text(&mut record)?;
        let Ok(Command::Rcpt(rcpt)) = Command::parse(line.as_bytes()) else { return Err(RecordError::Damaged) };
        let told = if version > 1 { flags(&mut record, TOLD_DELAY | TOLD_DEADLINE)? } else { 0 };
        let told = Told { delay: told & TOLD_DELAY != 0, deadline: told & TOLD_DEADLINE != 0 };
        let last = deferral(&mut record, version)?;
        recipients.push(Recipient { rcpt: rcpt.into_owned(), told, last });
    }
    if record.is_empty() { Ok(recipients) } else { Err(RecordError::Damaged) }
}

fn deferral(record: &mut &[u8], version: u8) -> Result<Option<Deferral>, RecordError> {
    let damaged = |_| RecordError::Damaged;
    match record.try_get_u8().map_err(damaged)? {
        0 => return Ok(None),
        1 => {}
        _ => return Err(RecordError::Damaged),
    }
    let at = if version > 1 { record.try_get_i64().map_err(damaged)? } else { UNKNOWN };
    let at = Some(at).filter(|at| *at != UNKNOWN);
    let mut part = || record.try_get_u16().map_err(damaged);
    let status = EnhancedCode::new(part()?, part()?, part()?).ok_or(RecordError::Damaged)?;
    let is_reply = record.try_get_u8().map_err(damaged)? == 1;
    let remote = Some(text(record)?.to_owned()).filter(|remote| !remote.is_empty());
    let why = Diagnostic { remote, status, text: text(record)?.to_owned(), is_reply };
    Ok(Some(Deferral { at, why }))
}

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

    fn mail(line: &str) -> Mail {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail.into_owned(),
            _ => panic!("{line}"),
        }
    }

    fn recipients() -> Vec<Recipient> {
        let rcpt = |line: &str| match Command::parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt.into_owned(),
            _ => panic!("{line}"),
        };
        let status = EnhancedCode::new(4, 2, 1).unwrap();
        let said = Diagnostic { remote: Some("mx.test".into()), status, text: "450 4.2.1 busy".into(), is_reply: true };
        let found = Diagnostic { remote: None, is_reply: false, ..said.clone() };
        let recipient = |line: &str, told, last| Recipient { rcpt: rcpt(line), told, last };
        let told = |delay, deadline| Told { delay, deadline };
        vec![
            recipient("RCPT TO:<\"a b\"@c.test>", told(false, false), None),
            recipient("RCPT TO:<Postmaster>", told(true, false), Some(Deferral { at: Some(-7), why: said })),
            recipient("RCPT TO:<x@y.test>", told(true, true), Some(Deferral { at: None, why: found })),
        ]
    }

    #[test]
    fn by_loses_what_has_passed_and_stays_one() {
        let mode = posthaste_server::wire::parameter::DeliverByMode::Notify;
        for (seconds, passed, left) in
            [(100, 40, 60), (100, 100, 0), (10, 40, -30), (-10, u64::MAX, -999_999_999), (999_999_999, 0, 999_999_999)]
        {
            let by = by_after(DeliverBy { seconds, mode, trace: true }, Duration::from_secs(passed));
            assert_eq!((by.seconds, by.mode, by.trace), (left, mode, true), "{seconds} {passed}");
            let line = format!("MAIL FROM:<a@b> BY={};NT", by.seconds);
            assert!(Command::parse(line.as_bytes()).is_ok(), "{line}");
        }
        // Seconds that have begun are not over.
        let by = by_after(DeliverBy { seconds: 5, mode, trace: false }, Duration::from_millis(1_999));
        assert_eq!(by.seconds, 4);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for line in [
            "MAIL FROM:<>",
            "MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME RET=FULL ENVID=a+2Bb BY=-10;NT HOLDFOR=60 MT-PRIORITY=-3",
            "MAIL FROM:<\u{e4}@b.test> SMTPUTF8 REQUIRETLS AUTH=<>",
        ] {
            for (all_ascii, client) in [(true, None), (false, Some("client.test ([192.0.2.1])".to_owned()))] {
                let outside = Outside { accepted: 1_700_000_000, all_ascii, received_from: client, mail: mail(line) };
                let read = Outside::decode(&outside.encode().unwrap()).unwrap();
                assert_eq!((read.accepted, read.all_ascii), (outside.accepted, outside.all_ascii));
                assert_eq!(read.received_from, outside.received_from);
                assert_eq!(read.mail.to_string(), outside.mail.to_string());
            }
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
        assert_eq!(decode_recipients(&[3]), Err(RecordError::Version(3)));
        assert_eq!(decode_recipients(&[0]), Err(RecordError::Version(0)));
        assert_eq!(decode_recipients(&[2, 0xff, 0xff, 0xff, 0xff]), Err(RecordError::Damaged));
        let outside =
            Outside { accepted: 1, all_ascii: true, received_from: Some("x".into()), mail: mail("MAIL FROM:<>") };
        let record = outside.encode().unwrap();
        for end in 0..record.len() {
            assert_eq!(Outside::decode(&record[..end]), Err(RecordError::Damaged));
        }
        // A flag that nobody knows.
        let mut unknown = record.to_vec();
        unknown[9] = 2;
        assert_eq!(Outside::decode(&unknown), Err(RecordError::Damaged));
    }

    /// Octets as version 1 has written them.
    #[test]
    fn version_1_is_read() {
        let outside = b"\x01\0\0\0\0\x65\x53\xf1\0\0\0\0\x17MAIL FROM:<a@b> SIZE=10";
        let read = Outside::decode(outside).unwrap();
        assert_eq!((read.accepted, read.all_ascii, read.received_from), (1_700_000_000, false, None));
        assert_eq!(read.mail.to_string(), "<a@b> SIZE=10");
        let state = b"\x01\0\0\0\x02\0\0\0\x0dRCPT TO:<a@b>\0\
            \0\0\0\x0dRCPT TO:<c@d>\x01\0\x04\0\x02\0\x01\x01\0\0\0\x02mx\0\0\0\x03450";
        let read = decode_recipients(state).unwrap();
        assert_eq!((read[0].told, read[0].last.clone()), (Told::default(), None));
        let status = EnhancedCode::new(4, 2, 1).unwrap();
        let why = Diagnostic { remote: Some("mx".into()), status, text: "450".into(), is_reply: true };
        assert_eq!(read[1].last, Some(Deferral { at: None, why }));
    }

    #[test]
    fn a_message_is_held_from_when_it_was_accepted() {
        for (line, seconds) in [
            ("MAIL FROM:<>", 0),
            ("MAIL FROM:<> HOLDFOR=60", 60),
            ("MAIL FROM:<> HOLDUNTIL=2023-11-14T22:13:30Z", 10),
            ("MAIL FROM:<> HOLDUNTIL=2023-11-14T22:13:10Z", 0),
        ] {
            let outside = Outside { accepted: 1_700_000_000, all_ascii: false, received_from: None, mail: mail(line) };
            assert_eq!(outside.held(), Duration::from_secs(seconds), "{line}");
        }
    }
}
