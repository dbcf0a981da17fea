//! Policies over HTTPS, to the very addresses that were found to be public.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use posthaste_tokio::{
    rustls::{ClientConfig, Error, pki_types::ServerName},
    tls::{Roots, TlsError, explain, verified_by},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{FetchError, MAX_POLICY, PolicyFetch};
use crate::{Resolver, mx};

/// Fetches policies over HTTPS by HTTP/1.1, each over a connection of its own.
///
/// It looks the policy host up with the sender's [`Resolver`] and connects to the addresses that it
/// got, one after the other for 10 s each. The caller sets the timeout of the whole.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpsFetch {
    /// `true`: policy hosts may have loopback and private addresses. Default `false`: the owner of
    /// a domain must not be able to send requests into this network.
    pub allow_private: bool,
    /// The port of policy hosts. Default 443, which RFC 8461 asks for.
    pub port: u16,
    config: Arc<ClientConfig>,
}

/// The path of a policy (RFC 8461 section 3.3).
const PATH: &str = "/.well-known/mta-sts.txt";
/// The longest wait for one address to take a connection. Up to five are tried.
const CONNECT: Duration = Duration::from_secs(10);
/// The most octets of a response's head, and of what is read at a time.
const HEAD: usize = 16 << 10;
/// The most header fields of a response.
const FIELDS: usize = 64;

impl HttpsFetch {
    /// Fetches from hosts whose certificates these authorities have signed: [`Roots::system`], as a
    /// rule.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`], [`TlsError::NoProvider`].
    pub fn new(roots: Roots) -> Result<Self, TlsError> {
        Ok(Self::with_config(&verified_by(roots)?))
    }

    /// Fetches with this configuration. It has to verify that a certificate is for the host's name.
    pub fn with_config(config: &Arc<ClientConfig>) -> Self {
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { allow_private: false, port: 443, config: Arc::new(config) }
    }

    async fn handshake(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, FetchError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FetchError::Tls("no certificate can be for its name".to_owned()))?;
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        connected.map_err(|error| match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(fault @ (Error::InvalidCertificate(_) | Error::NoCertificatesPresented)) => {
                FetchError::Certificate(explain(fault))
            }
            Some(fault) => FetchError::Tls(explain(fault)),
            None => FetchError::Tls(error.to_string()),
        })
    }
}

impl PolicyFetch for HttpsFetch {
    async fn fetch(&self, resolver: &impl Resolver, host: &str) -> Result<Bytes, FetchError> {
        let addresses = mx::addresses(resolver, host, self.allow_private).await.map_err(FetchError::Address)?;
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses.records {
            match timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, self.port))).await {
                Ok(Ok(stream)) => return read(self.handshake(stream, host).await?, host).await,
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(FetchError::Connect(failed))
    }
}

/// Asks for the policy. The connection is driven here and ends with the future.
async fn read(stream: TlsStream<TcpStream>, host: &str) -> Result<Bytes, FetchError> {
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD).max_headers(FIELDS);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(http)?;
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange(sender, host)));
    let mut is_open = true;
    poll_fn(|context| {
        // Its error reaches the exchange as well.
        is_open = is_open && connection.as_mut().poll(context).is_pending();
        exchange.as_mut().poll(context)
    })
    .await
}

async fn exchange(mut sender: SendRequest<String>, host: &str) -> Result<Bytes, FetchError> {
    let request = Request::get(PATH)
        .header(header::HOST, host)
        .header(header::ACCEPT, "text/plain")
        .header(header::USER_AGENT, concat!("posthaste/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| FetchError::Http(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(http)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    if !is_plain_text(&response) {
        return Err(FetchError::MediaType);
    }
    body(response.into_body()).await
}

/// Parameters of the media type are ignored (RFC 8461 section 3.2).
fn is_plain_text(response: &Response<Incoming>) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("text/plain"))
}

async fn body(body: Incoming) -> Result<Bytes, FetchError> {
    let most = u64::try_from(MAX_POLICY).unwrap_or(u64::MAX);
    if body.size_hint().lower() > most {
        return Err(FetchError::TooLong);
    }
    let (mut body, mut file) = (pin!(body), BytesMut::new());
    while let Some(frame) = poll_fn(|context| -> Poll<_> { body.as_mut().poll_frame(context) }).await {
        // A frame without data has trailers, which mean nothing here.
        let Ok(data) = frame.map_err(http)?.into_data() else { continue };
        if file.len().saturating_add(data.len()) > MAX_POLICY {
            return Err(FetchError::TooLong);
        }
        file.extend_from_slice(&data);
    }
    Ok(file.freeze())
}

/// hyper's texts are its own and have no words of the server.
fn http(error: hyper::Error) -> FetchError {
    FetchError::Http(error.to_string())
}
