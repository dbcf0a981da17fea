//! Streams that are slow in every way, and certificates.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
};

use posthaste_tokio::{
    Connection, ServerDriver,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    session::{ServerSession, ServerSettings, Transport},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, ReadBuf};

/// Every call but the second is told to come back; reads give few octets, and what is written
/// leaves with a flush only, as under TLS.
pub(crate) struct Stutter {
    stream: DuplexStream,
    staged: Vec<u8>,
    again: bool,
    /// Octets of a read or write.
    step: usize,
}

impl Stutter {
    pub(crate) const fn new(stream: DuplexStream, step: usize) -> Self {
        Self { stream, staged: Vec::new(), again: false, step }
    }

    fn stutters(&mut self, context: &Context<'_>) -> bool {
        self.again = !self.again;
        if self.again {
            context.waker().wake_by_ref();
        }
        self.again
    }
}

impl AsyncRead for Stutter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stutters(context) {
            return Poll::Pending;
        }
        let mut few = vec![0; self.step.min(buffer.remaining())];
        let mut read = ReadBuf::new(&mut few);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stutter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.stutters(context) {
            return Poll::Pending;
        }
        let few = &octets[..octets.len().min(self.step)];
        self.staged.extend_from_slice(few);
        Poll::Ready(Ok(few.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.staged.is_empty() {
            if self.stutters(context) {
                return Poll::Pending;
            }
            let Self { stream, staged, step, .. } = &mut *self;
            let end = staged.len().min(*step);
            let written = ready!(Pin::new(stream).poll_write(context, &staged[..end]))?;
            staged.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Counts writes.
pub(crate) struct Counted(pub(crate) DuplexStream, pub(crate) Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, SeqCst);
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, SeqCst);
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        Pin::new(&mut self.0).poll_write(context, &all)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Polls once, and drops the future when it is not ready.
pub(crate) async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let polled = tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    };
    tokio::task::yield_now().await;
    polled
}

pub(crate) fn settings() -> ServerSettings {
    ServerSettings::new("mx.test".parse().expect("a domain"))
}

pub(crate) fn driver<S: AsyncRead + AsyncWrite + Unpin>(stream: S, settings: ServerSettings) -> ServerDriver<S> {
    ServerDriver::new(Connection::new(stream), ServerSession::new(Arc::new(settings), Transport::StartTls))
}

/// Reads one reply.
pub(crate) async fn reply(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut said = Vec::new();
    let whole = |said: &[u8]| {
        let line = said.strip_suffix(b"\r\n").and_then(|said| said.rsplit(|octet| *octet == b'\n').next());
        line.is_some_and(|line| line.get(3) != Some(&b'-'))
    };
    while !whole(&said) {
        match stream.read_u8().await {
            Ok(octet) => said.push(octet),
            Err(_) => return "<eof>".to_owned(),
        }
    }
    String::from_utf8(said).unwrap()
}

pub(crate) fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(default_provider());
    let server =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}
