//! Delivers to the mail hosts of domains.

use std::{
    collections::HashMap,
    fmt,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    task::Poll,
};

use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered, Stream},
};
use posthaste_tokio::wire::{AddressError, Domain, ForwardPath, Mail, Rcpt};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    ClientOptions, Delivered, Dial, Message, PoolOptions, Published, RecipientOutcome, Resolver, SendAll, SendError,
    Source, Tcp, Unreachable,
    delivery::Course,
    destination::Destination,
    letter::{Letter, Watch, Way},
    mx::{self, Demand, MxError, Servers},
    places::{Place, Places},
    port,
    send::{addresses, delivered},
    shelf::Budget,
};

/// The options of an [`Mx`]. Start from [`default`](Self::default) and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MxOptions {
    /// The limits of the connections to one destination: to the hosts of one domain, and of all
    /// domains that name the same hosts.
    pub destination: PoolOptions,
    /// The deliveries that are under way at once, to all destinations together. Default 200. Beyond
    /// it a message waits. As many connections are kept unused. 0 counts as 1.
    ///
    /// A delivery that has no server ready after 200 ms gives its place to another, and goes on
    /// beside them. As many may do so: with 400 of them under way, a silent server keeps its place.
    pub deliveries: usize,
    /// The domains of one message that are served at once. Default 20. 0 counts as 1. A domain
    /// whose look-up and servers are silent for 200 ms gives its place to another, as long as no
    /// more than [`deliveries`](Self::deliveries) have done so.
    pub domains: usize,
    /// The messages of a [batch](Mx::send_all) that have no outcome yet. Default 1,000. Beyond it
    /// none is taken from the iterator: each is in memory, and may have its content there. A server
    /// that is silent holds up others only with as many messages of its own. 0 counts as 1.
    pub messages: usize,
    /// The port of the hosts. Default 25.
    pub port: u16,
    /// `true`: DNS may name addresses that are not [public](mx::is_public), such as loopback.
    /// Default `false`: the owner of a domain must not be able to point this client at its own
    /// network.
    pub allow_private: bool,
    /// The published policies about TLS that are followed. Default: none.
    pub published: Published,
}

impl Default for MxOptions {
    fn default() -> Self {
        Self {
            destination: PoolOptions::default(),
            deliveries: 200,
            domains: 20,
            messages: 1_000,
            port: port::SMTP,
            allow_private: false,
            published: Published::default(),
        }
    }
}

/// Sends messages to the mail hosts of their recipients' domains (RFC 5321 section 5.1), over
/// connections that are kept for the next message. Clones share them.
///
/// A domain's hosts are tried in the order of their preference, at random within one, and those
/// that failed lately last ([`Health`](crate::Health)). The first that is ready gets the message
/// ([`Race`](crate::Race)). A recipient that it does not take, and does not refuse for good, goes
/// on to the next one. There is no queue: what is temporary is an outcome, and is tried again by
/// who sends it again.
///
/// Names from DNS without DNSSEC prove nothing, so [`ClientOptions::tls`] is used
/// [unproven](crate::Tls::unproven). With [`MxOptions::published`] the TLS of a host is what DANE
/// or MTA-STS demand.
///
/// ```no_run
/// # #[cfg(feature = "hickory")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use posthaste_client::{ClientOptions, HickoryResolver, Mx, Tls};
///
/// let mut options = ClientOptions::new("mail.example.org".parse()?);
/// options.tls = Tls::opportunistic()?;
/// let mx = Mx::new(HickoryResolver::system()?, options);
/// let message = "Subject: hello\r\n\r\nHello!\r\n";
/// let delivered = mx.send("me@example.org", ["one@example.net", "two@example.com"], message).await?;
/// for failed in delivered.failed() {
///     println!("{failed}; try again: {}", !failed.is_permanent());
/// }
/// # Ok(()) }
/// ```
pub struct Mx<R, D: Dial = Tcp>(Arc<Shared<R, D>>);

impl<R, D: Dial> Clone for Mx<R, D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) struct Shared<R, D: Dial> {
    resolver: R,
    pub(crate) dial: D,
    pub(crate) client: Arc<ClientOptions>,
    pub(crate) options: MxOptions,
    /// Bounds the connections that are kept for all destinations.
    budget: Budget,
    destinations: Mutex<Destinations<D::Stream>>,
    /// For the deliveries under way.
    places: Places,
}

/// The right to use a connection to a destination.
pub(crate) struct Entered<'e, S> {
    pub(crate) destination: Arc<Destination<S>>,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) place: Place<'e>,
}

/// By the hosts of a domain and the TLS that each needs.
type Destinations<S> = HashMap<Vec<Demand>, Arc<Destination<S>>>;

/// The most destinations with kept connections. Beyond it, those without a connection are
/// forgotten.
const DESTINATIONS: usize = 1_024;

impl<R: Resolver> Mx<R> {
    /// Makes one with the default options. It looks nothing up before the first message.
    pub fn new(resolver: R, client: ClientOptions) -> Self {
        Self::with(resolver, client, MxOptions::default(), Tcp::default())
    }
}

impl<R: Resolver, D: Dial> Mx<R, D> {
    /// Makes one with options and streams of your own.
    pub fn with(resolver: R, mut client: ClientOptions, options: MxOptions, dial: D) -> Self {
        client.tls = client.tls.unproven();
        let deliveries = options.deliveries.max(1);
        let (budget, places) = (Budget::new(deliveries), Places::new(deliveries, deliveries));
        let (client, destinations) = (Arc::new(client), Mutex::default());
        Self(Arc::new(Shared { resolver, dial, client, options, budget, destinations, places }))
    }

    /// Sends a message to the hosts of each recipient's domain, and returns the outcome of each
    /// recipient. Addresses are as for [`Client::send`](crate::Client::send). A message to several
    /// domains opens the content for each.
    ///
    /// If the future is dropped, its connections are closed, and servers may have the message.
    ///
    /// # Errors
    /// [`SendError`]. A domain without a host, or whose hosts cannot be reached, is an outcome:
    /// [`RecipientOutcome::Unreachable`].
    pub async fn send<M, T>(
        &self,
        from: M,
        to: impl IntoIterator<Item = T>,
        content: impl Source,
    ) -> Result<Delivered, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        T: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let (mail, recipients) = addresses(from, to)?;
        let mut courses = Vec::new();
        courses.resize_with(recipients.len(), Course::default);
        let places = Places::new(self.0.options.domains, self.0.options.deliveries);
        let mut waiting = by_domain(&recipients).into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            let next = {
                let mut entering = pin!(places.enter());
                poll_fn(|context| match running.poll_next_unpin(context) {
                    Poll::Ready(Some((courses, group))) => Poll::Ready(Next::Done(courses, group)),
                    Poll::Ready(None) if waiting.len() == 0 => Poll::Ready(Next::End),
                    _ if waiting.len() == 0 => Poll::Pending,
                    _ => entering.as_mut().poll(context).map(Next::Place),
                })
                .await
            };
            match next {
                Next::Done(done, group) => {
                    group.into_iter().zip(done).for_each(|(index, course)| set(&mut courses, index, course));
                }
                Next::Place(mut place) => {
                    let Some((domain, group)) = waiting.next() else { continue };
                    let (mail, content, recipients) = (&mail, &content, &recipients);
                    running.push(async move {
                        let is_ready = AtomicBool::new(false);
                        let named: Vec<_> = group.iter().filter_map(|index| recipients.get(*index)).collect();
                        let delivering = self.0.deliver(&domain, mail, named, content, &is_ready);
                        let outcomes = place.hold(&is_ready, delivering).await;
                        (outcomes.unwrap_or_else(|why| unreachable(&Arc::new(why), group.len())), group)
                    });
                }
                Next::End => break,
            }
        }
        drop(running);
        Ok(delivered(recipients.into_iter().zip(courses)))
    }

    /// Sends messages to the hosts of their recipients' domains, without a wait for the reply to
    /// each. Returns the outcomes as they become known, in no order.
    ///
    /// Each domain is looked up once a minute. Its messages go to its hosts, and those of all
    /// domains that name the same hosts, over the same connections, as [`Batch`](crate::Batch)
    /// says. There is one connection, and one more for every 4 messages that wait, up to the
    /// [limit](PoolOptions::connections). A recipient that no server has taken, or refused for
    /// good, goes on to the next host as with [`send`](Self::send). A message to several domains
    /// opens the content for each, and has its outcome when the last of them has.
    ///
    /// No domain waits for another. If the hosts of a domain cannot be reached, that is the outcome
    /// of all messages that wait for it, and of those that come within a minute. What bounds a
    /// batch is in [`MxOptions::messages`], [`MxOptions::deliveries`] and
    /// [`MxOptions::destination`]. At most 100 look-ups are under way, and 900 beside them that
    /// have been silent for 200 ms.
    ///
    /// If it is dropped, its connections are closed, and servers may have messages without an
    /// outcome. A message without recipients is [`SendError::NoRecipient`], the only error.
    ///
    /// ```no_run
    /// # #[cfg(feature = "hickory")]
    /// # async fn example(people: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// use posthaste_client::{ClientOptions, HickoryResolver, Message, Mx};
    ///
    /// let mx = Mx::new(HickoryResolver::system()?, ClientOptions::new("mail.example.org".parse()?));
    /// let text = "Subject: hello\r\n\r\nHello!\r\n";
    /// let messages = people.iter().filter_map(|to| Message::new("me@example.org", [to.as_str()], text).ok());
    /// let mut all = mx.send_all(messages);
    /// while let Some((number, sent)) = all.next().await {
    ///     sent?.failed().for_each(|failed| println!("message {number}: {failed}"));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn send_all<'m, C, M>(&'m self, messages: M) -> SendAll<'m>
    where
        C: Source + 'm,
        M: IntoIterator<Item = Message<C>, IntoIter: Send + 'm>,
    {
        self.send_stream(stream::iter(messages))
    }

    /// Sends the messages of a stream as [`send_all`](Self::send_all) does. While the stream has
    /// none, the connections go on.
    pub fn send_stream<'m, C, M>(&'m self, messages: M) -> SendAll<'m>
    where
        C: Source + 'm,
        M: Stream<Item = Message<C>> + Send + 'm,
    {
        SendAll::by_domain(&self.0, messages)
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone. New
    /// messages make new connections.
    pub async fn close(&self) {
        let destinations = std::mem::take(&mut *self.0.destinations());
        let closing: FuturesUnordered<_> = destinations.values().map(|destination| destination.close()).collect();
        closing.collect().await
    }
}

/// What a message to several domains does next.
enum Next<'p> {
    /// Recipients have their outcomes.
    Done(Vec<Course>, Vec<usize>),
    Place(Place<'p>),
    End,
}

impl<R: Resolver, D: Dial> Shared<R, D> {
    /// Delivers to the hosts of one domain.
    async fn deliver<C: Source>(
        &self,
        domain: &str,
        mail: &Mail,
        recipients: Vec<&Rcpt>,
        source: &C,
        is_ready: &AtomicBool,
    ) -> Result<Vec<Course>, Unreachable> {
        let servers = self.look_up(domain).await?;
        let Entered { destination, permit, mut place } = self.enter(&servers.demands()).await;
        let watch = Some(Watch { published: &self.options.published, domain, servers: &servers, is_ready });
        let mut letter = Letter { mail, recipients, source, watch };
        let targets = async { Ok(servers.targets.clone()) };
        let to = Way { destination: &destination, dial: &self.dial, options: &self.client };
        Ok(place.hold(is_ready, letter.deliver(&to, permit, targets)).await?)
    }

    /// Looks up the servers of a domain, at least one.
    pub(crate) async fn look_up(&self, domain: &str) -> Result<Servers, MxError> {
        let name = Domain::parse(domain).map_err(|_| MxError::NoHost)?;
        let (options, own_name) = (&self.options, self.client.hello.as_str());
        let policies = (&options.published, &self.client.tls);
        let to = (options.port, options.allow_private);
        let servers = mx::servers_of_domain(&self.resolver, &name, own_name, to, policies).await?;
        if servers.targets.is_empty() {
            // A temporary reason counts more.
            let temporary = servers.missing.iter().find(|(_, why)| why.is_transient());
            return Err(temporary.or(servers.missing.first()).map_or(MxError::NoHost, |(_, why)| why.clone()));
        }
        Ok(servers)
    }

    /// Waits for the right to use a connection to these hosts.
    pub(crate) async fn enter(&self, hosts: &[Demand]) -> Entered<'_, D::Stream> {
        let (destination, permit) = loop {
            let destination = self.destination(hosts.to_vec());
            match destination.permit().await {
                Some(permit) => break (destination, permit),
                // It was closed in the meantime.
                None => self.forget(hosts),
            }
        };
        Entered { destination, permit, place: self.places.enter().await }
    }

    fn destination(&self, hosts: Vec<Demand>) -> Arc<Destination<D::Stream>> {
        let mut known = self.destinations();
        if known.len() >= DESTINATIONS && !known.contains_key(&hosts) {
            known.retain(|_, destination| !destination.is_empty());
        }
        let make = || Arc::new(Destination::new(self.options.destination.clone(), self.budget.clone()));
        Arc::clone(known.entry(hosts).or_insert_with(make))
    }

    fn forget(&self, hosts: &[Demand]) {
        self.destinations().remove(hosts);
    }

    fn destinations(&self) -> MutexGuard<'_, Destinations<D::Stream>> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places of the recipients of each domain.
pub(crate) fn by_domain(recipients: &[Rcpt]) -> HashMap<String, Vec<usize>> {
    let mut domains: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, rcpt) in recipients.iter().enumerate() {
        domains.entry(domain(&rcpt.forward_path)).or_default().push(index);
    }
    domains
}

/// The courses of this number of recipients whose servers cannot be reached.
pub(crate) fn unreachable(why: &Arc<Unreachable>, recipients: usize) -> Vec<Course> {
    let course = || Course { outcome: Some(RecipientOutcome::Unreachable(Arc::clone(why))), ..Course::default() };
    std::iter::repeat_with(course).take(recipients).collect()
}

/// The domain of a recipient, in lower case. `<Postmaster>` has none.
fn domain(path: &ForwardPath) -> String {
    path.mailbox().map_or_else(String::new, |mailbox| mailbox.domain().as_str().to_ascii_lowercase())
}

fn set(courses: &mut [Course], index: usize, course: Course) {
    if let Some(known) = courses.get_mut(index) {
        *known = course;
    }
}

impl<R, D: Dial> fmt::Debug for Mx<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mx").field("options", &self.0.options).finish_non_exhaustive()
    }
}
