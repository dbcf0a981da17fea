//! The content of a message on its way in.

use std::{future::Future, io, pin::Pin};

use bytes::{Bytes, BytesMut};
use posthaste_tokio::wire::Reply;
use thiserror::Error;

/// The content of a message, read piece by piece. Nothing is read from the client that nobody asks for, so a slow reader
/// slows the client down and no memory grows.
pub struct Body<'a> {
    source: &'a mut (dyn BodySource + Send),
}

/// Where a body comes from. Applications meet it only in tests of their own handlers.
pub trait BodySource {
    /// The next piece, or nothing at the true end of the content.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, BodyError>> + Send + '_>>;
}

/// Why there is no more of a body. Whatever was made of it so far must be thrown away.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The content is not taken: too large, or with octets that it must not have. The client gets this reply at its end.
    #[error("the content is refused: {0}")]
    Refused(Reply),
    /// The client went away, or was too slow.
    #[error("the client went away within the content")]
    Disconnected,
    /// The connection failed.
    #[error("the connection failed within the content: {0}")]
    Io(#[from] io::Error),
    /// The content is larger than [`Body::collect`] was to take.
    #[error("the content is larger than {0} octets")]
    TooLarge(usize),
}

impl<'a> Body<'a> {
    /// A body from a source.
    pub fn new(source: &'a mut (dyn BodySource + Send)) -> Self {
        Self { source }
    }

    /// The next piece, or nothing at the end.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.source.next().await
    }

    /// The whole content in memory, up to `limit` octets.
    ///
    /// # Errors
    /// [`BodyError`], with [`BodyError::TooLarge`] beyond the limit.
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl std::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

/// A handler may pass a body's error on with `?`. The session has a reply of its own for what it refused, and nobody is
/// left to read one otherwise.
impl From<BodyError> for Reply {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Refused(reply) => reply,
            BodyError::TooLarge(_) => Self::from_static("552 5.3.4 Message too large\r\n"),
            BodyError::Disconnected | BodyError::Io(_) => Self::from_static("451 4.4.2 Connection lost\r\n"),
        }
    }
}
