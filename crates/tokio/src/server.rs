//! Runs a server session over a connection.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use posthaste_session::{
    ApiMisuse, Ask, ServerNext, ServerSession, Tick, Verdict,
    sasl::{Nonce, ServerContext, UnknownUsers},
    server::CloseReason,
    wire::{Mechanism, Refusal},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep_until, timeout},
};

use crate::{Clock, Connection, connection::CLOSE};

/// A server session with its connection and clock.
#[derive(Debug)]
pub struct ServerDriver<S> {
    connection: Connection<S>,
    session: ServerSession,
    clock: Clock,
    work: Work,
    /// When the write that is under way is given up. `None`: none is.
    write_until: Option<Tick>,
    /// Rings at the deadline or before. It stays registered when the deadline moves away, as it
    /// does with each command. So a wait costs no change of the runtime's timers.
    timer: Option<Pin<Box<Sleep>>>,
    /// Steps since the driver last let others run.
    steps: u8,
    /// The client has given up its transaction, which is still to be reported.
    gave_up: bool,
}

/// How many steps of a session are done in one go: questions, and pieces of content. Beyond it the
/// driver lets other tasks run first. The runtime counts reads and writes alone, and one read may
/// bring more than a thousand chunks.
const STEPS: u8 = 32;

/// What [`ServerDriver::poll_next`] goes on with.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Asking the session.
    Step,
    /// Writing the output.
    Write,
    /// Writing the output, then reading.
    Read,
    /// Writing the output before a TLS handshake.
    StartTls,
    /// Writing the last output.
    Leave(CloseReason),
    /// Closing the writing side.
    Close(CloseReason),
    Closed(CloseReason),
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
    /// The session has refused a command without a question, with
    /// [`ServerSession::last_refusal`]. It is for logs.
    Refused,
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
        let mut driver = Self {
            connection,
            session,
            clock,
            work: Work::Step,
            write_until: None,
            timer: None,
            steps: 0,
            gave_up: false,
        };
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
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits as [`next`](Self::next) in a poll function. The waker of the last call counts. A wait
    /// takes no memory beside one timer, which the driver keeps.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<ServerEvent>> {
        loop {
            match self.work {
                Work::Step => {
                    if self.steps >= STEPS {
                        self.steps = 0;
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    self.steps += 1;
                    if let Some(event) = self.step()? {
                        return Poll::Ready(Ok(event));
                    }
                }
                Work::Write => {
                    ready!(self.poll_flush(context))?;
                    self.work = Work::Step;
                }
                Work::Read => {
                    // A flush that was interrupted may have left octets that the client waits for.
                    ready!(self.poll_flush(context))?;
                    ready!(self.poll_read(context))?;
                }
                Work::StartTls => {
                    ready!(self.poll_flush(context))?;
                    self.work = Work::Step;
                    return Poll::Ready(Ok(ServerEvent::StartTls));
                }
                Work::Leave(reason) => {
                    // Best effort: the client may be gone.
                    let is_flushed = ready!(self.poll_flush(context)).is_ok();
                    self.work = if is_flushed { Work::Close(reason) } else { Work::Closed(reason) };
                }
                Work::Close(reason) => {
                    let until = *self.write_until.get_or_insert_with(|| self.clock.now() + CLOSE);
                    if self.connection.poll_shutdown(context).is_pending() {
                        ready!(self.poll_late(context, until));
                    }
                    self.work = Work::Closed(reason);
                }
                Work::Closed(reason) => return Poll::Ready(Ok(ServerEvent::Closed(reason))),
            }
        }
    }

    /// Asks the session what comes next, and sets the work. `Some`: an event.
    fn step(&mut self) -> io::Result<Option<ServerEvent>> {
        let now = self.clock.now();
        let Connection { input, output, .. } = &mut self.connection;
        let was_in_transaction = self.session.is_in_transaction();
        let step = self.session.handle_input(now, input, output).map_err(misuse)?;
        let consumed = step.consumed;
        let next = step.next.into_owned();
        // At once: consumed octets are never shown again, even if the future is dropped.
        let piece = if matches!(next, ServerNext::Content(_)) {
            input.split_to(consumed).freeze()
        } else {
            input.advance(consumed);
            if input.is_empty() {
                // An idle connection keeps no buffer.
                *input = BytesMut::new();
            }
            Bytes::new()
        };
        let gave_up = std::mem::take(&mut self.gave_up) || was_in_transaction && !self.session.is_in_transaction();
        match next {
            // The next call asks the session again.
            ServerNext::NeedInput | ServerNext::Flush if gave_up => return Ok(Some(ServerEvent::Reset)),
            ServerNext::NeedInput => self.work = Work::Read,
            ServerNext::Flush => self.work = Work::Write,
            ServerNext::Ask(ask) => return Ok(Some(ServerEvent::Ask(ask))),
            ServerNext::AskMended(ask) => return Ok(Some(ServerEvent::Ask(*ask))),
            ServerNext::Content(range) => return Ok(Some(ServerEvent::Content(piece.slice(range)))),
            ServerNext::ContentRefused(refusal) => return Ok(Some(ServerEvent::ContentRefused(refusal))),
            ServerNext::ContentSwallowed => return Ok(Some(ServerEvent::ContentSwallowed)),
            ServerNext::ContentAborted => return Ok(Some(ServerEvent::ContentAborted)),
            ServerNext::Refused => {
                self.gave_up = gave_up;
                return Ok(Some(ServerEvent::Refused));
            }
            ServerNext::StartTls => self.work = Work::StartTls,
            ServerNext::Close(reason) => self.work = Work::Leave(reason),
        }
        Ok(None)
    }

    /// Answers the question that is open.
    ///
    /// # Errors
    /// [`ApiMisuse`] as [`ServerSession::answer`].
    pub fn answer(&mut self, verdict: Verdict) -> Result<(), ApiMisuse> {
        self.interrupt();
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
        self.interrupt();
        self.session.shutdown(&mut self.connection.output);
    }

    /// Ends the conversation with a 421 at once: see [`ServerSession::abort`]. The next call of
    /// [`next`](Self::next) then takes 10 seconds at most.
    pub fn abort(&mut self) {
        self.interrupt();
        self.session.abort(&mut self.connection.output);
    }

    /// Ends the conversation with a 421 at once, to make room: see [`ServerSession::displace`].
    pub fn displace(&mut self) {
        self.session.displace(&mut self.connection.output);
    }

    /// Shortens every wait, or undoes that: see [`ServerSession::hurry`]. It takes effect at the
    /// next call of [`next`](Self::next).
    pub const fn hurry(&mut self, hurried: bool) {
        self.write_until = None;
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

    /// The session has changed: what it waited for may be over.
    const fn interrupt(&mut self) {
        if matches!(self.work, Work::Write | Work::Read) {
            self.work = Work::Step;
            self.write_until = None;
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut flushed = self.connection.poll_flush(context);
        if flushed.is_pending() {
            let until = match self.write_until {
                Some(until) => until,
                None => *self.write_until.insert(self.last_write()),
            };
            flushed = self.poll_late(context, until).map(|()| Err(timed_out()));
        }
        if flushed.is_ready() {
            self.write_until = None;
        }
        flushed
    }

    /// When a write that begins now is given up.
    fn last_write(&self) -> Tick {
        let now = self.clock.now();
        if matches!(self.work, Work::Leave(CloseReason::Shutdown | CloseReason::Displaced)) {
            return now + FAREWELL.min(self.session.write_timeout());
        }
        let until = now + self.session.write_timeout();
        // A slow reader has no more time than the session.
        self.session.ends_at().map_or(until, |ends| until.min(ends.max(now + FAREWELL)))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection.poll_read(context) {
            Poll::Ready(Ok(0)) => {
                self.session.handle_eof();
                self.work = Work::Leave(CloseReason::Eof);
            }
            Poll::Ready(Ok(_)) => self.work = Work::Step,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.steps = 0;
                let Some(deadline) = self.session.poll_timeout() else { return Poll::Pending };
                ready!(self.poll_late(context, deadline));
                self.session.handle_timeout(self.clock.now(), &mut self.connection.output);
                self.work = Work::Step;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until a time.
    fn poll_late(&mut self, context: &mut Context<'_>, until: Tick) -> Poll<()> {
        let until = self.clock.instant(until);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
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
    async fn other_tasks_run_between_the_commands_of_one_read() {
        let (mut client, server) = tokio::io::duplex(64 * 1_024);
        let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
        settings.limits.recipients = 2_000;
        let mut driver =
            ServerDriver::new(Connection::new(server), ServerSession::new(Arc::new(settings), Transport::Plain));
        let lines = "RCPT TO:<a@b>\r\n".repeat(1_000);
        client.write_all(format!("EHLO x\r\nMAIL FROM:<>\r\n{lines}QUIT\r\n").as_bytes()).await.unwrap();
        let mut turns = 0;
        tokio::select! {
            biased;
            () = async {
                while let ServerEvent::Ask(_) = driver.next().await.unwrap() {
                    driver.answer(Verdict::Accept(None)).unwrap();
                }
            } => {}
            () = async {
                loop {
                    tokio::task::yield_now().await;
                    turns += 1;
                }
            } => {}
        }
        assert!(turns >= 1_000 / usize::from(STEPS) - 1, "{turns}");
    }

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
