//! Messages in a row over one connection.
//!
//! A message goes in one of three ways, from careful to fast:
//!
//! - *alone*: by [`Client::transact`], with no other message on its way.
//! - *early*: its MAIL, RCPT and DATA leave behind the content of the message in front of it. Its
//!   content waits for the replies. That is one round trip for each message.
//! - *blind*: its MAIL, RCPT and the whole content leave by BDAT, and wait for nothing.
//!
//! The first message of a connection waits for each reply before its content. The second is early.
//! Only if its replies came as they should, and none too many, others may be blind. So a server
//! that gets confused does so while one message at most is in doubt.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use futures_util::{Stream, StreamExt};
use posthaste_tokio::{
    ClientError, ClientEvent,
    session::{
        PeerMisbehaved,
        client::{BodyKind, downgrade::NextHop},
        table::Phase,
    },
    wire::BodyType,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::flight::{Body, Done, End, Ends, Flight, Parcel, Unreadable};
use crate::{
    Client, RecipientOutcome, ServerFacts,
    delivery::Transacted,
    send::Addresses,
    transaction::{Attempt, GROUP},
};

/// The most messages whose content has left before their replies: enough to fill a long path, and
/// few enough for what is in doubt if the connection breaks.
const MESSAGES: usize = 32;
/// The most octets of their content.
const OCTETS: u64 = 256 * 1_024;
/// The most octets of a message that goes blind. It is read before its MAIL leaves, so that
/// content that cannot be read ends no conversation.
const WHOLE: u64 = 64 * 1_024;
/// The most commands without a reply.
const COMMANDS: usize = 512;

/// The messages on their way over one connection.
pub(crate) struct Pipeline<'c, S, P: Parcel> {
    pub(super) client: &'c mut Client<S>,
    pub(super) facts: Arc<ServerFacts>,
    /// Messages of which something has left, in order.
    pub(super) flights: VecDeque<Flight<P>>,
    /// The next message, which waits for those before it.
    pub(super) held: Option<Flight<P>>,
    pub(super) done: VecDeque<Done<P>>,
    /// Messages that may still be begun on the connection.
    pub(super) left: u32,
    /// Octets of content that left blind and have no reply.
    pub(super) octets: u64,
    /// One transaction at a time.
    pub(super) is_single: bool,
    /// A message that was begun early got its replies as it should.
    pub(super) is_proven: bool,
    /// The server got confused: no other message is begun.
    pub(super) is_confused: bool,
    /// There is no other message.
    pub(super) has_ended: bool,
    pub(super) is_over: bool,
    pub(super) is_broken: bool,
}

/// What came first.
enum Heard<P> {
    Parcel(Option<P>),
    Event(Result<ClientEvent, ClientError>),
}

impl<'c, S: AsyncRead + AsyncWrite + Unpin + Send, P: Parcel> Pipeline<'c, S, P> {
    /// Begins with a connection that takes this number of messages.
    pub(crate) fn new(client: &'c mut Client<S>, messages: u32) -> Self {
        let facts = Arc::clone(client.facts());
        let is_single = facts.target.as_ref().is_some_and(|target| {
            client.remote.as_ref().is_some_and(|remote| remote.health.breaks_batches(&target.server))
        });
        Self {
            client,
            facts,
            flights: VecDeque::new(),
            held: None,
            done: VecDeque::new(),
            left: messages,
            octets: 0,
            is_single,
            is_proven: false,
            is_confused: false,
            has_ended: false,
            is_over: false,
            is_broken: false,
        }
    }

    pub(crate) const fn facts(&self) -> &Arc<ServerFacts> {
        &self.facts
    }

    /// Messages that may still be begun on the connection.
    pub(crate) const fn left(&self) -> u32 {
        self.left
    }

    /// Returns `true` if the connection is of no use any more.
    pub(crate) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Begins no other message. Those that were taken from the source go on.
    pub(crate) const fn stop(&mut self) {
        self.has_ended = true;
    }

    /// Waits for the next message that has its result. `None`: the source has ended, or the
    /// connection takes no other message; then `source` has those that were not begun.
    pub(crate) async fn next<Q: Stream<Item = P> + Unpin>(&mut self, source: &mut Q) -> Option<Done<P>> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Some(done);
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.step(source).await {
                self.fail(error, false);
            }
        }
    }

    async fn step<Q: Stream<Item = P> + Unpin>(&mut self, source: &mut Q) -> Result<(), ClientError> {
        if self.held.is_some() && self.may_begin_held() {
            return self.begin_held().await;
        }
        let is_ready = self.flights.front().is_some_and(|front| front.end.is_none() && self.is_ready(front));
        if is_ready {
            return self.send_content(source).await;
        }
        let wants = self.wants_another();
        if self.flights.is_empty() {
            if self.is_confused {
                return Err(confused());
            }
            if !wants {
                self.is_over = true;
                return Ok(());
            }
            let parcel = source.next().await;
            return self.take(parcel).await;
        }
        let heard = {
            let mut event = pin!(self.client.driver.next());
            poll_fn(|context| {
                if wants && let Poll::Ready(parcel) = source.poll_next_unpin(context) {
                    return Poll::Ready(Heard::Parcel(parcel));
                }
                event.as_mut().poll(context).map(Heard::Event)
            })
            .await
        };
        match heard {
            Heard::Parcel(parcel) => self.take(parcel).await,
            Heard::Event(event) => self.hear(event?),
        }
    }

    /// Returns `true` if another message can be taken from the source.
    pub(super) fn wants_another(&self) -> bool {
        let session = self.client.driver.session();
        self.held.is_none()
            && !self.has_ended
            && !self.is_confused
            && self.left > 0
            && self.client.transactions_left() != Some(0)
            && session.phase() != Phase::Closed
            // After an odd greeting a connection still takes one message.
            && (session.oddity().is_none() || (self.flights.is_empty() && !self.client.is_used))
    }

    pub(super) fn hop(facts: &ServerFacts) -> NextHop<'_> {
        NextHop { capabilities: &facts.capabilities, tls_is_verified: facts.is_verified }
    }

    pub(super) fn kind(&self) -> BodyKind {
        self.client.driver.session().body_kind()
    }

    /// Messages of known length may go blind over this connection.
    pub(super) fn is_blind(&self) -> bool {
        let session = self.client.driver.session();
        self.is_proven && session.may_pipeline() && !session.is_lmtp() && self.kind() == BodyKind::Chunks
    }

    /// Makes the next message ready, or gives it its result if it cannot be sent.
    pub(super) async fn take(&mut self, parcel: Option<P>) -> Result<(), ClientError> {
        let Some(mut parcel) = parcel else {
            self.has_ended = true;
            return Ok(());
        };
        let addresses = Addresses::of(parcel.mail(), parcel.recipients().iter(), &self.facts.capabilities);
        let mut attempt = Attempt::new(parcel.recipients().len());
        let (_, recipients) = addresses.borrowed(parcel.mail(), parcel.recipients().iter());
        drop(attempt.choose(self.client, &recipients));
        drop(recipients);
        let content = match parcel.open().await {
            Ok(content) => content,
            Err(error) => {
                self.done.push_back(unreadable(parcel, Unreadable::Read(error)));
                return Ok(());
            }
        };
        let mut flight = Flight::new(parcel, addresses, content, attempt);
        let hop = Self::hop(&self.facts);
        if let Err(why) = flight.mail(hop) {
            flight.attempt.outcomes.fill(Some(RecipientOutcome::Undeliverable(why)));
        }
        if !flight.is_open() || flight.attempt.named.is_empty() {
            self.done.push_back(flight.done(None, false));
            return Ok(());
        }
        let by_chunks = self.kind() == BodyKind::Chunks;
        flight.is_alone = self.is_single
            || !self.client.driver.session().may_pipeline()
            || flight.attempt.named.len() > GROUP
            || flight.parcel.mail().body == Some(BodyType::BinaryMime)
            || (by_chunks && flight.length.is_none())
            || !flight.has_good_lines(hop);
        if !flight.is_alone
            && self.is_blind()
            && flight.length.is_some_and(|length| length <= WHOLE)
            && let Err(why) = flight.read_whole().await
        {
            self.done.push_back(unreadable(flight.parcel, why));
            return Ok(());
        }
        self.held = Some(flight);
        Ok(())
    }

    /// Returns `true` if the held message may be begun now.
    fn may_begin_held(&self) -> bool {
        let Some(held) = &self.held else { return false };
        let Some(front) = self.flights.front() else { return true };
        if held.is_alone || self.is_confused {
            return false;
        }
        if matches!(held.body, Body::Whole(_)) && self.is_blind() {
            let session = self.client.driver.session();
            return self.flights.iter().all(|flight| flight.end.is_some())
                && self.flights.len() < MESSAGES
                && self.octets.saturating_add(held.length.unwrap_or(0)) <= OCTETS
                && session.unanswered().saturating_add(held.open_rcpts) < COMMANDS;
        }
        self.flights.len() == 1 && front.end.is_some()
    }

    /// Begins the held message.
    async fn begin_held(&mut self) -> Result<(), ClientError> {
        let Some(mut flight) = self.held.take() else { return Ok(()) };
        self.left = self.left.saturating_sub(1);
        if flight.is_alone {
            return self.send_alone(flight).await;
        }
        let session = self.client.driver.session();
        let is_blind = self.is_blind() && matches!(flight.body, Body::Whole(_));
        // The message in front may leave its transaction open, if its recipients are all refused.
        let resets = match self.flights.is_empty() {
            true => session.phase() != Phase::Ready,
            false => self.flights.iter().any(|flight| flight.is_blind),
        };
        flight.awaits_reset = resets;
        flight.is_early = !self.flights.is_empty();
        // Its refusals count when it is certain what they answer.
        flight.attempt.is_out_of_step = flight.is_early;
        let facts = Arc::clone(&self.facts);
        let commands = flight.commands(Self::hop(&facts), resets, !is_blind && self.kind() == BodyKind::Data);
        for command in &commands {
            self.client.driver.send(command)?;
        }
        drop(commands);
        if is_blind {
            flight.is_blind = true;
            flight.attempt.by_chunks = true;
            let sent = match &flight.body {
                Body::Whole(pieces) => self.client.driver.send_early_chunk(pieces).await,
                Body::Streamed(_) | Body::Gone => return Ok(()),
            };
            self.octets = self.octets.saturating_add(flight.length.unwrap_or(0));
            flight.end = sent.as_ref().ok().map(|ticket| End { ticket: *ticket, what: Ends::Content });
            self.flights.push_back(flight);
            return self.after_write(sent.map(drop)).await;
        }
        self.flights.push_back(flight);
        Ok(())
    }

    /// Returns `true` if the content of a message can be sent, or it is certain that it cannot.
    fn is_ready(&self, front: &Flight<P>) -> bool {
        match self.kind() {
            BodyKind::Data => front.is_ready(),
            BodyKind::Chunks => front.is_answered(),
        }
    }
}

pub(super) fn confused() -> ClientError {
    ClientError::Peer(PeerMisbehaved::UnsolicitedReply)
}

/// A message whose content cannot be sent, and of which nothing was.
fn unreadable<P: Parcel>(parcel: P, why: Unreadable) -> Done<P> {
    let (outcome, broken) = match why {
        Unreadable::Read(error) => (RecipientOutcome::Lost, Some(Arc::new(ClientError::Content(error)))),
        Unreadable::Fault(fault) => (RecipientOutcome::Unsendable(fault), None),
    };
    let outcomes = vec![outcome; parcel.recipients().len()];
    let result = Transacted { outcomes, broken, in_doubt: false, chunking_failed: false, has_begun: true };
    Done { parcel, result, pieces: None, is_untouched: false, is_at_break: false }
}
