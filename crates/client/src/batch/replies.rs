//! What the replies to the messages of a pipeline mean.

use std::sync::Arc;

use posthaste_tokio::{
    ClientError, ClientEvent,
    session::table::Phase,
    wire::{Reply, ReplyCode},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    flight::{End, Ends, Flight, Parcel},
    pipeline::{Pipeline, confused},
};
use crate::{RecipientOutcome, RefusedAt, outcome::is_unknown_command};

/// Replies to MAIL that say nothing of the message: it is unknown, or out of order.
const OUT_OF_PLACE: [u16; 3] = [500, 502, 503];

impl<S: AsyncRead + AsyncWrite + Unpin + Send, P: Parcel> Pipeline<'_, S, P> {
    /// Takes a reply. It answers the first message that has no result.
    pub(super) fn hear(&mut self, event: ClientEvent) -> Result<(), ClientError> {
        let Some(front) = self.flights.front_mut() else { return Err(confused()) };
        let (mut is_last_word, mut is_done) = (false, false);
        let is_later = self.client.driver.session().accepted_recipients() > 0;
        match event {
            ClientEvent::SendBody { .. } => {
                // MAIL was out of order for the server, so what it has is not this transaction.
                if front.mail_refused.is_some() {
                    return Err(confused());
                }
                front.is_asked = true;
            }
            ClientEvent::Reply { to, recipient, reply } => {
                is_last_word = reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
                match front.end {
                    Some(end) if end.ticket == to => {
                        is_done = take_end(front, end, recipient, &reply)?
                            || !self.client.driver.session().is_unanswered(end.ticket);
                    }
                    _ => self.is_confused |= take_answer(front, recipient, is_later, reply)?,
                }
            }
            _ => return Err(ClientError::Closed),
        }
        let session = self.client.driver.session();
        let is_closed = session.phase() == Phase::Closed;
        let oddity = session.oddity();
        if is_done && let Some(front) = self.flights.pop_front() {
            if front.is_blind {
                self.octets = self.octets.saturating_sub(front.length.unwrap_or(0));
            }
            self.finish(front, oddity.map(ClientError::Peer).or(is_closed.then_some(ClientError::Closed)));
        }
        match oddity {
            Some(oddity) => self.fail(ClientError::Peer(oddity), is_last_word),
            None if is_closed => self.fail(ClientError::Closed, is_last_word),
            None => {}
        }
        Ok(())
    }

    /// A message has its result.
    pub(super) fn finish(&mut self, mut front: Flight<P>, broken: Option<ClientError>) {
        let is_dubious = front.is_dubious;
        let lacks_tls = self.client.note_lack_of_tls(&mut front.attempt.outcomes);
        let unclear = is_dubious.then(|| Arc::new(confused()));
        if broken.is_none() && !is_dubious {
            self.client.is_used = true;
            if let (Some(remote), Some(target)) = (&self.client.remote, &self.facts.target) {
                let outcomes = front.attempt.outcomes.iter().flatten();
                remote.health.settled(target, lacks_tls || RecipientOutcome::are_servers_refusals(outcomes));
                if lacks_tls {
                    remote.health.needs_tls(&target.server);
                } else if remote.tls_is_suspected {
                    let why = self.client.tls_failure.clone().unwrap_or_default();
                    remote.health.broke_tls(&target.server, why);
                }
            }
        }
        let is_lost = front.is_open();
        let broken = broken.map(Arc::new).or(unclear).or(is_lost.then(|| Arc::new(confused())));
        let mut done = front.done(broken, is_dubious);
        done.is_at_break = done.is_untouched;
        self.done.push_back(done);
    }
}

/// Takes the reply to a command before the content. Returns `true` if the server is confused.
fn take_answer<P: Parcel>(
    front: &mut Flight<P>,
    recipient: Option<u32>,
    is_later: bool,
    reply: Reply,
) -> Result<bool, ClientError> {
    let is_positive = reply.code().is_positive();
    let is_last = reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
    match recipient {
        None if std::mem::take(&mut front.awaits_reset) => {}
        None if !std::mem::replace(&mut front.mail_is_answered, true) => {
            if !is_positive && front.is_early && OUT_OF_PLACE.contains(&reply.code().get()) {
                // The transaction in front is over, so MAIL was in order.
                if !front.is_blind {
                    return Err(confused());
                }
                front.mail_refused = Some(reply);
                front.is_dubious = true;
                return Ok(true);
            }
            if !is_positive {
                if is_last || !front.is_early {
                    front.attempt.settle(&reply, RefusedAt::Mail);
                }
                front.mail_refused = Some(reply);
            }
        }
        None => front.data_refused = Some(reply),
        Some(index) => {
            front.open_rcpts = front.open_rcpts.saturating_sub(1);
            if !is_positive && front.mail_refused.is_none() {
                let at = if is_later { RefusedAt::LaterRcpt } else { RefusedAt::Rcpt };
                front.attempt.set(index, RecipientOutcome::Refused(reply, at));
            }
        }
    }
    Ok(false)
}

/// Takes the reply to what ends a message. Returns `true` if nothing more is to come for it.
fn take_end<P: Parcel>(
    front: &mut Flight<P>,
    end: End,
    recipient: Option<u32>,
    reply: &Reply,
) -> Result<bool, ClientError> {
    match end.what {
        Ends::Nothing => {}
        Ends::Reset => front.is_in_step(),
        Ends::Content => {
            if front.is_dubious {
                // It counts as not sent, unless the server took what was sent.
                front.is_dubious = reply.code().is_positive();
                front.mail_refused = None;
                front.attempt.forget();
                return Ok(true);
            }
            if front.is_blind {
                front.is_in_step();
            }
            if let Some(index) = recipient {
                front.attempt.set(index, RecipientOutcome::of(reply.clone(), RefusedAt::Content));
            } else if front.attempt.by_chunks && front.is_open() && is_unknown_command(reply) {
                front.attempt.content_refused(reply)?;
            } else {
                front.attempt.settle(reply, RefusedAt::Content);
            }
        }
    }
    Ok(false)
}
