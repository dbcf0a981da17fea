//! What a client knows about its connection and demands of its mechanism.

use posthaste_wire::{Mechanism, MechanismSet};
use thiserror::Error;

use super::{ChannelBinding, ClientCredentials, Nonce};

/// What a client knows about its connection and demands of its mechanism.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientContext {
    /// The client's part of the nonce. Use a fresh one for each exchange.
    pub nonce: Nonce,
    /// How the connection is protected. Default: in clear.
    pub protection: Protection,
    /// The least protection under which the secret itself may be sent ([`Strength::Secret`]).
    /// Default: [`Protection::Verified`]. With [`Protection::Unverified`] an attacker who takes
    /// over the connection learns it, with [`Protection::None`] every eavesdropper does.
    pub secrets_need: Protection,
    /// The weakest mechanism that may be used for a secret. Default: [`Strength::Secret`], which
    /// allows all.
    ///
    /// Set it to [`Strength::Mutual`] for a server that is known to have SCRAM. If an attacker
    /// removes SCRAM from the list, the result is an error and not PLAIN.
    pub minimum: Strength,
    /// The channel binding of the TLS connection, for SCRAM-SHA-256-PLUS: use `tls-exporter` under
    /// TLS 1.3 if the server may know it, otherwise `tls-server-end-point`. Default: none.
    ///
    /// With it, a server that has SCRAM-SHA-256-PLUS detects that an attacker removed it from the
    /// list. So do not remove that mechanism yourself.
    pub channel_binding: Option<ChannelBinding>,
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protection {
    /// In clear.
    #[default]
    None,
    /// TLS with an unverified certificate: protected from eavesdroppers only.
    Unverified,
    /// TLS with a verified certificate, or an equivalent such as a local socket.
    Verified,
}

/// How a mechanism treats the secret, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Strength {
    /// The server learns it: PLAIN, LOGIN, XOAUTH2, OAUTHBEARER.
    #[default]
    Secret,
    /// The server gets a keyed hash. An eavesdropper can test passwords against it: CRAM-MD5.
    Hashed,
    /// The server gets a proof, and proves that it knows the user's key: SCRAM-SHA-256. An
    /// eavesdropper can test passwords, slowly.
    Mutual,
    /// The proofs hold on this TLS connection only, which excludes a man in the middle:
    /// SCRAM-SHA-256-PLUS.
    Bound,
}

impl Strength {
    /// The strength of a mechanism. `None`: it shows no secret.
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

/// Why a client has no mechanism to log in with. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// The server offers no mechanism for these credentials.
    #[error("the server offers no SASL mechanism for these credentials")]
    NoMechanism,
    /// The server's mechanisms are weaker than [`ClientContext::minimum`]. An attacker may have
    /// shortened the list.
    #[error("the server offers only SASL mechanisms that are too weak")]
    TooWeak,
    /// The secret would be sent under less protection than [`ClientContext::secrets_need`].
    #[error("the secret would be sent without enough protection; log in over TLS with a verified certificate")]
    Unprotected,
    /// The mechanism cannot carry the credentials. A part is empty, too long or has a forbidden
    /// character, SASLprep refuses it (SCRAM), or the mechanism has no authorization identity
    /// (LOGIN, CRAM-MD5). To use another mechanism, remove this one from those offered.
    #[error("the mechanism cannot carry these credentials")]
    Credentials,
}

impl ClientContext {
    /// A context with this nonce, the defaults and no protection.
    pub const fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            protection: Protection::None,
            secrets_need: Protection::Verified,
            minimum: Strength::Secret,
            channel_binding: None,
        }
    }

    /// Chooses the strongest mechanism that is possible.
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

/// The mechanisms for these credentials, the best first.
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
