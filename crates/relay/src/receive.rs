//! Receives messages: the server's handler, which writes them to the queue.

use std::{mem, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use posthaste_client::Resolver;
use posthaste_queue::{Draft, Full, NewMessage, Owner, PutError, Queue};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Peer, ReceivedField, Refusal, SaslError, ScramKey, ScramUser, Service,
    UnknownUsers, accepted, refusal,
    session::server::Protocol,
    wire::{
        BodyType, Domain, Mail, Rcpt,
        parameter::{DeliverByMode, Hold, Priority},
    },
};
use tracing::{error, warn};

use crate::{
    AddFields, Event, RelayOptions,
    admit::admit,
    ascii_fields::AsciiFields,
    deliver::Hint,
    hooks::Hooks,
    labels::{Known, Labels},
    message::{Named, Origin, OutsideError, new_message, terms, whole_len},
    opening::Opening,
    record::by_after,
    shared::Shared,
    sign::{SignatureError, Signing},
    submission::{self, Reads},
    trace::Inspector,
};

/// The relay as a service for [`posthaste_server::Server`].
#[derive(Debug)]
pub struct RelayService<Q, R>(pub(crate) Arc<Shared<Q, R>>);

/// One connection of a [`RelayService`].
pub struct RelayHandler<Q: Queue, R> {
    shared: Arc<Shared<Q, R>>,
    /// The options, taken at MAIL for all of the transaction.
    options: Arc<RelayOptions>,
    /// Room in the queue, taken before the client may send the content.
    draft: Option<Q::Draft>,
    /// When the transaction began: the time of BY counts from then.
    began: Instant,
    /// The recipients so far, bounded so that all their outcomes can be recorded.
    named: Named,
    /// The policy trusts the client.
    trusted: bool,
    /// The octets of the largest message that the policy lets the client send.
    most: Option<u64>,
}

impl<Q: Queue, R: Resolver> Service for RelayService<Q, R> {
    type Handler = RelayHandler<Q, R>;

    async fn connect(&self, _: &Context) -> Result<RelayHandler<Q, R>, Refusal> {
        self.0.measure().await;
        self.0.overload.admit_connection()?;
        Ok(RelayHandler {
            shared: Arc::clone(&self.0),
            options: self.0.options(),
            draft: None,
            began: Instant::now(),
            named: Named::default(),
            trusted: false,
            most: None,
        })
    }
}

impl<Q: Queue, R> std::fmt::Debug for RelayHandler<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayHandler")
    }
}

impl<Q: Queue, R: Resolver> Handler for RelayHandler<Q, R> {
    async fn scram_key(&mut self, cx: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        self.shared.hooks.key(&self.shared.options(), cx, user).await
    }

    fn unknown_users(&self) -> Option<UnknownUsers> {
        self.shared.hooks.unknown_users(&self.shared.options())
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        self.began = Instant::now();
        self.named = Named::default();
        self.shared.measure().await;
        let overload = &self.shared.overload;
        let wait = overload.admit(|| overload.owner(&cx.peer), cx.settings.protocol == Protocol::Lmtp)?;
        if !wait.is_zero() {
            // A box, so that MAIL that need not wait has no room for a timer.
            Box::pin(tokio::time::sleep(wait)).await;
        }
        self.options = self.shared.options();
        self.trusted = self.shared.hooks.trusts(&self.options, cx).await?;
        self.admit_sender(cx, mail).await?;
        let held = mail.hold.as_ref().map_or(i64::MIN, |hold| match hold {
            Hold::For(seconds) => i64::from(*seconds),
            Hold::Until(time) => time.unix_seconds().saturating_sub(Timestamp::now().as_second()),
        });
        // RFC 2852 section 4.1.4.1 tells a delay in a report of its own. The sender of a client
        // that is not trusted may be forged. It gets one report at most, at the end.
        let is_notified = mail.by.is_some_and(|by| by.mode == DeliverByMode::Notify);
        if is_notified && !self.trusted {
            return Err(refusal!("550 5.7.1 BY mode N needs a login, use mode R without one"));
        }
        // RFC 4865 section 5.2.2.
        match mail.by {
            Some(by) if held > by.seconds.into() => {
                Err(refusal!("501 5.5.4 The hold is longer than the time for the delivery"))
            }
            _ => Ok(()),
        }
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let Some(envelope) = &cx.envelope else { return Err(LOCAL_ERROR) };
        let label = admit(&self.options, &self.shared.hooks, cx, self.trusted, &envelope.mail, rcpt).await?;
        // RFC 5321 section 4.5.3.1.10: the client sends to the others in another transaction.
        let too_many = refusal!("452 4.5.3 Too many recipients, send to the others separately");
        if !self.named.add(rcpt) {
            return Err(too_many);
        }
        if let Some(label) = label {
            let recipient = self.options.recipient(Some(&cx.peer), &rcpt.forward_path);
            self.named.labels.insert(recipient.into_owned(), label);
        }
        Ok(())
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        let size = cx.envelope.as_ref().and_then(|envelope| envelope.mail.size);
        self.draft = Some(self.shared.queue.put(size).await.map_err(not_taken)?);
        Ok(())
    }

    async fn message(&mut self, cx: &Context, mut envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        let peer = &cx.peer;
        let Some(mut draft) = self.draft.take() else { return Err(LOCAL_ERROR) };
        let (shared, options) = (Arc::clone(&self.shared), Arc::clone(&self.options));
        let asked = envelope.mail.mt_priority;
        envelope.mail.mt_priority = asked.map(|asked| self.priority(asked));
        let lowered = envelope.mail.mt_priority.filter(|priority| asked != Some(*priority));
        let own_name = &options.host_name;
        let field = ReceivedField::of(cx, &envelope).by(own_name).with_id(draft.id()).with_recipient();
        let (trace, client) = (field.to_string(), field.client());
        let reads = Reads::of(&options, &shared.hooks, cx, self.trusted);
        let mut opening = None;
        let (mut tag, mut came) = (None, 0_u64);
        if self.adds_fields(peer) || reads.any() {
            opening = Some(Opening::new(trace, self.adds_fields(peer), reads.any()));
        } else {
            draft.write(trace.into()).await.map_err(not_taken)?;
        }
        let mut signing =
            shared.signatures.of_client(&options, peer.identity.is_some(), self.trusted, envelope.mail.body);
        let mut follows_field = opening.is_none();
        let mut inspector = Inspector::new(own_name);
        let mut fields = AsciiFields::new(envelope.mail.smtputf8);
        while let Some(mut piece) = body.next().await? {
            inspector.inspect(&piece);
            fields.inspect(&piece);
            came = came.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if self.most.is_some_and(|most| came > most) {
                return Err(TOO_LARGE);
            }
            // Such content would go on in our field. It has no header.
            if mem::take(&mut follows_field) && matches!(piece.first(), Some(b' ' | b'\t')) {
                signing.update(b"\r\n");
                draft.write(Bytes::from_static(b"\r\n")).await.map_err(not_taken)?;
            }
            if let Some(mut front) = opening.take() {
                let Some(unheld) = front.hold(piece, &inspector)? else {
                    opening = Some(front);
                    continue;
                };
                tag = read(&options, &shared.hooks, cx, reads, &mut front, &inspector).await?;
                let front = front.write(&inspector, false, own_name, draft.id());
                write_opening(&mut draft, &mut signing, front).await?;
                piece = unheld;
                if piece.is_empty() {
                    continue;
                }
            }
            signing.update(&piece);
            draft.write(piece).await.map_err(not_taken)?;
        }
        inspector.end();
        if let Some(mut front) = opening {
            tag = read(&options, &shared.hooks, cx, reads, &mut front, &inspector).await?;
            let front = front.write(&inspector, true, own_name, draft.id());
            write_opening(&mut draft, &mut signing, front).await?;
        }
        if inspector.is_loop(options.max_hops) {
            return Err(refusal!("554 5.4.6 Too many hops, this is a loop"));
        }
        let front = signing.finish(draft.id()).await.map_err(SignatureError::into_refusal)?;
        let octets = whole_len(&front, draft.len());
        // The next hop is told the type that the client declared. 8-bit content without a
        // declaration is declared here.
        if inspector.eight_bit && envelope.mail.body != Some(BodyType::BinaryMime) {
            envelope.mail.body = Some(BodyType::EightBitMime);
        }
        envelope.mail.size = Some(octets);
        if let Some(by) = &mut envelope.mail.by {
            *by = by_after(*by, self.began.elapsed());
            if by.mode == DeliverByMode::Return && by.seconds <= 0 {
                return Err(refusal!("554 5.4.7 The time that was given for the delivery is over"));
            }
        }
        options.forward_postmaster(Some(peer), &mut envelope);
        let recipients = envelope.recipients.len();
        let (all_ascii, ascii_fields) = (!inspector.eight_bit, fields.are_ascii());
        // RFC 8689 section 5: REQUIRETLS counts more than the field.
        let tls_not_required = inspector.tls_not_required && !envelope.mail.require_tls;
        let trusted = self.trusted;
        let client = Some(client);
        let labels = self.labels(peer, &envelope, tag.as_deref()).await?;
        let returns_whole = false;
        let origin =
            Origin { client, all_ascii, ascii_fields, trusted, returns_whole, tls_not_required, front, tag, labels };
        let message = message(own_name, peer, &envelope, origin).map_err(|error| match error {
            OutsideError::Name(_) => refusal!("554 5.1.2 The domain of a recipient is too long for its route"),
            OutsideError::TooMany | OutsideError::Encode(_) => {
                error!(%error, "envelope cannot be recorded");
                LOCAL_ERROR
            }
        })?;
        let ((priority, held), hint) = (terms(&message), Hint::of(&message));
        let timed = shared.overload.commit();
        let untold = shared.announcing.begin(draft.id());
        let committed = draft.commit(message).await;
        timed.end();
        let id = committed.map_err(not_taken)?;
        let sender = &envelope.mail.reverse_path;
        let client = Some(peer);
        shared.observe(&Event::Accepted { message: id, client, sender, recipients, octets, priority, held });
        drop(untold);
        shared.overload.accepted(shared.overload.owner(peer), octets);
        shared.hints.add(hint);
        shared.took_by(&options);
        // RFC 6710 section 4.1: the new priority comes first.
        Ok(match lowered {
            Some(priority) => accepted!("250 2.3.6 {} is the priority; queued as {}", priority, id),
            None => accepted!("250 2.0.0 Queued as {}", id),
        })
    }
}

impl<Q: Queue, R> RelayHandler<Q, R> {
    /// Returns `true` if messages of this client get the fields that they lack.
    fn adds_fields(&self, peer: &Peer) -> bool {
        match self.options.add_fields {
            AddFields::Never => false,
            AddFields::Submitted => peer.identity.is_some(),
            AddFields::Trusted => self.trusted,
        }
    }

    /// Takes or refuses the sender of a client, and what MAIL says of the size.
    async fn admit_sender(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        let (options, hooks) = (&*self.options, &self.shared.hooks);
        self.most = hooks.message_size(options, cx, self.trusted).await?;
        if mail.size.zip(self.most).is_some_and(|(size, most)| size > most) {
            return Err(TOO_LARGE);
        }
        match mail.reverse_path.mailbox() {
            Some(sender) if hooks.limits_senders(options, cx) => {
                submission::check_sender(options, hooks, cx, sender).await
            }
            _ => Ok(()),
        }
    }

    /// The labels of the recipients. They were found at RCPT. A tag, which the header has, is
    /// looked at again with all facts.
    async fn labels(&mut self, peer: &Peer, envelope: &Envelope, tag: Option<&str>) -> Result<Labels, Refusal> {
        let found = mem::take(&mut self.named.labels);
        if tag.is_none() {
            return Ok(found);
        }
        let known = Known { identity: peer.identity.as_deref(), client: Some(peer.address.ip_or_loopback()), tag };
        let labels = Labels::find(&self.options, &self.shared.hooks, envelope, known).await;
        labels.map_err(|error| {
            warn!(%error, "route not found, message refused for now");
            refusal!("451 4.4.3 The route to a recipient is not known now, try again later")
        })
    }

    /// The priority that the client may have: without trust, at most the default (RFC 6710 section
    /// 4.1).
    fn priority(&self, asked: Priority) -> Priority {
        if self.trusted { asked } else { asked.min(Priority::default()) }
    }
}

/// The message as the queue takes it: one delivery for each domain and label.
fn message(own_name: &Domain, peer: &Peer, envelope: &Envelope, origin: Origin) -> Result<NewMessage, OutsideError> {
    // Each campaign is an owner, each user, and each network of clients without a login. Bulk mail
    // of one owner then does not delay the mail of another.
    let owner = origin.tag.as_ref().or(peer.identity.as_ref()).cloned();
    let owner = owner.unwrap_or_else(|| peer.network.to_string());
    new_message(own_name, Owner::new(&owner).unwrap_or_default(), envelope, origin)
}

/// Checks the header that was held, and takes the tag out of it. On the heap: most messages have no
/// header that is read.
async fn read(
    options: &RelayOptions,
    hooks: &Hooks,
    cx: &Context,
    reads: Reads,
    front: &mut Opening,
    inspector: &Inspector<'_>,
) -> Result<Option<String>, Refusal> {
    if !reads.any() {
        return Ok(None);
    }
    let mut none = BytesMut::new();
    let header = front.header(inspector).unwrap_or(&mut none);
    Box::pin(submission::read(options, hooks, cx, reads, header)).await
}

/// Writes the Received field, which is not signed, and the pieces after it, which are.
async fn write_opening(draft: &mut impl Draft, signing: &mut Signing, pieces: [Bytes; 3]) -> Result<(), Refusal> {
    for (at, piece) in pieces.into_iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        if at > 0 {
            signing.update(&piece);
        }
        draft.write(piece).await.map_err(not_taken)?;
    }
    Ok(())
}

const TOO_LARGE: Refusal = refusal!("552 5.3.4 The message is larger than this client may send");
const LOCAL_ERROR: Refusal = refusal!("451 4.3.0 Local error, try again later");

/// The reply to a client whose message the queue refuses.
fn not_taken(error: PutError) -> Refusal {
    match &error {
        PutError::Full(Full::Disk { .. } | Full::Files { .. } | Full::NoSpace(_)) => {
            error!(%error, "message refused, no room on the disk");
            refusal!("452 4.3.1 Out of disk space, try again later")
        }
        PutError::Full(Full::Scarce(_)) => {
            error!(%error, "message refused, system resources scarce");
            refusal!("451 4.3.2 Short of system resources, try again later")
        }
        PutError::Full(_) => refusal!("452 4.3.1 The queue is full, try again later"),
        PutError::TooLarge(_) => refusal!("552 5.3.4 Message too large"),
        _ => {
            error!(%error, "message refused, queue not available");
            refusal!("451 4.3.0 The queue is not available, try again later")
        }
    }
}
