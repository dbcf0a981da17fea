//! An application that knows one user, and both roles against each other.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use posthaste_session::sasl::{
    BearerToken, ChannelBinding, ClientContext, ClientCredentials, ClientMechanism, ClientStep, Credentials, Nonce,
    Protection, SaslError, ScramKey, ServerContext, ServerFault, ServerMechanism, ServerStep, UnknownUsers,
};
use posthaste_wire::{Mechanism, MechanismSet, Secret};
use sha2::{Digest as _, Sha256};

pub(crate) const USER: &str = "user";
pub(crate) const PASSWORD: &str = "pencil";
pub(crate) const TOKEN: &str = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
pub(crate) const SALT: [u8; 16] = *b"sixteen of salt!";
/// The text of [`nonce`] from these octets.
pub(crate) const CLIENT_NONCE: &str = "AQEBAQEBAQEBAQEBAQEBAQEB";
pub(crate) const SERVER_NONCE: &str = "AgICAgICAgICAgICAgICAgIC";

pub(crate) fn password(name: &str, password: &str) -> Credentials {
    Credentials {
        authorization_identity: None,
        authentication_identity: name.into(),
        password: Secret::new(password.into()),
    }
}

pub(crate) fn token(user: Option<&str>) -> BearerToken {
    BearerToken {
        authorization_identity: user.map(Into::into),
        token: Secret::new(TOKEN.into()),
        host: None,
        port: None,
    }
}

/// Credentials that go with a mechanism.
pub(crate) fn credentials(mechanism: Mechanism) -> ClientCredentials {
    match mechanism {
        Mechanism::XOauth2 | Mechanism::OauthBearer => token(Some(USER)).into(),
        Mechanism::External => ClientCredentials::External(None),
        Mechanism::Anonymous => ClientCredentials::Anonymous("trace@example.org".into()),
        _ => password(USER, PASSWORD).into(),
    }
}

pub(crate) fn binding() -> ChannelBinding {
    ChannelBinding::tls_exporter([5; 32])
}

pub(crate) fn unknown_users() -> UnknownUsers {
    UnknownUsers::new(Secret::new([9; 32]), 4_096)
}

/// A client under TLS, with a channel binding if the mechanism needs one.
pub(crate) fn client_context(mechanism: Mechanism) -> ClientContext {
    let mut context = ClientContext::new(Nonce::from_random([1; 18]));
    context.protection = Protection::Verified;
    context.channel_binding = (mechanism == Mechanism::ScramSha256Plus).then(binding);
    context
}

pub(crate) fn server_context(mechanism: Mechanism) -> ServerContext {
    let mut context = ServerContext::new(Nonce::from_random([2; 18]), unknown_users());
    context.channel_bindings.extend((mechanism == Mechanism::ScramSha256Plus).then(binding));
    context.external_identity = Some("CN=user".into());
    context
}

pub(crate) fn client(mechanism: Mechanism) -> ClientMechanism {
    let (credentials, context) = (credentials(mechanism), client_context(mechanism));
    ClientMechanism::choose(MechanismSet::of(&[mechanism]), credentials, context).unwrap()
}

pub(crate) fn server(mechanism: Mechanism) -> ServerMechanism {
    ServerMechanism::new(mechanism, server_context(mechanism)).unwrap()
}

/// An application that knows one user with a password, and one token.
pub(crate) struct Application {
    name: String,
    password: String,
    key: Option<ScramKey>,
}

impl Application {
    pub(crate) fn new(name: &str, password: &str) -> Self {
        Self { name: name.into(), password: password.into(), key: None }
    }

    /// Answers every question, up to the next challenge or the end.
    pub(crate) fn answer(
        &mut self,
        exchange: &mut ServerMechanism,
        mut step: ServerStep,
    ) -> Result<ServerStep, SaslError> {
        loop {
            step = match step {
                step @ (ServerStep::Challenge(_) | ServerStep::Done(_)) => return Ok(step),
                ServerStep::Password(who) => {
                    let is_right = who.authentication_identity == self.name && *who.password.expose() == self.password;
                    let acts_as = who.authorization_identity.unwrap_or(who.authentication_identity);
                    exchange.decide(if is_right { Ok(acts_as) } else { Err(SaslError::Credentials) })?
                }
                ServerStep::Token(token) => {
                    let is_right = token.token.expose() == TOKEN;
                    let who = token.authorization_identity.unwrap_or_else(|| "of the token".into());
                    exchange.decide(if is_right { Ok(who) } else { Err(SaslError::Credentials) })?
                }
                ServerStep::External(who) => exchange.decide(Ok(who.authorization_identity.unwrap_or(who.identity)))?,
                ServerStep::Anonymous(trace) => exchange.decide(Ok(trace))?,
                ServerStep::ScramKey(who) => {
                    let password = &self.password;
                    let derive = || ScramKey::derive(password, &SALT, 4_096).unwrap();
                    let key = self.key.get_or_insert_with(derive).clone();
                    exchange.found(Ok((who.authentication_identity == self.name).then_some(key)))?
                }
            };
        }
    }
}

/// How an exchange failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server refuses.
    Refused(SaslError),
    /// The client gives up.
    GaveUp(ServerFault),
}

impl From<SaslError> for Failure {
    fn from(error: SaslError) -> Self {
        Self::Refused(error)
    }
}

impl From<ServerFault> for Failure {
    fn from(fault: ServerFault) -> Self {
        Self::GaveUp(fault)
    }
}

/// Runs both roles against each other, with an initial response or without. Returns the user.
pub(crate) fn converse(
    client: &mut ClientMechanism,
    server: &mut ServerMechanism,
    application: &mut Application,
    initial: bool,
) -> Result<String, Failure> {
    let first = if initial { client.initial_response() } else { None };
    let mut step = server.start(first.as_ref().map(|text| text.expose().as_str()))?;
    for _ in 0..6 {
        step = match application.answer(server, step)? {
            ServerStep::Challenge(challenge) => {
                assert!(challenge.len() <= 379, "it fits a line");
                match client.respond(encode(challenge).as_bytes()) {
                    ClientStep::Respond(text) => server.respond(text.expose().as_bytes())?,
                    ClientStep::GiveUp(fault) => return Err(fault.into()),
                }
            }
            ServerStep::Done(who) => {
                client.finish()?;
                return Ok(who);
            }
            step => panic!("{step:?}"),
        };
    }
    panic!("they never come to an end");
}

pub(crate) fn encode(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

pub(crate) fn decode(text: &str) -> String {
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// A naive RFC 5802 section 3: the client's proof, and the server's signature.
pub(crate) fn scram(password: &str, salt: &[u8], iterations: u32, auth_message: &str) -> (String, String) {
    let hmac = |key: &[u8], text: &[u8]| -> Vec<u8> {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
    };
    let mut block = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut salted = block.clone();
    for _ in 1..iterations {
        block = hmac(password.as_bytes(), &block);
        salted.iter_mut().zip(&block).for_each(|(sum, octet)| *sum ^= octet);
    }
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
    (encode(proof), encode(hmac(&hmac(&salted, b"Server Key"), auth_message.as_bytes())))
}
