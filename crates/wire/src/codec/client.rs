//! The client's side of a connection.

use bytes::{Buf as _, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecError;
use crate::{
    Command, Reply,
    frame::{ContentFault, SegmentList, Stuffer},
    reply::{ReplyFramer, ReplyLimits},
};

/// Decodes [`Reply`], encodes commands, content and chunks.
#[derive(Debug, Clone)]
pub struct ClientCodec {
    replies: ReplyFramer,
    stuffer: Stuffer,
}

/// An item that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// A command line.
    Command(Command<'a>),
    /// A piece of the content after 354, without stuffed dots. It may be split anywhere.
    Content(&'a [u8]),
    /// The end of the content. A CRLF precedes it if the content does not end in one.
    EndOfContent,
    /// The octets after BDAT, or a piece of them. The application must send as many as BDAT said.
    Chunk(&'a [u8]),
}

impl ClientCodec {
    /// A codec with [`ReplyLimits::default`].
    pub fn new() -> Self {
        Self::with_limits(ReplyLimits::default())
    }

    /// A codec with limits for a reply of the server.
    pub const fn with_limits(limits: ReplyLimits) -> Self {
        Self { replies: ReplyFramer::new(limits), stuffer: Stuffer::new() }
    }

    /// Leaves out the check of the next message's content, which must be clean.
    /// [`Stuffer::for_clean_content`] says what goes wrong if it is not. Call it before the first
    /// piece of the content: a later call forgets if the last piece ended a line.
    pub const fn expect_clean_content(&mut self) {
        self.stuffer = Stuffer::for_clean_content();
    }

    fn stuff(&mut self, content: &[u8], dst: &mut BytesMut) -> Result<(), ContentFault> {
        let mut rest = content;
        while !rest.is_empty() {
            let mut segments = SegmentList::new();
            let taken = self.stuffer.stuff(rest, &mut segments)?;
            append(&segments, dst);
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Decoder for ClientCodec {
    type Item = Reply;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Reply>, CodecError> {
        let Some(reply) = self.replies.next(src)? else { return Ok(None) };
        let reply = reply.into_owned();
        src.advance(reply.as_bytes().len());
        Ok(Some(reply))
    }
}

/// After an error, the buffer has no part of the item. After a [`ContentFault`], close the
/// connection: the server has part of a message.
impl Encoder<Outgoing<'_>> for ClientCodec {
    type Error = CodecError;

    fn encode(&mut self, item: Outgoing<'_>, dst: &mut BytesMut) -> Result<(), CodecError> {
        match item {
            Outgoing::Command(command) => command.encode(dst)?,
            Outgoing::Content(content) => {
                let before = dst.len();
                if let Err(fault) = self.stuff(content, dst) {
                    dst.truncate(before);
                    return Err(fault.into());
                }
            }
            Outgoing::EndOfContent => dst.extend_from_slice(self.stuffer.finish()?),
            Outgoing::Chunk(octets) => dst.extend_from_slice(octets),
        }
        Ok(())
    }
}

fn append(segments: &SegmentList<'_>, dst: &mut BytesMut) {
    for segment in segments.as_slice() {
        dst.extend_from_slice(segment.as_bytes());
    }
}

impl<'a> From<Command<'a>> for Outgoing<'a> {
    fn from(command: Command<'a>) -> Self {
        Self::Command(command)
    }
}

impl Default for ClientCodec {
    fn default() -> Self {
        Self::new()
    }
}
