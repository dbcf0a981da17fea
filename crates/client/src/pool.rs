//! Kept connections to one destination.

use std::{fmt, sync::Arc};

use futures_util::stream::{self, Stream};
use posthaste_tokio::wire::{AddressError, Mail, Rcpt};

use crate::{
    ClientOptions, ConnectError, Delivered, Dial, Endpoint, Message, PoolOptions, SendAll, SendError, Source, Target,
    Tcp,
    destination::Destination,
    letter::{Letter, Way},
    send::{addresses, delivered},
    shelf::Budget,
};

/// Sends messages to one destination over connections that are kept for the next message. Clones
/// share them.
///
/// The destination is a server, or several in order. The first that is ready gets the message
/// ([`Race`](crate::Race)). A recipient that it does not take, and does not refuse for good, goes
/// on to the next one. A connection that the server has closed is replaced.
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

pub(crate) struct Shared<D: Dial> {
    servers: Vec<Endpoint>,
    pub(crate) dial: D,
    pub(crate) client: Arc<ClientOptions>,
    pub(crate) destination: Arc<Destination<D::Stream>>,
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
        let budget = Budget::new(limits.at_once());
        let destination = Arc::new(Destination::new(limits, budget));
        Ok(Self(Arc::new(Shared { servers, dial, client: Arc::new(client), destination })))
    }

    /// Sends a message and returns the outcome of each recipient. It waits while all connections
    /// are in use. Addresses are as for [`Client::send`](crate::Client::send).
    ///
    /// If the future is dropped, its connection is closed, and the server may have the message.
    ///
    /// # Errors
    /// [`SendError`]; with [`SendError::Connect`] no server could be reached.
    pub async fn send<M, R>(
        &self,
        from: M,
        to: impl IntoIterator<Item = R>,
        content: impl Source,
    ) -> Result<Delivered, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let (mail, recipients) = addresses(from, to)?;
        let shared = &self.0;
        let permit = shared.destination.permit().await.ok_or(SendError::Closed)?;
        let mut letter = Letter { mail: &mail, recipients: recipients.iter().collect(), source: &content, watch: None };
        let courses = letter.deliver(&shared.way(), permit, shared.targets()).await?;
        Ok(delivered(recipients.into_iter().zip(courses)))
    }

    /// Sends messages over as many connections as the limit allows, without a wait for the reply to
    /// each. Returns the outcomes as they become known, in no order.
    ///
    /// Each connection takes messages as [`Batch`](crate::Batch) says. A recipient that the server
    /// does not take, and does not refuse for good, goes on to the next server as with
    /// [`send`](Self::send). A server that gets confused is remembered for a day
    /// ([`Health`](crate::Health)) and gets one transaction at a time. Messages that it cannot have
    /// are sent again, and those that it may have are not: their recipients are
    /// [`in_doubt`](crate::Recipient::in_doubt).
    ///
    /// Messages are taken from the iterator as connections have room for them.
    ///
    /// ```no_run
    /// use posthaste_client::{ClientOptions, Message, Pool};
    ///
    /// # async fn example(people: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(["smtp.example.net:587"], ClientOptions::new("client.example.org".parse()?))?;
    /// let text = "Subject: hello\r\n\r\nHello!\r\n";
    /// let messages = people.iter().filter_map(|to| Message::new("me@example.org", [to.as_str()], text).ok());
    /// let mut all = pool.send_all(messages);
    /// while let Some((number, sent)) = all.next().await {
    ///     sent?.failed().for_each(|failed| println!("message {number}: {failed}"));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn send_all<'p, C, M>(&'p self, messages: M) -> SendAll<'p>
    where
        C: Source + 'p,
        M: IntoIterator<Item = Message<C>, IntoIter: Send + 'p>,
    {
        self.send_stream(stream::iter(messages))
    }

    /// Sends the messages of a stream as [`send_all`](Self::send_all) does. While the stream has
    /// none, the connections go on.
    pub fn send_stream<'p, C, M>(&'p self, messages: M) -> SendAll<'p>
    where
        C: Source + 'p,
        M: Stream<Item = Message<C>> + Send + 'p,
    {
        SendAll::over(&self.0, messages)
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone. A
    /// message after that is [`SendError::Closed`].
    pub async fn close(&self) {
        self.0.destination.close().await;
    }
}

impl<D: Dial> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("servers", &self.0.servers)
            .field("limits", &self.0.destination.limits)
            .field("unused", &self.0.destination.shelf.len())
            .finish_non_exhaustive()
    }
}

impl<D: Dial> Shared<D> {
    pub(crate) fn way(&self) -> Way<'_, D> {
        Way { destination: &self.destination, dial: &self.dial, options: &self.client }
    }

    /// The addresses of the servers, or their names where the dialer resolves them.
    pub(crate) async fn targets(&self) -> Result<Vec<Target>, ConnectError> {
        let (mut targets, mut last) = (Vec::new(), None);
        for (server, preference) in self.servers.iter().zip((0..=u16::MAX).chain(std::iter::repeat(u16::MAX))) {
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
