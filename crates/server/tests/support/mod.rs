//! A server on loopback or on a pipe, and a scripted client.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

pub(crate) mod log;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_server::{
    Accepted, Authentication, BearerToken, Body, BodyError, Context, Credentials, Envelope, External, Handler,
    Listener, Peer, PeerAddress, Refusal, SaslError, ScramKey, ScramUser, Server, ServerOptions, Service, Tls,
    accepted, refusal,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
    session::{
        ServerSettings,
        sasl::{ClientMechanism, ClientStep},
    },
    wire::{EhloName, Mail, Rcpt},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

pub(crate) const NO: Refusal = refusal!("550 5.7.1 No");

/// Decides by names: `refuse-mail` in a name makes `mail` refuse; `late` and `panic` do as they
/// say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) seen: Arc<Mutex<Vec<(Peer, Envelope, usize)>>>,
    /// Octets that the handlers have taken.
    pub(crate) taken: Arc<AtomicUsize>,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

impl Names {
    async fn decide(&self, what: &str, name: &str) -> Result<(), Refusal> {
        self.log.lock().unwrap().push(format!("{what} {name}"));
        match name {
            name if name.contains(&format!("refuse-{what}")) => Err(NO),
            name if name.contains(&format!("panic-{what}")) => panic!("{name}"),
            name if name.contains(&format!("late-{what}")) => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

impl Service for Names {
    type Handler = Self;

    async fn connect(&self, cx: &Context) -> Result<Self, Refusal> {
        let refused = matches!(cx.peer.address, PeerAddress::Ip(address) if address.port() == 1);
        if refused { Err(refusal!("554 5.7.1 Go away")) } else { Ok(self.clone()) }
    }
}

impl Handler for Names {
    async fn hello(&mut self, _: &Context, name: &EhloName) -> Result<(), Refusal> {
        self.decide("hello", &name.to_string()).await
    }

    async fn authenticate(&mut self, _: &Context, credentials: Credentials) -> Authentication {
        match (credentials.authentication_identity.as_str(), credentials.password.expose().as_str()) {
            ("late", _) => std::future::pending().await,
            (name, "right") => Authentication::Granted(name.to_owned()),
            _ => Authentication::Denied,
        }
    }

    async fn authenticate_token(&mut self, _: &Context, token: BearerToken) -> Authentication {
        match (token.authorization_identity, token.token.expose().as_str()) {
            (Some(name), "right") => Authentication::Granted(name),
            (_, "late") => std::future::pending().await,
            _ => Authentication::Denied,
        }
    }

    async fn authenticate_anonymous(&mut self, _: &Context, trace: &str) -> Authentication {
        if trace.contains('@') { Authentication::Granted("anonymous".to_owned()) } else { Authentication::Denied }
    }

    async fn authenticate_external(&mut self, cx: &Context, external: External) -> Authentication {
        let fingerprint = cx.peer.certificate.as_ref().map(|certificate| certificate.fingerprint());
        match external.authorization_identity.as_deref() {
            _ if fingerprint != Some(external.identity) => Authentication::Unavailable,
            None => Authentication::Granted("the owner".to_owned()),
            Some("me") => Authentication::Granted("me".to_owned()),
            Some(_) => Authentication::Denied,
        }
    }

    async fn scram_key(&mut self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        match user.authentication_identity.as_str() {
            "me" if user.authorization_identity.is_none() => Ok(ScramKey::derive("right", &[7; 16], 4_096).ok()),
            "late" => std::future::pending().await,
            "broken" => Err(SaslError::Unavailable),
            _ => Ok(None),
        }
    }

    async fn mail(&mut self, _: &Context, mail: &Mail) -> Result<(), Refusal> {
        self.decide("mail", &mail.reverse_path.to_string()).await
    }

    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        self.decide("rcpt", &rcpt.forward_path.to_string()).await
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        let sender = cx.envelope.as_ref().unwrap().mail.reverse_path.to_string();
        self.decide("data", &sender).await
    }

    async fn message(&mut self, cx: &Context, envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        let name = envelope.mail.reverse_path.to_string();
        self.decide("early", &name).await?;
        if name.contains("careless") {
            return Ok(accepted!("250 2.0.0 Yes"));
        }
        let mut octets = 0;
        while let Some(piece) = body.next().await.map_err(|error| match error {
            BodyError::Refused(_) => error.into(),
            _ => refusal!("451 4.3.0 Gone"),
        })? {
            octets += piece.len();
            self.taken.fetch_add(piece.len(), SeqCst);
            if name.contains("slow") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.decide("half", &name).await?;
        }
        self.decide("end", &name).await?;
        self.seen.lock().unwrap().push((cx.peer.clone(), envelope, octets));
        Ok(accepted!("250 2.0.0 Yes"))
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) drain: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) names: Names,
}

pub(crate) fn settings() -> ServerSettings {
    ServerSettings::new("mx.test".parse().expect("a domain"))
}

/// The default options with a change.
pub(crate) fn options(change: impl FnOnce(&mut ServerOptions)) -> ServerOptions {
    let mut options = ServerOptions::default();
    change(&mut options);
    options
}

pub(crate) async fn start(settings: ServerSettings, tls: Tls, options: ServerOptions) -> Running {
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap().with_tls(tls);
    let address = listener.local_address().unwrap();
    let (names, drain) = (Names::default(), CancellationToken::new());
    let server = Server::new(names.clone()).with_options(options).listen(listener);
    let task = tokio::spawn(server.with_graceful_shutdown(drain.clone().cancelled_owned()).serve());
    Running { address, drain, task, names }
}

/// A client that reads replies by their lines.
pub(crate) struct Talk<S> {
    pub(crate) stream: S,
    rest: Vec<u8>,
}

/// Both sides' configurations. The client has a certificate of its own, when it is asked for one.
pub(crate) struct Pki {
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
    /// The private keys, which no log may show.
    pub(crate) keys: [Vec<u8>; 2],
}

impl Pki {
    /// For these versions of TLS. `asks`: the server asks for a certificate. `shows`: the client
    /// has one.
    pub(crate) fn new(versions: &[&'static SupportedProtocolVersion], asks: bool, shows: bool) -> Self {
        let provider = Arc::new(default_provider());
        let [own, clients] = ["mx.test", "client.test"].map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            (made.cert.der().clone(), made.signing_key.serialize_der())
        });
        let roots = |certificate: &CertificateDer<'static>| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            roots
        };
        let key = |der: &Vec<u8>| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.clone()));
        let server =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&clients.0)), Arc::clone(&provider))
            .allow_unauthenticated();
        let server = if asks {
            server.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            server.with_no_client_auth()
        };
        let server = server.with_single_cert(vec![own.0.clone()], key(&own.1)).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let client = client.with_root_certificates(roots(&own.0));
        let client = if shows {
            client.with_client_auth_cert(vec![clients.0], key(&clients.1)).unwrap()
        } else {
            client.with_no_client_auth()
        };
        Self { server, client, keys: [own.1, clients.1] }
    }
}

/// The client's side of a handshake.
pub(crate) async fn handshake(stream: TcpStream, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    TlsConnector::from(Arc::clone(config)).connect("mx.test".try_into().unwrap(), stream).await.unwrap()
}

impl Talk<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, rest: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next reply without its last CRLF, or `<eof>`.
    pub(crate) async fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            while let Some(end) = self.rest.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8(self.rest.drain(..end + 2).collect()).unwrap();
                let last = line.as_bytes().get(3) != Some(&b'-');
                text.push_str(&line);
                if last {
                    text.truncate(text.trim_end().len());
                    return text;
                }
            }
            let mut octets = [0; 4_096];
            match self.stream.read(&mut octets).await {
                Ok(0) | Err(_) => return "<eof>".to_owned(),
                Ok(read) => self.rest.extend_from_slice(&octets[..read]),
            }
        }
    }

    /// Sends and gives the reply.
    pub(crate) async fn ask(&mut self, text: &str) -> String {
        self.send(&format!("{text}\r\n")).await;
        self.reply().await
    }

    /// Asks, and checks how the reply begins.
    pub(crate) async fn expect(&mut self, text: &str, reply: &str) {
        let said = self.ask(text).await;
        assert!(said.starts_with(reply), "{text:?}: {said:?} and not {reply:?}");
    }

    pub(crate) async fn greeted(mut self) -> Self {
        assert!(self.reply().await.starts_with("220 "));
        self.expect("EHLO c.test", "250").await;
        self
    }

    /// Logs in. Returns the last reply, and `true` if the client accepts the server's proof.
    pub(crate) async fn log_in(&mut self, mut exchange: ClientMechanism) -> (String, bool) {
        let initial = exchange.initial_response().map_or_else(String::new, |text| format!(" {}", text.expose()));
        let mut reply = self.ask(&format!("AUTH {}{initial}", exchange.name())).await;
        while let Some(challenge) = reply.strip_prefix("334 ") {
            reply = match exchange.respond(challenge.as_bytes()) {
                ClientStep::Respond(text) => self.ask(text.expose()).await,
                ClientStep::GiveUp(fault) => panic!("{fault}"),
            };
        }
        (reply, exchange.finish().is_ok())
    }

    /// A whole message; the reply to its end.
    pub(crate) async fn message(&mut self, from: &str, content: &str) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250").await;
        self.expect("RCPT TO:<a@d.test>", "250").await;
        self.expect("DATA", "354").await;
        self.ask(&format!("{content}\r\n.")).await
    }
}
