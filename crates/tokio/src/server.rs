//! Runs a server session over a connection.

use std::io;

use bytes::Bytes;
use posthaste_session::{
    ApiMisuse, Ask, ServerNext, ServerSession, Verdict,
    sasl::{Nonce, ServerContext, UnknownUsers},
    server::CloseReason,
    wire::{Mechanism, Refusal},
};
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{timeout, timeout_at},
};

use crate::{Clock, Connection};

/// A server session with its connection and clock.
#[derive(Debug)]
pub struct ServerDriver<S> {
    connection: Connection<S>,
    session: ServerSession,
    clock: Clock,
    /// What to do once the output is written.
    after_flush: Option<AfterFlush>,
}

#[derive(Debug, Clone, Copy)]
enum AfterFlush {
    StartTls,
    Close(CloseReason),
}

/// What an application has to handle.
#[derive(Debug)]
pub enum ServerEvent {
    /// A question. Answer it with [`ServerDriver::answer`] before anything else.
    Ask(Ask),
    /// A piece of content.
    Content(Bytes),
    /// The content is refused, and the client gets this reply at its end. Throw away the pieces of
    /// it.
    ContentRefused(Refusal),
    /// Refused content has ended.
    ContentSwallowed,
    /// The client has given up a message between two chunks. Throw away the pieces of it.
    ContentAborted,
    /// The client has given up its transaction: forget the envelope. The event comes before the
    /// driver waits for the client. Other ends of a transaction have events of their own.
    Reset,
    /// Do the handshake with [`ServerDriver::accept_tls`].
    StartTls,
    /// The conversation is over, and all output is written.
    Closed(CloseReason),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerDriver<S> {
    /// A driver at the start of a conversation. The session offers EXTERNAL only if the client has
    /// shown a certificate, and SCRAM-SHA-256-PLUS only if there is a [channel
    /// binding](Connection::channel_binding).
    pub fn new(connection: Connection<S>, mut session: ServerSession) -> Self {
        let clock = Clock::start();
        session.set_wall_clock(clock.now(), Clock::unix_seconds());
        let mut driver = Self { connection, session, clock, after_flush: None };
        driver.withhold();
        driver
    }

    /// Waits for the next event. The future may be dropped, and `next` called again: no octet is
    /// lost or read twice.
    ///
    /// # Errors
    /// - [`io::Error`] from the stream.
    /// - [`io::ErrorKind::TimedOut`]: the client does not read what is written.
    /// - [`io::ErrorKind::InvalidInput`]: a question was left unanswered, or a TLS handshake is
    ///   due.
    pub async fn next(&mut self) -> io::Result<ServerEvent> {
        loop {
            match self.after_flush {
                None => {}
                Some(AfterFlush::StartTls) => {
                    self.flush().await?;
                    self.after_flush = None;
                    return Ok(ServerEvent::StartTls);
                }
                Some(AfterFlush::Close(reason)) => {
                    // Best effort: the client may be gone.
                    let flushed = if reason == CloseReason::Shutdown {
                        timeout(FAREWELL, self.flush()).await.unwrap_or_else(|_| Err(timed_out()))
                    } else {
                        self.flush().await
                    };
                    if flushed.is_ok() {
                        self.connection.close().await;
                    }
                    return Ok(ServerEvent::Closed(reason));
                }
            }
            let now = self.clock.now();
            let Connection { input, output, .. } = &mut self.connection;
            let was_in_transaction = self.session.is_in_transaction();
            let step = self.session.handle_input(now, input, output).map_err(misuse)?;
            let consumed = step.consumed;
            let next = step.next.into_owned();
            // Before the first await: consumed octets are never shown again, even if this future is
            // dropped.
            let taken = input.split_to(consumed);
            if input.is_empty() && !matches!(next, ServerNext::Content(_)) {
                *input = bytes::BytesMut::new();
            }
            let gave_up = was_in_transaction && !self.session.is_in_transaction();
            match next {
                // The next call asks the session again.
                ServerNext::NeedInput | ServerNext::Flush if gave_up => return Ok(ServerEvent::Reset),
                ServerNext::NeedInput => {
                    // A dropped flush may have left octets that the client waits for.
                    self.flush().await?;
                    self.read().await?;
                }
                ServerNext::Flush => self.flush().await?,
                ServerNext::Ask(ask) => return Ok(ServerEvent::Ask(ask)),
                ServerNext::Content(range) => return Ok(ServerEvent::Content(taken.freeze().slice(range))),
                ServerNext::ContentRefused(refusal) => return Ok(ServerEvent::ContentRefused(refusal)),
                ServerNext::ContentSwallowed => return Ok(ServerEvent::ContentSwallowed),
                ServerNext::ContentAborted => return Ok(ServerEvent::ContentAborted),
                ServerNext::StartTls => self.after_flush = Some(AfterFlush::StartTls),
                ServerNext::Close(reason) => self.after_flush = Some(AfterFlush::Close(reason)),
            }
        }
    }

    /// Answers the question that is open.
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ServerSession::answer`].
    pub fn answer(&mut self, verdict: Verdict) -> Result<(), ApiMisuse> {
        self.session.answer(self.clock.now(), verdict, &mut self.connection.output)
    }

    /// Does the TLS handshake that [`ServerEvent::StartTls`] asks for, within
    /// [`handshake_timeout`](ServerSession::handshake_timeout).
    ///
    /// # Errors
    /// [`io::Error`] from the handshake. After an error or a drop of the future, drop the
    /// connection.
    pub async fn accept_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let handshake = timeout(self.session.handshake_timeout(), self.connection.accept_tls(config));
        handshake.await.map_err(|_| timed_out())??;
        self.session.tls_established().map_err(misuse)?;
        self.withhold();
        Ok(())
    }

    /// What a SASL exchange on this connection may rely on: the channel binding, and for EXTERNAL
    /// the [fingerprint](crate::Certificate::fingerprint) of the client's certificate.
    pub fn sasl_context(&self, nonce: Nonce, unknown_users: UnknownUsers) -> ServerContext {
        let mut context = ServerContext::new(nonce, unknown_users);
        // Give a binding only if it is offered: otherwise an honest client looks like a victim of
        // an attack.
        if self.session.mechanisms().contains(Mechanism::ScramSha256Plus) {
            context.channel_bindings.extend(self.connection.channel_binding());
        }
        context.external_identity = self.connection.peer_certificate().map(|certificate| certificate.fingerprint());
        context
    }

    /// The connection, for what TLS has agreed on.
    pub const fn connection(&self) -> &Connection<S> {
        &self.connection
    }

    /// Refuses the content that is being received: see [`ServerSession::refuse_content`].
    pub fn refuse_content(&mut self, refusal: Refusal) {
        self.session.refuse_content(refusal);
    }

    /// Ends the conversation at the next boundary: see [`ServerSession::shutdown`].
    pub fn shutdown(&mut self) {
        self.session.shutdown(&mut self.connection.output);
    }

    /// Ends the conversation with a 421 at once: see [`ServerSession::abort`]. The next call of
    /// [`next`](Self::next) then takes 10 seconds at most.
    pub fn abort(&mut self) {
        self.session.abort(&mut self.connection.output);
    }

    /// Shortens every wait, or undoes that: see [`ServerSession::hurry`]. It takes effect at the
    /// next call of [`next`](Self::next).
    pub const fn hurry(&mut self, hurried: bool) {
        self.session.hurry(hurried);
    }

    /// The session.
    pub const fn session(&self) -> &ServerSession {
        &self.session
    }

    /// Withholds mechanisms that this connection cannot support.
    fn withhold(&mut self) {
        let offered = self.session.mechanisms();
        if offered.contains(Mechanism::ScramSha256Plus) && self.connection.channel_binding().is_none() {
            self.session.withhold(Mechanism::ScramSha256Plus);
        }
        if offered.contains(Mechanism::External) && self.connection.peer_certificate().is_none() {
            self.session.withhold(Mechanism::External);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let until = self.clock.now() + self.session.write_timeout();
        // A slow reader has no more time than the session.
        let until = self.session.ends_at().map_or(until, |ends| until.min(ends.max(self.clock.now() + FAREWELL)));
        timeout_at(self.clock.instant(until), self.connection.flush()).await.map_err(|_| timed_out())?
    }

    async fn read(&mut self) -> io::Result<()> {
        let deadline = self.session.poll_timeout().map(|deadline| self.clock.instant(deadline));
        match self.connection.read_until(deadline).await {
            Ok(Ok(0)) => {
                self.session.handle_eof();
                self.after_flush = Some(AfterFlush::Close(CloseReason::Eof));
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                self.session.handle_timeout(self.clock.now(), &mut self.connection.output);
            }
        }
        Ok(())
    }
}

/// How long a client has to read the last reply.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client did not read or write in time")
}

fn misuse(error: ApiMisuse) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use posthaste_session::{ServerSettings, Transport};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn an_idle_connection_owns_no_buffer_also_after_a_burst() {
        let (mut client, server) = tokio::io::duplex(64 * 1_024);
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.limits.idle_commands = 1_000;
        let mut driver =
            ServerDriver::new(Connection::new(server), ServerSession::new(Arc::new(settings), Transport::Plain));
        for burst in [0, 1, 200] {
            client.write_all("NOOP\r\n".repeat(burst).as_bytes()).await.unwrap();
            loop {
                tokio::select! {
                    biased;
                    event = driver.next() => match event.unwrap() {
                        ServerEvent::Ask(_) => driver.answer(Verdict::Accept(None)).unwrap(),
                        other => panic!("{other:?}"),
                    },
                    () = tokio::task::yield_now() => break,
                }
            }
            let Connection { input, output, .. } = &driver.connection;
            assert_eq!((input.capacity(), output.capacity()), (0, 0), "{burst}");
            let mut said = vec![0; 64 * 1_024];
            assert!(client.read(&mut said).await.unwrap() > 0);
        }
    }
}
