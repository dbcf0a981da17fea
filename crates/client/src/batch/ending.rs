//! What is certain when a conversation breaks off, and what is in doubt.
//!
//! | message | it broke off | after a 421 |
//! |---|---|---|
//! | has the reply to its end | it counts | it counts |
//! | its content may have left whole | in doubt | not taken: the server reads nothing after it |
//! | its content has not left, or not whole | not taken | not taken |
//!
//! A server that broke off while messages overlapped, and had not shown that it can do it, counts
//! as confused. So does one whose replies do not fit, or are not well formed. Another may end a
//! conversation for reasons of its own.

use std::sync::Arc;

use posthaste_tokio::{ClientError, session::ApiMisuse};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    flight::{End, Ends, Parcel},
    pipeline::Pipeline,
};
use crate::{RecipientOutcome, Stage, transaction::may_be_chunking};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, P: Parcel> Pipeline<'_, S, P> {
    /// The conversation is over. `by_421`: the server said so, and has taken nothing after that.
    pub(super) fn fail(&mut self, error: ClientError, by_421: bool) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.is_broken = true;
        let session = self.client.driver.session();
        let is_own = matches!(error, ClientError::Misuse(_) | ClientError::Content(_));
        let overlapped = self.flights.len() > 1 || self.flights.front().is_some_and(|front| front.is_early);
        let is_odd = matches!(error, ClientError::Peer(_)) || self.is_confused;
        let is_own = is_own || matches!(error, ClientError::Chunking(_));
        let is_confusion = !is_own && ((overlapped && !self.is_proven) || is_odd);
        let fault = match &error {
            ClientError::Misuse(ApiMisuse::Content(fault)) => Some(*fault),
            _ => None,
        };
        let in_content = session.message_in_doubt();
        let broken = Arc::new(error);
        let (mut is_first, mut chunking_failed, mut says_nothing) = (true, false, true);
        for mut flight in self.flights.drain(..).chain(self.held.take()) {
            let in_doubt = match flight.end {
                Some(End { ticket, what: Ends::Content }) => {
                    session.is_unanswered(ticket) && (!by_421 || (is_first && session.is_lmtp()))
                }
                Some(_) => false,
                // The write of its content failed.
                None => in_content && (flight.has_begun || flight.is_blind) && !by_421,
            };
            if is_first && let Some(fault) = fault {
                let open = flight.attempt.outcomes.iter_mut().filter(|outcome| outcome.is_none());
                open.for_each(|outcome| *outcome = Some(RecipientOutcome::Unsendable(fault)));
            }
            let by_chunks = flight.attempt.by_chunks;
            let mut done = flight.done(Some(Arc::clone(&broken)), in_doubt);
            if is_first {
                done.is_at_break = true;
                let is_chunking = matches!(*broken, ClientError::Chunking(_));
                chunking_failed = by_chunks && (is_chunking || (!overlapped && !by_421 && may_be_chunking(&broken)));
                done.result.chunking_failed = chunking_failed;
                says_nothing = done.is_untouched;
            }
            is_first = false;
            self.done.push_back(done);
        }
        let was_used = std::mem::replace(&mut self.client.is_used, true);
        let (Some(remote), Some(target)) = (&self.client.remote, &self.facts.target) else { return };
        if chunking_failed {
            remote.health.broke_chunking(&target.server);
        } else if is_confusion {
            remote.health.broke_batch(&target.server);
        } else if is_own || (was_used && says_nothing) {
            // This side failed, or the server has closed a connection that it has served.
        } else {
            remote.health.failed(&target.server, &target.host, Stage::Transaction);
        }
    }
}
