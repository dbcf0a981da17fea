//! What is reported before anything else is read.

use bytes::BytesMut;
use posthaste_wire::Reply;

use super::{Ask, CloseReason, ServerNext, ServerSession, replies};
use crate::{Tick, table::Exchange};

#[derive(Debug, Clone)]
pub(super) enum Pending {
    /// The question about the connection.
    Greeting,
    /// The greeting, delayed until this time.
    Greet(Reply, Tick),
    /// 354. It is said only if no octet of the client came before it.
    StartInput,
    StartTls,
    /// The end of content whose last octets had a fault.
    ContentEnd,
    Close(CloseReason),
}

impl ServerSession {
    pub(super) fn take_pending<'i>(
        &mut self,
        now: Tick,
        input_is_empty: bool,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        let pending = self.pending.take()?;
        match pending {
            Pending::Greeting => Some(self.ask(now, Exchange::Greeting, Ask::Connect)),
            Pending::Greet(_, until) if input_is_empty && now < until => {
                self.pending = Some(pending);
                Some(ServerNext::NeedInput)
            }
            Pending::Greet(greeting, _) if input_is_empty || !self.settings.limits.forbid_early_talking => {
                self.say(&greeting, out);
                None
            }
            Pending::Greet(..) => {
                self.say(&replies::EARLY_TALKER, out);
                self.end();
                Some(ServerNext::Close(CloseReason::EarlyTalker))
            }
            Pending::StartInput if input_is_empty || !self.settings.limits.forbid_unauthorized_pipelining => {
                self.say(&replies::START_INPUT, out);
                None
            }
            // These octets came while the question was open, as unauthorized as octets with DATA
            // itself.
            Pending::StartInput => {
                self.say(&replies::UNAUTHORIZED_PIPELINING, out);
                self.end();
                Some(ServerNext::Close(CloseReason::UnauthorizedPipelining))
            }
            Pending::ContentEnd => self.content_ended(now, out),
            Pending::StartTls if input_is_empty => {
                self.timer.wait_for_handshake(now, self.settings.timeouts.handshake);
                Some(ServerNext::StartTls)
            }
            Pending::StartTls => {
                // These octets came between the reply and the handshake. They must not count as
                // sent through TLS.
                out.clear();
                self.end();
                Some(ServerNext::Close(CloseReason::ResidueBeforeTls))
            }
            Pending::Close(reason) => {
                self.end();
                Some(ServerNext::Close(reason))
            }
        }
    }
}
