//! The content of a message on its way in.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use posthaste_tokio::wire::{Refusal, refusal};
use thiserror::Error;
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

/// The content of a message: a [`Stream`] of pieces, without dot-stuffing and without the line that
/// ends DATA.
///
/// The framework reads from the client only when the handler asks for a piece. So a slow handler
/// slows the client down, and does not use more memory. A piece is a slice of the read buffer:
/// receiving it copies and allocates nothing. [`into_reader`](Self::into_reader) makes an
/// `AsyncRead` of it, for `tokio::io::copy`:
///
/// ```
/// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, accepted};
/// # use std::{path::PathBuf, sync::{Arc, atomic::{AtomicU64, Ordering}}};
/// # use tokio::fs::{self, File};
/// struct Spool {
///     folder: PathBuf,
///     next: Arc<AtomicU64>,
/// }
///
/// impl Handler for Spool {
///     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
///         let name = self.next.fetch_add(1, Ordering::Relaxed);
///         // Cleared at start: what stands there is of messages that were not accepted.
///         let temporary = self.folder.join(format!("tmp/{name}"));
///         let mut file = File::create_new(&temporary).await?;
///         tokio::io::copy(&mut body.into_reader(), &mut file).await?;
///         file.sync_all().await?;
///         fs::rename(&temporary, self.folder.join(format!("{name}.eml"))).await?;
///         File::open(&self.folder).await?.sync_all().await?;
///         Ok(accepted!("250 2.0.0 Stored"))
///     }
/// }
/// ```
pub struct Body<'a> {
    pieces: Pieces<'a>,
}

enum Pieces<'a> {
    Borrowed(&'a mut (dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin)),
    Owned(Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + 'a>>),
}

/// Why a body ends early. The handler must throw away the pieces that it has got.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The session or a layer refuses the content: it is too large, or has octets that content must
    /// not have. The client gets this reply after the end of the content.
    #[error("the content was refused: {0}")]
    Refused(Refusal),
    /// The client closed the connection, or was too slow.
    #[error("the client left before the end of the content")]
    Disconnected,
    /// The connection failed.
    #[error("the connection failed before the end of the content: {0}")]
    Io(#[from] io::Error),
    /// The content is larger than the limit of [`Body::collect`], in octets.
    #[error("the content is larger than {0} octets")]
    TooLarge(usize),
    /// The content cannot be put into a temporary file, or read from it.
    #[error("the content cannot be spooled: {0}")]
    Spool(io::Error),
}

impl<'a> Body<'a> {
    /// A body from any stream: for layers that change content, and for tests of handlers.
    pub fn new(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'a) -> Self {
        Self { pieces: Pieces::Owned(Box::pin(pieces)) }
    }

    pub(crate) fn borrowed(pieces: &'a mut (dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin)) -> Self {
        Self { pieces: Pieces::Borrowed(pieces) }
    }

    /// The next piece, of at least one octet. `None`: the end of the content. May be dropped and
    /// called again: no piece is lost.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// The whole content in memory, up to `limit` octets. A future that is dropped loses the octets
    /// that it has read.
    ///
    /// # Errors
    /// [`BodyError`], with [`BodyError::TooLarge`] beyond the limit.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len().saturating_add(piece.len()) > limit {
                return Err(BodyError::TooLarge(limit));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// A reader of the content. Its errors hold the [`BodyError`].
    pub fn into_reader(self) -> impl AsyncBufRead + Send + Unpin + use<'a> {
        StreamReader::new(self)
    }
}

impl Stream for Body<'_> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = match &mut self.pieces {
            Pieces::Borrowed(pieces) => Pin::new(pieces).poll_next(cx),
            Pieces::Owned(pieces) => pieces.as_mut().poll_next(cx),
        };
        match polled {
            // A layer's stream of nothing but these must not keep the thread.
            Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }
}

/// A body of one piece, for tests of handlers.
impl From<Bytes> for Body<'_> {
    fn from(content: Bytes) -> Self {
        struct Whole(Option<Bytes>);

        impl Stream for Whole {
            type Item = Result<Bytes, BodyError>;

            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                Poll::Ready(self.0.take().map(Ok))
            }
        }

        Self::new(Whole(Some(content).filter(|content| !content.is_empty())))
    }
}

/// For tests of handlers.
impl From<&'static str> for Body<'_> {
    fn from(content: &'static str) -> Self {
        Bytes::from_static(content.as_bytes()).into()
    }
}

/// For tests of handlers.
impl From<Vec<u8>> for Body<'_> {
    fn from(content: Vec<u8>) -> Self {
        Bytes::from(content).into()
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// A handler may pass the error of a body on with `?`. When the session has refused the content,
/// the client gets the session's reply.
impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => refusal!("552 5.3.4 Message too large"),
            BodyError::Refused(refusal) => refusal,
            BodyError::Disconnected => refusal!("451 4.4.2 Connection lost"),
            BodyError::Io(error) => refusal!("451 4.4.2 Connection lost").with_cause(error),
            BodyError::Spool(error) if error.kind() == io::ErrorKind::StorageFull => {
                refusal!("452 4.3.1 Out of storage, try again later").with_cause(error)
            }
            BodyError::Spool(error) => refusal!("451 4.3.0 Local error, try again later").with_cause(error),
        }
    }
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        let kind = match &error {
            BodyError::Io(error) | BodyError::Spool(error) => error.kind(),
            BodyError::Disconnected => io::ErrorKind::UnexpectedEof,
            BodyError::Refused(_) => io::ErrorKind::InvalidData,
            BodyError::TooLarge(_) => io::ErrorKind::FileTooLarge,
        };
        Self::new(kind, error)
    }
}
