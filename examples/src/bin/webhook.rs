//! Hands each message to a URL, as a POST of JSON: what is known of the client, the envelope, and
//! the content in base64.
//!
//! ```text
//! cargo run --bin webhook -- 127.0.0.1:2525 https://app.example.org/inbound
//! ```
//!
//! A status of 200 to 299 accepts the message. One of 400 to 499 refuses it for ever, except 408
//! and
//! 429. All else, also no answer within a minute, has the client try again later.

use std::{error::Error, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use posthaste::client::tls::{Roots, verified_by};
use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, ServerOptions, accepted, handlers, refusal,
    session::ServerSettings,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_util::task::AbortOnDropHandle;

/// Octets of a message, which is in memory. There are as many as connections at most.
const SIZE: u32 = 10 << 20;
const CONNECTIONS: usize = 100;
/// The time for one request.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Webhook {
    host: String,
    port: u16,
    /// With the port, if it is in the URL.
    authority: String,
    path: String,
    /// `None`: HTTP.
    tls: Option<TlsConnector>,
}

impl Handler for Webhook {
    async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = STANDARD.encode(body.collect(SIZE as usize).await?);
        let json = serde_json::json!({ "client": cx.peer, "envelope": envelope, "content": content });
        // An error becomes a 451: the application may get a message that it has once more.
        match timeout(PATIENCE, self.post(json.to_string())).await.map_err(io::Error::from)??.as_u16() {
            200..300 => Ok(accepted!("250 2.0.0 Handed over")),
            408 | 429 => Err(refusal!("451 4.3.2 The application is busy, try again later")),
            400..500 => Err(refusal!("554 5.7.1 The application does not take this message")),
            _ => Err(refusal!("451 4.3.0 The application has an error, try again later")),
        }
    }
}

impl Webhook {
    fn new(url: &str) -> Result<Self, Box<dyn Error>> {
        let url: Uri = url.parse()?;
        let (tls, port) = match url.scheme_str() {
            Some("https") => (Some(verified_by(Roots::system()?)?.into()), 443),
            Some("http") => (None, 80),
            _ => return Err("the URL has to begin with https:// or http://".into()),
        };
        let authority = url.authority().ok_or("the URL has no host")?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: url.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            tls,
        })
    }

    async fn post(&self, json: String) -> io::Result<StatusCode> {
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(json)
            .map_err(io::Error::other)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let Some(tls) = &self.tls else { return exchange(stream, request).await };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        exchange(tls.connect(name, stream).await?, request).await
    }
}

/// The status of the response. Its body is not read.
async fn exchange<S>(stream: S, request: Request<String>) -> io::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    Ok(sender.send_request(request).await.map_err(io::Error::other)?.status())
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, url] = &arguments[..] else { return Err("usage: webhook ADDRESS URL".into()) };
    let webhook = Webhook::new(url)?;
    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.limits.message_size = SIZE.into();
    let listener = Listener::bind(address, settings).await?;
    println!("listening on {}", listener.local_address()?);
    let mut options = ServerOptions::default();
    options.connections = CONNECTIONS;
    Server::new(handlers::cloned(webhook)).with_options(options).listen(listener).serve().await;
    Ok(())
}
