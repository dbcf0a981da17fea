//! Message content on its way out.

use std::{
    error::Error,
    io,
    ops::DerefMut,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
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
/// BODY=BINARYMIME. [`Text::new`] around any of these takes lines that end in LF, as in files on
/// Unix. For octets above 127, say BODY=8BITMIME in MAIL (RFC 6152).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no content of a message",
    label = "not content",
    note = "content is a `&'static str`, `String`, `Vec<u8>` or `Bytes`; copy a borrowed text with `to_owned()`",
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

    /// The octets with a CR before each LF that has none: the length of [`Text`] around it. `None`,
    /// the default: unknown. Only content that is in memory tells it.
    fn length_as_text(&self) -> Option<u64> {
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

            fn length_as_text(&self) -> Option<u64> {
                let octets: &[u8] = self.as_ref();
                u64::try_from(octets.len().checked_add(bare_lfs(octets))?).ok()
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

    fn length_as_text(&self) -> Option<u64> {
        (**self).length_as_text()
    }
}

impl<C: Content + Unpin + ?Sized> Content for Box<C> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut **self).poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }

    fn length_as_text(&self) -> Option<u64> {
        (**self).length_as_text()
    }
}

impl<P: DerefMut<Target: Content> + Send> Content for Pin<P> {
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.as_deref_mut().poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }

    fn length_as_text(&self) -> Option<u64> {
        (**self).length_as_text()
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

pin_project! {
    /// Content whose lines may end in LF alone: each such LF goes out as CRLF. What ends in CRLF
    /// already stays as it is. Not for BODY=BINARYMIME.
    ///
    /// The length of a text in memory is known, since its lines are counted. That of a [`Reader`]
    /// or a stream is not, whatever it says of itself, and MAIL has no SIZE. A server that takes
    /// less then refuses the message after its content. Where the number of lines is known, set
    /// [`Mail::size`](crate::wire::Mail::size).
    ///
    /// ```
    /// # async fn letter() -> std::io::Result<()> {
    /// use posthaste_tokio::{Reader, Text};
    ///
    /// let letter = Text::new(Reader::new(tokio::fs::File::open("letter.eml").await?));
    /// # Ok(()) }
    /// ```
    #[derive(Debug)]
    pub struct Text<C> {
        #[pin]
        content: C,
        // The last octet was CR.
        after_cr: bool,
    }
}

impl<C> Text<C> {
    /// Wraps content.
    pub const fn new(content: C) -> Self {
        Self { content, after_cr: false }
    }

    /// What it was made of.
    pub const fn get_ref(&self) -> &C {
        &self.content
    }
}

impl<C: Content> Content for Text<C> {
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.project();
        let piece = ready!(this.content.poll_next(context));
        Poll::Ready(piece.map(|piece| piece.map(|piece| with_crlf(piece, this.after_cr))))
    }

    fn length(&self) -> Option<u64> {
        self.content.length_as_text()
    }

    fn length_as_text(&self) -> Option<u64> {
        self.length()
    }
}

/// The number of LF without a CR in front.
fn bare_lfs(octets: &[u8]) -> usize {
    let mut last = 0;
    octets.iter().filter(|octet| std::mem::replace(&mut last, **octet) != b'\r' && **octet == b'\n').count()
}

/// The piece with CR before each LF that has none. Copied only if it has such an LF.
fn with_crlf(piece: Bytes, after_cr: &mut bool) -> Bytes {
    let mut changed = BytesMut::new();
    let mut copied = 0;
    for (index, octet) in piece.iter().enumerate() {
        if *octet == b'\n' && !*after_cr {
            changed.extend_from_slice(piece.get(copied..index).unwrap_or_default());
            changed.extend_from_slice(b"\r");
            copied = index;
        }
        *after_cr = *octet == b'\r';
    }
    if changed.is_empty() {
        return piece;
    }
    changed.extend_from_slice(piece.get(copied..).unwrap_or_default());
    changed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_any_pieces_ends_its_lines_in_crlf() {
        for (text, wanted) in [
            ("", ""),
            ("a", "a"),
            ("\n", "\r\n"),
            ("a\nb\r\nc\n\nd", "a\r\nb\r\nc\r\n\r\nd"),
            ("a\r\r\n\nb\rc", "a\r\r\n\r\nb\rc"),
        ] {
            for cut in 0..=text.len() {
                let mut after_cr = false;
                let mut pieces = [&text[..cut], &text[cut..]].map(|piece| Bytes::from(piece.to_owned()));
                let made: Vec<u8> =
                    pieces.iter_mut().flat_map(|piece| with_crlf(std::mem::take(piece), &mut after_cr)).collect();
                assert_eq!(String::from_utf8_lossy(&made), wanted, "{text:?} cut at {cut}");
            }
            let (text, wanted) = (Text::new(text.to_owned()), u64::try_from(wanted.len()).ok());
            assert_eq!((text.length(), Text::new(text).length()), (wanted, wanted));
        }
    }
}
