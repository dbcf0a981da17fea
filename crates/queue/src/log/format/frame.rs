//! The frames of FORMAT.md: segment headers, record frames, and the encoding of numbers.

use crate::MessageId;

pub(in crate::log) const SEGMENT_HEADER: usize = 64;
pub(in crate::log) const FRAME: usize = 36;
pub(in crate::log) const MAX_PAYLOAD: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct SegmentHeader {
    pub(in crate::log) sequence: u64,
    pub(in crate::log) tag: u64,
    pub(in crate::log) id_ceiling: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Frame {
    pub(in crate::log) len: u32,
    pub(in crate::log) base: u32,
    pub(in crate::log) kind: Kind,
    pub(in crate::log) crc: u32,
    pub(in crate::log) wall: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::log) enum Kind {
    Message = 1,
    Outcome = 2,
    Altered = 3,
    Removed = 4,
    Ids = 5,
    Closed = 6,
}

/// The checksum is right, but the bytes are not in our format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::log) struct Malformed(pub(in crate::log) &'static str);

impl SegmentHeader {
    pub(in crate::log) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&[0; 7]);
        put_u64(&mut out, self.sequence);
        put_u64(&mut out, self.tag);
        put_u64(&mut out, self.id_ceiling);
        out.extend_from_slice(&[0; 20]);
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out
    }

    pub(in crate::log) fn decode(octets: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(octets);
        let covered = octets.get(..SEGMENT_HEADER - 4).ok_or(SHORT)?;
        if input.take(8)? != SEGMENT_MAGIC {
            return Err(Malformed("no segment"));
        }
        // Checked before the checksum: another version may use another one.
        if input.u8()? != VERSION {
            return Err(Malformed("a segment of another version"));
        }
        input.take(7)?;
        let header = Self { sequence: input.u64()?, tag: input.u64()?, id_ceiling: input.below_last_id()? };
        input.take(20)?;
        if input.u32()? != crc32fast::hash(covered) {
            return Err(Malformed("a segment header with a wrong checksum"));
        }
        Ok(header)
    }
}

impl Frame {
    /// Appends the frame to a batch; the payload follows.
    pub(in crate::log) fn encode(self, tag: u64, out: &mut Vec<u8>) {
        let start = out.len();
        put_u64(out, tag);
        put_u32(out, self.len);
        put_u32(out, self.base);
        out.push(self.kind as u8);
        out.push(VERSION);
        out.extend_from_slice(&[0; 2]);
        put_u32(out, self.crc);
        put_u64(out, self.wall);
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        put_u32(out, crc);
    }

    pub(in crate::log) fn decode(tag: u64, octets: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(octets);
        let covered = octets.get(..FRAME - 4).ok_or(SHORT)?;
        if input.u64()? != tag {
            return Err(Malformed("no record"));
        }
        let (len, base) = (input.u32()?, input.u32()?);
        let (kind, version) = (input.u8()?, input.u8()?);
        input.take(2)?;
        let (crc, wall) = (input.u32()?, input.u64()?);
        if input.u32()? != crc32fast::hash(covered) {
            return Err(Malformed("a record frame with a wrong checksum"));
        }
        if version != VERSION || len as usize > MAX_PAYLOAD {
            return Err(Malformed("a record of another version"));
        }
        let kind = Kind::from_u8(kind).ok_or(Malformed("a record of an unknown kind"))?;
        Ok(Self { len, base, kind, crc, wall })
    }
}

impl Kind {
    fn from_u8(octet: u8) -> Option<Self> {
        let all = [Self::Message, Self::Outcome, Self::Altered, Self::Removed, Self::Ids, Self::Closed];
        all.into_iter().find(|kind| *kind as u8 == octet)
    }
}

/// The part that is not read yet.
pub(in crate::log) struct Input<'a>(pub(in crate::log) &'a [u8]);

impl<'a> Input<'a> {
    pub(in crate::log) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    pub(in crate::log) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(in crate::log) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(in crate::log) fn u16(&mut self) -> Result<usize, Malformed> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    pub(in crate::log) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(in crate::log) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(in crate::log) fn len(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|_| SHORT)
    }

    pub(in crate::log) fn id(&mut self) -> Result<MessageId, Malformed> {
        self.below_last_id().map(MessageId::from_u64)
    }

    /// Bounded so that counting on never overflows.
    pub(in crate::log) fn below_last_id(&mut self) -> Result<u64, Malformed> {
        match self.u64()? {
            id @ ..LAST_ID => Ok(id),
            _ => Err(Malformed("a message id beyond the limit")),
        }
    }

    pub(in crate::log) fn text(&mut self, len: usize) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.take(len)?).map_err(|_| Malformed("a name that is not UTF-8"))
    }
}

pub(in crate::log) fn put_u16(out: &mut Vec<u8>, len: usize) {
    // Names have at most 255 bytes, by their type.
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
}

pub(in crate::log) fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(in crate::log) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// For lengths that the limits keep far below 2³².
pub(in crate::log) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_u32(out, u32::try_from(len).unwrap_or(u32::MAX));
}

pub(in crate::log) const SHORT: Malformed = Malformed("a record shorter than its content");
const SEGMENT_MAGIC: &[u8] = b"PHQSEG\r\n";
const VERSION: u8 = 1;
const LAST_ID: u64 = 1 << 63;
