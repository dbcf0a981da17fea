//! The server's side.

use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use posthaste_wire::Secret;
use subtle::ConstantTimeEq as _;

use super::{
    key::ScramKey,
    message::{ClientFinal, ClientFirstBare, Unreadable},
};
use crate::sasl::{
    ChannelBinding, SaslError, ScramUser, ServerContext, ServerStep,
    base64::encode,
    gs2::{Flag, Gs2Header},
    prepare,
};

/// The server's side of an exchange: two messages of the client with the look-up of a key between
/// them, and an empty one.
#[derive(Debug)]
pub(in crate::sasl) struct ScramServer {
    /// SCRAM-SHA-256-PLUS was chosen.
    plus: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    First,
    LookUp(Begun),
    Final(Begun, ScramKey),
    /// The server's signature was sent. The client must get it before the success (RFC 4954 section
    /// 4).
    Acknowledge(String),
    Over,
}

/// What the first message fixed.
#[derive(Debug)]
struct Begun {
    user: ScramUser,
    client_first_bare: String,
    server_first: String,
    client_nonce: String,
    /// The nonce of both sides.
    nonce: String,
    /// The expected `c=`: the GS2 header and the channel binding.
    binding: Secret<Vec<u8>>,
}

impl ScramServer {
    pub(in crate::sasl) const fn new(plus: bool) -> Self {
        Self { plus, stage: Stage::First }
    }

    pub(in crate::sasl) fn respond(
        &mut self,
        response: Vec<u8>,
        context: &ServerContext,
    ) -> Result<ServerStep, SaslError> {
        let text = String::from_utf8(response).map_err(|_| SaslError::Malformed)?;
        match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::First => {
                let begun = self.first(&text, context)?;
                let user = begun.user.clone();
                self.stage = Stage::LookUp(begun);
                Ok(ServerStep::ScramKey(user))
            }
            Stage::Final(begun, key) => {
                let signature = last(&text, &begun, &key)?;
                let ScramUser { authentication_identity, authorization_identity } = begun.user;
                self.stage = Stage::Acknowledge(authorization_identity.unwrap_or(authentication_identity));
                Ok(ServerStep::Challenge(format!("v={}", encode(signature)).into_bytes()))
            }
            Stage::Acknowledge(who) if text.is_empty() => Ok(ServerStep::Done(who)),
            Stage::Acknowledge(_) => Err(SaslError::Malformed),
            Stage::LookUp(_) | Stage::Over => Err(SaslError::Unavailable),
        }
    }

    pub(in crate::sasl) fn found(
        &mut self,
        key: Option<ScramKey>,
        context: &ServerContext,
    ) -> Result<ServerStep, SaslError> {
        let Stage::LookUp(mut begun) = core::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(SaslError::Unavailable);
        };
        let key = key.unwrap_or_else(|| context.unknown_users.key(&begun.user.authentication_identity));
        begun.nonce = format!("{}{}", begun.client_nonce, context.nonce.as_str());
        begun.server_first = format!("r={},s={},i={}", begun.nonce, encode(key.salt()), key.iterations());
        let challenge = begun.server_first.clone().into_bytes();
        self.stage = Stage::Final(begun, key);
        Ok(ServerStep::Challenge(challenge))
    }

    fn first(&self, text: &str, context: &ServerContext) -> Result<Begun, SaslError> {
        let (header, bare) = Gs2Header::parse(text).ok_or(SaslError::Malformed)?;
        let mut binding = header.text.as_bytes().to_vec();
        match (header.flag, self.plus) {
            (Flag::Unsupported, false) => {}
            // The client has a channel binding and would have chosen PLUS: an attacker removed it
            // from the list (RFC 5802 section 6).
            (Flag::NotOffered, false) if !context.channel_bindings.is_empty() => return Err(SaslError::TooWeak),
            (Flag::NotOffered, false) => {}
            (Flag::Used(kind), true) => binding.extend_from_slice(channel_binding(context, kind)?.data.expose()),
            (Flag::Unsupported | Flag::NotOffered, true) | (Flag::Used(_), false) => return Err(SaslError::Malformed),
        }
        let first = ClientFirstBare::parse(bare)?;
        let name = prepare(&first.name).map_err(|_| SaslError::Malformed)?.to_string();
        let authorization_identity = header.authorization_identity.filter(|identity| *identity != name);
        Ok(Begun {
            user: ScramUser { authentication_identity: name, authorization_identity },
            client_first_bare: bare.into(),
            server_first: String::new(),
            client_nonce: first.nonce.into(),
            nonce: String::new(),
            binding: Secret::new(binding),
        })
    }
}

fn channel_binding<'c>(context: &'c ServerContext, kind: &str) -> Result<&'c ChannelBinding, SaslError> {
    context.channel_bindings.iter().find(|binding| binding.kind.as_str() == kind).ok_or(SaslError::Credentials)
}

/// Checks the client's proof, and returns the server's signature.
fn last(text: &str, begun: &Begun, key: &ScramKey) -> Result<[u8; 32], SaslError> {
    let message = ClientFinal::parse(text)?;
    let auth_message = format!("{},{},{}", begun.client_first_bare, begun.server_first, message.without_proof);
    let is_bound =
        message.binding.ct_eq(begun.binding.expose()) & message.nonce.as_bytes().ct_eq(begun.nonce.as_bytes());
    if bool::from(is_bound) & key.proves(&auth_message, &message.proof) {
        Ok(key.server_signature(&auth_message))
    } else {
        Err(SaslError::Credentials)
    }
}

impl From<Unreadable> for SaslError {
    /// An unknown extension is refused like other unreadable messages: RFC 4954 has no reply for
    /// it.
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}
