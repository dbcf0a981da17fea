//! What the tables of wire and session say, over sockets: TCP, STARTTLS and TLS from the first
//! octet, whole and octet by octet. A session beside the server is told the same octets, and the
//! tests of the tables compare it with them. Here the client must see what the session says, and
//! the handler must get its messages.

mod content;
mod dialogues;
mod hostile;
mod tls;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_server::{
    Accepted, Authentication, Body, Context, Credentials, Envelope, Handler, Listener, Refusal, Server, Service, Tls,
    accepted,
    rustls::{ClientConfig, ServerConfig},
    session::{Ask, ServerSettings, Transport, Verdict, server::OtherCommand},
    wire::{EhloName, Mail, Rcpt},
};
use posthaste_testkit::{
    pki,
    policy::{PASSWORD, Policy, USER},
    server::{ServerHarness, Stop},
    talk::handshake,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

/// How the octets get to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In clear. STARTTLS is offered if the row's server offers it.
    Tcp,
    /// Within TLS after STARTTLS.
    StartTls,
    /// Within TLS from the first octet.
    Implicit,
}

pub(super) const WAYS: [Way; 3] = [Way::Tcp, Way::StartTls, Way::Implicit];

/// Octets that are sent at a time.
pub(super) const PIECES: [usize; 2] = [usize::MAX, 1];

/// Both ends' configurations, which all rows share.
pub(super) type Pki = (Arc<ServerConfig>, Arc<ClientConfig>);

pub(super) fn pki() -> Pki {
    pki::tls("mx.test")
}

/// Decides as the policy of the session beside it, and keeps the content that it has accepted.
#[derive(Debug, Clone, Default)]
struct Scripted {
    policy: Arc<Mutex<Policy>>,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The methods that were called.
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn verdict(&self, ask: &Ask) -> Verdict {
        self.asked.fetch_add(1, SeqCst);
        self.policy.lock().unwrap().verdict(ask).expect("no row of these leaves a question open")
    }

    fn decide(&self, ask: &Ask) -> Result<(), Refusal> {
        match self.verdict(ask) {
            Verdict::Accept(None) => Ok(()),
            Verdict::Refuse(refusal) => Err(refusal),
            other => panic!("a handler cannot say {other:?} to {ask:?}"),
        }
    }

    fn end(&self, envelope: &Envelope, content: &[u8]) -> Vec<Result<Accepted, Refusal>> {
        let recipients = envelope.recipients.len();
        let decisions = match self.verdict(&Ask::Message { recipients }) {
            Verdict::Accept(reply) => vec![Ok(reply.unwrap_or(accepted!("250 2.0.0 Accepted"))); recipients],
            Verdict::Refuse(refusal) => vec![Err(refusal); recipients],
            Verdict::Each(decisions) => decisions,
            Verdict::Challenge(_) => panic!("a challenge at the end of data"),
        };
        if decisions.iter().any(Result::is_ok) {
            self.messages.lock().unwrap().push(content.to_vec());
        }
        decisions
    }
}

impl Service for Scripted {
    type Handler = Self;

    async fn connect(&self, _: &Context) -> Result<Self, Refusal> {
        self.decide(&Ask::Connect).map(|()| self.clone())
    }
}

impl Handler for Scripted {
    async fn hello(&mut self, _: &Context, name: &EhloName) -> Result<(), Refusal> {
        self.decide(&Ask::Hello(name.clone()))
    }

    async fn authenticate(&mut self, _: &Context, credentials: Credentials) -> Authentication {
        self.asked.fetch_add(1, SeqCst);
        match (credentials.authentication_identity.as_str(), credentials.password.expose().as_str()) {
            (USER, PASSWORD) => Authentication::Granted(USER.to_owned()),
            _ => Authentication::Denied,
        }
    }

    async fn mail(&mut self, _: &Context, mail: &Mail) -> Result<(), Refusal> {
        self.decide(&Ask::Mail(mail.clone()))
    }

    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        self.decide(&Ask::Rcpt(rcpt.clone()))
    }

    async fn data(&mut self, _: &Context) -> Result<(), Refusal> {
        self.decide(&Ask::Data)
    }

    async fn message(&mut self, _: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(1 << 20).await?;
        self.end(&envelope, &content).swap_remove(0)
    }

    async fn deliver(
        &mut self,
        _: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> Result<Vec<Result<Accepted, Refusal>>, Refusal> {
        let content = body.collect(1 << 20).await?;
        Ok(self.end(&envelope, &content))
    }

    async fn other(&mut self, _: &Context, command: &OtherCommand) -> Result<Accepted, Refusal> {
        match self.verdict(&Ask::Other(command.clone())) {
            Verdict::Accept(Some(reply)) => Ok(reply),
            Verdict::Refuse(refusal) => Err(refusal),
            other => panic!("a handler cannot say {other:?} to {command:?}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A client of a server, and a session that is told the same.
pub(super) struct Pair {
    /// The row, for failures.
    name: String,
    stream: Box<dyn Stream>,
    session: ServerHarness,
    scripted: Scripted,
    client: Arc<ClientConfig>,
    piece: usize,
    server: JoinHandle<()>,
}

/// A server, and a connection to it.
async fn serve(scripted: &Scripted, settings: ServerSettings, tls: Tls) -> (JoinHandle<()>, TcpStream) {
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap().with_tls(tls);
    let address = listener.local_address().unwrap().to_string();
    let server = tokio::spawn(Server::new(scripted.clone()).listen(listener).serve());
    let stream = TcpStream::connect(address).await.unwrap();
    // Each piece is a segment of its own.
    stream.set_nodelay(true).unwrap();
    (server, stream)
}

/// Longer than any server here waits.
const PATIENCE: Duration = Duration::from_secs(30);

impl Pair {
    /// Connects, and sets TLS up. After STARTTLS the greeting is over.
    pub(super) async fn connect(
        name: &str,
        way: Way,
        piece: usize,
        pki: &Pki,
        settings: ServerSettings,
        starttls: bool,
        script: impl Fn(&mut Policy),
    ) -> Self {
        let scripted = Scripted::default();
        let (transport, tls) = match way {
            Way::Tcp if !starttls => (Transport::Plain, Tls::Off),
            Way::Tcp | Way::StartTls => (Transport::StartTls, Tls::StartTls(Arc::clone(&pki.0))),
            Way::Implicit => (Transport::Tls, Tls::Implicit(Arc::clone(&pki.0))),
        };
        let mut session = ServerHarness::new(settings.clone(), transport);
        script(&mut session.policy);
        script(&mut scripted.policy.lock().unwrap());
        let (server, stream) = serve(&scripted, settings, tls).await;
        let name = format!("{name}, {way:?}, {} at a time", if piece == 1 { "one octet" } else { "all octets" });
        let client = Arc::clone(&pki.1);
        let stream: Box<dyn Stream> = Box::new(stream);
        let mut pair = Self { name, stream, session, scripted, client, piece, server };
        match way {
            Way::Tcp => {}
            Way::StartTls => {
                for line in ["", "EHLO b\r\n", "STARTTLS\r\n"] {
                    pair.say(line.as_bytes()).await;
                }
                pair.starttls().await;
            }
            Way::Implicit => pair.handshake().await,
        }
        pair
    }

    /// Lets the application decide so at the next question.
    pub(super) fn script(&mut self, script: impl Fn(&mut Policy)) {
        script(&mut self.session.policy);
        script(&mut self.scripted.policy.lock().unwrap());
    }

    /// Says octets, and hears the answer of the session from the server.
    pub(super) async fn say(&mut self, octets: &[u8]) {
        self.session.feed(octets);
        for piece in octets.chunks(self.piece) {
            // The server may have closed by now.
            if self.stream.write_all(piece).await.is_err() || self.stream.flush().await.is_err() {
                break;
            }
            // The server's turn.
            tokio::task::yield_now().await;
        }
        self.hear().await;
    }

    /// Hears what the session has said.
    pub(super) async fn hear(&mut self) {
        self.session.run();
        let expected = std::mem::take(&mut self.session.said);
        let mut said = Vec::new();
        while said.len() < expected.len() {
            match timeout(PATIENCE, self.stream.read_buf(&mut said)).await {
                Ok(Ok(1..)) => {}
                _ => break,
            }
        }
        assert_eq!(said.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{}", self.name);
    }

    /// The handshake that STARTTLS has begun.
    pub(super) async fn starttls(&mut self) {
        assert_eq!(self.session.run(), Stop::Tls, "{}: no handshake is due", self.name);
        self.session.establish_tls();
        self.handshake().await;
    }

    async fn handshake(&mut self) {
        let stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.stream = Box::new(handshake(stream, &self.client).await);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.session.closed.is_some()
    }

    /// Closes the client's side. The server says no more than the session, and has as many
    /// messages.
    pub(super) async fn end(mut self) -> Vec<Vec<u8>> {
        if !self.is_closed() {
            self.session.end_of_input();
        }
        let _ = self.stream.shutdown().await;
        let mut more = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut more)).await;
        assert!(ended.is_ok(), "{}: the server does not close", self.name);
        assert_eq!(more.escape_ascii().to_string(), "", "{}: more than the session says", self.name);
        let found = self.scripted.messages.lock().unwrap().clone();
        let expected: Vec<_> = self.session.messages.iter().map(|message| message.content.clone()).collect();
        assert_eq!(found, expected, "{}: the handler's messages", self.name);
        self.server.abort();
        found
    }
}
