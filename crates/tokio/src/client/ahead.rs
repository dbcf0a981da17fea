//! Commands and messages that leave before the replies to those in front of them.

use std::pin::{Pin, pin};

use bytes::{Bytes, BytesMut};
use posthaste_session::{
    ApiMisuse, Ticket,
    table::Phase,
    wire::{Command, frame::SegmentList},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    ClientDriver, ClientError,
    body::{next, wrong_length},
};
use crate::Content;

/// The most octets of input that are read while a write waits: more than the replies to what a
/// client sends at once. Beyond it the write has to end by itself, or its timeout ends it.
const INPUT_WHILE_WRITING: usize = 256 * 1_024;

impl<S: AsyncRead + AsyncWrite + Unpin> ClientDriver<S> {
    /// Sends content as [`send_content`](Self::send_content), and behind its end, in the same
    /// write, these commands. With PIPELINING that may be the whole next transaction up to DATA
    /// (RFC 2920 section 3.1).
    ///
    /// # Errors
    /// As [`send_content`](Self::send_content), and [`ApiMisuse`] for a command, as
    /// [`send`](Self::send). The conversation is over then: check the commands before.
    pub async fn send_content_then<'c>(
        &mut self,
        content: impl Content,
        commands: impl IntoIterator<Item = Command<'c>>,
    ) -> Result<Ticket, ClientError> {
        if self.session.phase() != Phase::Content || self.session.unanswered() > 0 || self.unfinished {
            return Err(ApiMisuse::OutOfOrder.into());
        }
        self.unfinished = true;
        let sent = self.send_pieces_then(pin!(content), |driver| driver.lines(commands)).await;
        self.finished(sent).await
    }

    /// Sends content of known length by BDAT as [`send_chunks`](Self::send_chunks), and behind it,
    /// in the same write, these commands.
    ///
    /// # Errors
    /// As [`send_content_then`](Self::send_content_then); [`ApiMisuse::OutOfOrder`] also if the
    /// content does not tell its length.
    pub async fn send_chunk_then<'c>(
        &mut self,
        content: impl Content,
        commands: impl IntoIterator<Item = Command<'c>>,
    ) -> Result<Ticket, ClientError> {
        let is_due = matches!(self.session.phase(), Phase::Rcpt) && self.session.unanswered() == 0;
        let length = content.length().filter(|_| is_due && !self.unfinished).ok_or(ApiMisuse::OutOfOrder)?;
        self.unfinished = true;
        let (content, mut commands) = (pin!(content), Some(commands));
        let behind = |driver: &mut Self| match commands.take() {
            Some(commands) => driver.lines(commands),
            None => Ok(None),
        };
        let sent = self.send_one_chunk_then(length, content, behind).await;
        self.finished(sent).await
    }

    /// Sends a whole message by BDAT before the replies to its MAIL and RCPT
    /// ([`begin_early_chunk`](posthaste_session::ClientSession::begin_early_chunk)), with the
    /// commands that were put into the output before, in one write. It reads while the server takes
    /// no octets, so that replies cannot hold up both sides.
    ///
    /// The timeouts, and the effect of a dropped future, are those of
    /// [`send_content`](Self::send_content).
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over. Replies that have come can still be read with
    /// [`next`](Self::next).
    pub async fn send_early_chunk(&mut self, pieces: &[Bytes]) -> Result<Ticket, ClientError> {
        if self.unfinished {
            return Err(ApiMisuse::OutOfOrder.into());
        }
        let octets = pieces.iter().fold(0_u64, |octets, piece| octets.saturating_add(piece.len() as u64));
        self.session.begin_early_chunk(self.clock.now(), octets, &mut self.connection.output)?;
        self.unfinished = true;
        let mut segments = SegmentList::new();
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                if segments.room() == 0 {
                    self.write_and_read(&segments).await?;
                    segments = SegmentList::new();
                }
                rest = self.payload(rest, &mut segments)?;
            }
        }
        let ticket = self.session.finish_payload(self.clock.now(), &mut segments)?;
        self.write_and_read(&segments).await?;
        self.unfinished = false;
        Ok(ticket)
    }

    /// Content is sent, or the conversation is over.
    async fn finished<T>(&mut self, sent: Result<T, ClientError>) -> Result<T, ClientError> {
        match sent {
            Ok(sent) => {
                self.unfinished = false;
                Ok(sent)
            }
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// Sends content and its end, and behind it in the same write the lines that `behind` makes.
    ///
    /// It is apart from what sends a message alone: that has no lines to carry through its states.
    async fn send_pieces_then(
        &mut self,
        mut content: Pin<&mut impl Content>,
        behind: impl FnOnce(&mut Self) -> Result<Option<BytesMut>, ApiMisuse>,
    ) -> Result<Ticket, ClientError> {
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
                let lines;
                let mut segments = SegmentList::new();
                rest = self.payload(rest, &mut segments)?;
                if rest.is_empty() && ahead.is_none() && segments.room() > 0 {
                    let ticket = self.session.finish_payload(self.clock.now(), &mut segments)?;
                    lines = behind(self)?;
                    let later = lines.as_deref().filter(|lines| !segments.push_body(lines));
                    self.write(&segments).await?;
                    if let Some(lines) = later {
                        self.connection.output.extend_from_slice(lines);
                    }
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

    /// Sends content as one chunk, and behind it in the same write the lines that `behind` makes.
    async fn send_one_chunk_then(
        &mut self,
        length: u64,
        mut content: Pin<&mut impl Content>,
        mut behind: impl FnMut(&mut Self) -> Result<Option<BytesMut>, ApiMisuse>,
    ) -> Result<Ticket, ClientError> {
        // As for a message alone.
        let mut piece = next(&mut content).await?;
        if length == 0 && piece.is_some() {
            return Err(wrong_length());
        }
        self.session.begin_chunk(self.clock.now(), length, true, &mut self.connection.output)?;
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
            if let Some(ticket) = self.send_octets_then(octets, &mut behind).await? {
                return Ok(ticket);
            }
            piece = ahead;
        }
    }

    /// Sends octets of the open chunk, and behind the last one the lines that `behind` makes.
    async fn send_octets_then(
        &mut self,
        mut octets: &[u8],
        behind: &mut impl FnMut(&mut Self) -> Result<Option<BytesMut>, ApiMisuse>,
    ) -> Result<Option<Ticket>, ClientError> {
        loop {
            let mut segments = SegmentList::new();
            let left = self.payload(octets, &mut segments)?.len();
            octets = octets.len().checked_sub(left).and_then(|taken| octets.get(taken..)).unwrap_or_default();
            // The session hears of the end before the write: a reply that comes while the write
            // fails has its ticket.
            let ticket = match self.session.body_credit() {
                Some(0) => Some(self.session.finish_payload(self.clock.now(), &mut segments)?),
                _ => None,
            };
            let lines = if ticket.is_some() { behind(self)? } else { None };
            let later = lines.as_deref().filter(|lines| !segments.push_body(lines));
            self.write(&segments).await?;
            if let Some(lines) = later {
                self.connection.output.extend_from_slice(lines);
            }
            if ticket.is_some() || octets.is_empty() {
                return Ok(ticket);
            }
        }
    }

    /// The lines of these commands.
    fn lines<'c>(&mut self, commands: impl IntoIterator<Item = Command<'c>>) -> Result<Option<BytesMut>, ApiMisuse> {
        let mut lines = BytesMut::new();
        for command in commands {
            self.session.send(self.clock.now(), &command, &mut lines)?;
        }
        Ok(Some(lines).filter(|lines| !lines.is_empty()))
    }

    async fn write_and_read(&mut self, segments: &SegmentList<'_>) -> Result<(), ClientError> {
        let write = self.connection.write_segments_and_read(segments, INPUT_WHILE_WRITING);
        let late = |_| ClientError::Timeout { awaited: self.session.awaited() };
        timeout(self.session.write_timeout(), write).await.map_err(late)?.map_err(ClientError::Io)
    }
}
