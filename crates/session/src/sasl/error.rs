//! What goes wrong in an exchange, by role.

use posthaste_wire::{Refusal, refusal};
use thiserror::Error;

use super::base64::Undecodable;

/// Why a server refuses a login, with its reply (RFC 4954 sections 4 and 6). The exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SaslError {
    /// The mechanism is unknown, or lacks what it needs: 504 5.5.4.
    #[error("the mechanism is not known")]
    UnknownMechanism,
    /// The response is not base64: 501 5.5.2.
    #[error("the response is not base64")]
    Base64,
    /// The response breaks the mechanism's grammar: 501 5.5.2.
    #[error("the response breaks the grammar of the mechanism")]
    Malformed,
    /// The response is longer than 12,286 octets of base64: 500 5.5.6.
    #[error("the response is longer than 12,286 octets")]
    TooLong,
    /// The credentials are wrong, or may not be used for this: 535 5.7.8.
    #[error("the credentials are wrong")]
    Credentials,
    /// The mechanism is too weak for this user, or an attacker has hidden a stronger one from the
    /// client: 534 5.7.9.
    #[error("the mechanism is too weak")]
    TooWeak,
    /// The user must log in once with PLAIN first: 432 4.7.12.
    #[error("the user must log in once with PLAIN first")]
    Transition,
    /// The credentials cannot be checked now: 454 4.7.0. Also a step in the wrong order, which is
    /// the caller's error.
    #[error("the credentials cannot be checked now")]
    Unavailable,
}

impl SaslError {
    /// The reply to send.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::UnknownMechanism => refusal!("504 5.5.4 Mechanism not known"),
            Self::Base64 | Self::Malformed => refusal!("501 5.5.2 Response cannot be read"),
            Self::TooLong => refusal!("500 5.5.6 Response is too long"),
            Self::Credentials => refusal!("535 5.7.8 Credentials are wrong"),
            Self::TooWeak => refusal!("534 5.7.9 Mechanism is too weak"),
            Self::Transition => refusal!("432 4.7.12 Log in once with PLAIN"),
            Self::Unavailable => refusal!("454 4.7.0 Cannot check that now, try again later"),
        }
    }
}

impl From<Undecodable> for SaslError {
    fn from(error: Undecodable) -> Self {
        match error {
            Undecodable::TooLong => Self::TooLong,
            Undecodable::NoBase64 => Self::Base64,
        }
    }
}

/// What a server did wrong, as its client sees it. Close the connection: the server may be an
/// impostor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServerFault {
    /// A challenge is not base64.
    #[error("the challenge is not base64")]
    Base64,
    /// A challenge is longer than 12,286 octets of base64.
    #[error("the challenge is longer than 12,286 octets")]
    TooLong,
    /// A challenge breaks the mechanism's grammar.
    #[error("the challenge breaks the grammar of the mechanism")]
    Malformed,
    /// A challenge came although the mechanism has none.
    #[error("a challenge came although the mechanism has none")]
    UnexpectedChallenge,
    /// The server's nonce does not begin with the client's, or adds nothing to it (RFC 5802 section
    /// 5.1). It may be a replay.
    #[error("the server's nonce does not extend the client's")]
    Nonce,
    /// The iteration count is below [`MIN_ITERATIONS`](super::MIN_ITERATIONS) or above
    /// [`MAX_ITERATIONS`](super::MAX_ITERATIONS).
    #[error("the iteration count is not within 4,096 to 1,000,000")]
    Iterations,
    /// The server demands an unknown extension (RFC 5802 section 5.1: `m`).
    #[error("the server demands an unknown extension")]
    Extension,
    /// The server's signature is wrong, so it does not know the user's key.
    #[error("the server's signature is wrong")]
    Signature,
    /// The server accepted without proving that it knows the user's key.
    #[error("the server accepted without proving that it knows the user's key")]
    NotProved,
}

impl From<Undecodable> for ServerFault {
    fn from(error: Undecodable) -> Self {
        match error {
            Undecodable::TooLong => Self::TooLong,
            Undecodable::NoBase64 => Self::Base64,
        }
    }
}
