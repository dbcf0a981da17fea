//! When a session does not wait any longer.

use core::time::Duration;

use bytes::BytesMut;

use super::{CloseReason, Pending, ServerEof, ServerSession, ending::farewell, replies};
use crate::{Tick, table::Phase};

impl ServerSession {
    /// Acts if the time of [`poll_timeout`](Self::poll_timeout) has come. If that ends the session,
    /// returns its last state; the next call of `handle_input` says why it ends.
    ///
    /// `None`: the time has not come, or it was that of a delayed greeting.
    pub fn handle_timeout(&mut self, now: Tick, out: &mut BytesMut) -> Option<ServerEof> {
        self.poll_timeout().filter(|deadline| *deadline <= now)?;
        if let Some(Pending::Greet(greeting, _)) = &self.pending {
            out.extend_from_slice(greeting.as_bytes());
            self.pending = None;
            return None;
        }
        let eof = ServerEof { in_transaction: self.is_in_transaction() };
        let (reply, reason) = if self.question.is_some() {
            (&replies::NO_VERDICT, CloseReason::NoVerdict)
        } else if let Some((_, reason)) = self.last_moment().filter(|(end, _)| *end <= now) {
            (farewell(reason), reason)
        } else {
            (&replies::TIMEOUT, CloseReason::Timeout)
        };
        self.give_up_questions();
        if self.phase != Phase::Handshake {
            self.say(reply, out);
        }
        self.close(reason);
        Some(eof)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). `None`: the session waits for the
    /// driver.
    pub fn poll_timeout(&self) -> Option<Tick> {
        if self.is_over() {
            return None;
        }
        if let Some(Pending::Greet(_, until)) = self.pending {
            return Some(until);
        }
        if let Some(question) = self.question {
            return Some(question.deadline);
        }
        // While replies wait, the driver's bound for writing applies.
        let ends = self.ends_at().filter(|_| self.saying.is_none());
        self.timer.deadline().into_iter().chain(ends).min()
    }

    /// When the session ends in any case, by
    /// [`ServerTimeouts::session`](super::ServerTimeouts::session) or
    /// [`ServerTimeouts::message`](super::ServerTimeouts::message). The end of a message may move
    /// it. A write of the output must end before it too. `None`: before the first call of
    /// [`handle_input`](Self::handle_input).
    pub fn ends_at(&self) -> Option<Tick> {
        self.last_moment().map(|(end, _)| end)
    }

    /// Shortens every wait to a tenth, and demands ten times the minimum rate of content. The
    /// greeting's delay, the wait for a verdict and the time of the whole session stay. `false`
    /// undoes it.
    ///
    /// It applies at once, to waits that have begun too. It is for servers that are nearly full.
    pub const fn hurry(&mut self, hurried: bool) {
        self.timer.hurry(hurried);
    }

    /// How long one write of the output may take. The driver keeps this bound. Default: 5 minutes.
    pub fn write_timeout(&self) -> Duration {
        self.timer.scaled(self.settings.timeouts.write)
    }

    /// How long a TLS handshake may take. The driver keeps this bound. Default: 30 seconds.
    pub fn handshake_timeout(&self) -> Duration {
        self.timer.scaled(self.settings.timeouts.handshake)
    }

    /// When the session ends in any case, and why. A missing message does not interrupt content.
    pub(super) fn last_moment(&self) -> Option<(Tick, CloseReason)> {
        let ends = self.ends?;
        let message = self.without_message + self.timer.scaled(self.settings.timeouts.message);
        let is_coming = matches!(self.phase, Phase::Content | Phase::Chunks);
        Some(match message < ends && !is_coming {
            true => (message, CloseReason::NoMessage),
            false => (ends, CloseReason::SessionTooLong),
        })
    }
}
