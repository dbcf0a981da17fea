//! Message content on its way out.

use std::{
    error::Error,
    io,
    ops::DerefMut,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// Message content that is read piece by piece while it is sent: a text, a stream, a file.
///
/// | what you have | what you hand in |
/// |---|---|
/// | `&'static str`, `&'static [u8]`, `String`, `Vec<u8>`, [`Bytes`] | itself |
/// | anything that is [`AsyncRead`]: a file, a socket | [`Reader::new`] |
/// | a [`Stream`] of octets, such as the body of an HTTP request | [`Streamed::new`] |
///
/// Lines end in CRLF, and a dot at the start of a line stays as it is: the client writes the second
/// dot. A bare CR, a bare LF or a NUL is not sent and ends the conversation, unless the message is
/// BODY=BINARYMIME.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no content of a message",
    label = "not content",
    note = "content is a `&'static str`, `String`, `Vec<u8>` or `Bytes`",
    note = "wrap a file, or anything else that is `AsyncRead`, in `Reader::new`, and a stream of `Bytes` in `Streamed::new`"
)]
pub trait Content: Send {
    /// The next piece; `None` at the end, after which it is not polled again. Pieces may have any
    /// size; 64 KiB is a good one. No timeout applies here: the source limits its own waits. An
    /// error ends the conversation, and the message is not sent.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>;

    /// The octets of all pieces together. The client asks before the first piece. `None`, the
    /// default: unknown.
    ///
    /// Content of known length goes to a server with CHUNKING as one chunk, other content as many.
    /// A message that turns out shorter or longer is not sent, and the conversation is over.
    fn length(&self) -> Option<u64> {
        None
    }
}

/// Types that hold the whole content: the first poll takes it.
macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Content for $type {
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
                let whole = Bytes::from(std::mem::take(&mut *self));
                Poll::Ready((!whole.is_empty()).then_some(Ok(whole)))
            }

            fn length(&self) -> Option<u64> {
                u64::try_from(self.len()).ok()
            }
        }
    )*};
}

whole!(Bytes, Vec<u8>, String, &'static [u8], &'static str);

impl<C: Content + Unpin + ?Sized> Content for &mut C {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut **self).poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}

impl<C: Content + Unpin + ?Sized> Content for Box<C> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut **self).poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}

impl<P: DerefMut<Target: Content> + Send> Content for Pin<P> {
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.as_deref_mut().poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}

/// Octets of a piece that [`Reader`] reads at most.
const PIECE: usize = 64 * 1_024;

pin_project! {
    /// Content from anything that is [`AsyncRead`], in pieces of at most 64 KiB.
    #[derive(Debug)]
    pub struct Reader<R> {
        #[pin]
        pieces: ReaderStream<R>,
        length: Option<u64>,
    }
}

impl<R: AsyncRead> Reader<R> {
    /// Content of unknown length.
    pub fn new(read: R) -> Self {
        Self { pieces: ReaderStream::with_capacity(read, PIECE), length: None }
    }

    /// The same, known to have this many octets in all. See [`Content::length`].
    #[must_use]
    pub fn with_length(self, octets: u64) -> Self {
        Self { length: Some(octets), ..self }
    }
}

impl<R: AsyncRead + Send> Content for Reader<R> {
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.project().pieces.poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

pin_project! {
    /// Content from a [`Stream`] of octets, with any error that [`io::Error::other`] takes.
    #[derive(Debug)]
    pub struct Streamed<S> {
        #[pin]
        pieces: S,
        length: Option<u64>,
    }
}

impl<S: Stream> Streamed<S> {
    /// Content of unknown length.
    pub const fn new(stream: S) -> Self {
        Self { pieces: stream, length: None }
    }

    /// The same, known to have this many octets in all. See [`Content::length`].
    #[must_use]
    pub fn with_length(self, octets: u64) -> Self {
        Self { length: Some(octets), ..self }
    }
}

impl<S, B, E> Content for Streamed<S>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = ready!(self.project().pieces.poll_next(context));
        Poll::Ready(piece.map(|piece| piece.map(Into::into).map_err(io::Error::other)))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
