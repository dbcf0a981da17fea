//! The client's side of every mechanism.

use alloc::{string::String, vec::Vec};

use posthaste_wire::{Mechanism, MechanismSet, Secret};

use super::{
    ChooseError, ClientContext, ClientCredentials, ServerFault,
    base64::{MAX_TEXT, decode, encode},
    cram_md5::CramMd5,
    identity, oauth,
    password::{LoginClient, write_plain},
    scram::{Binding, ScramClient},
};

/// A SASL exchange from the client's side, in this order:
///
/// 1. [`choose`](Self::choose) a mechanism from those that the server offers inside TLS.
/// 2. Send AUTH with its [`name`](Self::name) and the [`initial_response`](Self::initial_response),
///    if there is one.
/// 3. Answer each 334 with what [`respond`](Self::respond) returns.
/// 4. At 235 call [`finish`](Self::finish). Only then is the server proved to be the right one, as
///    far as the mechanism can prove it.
///
/// ```
/// use posthaste_session::sasl::{ClientContext, ClientMechanism, ClientStep, Credentials, Protection, Strength};
/// use posthaste_wire::{Mechanism, MechanismSet, Secret};
///
/// let credentials = Credentials {
///     authorization_identity: None,
///     authentication_identity: "user".into(),
///     password: Secret::new("pencil".into()),
/// };
/// // The example of RFC 7677. A program uses `Nonce::from_random` with fresh random octets.
/// let mut context = ClientContext::new("rOprNGfwEbeRWgbNEkqO".parse()?);
/// context.protection = Protection::Verified;
/// context.minimum = Strength::Mutual;
///
/// let offered = MechanismSet::of(&[Mechanism::Plain, Mechanism::ScramSha256]);
/// let mut exchange = ClientMechanism::choose(offered, credentials.into(), context)?;
/// assert_eq!(exchange.name(), "SCRAM-SHA-256");
/// let initial = exchange.initial_response().expect("SCRAM begins with the client");
/// assert_eq!(initial.expose(), "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8="); // n,,n=user,r=rOpr…
///
/// for challenge in [
///     "cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGop\
///      aE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxpPTQwOTY=", // r=rOpr…,s=W22Z…,i=4096
///     "dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ==", // v=6rri…
/// ] {
///     match exchange.respond(challenge.as_bytes()) {
///         ClientStep::Respond(line) => assert!(!line.expose().contains("pencil")), // Send it.
///         ClientStep::GiveUp(fault) => return Err(fault.into()), // Send `*`.
///     }
/// }
/// exchange.finish()?; // 235 came.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ClientMechanism {
    mechanism: Mechanism,
    /// The message for the initial response, in base64, until it is sent.
    first: Option<Secret<String>>,
    rest: Rest,
}

/// What follows the first message.
#[derive(Debug)]
enum Rest {
    /// No message: PLAIN, EXTERNAL, ANONYMOUS, and an exchange that was cancelled.
    Nothing,
    Login(LoginClient),
    CramMd5(CramMd5),
    /// The server's reasons for refusing a token, once they have come.
    Oauth(oauth::Form, Option<Vec<u8>>),
    Scram(ScramClient),
}

/// The client's answer to a challenge.
#[derive(Debug)]
#[must_use = "the server waits for it"]
pub enum ClientStep {
    /// Send this line, which is in base64.
    Respond(Secret<String>),
    /// Send `*`, wait for the refusal (RFC 4954 section 4), and close the connection.
    GiveUp(ServerFault),
}

/// The most octets of an AUTH command with its initial response, CRLF included. A longer response
/// MUST wait for an empty challenge (RFC 4954 section 4), and may then have 12,288.
const MAX_AUTH_COMMAND: usize = 512;

impl ClientMechanism {
    /// Chooses the strongest mechanism of `offered` that the credentials fit and the context
    /// allows. To force a mechanism, pass only that one in `offered`.
    ///
    /// The order for passwords: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN. For
    /// tokens: OAUTHBEARER, XOAUTH2.
    ///
    /// # Errors
    /// [`ChooseError`].
    pub fn choose(
        offered: MechanismSet,
        credentials: ClientCredentials,
        context: ClientContext,
    ) -> Result<Self, ChooseError> {
        let mechanism = context.choose(offered, &credentials)?;
        let (first, rest) = match (credentials, mechanism) {
            (ClientCredentials::Password(who), Mechanism::Plain) => (Some(write_plain(&who)?), Rest::Nothing),
            (ClientCredentials::Password(who), Mechanism::Login) => (None, Rest::Login(LoginClient::new(who)?)),
            (ClientCredentials::Password(who), Mechanism::CramMd5) => (None, Rest::CramMd5(CramMd5::new(who)?)),
            (ClientCredentials::Password(who), _) => {
                let binding = match context.channel_binding {
                    Some(binding) if mechanism == Mechanism::ScramSha256Plus => Binding::Used(binding),
                    Some(_) => Binding::NotOffered,
                    None => Binding::Unsupported,
                };
                let scram = ScramClient::new(&who, context.nonce, binding)?;
                (Some(Secret::new(scram.first())), Rest::Scram(scram))
            }
            (ClientCredentials::Token(token), _) => {
                let form = match mechanism {
                    Mechanism::XOauth2 => oauth::Form::XOauth2,
                    _ => oauth::Form::OauthBearer,
                };
                (Some(form.write(&token)?), Rest::Oauth(form, None))
            }
            (ClientCredentials::External(identity), _) => {
                (Some(Secret::new(identity::write_external(identity)?)), Rest::Nothing)
            }
            (ClientCredentials::Anonymous(trace), _) => {
                (Some(Secret::new(identity::write_anonymous(trace)?)), Rest::Nothing)
            }
        };
        let first = first.map(|text| Secret::new(encode(text.expose())));
        if first.as_ref().is_some_and(|text| text.expose().len() > MAX_TEXT) || !rest.fits() {
            return Err(ChooseError::Credentials);
        }
        Ok(Self { mechanism, first, rest })
    }

    /// The mechanism.
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The mechanism's name, for AUTH.
    pub const fn name(&self) -> &'static str {
        self.mechanism.as_str()
    }

    /// The response to send with AUTH, in base64, `=` for an empty message. It is returned once.
    ///
    /// `None`: the server begins in this mechanism, or the line would be longer than 512 octets.
    /// The server then asks with an empty challenge.
    pub fn initial_response(&mut self) -> Option<Secret<String>> {
        let room = MAX_AUTH_COMMAND - "AUTH  \r\n".len() - self.name().len();
        let text = self.first.take_if(|text| text.expose().len() <= room)?;
        Some(if text.expose().is_empty() { Secret::new("=".into()) } else { text })
    }

    /// Answers a challenge, which is in base64 as it came. For SCRAM it derives a key, which takes
    /// up to a second: see [`MAX_ITERATIONS`](super::MAX_ITERATIONS).
    pub fn respond(&mut self, challenge: &[u8]) -> ClientStep {
        let challenge = match decode(challenge) {
            Ok(challenge) => challenge,
            // LOGIN's prompts mean nothing, and some servers send them without base64.
            Err(_) if matches!(self.rest, Rest::Login(_)) => Vec::new(),
            Err(error) => return self.give_up(error.into()),
        };
        if let Some(first) = self.first.take() {
            return if challenge.is_empty() {
                ClientStep::Respond(first)
            } else {
                self.give_up(ServerFault::Malformed)
            };
        }
        let step = match &mut self.rest {
            Rest::Nothing => ClientStep::GiveUp(ServerFault::UnexpectedChallenge),
            Rest::Login(exchange) => exchange.respond(),
            Rest::CramMd5(exchange) => exchange.respond(&challenge),
            Rest::Oauth(_, Some(_)) => ClientStep::GiveUp(ServerFault::UnexpectedChallenge),
            Rest::Oauth(form, reasons @ None) => {
                *reasons = Some(challenge);
                ClientStep::respond(form.acknowledgement())
            }
            Rest::Scram(exchange) => exchange.respond(challenge),
        };
        match step {
            ClientStep::GiveUp(fault) => self.give_up(fault),
            step => step,
        }
    }

    /// Checks that the server has proved everything that the mechanism demands. Call it when 235
    /// has come.
    ///
    /// # Errors
    /// [`ServerFault::NotProved`]: 235 came without the right signature of a SCRAM server, so the
    /// server does not know the user's key. Close the connection, and send no mail.
    pub const fn finish(&self) -> Result<(), ServerFault> {
        match (&self.rest, self.mechanism) {
            (Rest::Scram(exchange), _) if exchange.is_proved() => Ok(()),
            (_, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => Err(ServerFault::NotProved),
            _ => Ok(()),
        }
    }

    /// The server's reasons for refusing a token, in JSON (RFC 7628 section 3.2.2). `scope` and
    /// `openid-configuration` say what to ask for. The text is the server's; trust it no more than
    /// the server. `None`: the server gave no reasons.
    pub fn token_refusal(&self) -> Option<&[u8]> {
        match &self.rest {
            Rest::Oauth(_, reasons) => reasons.as_deref(),
            Rest::Nothing | Rest::Login(_) | Rest::CramMd5(_) | Rest::Scram(_) => None,
        }
    }

    fn give_up(&mut self, fault: ServerFault) -> ClientStep {
        self.first = None;
        self.rest = Rest::Nothing;
        ClientStep::GiveUp(fault)
    }
}

impl Rest {
    /// Returns `true` if everything that the credentials become fits a line.
    fn fits(&self) -> bool {
        match self {
            Self::Login(exchange) => exchange.longest() <= MAX_RAW,
            Self::CramMd5(exchange) => exchange.response_length() <= MAX_RAW,
            // What follows a first message that fits is shorter or bounded.
            Self::Nothing | Self::Oauth(..) | Self::Scram(_) => true,
        }
    }
}

/// The most octets that fit a line in base64.
const MAX_RAW: usize = MAX_TEXT / 4 * 3;

impl ClientStep {
    pub(super) fn respond(text: impl AsRef<[u8]>) -> Self {
        Self::Respond(Secret::new(encode(text)))
    }
}
