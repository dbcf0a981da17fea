//! The relay as a whole.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use posthaste_client::{Content, Resolver};
use posthaste_queue::{Draft, MessageId, Owner, PutError, Queue};
use posthaste_server::{
    Envelope, PeerAddress, Server, Service,
    session::ServerSettings,
    wire::{Mechanism, MechanismSet},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    Accounts, Event, Observer, Policy, Recipients, RelayOptions, RelayService, Totals, TracingObserver, deliver,
    event::Counting,
    future_release,
    hooks::Hooks,
    message::{Origin, new_message, terms},
    offers,
    shared::Shared,
};

/// A store-and-forward relay over a queue: takes mail, keeps it safe, delivers it, and reports what
/// cannot be delivered.
///
/// It is cheap to clone; the clones are one relay.
#[derive(Debug)]
pub struct Relay<Q, R> {
    shared: Arc<Shared<Q, R>>,
}

/// A message of the application's own was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It has no recipient.
    #[error("the message has no recipient")]
    NoRecipient,
    /// The queue does not take it.
    #[error(transparent)]
    Queue(#[from] PutError),
    /// The content could not be read.
    #[error("the content could not be read: {0}")]
    Content(#[source] std::io::Error),
    /// The envelope cannot be written down.
    #[error("the envelope is not one that the relay can keep: {0}")]
    Envelope(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes a [`Relay`] with decisions of the application's own.
#[must_use = "a builder makes no relay before `build()`"]
pub struct RelayBuilder<Q, R> {
    queue: Q,
    resolver: R,
    options: RelayOptions,
    hooks: Hooks,
    events: Counting,
}

impl<Q: Queue, R: Resolver> RelayBuilder<Q, R> {
    /// Decides who may send to whom, in place of [`RelayOptions::policy`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.hooks.policy = Some(Box::new(policy));
        self
    }

    /// Knows the mailboxes that exist. Default: any may, and the next hop decides.
    pub fn recipients(mut self, recipients: impl Recipients) -> Self {
        self.hooks.recipients = Some(Box::new(recipients));
        self
    }

    /// Knows the users that may log in, in place of [`RelayOptions::accounts`].
    pub fn accounts(mut self, accounts: impl Accounts) -> Self {
        self.hooks.accounts = Some(Box::new(accounts));
        self
    }

    /// Is told what happens. Default: [`TracingObserver`].
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.events = Counting::new(observer);
        self
    }

    /// The relay. Nothing happens before [`serve`](Relay::serve) or [`deliver`](Relay::deliver).
    pub fn build(self) -> Relay<Q, R> {
        let Self { queue, resolver, options, hooks, events } = self;
        Relay { shared: Arc::new(Shared::new(queue, resolver, options, hooks, events)) }
    }
}

impl<Q, R> std::fmt::Debug for RelayBuilder<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayBuilder").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

impl<Q: Queue, R: Resolver> Relay<Q, R> {
    /// A relay that decides by the tables in its options and tells the log what happens.
    pub fn new(queue: Q, resolver: R, options: RelayOptions) -> Self {
        Self::builder(queue, resolver, options).build()
    }

    /// A relay with decisions of the application's own.
    pub fn builder(queue: Q, resolver: R, options: RelayOptions) -> RelayBuilder<Q, R> {
        RelayBuilder { queue, resolver, options, hooks: Hooks::default(), events: Counting::new(TracingObserver) }
    }

    /// What takes mail for this relay; [`layers`](Service::layer) may go around it.
    pub fn service(&self) -> RelayService<Q, R> {
        RelayService(Arc::clone(&self.shared))
    }

    /// A server for this relay, without a listener yet: hand it to [`serve`](Self::serve).
    pub fn server(&self) -> Server<RelayService<Q, R>> {
        Server::new(self.service())
    }

    /// The settings of a listener for mail from other hosts: the relay's name, and the [`offers`].
    pub fn settings(&self) -> ServerSettings {
        let mut settings = ServerSettings::new(self.shared.options.host_name.clone());
        settings.offers = offers();
        settings
    }

    /// The settings of a listener for submission (RFC 6409): clients have to log in, inside TLS,
    /// and may have a message held for up to [`MAX_DELAY`](posthaste_queue::MAX_DELAY).
    pub fn submission(&self) -> ServerSettings {
        let mut settings = self.settings();
        settings.offers.auth =
            MechanismSet::of(&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]);
        settings.offers.demand_auth = true;
        settings.offers.demand_tls = true;
        settings.offers.future_release = Some(future_release(Duration::MAX));
        settings.tolerance.hello = true;
        settings
    }

    /// Serves and delivers until `shutdown` completes, in place of the server's own. Then lets
    /// sessions end at a boundary and deliveries end, and closes the queue. What is left in the
    /// queue is delivered after the next start.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped; what was acknowledged is safe in it.
    pub async fn serve<V: Service>(
        &self,
        server: Server<V>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), posthaste_queue::Error> {
        // Mail that would be delivered to one of them is not sent in a circle.
        let local = server.local_addresses().iter().filter_map(|address| match address {
            PeerAddress::Ip(address) => Some(*address),
            _ => None,
        });
        self.shared.listeners.set(local.collect());
        let drain = CancellationToken::new();
        let server = server.with_graceful_shutdown(drain.clone().cancelled_owned());
        let deliver = async {
            let delivered = deliver::run(Arc::clone(&self.shared), drain.clone()).await;
            // When the queue has stopped there is nothing to serve for either.
            drain.cancel();
            delivered
        };
        let ended = async { tokio::join!(deliver, server.serve()).0 };
        let signal = async {
            shutdown.await;
            drain.cancel();
            std::future::pending().await
        };
        let delivered = tokio::select! {
            delivered = ended => delivered,
            never = signal => never,
        };
        self.shared.queue.close().await;
        delivered
    }

    /// Delivers what is in the queue until `shutdown` completes, and returns when the deliveries
    /// that run have ended. Dropping the future aborts them: they are tried again later.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped.
    pub fn deliver<F: Future<Output = ()> + Send>(
        &self,
        shutdown: F,
    ) -> impl Future<Output = Result<(), posthaste_queue::Error>> + Send + use<Q, R, F> {
        let drain = CancellationToken::new();
        let delivered = deliver::run(Arc::clone(&self.shared), drain.clone());
        let signal = async move {
            shutdown.await;
            drain.cancel();
            std::future::pending().await
        };
        async {
            tokio::select! {
                delivered = delivered => delivered,
                never = signal => never,
            }
        }
    }

    /// Takes a message from the application itself. When this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is left of the message then.
    pub async fn submit(
        &self,
        owner: Owner,
        envelope: &Envelope,
        content: impl Content,
    ) -> Result<MessageId, SubmitError> {
        if envelope.recipients.is_empty() {
            return Err(SubmitError::NoRecipient);
        }
        let mut draft = self.shared.queue.put(envelope.mail.size).await?;
        let mut all_ascii = true;
        let mut content = pin!(content);
        while let Some(piece) = poll_fn(|context| content.as_mut().poll_next(context)).await {
            let piece = piece.map_err(SubmitError::Content)?;
            all_ascii &= piece.is_ascii();
            draft.write(piece).await?;
        }
        let octets = draft.len();
        let mut envelope = envelope.clone();
        envelope.mail.size = Some(octets);
        self.shared.options.forward_postmaster(None, &mut envelope);
        let origin = Origin { all_ascii, trusted: true, ..Origin::default() };
        let message = new_message(&self.shared.options.host_name, owner, &envelope, origin)
            .map_err(|error| SubmitError::Envelope(error.into()))?;
        let (priority, held) = terms(&message);
        let id = draft.commit(message).await?;
        let (sender, recipients) = (&envelope.mail.reverse_path, envelope.recipients.len());
        self.shared.observe(&Event::Accepted { message: id, client: None, sender, recipients, octets, priority, held });
        Ok(id)
    }

    /// The queue.
    pub fn queue(&self) -> &Q {
        &self.shared.queue
    }

    /// How often each event has happened since the start.
    pub fn totals(&self) -> Totals {
        self.shared.events.totals()
    }
}

impl<Q, R> Clone for Relay<Q, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}
