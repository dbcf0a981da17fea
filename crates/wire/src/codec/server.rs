//! The server's side of a connection.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecError;
use crate::{
    Reply,
    command::MAX_COMMAND_LINE,
    frame::{ContentFault, Frame, Framed, Framer, LineFault},
};

/// Decodes the items of a client, encodes [`Reply`].
///
/// It yields lines until the application announces content or a chunk, and lines again after its
/// end. The application announces content after the line that starts it, and before it asks for the
/// next item.
#[derive(Debug, Clone)]
pub struct ServerCodec {
    framer: Framer,
}

/// An item that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A line without its CRLF: a command, or a response within AUTH.
    Line(Bytes),
    /// A line that the server must refuse as a whole.
    BadLine(LineFault),
    /// A piece of content without stuffed dots, or a piece of a chunk.
    Content(Bytes),
    /// The end of the content or of the chunk. The next item is a line.
    End {
        /// The fault of the content, which the server must then refuse. `None`: clean content, or a
        /// chunk.
        fault: Option<ContentFault>,
    },
}

/// The most octets of a line that are discarded before the connection ends with an error: 64 KiB,
/// more than any client sends by mistake.
const MAX_DISCARDED: usize = 64 * 1_024;

impl ServerCodec {
    /// A codec at the start of a line. The limit for lines is [`MAX_COMMAND_LINE`].
    pub const fn new() -> Self {
        Self { framer: Framer::new(MAX_COMMAND_LINE) }
    }

    /// Changes the limit for lines, in octets with CRLF. Default [`MAX_COMMAND_LINE`]. A longer
    /// line is a [`Received::BadLine`], and one beyond 64 KiB an [error](CodecError::EndlessLine).
    pub const fn set_max_line(&mut self, max_line: usize) {
        self.framer.set_max_line(max_line);
    }

    /// Expects the content after DATA: [`Framer::expect_content`].
    pub const fn expect_content(&mut self, max_line: usize) {
        self.framer.expect_content(max_line);
    }

    /// Expects clean content after DATA. [`Framer::expect_clean_content`] says what goes wrong if
    /// it is not.
    pub const fn expect_clean_content(&mut self) {
        self.framer.expect_clean_content();
    }

    /// Expects a chunk of `octets` octets after BDAT: [`Framer::expect_chunk`].
    pub const fn expect_chunk(&mut self, octets: u64) {
        self.framer.expect_chunk(octets);
    }
}

impl Decoder for ServerCodec {
    type Item = Received;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Received>, CodecError> {
        let Framed { consumed, frame } = self.framer.next(src);
        // Splitting off an empty piece would cost an allocation.
        let mut octets = || src.split_to(consumed).freeze();
        Ok(Some(match frame {
            Frame::Line(range) => Received::Line(octets().slice(range)),
            Frame::Content(range) => Received::Content(octets().slice(range)),
            Frame::BadLine(fault) => {
                src.advance(consumed);
                Received::BadLine(fault)
            }
            Frame::End => {
                src.advance(consumed);
                Received::End { fault: self.framer.fault() }
            }
            Frame::Incomplete => {
                src.advance(consumed);
                return if self.framer.discarded() > MAX_DISCARDED { Err(CodecError::EndlessLine) } else { Ok(None) };
            }
        }))
    }

    /// A connection that ends within content or a chunk is an error, even if no octet is left.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Received>, CodecError> {
        match self.decode(src)? {
            None if !src.is_empty() || !self.framer.is_at_line() || self.framer.discarded() > 0 => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            received => Ok(received),
        }
    }
}

impl Encoder<Reply> for ServerCodec {
    type Error = CodecError;

    fn encode(&mut self, reply: Reply, dst: &mut BytesMut) -> Result<(), CodecError> {
        dst.extend_from_slice(reply.as_bytes());
        Ok(())
    }
}

impl Default for ServerCodec {
    fn default() -> Self {
        Self::new()
    }
}
