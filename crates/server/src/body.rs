//! The content of a message on its way in.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use posthaste_tokio::wire::{Refusal, refusal};
use thiserror::Error;
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

use crate::{budget::Budget, gathered::Gathered};

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
///
/// # To a store over HTTP
///
/// A client of HTTP or S3 wants a stream that is `'static`, which it may hand to a task of its own.
/// A channel is one. The stream must end with an error unless the body has come to its end:
/// otherwise the store keeps half a message.
///
/// ```
/// # use std::{io, sync::{Arc, Mutex}};
/// # use bytes::Bytes;
/// # use futures_core::Stream;
/// # use futures_util::{StreamExt as _, stream::poll_fn};
/// # use posthaste_server::{Accepted, Body, BodyError, Context, Envelope, Handler, Refusal, accepted};
/// # use tokio::sync::mpsc;
/// # struct Store { stored: Arc<Mutex<Vec<Result<usize, io::ErrorKind>>>>, room: usize }
/// # impl Store {
/// #     async fn put(&self, mut pieces: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static) -> io::Result<()> {
/// #         let (stored, room) = (Arc::clone(&self.stored), self.room);
/// #         tokio::spawn(async move {
/// #             let mut octets = 0;
/// #             let mut take = async || {
/// #                 while let Some(piece) = pieces.next().await {
/// #                     octets += piece?.len();
/// #                     if octets > room { return Err(io::ErrorKind::StorageFull.into()); }
/// #                 }
/// #                 Ok(octets)
/// #             };
/// #             let taken: io::Result<usize> = take().await;
/// #             stored.lock().unwrap().push(taken.as_ref().copied().map_err(io::Error::kind));
/// #             taken.map(drop)
/// #         }).await?
/// #     }
/// # }
/// impl Handler for Store {
///     async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
///         let (to, mut from) = mpsc::channel::<Option<Bytes>>(4); // 4 pieces in memory.
///         let pieces = poll_fn(move |cx| from.poll_recv(cx).map(|received| match received {
///             Some(piece) => piece.map(Ok),
///             None => Some(Err(io::ErrorKind::UnexpectedEof.into())), // `to` is gone.
///         }));
///         let feed = async move {
///             loop {
///                 let piece = body.next().await?; // After an error `to` goes.
///                 let is_end = piece.is_none();
///                 if to.send(piece).await.is_err() || is_end {
///                     return Ok(()); // The store has all, or takes no more and says why.
///                 }
///             }
///         };
///         let put = async { self.put(pieces).await.map_err(Refusal::from) };
///         tokio::try_join!(feed, put)?; // The first error drops the other side.
///         Ok(accepted!("250 2.0.0 Stored"))
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// #     use posthaste_server::{Peer, PeerAddress, session::ServerSettings};
/// #     let cx = Context::new(Peer::new(PeerAddress::Local, PeerAddress::Local), ServerSettings::new("mx.test".parse().unwrap()).into());
/// #     let ends = || Bytes::from_static(&[b'x'; 10]).into();
/// #     let is_cut = || Body::new(futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(BodyError::Disconnected)])
/// #         .then(async |piece| { tokio::task::yield_now().await; piece }));
/// #     for (body, room, reply, taken) in [
/// #         (ends(), 100, "250", Ok(10)),
/// #         (is_cut(), 100, "451 4.4.2", Err(io::ErrorKind::UnexpectedEof)),
/// #         (ends(), 5, "452", Err(io::ErrorKind::StorageFull)),
/// #     ] {
/// #         let stored = Arc::default();
/// #         let mut store = Store { stored: Arc::clone(&stored), room };
/// #         let envelope = Envelope::new("a@b.test", ["c@d.test"]).unwrap();
/// #         let said = store.message(&cx, envelope, body).await;
/// #         let said = said.map_or_else(|refusal| refusal.to_string(), |accepted| accepted.to_string());
/// #         assert!(said.starts_with(reply), "{said}");
/// #         for _ in 0..10 { tokio::task::yield_now().await; }
/// #         assert_eq!(*stored.lock().unwrap(), [taken]);
/// #     }
/// # }
/// ```
///
/// The body of a [closure](crate::handlers::message) is `'static`, so most clients take it as it
/// is. It is not `Sync`; for a client that asks for that, a channel is the way there too.
pub struct Body<'a> {
    pieces: Pieces<'a>,
    /// The memory that content in memory counts for. `None`: it does not count.
    memory: Option<Arc<Budget>>,
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
    Refused(#[source] Refusal),
    /// The client closed the connection, or was too slow.
    #[error("the client left before the end of the content")]
    Disconnected,
    /// The connection failed.
    #[error("the connection failed before the end of the content: {0}")]
    Io(#[from] io::Error),
    /// The content is larger than the limit of [`Body::collect`], in octets.
    #[error("the content is larger than {0} octets")]
    TooLarge(usize),
    /// The contents that handlers of this server have in memory take all of
    /// [`ServerOptions::contents`](crate::ServerOptions::contents).
    #[error("the contents in memory have no room for more")]
    NoMemory,
    /// The content cannot be put into a temporary file, or read from it.
    #[error("the content cannot be spooled: {0}")]
    Spool(io::Error),
}

impl<'a> Body<'a> {
    /// A body from any stream, for tests of handlers. Content that is collected from it counts for
    /// no limit: a layer that changes content uses [`with_pieces`](Self::with_pieces).
    pub fn new(pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'a) -> Self {
        Self { pieces: Pieces::Owned(Box::pin(pieces)), memory: None }
    }

    pub(crate) fn borrowed(
        pieces: &'a mut (dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin),
        memory: &Arc<Budget>,
    ) -> Self {
        Self { pieces: Pieces::Borrowed(pieces), memory: Some(Arc::clone(memory)) }
    }

    /// A body of other pieces in the place of this one, for layers that change content.
    ///
    /// ```
    /// # use posthaste_server::Body;
    /// use futures_util::StreamExt as _;
    /// fn in_capitals(body: Body<'_>) -> Body<'_> {
    ///     body.with_pieces(|pieces| pieces.map(|piece| Ok(piece?.to_ascii_uppercase().into())))
    /// }
    /// ```
    #[must_use]
    pub fn with_pieces<S>(mut self, change: impl FnOnce(Self) -> S) -> Self
    where
        S: Stream<Item = Result<Bytes, BodyError>> + Send + 'a,
    {
        let memory = self.memory.take();
        Self { memory: memory.clone(), ..Self::new(change(Self { memory, ..self })) }
    }

    /// A body of these pieces, whose content in memory counts as that of this one.
    pub(crate) fn like<'b>(&self, pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'b) -> Body<'b> {
        Body { memory: self.memory.clone(), ..Body::new(pieces) }
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
    /// The memory counts for [`ServerOptions::contents`](crate::ServerOptions::contents) until the
    /// last clone and slice of the content is dropped.
    ///
    /// # Errors
    /// [`BodyError`]: [`BodyError::TooLarge`] beyond the limit, [`BodyError::NoMemory`] if the
    /// contents of all handlers have no room for it.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = self.gathered();
        let mut octets = 0_usize;
        while let Some(piece) = self.next().await? {
            octets = octets.saturating_add(piece.len());
            if octets > limit {
                return Err(BodyError::TooLarge(limit));
            }
            all.push(&piece).inspect_err(|_| self.memory.iter().for_each(|memory| memory.was_short()))?;
        }
        Ok(all.finish())
    }

    /// Room for the content in memory.
    pub(crate) fn gathered(&self) -> Gathered {
        Gathered::new(self.memory.as_ref())
    }

    /// A reader of the content. Its errors hold the [`BodyError`], so a handler may pass them on
    /// with `?` too.
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
            BodyError::NoMemory => refusal!("452 4.3.1 Out of memory for messages, try again later"),
            BodyError::Refused(refusal) => refusal,
            BodyError::Disconnected => refusal!("451 4.4.2 Connection lost"),
            BodyError::Io(error) => refusal!("451 4.4.2 Connection lost").with_cause(error),
            BodyError::Spool(error) => error.into(),
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
            BodyError::NoMemory => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}
