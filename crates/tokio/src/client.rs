//! Runs a client session over a connection.

mod body;

use std::{io, sync::Arc};

use posthaste_session::{
    ApiMisuse, ClientNext, ClientSession, ClientSettings, PeerMisbehaved, Ticket,
    client::ClientEof,
    sasl::{ClientContext, Nonce},
    wire::{Capabilities, Command, Reply, Secret, frame::SegmentList},
};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{timeout, timeout_at},
};

pub use body::ChunksSent;

use crate::{Clock, Connection};

/// A client session with its connection and clock: it reads, writes and keeps the time.
#[derive(Debug)]
pub struct ClientDriver<S> {
    connection: Connection<S>,
    session: ClientSession,
    clock: Clock,
    /// Content was begun and not finished: nothing may follow half a message, neither a command nor other content.
    unfinished: bool,
}

/// What a client has to react to.
#[derive(Debug)]
pub enum ClientEvent {
    /// A reply came.
    Reply {
        /// The command that it answers.
        to: Ticket,
        /// Which recipient of the transaction, counted from 0: for RCPT, and in LMTP for the end of the content.
        recipient: Option<u32>,
        /// What the server said.
        reply: Reply,
    },
    /// A SASL challenge in base64: answer it with [`ClientDriver::respond`].
    Challenge(Secret<Vec<u8>>),
    /// 354 came; send the content: [`ClientDriver::send_content`].
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
    /// The server has ended the conversation without being asked, in these words.
    #[error("the server has ended the conversation: {0}")]
    Unasked(Reply),
    /// The content could not be written to its end, and the server has said why: this is its reply to the message.
    #[error("the server broke the content off: {0}")]
    EarlyReply(Reply),
    /// The server offers CHUNKING and does not know BDAT, as it said in these words. What it makes of the octets of the chunk
    /// is unknown.
    #[error("the server offers CHUNKING and refused BDAT: {0}")]
    Chunking(Reply),
    /// The server broke the protocol.
    #[error(transparent)]
    Peer(#[from] PeerMisbehaved),
    /// The caller misused the session, or the content must not leave.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The content could not be read, or has another length than it said.
    #[error("the content could not be read: {0}")]
    Content(#[source] io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientDriver<S> {
    /// A driver at the start of a conversation; the first event is the greeting.
    pub fn new(connection: Connection<S>, settings: ClientSettings) -> Self {
        let clock = Clock::start();
        let session = ClientSession::new(settings);
        Self { connection, session, clock, unfinished: false }
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
                ClientNext::Unasked { reply } => return Err(ClientError::Unasked(reply.into_owned())),
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
                return Ok(event);
            }
            let write = timeout(self.session.write_timeout(), self.connection.flush());
            write.await.map_err(|_| self.timed_out())??;
            let read = match self.session.poll_timeout() {
                Some(deadline) => {
                    let read = timeout_at(self.clock.instant(deadline), self.connection.read());
                    read.await.map_err(|_| self.timed_out())??
                }
                None => self.connection.read().await?,
            };
            if read == 0 {
                return Err(ClientError::Eof(self.session.handle_eof()));
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
        let bound = self.session.poll_timeout().ok_or(ApiMisuse::Handshake)?;
        let handshake = timeout_at(self.clock.instant(bound), self.connection.connect_tls(config, name));
        handshake.await.map_err(|_| self.timed_out())??;
        Ok(self.session.tls_established()?)
    }

    /// What a SASL exchange on this connection may rely on, which is its channel binding; how the connection is protected is
    /// for the caller to say, who knows whether the certificate was verified.
    pub fn sasl_context(&self, nonce: Nonce) -> ClientContext {
        let mut context = ClientContext::new(nonce);
        context.channel_binding = self.connection.channel_binding();
        context
    }

    /// Says that nothing more will be written: see [`Connection::close`].
    pub async fn close(&mut self) {
        self.connection.close().await;
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

    /// Nothing is waited for any more.
    fn timed_out(&mut self) -> ClientError {
        self.session.handle_eof();
        ClientError::Timeout
    }
}
