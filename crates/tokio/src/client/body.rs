//! Content on its way to the server.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use posthaste_session::{
    ApiMisuse, ClientNext, Ticket,
    table::Phase,
    wire::{Reply, frame::SegmentList},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{ClientDriver, ClientError, ClientEvent};
use crate::Content;

/// How the sending of chunks ended.
#[derive(Debug)]
pub enum ChunksSent {
    /// All chunks have left. The reply comes with this ticket, in LMTP one for each accepted
    /// recipient.
    Whole(Ticket),
    /// The server has refused a chunk with this reply, and so the message. Up to 15 later chunks
    /// may have left, and the rest of the content did not. Send RSET next (RFC 3030 section 2).
    Refused(Reply),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientDriver<S> {
    /// Sends the whole content and its end, after DATA. The reply comes with the ticket, in LMTP
    /// one for each accepted recipient.
    ///
    /// Each block of 64 KiB has [`write_timeout`](posthaste_session::ClientSession::write_timeout)
    /// of its own; the content's source has none. If the future is dropped, no more can be sent on
    /// this connection.
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over. [`message_in_doubt`](Self::message_in_doubt) then
    /// tells if the server may have the message nevertheless. [`ClientError::EarlyReply`] if a
    /// write failed and the server had already replied.
    pub async fn send_content(&mut self, content: impl Content) -> Result<Ticket, ClientError> {
        if self.session.phase() != Phase::Content || self.session.unanswered() > 0 || self.unfinished {
            return Err(ApiMisuse::OutOfOrder.into());
        }
        self.unfinished = true;
        match self.send_pieces(pin!(content)).await {
            Ok(ticket) => {
                self.unfinished = false;
                self.trace_end(true);
                if let Some(trace) = &self.trace {
                    trace.line(b".");
                }
                Ok(ticket)
            }
            Err(error) => {
                self.trace_end(false);
                Err(self.explained(error).await)
            }
        }
    }

    /// Sends the whole content by BDAT, after the replies to every RCPT: in one chunk if its length
    /// is known, otherwise in chunks of 64 KiB or more. With PIPELINING up to 16 chunks wait for
    /// their reply. The timeouts, and the effect of a dropped future, are those of
    /// [`send_content`](Self::send_content).
    ///
    /// # Errors
    /// As [`send_content`](Self::send_content).
    pub async fn send_chunks(&mut self, content: impl Content) -> Result<ChunksSent, ClientError> {
        if self.unfinished || !matches!(self.session.phase(), Phase::Rcpt) || self.session.unanswered() > 0 {
            return Err(ApiMisuse::OutOfOrder.into());
        }
        self.unfinished = true;
        let content = pin!(content);
        let sent = match content.length() {
            Some(length) => self.send_one_chunk(length, content).await.map(ChunksSent::Whole),
            None => self.send_many_chunks(content).await,
        };
        match sent {
            Ok(sent) => {
                self.unfinished = false;
                Ok(sent)
            }
            Err(error) => {
                self.trace_end(false);
                Err(self.explained(error).await)
            }
        }
    }

    /// Returns `true` if the end of a message may have left and has no reply. The server may have
    /// the message: sending it again may make a duplicate (RFC 1047).
    pub fn message_in_doubt(&self) -> bool {
        self.session.message_in_doubt()
    }

    async fn send_pieces(&mut self, mut content: Pin<&mut impl Content>) -> Result<Ticket, ClientError> {
        // Reads one piece ahead, so that the end of the content leaves together with its last
        // piece.
        let (length, mut octets) = (content.length(), 0_u64);
        let mut piece = next(&mut content).await?;
        loop {
            let ahead = match piece {
                Some(_) => next(&mut content).await?,
                None => None,
            };
            octets = octets.saturating_add(piece.as_ref().map_or(0, |piece| piece.len() as u64));
            if length.is_some_and(|length| octets > length || (ahead.is_none() && octets != length)) {
                return Err(wrong_length());
            }
            let mut rest = piece.as_deref().unwrap_or_default();
            loop {
                let mut segments = SegmentList::new();
                rest = self.payload(rest, &mut segments)?;
                if rest.is_empty() && ahead.is_none() && segments.room() > 0 {
                    let ticket = self.session.finish_payload(self.clock.now(), &mut segments)?;
                    self.write(&segments).await?;
                    return Ok(ticket);
                }
                self.write(&segments).await?;
                if rest.is_empty() && ahead.is_some() {
                    break;
                }
            }
            piece = ahead;
        }
    }

    async fn send_one_chunk(
        &mut self,
        length: u64,
        mut content: Pin<&mut impl Content>,
    ) -> Result<Ticket, ClientError> {
        // Reads one piece ahead: with the last octet the server has the message, so a surplus piece
        // must be known before. A chunk without octets ends with its command.
        let mut piece = next(&mut content).await?;
        if length == 0 && piece.is_some() {
            return Err(wrong_length());
        }
        self.begin_chunk(length, true)?;
        loop {
            let ahead = match piece {
                Some(_) => next(&mut content).await?,
                None => None,
            };
            let octets = piece.as_deref().unwrap_or_default();
            let credit = self.session.body_credit().unwrap_or(0);
            let fits = u64::try_from(octets.len()).is_ok_and(|octets| match ahead {
                Some(_) => octets < credit,
                None => octets == credit,
            });
            if !fits {
                return Err(wrong_length());
            }
            if let Some(ticket) = self.send_octets(octets).await? {
                return Ok(ticket);
            }
            piece = ahead;
        }
    }

    async fn send_many_chunks(&mut self, mut content: Pin<&mut impl Content>) -> Result<ChunksSent, ClientError> {
        let mut chunk = gather(content.as_mut()).await?;
        loop {
            let ahead = if chunk.is_empty() { Bytes::new() } else { gather(content.as_mut()).await? };
            let last = ahead.is_empty();
            let octets = chunk.len() as u64;
            loop {
                match self.begin_chunk(octets, last) {
                    // As many chunks as allowed wait for their reply.
                    Err(ApiMisuse::NotYet) => match self.next().await? {
                        ClientEvent::Reply { reply, .. } if reply.code().is_positive() => {}
                        ClientEvent::Reply { reply, .. } => return Ok(ChunksSent::Refused(reply)),
                        _ => return Err(ClientError::Closed),
                    },
                    begun => break begun?,
                }
            }
            match self.send_octets(&chunk).await? {
                Some(ticket) if last => return Ok(ChunksSent::Whole(ticket)),
                _ => chunk = ahead,
            }
        }
    }

    /// Sends octets of the open chunk, and its end with the last octet.
    async fn send_octets(&mut self, mut octets: &[u8]) -> Result<Option<Ticket>, ClientError> {
        loop {
            let mut segments = SegmentList::new();
            octets = self.payload(octets, &mut segments)?;
            // The session hears of the end before the write: a reply that comes while the write
            // fails has its ticket.
            let ticket = match self.session.body_credit() {
                Some(0) => Some(self.session.finish_payload(self.clock.now(), &mut segments)?),
                _ => None,
            };
            self.write(&segments).await?;
            if ticket.is_some() {
                self.trace_end(true);
            }
            if ticket.is_some() || octets.is_empty() {
                return Ok(ticket);
            }
        }
    }

    fn begin_chunk(&mut self, octets: u64, last: bool) -> Result<(), ApiMisuse> {
        let before = self.connection.output.len();
        self.session.begin_chunk(self.clock.now(), octets, last, &mut self.connection.output)?;
        if let Some(trace) = &self.trace {
            trace.line(self.connection.output.get(before..).unwrap_or_default());
        }
        Ok(())
    }

    /// Content, or a chunk, has ended or breaks off.
    fn trace_end(&mut self, is_whole: bool) {
        if let Some(trace) = &mut self.trace {
            trace.content_ends(is_whole);
        }
    }

    /// Appends a block. Returns the rest.
    pub(super) fn payload<'p>(
        &mut self,
        octets: &'p [u8],
        segments: &mut SegmentList<'p>,
    ) -> Result<&'p [u8], ApiMisuse> {
        let block = octets.get(..BLOCK).unwrap_or(octets);
        let taken = self.session.payload(self.clock.now(), block, segments)?;
        if let Some(trace) = &mut self.trace {
            trace.content(taken);
        }
        Ok(octets.get(taken..).unwrap_or_default())
    }

    /// Looks for a reply: it explains more than the write that failed because of it.
    pub(super) async fn explained(&mut self, error: ClientError) -> ClientError {
        if !matches!(error, ClientError::Io(_) | ClientError::Timeout { .. }) {
            return error;
        }
        let reply = timeout(EARLY_REPLY, self.early_reply()).await.ok().flatten();
        reply.map_or(error, ClientError::EarlyReply)
    }

    /// Waits for the reply to a message whose writing has failed: a refusal of the message or a
    /// chunk, or any reply to its end, if that may have left. `None` in LMTP, where no single reply
    /// is for the whole message.
    async fn early_reply(&mut self) -> Option<Reply> {
        loop {
            let in_doubt = self.session.message_in_doubt();
            let step = self.session.handle_input(self.clock.now(), &self.connection.input).ok()?;
            let consumed = step.consumed;
            if let Some(trace) = &mut self.trace {
                super::trace_server(trace, &step.next, self.connection.input.get(..consumed));
            }
            let found = match step.next {
                ClientNext::NeedInput => None,
                ClientNext::Unasked { reply } => return Some(reply.into_owned()),
                ClientNext::Reply { recipient: None, reply, .. } => Some(reply.into_owned()),
                _ => return None,
            };
            let _ = self.connection.input.split_to(consumed);
            match found {
                Some(reply) if !reply.code().is_positive() || (in_doubt && !self.message_in_doubt()) => {
                    return Some(reply);
                }
                // An earlier chunk.
                Some(_) => {}
                None if self.connection.read().await.ok()? == 0 => return None,
                None => {}
            }
        }
    }
}

/// Lets other tasks of the thread go first, and a timeout around this one end it.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) fn wrong_length() -> ClientError {
    ClientError::Content(io::Error::new(io::ErrorKind::InvalidData, "its length is not the one that it gave"))
}

/// The next piece that has octets.
pub(super) async fn next(content: &mut Pin<&mut impl Content>) -> Result<Option<Bytes>, ClientError> {
    loop {
        match poll_fn(|context| content.as_mut().poll_next(context)).await {
            // A source with nothing but these must not keep the thread.
            Some(Ok(piece)) if piece.is_empty() => give_way().await,
            piece => return piece.transpose().map_err(ClientError::Content),
        }
    }
}

/// Joins pieces until they make a chunk. Empty at the end of the content.
async fn gather(mut content: Pin<&mut impl Content>) -> Result<Bytes, ClientError> {
    let first = next(&mut content).await?.unwrap_or_default();
    if first.is_empty() || first.len() >= BLOCK {
        return Ok(first);
    }
    let mut chunk = BytesMut::from(first);
    while chunk.len() < BLOCK {
        match next(&mut content).await? {
            Some(piece) => chunk.extend_from_slice(&piece),
            None => break,
        }
    }
    Ok(chunk.freeze())
}

/// Octets of a block that has its own time (RFC 5321 section 4.5.3.2.5), and of a chunk at least: a
/// server pays for each chunk.
const BLOCK: usize = 64 * 1_024;

/// Bound on the wait for a reply that may have arrived already.
pub(super) const EARLY_REPLY: Duration = Duration::from_secs(1);
