//! How a session ends without a command of the client.

use bytes::BytesMut;
use posthaste_wire::Reply;

use super::{CloseReason, Pending, ServerSession, replies};
use crate::table::Phase;

impl ServerSession {
    /// Ends the session with a 421 at the next boundary: after a reply and before the next command.
    /// That is at once, unless content is being received, a question is open, or a TLS handshake is
    /// under way.
    pub fn shutdown(&mut self, out: &mut BytesMut) {
        self.leaving.get_or_insert(CloseReason::Shutdown);
        self.leave(out);
    }

    /// Ends the session with a 421 at once. Content and questions are void (RFC 5321 section 3.8).
    /// During a TLS handshake it sends no reply.
    pub fn abort(&mut self, out: &mut BytesMut) {
        self.cut(&replies::SHUTTING_DOWN, CloseReason::Shutdown, out);
    }

    /// As [`abort`](Self::abort), to make room for another client. The reply says so.
    pub fn displace(&mut self, out: &mut BytesMut) {
        self.cut(&replies::DISPLACED, CloseReason::Displaced, out);
    }

    fn cut(&mut self, reply: &Reply, reason: CloseReason, out: &mut BytesMut) {
        if self.is_over() {
            return;
        }
        self.give_up_questions();
        if self.phase != Phase::Handshake {
            self.say(reply, out);
        }
        self.close(reason);
    }

    /// Ends the session when a budget is used up. Called after each command.
    pub(super) fn check_budgets(&mut self, out: &mut BytesMut) {
        let limits = &self.settings.limits;
        let (reply, reason) = if self.counters.errors > limits.errors {
            (&replies::TOO_MANY_ERRORS, CloseReason::TooManyErrors)
        } else if self.counters.idle > limits.idle_commands {
            (&replies::TOO_MANY_IDLE_COMMANDS, CloseReason::TooManyIdleCommands)
        } else if self.counters.auth_failures > limits.auth_failures {
            (&replies::TOO_MANY_AUTH_FAILURES, CloseReason::TooManyAuthFailures)
        } else {
            return;
        };
        if self.is_at_boundary() && self.pending.is_none() {
            self.say(reply, out);
            self.close(reason);
        }
    }

    /// Says 421 if the session is to end and stands at a boundary.
    pub(super) fn leave(&mut self, out: &mut BytesMut) -> bool {
        let Some(reason) = self.leaving else { return false };
        let busy = !self.is_at_boundary() || matches!(self.phase, Phase::Content | Phase::Handshake);
        let leaves = !busy && !self.is_over();
        if leaves {
            self.say(farewell(reason), out);
            self.close(reason);
        }
        leaves
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        self.pending = Some(Pending::Close(reason));
    }

    pub(super) fn end(&mut self) {
        self.closed = true;
        self.phase = Phase::Closed;
        self.give_up_questions();
    }

    /// Returns `true` if only the report of the end is still to come.
    pub(super) const fn is_over(&self) -> bool {
        self.closed || matches!(self.pending, Some(Pending::Close(_)))
    }
}

/// The reply that ends a session without a command.
pub(super) const fn farewell(reason: CloseReason) -> &'static Reply {
    match reason {
        CloseReason::Shutdown => &replies::SHUTTING_DOWN,
        CloseReason::NoMessage => &replies::NO_MESSAGE,
        _ => &replies::SESSION_TOO_LONG,
    }
}
