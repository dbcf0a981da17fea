//! The recipients of a delivery, and what is recorded of each.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use posthaste_server::wire::{Command, EncodeError, EnhancedCode, Rcpt};

use super::{RecordError, VERSION, all_of, flags, put_command, put_text, text, version};
use crate::{Diagnostic, event::shortened, report::Action};

/// A recipient that waits for its delivery, or whose outcome is still to be reported. It is the
/// source of the report, the event and the log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) rcpt: Rcpt,
    pub(crate) told: Told,
    /// What is to be reported of it.
    pub(crate) news: Option<Action>,
    /// Its last outcome.
    pub(crate) last: Option<Last>,
}

/// Delays already handled for this recipient, reported or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// It has taken longer than usual.
    pub(crate) delay: bool,
    /// The time of BY in mode N is over.
    pub(crate) deadline: bool,
}

/// The outcome of an attempt for a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Last {
    /// When it was tried, in seconds since 1970. `None`: never, or recorded by version 1.
    pub(crate) at: Option<i64>,
    pub(crate) why: Diagnostic,
}

/// What remains to be done for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// To deliver it.
    Waits = 0,
    /// To report its outcome.
    Ended = 1,
    /// Both.
    Both = 2,
}

impl Recipient {
    /// A recipient that was just accepted.
    pub(crate) const fn new(rcpt: Rcpt) -> Self {
        Self { rcpt, told: Told { delay: false, deadline: false }, news: None, last: None }
    }

    /// Returns `true` if it waits for its delivery.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.news, None | Some(Action::Delayed))
    }
}

impl Remaining {
    pub(crate) fn of(recipients: &[Recipient]) -> Self {
        let is_over = !recipients.iter().any(Recipient::waits);
        match (is_over, recipients.iter().any(|recipient| recipient.news.is_some())) {
            (_, false) => Self::Waits,
            (true, true) => Self::Ended,
            (false, true) => Self::Both,
        }
    }

    /// The first octets of a state with this remainder.
    pub(crate) const fn mark(self) -> [u8; 2] {
        [VERSION, self as u8]
    }
}

const TOLD_DELAY: u8 = 1;
const TOLD_DEADLINE: u8 = 2;
const NEWS: [(u8, Action); 4] =
    [(4, Action::Failed), (8, Action::Delayed), (16, Action::Relayed), (32, Action::Delivered)];

/// The most octets of a host name in the DNS.
const MAX_REMOTE: usize = 255;

/// The most octets of a recipient's record beside its RCPT line and its diagnostic text.
pub(crate) const AROUND: usize = 4 + 1 + 1 + 8 + 6 + 1 + 4 + MAX_REMOTE + 4 + 3;

/// Encodes the recipients of a delivery, each with at most `room` octets of diagnostic text.
pub(crate) fn encode_recipients(recipients: &[Recipient], room: u16) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::new();
    out.put_slice(&Remaining::of(recipients).mark());
    out.put_u32(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
    for recipient in recipients {
        put_command(&mut out, &Command::Rcpt(recipient.rcpt.borrowed()))?;
        let Told { delay, deadline } = recipient.told;
        let news = NEWS.map(|(flag, action)| (recipient.news == Some(action), flag));
        out.put_u8(all_of(&[(delay, TOLD_DELAY), (deadline, TOLD_DEADLINE)]) | all_of(&news));
        let Some(Last { at, why }) = &recipient.last else {
            out.put_u8(0);
            continue;
        };
        out.put_u8(1);
        out.put_i64(at.unwrap_or(UNKNOWN));
        let status = why.status;
        [status.class(), status.subject(), status.detail()].into_iter().for_each(|part| out.put_u16(part));
        out.put_u8(why.is_reply.into());
        put_text(&mut out, &shortened(why.remote.as_deref().unwrap_or_default(), MAX_REMOTE));
        put_text(&mut out, &shortened(&why.text, room.into()));
    }
    Ok(out.freeze())
}

/// The record of an unknown time.
const UNKNOWN: i64 = i64::MIN;

/// Decodes the recipients of a delivery.
pub(crate) fn decode_recipients(mut record: &[u8]) -> Result<Vec<Recipient>, RecordError> {
    let version = version(&mut record, VERSION)?;
    if version > 2 {
        // The recipients say the same.
        record.try_get_u8().map_err(|_| RecordError::Damaged)?;
    }
    let count = record.try_get_u32().map_err(|_| RecordError::Damaged)?;
    let mut recipients = Vec::new();
    for _ in 0..count {
        let line = text(&mut record)?;
        let Ok(Command::Rcpt(rcpt)) = Command::parse(line.as_bytes()) else { return Err(RecordError::Damaged) };
        let known = match version {
            1 => None,
            2 => Some(TOLD_DELAY | TOLD_DEADLINE),
            _ => Some(NEWS.iter().fold(TOLD_DELAY | TOLD_DEADLINE, |all, (flag, _)| all | flag)),
        };
        let set = known.map_or(Ok(0), |known| flags(&mut record, known))?;
        let told = Told { delay: set & TOLD_DELAY != 0, deadline: set & TOLD_DEADLINE != 0 };
        let mut news = NEWS.iter().filter(|(flag, _)| set & flag != 0).map(|(_, action)| *action);
        let (news, more) = (news.next(), news.next());
        if more.is_some() {
            return Err(RecordError::Damaged);
        }
        let last = last(&mut record, version)?;
        recipients.push(Recipient { rcpt: rcpt.into_owned(), told, news, last });
    }
    if record.is_empty() { Ok(recipients) } else { Err(RecordError::Damaged) }
}

fn last(record: &mut &[u8], version: u8) -> Result<Option<Last>, RecordError> {
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
    Ok(Some(Last { at, why }))
}
