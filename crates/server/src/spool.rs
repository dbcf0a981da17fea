//! Content that is kept in memory while it is small, and in a temporary file otherwise.

use std::{
    env::temp_dir,
    io::{self, Cursor, SeekFrom},
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncSeek, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter, ReadBuf},
    task::spawn_blocking,
};
use tokio_util::io::ReaderStream;

use crate::{Body, BodyError};

/// How [`Body::spool`] keeps content.
///
/// Start from the default and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpoolOptions {
    /// Octets that are kept in memory. Default 256 KiB, more than nine in ten messages have. Beyond
    /// it, or when [`ServerOptions::contents`](crate::ServerOptions::contents) has no room: all of
    /// the content goes into a file.
    pub memory: usize,
    /// Octets in all. Default: no limit, since the session bounds a message
    /// ([`message_size`](posthaste_tokio::session::server::ServerLimits::message_size), default 50
    /// MiB). Beyond it: [`BodyError::TooLarge`].
    pub limit: u64,
    /// The folder of the file. Default: that of the system, [`temp_dir`], which often is in memory:
    /// choose one on a disk for large messages. Each connection has one file at a time, unless its
    /// handler keeps more.
    pub folder: PathBuf,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { memory: 256 * 1_024, limit: u64::MAX, folder: temp_dir() }
    }
}

/// The whole content of a message, in memory or in a temporary file, as [`Body::spool`] has read
/// it.
///
/// It reads and seeks as a file does, and begins at the start. The file has no name where the
/// system allows that, and is gone when this is dropped, also if the process is killed. Its reads
/// and writes run on tokio's blocking threads.
#[derive(Debug)]
pub struct Spooled {
    place: Place,
    octets: u64,
}

#[derive(Debug)]
enum Place {
    Memory(Cursor<Bytes>),
    File(File),
}

/// Bytes that are collected for one write to the file, or read with one.
const BLOCK: usize = 64 * 1_024;

impl Body<'_> {
    /// The whole content, in memory up to a size and in a temporary file beyond it. A handler can
    /// then read it more than once, and a [layer](crate::Layer::message) can hand it on with
    /// [`Spooled::into_body`].
    ///
    /// ```
    /// # use posthaste_server::{accepted, handlers, SpoolOptions};
    /// # use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    /// let service = handlers::message(async |_, _, body| {
    ///     let mut content = body.spool(&SpoolOptions::default()).await?;
    ///     let mut start = [0; 5];
    ///     let is_html = content.read_exact(&mut start).await.is_ok() && start == *b"<html";
    ///     content.rewind().await?;
    ///     println!("{} octets, HTML: {is_html}", content.len());
    ///     Ok(accepted!("250 2.0.0 Taken"))
    /// });
    /// # posthaste_server::Server::new(service);
    /// ```
    ///
    /// A future that is dropped loses what it has read, and its file.
    ///
    /// # Errors
    /// [`BodyError`]: [`BodyError::TooLarge`] beyond the limit, [`BodyError::Spool`] if the file
    /// cannot be written.
    pub async fn spool(mut self, options: &SpoolOptions) -> Result<Spooled, BodyError> {
        let mut memory = self.gathered();
        let mut file = None;
        let mut octets = 0_u64;
        while let Some(piece) = self.next().await? {
            octets = octets.saturating_add(piece.len() as u64);
            if octets > options.limit {
                return Err(BodyError::TooLarge(usize::try_from(options.limit).unwrap_or(usize::MAX)));
            }
            if let Some(file) = &mut file {
                write(file, &piece).await?;
            } else if octets > options.memory as u64 || memory.push(&piece).is_err() {
                let mut begun = create(options.folder.clone()).await?;
                write(&mut begun, memory.as_slice()).await?;
                memory = self.gathered();
                write(&mut begun, &piece).await?;
                file = Some(begun);
            }
        }
        let place = match file {
            None => Place::Memory(Cursor::new(memory.finish())),
            Some(mut file) => {
                file.flush().await.map_err(BodyError::Spool)?;
                let mut file = file.into_inner();
                file.rewind().await.map_err(BodyError::Spool)?;
                Place::File(file)
            }
        };
        Ok(Spooled { place, octets })
    }
}

async fn create(folder: PathBuf) -> Result<BufWriter<File>, BodyError> {
    let named = |error: io::Error| {
        let text = format!("cannot make a temporary file: {error}; check `SpoolOptions::folder`");
        BodyError::Spool(io::Error::new(error.kind(), text))
    };
    let created = spawn_blocking(move || tempfile::tempfile_in(folder)).await;
    let file = created.map_err(io::Error::from).flatten().map_err(named)?;
    Ok(BufWriter::with_capacity(BLOCK, File::from_std(file)))
}

async fn write(file: &mut BufWriter<File>, octets: &[u8]) -> Result<(), BodyError> {
    file.write_all(octets).await.map_err(BodyError::Spool)
}

impl Spooled {
    /// How many octets the content has.
    pub const fn len(&self) -> u64 {
        self.octets
    }

    /// Returns `true` if the content is empty.
    pub const fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// The content, if it is in memory. `None`: it is in a file.
    pub const fn in_memory(&self) -> Option<&Bytes> {
        match &self.place {
            Place::Memory(content) => Some(content.get_ref()),
            Place::File(_) => None,
        }
    }

    /// The content from its start, as a body for what a layer wraps.
    ///
    /// # Errors
    /// [`io::Error`] of the file.
    pub async fn into_body<'a>(self) -> io::Result<Body<'a>> {
        Ok(match self.place {
            Place::Memory(content) => content.into_inner().into(),
            Place::File(mut file) => {
                file.rewind().await?;
                Body::new(Pieces(ReaderStream::with_capacity(file, BLOCK)))
            }
        })
    }
}

/// The file as content.
struct Pieces(ReaderStream<File>);

impl Stream for Pieces {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|piece| piece.map(|piece| piece.map_err(BodyError::Spool)))
    }
}

impl AsyncRead for Spooled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.place {
            Place::Memory(content) => Pin::new(content).poll_read(cx, buffer),
            Place::File(file) => Pin::new(file).poll_read(cx, buffer),
        }
    }
}

impl AsyncSeek for Spooled {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        match &mut self.place {
            Place::Memory(content) => Pin::new(content).start_seek(position),
            Place::File(file) => Pin::new(file).start_seek(position),
        }
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match &mut self.place {
            Place::Memory(content) => Pin::new(content).poll_complete(cx),
            Place::File(file) => Pin::new(file).poll_complete(cx),
        }
    }
}
