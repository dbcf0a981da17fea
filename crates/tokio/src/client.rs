//! Runs a client session over a connection.

mod ahead;
mod body;

use std::{io, sync::Arc};

use posthaste_session::{
    ApiMisuse, ClientNext, ClientSession, ClientSettings, PeerMisbehaved, Ticket,
    client::ClientEof,
    sasl::{ClientContext, Nonce},
    table::{Exchange, Phase},
    wire::{
        Capabilities, Command, Reply, Secret,
        frame::{ContentFault, FaultKind, SegmentList},
    },
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{timeout, timeout_at},
};

pub use body::ChunksSent;

use crate::{Clock, Connection, ConnectionTrace, TlsParameters};

/// A client session with its connection and clock: it reads, writes and keeps the time.
#[derive(Debug)]
pub struct ClientDriver<S> {
    connection: Connection<S>,
    session: ClientSession,
    clock: Clock,
    /// Content was begun and not finished. No command and no other content may follow half a
    /// message.
    unfinished: bool,
    /// `None`: no line is shown.
    trace: Option<Box<ConnectionTrace>>,
}

/// What a client has to react to. Exhaustive: each event needs a reaction.
#[derive(Debug)]
pub enum ClientEvent {
    /// The server replied.
    Reply {
        /// The command that the reply answers.
        to: Ticket,
        /// The recipient's place in the transaction, counted from 0. `None`: the reply is neither
        /// to RCPT nor, in LMTP, to the end of the content.
        recipient: Option<u32>,
        /// The reply.
        reply: Reply,
    },
    /// A SASL challenge in base64. Call [`ClientDriver::respond`].
    Challenge(Secret<Vec<u8>>),
    /// The server replied 354. Call [`ClientDriver::send_content`].
    SendBody {
        /// The DATA that the 354 answers.
        to: Ticket,
    },
    /// The server agreed to TLS. Call [`ClientDriver::connect_tls`].
    StartTls,
    /// The conversation is over, after QUIT or a 421.
    Closed,
}

/// Why a conversation ended. Treat every command without a reply as a temporary failure.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server did not reply, or did not take octets, in time.
    #[error("the server was silent for too long{}", waiting_for(*awaited))]
    Timeout {
        /// The exchange whose reply was awaited. `None`: none was, or it is not known.
        awaited: Option<Exchange>,
    },
    /// The server closed the connection.
    #[error("the server closed the connection{}", waiting_for(.0.awaited))]
    Eof(ClientEof),
    /// The server has ended the conversation with a 421.
    #[error("the server has ended the conversation")]
    Closed,
    /// The server has ended the conversation with a reply to no command.
    #[error("the server has ended the conversation: {0}")]
    Unasked(Reply),
    /// The server stopped reading the content and sent this reply to the message.
    #[error("the server broke the content off: {0}")]
    EarlyReply(Reply),
    /// The server offers CHUNKING and does not know BDAT; this is its reply. It may read the octets
    /// of the chunk as commands.
    #[error("the server offers CHUNKING and refused BDAT: {0}")]
    Chunking(Reply),
    /// The server broke the protocol.
    #[error(transparent)]
    Peer(#[from] PeerMisbehaved),
    /// The caller misused the session, or the content has octets that must not leave.
    #[error("{}{}", .0, remedy(.0))]
    Misuse(#[from] ApiMisuse),
    /// The content could not be read, or is not as long as its [`length`](crate::Content::length)
    /// said.
    #[error("the content could not be read: {0}")]
    Content(#[source] io::Error),
}

/// What was waited for.
fn waiting_for(exchange: Option<Exchange>) -> String {
    exchange.map_or_else(String::new, |exchange| format!(", while we waited for {exchange}"))
}

/// The remedy where the caller's content is at fault.
const fn remedy(misuse: &ApiMisuse) -> &'static str {
    match misuse {
        ApiMisuse::Content(ContentFault { kind: FaultKind::BareCr | FaultKind::BareLf, .. }) => {
            "; end each line with CRLF"
        }
        ApiMisuse::Content(ContentFault { kind: FaultKind::Nul, .. }) => "; encode it, as by base64",
        ApiMisuse::Content(ContentFault { kind: FaultKind::LongLine, .. }) => "; break it, or encode it",
        _ => "",
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientDriver<S> {
    /// A driver at the start of a conversation. The first event is the greeting.
    pub fn new(connection: Connection<S>, settings: ClientSettings) -> Self {
        let clock = Clock::start();
        let session = ClientSession::new(settings);
        Self { connection, session, clock, unfinished: false, trace: None }
    }

    /// Shows the lines of the conversation from here on, and first the TLS that the connection has.
    /// Default: none.
    pub fn set_trace(&mut self, trace: ConnectionTrace) {
        self.trace = Some(Box::new(trace));
        self.trace_tls();
    }

    /// The lines of the conversation. `None`: none are shown.
    pub fn trace(&mut self) -> Option<&mut ConnectionTrace> {
        self.trace.as_deref_mut()
    }

    /// Puts a command into the output. It leaves with the next call of [`next`](Self::next).
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ClientSession::send`]; [`ApiMisuse::Closed`] also if content was begun
    /// and not finished.
    pub fn send(&mut self, command: &Command<'_>) -> Result<Ticket, ApiMisuse> {
        if self.unfinished {
            return Err(ApiMisuse::Closed);
        }
        let before = self.connection.output.len();
        let ticket = self.session.send(self.clock.now(), command, &mut self.connection.output)?;
        if let Some(trace) = &mut self.trace {
            trace.command(command, self.connection.output.get(before..).unwrap_or_default());
        }
        Ok(ticket)
    }

    /// Answers a SASL challenge in base64. `None` gives the exchange up.
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ClientSession::respond`].
    pub fn respond(&mut self, response: Option<Secret<&str>>) -> Result<Ticket, ApiMisuse> {
        let ticket = self.session.respond(self.clock.now(), response, &mut self.connection.output)?;
        if let Some(trace) = &mut self.trace {
            trace.response(response);
        }
        Ok(ticket)
    }

    /// Writes the output and waits for the next event. The future may be dropped, and `next` called
    /// again: no octet is lost. If writing fails, what the server has said before is still an
    /// event, as long as it comes within a second.
    ///
    /// # Errors
    /// [`ClientError`]; the conversation is over then.
    pub async fn next(&mut self) -> Result<ClientEvent, ClientError> {
        loop {
            let now = self.clock.now();
            let step = self.session.handle_input(now, &self.connection.input)?;
            let consumed = step.consumed;
            if let Some(trace) = &mut self.trace {
                trace_server(trace, &step.next, self.connection.input.get(..consumed));
            }
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
            if let Err(error) = write.await.map_err(|_| self.timed_out())? {
                // What the server said before it closed still counts.
                match timeout(body::EARLY_REPLY, self.connection.read()).await {
                    Ok(Ok(octets)) if octets > 0 => continue,
                    _ => return Err(error.into()),
                }
            }
            let deadline = self.session.poll_timeout().map(|deadline| self.clock.instant(deadline));
            if self.connection.read_until(deadline).await.map_err(|_| self.timed_out())?? == 0 {
                return Err(ClientError::Eof(self.session.handle_eof()));
            }
        }
    }

    /// Does the TLS handshake that [`ClientEvent::StartTls`] asks for, within
    /// [`command`](posthaste_session::client::ClientTimeouts::command). If the future is dropped,
    /// the connection cannot be used again.
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
        self.trace_tls();
        Ok(self.session.tls_established()?)
    }

    /// A context for a SASL exchange, with the channel binding of this connection. The caller sets
    /// its protection: only the caller knows if the certificate was verified.
    pub fn sasl_context(&self, nonce: Nonce) -> ClientContext {
        let mut context = ClientContext::new(nonce);
        context.channel_binding = self.connection.channel_binding();
        context
    }

    /// Closes the writing side, within 5 seconds: see [`Connection::close`].
    pub async fn close(&mut self) {
        self.connection.close().await;
    }

    /// The extensions that the server offered in its last reply to EHLO.
    pub const fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    /// Returns `true` if another transaction may begin: the server has ended nothing since the last
    /// event, as far as this side knows without waiting. A server that closes at this moment is not
    /// noticed yet.
    pub fn is_quiet(&mut self) -> bool {
        !self.unfinished && self.session.phase() != Phase::Closed && self.connection.is_quiet()
    }

    /// The session.
    pub const fn session(&self) -> &ClientSession {
        &self.session
    }

    /// Returns `true` if the connection has TLS.
    pub const fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }

    /// What the TLS handshake has agreed on. `None`: there is no TLS.
    pub fn tls(&self) -> Option<TlsParameters> {
        self.connection.tls()
    }

    /// The chain of certificates that the server has shown, its own first. Empty: there is no TLS.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates()
    }

    fn trace_tls(&self) {
        if let (Some(trace), Some(tls)) = (&self.trace, self.connection.tls_text()) {
            trace.note(tls);
        }
    }

    async fn write(&mut self, segments: &SegmentList<'_>) -> Result<(), ClientError> {
        let write = timeout(self.session.write_timeout(), self.connection.write_segments(segments));
        write.await.map_err(|_| ClientError::Timeout { awaited: self.session.awaited() })?.map_err(ClientError::Io)
    }

    /// Ends the session: the server had its time.
    fn timed_out(&mut self) -> ClientError {
        let ClientEof { awaited, .. } = self.session.handle_eof();
        ClientError::Timeout { awaited }
    }
}

/// Shows what the server has said.
fn trace_server(trace: &mut ConnectionTrace, next: &ClientNext<'_>, consumed: Option<&[u8]>) {
    match next {
        ClientNext::Reply { reply, .. } => trace.reply(reply.as_bytes()),
        ClientNext::Unasked { reply } => trace.unasked(reply.as_bytes()),
        ClientNext::Challenge(_) => trace.challenge(),
        // The 354, which is no event of its own.
        ClientNext::SendBody { .. } => trace.reply(consumed.unwrap_or_default()),
        ClientNext::NeedInput | ClientNext::StartTls | ClientNext::Close => {}
    }
}
