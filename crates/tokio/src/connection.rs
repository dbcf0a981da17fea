//! A buffered connection, plain or TLS.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use posthaste_session::{
    sasl::{ChannelBinding, TLS_EXPORTER_LABEL},
    wire::frame::{MAX_SEGMENTS, SegmentList},
};
use rustls::{
    CipherSuite, ClientConfig, ProtocolVersion, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, error::Elapsed, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::Certificate;

/// A stream with its input and output buffers.
///
/// An idle connection owns no buffer: it reads onto the stack and copies what arrived. The input
/// holds at most what one session step leaves unconsumed and one read of 16 KiB.
pub struct Connection<S> {
    transport: Transport<S>,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    /// Octets were written since the last flush. Under TLS they may still be in this process.
    unflushed: bool,
    /// A write of segments stopped half-way: the peer would take any later octets for a part of it.
    torn: bool,
    /// A client's handshake has begun and is not done.
    in_handshake: bool,
}

/// What a TLS handshake has agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsParameters {
    /// The version of TLS.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher_suite: CipherSuite,
}

enum Transport<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
    /// A handshake failed or was dropped half-way. The stream is gone.
    Gone,
}

/// Octets of one read: as many as a TLS record holds.
const READ: usize = 16 * 1_024;

/// Bound on [`Connection::close`]: a peer that is gone takes no more octets.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

impl<S> Connection<S> {
    /// A connection without TLS.
    pub fn new(stream: S) -> Self {
        let transport = Transport::Plain(stream);
        Self {
            transport,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            torn: false,
            in_handshake: false,
        }
    }

    /// Returns `true` if the connection has TLS.
    pub const fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Returns `true` from the first octet of a client's TLS handshake until the handshake is done.
    /// After one that failed it stays so. `false` after [`accept_tls`](Self::accept_tls) has
    /// failed: the client has sent nothing, as a probe that only connects.
    pub const fn is_in_handshake(&self) -> bool {
        self.in_handshake
    }

    /// What the TLS handshake has agreed on. `None`: there is no TLS.
    pub fn tls(&self) -> Option<TlsParameters> {
        let Transport::Tls(stream) = &self.transport else { return None };
        let session = stream.get_ref().1;
        let (version, cipher_suite) = (session.protocol_version()?, session.negotiated_cipher_suite()?.suite());
        Some(TlsParameters { version, cipher_suite })
    }

    /// The host name that a client has asked for (SNI, RFC 6066 section 3), in lower case. `None`:
    /// it has not, there is no TLS, or this is the client's end.
    pub fn server_name(&self) -> Option<&str> {
        match &self.transport {
            Transport::Tls(stream) => match &**stream {
                TlsStream::Server(stream) => stream.get_ref().1.server_name(),
                TlsStream::Client(_) => None,
            },
            Transport::Plain(_) | Transport::Gone => None,
        }
    }

    /// The channel binding for SASL: `tls-exporter` (RFC 9266) under TLS 1.3. `None` otherwise:
    /// under TLS 1.2 another connection may share the master secret (RFC 7627). Each call computes
    /// it again.
    pub fn channel_binding(&self) -> Option<ChannelBinding> {
        let Transport::Tls(stream) = &self.transport else { return None };
        if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let context = Some(&[][..]);
        let exported = match &**stream {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, context)
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], TLS_EXPORTER_LABEL, context)
            }
        };
        exported.ok().map(ChannelBinding::tls_exporter)
    }

    /// The version and the cipher suite of TLS for people. `None`: the connection has no TLS.
    pub(crate) fn tls_text(&self) -> Option<String> {
        let Transport::Tls(stream) = &self.transport else { return None };
        let tls = stream.get_ref().1;
        let version = tls.protocol_version().and_then(|version| version.as_str()).unwrap_or("of an unknown version");
        let suite =
            tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("an unknown cipher");
        Some(format!("TLS established: {version}, {suite}"))
    }

    /// The peer's certificate. `None`: it has shown none. A server under TLS always shows one, a
    /// client if the server asks for it.
    pub fn peer_certificate(&self) -> Option<Certificate> {
        let own = self.peer_certificates().first()?;
        Some(Certificate::new(own.clone().into_owned()))
    }

    /// The chain of certificates that the peer has shown, its own first; in a session that was
    /// resumed, when the session began. Empty: there is none.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        match &self.transport {
            Transport::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
            _ => &[],
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Does the server's side of a TLS handshake. The caller sets the timeout. After an error, or
    /// if the future is dropped, the connection is of no use.
    ///
    /// # Errors
    /// [`io::Error`] from the handshake, and [`io::ErrorKind::InvalidData`] if octets in clear are
    /// left in the input or the output.
    pub async fn accept_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let mut plain = self.take_plain()?;
        // By itself, to know if the client wants a handshake at all. The rest stays in the stream.
        let first = plain.read_u8().await?;
        self.in_handshake = true;
        let mut given = Ok(0);
        let handshake =
            TlsAcceptor::from(config).accept_with(plain, |tls| given = tls.read_tls(&mut [first].as_slice()));
        given?;
        self.transport = Transport::Tls(Box::new(handshake.await?.into()));
        self.in_handshake = false;
        Ok(())
    }

    /// Does the client's side of a TLS handshake, as [`accept_tls`](Self::accept_tls) does the
    /// server's.
    ///
    /// # Errors
    /// As [`accept_tls`](Self::accept_tls).
    pub async fn connect_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
        let plain = self.take_plain()?;
        let stream = TlsConnector::from(config).connect(name, plain).await?;
        self.transport = Transport::Tls(Box::new(stream.into()));
        Ok(())
    }

    /// Waits for octets and appends them to the input, 16 KiB at most. Returns their number. 0: the
    /// peer has closed its side. The future may be dropped: no octet is lost. The caller sets the
    /// timeout.
    ///
    /// # Errors
    /// [`io::Error`] from the stream.
    pub async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context)).await
    }

    /// Reads as [`read`](Self::read) in a poll function.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Not cleared: that would cost each poll, also one that finds no octets.
        let mut stack = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut stack);
        ready!(self.transport.poll_read(context, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Returns `true` if the peer has sent nothing and has not closed its side, as far as this side
    /// knows without waiting. What the peer has sent is appended to the input.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut stack = [MaybeUninit::uninit(); 512];
        let mut buffer = ReadBuf::uninit(&mut stack);
        let read = self.transport.poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        self.input.extend_from_slice(buffer.filled());
        read.is_pending() && self.input.is_empty()
    }

    /// Reads as [`read`](Self::read) until a deadline. `None`: without one.
    pub(crate) async fn read_until(&mut self, deadline: Option<Instant>) -> Result<io::Result<usize>, Elapsed> {
        match deadline {
            Some(deadline) => timeout_at(deadline, self.read()).await,
            None => Ok(self.read().await),
        }
    }

    /// Writes the output. The future may be dropped: the next call goes on where it stopped. The
    /// caller sets the timeout.
    ///
    /// # Errors
    /// [`io::Error`] from the stream.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Writes as [`flush`](Self::flush) in a poll function.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_whole()?;
        while !self.output.is_empty() {
            self.unflushed = true;
            let written = ready!(self.transport.poll_write(context, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        if self.unflushed {
            // An idle connection keeps no buffer.
            self.output = BytesMut::new();
            ready!(self.transport.poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the output and then these segments, in as few calls as possible. After an error, or
    /// if the future is dropped, nothing more can be written, but reading still works. The caller
    /// sets the timeout.
    ///
    /// # Errors
    /// [`io::Error`] from the stream.
    pub async fn write_segments(&mut self, segments: &SegmentList<'_>) -> io::Result<()> {
        self.check_whole()?;
        self.torn = true;
        let mut done = 0;
        let all = self.output.len() + segments.octets();
        while done < all {
            let written = poll_fn(|context| {
                let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
                let mut skip = done;
                let pieces = std::iter::once(&self.output[..]).chain(segments.as_slice().iter().map(|s| s.as_bytes()));
                let mut used = 0;
                for piece in pieces {
                    let rest = piece.get(skip..).unwrap_or_default();
                    skip = skip.saturating_sub(piece.len());
                    if let (false, Some(slot)) = (rest.is_empty(), slices.get_mut(used)) {
                        *slot = IoSlice::new(rest);
                        used += 1;
                    }
                }
                self.transport.poll_write_vectored(context, slices.get(..used).unwrap_or_default())
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += written;
        }
        self.output = BytesMut::new();
        poll_fn(|context| self.transport.poll_flush(context)).await?;
        self.torn = false;
        self.unflushed = false;
        Ok(())
    }

    /// Writes as [`write_segments`](Self::write_segments), and reads while the peer takes no
    /// octets: a peer that waits for room for its own octets would take none for ever. It reads
    /// until the input has this many octets.
    ///
    /// # Errors
    /// [`io::Error`] from writing. The next read finds an error from reading.
    pub(crate) async fn write_segments_and_read(
        &mut self,
        segments: &SegmentList<'_>,
        most_input: usize,
    ) -> io::Result<()> {
        self.check_whole()?;
        self.torn = true;
        let (mut done, mut may_read) = (0, true);
        let all = self.output.len() + segments.octets();
        while done < all {
            let written = poll_fn(|context| {
                let written = self.poll_write_from(context, done, segments);
                while written.is_pending() && may_read && self.input.len() < most_input {
                    let mut stack = [MaybeUninit::uninit(); READ];
                    let mut buffer = ReadBuf::uninit(&mut stack);
                    match self.transport.poll_read(context, &mut buffer) {
                        Poll::Pending => break,
                        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                            self.input.extend_from_slice(buffer.filled());
                        }
                        Poll::Ready(_) => may_read = false,
                    }
                }
                written
            });
            let written = written.await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += written;
        }
        self.output = BytesMut::new();
        poll_fn(|context| self.transport.poll_flush(context)).await?;
        self.torn = false;
        self.unflushed = false;
        Ok(())
    }

    /// Writes some of the output and the segments, without the first `done` octets of them.
    /// [`write_segments`](Self::write_segments) does it in place: there it is in the way of every
    /// message, and a call costs a copy of the futures around it.
    fn poll_write_from(
        &mut self,
        context: &mut Context<'_>,
        done: usize,
        segments: &SegmentList<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        let mut skip = done;
        let pieces = std::iter::once(&self.output[..]).chain(segments.as_slice().iter().map(|s| s.as_bytes()));
        let mut used = 0;
        for piece in pieces {
            let rest = piece.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(piece.len());
            if let (false, Some(slot)) = (rest.is_empty(), slices.get_mut(used)) {
                *slot = IoSlice::new(rest);
                used += 1;
            }
        }
        self.transport.poll_write_vectored(context, slices.get(..used).unwrap_or_default())
    }

    /// Closes the writing side, for 5 s at most; errors are ignored. Under TLS it sends a
    /// close_notify. Without one the peer could not tell if an attacker cut the connection (RFC
    /// 8446 section 6.1).
    pub async fn close(&mut self) {
        let _ = timeout(CLOSE, poll_fn(|context| self.poll_shutdown(context))).await;
    }

    /// Closes the writing side, without a bound.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_shutdown(context)
    }

    fn check_whole(&self) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "an earlier write stopped half-way; drop the connection",
            ));
        }
        Ok(())
    }

    fn take_plain(&mut self) -> io::Result<S> {
        if !self.input.is_empty() || !self.output.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "octets in clear at the start of TLS; drop the connection",
            ));
        }
        match std::mem::replace(&mut self.transport, Transport::Gone) {
            Transport::Plain(stream) => Ok(stream),
            Transport::Tls(_) | Transport::Gone => Err(gone()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, octets),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write_vectored(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

/// The sizes of the buffers and not their octets: passwords pass through them.
impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Plain(_) => "plain",
            Transport::Tls(_) => "TLS",
            Transport::Gone => "gone",
        };
        f.debug_struct("Connection")
            .field("transport", &transport)
            .field("input", &self.input.len())
            .field("output", &self.output.len())
            .finish_non_exhaustive()
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection ended in a TLS handshake; make another")
}
