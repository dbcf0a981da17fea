//! Runs a client session over a connection.

use std::{io, sync::Arc, time::Duration};

use posthaste_session::{
    ApiMisuse, ClientNext, ClientSession, ClientSettings, PeerMisbehaved, Ticket,
    client::ClientEof,
    table::Phase,
    wire::{
        Capabilities, Command, Reply, Secret, Severity,
        frame::SegmentList,
        reply::{ReplyFramer, ReplyLimits},
    },
};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{timeout, timeout_at},
};

use crate::{Clock, Connection, Content};

/// A client session with its connection and clock: it reads, writes and keeps the time.
#[derive(Debug)]
pub struct ClientDriver<S> {
    connection: Connection<S>,
    session: ClientSession,
    clock: Clock,
    /// Content was begun and not finished: nothing may follow half a message, neither a command nor other content.
    unfinished: bool,
    /// The end of content that has no reply yet; it may have left.
    end: Option<Ticket>,
}

/// What a client has to react to.
#[derive(Debug)]
pub enum ClientEvent {
    /// A reply came.
    Reply {
        /// The command that it answers.
        to: Ticket,
        /// For RCPT: which one of the transaction, counted from 0.
        recipient: Option<u32>,
        /// What the server said.
        reply: Reply,
    },
    /// A SASL challenge in base64: answer it with [`ClientDriver::respond`].
    Challenge(Secret<Vec<u8>>),
    /// Send the content: [`ClientDriver::send_content`].
    SendBody {
        /// The DATA that it answers.
        to: Ticket,
    },
    /// Do the handshake: [`ClientDriver::connect_tls`].
    StartTls,
    /// The server has ended the conversation.
    Closed,
}

/// Why a conversation came to its end. Everything that is unanswered then is a temporary failure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server did not reply, or take what was written, in time.
    #[error("the server was silent for too long")]
    Timeout,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Eof(ClientEof),
    /// The server has ended the conversation with a 421.
    #[error("the server has ended the conversation")]
    Closed,
    /// The content could not be written to its end, and the server has said why: this is its reply to the message.
    #[error("the server broke the content off: {0}")]
    EarlyReply(Reply),
    /// The server broke the protocol.
    #[error(transparent)]
    Peer(#[from] PeerMisbehaved),
    /// The caller misused the session, or the content must not leave.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The content could not be read.
    #[error("the content could not be read: {0}")]
    Content(#[source] io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientDriver<S> {
    /// A driver at the start of a conversation; the first event is the greeting.
    pub fn new(connection: Connection<S>, settings: ClientSettings) -> Self {
        let clock = Clock::start();
        let session = ClientSession::new(clock.now(), settings);
        Self { connection, session, clock, unfinished: false, end: None }
    }

    /// Puts a command into the output; it leaves with the next call of [`next`](Self::next).
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ClientSession::send`].
    pub fn send(&mut self, command: &Command<'_>) -> Result<Ticket, ApiMisuse> {
        if self.unfinished {
            return Err(ApiMisuse::Closed);
        }
        self.session.send(self.clock.now(), command, &mut self.connection.output)
    }

    /// Answers a SASL challenge in base64, or gives the exchange up.
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ClientSession::respond`].
    pub fn respond(&mut self, response: Option<Secret<&str>>) -> Result<Ticket, ApiMisuse> {
        self.session.respond(self.clock.now(), response, &mut self.connection.output)
    }

    /// Writes what is in the output, and waits for the next event. It may be dropped and called again.
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over then.
    pub async fn next(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            let now = self.clock.now();
            let step = self.session.handle_input(now, &self.connection.input)?;
            let consumed = step.consumed;
            let event = match step.next {
                ClientNext::NeedInput => None,
                ClientNext::Reply { to, recipient, reply } => {
                    Some(ClientEvent::Reply { to, recipient, reply: reply.into_owned() })
                }
                ClientNext::Challenge(text) => Some(ClientEvent::Challenge(Secret::new(text.expose().to_vec()))),
                ClientNext::SendBody { to } => Some(ClientEvent::SendBody { to }),
                ClientNext::StartTls => Some(ClientEvent::StartTls),
                ClientNext::Close => Some(ClientEvent::Closed),
            };
            let _ = self.connection.input.split_to(consumed);
            if self.connection.input.is_empty() {
                self.connection.input = bytes::BytesMut::new();
            }
            if let Some(event) = event {
                if matches!(&event, ClientEvent::Reply { to, .. } if self.end == Some(*to)) {
                    self.end = None;
                }
                return Ok(event);
            }
            let write = timeout(self.session.write_timeout(), self.connection.flush());
            write.await.map_err(|_| ClientError::Timeout)??;
            let read = match self.session.poll_timeout() {
                Some(deadline) => {
                    let read = timeout_at(self.clock.instant(deadline), self.connection.read());
                    read.await.map_err(|_| ClientError::Timeout)??
                }
                None => self.connection.read().await?,
            };
            if read == 0 {
                return Err(ClientError::Eof(self.session.handle_eof()));
            }
        }
    }

    /// Sends the whole content and its end; the reply comes with the ticket.
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over then. [`message_in_doubt`](Self::message_in_doubt) says whether the server
    /// may have taken the message all the same. [`ClientError::EarlyReply`] when the server has answered before the end.
    pub async fn send_content(&mut self, content: &mut impl Content) -> Result<Ticket, ClientError> {
        if self.session.phase() != Phase::Content || self.session.unanswered() > 0 || self.unfinished {
            return Err(ApiMisuse::OutOfOrder.into());
        }
        self.unfinished = true;
        match self.send_pieces(content).await {
            Ok(ticket) => {
                self.unfinished = false;
                Ok(ticket)
            }
            // What the server said before it stopped reading says more than the write that failed for it.
            Err(error @ (ClientError::Io(_) | ClientError::Timeout)) => {
                let reply = timeout(EARLY_REPLY, self.early_reply()).await.ok().flatten();
                Err(reply.map_or(error, ClientError::EarlyReply))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the end of a message may have left that the server has not answered: it may have the message, and sending
    /// it again may make a duplicate (RFC 1047).
    pub const fn message_in_doubt(&self) -> bool {
        self.end.is_some()
    }

    async fn send_pieces(&mut self, content: &mut impl Content) -> Result<Ticket, ClientError> {
        // One piece ahead, so that the end of the content leaves together with its last piece.
        let mut piece = content.next().await.map_err(ClientError::Content)?;
        loop {
            let ahead = match piece {
                Some(_) => content.next().await.map_err(ClientError::Content)?,
                None => None,
            };
            let mut rest = piece.as_deref().unwrap_or_default();
            loop {
                let mut segments = SegmentList::new();
                let taken = self.session.payload(rest, &mut segments)?;
                rest = rest.get(taken..).unwrap_or_default();
                let last = rest.is_empty() && ahead.is_none() && segments.room() > 0;
                if last {
                    let ticket = self.session.finish_payload(self.clock.now(), &mut segments)?;
                    self.end = Some(ticket);
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

    /// The reply to content whose writing has failed. A positive one counts only where the end may have left.
    async fn early_reply(&mut self) -> Option<Reply> {
        let mut framer = ReplyFramer::new(ReplyLimits::default());
        loop {
            if let Some(reply) = framer.next(&self.connection.input).ok()? {
                let reply = reply.into_owned();
                let fits = match reply.code().severity() {
                    Severity::Positive => self.end.is_some(),
                    Severity::Intermediate => false,
                    Severity::TransientNegative | Severity::PermanentNegative => true,
                };
                self.end = self.end.filter(|_| !fits);
                return fits.then_some(reply);
            }
            if self.connection.read().await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Does the TLS handshake that [`ClientEvent::StartTls`] asks for.
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over then.
    pub async fn connect_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<(), ClientError> {
        let handshake = timeout(self.session.write_timeout(), self.connection.connect_tls(config, name));
        handshake.await.map_err(|_| ClientError::Timeout)??;
        Ok(self.session.tls_established()?)
    }

    /// What the server offered.
    pub const fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    /// The session.
    pub const fn session(&self) -> &ClientSession {
        &self.session
    }

    /// Whether TLS is up.
    pub const fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }

    async fn write(&mut self, segments: &SegmentList<'_>) -> Result<(), ClientError> {
        let write = timeout(self.session.write_timeout(), self.connection.write_segments(segments));
        write.await.map_err(|_| ClientError::Timeout)?.map_err(ClientError::Io)
    }
}

/// How long is waited for a reply that may be there already.
const EARLY_REPLY: Duration = Duration::from_secs(1);
