//! The relay as a whole.

use std::{future::Future, sync::Arc};

use posthaste_client::{Content, Resolver};
use posthaste_queue::{Draft, MessageId, Owner, PutError, Queue};
use posthaste_server::{CancellationToken, Envelope, Listener, Server, ServerOptions};
use thiserror::Error;

use crate::{
    Event, Observer, RelayOptions, RelayService, Totals, deliver,
    event::Counting,
    message::{Origin, new_message, terms},
    shared::Shared,
};

/// A store-and-forward relay over a queue: takes mail, keeps it safe, delivers it, and reports what cannot be delivered.
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

impl<Q: Queue, R: Resolver> Relay<Q, R> {
    /// A relay. Nothing happens before [`serve`](Self::serve) or [`deliver`](Self::deliver).
    pub fn new(queue: Q, resolver: R, options: RelayOptions, observer: impl Observer) -> Self {
        Self { shared: Arc::new(Shared::new(queue, resolver, options, Counting::new(observer))) }
    }

    /// What takes mail for this relay: hand it to a [`Server`].
    pub fn service(&self) -> RelayService<Q, R> {
        RelayService(Arc::clone(&self.shared))
    }

    /// Serves and delivers until `drain` is cancelled; then lets conversations end at a boundary and deliveries end, and
    /// closes the queue. What is left in the queue is delivered after the next start.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped; what was acknowledged is safe in it.
    pub async fn serve(
        &self,
        listeners: Vec<Listener>,
        options: ServerOptions,
        drain: CancellationToken,
    ) -> Result<(), posthaste_queue::Error> {
        // Mail that would be delivered to one of them is not sent in a circle.
        let local = listeners.iter().filter_map(|listener| listener.local_address().ok());
        self.shared.listeners.set(local.collect());
        let server = Server::new(self.service(), options);
        let deliver = async {
            let delivered = self.deliver(drain.clone()).await;
            // When the queue has stopped there is nothing to serve for either.
            drain.cancel();
            delivered
        };
        let (delivered, ()) = tokio::join!(deliver, server.serve(listeners, drain.clone()));
        self.shared.queue.close().await;
        delivered
    }

    /// Delivers what is in the queue until `drain` is cancelled, and returns when the deliveries that run have ended.
    ///
    /// # Errors
    /// [`posthaste_queue::Error`] when the queue has stopped.
    pub fn deliver(
        &self,
        drain: CancellationToken,
    ) -> impl Future<Output = Result<(), posthaste_queue::Error>> + Send + use<Q, R> {
        deliver::run(Arc::clone(&self.shared), drain)
    }

    /// Takes a message from the application itself. When this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is left of the message then.
    pub async fn submit(
        &self,
        owner: Owner,
        envelope: &Envelope,
        mut content: impl Content,
    ) -> Result<MessageId, SubmitError> {
        if envelope.recipients.is_empty() {
            return Err(SubmitError::NoRecipient);
        }
        let mut draft = self.shared.queue.put(envelope.mail.size).await?;
        let mut all_ascii = true;
        while let Some(piece) = content.next().await.map_err(SubmitError::Content)? {
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
