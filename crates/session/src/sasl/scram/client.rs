//! The client's side.

use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use posthaste_wire::Secret;
use subtle::ConstantTimeEq as _;

use super::{
    MAX_ITERATIONS, MIN_ITERATIONS,
    key::{client_key, hash, hmac, salted_password, server_key, xor},
    message::{Nonce, ServerFinal, ServerFirst, Unreadable},
};
use crate::sasl::{
    ChannelBinding, ChooseError, ClientStep, Credentials, ServerFault,
    base64::encode,
    gs2::{self, Flag},
    prepare,
};

/// What the client knows about channel bindings.
#[derive(Debug)]
pub(in crate::sasl) enum Binding {
    /// The client has none.
    Unsupported,
    /// The client has one, and the server does not offer SCRAM-SHA-256-PLUS.
    NotOffered,
    /// SCRAM-SHA-256-PLUS.
    Used(ChannelBinding),
}

/// The client's side of an exchange: a first message, a proof, and the check of the server's
/// signature.
#[derive(Debug)]
pub(in crate::sasl) struct ScramClient {
    /// The prepared password.
    password: Secret<String>,
    nonce: Nonce,
    /// The GS2 header and the channel binding.
    binding: Secret<Vec<u8>>,
    header: String,
    first_bare: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The first message is to be sent, or was.
    First,
    /// The proof was sent. The server must answer with this signature.
    Final(Secret<[u8; 32]>),
    /// The server has proved that it knows the user's key.
    Proved,
    /// The server refused, or broke the protocol.
    Over,
}

/// The most octets of a GS2 header. It returns in base64 within base64 on a bounded line. No real
/// name comes near it.
const MAX_HEADER: usize = 4_096;

impl ScramClient {
    pub(in crate::sasl) fn new(who: &Credentials, nonce: Nonce, binding: Binding) -> Result<Self, ChooseError> {
        let name = prepare(&who.authentication_identity).map_err(|_| ChooseError::Credentials)?;
        let password = prepare(who.password.expose()).map_err(|_| ChooseError::Credentials)?;
        let flag = match &binding {
            Binding::Unsupported => Flag::Unsupported,
            Binding::NotOffered => Flag::NotOffered,
            Binding::Used(binding) => Flag::Used(binding.kind.as_str()),
        };
        let authzid = who.authorization_identity.as_deref();
        if authzid.is_some_and(|identity| identity.is_empty() || identity.contains('\0')) {
            return Err(ChooseError::Credentials);
        }
        let header = gs2::header(flag, authzid);
        if header.len() > MAX_HEADER {
            return Err(ChooseError::Credentials);
        }
        let mut bound = header.clone().into_bytes();
        if let Binding::Used(binding) = &binding {
            bound.extend_from_slice(binding.data.expose());
        }
        Ok(Self {
            password: Secret::new(password.to_string()),
            binding: Secret::new(bound),
            header,
            first_bare: format!("n={},r={}", gs2::encode_name(&name), nonce.as_str()),
            nonce,
            stage: Stage::First,
        })
    }

    /// The first message, for the initial response.
    pub(in crate::sasl) fn first(&self) -> String {
        format!("{}{}", self.header, self.first_bare)
    }

    pub(in crate::sasl) fn respond(&mut self, challenge: Vec<u8>) -> ClientStep {
        let Ok(text) = String::from_utf8(challenge) else {
            self.stage = Stage::Over;
            return ClientStep::GiveUp(ServerFault::Malformed);
        };
        let response = match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::First => self.second(&text),
            Stage::Final(signature) => self.third(&text, &signature),
            Stage::Proved | Stage::Over => Err(ServerFault::UnexpectedChallenge),
        };
        response.map_or_else(ClientStep::GiveUp, ClientStep::respond)
    }

    pub(in crate::sasl) const fn is_proved(&self) -> bool {
        matches!(self.stage, Stage::Proved)
    }

    /// Answers the salt with a proof.
    fn second(&mut self, text: &str) -> Result<String, ServerFault> {
        let message = ServerFirst::parse(text)?;
        // RFC 5802 section 5.1: the server's part must follow the client's.
        if message.nonce.strip_prefix(self.nonce.as_str()).is_none_or(str::is_empty) {
            return Err(ServerFault::Nonce);
        }
        let range = MIN_ITERATIONS..=MAX_ITERATIONS;
        let iterations = message.iterations.filter(|count| range.contains(count)).ok_or(ServerFault::Iterations)?;
        let salted = salted_password(self.password.expose(), &message.salt, iterations);
        let without_proof = format!("c={},r={}", encode(self.binding.expose()), message.nonce);
        let auth_message = format!("{},{text},{without_proof}", self.first_bare);
        let client_key = client_key(&salted);
        let proof = xor(&client_key, &hmac(&hash(&client_key), auth_message.as_bytes()));
        self.stage = Stage::Final(Secret::new(hmac(&server_key(&salted), auth_message.as_bytes())));
        Ok(format!("{without_proof},p={}", encode(proof)))
    }

    /// Checks the server's signature.
    fn third(&mut self, text: &str, signature: &Secret<[u8; 32]>) -> Result<String, ServerFault> {
        match ServerFinal::parse(text)? {
            ServerFinal::Verifier(verifier) if bool::from(verifier.ct_eq(signature.expose())) => {
                self.stage = Stage::Proved;
            }
            ServerFinal::Verifier(_) => return Err(ServerFault::Signature),
            // Wait for the refusal: it says more than a cancellation would.
            ServerFinal::Error => {}
        }
        Ok(String::new())
    }
}

impl From<Unreadable> for ServerFault {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Malformed => Self::Malformed,
            Unreadable::Extension => Self::Extension,
        }
    }
}
