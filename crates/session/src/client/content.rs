//! Message content on its way out: behind DATA, or in the chunks of BDAT (RFC 3030).

use bytes::BytesMut;
use posthaste_wire::{
    BodyType, Command,
    capability::Keyword,
    frame::{ContentCheck, SegmentList, Stuffer},
};

use super::{ClientSession, Sent, Ticket};
use crate::{
    ApiMisuse, Tick,
    table::{Exchange, Phase},
};

/// How content goes to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// By DATA: dots are stuffed, the end is a dot alone.
    Data,
    /// By BDAT: octets are counted, and leave as they are.
    Chunks,
}

/// What is open.
#[derive(Debug)]
pub(super) enum Flow {
    None,
    Data(Stuffer),
    Chunk {
        /// Octets that are still to come; never 0.
        left: u64,
        last: bool,
    },
    /// A chunk has all of its octets, and its reply may come at any time.
    WholeChunk(Ticket),
}

impl Flow {
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Octets are still to come.
    pub(super) const fn is_unfinished(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Chunk { .. })
    }
}

impl ClientSession {
    /// How the content of this transaction is to go: by chunks when the server offers CHUNKING and either
    /// [`ClientSettings::chunking`](super::ClientSettings::chunking) is on or the content is binary, otherwise by DATA. Behind an
    /// [`oddity`](Self::oddity) only binary content goes by chunks.
    pub const fn body_kind(&self) -> BodyKind {
        let by_choice = self.settings.chunking && self.odd.is_none();
        if self.capabilities.offers(Keyword::Chunking) && (by_choice || self.is_binary()) {
            BodyKind::Chunks
        } else {
            BodyKind::Data
        }
    }

    /// Writes BDAT for so many octets to the output. They have to follow: [`payload`](Self::payload) takes them,
    /// [`body_credit`](Self::body_credit) says how many are still to come, [`finish_payload`](Self::finish_payload) gives
    /// the ticket. Content of known length is one chunk, the last. A last chunk of 0 octets ends a message too.
    ///
    /// No chunk leaves before every recipient has its answer and one was accepted (RFC 3030 section 2): content is not
    /// shown to a server that wants it for nobody, and with PIPELINING it costs no more round trips than DATA does. Other
    /// chunks may follow a chunk whose reply is still to come, if PIPELINING is offered. The last one may not: its positive
    /// reply then always speaks for the whole message, also of a server that forgets that it refused a part.
    ///
    /// # Errors
    /// Nothing is written then.
    ///
    /// - [`ApiMisuse::OutOfOrder`] when content has no place here: no recipient was accepted, a chunk was refused (RSET has
    ///   to follow), DATA was sent, or a chunk is open.
    /// - [`ApiMisuse::NotYet`] when it has to wait for replies.
    /// - [`ApiMisuse::NotOffered`] without CHUNKING.
    /// - [`ApiMisuse::Content`] for an end of no octets behind a CR; the session is closed.
    pub fn begin_chunk(&mut self, now: Tick, octets: u64, last: bool, out: &mut BytesMut) -> Result<(), ApiMisuse> {
        if self.phase == Phase::Closed || self.closing {
            return Err(ApiMisuse::Closed);
        }
        if self.flow.is_open() || self.phase == Phase::Spoilt {
            return Err(ApiMisuse::OutOfOrder);
        }
        if !self.capabilities.offers(Keyword::Chunking) {
            return Err(ApiMisuse::NotOffered);
        }
        let is_chunk = |sent: &Sent| sent.exchange == Exchange::Chunk;
        let may_follow =
            !last && self.may_pipeline() && self.unanswered.len() < MAX_CHUNKS && self.unanswered.iter().all(is_chunk);
        if !self.unanswered.is_empty() && !may_follow {
            return Err(ApiMisuse::NotYet);
        }
        if !matches!(self.phase, Phase::Rcpt | Phase::Chunks) {
            return Err(ApiMisuse::OutOfOrder);
        }
        // Octets of its own would be looked at when they come; without any, BDAT itself is the end.
        if last
            && octets == 0
            && !self.is_binary()
            && let Err(fault) = self.check.finish()
        {
            self.end();
            return Err(fault.into());
        }
        Command::Bdat { size: octets, last }.encode(out)?;
        self.chunk_goes_on(now, octets, last);
        self.block_due = Some(now + self.settings.timeouts.write);
        Ok(())
    }

    /// Octets that the open chunk still takes; nothing when none is open.
    pub const fn body_credit(&self) -> Option<u64> {
        match self.flow {
            Flow::Chunk { left, .. } => Some(left),
            Flow::WholeChunk(_) => Some(0),
            Flow::None | Flow::Data(_) => None,
        }
    }

    /// Appends as much of the content as the list and the open chunk have room for, and says how many octets of it that
    /// was. What it appends has to be written within [`write_timeout`](Self::write_timeout): give it some 64 KiB at once.
    ///
    /// Unless it was announced with BODY=BINARYMIME, content must have no bare CR, no bare LF and no NUL, by DATA because
    /// it could end elsewhere, by BDAT because the next server may have nothing but DATA.
    ///
    /// # Errors
    /// [`ApiMisuse::OutOfOrder`] before [`ClientNext::SendBody`](crate::ClientNext::SendBody), outside a chunk, and for
    /// content that nobody was accepted for; [`ApiMisuse::Content`] when the content has what it must not have. What was appended must not be written then: the
    /// session is closed, so that half a message is not finished as if it were whole.
    pub fn payload<'p>(
        &mut self,
        now: Tick,
        content: &'p [u8],
        segments: &mut SegmentList<'p>,
    ) -> Result<usize, ApiMisuse> {
        self.check_open()?;
        let is_binary = self.is_binary();
        let taken = match &mut self.flow {
            Flow::None => return Err(ApiMisuse::OutOfOrder),
            // A lone dot is all that a server gets that wants content for nobody.
            Flow::Data(_) if self.accepted.is_empty() && !content.is_empty() => return Err(ApiMisuse::OutOfOrder),
            Flow::Data(stuffer) => stuffer.stuff(content, segments),
            Flow::WholeChunk(_) => return Ok(0),
            Flow::Chunk { left, last } => {
                let (left, last) = (*left, *last);
                let piece = usize::try_from(left).ok().and_then(|most| content.get(..most)).unwrap_or(content);
                if piece.is_empty() || segments.room() == 0 {
                    return Ok(0);
                }
                let rest = left.saturating_sub(piece.len() as u64);
                // At the end of a last chunk the server has the message: what is wrong with it is said before.
                let checked = match &mut self.check {
                    _ if is_binary => Ok(()),
                    check => check.check(piece).and_then(|()| if last && rest == 0 { check.finish() } else { Ok(()) }),
                };
                checked.map(|()| {
                    // There is room, as seen above.
                    let taken = if segments.push_body(piece) { piece.len() } else { 0 };
                    self.chunk_goes_on(now, rest, last);
                    taken
                })
            }
        };
        self.block_due = Some(now + self.settings.timeouts.write);
        taken.map_err(|fault| {
            self.end();
            fault.into()
        })
    }

    /// Ends the content behind DATA, or a chunk that has all of its octets. The reply comes with the ticket; for a last
    /// chunk and for DATA in LMTP one for each accepted recipient (RFC 2033 section 4.2). The next MAIL may follow at once
    /// when the server offers PIPELINING.
    ///
    /// The octets of a chunk need nothing behind them: their reply may come as soon as they are written, so call this
    /// before, or be ready for a reply whose ticket is not known yet.
    ///
    /// # Errors
    /// As [`payload`](Self::payload); [`ApiMisuse::Unfinished`] when the chunk has octets that are still to come (if they
    /// never will, close the connection), [`ApiMisuse::NoRoom`] when the list is full. The session is as it was then.
    pub fn finish_payload(&mut self, now: Tick, segments: &mut SegmentList<'_>) -> Result<Ticket, ApiMisuse> {
        self.check_open()?;
        let whole_chunk = match &mut self.flow {
            Flow::None => return Err(ApiMisuse::OutOfOrder),
            Flow::Chunk { .. } => return Err(ApiMisuse::Unfinished),
            Flow::WholeChunk(ticket) => Some(*ticket),
            Flow::Data(_) if segments.room() == 0 => return Err(ApiMisuse::NoRoom),
            Flow::Data(stuffer) => match stuffer.finish() {
                Ok(end) if segments.push_fixed(end) => None,
                Ok(_) => return Err(ApiMisuse::NoRoom),
                Err(fault) => {
                    self.end();
                    return Err(fault.into());
                }
            },
        };
        self.flow = Flow::None;
        self.block_due = None;
        Ok(whole_chunk.unwrap_or_else(|| self.expect_end(now)))
    }

    /// So many octets of the open chunk are still to come. Without any, its reply may come.
    fn chunk_goes_on(&mut self, now: Tick, left: u64, last: bool) {
        self.flow = match (left, last) {
            (1.., _) => Flow::Chunk { left, last },
            (0, true) => Flow::WholeChunk(self.expect_end(now)),
            (0, false) => Flow::WholeChunk(self.expect(now, Exchange::Chunk, None)),
        };
    }

    /// A transaction begins; so does its content.
    pub(super) fn begin_content(&mut self) {
        self.check = ContentCheck::new(usize::MAX);
    }

    const fn is_binary(&self) -> bool {
        matches!(self.body, Some(BodyType::BinaryMime))
    }

    /// The reply to a whole message; in LMTP one for each accepted recipient, under one ticket. There is at least one
    /// recipient then: without, nothing was open.
    fn expect_end(&mut self, now: Tick) -> Ticket {
        let first = self.accepted.first().copied().filter(|_| self.lmtp);
        let ticket = self.expect(now, Exchange::EndOfData, first);
        if let (true, Some(first)) = (self.lmtp, self.unanswered.back().copied()) {
            let others = self.accepted.iter().skip(1);
            self.unanswered.extend(others.map(|recipient| Sent { recipient: Some(*recipient), ..first }));
        }
        ticket
    }

    fn check_open(&self) -> Result<(), ApiMisuse> {
        if self.phase == Phase::Closed { Err(ApiMisuse::Closed) } else { Ok(()) }
    }
}

/// The most chunks whose replies are still to come: enough to keep a long way full, and few enough that their replies fit
/// into any window while the server is written to.
const MAX_CHUNKS: usize = 16;
