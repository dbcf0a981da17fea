//! Delivers to the mail hosts of domains.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use posthaste_tokio::wire::{AddressError, Domain, ForwardPath, Mail, Rcpt};

use crate::{
    ClientOptions, ConnectError, Delivered, Dial, MxRecord, PoolOptions, RecipientOutcome, Resolver, SendError, Source,
    Target, Tcp, Unreachable,
    delivery::Course,
    kept::Shelf,
    letter::{Destination, Letter},
    mx::{self, MxError},
    port,
    send::{addresses, delivered},
};

/// The options of an [`Mx`]. Start from [`default`](Self::default) and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MxOptions {
    /// The limits of the connections to one destination: to the hosts of one domain, and of all
    /// domains that name the same hosts.
    pub destination: PoolOptions,
    /// The domains of one message that are served at once. Default 20. 0 counts as 1.
    pub domains: usize,
    /// The port of the hosts. Default 25.
    pub port: u16,
    /// `true`: DNS may name addresses that are not [public](mx::is_public), such as loopback.
    /// Default `false`: the owner of a domain must not be able to point this client at its own
    /// network.
    pub allow_private: bool,
}

impl Default for MxOptions {
    fn default() -> Self {
        Self { destination: PoolOptions::default(), domains: 20, port: port::SMTP, allow_private: false }
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
/// [unproven](crate::Tls::unproven).
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
    shelves: Mutex<Shelves<D::Stream>>,
}

/// Kept connections, by the hosts of a domain in alphabetical order.
type Shelves<S> = HashMap<Vec<String>, Arc<Shelf<S>>>;

/// The most destinations with kept connections. Beyond it, those without a connection are
/// forgotten.
const DESTINATIONS: usize = 1_024;

impl<R: Resolver> Mx<R> {
    /// Makes one with the default options. It looks nothing up before the first message.
    pub fn new(resolver: R, client: ClientOptions) -> Self {
        Self::with(resolver, client, MxOptions::default(), Tcp)
    }
}

impl<R: Resolver, D: Dial> Mx<R, D> {
    /// Makes one with options and streams of your own.
    pub fn with(resolver: R, mut client: ClientOptions, options: MxOptions, dial: D) -> Self {
        client.tls = client.tls.unproven();
        let shelves = Mutex::default();
        Self(Arc::new(Shared { resolver, dial, client: Arc::new(client), options, shelves }))
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
                let mut letter = Letter { mail: &mail, recipients, source: &content };
                running.push(async move { (self.0.deliver(&domain, &mut letter).await, group) });
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
        let shelves = std::mem::take(&mut *self.0.shelves());
        for shelf in shelves.into_values() {
            shelf.close().await;
        }
    }
}

impl<R: Resolver, D: Dial> Shared<R, D> {
    async fn deliver<C: Source>(&self, domain: &str, letter: &mut Letter<'_, C>) -> Result<Vec<Course>, Unreachable> {
        let name = Domain::parse(domain).map_err(|_| MxError::NoHost)?;
        let hosts = mx::hosts(&self.resolver, &name, self.client.hello.as_str()).await?;
        let mut names: Vec<_> = hosts.iter().map(|host| host.exchange.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let (shelf, permit) = loop {
            let shelf = self.shelf(names.clone());
            match shelf.permit().await {
                Some(permit) => break (shelf, permit),
                // It was closed in the meantime.
                None => self.forget(&names),
            }
        };
        let mut missing = None;
        let delivered = {
            let targets = async {
                let (targets, why) = self.targets(&hosts).await;
                missing = why;
                Ok(targets)
            };
            let to = Destination { shelf: &shelf, dial: &self.dial, options: &self.client };
            letter.deliver(&to, permit, targets).await
        };
        match (delivered, missing) {
            (Err(ConnectError::NoAddress), Some(why)) => Err(why.into()),
            (delivered, _) => delivered.map_err(Unreachable::from),
        }
    }

    /// The servers of these hosts, and why a host has none. A temporary reason counts more.
    async fn targets(&self, hosts: &[MxRecord]) -> (Vec<Target>, Option<MxError>) {
        let asked: FuturesUnordered<_> = hosts
            .iter()
            .enumerate()
            .map(|(index, host)| async move {
                (index, mx::addresses(&self.resolver, &host.exchange, self.options.allow_private).await)
            })
            .collect();
        let mut answers: Vec<_> = asked.collect().await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        let (mut targets, mut missing) = (Vec::new(), None::<MxError>);
        for (host, (_, answer)) in hosts.iter().zip(answers) {
            match answer {
                Ok(addresses) => {
                    let name = Arc::<str>::from(host.exchange.as_str());
                    targets.extend(addresses.into_iter().map(|address| Target {
                        host: Arc::clone(&name),
                        server: SocketAddr::new(address, self.options.port),
                        preference: host.preference,
                    }));
                }
                Err(error) if missing.as_ref().is_none_or(|known| !known.is_transient()) => missing = Some(error),
                Err(_) => {}
            }
        }
        (targets, missing)
    }

    fn shelf(&self, names: Vec<String>) -> Arc<Shelf<D::Stream>> {
        let mut shelves = self.shelves();
        if shelves.len() >= DESTINATIONS && !shelves.contains_key(&names) {
            shelves.retain(|_, shelf| !shelf.is_empty());
        }
        let shelf = shelves.entry(names).or_insert_with(|| Arc::new(Shelf::new(self.options.destination.clone())));
        Arc::clone(shelf)
    }

    fn forget(&self, names: &[String]) {
        self.shelves().remove(names);
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves<D::Stream>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
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
