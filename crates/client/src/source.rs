//! Content that several servers may get, one after another.

use std::{
    fmt,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use posthaste_tokio::{Content, Reader, Text};
use tokio::fs::File;

/// Content that can be sent again, to another server or in another transaction.
///
/// | what you have | what you hand in |
/// |---|---|
/// | [`Bytes`] | itself |
/// | `&str`, `&[u8]`, `String`, `Vec<u8>` | itself; each server gets a copy |
/// | an [`Arc`] of a source, for many messages | itself |
/// | a file | [`FileSource::new`] |
/// | any of these with lines that end in LF | [`Text::new`] around it |
/// | any other [`Content`], such as a [`Reader`] | [`Once::new`] |
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no content that can be sent again",
    label = "not a source",
    note = "a source is a `&str`, `String`, `Vec<u8>` or `Bytes`, or a `FileSource`",
    note = "wrap content that can be read once, such as a `Reader`, in `Once::new`, and lines that end in LF in `Text::new`"
)]
pub trait Source: Send + Sync {
    /// The content.
    type Content: Content;

    /// Begins the content from its first octet.
    ///
    /// # Errors
    /// The content cannot be read. The message is not sent to further servers.
    fn open(&self) -> impl Future<Output = io::Result<Self::Content>> + Send;
}

impl Source for Bytes {
    type Content = Self;

    async fn open(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

/// Types whose octets each server gets a copy of.
macro_rules! copied {
    ($($type:ty),*) => {$(
        impl Source for $type {
            type Content = Bytes;

            async fn open(&self) -> io::Result<Bytes> {
                Ok(Bytes::copy_from_slice(self.as_ref()))
            }
        }
    )*};
}

copied!(&str, &[u8], String, Vec<u8>);

impl<T: Source> Source for &T {
    type Content = T::Content;

    async fn open(&self) -> io::Result<Self::Content> {
        (**self).open().await
    }
}

impl<T: Source> Source for Arc<T> {
    type Content = T::Content;

    async fn open(&self) -> io::Result<Self::Content> {
        (**self).open().await
    }
}

/// Lines that end in LF.
impl<T: Source> Source for Text<T> {
    type Content = Text<T::Content>;

    async fn open(&self) -> io::Result<Self::Content> {
        Ok(Text::new(self.get_ref().open().await?))
    }
}

/// A file, which is opened for each server. Its lines end in CRLF; for one with LF use
/// `Text::new(FileSource::new(path))`.
#[derive(Debug, Clone)]
pub struct FileSource(PathBuf);

impl FileSource {
    /// The file at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Source for FileSource {
    type Content = Pin<Box<Reader<File>>>;

    async fn open(&self) -> io::Result<Self::Content> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.0.display()));
        // The opening of what is no file, such as a FIFO, may never end.
        if !tokio::fs::metadata(&self.0).await.map_err(named)?.is_file() {
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        let file = File::open(&self.0).await.map_err(named)?;
        let length = file.metadata().await.map_err(named)?.len();
        Ok(Box::pin(Reader::new(file).with_length(length)))
    }
}

/// Content that can be read once. Another server may get it as long as none of it was read: a
/// server that fails before the content is replaced, one that fails after it is not.
pub struct Once<C>(Arc<Slot<C>>);

/// Where the content is that is still to be read.
type Slot<C> = Mutex<Option<Pin<Box<C>>>>;

/// The content of a [`Once`], which goes back if none of it was read.
pub struct OnceContent<C> {
    home: Arc<Slot<C>>,
    content: Option<Pin<Box<C>>>,
    has_begun: bool,
}

impl<C: Content> Once<C> {
    /// Wraps this content.
    pub fn new(content: C) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::pin(content)))))
    }
}

fn left<C>(slot: &Slot<C>) -> MutexGuard<'_, Option<Pin<Box<C>>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: Content> Source for Once<C> {
    type Content = OnceContent<C>;

    async fn open(&self) -> io::Result<Self::Content> {
        match left(&self.0).take() {
            Some(content) => Ok(OnceContent { home: Arc::clone(&self.0), content: Some(content), has_begun: false }),
            None => Err(io::Error::other("the content can be read once, and a server has had it")),
        }
    }
}

impl<C: Content> Content for OnceContent<C> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.has_begun = true;
        match &mut self.content {
            Some(content) => content.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }

    fn length(&self) -> Option<u64> {
        self.content.as_ref().and_then(|content| content.length())
    }

    fn length_as_text(&self) -> Option<u64> {
        self.content.as_ref().and_then(|content| content.length_as_text())
    }
}

impl<C> Drop for OnceContent<C> {
    fn drop(&mut self) {
        if !self.has_begun {
            *left(&self.home) = self.content.take();
        }
    }
}

impl<C> fmt::Debug for Once<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("is_left", &left(&self.0).is_some()).finish()
    }
}

impl<C> fmt::Debug for OnceContent<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceContent").field("has_begun", &self.has_begun).finish()
    }
}
