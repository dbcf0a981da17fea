//! Kept connections to one destination.

use std::{
    fmt, io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use posthaste_tokio::{
    Content,
    wire::{AddressError, Mail, Rcpt},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use crate::{Client, ClientOptions, ConnectError, Dial, Endpoint, Race, SendError, Sent, Target, Tcp, send::addresses};

/// The limits of a [`Pool`]. Start from [`default`](Self::default) and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Connections at once, in use or kept. Default 10. Beyond it a message waits for one. 0 counts
    /// as 1. An unused connection whose time is over, and which waits for the reply to QUIT, is not
    /// counted.
    pub connections: usize,
    /// How long an unused connection is kept. Default 10 s. It is closed with QUIT then.
    pub idle: Duration,
    /// Messages on one connection. Default 100, which most servers allow. Beyond it the connection
    /// is closed with QUIT, and the next message goes over another.
    pub messages: u32,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { connections: 10, idle: Duration::from_secs(10), messages: 100 }
    }
}

/// Sends messages to one destination over connections that are kept for the next message. Clones
/// share them.
///
/// The destination is a server, or several in order: the first that is ready gets the message, see
/// [`Race`]. A connection that the server has closed is replaced before the message begins. So is
/// one that the server ends before the content, by closing it or with a 421.
///
/// ```no_run
/// use posthaste_client::{ClientOptions, Pool};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(["smtp.example.net:587"], ClientOptions::new("client.example.org".parse()?))?;
/// for to in ["one@example.net", "two@example.net"] {
///     let sent = pool.send("me@example.org", [to], "Subject: hello\r\n\r\nHello!\r\n").await?;
///     sent.failed().for_each(|failed| println!("{failed}"));
/// }
/// pool.close().await;
/// # Ok(()) }
/// ```
pub struct Pool<D: Dial = Tcp>(Arc<Shared<D>>);

impl<D: Dial> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<D: Dial> {
    servers: Vec<Endpoint>,
    dial: D,
    client: Arc<ClientOptions>,
    limits: PoolOptions,
    /// A permit for each connection that may be in use.
    permits: Arc<Semaphore>,
    unused: Mutex<Unused<D::Stream>>,
}

struct Unused<S> {
    /// The one that was used last is at the end, and is used first.
    connections: Vec<Kept<S>>,
    /// A task closes connections when their time is over.
    is_watched: bool,
    is_closed: bool,
}

struct Kept<S> {
    client: Client<S>,
    messages: u32,
    until: Instant,
}

impl Pool<Tcp> {
    /// Makes a pool for one server, or for several in the order in which they are to be used. It
    /// connects when the first message comes.
    ///
    /// # Errors
    /// [`EndpointError`](crate::EndpointError), or another error of the conversion into an
    /// [`Endpoint`].
    pub fn new<E: TryInto<Endpoint>>(
        servers: impl IntoIterator<Item = E>,
        client: ClientOptions,
    ) -> Result<Self, E::Error> {
        Self::with(servers, client, PoolOptions::default(), Tcp::default())
    }
}

impl<D: Dial> Pool<D> {
    /// Makes a pool with limits and streams of your own.
    ///
    /// # Errors
    /// As [`new`](Pool::new).
    pub fn with<E: TryInto<Endpoint>>(
        servers: impl IntoIterator<Item = E>,
        client: ClientOptions,
        limits: PoolOptions,
        dial: D,
    ) -> Result<Self, E::Error> {
        let servers = servers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let permits = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let unused = Mutex::new(Unused { connections: Vec::new(), is_watched: false, is_closed: false });
        Ok(Self(Arc::new(Shared { servers, dial, client: Arc::new(client), limits, permits, unused })))
    }

    /// Sends a message and returns the outcome of each recipient, as
    /// [`Client::send`](crate::Client::send). It waits while all connections are in use.
    ///
    /// If the future is dropped, its connection is closed, and the server may have the message.
    ///
    /// # Errors
    /// [`SendError`]; with [`SendError::Connect`] no server could be reached.
    pub async fn send<M, R>(
        &self,
        from: M,
        to: impl IntoIterator<Item = R>,
        content: impl Content,
    ) -> Result<Sent, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let (mail, recipients) = addresses(from, to)?;
        let shared = &self.0;
        let mut content = Watched { content: pin!(content), is_begun: false };
        let permit = Arc::clone(&shared.permits).acquire_owned().await.map_err(|_| SendError::Closed)?;
        while let Some(mut kept) = shared.take() {
            let sent = kept.client.send(mail.clone(), recipients.iter().cloned(), &mut content).await?;
            if content.is_begun || !sent.says_nothing() {
                self.give_back(kept, &sent, permit);
                return Ok(sent);
            }
        }
        let targets = shared.targets().await?;
        let mut race = Race::new(&targets, shared.dial.clone(), Arc::clone(&shared.client));
        let mut last = None;
        while let Some((_, client)) = race.next().await {
            let mut kept = Kept { client, messages: 0, until: Instant::now() };
            let sent = kept.client.send(mail.clone(), recipients.iter().cloned(), &mut content).await?;
            if content.is_begun || !sent.says_nothing() {
                self.give_back(kept, &sent, permit);
                return Ok(sent);
            }
            last = Some(sent);
        }
        let failed = race.failed().pop().map_or(ConnectError::NoAddress, |(_, error)| error);
        last.ok_or(SendError::Connect(failed))
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone. A
    /// message after that is [`SendError::Closed`].
    pub async fn close(&self) {
        self.0.permits.close();
        let connections = {
            let mut unused = self.0.unused();
            unused.is_closed = true;
            std::mem::take(&mut unused.connections)
        };
        let closing: Vec<_> = connections.into_iter().map(|kept| tokio::spawn(kept.client.quit())).collect();
        for one in closing {
            // Only an aborted task is an error, and its connection is closed.
            let _ = one.await;
        }
    }

    /// Keeps a connection for the next message, or closes it.
    fn give_back(&self, mut kept: Kept<D::Stream>, sent: &Sent, permit: OwnedSemaphorePermit) {
        if sent.broken.is_some() {
            return;
        }
        kept.messages = kept.messages.saturating_add(1);
        let mut unused = self.0.unused();
        let is_worn = kept.messages >= self.0.limits.messages || self.0.limits.idle.is_zero();
        if unused.is_closed || is_worn || !kept.client.is_usable() {
            drop(unused);
            tokio::spawn(async move {
                kept.client.quit().await;
                // Not before, so that the server never has more connections than the limit.
                drop(permit);
            });
            return;
        }
        kept.until = far(self.0.limits.idle);
        unused.connections.push(kept);
        if !std::mem::replace(&mut unused.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(&self.0)));
        }
    }
}

impl<D: Dial> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("servers", &self.0.servers)
            .field("limits", &self.0.limits)
            .field("unused", &self.0.unused().connections.len())
            .finish_non_exhaustive()
    }
}

impl<D: Dial> Shared<D> {
    fn unused(&self) -> MutexGuard<'_, Unused<D::Stream>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection that was used last of those that the server has not closed.
    fn take(&self) -> Option<Kept<D::Stream>> {
        loop {
            let mut kept = self.unused().connections.pop()?;
            if kept.client.is_usable() {
                return Some(kept);
            }
        }
    }

    /// The addresses of the servers, or their names where the dialer resolves them.
    async fn targets(&self) -> Result<Vec<Target>, ConnectError> {
        let (mut targets, mut last) = (Vec::new(), None);
        for (server, preference) in self.servers.iter().zip(0_u16..) {
            match Target::all(server, preference, &self.dial, self.client.connect_timeout).await {
                Ok(all) => targets.extend(all),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if targets.is_empty() => Err(error),
            _ => Ok(targets),
        }
    }
}

/// Closes connections whose time is over. Ends when there is none.
async fn watch<D: Dial>(pool: Weak<Shared<D>>) {
    loop {
        let next = {
            let Some(shared) = pool.upgrade() else { return };
            let mut unused = shared.unused();
            let now = Instant::now();
            let (over, left) = std::mem::take(&mut unused.connections).into_iter().partition(|kept| kept.until <= now);
            unused.connections = left;
            for kept in Vec::<Kept<D::Stream>>::into_iter(over) {
                tokio::spawn(kept.client.quit());
            }
            let Some(next) = unused.connections.iter().map(|kept| kept.until).min() else {
                unused.is_watched = false;
                return;
            };
            next
        };
        sleep_until(next).await;
    }
}

/// The end of this time. A year, which is never, if the clock cannot say it.
fn far(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + time.min(YEAR)
}

/// Content of which it is known if any of it was read.
struct Watched<'c, C> {
    content: Pin<&'c mut C>,
    is_begun: bool,
}

impl<C: Content> Content for Watched<'_, C> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.is_begun = true;
        self.content.as_mut().poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        self.content.length()
    }
}
