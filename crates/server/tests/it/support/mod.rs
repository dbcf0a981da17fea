//! A server on loopback whose handler decides by names.

pub(crate) mod log;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_server::{
    Accept, Accepted, Authentication, BearerToken, Body, BodyError, Context, Credentials, Envelope, External, Handler,
    Listener, Peer, PeerAddress, Refusal, SaslError, ScramKey, ScramUser, Server, ServerOptions, Service, Tls,
    accepted, refusal,
    session::{
        ServerSettings,
        sasl::{ClientMechanism, ClientStep},
    },
    wire::{EhloName, Mail, Rcpt},
};
use posthaste_testkit::talk::Talk;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
};
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
        let fingerprint = cx.peer.certificate().map(|certificate| certificate.fingerprint());
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

/// Clients over memory, all from one address.
pub(crate) struct InMemory(pub(crate) mpsc::Receiver<DuplexStream>);

impl Accept for InMemory {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        let proxy: SocketAddr = "203.0.113.9:1024".parse().unwrap();
        match self.0.recv().await {
            Some(stream) => Ok((stream, Peer::new(proxy, PeerAddress::Local))),
            None => std::future::pending().await,
        }
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }

    fn takes_descriptors(&self) -> bool {
        false
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

/// Logs in. Returns the last reply, and `true` if the client accepts the server's proof.
pub(crate) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    talk: &mut Talk<S>,
    mut exchange: ClientMechanism,
) -> (String, bool) {
    let initial = exchange.initial_response().map_or_else(String::new, |text| format!(" {}", text.expose()));
    let mut reply = talk.ask(&format!("AUTH {}{initial}", exchange.name())).await;
    while let Some(challenge) = reply.strip_prefix("334 ") {
        reply = match exchange.respond(challenge.as_bytes()) {
            ClientStep::Respond(text) => talk.ask(text.expose()).await,
            ClientStep::GiveUp(fault) => panic!("{fault}"),
        };
    }
    (reply, exchange.finish().is_ok())
}
