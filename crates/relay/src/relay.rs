//! The relay and its builder.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use posthaste_client::{Content, Health, Resolver};
use posthaste_queue::{Draft, MessageId, Owner, PutError, Queue};
use posthaste_server::{
    Envelope, PeerAddress, Server, Service,
    session::ServerSettings,
    wire::{
        BodyType,
        frame::{ContentCheck, ContentFault},
    },
};
use thiserror::Error;

use crate::{
    Accounts, Event, Observer, Overload, Policy, Recipients, Relabeling, RelayOptions, RelayService, ReloadError,
    RestingSource, RouteError, Routes, Senders, SiteState, SourceCount, Totals, TracingObserver,
    ascii_fields::AsciiFields,
    deliver::{self, Hint},
    event::Counting,
    future_release,
    hooks::Hooks,
    labels::{Known, Labels},
    message::{Origin, new_message, terms, whole_len},
    offers,
    shared::Shared,
    trace::Inspector,
};

/// A store-and-forward relay over a queue. It takes mail, stores it, delivers it, and reports what
/// it cannot deliver.
///
/// A clone is cheap, and is the same relay.
#[derive(Debug)]
pub struct Relay<Q, R> {
    shared: Arc<Shared<Q, R>>,
}

/// Why a message from the application was not queued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It has no recipient.
    #[error("the message has no recipient")]
    NoRecipient,
    /// The queue refused it.
    #[error(transparent)]
    Queue(#[from] PutError),
    /// The content could not be read.
    #[error("the content could not be read: {0}")]
    Content(#[source] std::io::Error),
    /// The route of a recipient cannot be found now: try again. Only if routes
    /// [have labels](Routes::gives_labels).
    #[error("the route of a recipient cannot be found now: {0}")]
    Route(#[source] RouteError),
    /// No host would take the content: its lines must end in CRLF, and it must not have NUL.
    #[error("the content must not be sent: {0}; end each line with CRLF, and encode what is not text")]
    Unsendable(#[from] ContentFault),
    /// It cannot be signed, and [`DkimOptions::unsignable`](crate::DkimOptions::unsignable) says
    /// that such messages are refused. Or the signer failed: try again.
    #[cfg(feature = "dkim")]
    #[error(transparent)]
    Signature(#[from] crate::SignatureError),
    /// The envelope cannot be recorded.
    #[error("the envelope cannot be recorded: {0}")]
    Envelope(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Builds a [`Relay`] that uses the application's own decisions.
#[must_use = "a builder makes no relay before `build()`"]
pub struct RelayBuilder<Q, R> {
    queue: Q,
    resolver: R,
    options: RelayOptions,
    hooks: Hooks,
    events: Counting,
}

impl<Q: Queue, R: Resolver> RelayBuilder<Q, R> {
    /// Sets the policy, in place of [`RelayOptions::policy`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.hooks.policy = Some(Box::new(policy));
        self
    }

    /// Sets the look-up of mailboxes, in place of [`RelayOptions::recipients`].
    pub fn recipients(mut self, recipients: impl Recipients) -> Self {
        self.hooks.recipients = Some(Box::new(recipients));
        self
    }

    /// Sets the look-up of users, in place of [`RelayOptions::accounts`].
    pub fn accounts(mut self, accounts: impl Accounts) -> Self {
        self.hooks.accounts = Some(Box::new(accounts));
        self
    }

    /// Sets the look-up of routes, in place of [`RelayOptions::routes`].
    pub fn routes(mut self, routes: impl Routes) -> Self {
        self.hooks.routes = Some(Box::new(routes));
        self
    }

    /// Sets the look-up of the addresses that users may send from, in place of
    /// [`SubmissionOptions::senders`](crate::SubmissionOptions::senders).
    pub fn senders(mut self, senders: impl Senders) -> Self {
        self.hooks.senders = Some(Box::new(senders));
        self
    }

    /// Sets the observer of events. Default: [`TracingObserver`].
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.events = Counting::new(observer);
        self
    }

    /// Makes the relay. It does nothing until [`serve`](Relay::serve) or
    /// [`deliver`](Relay::deliver) is called.
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
    /// Makes a relay that decides by the tables in its options, and writes events to the log.
    pub fn new(queue: Q, resolver: R, options: RelayOptions) -> Self {
        Self::builder(queue, resolver, options).build()
    }

    /// Begins a relay in which the application makes decisions of its own.
    pub fn builder(queue: Q, resolver: R, options: RelayOptions) -> RelayBuilder<Q, R> {
        RelayBuilder { queue, resolver, options, hooks: Hooks::default(), events: Counting::new(TracingObserver) }
    }

    /// The service that takes mail for this relay. The application may put [layers](Service::layer)
    /// around it.
    pub fn service(&self) -> RelayService<Q, R> {
        RelayService(Arc::clone(&self.shared))
    }

    /// A server for this relay, without a listener: add listeners, then hand it to
    /// [`serve`](Self::serve).
    pub fn server(&self) -> Server<RelayService<Q, R>> {
        Server::new(self.service())
    }

    /// What the relay's deliveries have found out about the servers of next hops: which failed
    /// lately, and what did not work with them.
    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// How overloaded the relay is. What it cannot measure is reported here.
    ///
    /// ```
    /// # use posthaste_relay::{Gauge, Relay, RelayOptions, Rung, client::SystemResolver, queue::memory::MemoryQueue};
    /// # let options = RelayOptions::new("relay.example.org".parse()?);
    /// let relay = Relay::new(MemoryQueue::default(), SystemResolver, options);
    /// relay.overload().report(Gauge::Memory, 91);
    /// assert_eq!(relay.overload().state().rung, Rung::Everyone);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn overload(&self) -> &Overload {
        &self.shared.overload
    }

    /// The sites that mail goes to, or went to lately, in no order: how much each takes, and which
    /// of them rest. At most 8,192 sets of mail hosts, as many routes that name hosts, and as many
    /// domains without a host.
    pub fn sites(&self) -> Vec<SiteState> {
        self.shared.sites.states()
    }

    /// The [sources](crate::SourcePool) that rest, in no order: at most 8,192. Beyond that number a
    /// source that a site blocks does not rest there. It is in memory alone. What sources have of
    /// their limits is in [`SiteState::sources`].
    pub fn resting_sources(&self) -> Vec<RestingSource> {
        self.shared.egress.resting()
    }

    /// The messages of each source on the last day of its [warm-up](crate::WarmUp) on which it sent
    /// any, in no order. Keep them and [give them back](Self::restore_source_counts) after a
    /// restart; otherwise the day begins again.
    pub fn source_counts(&self) -> Vec<SourceCount> {
        self.shared.egress.ledger.counts()
    }

    /// Takes counts of [`source_counts`](Self::source_counts) over, before deliveries begin: at
    /// most 8,192.
    pub fn restore_source_counts(&self, counts: impl IntoIterator<Item = SourceCount>) {
        self.shared.egress.ledger.restore(counts);
    }

    /// The settings of a listener for mail from other hosts: the relay's name, and the [`offers`].
    pub fn settings(&self) -> ServerSettings {
        let mut settings = ServerSettings::new(self.shared.options().host_name.clone());
        settings.offers = offers();
        settings
    }

    /// The settings of a listener for submission: [`ServerSettings::submission`] with what the
    /// relay offers. Clients may have a message held for up to
    /// [`MAX_DELAY`](posthaste_queue::MAX_DELAY).
    pub fn submission(&self) -> ServerSettings {
        let mut settings = ServerSettings::submission(self.shared.options().host_name.clone());
        let role = mem::replace(&mut settings.offers, offers());
        settings.offers.auth = role.auth;
        settings.offers.demand_auth = role.demand_auth;
        settings.offers.demand_tls = role.demand_tls;
        settings.offers.future_release = Some(future_release(Duration::MAX));
        settings
    }

    /// Serves and delivers until `shutdown` completes. The server's own shutdown signal, if it has
    /// one, is not used. Then sessions end at a boundary, running deliveries end within
    /// [`drain`](crate::DeliveryOptions::drain), and the queue is closed. What is left in the queue
    /// is delivered after the next start.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped. Acknowledged messages are safe in it.
    pub async fn serve<V: Service>(
        &self,
        server: Server<V>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), posthaste_queue::Error> {
        // So that deliveries recognize our own listeners and do not send mail in a circle.
        let local = server.local_addresses().iter().filter_map(|address| match address {
            PeerAddress::Ip(address) => Some(*address),
            _ => None,
        });
        self.shared.listeners.set(local.collect());
        let drain = self.shared.drain.child_token();
        let server = server.with_graceful_shutdown(drain.clone().cancelled_owned());
        let deliver = async {
            let delivered = deliver::run(Arc::clone(&self.shared), drain.clone()).await;
            // A server whose queue has stopped can take no mail.
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
            () = self.shared.stop.cancelled() => Ok(()),
        };
        self.shared.queue.close().await;
        delivered
    }

    /// Delivers from the queue until `shutdown` completes, and returns after the running deliveries
    /// have ended. Dropping the future aborts them: they are tried again later.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped.
    pub fn deliver<F: Future<Output = ()> + Send>(
        &self,
        shutdown: F,
    ) -> impl Future<Output = Result<(), posthaste_queue::Error>> + Send + use<Q, R, F> {
        let drain = self.shared.drain.child_token();
        let stop = self.shared.stop.clone();
        let delivered = deliver::run(Arc::clone(&self.shared), drain.clone());
        let signal = async move {
            shutdown.await;
            drain.cancel();
            std::future::pending().await
        };
        async move {
            tokio::select! {
                delivered = delivered => delivered,
                never = signal => never,
                () = stop.cancelled() => Ok(()),
            }
        }
    }

    /// Gives the running relay other options, all of them or none. A clone of a relay is the same
    /// relay.
    ///
    /// When this returns, the new options count for all that begins from then on, for mail that is
    /// in the queue too. Routes count at once, and an application's [`Routes`] are asked again.
    /// What the relay has learned of a site stays if its route is equal to one of before. Mail that
    /// waits to be tried again waits as long as before. The [rules](crate::Rule) are asked again
    /// for mail in the queue, in the background: [`relabeling`](Self::relabeling) tells how far
    /// that is. Sources whose address this machine did not have are looked at again.
    ///
    /// A message that is being received, and a delivery that runs, ends by the options with which
    /// it began. The connections that were kept for the next message are closed.
    ///
    /// Decisions of the application, which the [builder](Self::builder) got, stay as they are, and
    /// so do the settings of [listeners](Self::settings).
    ///
    /// ```
    /// # use posthaste_relay::{Relay, RelayOptions, Route, RouteTable, queue::memory::MemoryQueue, client::SystemResolver};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut options = RelayOptions::new("relay.example.org".parse()?);
    /// let relay = Relay::new(MemoryQueue::default(), SystemResolver, options.clone());
    /// options.routes = RouteTable::all(Route::hosts([("smarthost.example.org", 25)]));
    /// relay.reload(options.clone())?;
    /// options.host_name = "other.example.org".parse()?;
    /// let error = relay.reload(options).unwrap_err();
    /// assert_eq!(error.fixed[0].name, "host_name");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ReloadError`] names the options that would change and cannot while the relay runs: its
    /// name, [`concurrency`](crate::DeliveryOptions::concurrency) and
    /// [`idle`](crate::DeliveryOptions::idle). Then all options stay as they are.
    pub fn reload(&self, options: RelayOptions) -> Result<(), ReloadError> {
        self.shared.reload(options)
    }

    /// How far the relay has come with the labels of queued mail, after a
    /// [`reload`](Self::reload). [`Event::Relabeled`] tells of the end.
    pub fn relabeling(&self) -> Relabeling {
        self.shared.sweeps.state()
    }

    /// Ends [`serve`](Self::serve) and [`deliver`](Self::deliver) as their `shutdown` does, and
    /// returns at once. From then on the relay only drains.
    pub fn drain(&self) {
        self.shared.drain.cancel();
    }

    /// Ends [`serve`](Self::serve) and [`deliver`](Self::deliver) without waiting for clients or
    /// deliveries, and returns at once. What runs is dropped: clients send again what was not
    /// acknowledged, and deliveries are tried again after the next start. One whose content had
    /// left completely may arrive twice.
    pub fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.drain.cancel();
    }

    /// Queues a message from the application, which is trusted: the policy is not asked. `Ok`: the
    /// message is on stable storage. The content is kept as it is, without a Received field, and
    /// must have its own Date and Message-ID. Its lines end in CRLF;
    /// [`Text::new`](posthaste_client::Text) around it takes those that end in LF. SMTPUTF8 is
    /// added if an address is not ASCII. With `RelayOptions::dkim` it is signed.
    ///
    /// An overloaded relay takes it all the same, until the queue is full: then the error is
    /// [`PutError::Full`], and the message can be submitted again later. The
    /// [state](Self::overload) tells an application that wants to wait before that.
    ///
    /// # Errors
    /// [`SubmitError`]. Then nothing of the message is kept. There is one exception: after
    /// [`PutError::Broken`] the message may be in the queue.
    pub async fn submit(
        &self,
        owner: Owner,
        envelope: &Envelope,
        content: impl Content,
    ) -> Result<MessageId, SubmitError> {
        if envelope.recipients.is_empty() {
            return Err(SubmitError::NoRecipient);
        }
        self.shared.measure().await;
        let options = self.shared.options();
        let mut draft = self.shared.queue.put(envelope.mail.size).await?;
        let mut inspector = Inspector::new(&options.host_name);
        let mut mail = envelope.mail.clone();
        mail.smtputf8 |= !mail.reverse_path.is_ascii();
        mail.smtputf8 |= envelope.recipients.iter().any(|rcpt| !rcpt.forward_path.is_ascii());
        let mut fields = AsciiFields::new(mail.smtputf8);
        // A line may have any length: next hops take what they like.
        let mut check = (envelope.mail.body != Some(BodyType::BinaryMime)).then(|| ContentCheck::new(usize::MAX));
        let mut signing = self.shared.signatures.of_application(&options, envelope.mail.body);
        let length = content.length();
        let mut content = pin!(content);
        while let Some(piece) = poll_fn(|context| content.as_mut().poll_next(context)).await {
            let piece = piece.map_err(SubmitError::Content)?;
            if piece.is_empty() {
                // A source of nothing but these must not keep the thread.
                tokio::task::yield_now().await;
                continue;
            }
            inspector.inspect(&piece);
            fields.inspect(&piece);
            check.as_mut().map_or(Ok(()), |check| check.check(&piece))?;
            signing.update(&piece);
            draft.write(piece).await?;
        }
        check.map_or(Ok(()), |check| check.finish())?;
        if length.is_some_and(|length| length != draft.len()) {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "its length is not the one that it gave");
            return Err(SubmitError::Content(error));
        }
        let front = signing.finish(draft.id()).await?;
        let octets = whole_len(&front, draft.len());
        mail.size = Some(octets);
        let mut envelope = envelope.clone();
        envelope.mail = mail;
        options.forward_postmaster(None, &mut envelope);
        inspector.end();
        let tls_not_required = inspector.tls_not_required && !envelope.mail.require_tls;
        let (all_ascii, ascii_fields) = (!inspector.eight_bit, fields.are_ascii());
        let labels = Labels::find(&options, &self.shared.hooks, &envelope, Known::default()).await;
        let labels = labels.map_err(SubmitError::Route)?;
        let trusted = true;
        let origin = Origin { all_ascii, ascii_fields, trusted, tls_not_required, front, labels, ..Origin::default() };
        let message = new_message(&options.host_name, owner, &envelope, origin)
            .map_err(|error| SubmitError::Envelope(error.into()))?;
        let ((priority, held), hint) = (terms(&message), Hint::of(&message));
        let timed = self.shared.overload.commit();
        let untold = self.shared.announcing.begin(draft.id());
        let committed = draft.commit(message).await;
        timed.end();
        let id = committed?;
        let (sender, recipients) = (&envelope.mail.reverse_path, envelope.recipients.len());
        self.shared.observe(&Event::Accepted { message: id, client: None, sender, recipients, octets, priority, held });
        drop(untold);
        self.shared.hints.add(hint);
        self.shared.took_by(&options);
        Ok(id)
    }

    /// The queue of this relay.
    pub fn queue(&self) -> &Q {
        &self.shared.queue
    }

    pub(crate) fn shared(&self) -> &Shared<Q, R> {
        &self.shared
    }

    /// The number of events of each kind since the start.
    pub fn totals(&self) -> Totals {
        self.shared.events.totals()
    }
}

impl<Q, R> Clone for Relay<Q, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}
