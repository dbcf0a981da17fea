//! The errors that end a connection with a codec.

use core::fmt;
use std::io;

use crate::{EncodeError, frame::ContentFault, reply::ReplyError};

/// An error of a codec or its connection. Close the connection after each, except
/// [`CodecError::Encode`].
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// The connection failed, or ended within a line, content, a chunk or a reply.
    Io(io::Error),
    /// The client sent more than 64 KiB of one line.
    EndlessLine,
    /// The server sends octets that are not a reply.
    Reply(ReplyError),
    /// A command cannot be one line. No part of it was sent.
    Encode(EncodeError),
    /// The content has a fault, and no more of it was sent. The server may have its beginning.
    Content(ContentFault),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::EndlessLine => f.write_str("a line is longer than 64 KiB; close the connection"),
            Self::Reply(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::Content(fault) => fault.fmt(f),
        }
    }
}

impl core::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // `Display` shows the inner error, so its source comes next.
            Self::Io(error) => error.source(),
            _ => None,
        }
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReplyError> for CodecError {
    fn from(error: ReplyError) -> Self {
        Self::Reply(error)
    }
}

impl From<EncodeError> for CodecError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<ContentFault> for CodecError {
    fn from(fault: ContentFault) -> Self {
        Self::Content(fault)
    }
}
