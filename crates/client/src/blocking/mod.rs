//! The client for programs without an async runtime.
//!
//! [`Client`], [`Pool`] and [`Mx`] wait where the async ones give a future. They run those on a
//! runtime of their own, so the protocol is the same.
//!
//! ```no_run
//! use posthaste_client::{ClientOptions, blocking::Client};
//!
//! let options = ClientOptions::new("client.example.org".parse()?);
//! let mut client = Client::connect("mx.example.net:25", &options)?;
//! let sent = client.send("me@example.org", ["you@example.net"], "Subject: hello\r\n\r\nHello!\r\n")?;
//! sent.failed().for_each(|failed| println!("{failed}"));
//! client.quit();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod mx;

use std::{
    io::{self, Read},
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use posthaste_tokio::{
    Content,
    wire::{AddressError, Capabilities, Mail, Rcpt},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Handle, Runtime},
    task::coop::poll_proceed,
};

pub use mx::Mx;

use crate::{
    ClientOptions, ConnectError, Delivered, Dial, Endpoint, Message, PoolOptions, SendError, Sent, Source, Tcp,
};

/// A connection on which transactions can be made, one after another.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    client: crate::Client<S>,
    runtime: Own,
}

/// Sends messages to one destination over kept connections. Clones share them. See
/// [`Pool`](crate::Pool).
///
/// A thread of its own closes the unused connections when their time is over.
#[derive(Debug)]
pub struct Pool<D: Dial = Tcp> {
    pool: crate::Pool<D>,
    runtime: Arc<Own>,
}

impl<D: Dial> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), runtime: Arc::clone(&self.runtime) }
    }
}

/// A runtime that ends without waiting for its tasks, so that it may be dropped anywhere.
#[derive(Debug)]
struct Own(Option<Runtime>);

/// Content from a [`Read`], such as a file. Its lines end in CRLF; [`Text`](crate::Text) around it
/// takes those that end in LF.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    piece: Vec<u8>,
}

/// The size of the pieces that are read.
const PIECE: usize = 64 * 1_024;

impl Client {
    /// Connects to a server, as [`crate::Client::connect`].
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Async`] in a task of an async runtime.
    pub fn connect<E>(server: E, options: &ClientOptions) -> Result<Self, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        Self::connect_by(&Tcp::default(), server, options)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Connects over a stream that the dialer makes, as [`crate::Client::connect_by`].
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::Async`] in a task of an async runtime.
    pub fn connect_by<D, E>(dial: &D, server: E, options: &ClientOptions) -> Result<Self, ConnectError>
    where
        D: Dial<Stream = S>,
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let runtime = Own::new(Builder::new_current_thread())?;
        let client = runtime.wait(crate::Client::connect_by(dial, server, options))??;
        Ok(Self { client, runtime })
    }

    /// Sends a message and returns the outcome of each recipient, as [`crate::Client::send`].
    ///
    /// # Errors
    /// [`SendError`]; [`ConnectError::Async`] in a task of an async runtime.
    pub fn send<M, R>(
        &mut self,
        from: M,
        to: impl IntoIterator<Item = R>,
        content: impl Content,
    ) -> Result<Sent, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        self.runtime.wait(self.client.send(from, to, content))?
    }

    /// Sends messages, one after another, without a wait for the reply to each, as
    /// [`crate::Client::send_all`]. The iterator waits for the outcome of the next message, and
    /// yields it with the message's place, counted from 0.
    ///
    /// The only error is [`ConnectError::Async`], in a task of an async runtime. It is the last
    /// item.
    ///
    /// ```no_run
    /// use posthaste_client::{ClientOptions, Message, blocking::Client};
    ///
    /// # fn example(people: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// let options = ClientOptions::new("client.example.org".parse()?);
    /// let mut client = Client::connect("mx.example.net:25", &options)?;
    /// let text = "Subject: hello\r\n\r\nHello!\r\n";
    /// let messages = people.iter().filter_map(|to| Message::new("me@example.org", [to.as_str()], text).ok());
    /// for (number, sent) in client.send_all(messages) {
    ///     sent?.failed().for_each(|failed| println!("message {number}: {failed}"));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn send_all<C, M>(&mut self, messages: M) -> impl Iterator<Item = (usize, Result<Sent, SendError>)>
    where
        S: Send,
        C: Content,
        M: IntoIterator<Item = Message<C>>,
    {
        let Self { client, runtime } = self;
        let mut batch = client.send_all(messages);
        outcomes(move || {
            let next = runtime.wait(batch.next())?;
            Ok(next.map(|(number, sent)| (number, Ok(sent))))
        })
    }

    /// The extensions that the server offered in its last reply to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        self.client.capabilities()
    }

    /// Returns `true` if the connection has TLS.
    pub fn is_tls(&self) -> bool {
        self.client.is_tls()
    }

    /// Sends QUIT and closes the connection, as [`crate::Client::quit`]. In a task of an async
    /// runtime it just closes.
    pub fn quit(self) {
        let _ = self.runtime.wait(self.client.quit());
    }
}

impl Pool {
    /// Makes a pool for one server, or for several in the order in which they are to be used. It
    /// connects when the first message comes.
    ///
    /// # Errors
    /// [`EndpointError`](crate::EndpointError) as [`ConnectError::Endpoint`], and
    /// [`ConnectError::Runtime`].
    pub fn new<E>(servers: impl IntoIterator<Item = E>, client: ClientOptions) -> Result<Self, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        Self::with(servers, client, PoolOptions::default(), Tcp::default())
    }
}

impl<D: Dial> Pool<D> {
    /// Makes a pool with limits and streams of your own, as [`crate::Pool::with`].
    ///
    /// # Errors
    /// As [`new`](Pool::new).
    pub fn with<E>(
        servers: impl IntoIterator<Item = E>,
        client: ClientOptions,
        limits: PoolOptions,
        dial: D,
    ) -> Result<Self, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let pool = crate::Pool::with(servers, client, limits, dial)?;
        Ok(Self { pool, runtime: Own::with_a_thread("smtp-pool")? })
    }

    /// Sends a message, as [`crate::Pool::send`]. Several threads may call it at once.
    ///
    /// # Errors
    /// [`SendError`]; [`ConnectError::Async`] in a task of an async runtime.
    pub fn send<M, R>(
        &self,
        from: M,
        to: impl IntoIterator<Item = R>,
        content: impl Source,
    ) -> Result<Delivered, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        self.runtime.wait(self.pool.send(from, to, content))?
    }

    /// Sends messages over as many connections as the limit allows, as [`crate::Pool::send_all`].
    /// The iterator waits for the next outcome, and yields it with the message's place, counted
    /// from 0. The connections go on only while it waits.
    ///
    /// Between two outcomes do not send over the same pool: the batch may have all its connections,
    /// and the call would wait for one of them for ever. Finish the iterator first, or use another
    /// pool.
    ///
    /// In a task of an async runtime the only item is [`ConnectError::Async`].
    pub fn send_all<'p, C, M>(
        &'p self,
        messages: M,
    ) -> impl Iterator<Item = (usize, Result<Delivered, SendError>)> + use<'p, C, M, D>
    where
        C: Source + 'p,
        M: IntoIterator<Item = Message<C>, IntoIter: Send + 'p>,
    {
        let mut all = self.pool.send_all(messages);
        outcomes(move || self.runtime.wait(all.next()))
    }

    /// Closes the connections, as [`crate::Pool::close`]. In a task of an async runtime it does
    /// nothing; dropping the pool closes them without QUIT.
    pub fn close(&self) {
        let _ = self.runtime.wait(self.pool.close());
    }
}

/// The outcomes that `next` waits for. If it cannot wait, that is the last of them.
fn outcomes<T>(
    mut next: impl FnMut() -> Result<Option<(usize, Result<T, SendError>)>, ConnectError>,
) -> impl Iterator<Item = (usize, Result<T, SendError>)> {
    let (mut is_over, mut told) = (false, 0_usize);
    iter::from_fn(move || {
        if is_over {
            return None;
        }
        let item = next().unwrap_or_else(|error| {
            is_over = true;
            Some((told, Err(error.into())))
        });
        is_over |= item.is_none();
        told = told.saturating_add(1);
        item
    })
}

impl<R: Read + Send> Reader<R> {
    /// Takes content from here.
    pub fn new(from: R) -> Self {
        Self { from, piece: Vec::new() }
    }
}

impl<R: Read + Send + Unpin> Content for Reader<R> {
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Self { from, piece } = &mut *self;
        piece.resize(PIECE, 0);
        loop {
            match from.read(piece) {
                Ok(0) => return Poll::Ready(None),
                Ok(octets) => {
                    piece.truncate(octets);
                    return Poll::Ready(Some(Ok(Bytes::from(std::mem::take(piece)))));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Own {
    fn new(mut builder: Builder) -> Result<Self, ConnectError> {
        builder.enable_all().build().map(|runtime| Self(Some(runtime))).map_err(ConnectError::Runtime)
    }

    /// With a thread on which connections are closed.
    fn with_a_thread(name: &str) -> Result<Arc<Self>, ConnectError> {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).thread_name(name);
        Self::new(runtime).map(Arc::new)
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, ConnectError> {
        match &self.0 {
            // A task of a runtime must not wait for another one.
            Some(runtime) if !is_in_task() => Ok(runtime.block_on(work)),
            _ => Err(ConnectError::Async),
        }
    }
}

/// Returns `true` in a task of an async runtime. It is not in `spawn_blocking` and
/// `block_in_place`, which have no budget that would end.
fn is_in_task() -> bool {
    let mut context = Context::from_waker(Waker::noop());
    // Each takes a unit of the budget and gives it back.
    let taken: Vec<_> = (0..=u8::MAX).map(|_| poll_proceed(&mut context)).collect();
    Handle::try_current().is_ok() && taken.iter().any(Poll::is_pending)
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
