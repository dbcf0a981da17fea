//! Message content, from 354 to the reply to its end.

use core::ops::Range;

use bytes::BytesMut;
use posthaste_wire::{
    Reply, ReplyCode,
    frame::{ContentFault, FaultKind},
};

use super::{Ask, CloseReason, ServerNext, ServerSession, Topic, replies};
use crate::{
    Tick,
    table::{Exchange, Outcome, Phase},
};

impl ServerSession {
    pub(super) fn content_starts(&mut self) {
        self.transaction.octets = 0;
        self.transaction.refusal = None;
        self.framer.expect_content(self.settings.limits.text_line);
        self.timer.content_starts();
    }

    /// A piece of content or, outside of a message, of a chunk that nobody asked for.
    pub(super) fn content<'i>(&mut self, range: Range<usize>, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        if self.phase != Phase::Content {
            return None;
        }
        self.transaction.octets = self.transaction.octets.saturating_add(range.len() as u64);
        // What is swallowed has to come as fast as what is taken.
        if self.timer.content_is_too_slow(self.transaction.octets, self.settings.timeouts.minimum_rate) {
            self.say(&replies::TIMEOUT, out);
            self.close(CloseReason::TooSlow);
            return None;
        }
        if self.transaction.refusal.is_none() {
            let reply = if let Some(fault) = self.framer.fault() {
                fault_reply(fault)
            } else if self.transaction.octets > self.settings.limits.message {
                replies::MESSAGE_TOO_LARGE.clone()
            } else {
                return Some(ServerNext::Content(range));
            };
            self.transaction.refusal = Some(reply.clone());
            return Some(ServerNext::ContentRefused(reply));
        }
        None
    }

    /// The true end of the content, or of a chunk that nobody asked for.
    pub(super) fn content_ended<'i>(&mut self, now: Tick, out: &mut BytesMut) -> Option<ServerNext<'i>> {
        if self.phase != Phase::Content {
            self.refuse(&replies::NOT_IMPLEMENTED, out);
            self.check_budgets(out);
            return None;
        }
        let Some(refusal) = self.transaction.refusal.take() else {
            let recipients = self.transaction.recipients;
            let id = self.question(now, Topic::Message);
            return Some(ServerNext::Ask(id, Ask::Message { recipients }));
        };
        self.advance(Exchange::EndOfData, Outcome::Negative);
        self.refuse(&refusal, out);
        if refusal.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
            self.close(CloseReason::Application);
        }
        self.check_budgets(out);
        Some(ServerNext::ContentSwallowed)
    }
}

fn fault_reply(fault: ContentFault) -> Reply {
    let reply = match fault.kind {
        FaultKind::BareCr => &replies::CONTENT_BARE_CR,
        FaultKind::BareLf => &replies::CONTENT_BARE_LF,
        FaultKind::Nul => &replies::CONTENT_NUL,
        FaultKind::LongLine => &replies::CONTENT_LONG_LINE,
    };
    reply.clone()
}
