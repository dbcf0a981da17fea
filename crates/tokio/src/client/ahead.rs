//! Commands and messages that leave before the replies to those in front of them.

use std::pin::pin;

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

use super::{ClientDriver, ClientError};
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
        let sent = self.send_pieces(pin!(content), |driver| driver.lines(commands)).await;
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
        let sent = self.send_one_chunk(length, content, behind).await;
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
        timeout(self.session.write_timeout(), write).await.map_err(|_| ClientError::Timeout)?.map_err(ClientError::Io)
    }
}
