//! A connection that is ready for transactions.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use posthaste_tokio::{
    ClientDriver, ClientError, ClientEvent, Connection, ConnectionTrace, Trace,
    rustls::{
        ClientConfig,
        pki_types::{CertificateDer, ServerName},
    },
    session::{
        ApiMisuse, ClientSettings, Protocol,
        client::{ClientTimeouts, downgrade::NextHop, recipients_at_once},
        sasl::{ChooseError, ClientCredentials, ClientMechanism, ClientStep, Nonce, Protection, Strength},
        table::{Exchange, Phase},
    },
    wire::{
        Auth, Capabilities, Command, Domain, EhloName, Rcpt, Reply, ReplyCode, Secret, Severity,
        address::AddressLiteral,
        capability::{Keyword, Mechanism},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_blocking,
};

use crate::{
    ConnectError, Dial, Endpoint, Health, HostName, Identity, Login, Race, RecipientOutcome, ServerFacts, Stage,
    Target, Tcp, Tls,
};

/// The options of a client. Start from [`new`](Self::new) and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Our name in EHLO or LHLO.
    pub hello: EhloName,
    /// How long [`Client::connect`] waits for the DNS, and then for TCP at each address. Through a
    /// proxy, that is the way to the proxy and its answer together. Default 30 s. Beyond it:
    /// [`ConnectError::Resolve`] for the DNS. For TCP, the next address, or [`ConnectError::Tcp`]
    /// after the last.
    pub connect_timeout: Duration,
    /// Limits and timeouts of the session. The handshake of implicit TLS has the time of the
    /// greeting. Default: [`ClientSettings::default`].
    pub session: ClientSettings,
    /// The protocol of the server. Default: SMTP.
    pub protocol: Protocol,
    /// The TLS that the connection needs. Default: none.
    pub tls: Tls,
    /// Who to log in as: [`Credentials`](crate::Credentials), a
    /// [`BearerToken`](crate::BearerToken), or what a function gives for each connection
    /// ([`Login::asked`]). Default: `None`, no login.
    ///
    /// Credentials are sent only where TLS is [demanded](Tls::is_demanded). Otherwise the error is
    /// [`ConnectError::AuthUnavailable`]: an attacker could remove opportunistic TLS and read them.
    /// With [`Identity::Unverified`](crate::Identity::Unverified) only mechanisms that do not show
    /// the password are used, such as SCRAM.
    ///
    /// If the server answers the strongest mechanism that it offers with 504, or any other
    /// permanent refusal of CRAM-MD5, the next one is tried in the same session.
    ///
    /// SCRAM derives a key on tokio's blocking threads. That takes some milliseconds for the usual
    /// 4,096 iterations, and a second for the most that the client accepts
    /// ([`MAX_ITERATIONS`](posthaste_tokio::session::sasl::MAX_ITERATIONS)). Under TLS 1.3 the
    /// client chooses SCRAM-SHA-256-PLUS where it is offered: a man in the middle cannot forward
    /// that login.
    pub credentials: Option<Login>,
    /// The weakest SASL mechanism that is good enough. Default: any. Use [`Strength::Mutual`] for a
    /// server that is known to have SCRAM: then an attacker cannot make the client use less.
    pub weakest_login: Strength,
    /// What is known of servers. Clones of the options share it, and other clients can. Default: a
    /// memory of its own.
    pub health: Health,
    /// How long a server may take until it is ready before the next one is tried as well, 10 s at
    /// most; see [`Race`](crate::Race). Default 250 ms (RFC 8305 section 8). 0: three are tried at
    /// once.
    pub head_start: Duration,
    /// The longest wait for each reply before the content while other servers are left to try.
    /// Default 1 minute. It does not lengthen a timeout of [`session`](Self::session), and does not
    /// apply to the greeting.
    pub reply_if_others: Duration,
    /// Shows the conversations line by line, without passwords and content; see [`Trace`] and
    /// [`Transcript`](crate::Transcript). Default: `None`, which costs nothing.
    pub trace: Option<Trace>,
}

impl ClientOptions {
    /// The defaults, under this name: no TLS, no login, the timeouts of RFC 5321.
    pub fn new(hello: EhloName) -> Self {
        Self {
            hello,
            connect_timeout: CONNECT_TIMEOUT,
            session: ClientSettings::default(),
            protocol: Protocol::Smtp,
            tls: Tls::default(),
            credentials: None,
            weakest_login: Strength::Secret,
            health: Health::default(),
            head_start: HEAD_START,
            reply_if_others: REPLY_IF_OTHERS,
            trace: None,
        }
    }

    /// Shortens the waits before the content, since other servers are left to try.
    pub(crate) fn hurry(&mut self) {
        let ClientTimeouts { command, mail, rcpt, data, .. } = &mut self.session.timeouts;
        for reply in [command, mail, rcpt, data] {
            *reply = (*reply).min(self.reply_if_others);
        }
    }
}

/// The default of [`ClientOptions::connect_timeout`]: three lost SYNs are sent again in it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of [`ClientOptions::head_start`].
const HEAD_START: Duration = Duration::from_millis(250);

/// The default of [`ClientOptions::reply_if_others`]. It is far below the times of RFC 5321 section
/// 4.5.3.2.
const REPLY_IF_OTHERS: Duration = Duration::from_secs(60);

/// A connection on which transactions can be made, one after another.
#[derive(Debug)]
pub struct Client<S> {
    pub(crate) driver: ClientDriver<S>,
    is_verified: bool,
    /// What each outcome says of the server.
    pub(crate) facts: Arc<ServerFacts>,
    /// `None`: the application made the stream.
    pub(crate) remote: Option<Remote>,
    /// It has had a transaction.
    pub(crate) is_used: bool,
    /// As [`ServerFacts::tls_failure`].
    pub(crate) tls_failure: Option<Arc<str>>,
    /// The server has refused mail since the connection has no TLS.
    pub(crate) lacks_tls: bool,
}

/// How far a connection is on its way to its first transaction.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    const STAGES: [Stage; 5] = [Stage::Connect, Stage::Greeting, Stage::Hello, Stage::StartTls, Stage::Auth];

    pub(crate) fn set(&self, stage: Stage) {
        let number = Self::STAGES.iter().zip(0..).find(|(known, _)| **known == stage);
        self.0.store(number.map_or(0, |(_, number)| number), Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        Self::STAGES.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or(Stage::Connect)
    }
}

/// The server of a connection, and the memory in which to note how it does.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) health: Health,
    /// Another connection to it broke in TLS just before, and this one is without.
    pub(crate) tls_is_suspected: bool,
}

impl Client<TcpStream> {
    /// Connects to a server: looks it up, and does greeting, EHLO, TLS and AUTH as the options say.
    ///
    /// There are at most 16 addresses, tried in the system's order in a [`Race`]: the first that is
    /// ready is taken. Mail for a domain goes to the hosts of [`mx::hosts`](crate::mx::hosts); this
    /// function asks for no MX records. Where opportunistic TLS breaks, it connects once more
    /// without TLS.
    ///
    /// The future may be dropped at any time. Each wait for the network has a timeout of the
    /// options.
    ///
    /// # Errors
    /// [`ConnectError`], of the address that failed last.
    pub async fn connect<E>(server: E, options: &ClientOptions) -> Result<Self, ConnectError>
    where
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        Self::connect_by(&Tcp::default(), server, options).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Connects to a server as [`connect`](Client::connect), over a stream that the dialer makes:
    /// through a proxy, from a source address, or over a Unix socket. A dialer that [resolves
    /// names](Dial::resolves_names) gets the name, and no look-up is made here.
    ///
    /// # Errors
    /// As [`connect`](Client::connect). [`ConnectError::Tcp`] has the dialer's error.
    pub async fn connect_by<D, E>(dial: &D, server: E, options: &ClientOptions) -> Result<Self, ConnectError>
    where
        D: Dial<Stream = S>,
        E: TryInto<Endpoint>,
        ConnectError: From<E::Error>,
    {
        let targets = Target::all(&server.try_into()?, 0, dial, options.connect_timeout).await?;
        let mut race = Race::new(&targets, dial.clone(), Arc::new(options.clone()));
        match race.next().await {
            Some((_, client)) => Ok(client),
            None => Err(race.failed().pop().map_or(ConnectError::NoAddress, |(_, error)| error)),
        }
    }

    /// Does greeting, EHLO, TLS and AUTH on a stream, as the options say. `server_name` is the host
    /// for which the certificate must be valid. The future may be dropped, and with it the stream.
    ///
    /// # Errors
    /// [`ConnectError`]; where [`ConnectError::suggests_clear`], connect again without TLS.
    pub async fn start(stream: S, server_name: &str, options: &ClientOptions) -> Result<Self, ConnectError> {
        let trace = options.trace.as_ref().map(Trace::connection);
        let mut client = Self::begin(stream, server_name, options, &Progress::default(), trace).await?;
        client.note_facts(None);
        Ok(client)
    }

    pub(crate) async fn begin(
        stream: S,
        server_name: &str,
        options: &ClientOptions,
        progress: &Progress,
        trace: Option<ConnectionTrace>,
    ) -> Result<Self, ConnectError> {
        let mut connection = Connection::new(stream);
        if let Tls::Implicit(identity) = &options.tls {
            progress.set(Stage::StartTls);
            if let Err(error) = implicit_tls(&mut connection, identity, server_name, options).await {
                trace.iter().for_each(|trace| trace.note(&error));
                return Err(error);
            }
        }
        let mut driver = ClientDriver::new(connection, options.session.clone());
        if let Some(trace) = trace {
            driver.set_trace(trace);
        }
        let facts = ServerFacts {
            target: None,
            capabilities: Capabilities::default(),
            tls: None,
            is_verified: false,
            tls_failure: None,
        };
        let is_verified = options.tls.is_verified();
        let facts = Arc::new(facts);
        let mut client =
            Self { driver, is_verified, facts, remote: None, is_used: false, tls_failure: None, lacks_tls: false };
        let ready = client.get_ready(server_name, options, progress).await;
        if let (Err(error), Some(trace)) = (&ready, client.driver.trace())
            // A reply was shown already.
            && error.reply().is_none()
        {
            trace.note(error);
        }
        ready.map(|()| client)
    }

    /// Does greeting, EHLO, STARTTLS and AUTH.
    async fn get_ready(
        &mut self,
        server_name: &str,
        options: &ClientOptions,
        progress: &Progress,
    ) -> Result<(), ConnectError> {
        progress.set(Stage::Greeting);
        let greeting = self.reply().await.map_err(at(Stage::Greeting))?;
        positive(greeting, Stage::Greeting)?;
        progress.set(Stage::Hello);
        self.hello(options).await?;
        progress.set(Stage::StartTls);
        self.start_tls(server_name, options).await?;
        progress.set(Stage::Auth);
        self.log_in(options).await
    }

    /// Notes what outcomes say of the server.
    pub(crate) fn note_facts(&mut self, target: Option<Target>) {
        let (capabilities, tls) = (self.capabilities().clone(), self.driver.tls());
        let (is_verified, tls_failure) = (tls.is_some() && self.is_verified, self.tls_failure.clone());
        self.facts = Arc::new(ServerFacts { target, capabilities, is_verified, tls, tls_failure });
    }

    /// The server and the connection, as outcomes name them.
    pub const fn facts(&self) -> &Arc<ServerFacts> {
        &self.facts
    }

    /// The extensions that the server offered in its last reply to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    /// Returns `true` if the connection has TLS.
    pub fn is_tls(&self) -> bool {
        self.driver.is_tls()
    }

    /// The chain of certificates that the server has shown, its own first. Empty: the connection
    /// has no TLS.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.driver.peer_certificates()
    }

    /// Returns `true` if TLS has proved that the server is the one that the mail is for.
    pub fn is_verified(&self) -> bool {
        self.is_verified && self.is_tls()
    }

    /// The server. `None`: the application made the stream of this connection.
    pub fn server(&self) -> Option<&Target> {
        self.facts.target.as_ref()
    }

    /// Returns `true` if this connection has no TLS because another broke in TLS just before, and
    /// the options permit that.
    pub fn is_tls_suspected(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.tls_is_suspected)
    }

    /// Returns `true` if another transaction may begin. It sends nothing and does not wait, so a
    /// server that closes at this moment is not noticed yet.
    pub fn is_usable(&mut self) -> bool {
        let session = self.driver.session();
        // A dropped future leaves a transaction behind.
        let is_ready = session.phase() == Phase::Ready && session.unanswered() == 0;
        is_ready && !self.lacks_tls && self.transactions_left() != Some(0) && self.driver.is_quiet()
    }

    /// The number of these recipients, counted from the first, that one
    /// [`transact`](Self::transact) sends to the server: all of them, unless the server has set
    /// limits (RFC 9422).
    pub fn recipients_at_once(&self, recipients: &[Rcpt<&str>]) -> usize {
        recipients_at_once(self.capabilities(), recipients)
    }

    /// The number of transactions that the server still takes on this connection (MAILMAX of RFC
    /// 9422). At 0, [`quit`](Self::quit) and connect again. `None`: the server has set no limit.
    pub fn transactions_left(&self) -> Option<u32> {
        self.driver.session().transactions_left()
    }

    /// Sends QUIT, waits for the reply for
    /// [`quit`](posthaste_tokio::session::client::ClientTimeouts::quit) at most, and closes TLS. To
    /// drop a client, or this future, just closes the connection.
    pub async fn quit(mut self) {
        if self.driver.send(&Command::Quit).is_ok() {
            // The connection is done with, reply or not.
            let _ = self.driver.next().await;
            self.driver.close().await;
        }
    }

    /// Waits for the next reply to any command.
    pub(crate) async fn reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            match self.driver.next().await? {
                ClientEvent::Reply { reply, .. } => return Ok(reply),
                ClientEvent::Closed => return Err(ClientError::Closed),
                ClientEvent::Challenge(_) | ClientEvent::SendBody { .. } | ClientEvent::StartTls => {}
            }
        }
    }

    /// Sends a command and waits for its reply. Replies to earlier commands are passed over.
    pub(crate) async fn command(&mut self, command: &Command<'_>) -> Result<Reply, ClientError> {
        let ticket = self.driver.send(command)?;
        loop {
            match self.driver.next().await? {
                ClientEvent::Reply { to, reply, .. } if to == ticket => return Ok(reply),
                ClientEvent::Closed => return Err(ClientError::Closed),
                ClientEvent::Reply { .. }
                | ClientEvent::Challenge(_)
                | ClientEvent::SendBody { .. }
                | ClientEvent::StartTls => {}
            }
        }
    }

    /// Finds the refusals that ask for TLS, where the connection has none and the server offers it.
    /// Returns `true` if there is one: then the next connection tries TLS again, and this one takes
    /// no other message.
    pub(crate) fn note_lack_of_tls(&mut self, outcomes: &mut [Option<RecipientOutcome>]) -> bool {
        if self.is_tls() || !self.capabilities().offers(Keyword::StartTls) {
            return false;
        }
        let mut lacks_tls = false;
        for outcome in outcomes.iter_mut().flatten() {
            lacks_tls |= outcome.is_for_lack_of_tls();
        }
        self.lacks_tls |= lacks_tls;
        lacks_tls
    }

    /// What a message has to know of the server.
    pub(crate) fn next_hop(&self) -> NextHop<'_> {
        NextHop { capabilities: self.capabilities(), tls_is_verified: self.is_verified() }
    }

    /// LHLO; or EHLO, and HELO for a server that does not know EHLO (RFC 5321 section 3.2).
    async fn hello(&mut self, options: &ClientOptions) -> Result<(), ConnectError> {
        let name = &options.hello;
        if options.protocol == Protocol::Lmtp {
            let reply = self.command(&Command::Lhlo(name.borrowed())).await.map_err(at(Stage::Hello))?;
            return positive(reply, Stage::Hello);
        }
        let reply = self.command(&Command::Ehlo(name.borrowed())).await.map_err(at(Stage::Hello))?;
        if reply.code().severity() != Severity::PermanentNegative {
            return positive(reply, Stage::Hello);
        }
        let reply = self.command(&Command::Helo(name.borrowed())).await.map_err(at(Stage::Hello))?;
        positive(reply, Stage::Hello)
    }

    async fn start_tls(&mut self, server_name: &str, options: &ClientOptions) -> Result<(), ConnectError> {
        let (config, is_demanded) = match &options.tls {
            Tls::Off | Tls::Implicit(_) => return Ok(()),
            Tls::Opportunistic(config) => (config, false),
            Tls::Required(identity) => (identity.config(), true),
        };
        if !self.capabilities().offers(Keyword::StartTls) {
            return if is_demanded { Err(ConnectError::TlsUnavailable) } else { Ok(()) };
        }
        let name = match tls_name(server_name) {
            Ok(name) => name,
            Err(error) if is_demanded => return Err(error),
            // The server has not heard of STARTTLS yet.
            Err(error) => {
                self.tls_failure = Some(failure(&error));
                return Ok(());
            }
        };
        match self.upgrade(Arc::clone(config), name, options).await {
            Err(error) if !is_demanded => Err(ConnectError::OpportunisticTls(Box::new(error))),
            upgraded => upgraded,
        }
    }

    /// From STARTTLS to the answer to EHLO within TLS.
    async fn upgrade(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        options: &ClientOptions,
    ) -> Result<(), ConnectError> {
        let reply = self.command(&Command::StartTls).await.map_err(at(Stage::StartTls))?;
        let goes_on = !reply.code().is_positive() && reply.code() != ReplyCode::SERVICE_NOT_AVAILABLE;
        if goes_on && !options.tls.is_demanded() {
            self.tls_failure = Some(failure(&ConnectError::Refused { stage: Stage::StartTls, reply }));
            return Ok(());
        }
        positive(reply, Stage::StartTls)?;
        match self.driver.next().await.map_err(ConnectError::Tls)? {
            ClientEvent::StartTls => self.driver.connect_tls(config, name).await.map_err(ConnectError::Tls)?,
            ClientEvent::Reply { .. }
            | ClientEvent::Challenge(_)
            | ClientEvent::SendBody { .. }
            | ClientEvent::Closed => return Err(ConnectError::TlsUnavailable),
        }
        self.hello(options).await
    }

    async fn log_in(&mut self, options: &ClientOptions) -> Result<(), ConnectError> {
        let Some(login) = &options.credentials else { return Ok(()) };
        if !options.tls.is_demanded() || !self.is_tls() {
            return Err(ChooseError::Unprotected.into());
        }
        let credentials = &login.credentials().await.map_err(ConnectError::Credentials)?;
        let (mut offered, mut refused) = (self.capabilities().auth(), None);
        // Each turn takes one mechanism out.
        loop {
            let mut random = [0; 18];
            getrandom::fill(&mut random).map_err(|error| at(Stage::Auth)(ClientError::Io(error.into())))?;
            let mut context = self.driver.sasl_context(Nonce::from_random(random));
            context.protection = if self.is_verified { Protection::Verified } else { Protection::Unverified };
            context.minimum = options.weakest_login;
            let mechanism = match (ClientMechanism::choose(offered, credentials.clone(), context), refused) {
                (Ok(mechanism), _) => mechanism,
                (Err(_), Some(refused)) => return Err(refused),
                (Err(error), None) => return Err(error.into()),
            };
            let name = mechanism.mechanism();
            let reply = self.authenticate(mechanism, credentials).await?;
            let lacks_it = lacks_mechanism(name, reply.code());
            match positive(reply, Stage::Auth) {
                Err(error) if lacks_it => {
                    offered.remove(name);
                    refused = Some(error);
                }
                done => return done,
            }
        }
    }

    /// Goes through the exchange of a mechanism. Returns the reply that ends it; if that is
    /// positive, the server has proved all that the mechanism demands.
    async fn authenticate(
        &mut self,
        mut mechanism: ClientMechanism,
        credentials: &ClientCredentials,
    ) -> Result<Reply, ConnectError> {
        let lost = |misuse: ApiMisuse| at(Stage::Auth)(misuse.into());
        if let Some(trace) = self.driver.trace() {
            if let ClientCredentials::Password(who) = credentials {
                trace.hide(Secret::new(who.password.expose().as_str()));
            } else if let ClientCredentials::Token(token) = credentials {
                trace.hide(Secret::new(token.token.expose().as_str()));
            }
        }
        let initial = mechanism.initial_response();
        let initial_response = initial.as_ref().map(|response| Secret::new(response.expose().as_str()));
        self.driver.send(&Command::Auth(Auth { mechanism: mechanism.name(), initial_response })).map_err(lost)?;
        loop {
            match self.driver.next().await.map_err(at(Stage::Auth))? {
                ClientEvent::Reply { reply, .. } => {
                    if reply.code().is_positive() {
                        mechanism.finish()?;
                    }
                    return Ok(reply);
                }
                ClientEvent::Challenge(challenge) => {
                    // The server chooses how long this takes.
                    let work = spawn_blocking(move || (mechanism.respond(challenge.expose()), mechanism));
                    let step;
                    (step, mechanism) = work.await.map_err(|error| at(Stage::Auth)(ClientError::Io(error.into())))?;
                    match step {
                        ClientStep::Respond(text) => {
                            self.driver.respond(Some(Secret::new(text.expose().as_str()))).map_err(lost)?;
                        }
                        ClientStep::GiveUp(fault) => {
                            self.driver.respond(None).map_err(lost)?;
                            // The fault is the error, whatever the reply.
                            let _ = self.reply().await;
                            return Err(fault.into());
                        }
                    }
                }
                ClientEvent::SendBody { .. } | ClientEvent::StartTls | ClientEvent::Closed => {
                    return Err(at(Stage::Auth)(ClientError::Closed));
                }
            }
        }
    }
}

/// Returns `true` if a reply says that the server lacks a mechanism that it has offered, so that
/// another one may do (RFC 4954 section 4). Many servers offer CRAM-MD5 and refuse every login by
/// it, since they do not store passwords in clear.
fn lacks_mechanism(mechanism: Mechanism, code: ReplyCode) -> bool {
    code.get() == 504 || (mechanism == Mechanism::CramMd5 && code.severity() == Severity::PermanentNegative)
}

/// Why TLS failed, in words of bounded length.
pub(crate) fn failure(why: &impl fmt::Display) -> Arc<str> {
    let words = why.to_string();
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(FAILURE).collect::<String>().into()
}

/// The most characters of [`ServerFacts::tls_failure`]. It is remembered for each server.
const FAILURE: usize = 200;

/// Does the handshake of TLS from the first octet.
async fn implicit_tls<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    identity: &Identity,
    server_name: &str,
    options: &ClientOptions,
) -> Result<(), ConnectError> {
    let name = tls_name(server_name)?;
    let handshake = connection.connect_tls(Arc::clone(identity.config()), name);
    let bounded = tokio::time::timeout(options.session.timeouts.greeting, handshake);
    let result =
        bounded.await.map_err(|_| ConnectError::Tls(ClientError::Timeout { awaited: Some(Exchange::Handshake) }))?;
    result.map_err(|error| ConnectError::Tls(error.into()))
}

fn at(stage: Stage) -> impl Fn(ClientError) -> ConnectError {
    move |error| ConnectError::Conversation { stage, error }
}

fn positive(reply: Reply, stage: Stage) -> Result<(), ConnectError> {
    if reply.code().is_positive() { Ok(()) } else { Err(ConnectError::Refused { stage, reply }) }
}

/// What a certificate has to be for: the name or the address of the host.
fn tls_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    server_name(host).ok_or_else(|| ConnectError::TlsName(host.to_owned()))
}

pub(crate) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let literal = Domain::parse(host).ok();
    match literal.as_ref().and_then(Domain::address_literal) {
        Some(AddressLiteral::Ip(address)) => return Some(address.into()),
        Some(_) => return None,
        None => {}
    }
    let as_it_is = ServerName::try_from(host.to_owned()).ok();
    as_it_is.or_else(|| ServerName::try_from(String::from(HostName::parse(host).ok()?)).ok())
}
