//! Message content on its way out: after DATA, or in the chunks of BDAT (RFC 3030).

use bytes::BytesMut;
use posthaste_wire::{
    BodyType, Command,
    capability::Keyword,
    frame::{ContentCheck, SegmentList, Stuffer},
};

use super::{ClientSession, Sent, Ticket, output::MAX_UNANSWERED};
use crate::{
    ApiMisuse, Tick,
    table::{Exchange, Phase},
};

/// The command that carries content to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// DATA: dots are stuffed, and a lone dot ends the content.
    Data,
    /// BDAT: octets are counted and sent unchanged.
    Chunks,
}

/// The content that is being sent.
#[derive(Debug)]
pub(super) enum Flow {
    None,
    Data(Stuffer),
    Chunk {
        /// Octets that are still to be given; never 0.
        left: u64,
        last: bool,
    },
    /// All octets of the chunk are given. Its reply may come at any time.
    WholeChunk(Ticket),
}

impl Flow {
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Returns `true` if octets are still to be given.
    pub(super) const fn is_unfinished(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Chunk { .. })
    }
}

impl ClientSession {
    /// The command for the content of this transaction.
    ///
    /// BDAT if the server offers CHUNKING and either
    /// [`ClientSettings::chunking`](super::ClientSettings::chunking) is on or the content is
    /// binary, otherwise DATA. After an [`oddity`](Self::oddity) only binary content goes by BDAT.
    pub const fn body_kind(&self) -> BodyKind {
        let by_choice = self.settings.chunking && self.odd.is_none();
        if self.capabilities.offers(Keyword::Chunking) && (by_choice || self.is_binary()) {
            BodyKind::Chunks
        } else {
            BodyKind::Data
        }
    }

    /// Writes BDAT for this many octets to the output. They must follow: give them to
    /// [`payload`](Self::payload), read from [`body_credit`](Self::body_credit) how many are left,
    /// and get the ticket from [`finish_payload`](Self::finish_payload). Content of known length is
    /// one chunk, the last. A last chunk of 0 octets ends a message too.
    ///
    /// No chunk is sent before every recipient has its reply and one is accepted (RFC 3030 section
    /// 2). So a server never sees content for no recipient, and with PIPELINING it takes no more
    /// round trips than DATA. [`begin_early_chunk`](Self::begin_early_chunk) waits for no reply.
    ///
    /// With PIPELINING, a chunk may follow chunks whose replies are outstanding, 16 at most with
    /// this one. Only the last chunk waits for all earlier replies. Its positive reply then means
    /// the whole message, even if the server forgets that it refused an earlier chunk.
    ///
    /// # Errors
    /// Nothing is written.
    ///
    /// - [`ApiMisuse::OutOfOrder`]: no recipient was accepted, a chunk was refused (send RSET),
    ///   DATA was sent, or a chunk is open.
    /// - [`ApiMisuse::NotYet`]: replies must come first.
    /// - [`ApiMisuse::NotOffered`]: the server does not offer CHUNKING.
    /// - [`ApiMisuse::Content`]: an empty last chunk follows a CR. The session is closed.
    /// - [`ApiMisuse::Closed`]: the session is over, or QUIT was sent.
    pub fn begin_chunk(&mut self, now: Tick, octets: u64, last: bool, out: &mut BytesMut) -> Result<(), ApiMisuse> {
        if self.phase == Phase::Closed || self.closing {
            return Err(ApiMisuse::Closed);
        }
        if self.flow.is_open() || self.phase == Phase::Spoiled {
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
        // Octets of this chunk would be checked when they come. Without any, this BDAT is the end.
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

    /// Writes BDAT LAST for a whole message of this many octets, before the replies to its MAIL and
    /// RCPT, with PIPELINING (RFC 3030 section 4.2). Go on as after
    /// [`begin_chunk`](Self::begin_chunk).
    ///
    /// The server gets the content even if it refuses every recipient. It throws the content away
    /// then and refuses the chunk (RFC 3030 section 2), and MAIL stays in force. So RSET has to
    /// come before the next MAIL, or the next message could go out under this one's reverse-path.
    ///
    /// # Errors
    /// Nothing is written.
    ///
    /// - [`ApiMisuse::OutOfOrder`]: no RCPT was sent, or a chunk is open. In LMTP always: the
    ///   number of replies to the content follows from those to RCPT (RFC 2033 section 4.2).
    /// - [`ApiMisuse::NotYet`]: replies must come first.
    /// - [`ApiMisuse::NotOffered`]: the server does not offer CHUNKING and PIPELINING, or there is
    ///   an [`oddity`](Self::oddity).
    /// - [`ApiMisuse::Closed`]: the session is over, or QUIT was sent.
    pub fn begin_early_chunk(&mut self, now: Tick, octets: u64, out: &mut BytesMut) -> Result<(), ApiMisuse> {
        if self.phase == Phase::Closed || self.closing {
            return Err(ApiMisuse::Closed);
        }
        if self.flow.is_open() || self.lmtp || self.ahead != Phase::Rcpt {
            return Err(ApiMisuse::OutOfOrder);
        }
        if !self.capabilities.offers(Keyword::Chunking) || !self.may_pipeline() {
            return Err(ApiMisuse::NotOffered);
        }
        if !self.may_follow() || self.unanswered.len() >= MAX_UNANSWERED {
            return Err(ApiMisuse::NotYet);
        }
        Command::Bdat { size: octets, last: true }.encode(out)?;
        self.chunk_goes_on(now, octets, true);
        self.block_due = Some(now + self.settings.timeouts.write);
        Ok(())
    }

    /// Octets that the open chunk still takes. `None`: no chunk is open.
    pub const fn body_credit(&self) -> Option<u64> {
        match self.flow {
            Flow::Chunk { left, .. } => Some(left),
            Flow::WholeChunk(_) => Some(0),
            Flow::None | Flow::Data(_) => None,
        }
    }

    /// Appends as much of the content as the list and the open chunk have room for. Returns the
    /// number of octets that it took. Write the list within [`write_timeout`](Self::write_timeout),
    /// so give about 64 KiB in each call.
    ///
    /// Content must have no bare CR, bare LF or NUL, unless BODY=BINARYMIME announced it. With DATA
    /// such content could end early. With BDAT it could not be passed on to a server that has only
    /// DATA.
    ///
    /// # Errors
    /// - [`ApiMisuse::OutOfOrder`]: before [`ClientNext::SendBody`](crate::ClientNext::SendBody),
    ///   outside a chunk, or if no recipient was accepted.
    /// - [`ApiMisuse::Content`]: the content has a bare CR, bare LF or NUL. Do not write what was
    ///   appended. The session is closed, so that half a message cannot be finished as if it were
    ///   whole.
    /// - [`ApiMisuse::Closed`]: the session is over.
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
            // Without an accepted recipient the server gets a lone dot.
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
                // At the end of the last chunk the server has the message, so faults are found
                // before.
                let checked = match &mut self.check {
                    _ if is_binary => Ok(()),
                    check => check.check(piece).and_then(|()| if last && rest == 0 { check.finish() } else { Ok(()) }),
                };
                checked.map(|()| {
                    // There is room: see above.
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

    /// Ends the content after DATA, or a chunk that has all of its octets. The reply comes with the
    /// returned ticket. For DATA and the last chunk in LMTP, each accepted recipient has a reply
    /// (RFC 2033 section 4.2). With PIPELINING the next MAIL may follow at once.
    ///
    /// The reply to a chunk may come as soon as its octets are written. Call this before you write
    /// them, or expect a reply with an unknown ticket.
    ///
    /// # Errors
    /// The session is unchanged, except as for [`payload`](Self::payload).
    ///
    /// - [`ApiMisuse::Unfinished`]: octets of the chunk are still to be given. If you have none,
    ///   close the connection.
    /// - [`ApiMisuse::NoRoom`]: the list is full.
    /// - Otherwise as [`payload`](Self::payload).
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

    /// Notes that this many octets of the open chunk are left. If none is, its reply may come.
    fn chunk_goes_on(&mut self, now: Tick, left: u64, last: bool) {
        self.flow = match (left, last) {
            (1.., _) => Flow::Chunk { left, last },
            (0, true) => Flow::WholeChunk(self.expect_end(now)),
            (0, false) => Flow::WholeChunk(self.expect(now, Exchange::Chunk, None)),
        };
    }

    /// Begins the content of a transaction.
    pub(super) fn begin_content(&mut self) {
        self.check = ContentCheck::new(usize::MAX);
    }

    const fn is_binary(&self) -> bool {
        matches!(self.body, Some(BodyType::BinaryMime))
    }

    /// Expects the reply to a whole message; in LMTP one for each accepted recipient, under one
    /// ticket. At least one recipient was accepted, or no content would be open.
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

/// The most chunks with outstanding replies: enough to fill a long path, and few enough that their
/// replies fit any window while the client writes.
const MAX_CHUNKS: usize = 16;
