//! The payloads of FORMAT.md, encoded and decoded.

use std::time::Duration;

use bytes::Bytes;

use crate::index::{Altered, Delivery, End, Message, Moment, Next, after, between};
use crate::log::format::frame::{Input, Kind, Malformed, SHORT, put_len, put_u16, put_u32, put_u64};
use crate::{MAX_DELIVERIES, MAX_ENVELOPE, MessageId, Owner, Priority, RoutingKey};

/// Both clocks at one instant, to convert times from one to the other.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Now {
    pub(in crate::log) moment: Moment,
    /// Milliseconds since 1970.
    pub(in crate::log) wall: u64,
}

/// A decoded payload. Times are on the reader's clock.
pub(in crate::log) enum Record {
    Message(Image),
    Outcome(OutcomeRecord),
    Altered(MessageId, Altered),
    Removed(MessageId),
    Ids(u64),
    Closed,
}

pub(in crate::log) struct Image {
    pub(in crate::log) id: MessageId,
    pub(in crate::log) message: Message<StoredBody>,
}

/// Where a body is, according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct StoredBody {
    pub(in crate::log) crc: u32,
    /// Where in the payload it begins. `None`: it has a file of its own.
    pub(in crate::log) inline: Option<usize>,
}

pub(in crate::log) struct OutcomeRecord {
    pub(in crate::log) id: MessageId,
    pub(in crate::log) born: Moment,
    /// Never empty.
    pub(in crate::log) ends: Vec<End>,
    pub(in crate::log) derived: Vec<Image>,
}

/// Appends a payload of kind 1 without its body. The body follows, unless it has a file of its own.
pub(in crate::log) fn encode_image<B>(
    out: &mut Vec<u8>,
    now: Now,
    id: MessageId,
    message: &Message<B>,
    body_crc: u32,
    own_file: bool,
) {
    put_u64(out, id.as_u64());
    put_u64(out, millis(between(message.born, now.moment)));
    out.extend_from_slice(&message.priority.0.to_le_bytes());
    out.push(if message.held { FLAG_HELD } else { 0 } | if own_file { FLAG_OWN_FILE } else { 0 });
    put_u16(out, message.owner.as_str().len());
    put_len(out, message.envelope.len());
    put_len(out, message.deliveries.len());
    put_u64(out, message.body_len);
    put_u32(out, body_crc);
    out.extend_from_slice(message.owner.as_str().as_bytes());
    out.extend_from_slice(&message.envelope);
    for delivery in &message.deliveries {
        put_u32(out, delivery.number);
        put_u32(out, delivery.attempts);
        put_u64(out, now.wall_of(delivery.due));
        put_u64(out, millis(delivery.delay));
        put_u64(out, delivery.generation);
        put_u16(out, delivery.key.as_str().len());
        put_len(out, delivery.state.len());
        out.extend_from_slice(delivery.key.as_str().as_bytes());
        out.extend_from_slice(&delivery.state);
    }
}

/// Appends a payload of kind 2. Each of `derived` is a payload of kind 1 with its body.
pub(in crate::log) fn encode_outcome(out: &mut Vec<u8>, now: Now, outcome: &OutcomeRecord, derived: &[Vec<u8>]) {
    put_u64(out, outcome.id.as_u64());
    let mut ends = outcome.ends.iter();
    let first = ends.next();
    encode_end(out, now, first);
    put_u64(out, millis(between(outcome.born, now.moment)));
    put_len(out, state_of(first).len());
    put_len(out, derived.len());
    out.extend_from_slice(state_of(first));
    for image in derived {
        put_len(out, image.len());
        out.extend_from_slice(image);
    }
    for more in ends {
        encode_end(out, now, Some(more));
        put_len(out, state_of(Some(more)).len());
        out.extend_from_slice(state_of(Some(more)));
    }
}

fn encode_end(out: &mut Vec<u8>, now: Now, end: Option<&End>) {
    put_u32(out, end.map_or(0, |end| end.delivery));
    put_u64(out, end.map_or(0, |end| end.generation));
    let next = end.and_then(|end| end.next.as_ref());
    out.push(u8::from(next.is_some()));
    put_u32(out, next.map_or(0, |next| next.attempts));
    put_u64(out, next.map_or(0, |next| now.wall_of(next.due)));
    put_u64(out, next.map_or(0, |next| millis(next.delay)));
}

fn state_of(end: Option<&End>) -> &[u8] {
    end.and_then(|end| end.next.as_ref()).map_or(&[], |next| &next.state)
}

/// Encodes a payload of kind 3.
pub(in crate::log) fn encode_altered(now: Now, id: MessageId, what: &Altered) -> Vec<u8> {
    let mut out = id.as_u64().to_le_bytes().to_vec();
    match what {
        Altered::Held(held) => out.push(u8::from(*held)),
        Altered::Due { key, due, delay } => {
            out.push(RESCHEDULED);
            put_u64(&mut out, now.wall_of(*due));
            put_u64(&mut out, millis(*delay));
            put_key(&mut out, key.as_ref());
        }
        Altered::Key { from, to } => {
            out.push(REROUTED);
            put_key(&mut out, from.as_ref());
            put_key(&mut out, Some(to));
        }
    }
    out
}

/// `None` is encoded as a length that no key has.
fn put_key(out: &mut Vec<u8>, key: Option<&RoutingKey>) {
    put_u16(out, key.map_or(usize::from(u16::MAX), |key| key.as_str().len()));
    out.extend_from_slice(key.map_or(&[], |key| key.as_str().as_bytes()));
}

/// Decodes a payload whose checksum is right. `wall`: the wall time of writing.
pub(in crate::log) fn decode(kind: Kind, payload: &[u8], wall: u64, now: Now) -> Result<Record, Malformed> {
    let mut input = Input(payload);
    let record = match kind {
        Kind::Message => Record::Message(decode_image(&mut input, payload.len(), wall, now)?),
        Kind::Outcome => Record::Outcome(decode_outcome(&mut input, payload.len(), wall, now)?),
        Kind::Altered => Record::Altered(input.id()?, decode_altered(&mut input, now)?),
        Kind::Removed => Record::Removed(input.id()?),
        Kind::Ids => Record::Ids(input.below_last_id()?),
        Kind::Closed => Record::Closed,
    };
    match input.0 {
        [] => Ok(record),
        _ => Err(Malformed("a record longer than its content")),
    }
}

/// `total`: the length of the payload that `input` is the rest of. Positions count from its
/// beginning.
fn decode_image(input: &mut Input<'_>, total: usize, wall: u64, now: Now) -> Result<Image, Malformed> {
    let id = input.id()?;
    let born = now.born(input.u64()?, wall);
    let priority = Priority(i8::from_le_bytes([input.u8()?]));
    let flags = input.u8()?;
    if flags & !(FLAG_HELD | FLAG_OWN_FILE) != 0 {
        return Err(Malformed("unknown flags"));
    }
    let (owner_len, envelope_len, count) = (input.u16()?, input.len()?, input.len()?);
    if envelope_len > MAX_ENVELOPE || count == 0 || count > MAX_DELIVERIES {
        return Err(Malformed("a message beyond the limits"));
    }
    let (body_len, crc) = (input.u64()?, input.u32()?);
    let owner = Owner::new(input.text(owner_len)?).map_err(|_| Malformed("an owner beyond 255 bytes"))?;
    let envelope = Bytes::copy_from_slice(input.take(envelope_len)?);
    // Capacity is bounded by what the input can hold, not by what it claims.
    let mut deliveries = Vec::with_capacity(count.min(input.0.len() / 38));
    let mut least = 0;
    for _ in 0..count {
        let (number, attempts, due, delay) = (input.u32()?, input.u32()?, input.u64()?, input.u64()?);
        if number < least {
            return Err(Malformed("deliveries out of order"));
        }
        least = number.checked_add(1).ok_or(Malformed("a delivery number beyond the limit"))?;
        let _generation = input.u64()?;
        let (key_len, state_len) = (input.u16()?, input.len()?);
        let key = RoutingKey::new(input.text(key_len)?).map_err(|_| Malformed("a routing key beyond 255 bytes"))?;
        let state = Bytes::copy_from_slice(input.take(state_len)?);
        let (due, delay) = now.due(due, delay);
        deliveries.push(Delivery::new(number, key, state, due, delay, attempts));
    }
    let inline = if flags & FLAG_OWN_FILE == 0 {
        let at = total.checked_sub(input.0.len()).ok_or(SHORT)?;
        // The body's checksum is for its reader: a body found damaged is copied as it is.
        input.take(usize::try_from(body_len).map_err(|_| SHORT)?)?;
        Some(at)
    } else {
        None
    };
    let stored = StoredBody { crc, inline };
    let held = flags & FLAG_HELD != 0;
    let message = Message::restore(owner, priority, envelope, born, held, body_len, stored, deliveries);
    Ok(Image { id, message })
}

fn decode_altered(input: &mut Input<'_>, now: Now) -> Result<Altered, Malformed> {
    match input.u8()? {
        held @ (0 | 1) => Ok(Altered::Held(held == 1)),
        RESCHEDULED => {
            let (due, delay) = now.due(input.u64()?, input.u64()?);
            Ok(Altered::Due { key: decode_key(input)?, due, delay })
        }
        REROUTED => {
            let (from, to) = (decode_key(input)?, decode_key(input)?);
            Ok(Altered::Key { from, to: to.ok_or(Malformed("a rerouting without a key"))? })
        }
        _ => Err(Malformed("an unknown alteration")),
    }
}

fn decode_key(input: &mut Input<'_>) -> Result<Option<RoutingKey>, Malformed> {
    match input.u16()? {
        len if len == usize::from(u16::MAX) => Ok(None),
        len => RoutingKey::new(input.text(len)?).map(Some).map_err(|_| Malformed("a routing key beyond 255 bytes")),
    }
}

fn decode_outcome(input: &mut Input<'_>, total: usize, wall: u64, now: Now) -> Result<OutcomeRecord, Malformed> {
    let id = input.id()?;
    let mut first = decode_end(input, now)?;
    let born = now.born(input.u64()?, wall);
    let (state_len, count) = (input.len()?, input.len()?);
    decode_state(input, state_len, &mut first)?;
    let mut ends = vec![first];
    let mut derived = Vec::new();
    for _ in 0..count {
        let len = input.len()?;
        let end = total.checked_sub(input.0.len()).and_then(|at| at.checked_add(len)).ok_or(SHORT)?;
        let mut part = Input(input.take(len)?);
        derived.push(decode_image(&mut part, end, wall, now)?);
        if !part.0.is_empty() {
            return Err(Malformed("a derived message longer than its content"));
        }
    }
    while !input.0.is_empty() {
        let mut more = decode_end(input, now)?;
        let state_len = input.len()?;
        decode_state(input, state_len, &mut more)?;
        ends.push(more);
    }
    Ok(OutcomeRecord { id, born, ends, derived })
}

/// Decodes all but the state, which follows.
fn decode_end(input: &mut Input<'_>, now: Now) -> Result<End, Malformed> {
    let (delivery, generation, what) = (input.u32()?, input.u64()?, input.u8()?);
    let (attempts, due, delay) = (input.u32()?, input.u64()?, input.u64()?);
    let next = match what {
        0 => None,
        1 => {
            let (due, delay) = now.due(due, delay);
            Some(Next { due, delay, attempts, state: Bytes::new() })
        }
        _ => return Err(Malformed("an unknown outcome")),
    };
    Ok(End { delivery, generation, next })
}

fn decode_state(input: &mut Input<'_>, len: usize, end: &mut End) -> Result<(), Malformed> {
    let state = input.take(len)?;
    if let Some(next) = &mut end.next {
        next.state = Bytes::copy_from_slice(state);
    }
    Ok(())
}

impl Now {
    fn wall_of(self, due: Moment) -> u64 {
        let (left, since) = (millis(between(self.moment, due)), between(due, self.moment).as_millis());
        self.wall.saturating_add(left).saturating_sub(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// An overdue delivery stays overdue since `due`: claims go by that order.
    fn due(self, due: u64, delay: u64) -> (Moment, Duration) {
        let delay = Duration::from_millis(delay).min(crate::MAX_DELAY);
        let left = Duration::from_millis(due.saturating_sub(self.wall)).min(delay);
        let since = i64::try_from(self.wall.saturating_sub(due).saturating_mul(1000)).unwrap_or(i64::MAX);
        (after(self.moment, left).saturating_sub(since), delay)
    }

    /// Rounds times as they will be read back.
    pub(in crate::log) fn as_written(self, what: Altered) -> Altered {
        match what {
            Altered::Due { key, due, delay } => {
                let (due, delay) = self.due(self.wall_of(due), millis(delay));
                Altered::Due { key, due, delay }
            }
            what => what,
        }
    }

    fn born(self, age: u64, written: u64) -> Moment {
        let age = age.saturating_add(self.wall.saturating_sub(written));
        self.moment.saturating_sub(i64::try_from(age.saturating_mul(1000)).unwrap_or(i64::MAX))
    }
}

/// Rounded up, so that a delivery is never early and no age shrinks.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

const RESCHEDULED: u8 = 2;
const REROUTED: u8 = 3;
const FLAG_HELD: u8 = 1;
const FLAG_OWN_FILE: u8 = 2;
