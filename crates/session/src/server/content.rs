//! Message content: from 354 or the first BDAT to the reply to its end.

use core::ops::Range;

use bytes::BytesMut;
use posthaste_wire::{
    Command, Refusal, Reply, ReplyCode,
    frame::{ContentCheck, ContentFault, FaultKind},
};

use super::{Ask, CloseReason, Pending, Protocol, ServerNext, ServerSession, Transport, replies};
use crate::{
    Tick,
    table::{Exchange, Phase, ReplyClass},
};

/// A chunk whose octets are arriving.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// Octets that have arrived.
    octets: u64,
    last: bool,
    /// Why the chunk is out of place. It is swallowed all the same, because a client sends the
    /// octets together with the command (RFC 3030 section 2).
    stray: Option<&'static Reply>,
}

impl ServerSession {
    /// BDAT.
    pub(super) fn bdat<'i>(&mut self, now: Tick, size: u64, last: bool) -> Option<ServerNext<&'i str>> {
        let offers = &self.settings.offers;
        let stray = match self.phase {
            _ if !offers.chunking && !offers.binary_mime => Some(&replies::NOT_IMPLEMENTED),
            Phase::Rcpt | Phase::Chunks => None,
            Phase::Mail => Some(&replies::RCPT_FIRST),
            Phase::Ready => Some(&replies::MAIL_FIRST),
            Phase::Spoiled => Some(&replies::RSET_FIRST),
            Phase::Start | Phase::Greeted | Phase::Content | Phase::Auth | Phase::Handshake | Phase::Closed => {
                Some(&replies::HELLO_FIRST)
            }
        };
        self.framer.expect_chunk(size);
        let is_stray = stray.is_some();
        self.chunk = Some(Chunk { octets: 0, last, stray });
        if self.phase == Phase::Rcpt && !is_stray {
            return Some(self.ask(now, Exchange::Chunk, Ask::Data));
        }
        if !is_stray {
            self.advance(Exchange::Chunk, ReplyClass::Intermediate);
        }
        None
    }

    /// 354 is said, or the first chunk may come.
    pub(super) fn content_starts(&mut self) {
        self.transaction.octets = 0;
        self.transaction.refusal = None;
        let text_line = self.settings.limits.text_line;
        if self.chunk.is_none() {
            self.framer.expect_content(text_line);
        } else if !self.transaction.binary {
            self.transaction.check = Some(ContentCheck::new(text_line));
        }
        self.timer.content_starts();
    }

    /// Returns `true` if a line between two chunks abandons the message, so that what was handed
    /// out of it is void. DATA does, because it does not mix with BDAT (RFC 3030 section 2).
    pub(super) fn gives_up_chunks(&mut self, line: &[u8]) -> bool {
        if self.phase != Phase::Chunks {
            return false;
        }
        let verb = line.split(|octet| !octet.is_ascii_alphanumeric()).next().unwrap_or_default();
        let is_one_of = |verbs: &[&str]| verbs.iter().any(|other| verb.eq_ignore_ascii_case(other.as_bytes()));
        // A STARTTLS that is refused changes nothing, as everywhere in a transaction.
        let starts_tls = || self.transport == Transport::StartTls && Command::parse(line) == Ok(Command::StartTls);
        let gives_up = is_one_of(&["RSET", "EHLO", "HELO", "LHLO", "QUIT", "DATA"]) || starts_tls();
        if gives_up {
            self.advance(Exchange::Chunk, ReplyClass::Negative);
        }
        gives_up
    }

    /// Handles a piece of content, or of a chunk that is out of place.
    pub(super) fn content<'i>(
        &mut self,
        piece: &[u8],
        range: Range<usize>,
        out: &mut BytesMut,
    ) -> Option<ServerNext<&'i str>> {
        let octets = range.len() as u64;
        let limits = &self.settings.limits;
        let endless = limits.message_size.saturating_add(limits.discarded_content);
        if let Some(Chunk { octets: before, stray: Some(_), .. }) = &mut self.chunk {
            *before = before.saturating_add(octets);
            if *before > endless {
                self.endless_content(out);
            }
            return None;
        }
        if let Some(chunk) = &mut self.chunk {
            chunk.octets = chunk.octets.saturating_add(octets);
        }
        self.transaction.octets = self.transaction.octets.saturating_add(octets);
        // Refused content must come as fast as content that is taken.
        if self.timer.content_is_too_slow(octets, self.settings.timeouts.minimum_rate) {
            self.say(&replies::TIMEOUT, out);
            self.close(CloseReason::TooSlow);
            return None;
        }
        let refused = match self.transaction.refusal {
            Some(_) => None,
            None => match self.fault_in(piece) {
                None => return Some(ServerNext::Content(range)),
                refused => refused,
            },
        };
        if self.transaction.octets > endless {
            self.endless_content(out);
        }
        let refusal = refused?;
        self.transaction.refusal = Some(refusal.clone());
        Some(ServerNext::ContentRefused(refusal))
    }

    /// Why the content is refused from this piece on.
    fn fault_in(&mut self, piece: &[u8]) -> Option<Refusal> {
        let fault = match &mut self.transaction.check {
            Some(check) => check.check(piece).err(),
            None => self.framer.fault(),
        };
        // Of a fault and the limit the earlier one counts, however the octets were cut.
        let limit = self.settings.limits.message_size;
        match fault {
            Some(fault) if fault.offset < limit => Some(refusal_of(fault)),
            _ => (self.transaction.octets > limit).then(|| replies::MESSAGE_TOO_LARGE.clone()),
        }
    }

    fn endless_content(&mut self, out: &mut BytesMut) {
        self.say(replies::MESSAGE_TOO_LARGE.reply(), out);
        self.close(CloseReason::EndlessContent);
    }

    /// Handles the true end of the content, or of a chunk.
    pub(super) fn content_ended<'i>(&mut self, now: Tick, out: &mut BytesMut) -> Option<ServerNext<&'i str>> {
        let chunk = self.chunk.take();
        if let Some(Chunk { stray: Some(reply), .. }) = chunk {
            self.refuse(reply, out);
            self.check_budgets(out);
            return None;
        }
        let is_last = chunk.as_ref().is_none_or(|chunk| chunk.last);
        if is_last
            && self.transaction.refusal.is_none()
            && let Some(Err(fault)) = self.transaction.check.as_ref().map(ContentCheck::finish)
        {
            let refusal = refusal_of(fault);
            self.transaction.refusal = Some(refusal.clone());
            self.chunk = chunk;
            self.pending = Some(Pending::ContentEnd);
            return Some(ServerNext::ContentRefused(refusal));
        }
        let recipients = self.transaction.recipients;
        let Some(refusal) = self.transaction.refusal.take() else {
            if is_last {
                return Some(self.ask(now, Exchange::EndOfData, Ask::Message { recipients }));
            }
            self.advance(Exchange::Chunk, ReplyClass::Positive);
            if chunk.is_some_and(|chunk| chunk.octets == 0) {
                self.counters.idle = self.counters.idle.saturating_add(1);
            }
            self.say(&replies::CHUNK_TAKEN, out);
            self.check_budgets(out);
            return None;
        };
        self.advance(if is_last { Exchange::EndOfData } else { Exchange::Chunk }, ReplyClass::Negative);
        self.without_message = now;
        self.last_refusal = Some(refusal.reply().clone());
        let is_farewell = refusal.reply().code() == ReplyCode::SERVICE_NOT_AVAILABLE;
        let times = if is_last { self.replies_to_message(recipients) } else { 1 };
        self.say_times(refusal.into(), times, out);
        self.count_error();
        if is_farewell {
            self.close(CloseReason::Application);
        }
        self.check_budgets(out);
        Some(ServerNext::ContentSwallowed)
    }

    /// The number of replies to the end of a message (RFC 2033 section 4.2).
    pub(super) fn replies_to_message(&self, recipients: usize) -> usize {
        match self.settings.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => recipients,
        }
    }
}

fn refusal_of(fault: ContentFault) -> Refusal {
    let refusal = match fault.kind {
        FaultKind::BareCr => &replies::CONTENT_BARE_CR,
        FaultKind::BareLf => &replies::CONTENT_BARE_LF,
        FaultKind::Nul => &replies::CONTENT_NUL,
        FaultKind::LongLine => &replies::CONTENT_LONG_LINE,
    };
    refusal.clone()
}
