//! How the messages of a pipeline leave.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{Stream, StreamExt};
use posthaste_tokio::{
    ClientError,
    session::client::BodyKind,
    wire::{BodyType, Command},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    flight::{Body, Done, End, Ends, Flight, Parcel, Pieces},
    pipeline::{Pipeline, confused},
};
use crate::{RecipientOutcome, delivery::Transacted, letter::Watched};

/// How long replies to earlier messages are waited for after a write has failed.
const LATE_REPLIES: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin + Send, P: Parcel> Pipeline<'_, S, P> {
    /// After a failed write the replies to earlier messages still count.
    pub(super) async fn after_write(&mut self, sent: Result<(), ClientError>) -> Result<(), ClientError> {
        let Err(error) = sent else { return Ok(()) };
        let until = Instant::now() + LATE_REPLIES;
        while self.flights.len() > 1 {
            let Ok(event) = timeout_at(until, self.client.driver.next()).await else { break };
            match event {
                Ok(event) => self.hear(event)?,
                Err(_) => break,
            }
            if self.is_over {
                return Ok(());
            }
        }
        Err(error)
    }

    /// Sends a message with no other on its way.
    pub(super) async fn send_alone(&mut self, mut flight: Flight<P>) -> Result<(), ClientError> {
        let body = std::mem::replace(&mut flight.body, Body::Gone);
        let (mail, recipients) = flight.envelope();
        let is_binary = mail.body == Some(BodyType::BinaryMime);
        let sent = match body {
            Body::Streamed(content) => {
                let mut content = pin!(Watched { content, has_begun: false });
                let sent = self.client.transact(mail, &recipients, content.as_mut()).await;
                Transacted::new(sent, content.has_begun, is_binary)
            }
            Body::Whole(pieces) => {
                let sent = self.client.transact(mail, &recipients, Pieces::new(pieces)).await;
                Transacted::new(sent, true, is_binary)
            }
            Body::Gone => return Ok(()),
        };
        let is_broken = sent.broken.is_some();
        let is_untouched = is_broken && !sent.in_doubt && sent.outcomes.iter().all(RecipientOutcome::says_nothing);
        self.is_over |= is_broken;
        self.is_broken |= is_broken;
        self.done.push_back(Done {
            parcel: flight.parcel,
            result: sent,
            pieces: None,
            is_untouched,
            is_at_break: is_broken,
        });
        Ok(())
    }

    /// Sends the content of the first message, or what ends it without, and the next message's
    /// commands behind it.
    pub(super) async fn send_content<Q: Stream<Item = P> + Unpin>(
        &mut self,
        source: &mut Q,
    ) -> Result<(), ClientError> {
        let by_chunks = self.kind() == BodyKind::Chunks;
        let Some(front) = self.flights.front_mut() else { return Ok(()) };
        // Without 354 no reply shows that one is too many.
        if by_chunks && front.is_early && !self.client.driver.is_quiet() {
            let event = self.client.driver.next().await;
            return Err(event.err().unwrap_or_else(confused));
        }
        self.is_proven |= front.is_early && front.mail_refused.is_none() && (by_chunks || front.is_asked);
        let is_open = front.data_refused.is_none() && front.mail_refused.is_none();
        if by_chunks || front.is_asked || !front.is_early {
            front.is_in_step();
        }
        let is_open = is_open && front.is_open();
        if self.wants_another() {
            let next = poll_fn(|context| {
                Poll::Ready(match source.poll_next_unpin(context) {
                    Poll::Ready(parcel) => Some(parcel),
                    Poll::Pending => None,
                })
            });
            if let Some(parcel) = next.await {
                self.take(parcel).await?;
            }
        }
        let goes_blind = self.is_blind();
        let goes_now = |held: &mut Flight<P>| {
            let is_blind = goes_blind && matches!(held.body, Body::Whole(_));
            !held.is_alone && !is_blind
        };
        let mut next = self.held.take_if(goes_now);
        let facts = Arc::clone(&self.facts);
        if let Some(next) = &mut next {
            self.left = self.left.saturating_sub(1);
            (next.is_early, next.attempt.is_out_of_step) = (true, true);
        }
        let commands =
            next.as_ref().map(|next| next.commands(Self::hop(&facts), false, !by_chunks)).unwrap_or_default();
        let Some(front) = self.flights.front_mut() else { return Ok(()) };
        let driver = &mut self.client.driver;
        let (sent, what) = if !is_open && !front.is_asked {
            let ticket = driver.send(&Command::Rset)?;
            for command in &commands {
                driver.send(command)?;
            }
            (Ok(ticket), Ends::Reset)
        } else if is_open {
            front.has_begun = true;
            front.attempt.by_chunks = by_chunks;
            let content = std::mem::replace(&mut front.body, Body::Gone);
            let sent = match (content, by_chunks) {
                (Body::Streamed(content), true) => driver.send_chunk_then(content, commands).await,
                (Body::Streamed(content), false) => driver.send_content_then(content, commands).await,
                (Body::Whole(pieces), true) => driver.send_chunk_then(Pieces::new(pieces), commands).await,
                (Body::Whole(pieces), false) => driver.send_content_then(Pieces::new(pieces), commands).await,
                (Body::Gone, _) => return Ok(()),
            };
            (sent, Ends::Content)
        } else {
            // 354 although every recipient was refused (RFC 2920 section 3.1).
            (driver.send_content_then(bytes::Bytes::new(), commands).await, Ends::Nothing)
        };
        match sent {
            Ok(ticket) => {
                front.end = Some(End { ticket, what });
                self.flights.extend(next);
                Ok(())
            }
            Err(error) => {
                if let ClientError::EarlyReply(reply) = &error {
                    front.attempt.content_refused(reply)?;
                }
                // Nothing of it has left whole.
                self.held = next;
                Err(error)
            }
        }
    }
}
