//! Delivers to the mail hosts of domains.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use posthaste_tokio::wire::{AddressError, Domain, ForwardPath, Mail, Rcpt};
use tokio::sync::Semaphore;

use crate::{
    ClientOptions, Delivered, Dial, PoolOptions, Published, RecipientOutcome, Resolver, SendError, Source, Tcp,
    Unreachable,
    delivery::Course,
    destination::Destination,
    letter::{Letter, Watch, Way},
    mx::{self, Demand, MxError},
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
    pub deliveries: usize,
    /// The domains of one message that are served at once. Default 20. 0 counts as 1.
    pub domains: usize,
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

struct Shared<R, D: Dial> {
    resolver: R,
    dial: D,
    client: Arc<ClientOptions>,
    options: MxOptions,
    /// Bounds the connections that are kept for all destinations.
    budget: Budget,
    destinations: Mutex<Destinations<D::Stream>>,
    /// A permit for each delivery under way.
    permits: Semaphore,
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
        let deliveries = options.deliveries.clamp(1, Semaphore::MAX_PERMITS);
        let (budget, permits) = (Budget::new(deliveries), Semaphore::new(deliveries));
        let (client, destinations) = (Arc::new(client), Mutex::default());
        Self(Arc::new(Shared { resolver, dial, client, options, budget, destinations, permits }))
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
        let mut domains: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, rcpt) in recipients.iter().enumerate() {
            domains.entry(domain(&rcpt.forward_path)).or_default().push(index);
        }
        let mut courses = Vec::new();
        courses.resize_with(recipients.len(), Course::default);
        let mut waiting = domains.into_iter();
        let (mut running, at_once) = (FuturesUnordered::new(), self.0.options.domains.max(1));
        loop {
            while running.len() < at_once
                && let Some((domain, group)) = waiting.next()
            {
                let recipients = group.iter().filter_map(|index| recipients.get(*index)).collect();
                let (mail, content) = (&mail, &content);
                running.push(async move { (self.0.deliver(&domain, mail, recipients, content).await, group) });
            }
            let Some((outcomes, group)) = running.next().await else { break };
            match outcomes {
                Ok(outcomes) => {
                    group.into_iter().zip(outcomes).for_each(|(index, course)| set(&mut courses, index, course))
                }
                Err(why) => {
                    let outcome = RecipientOutcome::Unreachable(Arc::new(why));
                    for index in group {
                        let course = Course { outcome: Some(outcome.clone()), ..Course::default() };
                        set(&mut courses, index, course);
                    }
                }
            }
        }
        drop(running);
        Ok(delivered(recipients.into_iter().zip(courses)))
    }

    /// Closes the unused connections with QUIT, and those in use when their message has gone. New
    /// messages make new connections.
    pub async fn close(&self) {
        let destinations = std::mem::take(&mut *self.0.destinations());
        let closing: FuturesUnordered<_> = destinations.values().map(|destination| destination.close()).collect();
        closing.collect().await
    }
}

impl<R: Resolver, D: Dial> Shared<R, D> {
    /// Delivers to the hosts of one domain.
    async fn deliver<C: Source>(
        &self,
        domain: &str,
        mail: &Mail,
        recipients: Vec<&Rcpt>,
        source: &C,
    ) -> Result<Vec<Course>, Unreachable> {
        let name = Domain::parse(domain).map_err(|_| MxError::NoHost)?;
        let (options, own_name) = (&self.options, self.client.hello.as_str());
        let policies = (&options.published, &self.client.tls);
        let to = (options.port, options.allow_private);
        let servers = mx::servers_of_domain(&self.resolver, &name, own_name, to, policies).await?;
        if servers.targets.is_empty() {
            // A temporary reason counts more.
            let temporary = servers.missing.iter().find(|(_, why)| why.is_transient());
            let why = temporary.or(servers.missing.first()).map_or(MxError::NoHost, |(_, why)| why.clone());
            return Err(why.into());
        }
        let key = servers.demands();
        let (destination, permit) = loop {
            let destination = self.destination(key.clone());
            match destination.permit().await {
                Some(permit) => break (destination, permit),
                // It was closed in the meantime.
                None => self.forget(&key),
            }
        };
        // The semaphore is never closed.
        let _one = self.permits.acquire().await;
        let watch = Some(Watch { published: &options.published, domain, servers: &servers });
        let mut letter = Letter { mail, recipients, source, watch };
        let targets = async { Ok(servers.targets.clone()) };
        let to = Way { destination: &destination, dial: &self.dial, options: &self.client };
        Ok(letter.deliver(&to, permit, targets).await?)
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
