//! A connection that is ready for transactions.

use std::sync::Arc;

use posthaste_tokio::{
    ClientDriver, ClientError, ClientEvent, Connection,
    rustls::{ClientConfig, pki_types::ServerName},
    session::{
        ClientSettings,
        client::{downgrade::NextHop, recipients_at_once},
        sasl::{ChooseError, ClientCredentials, ClientMechanism, ClientStep, Nonce, Protection, Strength},
    },
    wire::{
        Auth, Capabilities, Command, Domain, EhloName, Rcpt, Reply, ReplyCode, Secret, Severity,
        address::AddressLiteral, capability::Keyword,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
};

use crate::{
    HostName,
    error::{ConnectError, Stage, TlsFault},
    tls::{Tls, TlsPolicy},
};

/// How to talk to a server.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Our name in EHLO or LHLO.
    pub hello: EhloName,
    /// Limits and timeouts of the session.
    pub session: ClientSettings,
    /// What the server speaks.
    pub protocol: Protocol,
    /// How much TLS there has to be.
    pub tls: Tls,
    /// Whether a handshake by [`tls`](Self::tls) proves that the server is the one that the mail is for: its certificate is
    /// verified for its name, and the name came from the recipients' domain in a way that nobody could change, such as
    /// DNSSEC, MTA-STS or the configuration. Mail with REQUIRETLS goes nowhere else (RFC 8689 section 4.2.1). Default: no.
    pub tls_verifies: bool,
    /// Who to log in as. They are sent only where the policy [demands TLS](TlsPolicy::demands_tls): one that does without
    /// shows them to whoever takes it away. Otherwise [`ConnectError::AuthUnavailable`].
    ///
    /// With SCRAM a key is derived on a thread that may block: some milliseconds with the 4,096 iterations that are usual, a
    /// second with the most that a server may ask for
    /// ([`MAX_ITERATIONS`](posthaste_tokio::session::sasl::MAX_ITERATIONS)); asked for more, the client gives up. Under TLS 1.3
    /// it is SCRAM-SHA-256-PLUS wherever the server offers that, which nobody in between can pass on.
    pub credentials: Option<ClientCredentials>,
    /// The weakest SASL mechanism that is good enough. Default: any. Pin it to [`Strength::Mutual`] for a server that is
    /// known to have SCRAM: it can then not be talked out of it.
    pub weakest_login: Strength,
}

impl ClientOptions {
    /// The defaults, under this name: no TLS, no login, the timeouts of RFC 5321.
    pub fn new(hello: EhloName) -> Self {
        Self {
            hello,
            session: ClientSettings::default(),
            protocol: Protocol::Smtp,
            tls: Tls::default(),
            tls_verifies: false,
            credentials: None,
            weakest_login: Strength::Secret,
        }
    }
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// SMTP (RFC 5321): one answer for a whole message.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): an answer for each recipient of a message. Not on port 25.
    Lmtp,
}

/// A connection on which transactions can be made, one after another.
#[derive(Debug)]
pub struct Client<S> {
    pub(crate) driver: ClientDriver<S>,
    tls_verifies: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Takes a stream through greeting, EHLO, TLS and AUTH, as the options ask for. `server_name` is what the
    /// certificate is checked against.
    ///
    /// # Errors
    /// [`ConnectError`]; where [`ConnectError::suggests_clear`], connect again without TLS.
    pub async fn start(stream: S, server_name: &str, options: &ClientOptions) -> Result<Self, ConnectError> {
        let mut connection = Connection::new(stream);
        if options.tls.policy == TlsPolicy::Implicit {
            let (config, name) = tls_parts(&options.tls, server_name).map_err(ConnectError::TlsNotStarted)?;
            let handshake = connection.connect_tls(config, name);
            let bounded = tokio::time::timeout(options.session.timeouts.greeting, handshake);
            let result = bounded.await.map_err(|_| ConnectError::Tls(ClientError::Timeout))?;
            result.map_err(|error| ConnectError::Tls(error.into()))?;
        }
        let driver = ClientDriver::new(connection, options.session.clone());
        let mut client = Self { driver, tls_verifies: options.tls_verifies };
        let greeting = client.reply().await?;
        positive(greeting, Stage::Greeting)?;
        client.hello(options).await?;
        client.start_tls(server_name, options).await?;
        client.log_in(options).await?;
        Ok(client)
    }

    /// What the server offers.
    pub fn capabilities(&self) -> &Capabilities {
        self.driver.capabilities()
    }

    /// Whether TLS is up.
    pub fn is_tls(&self) -> bool {
        self.driver.is_tls()
    }

    /// How many of these recipients, from the front, [`transact`](Self::transact) names to the server in one transaction:
    /// all of them, unless the server has set limits (RFC 9422).
    pub fn recipients_at_once(&self, recipients: &[Rcpt<&str>]) -> usize {
        recipients_at_once(self.capabilities(), recipients)
    }

    /// How many more transactions the server takes on this connection, when it has set a limit (MAILMAX of RFC 9422). At
    /// 0, [`quit`](Self::quit) and connect again.
    pub fn transactions_left(&self) -> Option<u32> {
        self.driver.session().transactions_left()
    }

    /// Says good-bye, and closes TLS as it should be.
    pub async fn quit(mut self) {
        if self.driver.send(&Command::Quit).is_ok() {
            // Whatever comes of it, the connection is done with.
            let _ = self.driver.next().await;
            self.driver.close().await;
        }
    }

    /// The next reply, whatever it answers.
    pub(crate) async fn reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            match self.driver.next().await? {
                ClientEvent::Reply { reply, .. } => return Ok(reply),
                ClientEvent::Closed => return Err(ClientError::Closed),
                _ => {}
            }
        }
    }

    /// Sends a command and waits for its reply, past those that are still to come.
    pub(crate) async fn command(&mut self, command: &Command<'_>) -> Result<Reply, ClientError> {
        let ticket = self.driver.send(command)?;
        loop {
            match self.driver.next().await? {
                ClientEvent::Reply { to, reply, .. } if to == ticket => return Ok(reply),
                ClientEvent::Closed => return Err(ClientError::Closed),
                _ => {}
            }
        }
    }

    /// The server as a message finds it.
    pub(crate) fn next_hop(&self) -> NextHop<'_> {
        NextHop { capabilities: self.capabilities(), tls_is_verified: self.is_tls() && self.tls_verifies }
    }

    /// LHLO; or EHLO, and HELO for a server that does not know it (RFC 5321 section 3.2).
    async fn hello(&mut self, options: &ClientOptions) -> Result<(), ConnectError> {
        let name = &options.hello;
        if options.protocol == Protocol::Lmtp {
            let reply = self.command(&Command::Lhlo(name.borrowed())).await?;
            return positive(reply, Stage::Hello);
        }
        let reply = self.command(&Command::Ehlo(name.borrowed())).await?;
        if reply.code().severity() != Severity::PermanentNegative {
            return positive(reply, Stage::Hello);
        }
        let reply = self.command(&Command::Helo(name.borrowed())).await?;
        positive(reply, Stage::Hello)
    }

    async fn start_tls(&mut self, server_name: &str, options: &ClientOptions) -> Result<(), ConnectError> {
        let demanded = match options.tls.policy {
            TlsPolicy::Off | TlsPolicy::Implicit => return Ok(()),
            TlsPolicy::Opportunistic => false,
            TlsPolicy::Required | TlsPolicy::Verified => true,
        };
        if !self.capabilities().offers(Keyword::StartTls) {
            return if demanded { Err(ConnectError::TlsUnavailable) } else { Ok(()) };
        }
        let (config, name) = match tls_parts(&options.tls, server_name) {
            Ok(parts) => parts,
            Err(fault) if demanded => return Err(ConnectError::TlsNotStarted(fault)),
            // The server knows nothing of it yet.
            Err(_) => return Ok(()),
        };
        match self.upgrade(config, name, options).await {
            Err(error) if !demanded => Err(ConnectError::OpportunisticTls(Box::new(error))),
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
        let reply = self.command(&Command::StartTls).await?;
        let goes_on = !reply.code().is_positive() && reply.code() != ReplyCode::SERVICE_NOT_AVAILABLE;
        if goes_on && !options.tls.policy.demands_tls() {
            return Ok(());
        }
        positive(reply, Stage::StartTls)?;
        match self.driver.next().await.map_err(ConnectError::Tls)? {
            ClientEvent::StartTls => self.driver.connect_tls(config, name).await.map_err(ConnectError::Tls)?,
            _ => return Err(ConnectError::TlsUnavailable),
        }
        self.hello(options).await
    }

    async fn log_in(&mut self, options: &ClientOptions) -> Result<(), ConnectError> {
        let Some(credentials) = &options.credentials else { return Ok(()) };
        if !options.tls.policy.demands_tls() || !self.is_tls() {
            return Err(ChooseError::Unprotected.into());
        }
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(|error| ClientError::Io(error.into()))?;
        let mut context = self.driver.sasl_context(Nonce::from_random(random));
        context.protection = Protection::Verified;
        context.minimum = options.weakest_login;
        let mut mechanism = ClientMechanism::choose(self.capabilities().auth(), credentials.clone(), context)?;
        let initial = mechanism.initial_response();
        let initial_response = initial.as_ref().map(|response| Secret::new(response.expose().as_str()));
        self.driver.send(&Command::Auth(Auth { mechanism: mechanism.name(), initial_response }))?;
        loop {
            match self.driver.next().await? {
                ClientEvent::Reply { reply, .. } => {
                    positive(reply, Stage::Auth)?;
                    return Ok(mechanism.finish()?);
                }
                ClientEvent::Challenge(challenge) => {
                    // The server says how much work it is.
                    let work = spawn_blocking(move || (mechanism.respond(challenge.expose()), mechanism));
                    let step;
                    (step, mechanism) = work.await.map_err(|error| ClientError::Io(error.into()))?;
                    match step {
                        ClientStep::Respond(text) => {
                            self.driver.respond(Some(Secret::new(text.expose().as_str())))?;
                        }
                        ClientStep::GiveUp(fault) => {
                            self.driver.respond(None)?;
                            // Whatever the server says to that, the fault is what there is to tell.
                            let _ = self.reply().await;
                            return Err(fault.into());
                        }
                    }
                }
                _ => return Err(ConnectError::Conversation(ClientError::Closed)),
            }
        }
    }
}

fn positive(reply: Reply, stage: Stage) -> Result<(), ConnectError> {
    if reply.code().is_positive() { Ok(()) } else { Err(ConnectError::Refused { stage, reply }) }
}

type TlsParts = (Arc<ClientConfig>, ServerName<'static>);

fn tls_parts(tls: &Tls, host: &str) -> Result<TlsParts, TlsFault> {
    let config = tls.config.clone().ok_or(TlsFault::NoConfiguration)?;
    let name = server_name(host).ok_or_else(|| TlsFault::Name(host.to_owned()))?;
    Ok((config, name))
}

/// The name that a certificate is checked against: the host's in A-labels, or an address.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let literal = Domain::parse(host).ok();
    match literal.as_ref().and_then(Domain::address_literal) {
        Some(AddressLiteral::Ip(address)) => return Some(address.into()),
        Some(_) => return None,
        None => {}
    }
    let as_it_is = ServerName::try_from(host.to_owned()).ok();
    as_it_is.or_else(|| ServerName::try_from(String::from(HostName::parse(host).ok()?)).ok())
}
