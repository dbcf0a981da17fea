//! From the server's handler into the queue.

use std::sync::Arc;

use posthaste_client::Resolver;
use posthaste_queue::{Draft, Full, NewMessage, Owner, PutError, Queue};
use posthaste_server::{
    Body, Envelope, Handler, Peer, SaslError, ScramKey, ScramUser, Service, UnknownUsers,
    wire::{BodyType, Domain, EnhancedCode, Rcpt, Reply, ReplyCode},
};
use tracing::error;

use crate::{
    Event,
    message::new_message,
    shared::Shared,
    trace::{Inspector, received},
};

/// The relay as a service for [`posthaste_server::Server`].
#[derive(Debug)]
pub struct RelayService<Q, R>(pub(crate) Arc<Shared<Q, R>>);

/// One connection of a [`RelayService`].
pub struct RelayHandler<Q: Queue, R> {
    shared: Arc<Shared<Q, R>>,
    /// Room in the queue, taken before the content is asked for.
    draft: Option<Q::Draft>,
}

impl<Q: Queue, R: Resolver> Service for RelayService<Q, R> {
    type Handler = RelayHandler<Q, R>;

    async fn connect(&self, _peer: &Peer) -> Result<RelayHandler<Q, R>, Reply> {
        Ok(RelayHandler { shared: Arc::clone(&self.0), draft: None })
    }
}

impl<Q: Queue, R> std::fmt::Debug for RelayHandler<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayHandler")
    }
}

impl<Q: Queue, R: Resolver> Handler for RelayHandler<Q, R> {
    async fn scram_key(&mut self, _peer: &Peer, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // Acting as somebody else would need a rule that says who may.
        let itself = user.authorisation_identity.is_none();
        let accounts = self.shared.options.accounts.as_ref().filter(|_| itself);
        Ok(accounts.and_then(|accounts| accounts.key(&user.authentication_identity)).cloned())
    }

    fn unknown_users(&self) -> Option<UnknownUsers> {
        self.shared.options.accounts.as_ref().map(|accounts| accounts.unknown_users().clone())
    }

    async fn rcpt(&mut self, peer: &Peer, _envelope: &Envelope, rcpt: &Rcpt) -> Result<(), Reply> {
        self.shared.options.policy.check(peer, &self.shared.options.host_name, rcpt)
    }

    async fn data(&mut self, _peer: &Peer, envelope: &Envelope) -> Result<(), Reply> {
        self.draft = Some(self.shared.queue.put(envelope.mail.size).await.map_err(refusal)?);
        Ok(())
    }

    async fn message(&mut self, peer: &Peer, mut envelope: Envelope, body: &mut Body<'_>) -> Result<Reply, Reply> {
        let Some(mut draft) = self.draft.take() else { return Err(local_error()) };
        let trace = received(peer, &self.shared.options.host_name, draft.id(), &envelope);
        draft.write(trace.into()).await.map_err(refusal)?;
        let mut inspector = Inspector::new();
        while let Some(piece) = body.next().await? {
            inspector.inspect(&piece);
            draft.write(piece).await.map_err(refusal)?;
        }
        if inspector.hops >= self.shared.options.max_hops {
            return Err(Reply::from_static("554 5.4.6 Too many hops, this is a loop\r\n"));
        }
        let octets = draft.len();
        // What it declared is what the next hop is told; 8-bit content without a declaration is declared here.
        if inspector.eight_bit && envelope.mail.body != Some(BodyType::BinaryMime) {
            envelope.mail.body = Some(BodyType::EightBitMime);
        }
        envelope.mail.size = Some(octets);
        let recipients = envelope.recipients.len();
        let message = message(&self.shared.options.host_name, peer, &envelope).map_err(|error| {
            error!(%error, "a message's outside cannot be written down");
            local_error()
        })?;
        let id = draft.commit(message).await.map_err(refusal)?;
        let sender = &envelope.mail.reverse_path;
        self.shared.observe(&Event::Accepted { message: id, sender, recipients, octets });
        Ok(Reply::new(ReplyCode::OK, EnhancedCode::new(2, 0, 0), &format!("Queued as {id}")))
    }
}

/// The message as the queue takes it: one delivery for each domain.
fn message(
    own_name: &Domain,
    peer: &Peer,
    envelope: &Envelope,
) -> Result<NewMessage, Box<dyn std::error::Error + Send + Sync>> {
    // Whoever logged in is one owner, and every address that did not is another: nobody's bulk delays somebody else's mail.
    let owner = peer.identity.clone().unwrap_or_else(|| peer.address.ip().to_canonical().to_string());
    new_message(own_name, Owner::new(&owner).unwrap_or_default(), envelope)
}

fn local_error() -> Reply {
    Reply::from_static("451 4.3.0 Local error, try again later\r\n")
}

/// What a client is told when the queue does not take its message.
fn refusal(error: PutError) -> Reply {
    match &error {
        PutError::Full(Full::Disk { .. } | Full::NoSpace(_)) => {
            error!(%error, "mail is refused until there is room");
            Reply::from_static("452 4.3.1 Out of disk space, try again later\r\n")
        }
        PutError::Full(_) => Reply::from_static("452 4.3.1 The queue is full, try again later\r\n"),
        PutError::TooLarge(_) => Reply::from_static("552 5.3.4 Message too large\r\n"),
        _ => {
            error!(%error, "mail is refused");
            Reply::from_static("451 4.3.0 The queue is not available, try again later\r\n")
        }
    }
}
