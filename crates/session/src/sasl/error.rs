//! What goes wrong in an exchange, by role.

use posthaste_wire::{Refusal, refusal};
use thiserror::Error;

use super::base64::Undecodable;

/// Why a server refuses, with the reply for it (RFC 4954 sections 4 and 6). The exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SaslError {
    /// There is no such mechanism here, or not what it needs: 504 5.5.4.
    #[error("the mechanism is not known here")]
    UnknownMechanism,
    /// The response is no base64: 501 5.5.2.
    #[error("the response is no base64")]
    Base64,
    /// The response is not what the mechanism says: 501 5.5.2.
    #[error("the response is not what the mechanism asks for")]
    Malformed,
    /// The response is longer than 12,286 octets of base64: 500 5.5.6.
    #[error("the response is too long")]
    TooLong,
    /// The credentials are wrong, or may not do what they are used for: 535 5.7.8.
    #[error("the credentials are wrong")]
    Credentials,
    /// The mechanism is too weak for this user, or somebody has hidden a stronger one from the client: 534 5.7.9.
    #[error("the mechanism is too weak")]
    TooWeak,
    /// The user has to log in once with PLAIN first: 432 4.7.12.
    #[error("a password transition is needed")]
    Transition,
    /// It cannot be checked now: 454 4.7.0. Also for a step out of turn, which is the caller's mistake.
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

/// What a server did wrong, as its client sees it. Do not go on with the connection: it may be somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServerFault {
    /// A challenge is no base64.
    #[error("the challenge is no base64")]
    Base64,
    /// A challenge is longer than 12,286 octets of base64.
    #[error("the challenge is too long")]
    TooLong,
    /// A challenge is not what the mechanism says.
    #[error("the challenge is not what the mechanism says")]
    Malformed,
    /// A challenge came where the mechanism has none.
    #[error("there was nothing to ask for any more")]
    UnexpectedChallenge,
    /// The server's nonce does not begin with ours, or adds nothing to it (RFC 5802 section 5.1): perhaps a replay.
    #[error("the server's nonce is not made from ours")]
    Nonce,
    /// The iteration count is below [`MIN_ITERATIONS`](super::MIN_ITERATIONS) or above
    /// [`MAX_ITERATIONS`](super::MAX_ITERATIONS).
    #[error("the iteration count is out of bounds")]
    Iterations,
    /// The server asks for an extension that nobody has defined (RFC 5802 section 5.1: `m`).
    #[error("the server demands an unknown extension")]
    Extension,
    /// The server's signature is wrong: it does not know the user's key.
    #[error("the server's signature is wrong")]
    Signature,
    /// The server said yes without having shown that it knows the user's key.
    #[error("the server has not proved itself")]
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
