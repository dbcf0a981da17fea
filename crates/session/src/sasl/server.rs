//! The server's side of every mechanism.

use alloc::{boxed::Box, string::String, vec::Vec};

use posthaste_wire::Mechanism;

use super::{
    BearerToken, ChannelBinding, Credentials, External, Nonce, SaslError, ScramKey, ScramUser, UnknownUsers,
    base64::decode,
    identity,
    oauth::Form,
    password::{LoginServer, read_plain},
    scram::ScramServer,
};

/// What a server knows about its connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerContext {
    /// The server's part of the nonce. Use a fresh one for each exchange.
    pub nonce: Nonce,
    /// How to answer for users who do not exist.
    pub unknown_users: UnknownUsers,
    /// The channel bindings of the TLS connection, for SCRAM-SHA-256-PLUS. Default: none.
    ///
    /// Give them if and only if that mechanism is offered. A client that says it was not offered is
    /// refused with [`SaslError::TooWeak`], because an attacker has removed it from the list (RFC
    /// 5802 section 6).
    pub channel_bindings: Vec<ChannelBinding>,
    /// The client as known by other means, such as its certificate, for EXTERNAL. Default: unknown,
    /// and EXTERNAL is refused.
    pub external_identity: Option<String>,
}

/// A SASL exchange from the server's side. Call [`new`](Self::new), then [`start`](Self::start),
/// and then what each [`ServerStep`] says, until it is [`Done`](ServerStep::Done) or an error comes
/// with its [`refusal`](SaslError::refusal). The [module](super) has an example.
///
/// Drop it when the client cancels with `*`. No mechanism takes more than three responses.
#[derive(Debug)]
pub struct ServerMechanism {
    context: ServerContext,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    Login(LoginServer),
    External,
    Anonymous,
    Oauth(Form),
    Scram(Box<ScramServer>),
    /// The application was asked to decide.
    Asked(Option<Form>),
    /// The reasons were sent: whatever the client answers, it is refused.
    Refused(SaslError),
    Over,
}

/// The server's next step.
#[derive(Debug)]
#[must_use = "the client waits for it"]
pub enum ServerStep {
    /// Send 334 with this challenge in base64, and give the client's answer to
    /// [`ServerMechanism::respond`]. It has at most 379 octets, which fit a reply line of 512.
    Challenge(Vec<u8>),
    /// PLAIN, LOGIN: is it this user's password, and may the user act as the other one? Answer with
    /// [`ServerMechanism::decide`].
    Password(Credentials),
    /// XOAUTH2, OAUTHBEARER: is the token good, and for which user? Answer with
    /// [`ServerMechanism::decide`].
    Token(BearerToken),
    /// EXTERNAL: may this client log in, and act as the user that it names? Answer with
    /// [`ServerMechanism::decide`].
    External(External),
    /// ANONYMOUS: may anonymous clients log in? The trace is for the log: up to 255 characters,
    /// none of them a line break or another control character. Answer with
    /// [`ServerMechanism::decide`].
    Anonymous(String),
    /// SCRAM: the stored key of this user. Answer with [`ServerMechanism::found`].
    ScramKey(ScramUser),
    /// Send 235. The client is the user named by [`ServerMechanism::decide`]. For SCRAM it is the
    /// user to act as if one was given, otherwise the user of the key.
    Done(String),
}

impl ServerContext {
    /// A context with this nonce, and without channel bindings or an external identity.
    pub const fn new(nonce: Nonce, unknown_users: UnknownUsers) -> Self {
        Self { nonce, unknown_users, channel_bindings: Vec::new(), external_identity: None }
    }
}

impl ServerMechanism {
    /// Begins an exchange.
    ///
    /// # Errors
    /// [`SaslError::UnknownMechanism`] for CRAM-MD5, which is for clients alone, and for
    /// SCRAM-SHA-256-PLUS without a channel binding.
    pub fn new(mechanism: Mechanism, context: ServerContext) -> Result<Self, SaslError> {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::Login(LoginServer::default()),
            Mechanism::External => State::External,
            Mechanism::Anonymous => State::Anonymous,
            Mechanism::XOauth2 => State::Oauth(Form::XOauth2),
            Mechanism::OauthBearer => State::Oauth(Form::OauthBearer),
            Mechanism::ScramSha256 => State::Scram(Box::new(ScramServer::new(false))),
            Mechanism::ScramSha256Plus if !context.channel_bindings.is_empty() => {
                State::Scram(Box::new(ScramServer::new(true)))
            }
            _ => return Err(SaslError::UnknownMechanism),
        };
        Ok(Self { context, state })
    }

    /// Takes the initial response of AUTH in base64, `=` for an empty one. `None`: AUTH had none.
    ///
    /// # Errors
    /// [`SaslError`]; the exchange is over.
    pub fn start(&mut self, initial_response: Option<&str>) -> Result<ServerStep, SaslError> {
        match (initial_response, &self.state) {
            (Some("="), _) => self.respond(b""),
            (Some(text), _) => self.respond(text.as_bytes()),
            (None, State::Login(_)) => Ok(LoginServer::prompt()),
            (None, State::Asked(_) | State::Refused(_) | State::Over) => Err(SaslError::Unavailable),
            (None, _) => Ok(ServerStep::Challenge(Vec::new())),
        }
    }

    /// Takes a response in base64.
    ///
    /// # Errors
    /// [`SaslError`]; the exchange is over.
    pub fn respond(&mut self, response: &[u8]) -> Result<ServerStep, SaslError> {
        let result = self.respond_open(response);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// Answers a question other than [`ServerStep::ScramKey`]: the name of the user, or why the
    /// login is refused.
    ///
    /// # Errors
    /// [`SaslError`], also for the refusal; the exchange is over.
    pub fn decide(&mut self, decision: Result<String, SaslError>) -> Result<ServerStep, SaslError> {
        let State::Asked(form) = core::mem::replace(&mut self.state, State::Over) else {
            return Err(SaslError::Unavailable);
        };
        match (decision, form) {
            (Ok(name), _) => Ok(ServerStep::Done(name)),
            // Reasons are given only for a bad token. A temporary failure is refused at once.
            (Err(SaslError::Credentials), Some(form)) => Ok(self.give_reasons(form)),
            (Err(error), _) => Err(error),
        }
    }

    /// Answers [`ServerStep::ScramKey`]: the key, `None` for an unknown user, or why it cannot be
    /// looked up. Unknown users, and users who may not act as another, are refused only at the end.
    ///
    /// # Errors
    /// [`SaslError`]; the exchange is over.
    pub fn found(&mut self, key: Result<Option<ScramKey>, SaslError>) -> Result<ServerStep, SaslError> {
        let result = match &mut self.state {
            State::Scram(exchange) => key.and_then(|key| exchange.found(key, &self.context)),
            _ => Err(SaslError::Unavailable),
        };
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    fn respond_open(&mut self, response: &[u8]) -> Result<ServerStep, SaslError> {
        let message = match self.state {
            // Out of turn, whatever the response says.
            State::Asked(_) | State::Over => return Err(SaslError::Unavailable),
            State::Refused(error) => return Err(error),
            State::Plain | State::Login(_) | State::External | State::Anonymous | State::Oauth(_) | State::Scram(_) => {
                decode(response)?
            }
        };
        let (step, form) = match &mut self.state {
            State::Scram(exchange) => return exchange.respond(message, &self.context),
            State::Login(exchange) => match exchange.respond(message)? {
                step @ ServerStep::Challenge(_) => return Ok(step),
                step => (step, None),
            },
            State::Plain => (ServerStep::Password(read_plain(message)?), None),
            State::External => {
                let identity = self.context.external_identity.as_deref();
                (ServerStep::External(identity::read_external(message, identity)?), None)
            }
            State::Anonymous => (ServerStep::Anonymous(identity::read_anonymous(message)?), None),
            State::Oauth(form) => {
                let form = *form;
                match form.read(message)? {
                    Some(token) => (ServerStep::Token(token), Some(form)),
                    None => return Ok(self.give_reasons(form)),
                }
            }
            State::Asked(_) | State::Refused(_) | State::Over => return Err(SaslError::Unavailable),
        };
        self.state = State::Asked(form);
        Ok(step)
    }

    fn give_reasons(&mut self, form: Form) -> ServerStep {
        self.state = State::Refused(SaslError::Credentials);
        ServerStep::Challenge(form.refusal().into())
    }
}
