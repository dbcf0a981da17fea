//! Agents: next hops in this process.
//!
//! A route may lead to an [`Agent`], a handler of the application, in place of hosts. [`Maildir`]
//! puts mail into folders. `Webhook`, with the feature of that name, hands it to an HTTP server.
//!
//! To the sender it makes no difference. Events, reports and retries are those of hosts. So are the
//! limits of connections and the rests of a [site](crate::SiteState): at most
//! [`concurrency_per_site`](crate::DeliveryOptions::concurrency_per_site) deliveries to an agent
//! are under way at once.
//!
//! Mail to an agent goes no further. So a sender that asked for it (`NOTIFY=SUCCESS`) gets a report
//! that the message was delivered. REQUIRETLS mail goes to agents too: no network carries it to
//! them, and those here send it over verified TLS if at all. Content is 8-bit or binary as it came,
//! and addresses may be outside ASCII.

mod maildir;
mod template;
#[cfg(feature = "webhook")]
mod webhook;

use std::{
    fmt,
    future::{Future, poll_fn},
    hash::{Hash, Hasher},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use posthaste_client::Content;
use posthaste_queue::MessageId;
use posthaste_server::{Accepted, Envelope, Refusal, refusal, wire::Mailbox};
use tracing::error;

pub use maildir::Maildir;
pub use template::TemplateError;
#[cfg(feature = "webhook")]
pub use webhook::{Webhook, WebhookError};

/// A handler of the application that takes mail as a next hop.
///
/// ```
/// use posthaste_relay::{Route, RouteTable, agent::{Agent, AgentLetter, Decision}};
/// use posthaste_server::{accepted, wire::Mailbox};
///
/// /// Counts the octets of what it takes.
/// struct Counter;
///
/// impl Agent for Counter {
///     async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
///         let counted = async {
///             let (mut content, mut octets) = (letter.content().await?, 0);
///             while let Some(piece) = content.chunk().await? {
///                 octets += piece.len();
///             }
///             std::io::Result::Ok(accepted!("250 2.0.0 Counted {} octets", octets))
///         };
///         // An error becomes a 451: the relay tries again later.
///         let decision: Decision = counted.await.map_err(Into::into);
///         vec![decision; letter.envelope.recipients.len()]
///     }
/// }
/// let mut routes = RouteTable::empty();
/// routes.push(["count.example.org".parse()?], Route::agent("counter", Counter));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Agent: Send + Sync + 'static {
    /// Takes or refuses a message. Returns one decision for each recipient, in their order.
    ///
    /// - An acceptance is final: the message is safe, or otherwise done with. After a crash of the
    ///   relay the same message may come again, with the same [`id`](AgentLetter::id).
    /// - A refusal of 4yz is tried again later. Its words count as those of a host: the agent rests
    ///   after "rate limited, try again in 30 seconds".
    /// - 421 speaks of all mail: for up to 48 s all mail of the agent is deferred without asking.
    /// - A refusal of 5yz is returned to the sender, with its words.
    ///
    /// A recipient without a decision is tried again later, with 451. A panic has the same effect
    /// for all of them.
    ///
    /// The future may take the time of one attempt
    /// ([`attempt_timeout`](crate::DeliveryOptions::attempt_timeout)), and for each read of the
    /// content its time at 16 KiB a second. Beyond it the future is dropped, and all recipients are
    /// tried again later. It must not block its thread.
    fn deliver(&self, letter: &AgentLetter<'_>) -> impl Future<Output = Vec<Decision>> + Send;

    /// Refuses a mailbox that the agent will never take, as early as at RCPT. Mail from the
    /// application, and mail that is in the queue, comes without this question. A panic is a 451.
    /// Default: every mailbox is taken.
    ///
    /// # Errors
    /// The refusal.
    fn takes(&self, _mailbox: &Mailbox) -> Result<(), Refusal> {
        Ok(())
    }
}

/// What an agent decides about a recipient.
pub type Decision = Result<Accepted, Refusal>;

/// A message on its way to an agent.
#[non_exhaustive]
pub struct AgentLetter<'a> {
    /// The id of the message, which stays the same over all attempts.
    pub id: MessageId,
    /// MAIL as it came, and the recipients that wait for this agent. `postmaster` without a domain
    /// has the relay's own.
    pub envelope: &'a Envelope,
    /// The time since the message was accepted.
    pub age: Duration,
    /// Earlier attempts.
    pub attempts: u32,
    /// The octets of the content.
    pub octets: u64,
    pub(crate) source: &'a dyn Open,
}

impl AgentLetter<'_> {
    /// Opens the content, from its beginning. It may be read more than once.
    ///
    /// # Errors
    /// The queue cannot read it. With `?` in a function that returns a [`Refusal`] this becomes a
    /// 451.
    pub async fn content(&self) -> io::Result<AgentContent> {
        self.source.open().await
    }
}

impl fmt::Debug for AgentLetter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, envelope, age, attempts, octets, source: _ } = self;
        f.debug_struct("AgentLetter")
            .field("id", id)
            .field("envelope", envelope)
            .field("age", age)
            .field("attempts", attempts)
            .field("octets", octets)
            .finish_non_exhaustive()
    }
}

/// Opens the content of a letter.
pub(crate) trait Open: Send + Sync {
    fn open(&self) -> Answer<'_, io::Result<AgentContent>>;
}

/// The content of a message in pieces of 64 KiB at most, as lines that end in CRLF unless it is
/// binary. The message is never in memory as a whole. It can be sent on, too: it is a [`Content`].
pub struct AgentContent(pub(crate) Pin<Box<dyn Content>>);

impl AgentContent {
    /// The next piece. `None`: it has been read to its end. May be dropped: the piece is not lost.
    ///
    /// # Errors
    /// The queue cannot read it, or it is damaged.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| self.0.as_mut().poll_next(context)).await.transpose()
    }
}

impl Content for AgentContent {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.0.as_mut().poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        self.0.length()
    }
}

impl fmt::Debug for AgentContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentContent").field(&self.0.length()).finish()
    }
}

/// An agent with its name. Clones are the same agent, and equal. Two that were made apart are
/// different, so that their routes share no limits: make one, and clone it.
#[derive(Clone)]
pub struct AgentHandle {
    name: Arc<str>,
    agent: Arc<dyn ErasedAgent>,
}

impl AgentHandle {
    /// Gives an agent its name for events, `agent:NAME`. A name with a colon stays as it is.
    pub fn new(name: &str, agent: impl Agent) -> Self {
        let name = if name.contains(':') { name.into() } else { format!("agent:{name}").into() };
        Self { name, agent: Arc::new(agent) }
    }

    /// The name, as events have it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// The agent's refusal of a mailbox, or 451 if it panicked.
    pub(crate) fn takes(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        catch_unwind(AssertUnwindSafe(|| self.agent.takes(mailbox))).unwrap_or_else(|_| Err(self.panicked()))
    }

    /// The decisions of the agent, one for each recipient.
    pub(crate) async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let most = letter.envelope.recipients.len();
        let Some(mut delivery) = catch_unwind(AssertUnwindSafe(|| self.agent.deliver(letter))).ok() else {
            return vec![Err(self.panicked()); most];
        };
        let decided = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| delivery.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        });
        let Some(mut decisions) = decided.await else { return vec![Err(self.panicked()); most] };
        decisions.resize_with(most, || Err(refusal!("451 4.3.0 The agent has not decided about this recipient")));
        decisions
    }

    fn panicked(&self) -> Refusal {
        error!(agent = &*self.name, "agent panicked, mail deferred");
        refusal!("451 4.3.0 The agent failed, try again later")
    }
}

impl PartialEq for AgentHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.agent, &other.agent)
    }
}

impl Eq for AgentHandle {}

impl Hash for AgentHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.agent).cast::<()>().hash(state);
    }
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentHandle").field(&self.name).finish()
    }
}

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Agent`] behind a `dyn`.
trait ErasedAgent: Send + Sync {
    fn deliver<'a>(&'a self, letter: &'a AgentLetter<'_>) -> Answer<'a, Vec<Decision>>;
    fn takes(&self, mailbox: &Mailbox) -> Result<(), Refusal>;
}

impl<A: Agent> ErasedAgent for A {
    fn deliver<'a>(&'a self, letter: &'a AgentLetter<'_>) -> Answer<'a, Vec<Decision>> {
        Box::pin(Agent::deliver(self, letter))
    }

    fn takes(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        Agent::takes(self, mailbox)
    }
}
