//! What a client knows about its connection and demands of its mechanism.

use posthaste_wire::{Mechanism, MechanismSet};
use thiserror::Error;

use super::{ChannelBinding, ClientCredentials, Nonce};

/// What a client knows about its connection and demands of its mechanism.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientContext {
    /// Our part of a nonce; a fresh one for each exchange.
    pub nonce: Nonce,
    /// How the connection is protected. Default: not at all.
    pub protection: Protection,
    /// The least protection under which the secret itself may leave ([`Strength::Secret`]). Default
    /// [`Protection::Verified`]. With [`Protection::Unverified`] whoever takes the connection over gets it, with
    /// [`Protection::None`] whoever listens.
    pub secrets_need: Protection,
    /// The weakest mechanism that is good enough for a secret. Default [`Strength::Secret`], which is any. Pin it to
    /// [`Strength::Mutual`] for a server that is known to have SCRAM: a list from which SCRAM was taken out then ends in an
    /// error and not in PLAIN.
    pub minimum: Strength,
    /// The channel binding of the TLS connection, for SCRAM-SHA-256-PLUS: `tls-exporter` under TLS 1.3 and wherever the
    /// server may know it, `tls-server-end-point` otherwise. Default: none.
    ///
    /// With it a server that does have SCRAM-SHA-256-PLUS finds out when that was taken out of the list; so do not take it
    /// out yourself.
    pub channel_binding: Option<ChannelBinding>,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protection {
    /// In clear.
    #[default]
    None,
    /// By TLS with a certificate that was not verified: against listeners.
    Unverified,
    /// By TLS with a certificate that was verified, or by something as good, such as a local socket.
    Verified,
}

/// What a mechanism does with the secret, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Strength {
    /// The server gets it: PLAIN, LOGIN, XOAUTH2, OAUTHBEARER.
    #[default]
    Secret,
    /// The server gets a keyed hash, by which whoever reads it can try passwords out: CRAM-MD5.
    Hashed,
    /// The server gets a proof, and shows that it knows the user's key too: SCRAM-SHA-256. Reading the exchange still lets
    /// passwords be tried out, slowly.
    Mutual,
    /// The proofs hold on this TLS connection only, so that nobody sits in between: SCRAM-SHA-256-PLUS.
    Bound,
}

impl Strength {
    /// The strength of a mechanism; nothing for one that shows no secret.
    pub const fn of(mechanism: Mechanism) -> Option<Self> {
        Some(match mechanism {
            Mechanism::Plain | Mechanism::Login | Mechanism::XOauth2 | Mechanism::OauthBearer => Self::Secret,
            Mechanism::CramMd5 => Self::Hashed,
            Mechanism::ScramSha256 => Self::Mutual,
            Mechanism::ScramSha256Plus => Self::Bound,
            _ => return None,
        })
    }
}

/// Why a client has no mechanism to log in with. Nothing has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// The server offers none that these credentials could be used with.
    #[error("the server offers no SASL mechanism for these credentials")]
    NoMechanism,
    /// What the server offers is weaker than [`ClientContext::minimum`]: somebody may have shortened the list.
    #[error("the server offers only SASL mechanisms that are too weak")]
    TooWeak,
    /// The secret would leave under less protection than [`ClientContext::secrets_need`].
    #[error("the secret would leave without enough protection")]
    Unprotected,
    /// The mechanism cannot carry the credentials: something is empty, too long or has a character that has no place in it,
    /// SASLprep does not take it (SCRAM), or there is no way to say whom to act as (LOGIN, CRAM-MD5). To use another
    /// mechanism, take this one out of those offered.
    #[error("the mechanism cannot carry these credentials")]
    Credentials,
}

impl ClientContext {
    /// With this nonce, the defaults and no protection.
    pub const fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            protection: Protection::None,
            secrets_need: Protection::Verified,
            minimum: Strength::Secret,
            channel_binding: None,
        }
    }

    /// The strongest mechanism that will do.
    pub(super) fn choose(
        &self,
        offered: MechanismSet,
        credentials: &ClientCredentials,
    ) -> Result<Mechanism, ChooseError> {
        let mut refusal = ChooseError::NoMechanism;
        for mechanism in candidates(credentials).iter().copied().filter(|mechanism| offered.contains(*mechanism)) {
            if mechanism == Mechanism::ScramSha256Plus && self.channel_binding.is_none() {
                continue;
            }
            match Strength::of(mechanism) {
                Some(strength) if strength < self.minimum => refusal = ChooseError::TooWeak,
                Some(Strength::Secret) if self.protection < self.secrets_need => refusal = ChooseError::Unprotected,
                _ => return Ok(mechanism),
            }
        }
        Err(refusal)
    }
}

/// The mechanisms for some credentials, the best first.
const fn candidates(credentials: &ClientCredentials) -> &'static [Mechanism] {
    match credentials {
        ClientCredentials::Password(_) => &[
            Mechanism::ScramSha256Plus,
            Mechanism::ScramSha256,
            Mechanism::CramMd5,
            Mechanism::Plain,
            Mechanism::Login,
        ],
        ClientCredentials::Token(token) if token.authorization_identity.is_none() => &[Mechanism::OauthBearer],
        ClientCredentials::Token(_) => &[Mechanism::OauthBearer, Mechanism::XOauth2],
        ClientCredentials::External(_) => &[Mechanism::External],
        ClientCredentials::Anonymous(_) => &[Mechanism::Anonymous],
    }
}
