//! The rows of FORMAT.md: the content of the checkpoint's tables, encoded and decoded.

use std::time::Duration;

use bytes::Bytes;

use crate::index::{Delivery, Message, Totals, moment};
use crate::log::format::frame::{Input, Malformed, put_len, put_u16, put_u32, put_u64};
use crate::log::format::place::Stored;
use crate::{Owner, Priority, RoutingKey};

/// What a checkpoint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Meta {
    /// It contains the log up to here: a segment, and a position there.
    pub(in crate::log) position: (u64, u64),
    /// That segment's tag, which tells it from one of another log.
    pub(in crate::log) tag: u64,
    /// The time on the queue's clock.
    pub(in crate::log) now: i64,
    /// The wall clock at that moment, in milliseconds since 1970.
    pub(in crate::log) wall: u64,
    /// No message id from here on has been given out.
    pub(in crate::log) next_id: u64,
    pub(in crate::log) totals: Totals,
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let Totals { messages, deliveries, held, bytes } = self.totals;
        let numbers = [self.position.0, self.position.1, self.tag, self.now.cast_unsigned(), self.wall, self.next_id];
        numbers.into_iter().chain([messages, deliveries, held, bytes]).for_each(|number| put_u64(&mut out, number));
        seal(out)
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, Malformed> {
        let mut input = open(row)?;
        if input.u8()? != VERSION {
            return Err(Malformed("a checkpoint of another version"));
        }
        let (position, tag) = ((input.u64()?, input.u64()?), input.u64()?);
        let (now, wall, next_id) = (input.u64()?.cast_signed(), input.u64()?, input.below_last_id()?);
        let (messages, deliveries, held, bytes) = (input.u64()?, input.u64()?, input.u64()?, input.u64()?);
        Ok(Self { position, tag, now, wall, next_id, totals: Totals { messages, deliveries, held, bytes } })
    }
}

pub(super) fn encode_message(message: &Message<Stored>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.cost());
    let stored = &message.stored;
    put_u64(&mut out, stored.sequence);
    put_u64(&mut out, stored.len);
    put_u32(&mut out, stored.crc);
    // 0 is free to mean that: no body begins at the start of a segment.
    put_u64(&mut out, stored.inline.unwrap_or(0));
    put_u64(&mut out, message.born.cast_unsigned());
    put_u64(&mut out, message.body_len);
    out.extend_from_slice(&message.priority.0.to_le_bytes());
    out.push(message.held.into());
    put_u16(&mut out, message.owner.as_str().len());
    put_len(&mut out, message.envelope.len());
    put_len(&mut out, message.deliveries.len());
    out.extend_from_slice(message.owner.as_str().as_bytes());
    out.extend_from_slice(&message.envelope);
    for delivery in &message.deliveries {
        put_u32(&mut out, delivery.number);
        put_u32(&mut out, delivery.attempts);
        put_u64(&mut out, delivery.due.cast_unsigned());
        put_u64(&mut out, moment(delivery.delay).cast_unsigned());
        put_u16(&mut out, delivery.key.as_str().len());
        put_len(&mut out, delivery.state.len());
        out.extend_from_slice(delivery.key.as_str().as_bytes());
        out.extend_from_slice(&delivery.state);
    }
    seal(out)
}

pub(super) fn decode_message(row: &[u8]) -> Result<Message<Stored>, Malformed> {
    let mut input = open(row)?;
    let (sequence, len, crc) = (input.u64()?, input.u64()?, input.u32()?);
    let inline = Some(input.u64()?).filter(|at| *at > 0);
    let stored = Stored { sequence, len, crc, inline };
    let (born, body_len) = (input.u64()?.cast_signed(), input.u64()?);
    let (priority, held) = (Priority(i8::from_le_bytes([input.u8()?])), input.u8()? == 1);
    let (owner_len, envelope_len, count) = (input.u16()?, input.len()?, input.len()?);
    let owner = Owner::new(input.text(owner_len)?).map_err(|_| Malformed("an owner beyond 255 bytes"))?;
    let envelope = Bytes::copy_from_slice(input.take(envelope_len)?);
    // Capacity is bounded by what the input can hold, not by what it claims.
    let mut deliveries = Vec::with_capacity(count.min(input.0.len() / DELIVERY));
    for _ in 0..count {
        let (number, attempts, due) = (input.u32()?, input.u32()?, input.u64()?.cast_signed());
        let (delay, key_len, state_len) = (Duration::from_micros(input.u64()?), input.u16()?, input.len()?);
        let key = RoutingKey::new(input.text(key_len)?).map_err(|_| Malformed("a routing key beyond 255 bytes"))?;
        let state = Bytes::copy_from_slice(input.take(state_len)?);
        deliveries.push(Delivery::new(number, key, state, due, delay, attempts));
    }
    Ok(Message::restore(owner, priority, envelope, born, held, body_len, stored, deliveries))
}

/// Appends a checksum.
fn seal(mut row: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&row);
    put_u32(&mut row, crc);
    row
}

/// Checks and removes the checksum.
fn open(row: &[u8]) -> Result<Input<'_>, Malformed> {
    match row.split_last_chunk() {
        Some((row, crc)) if crc32fast::hash(row) == u32::from_le_bytes(*crc) => Ok(Input(row)),
        _ => Err(Malformed("a row with a wrong checksum")),
    }
}

const VERSION: u8 = 1;
/// The smallest size of a delivery in bytes.
const DELIVERY: usize = 30;
