//! Why there is no connection to talk over.

use std::{io, net::SocketAddr};

use posthaste_io::{
    ClientError,
    session::{
        ApiMisuse,
        sasl::{ChooseError, ServerFault},
    },
    wire::{Reply, Severity},
};
use thiserror::Error;

/// Why a connection did not get as far as a first transaction. No mail was named to the server then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There was no address to connect to.
    #[error("no address to connect to")]
    NoAddress,
    /// TCP did not connect.
    #[error("no connection to {address}: {error}")]
    Tcp {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The server refused.
    #[error("the server refused {stage}: {reply}")]
    Refused {
        /// What it refused.
        stage: Stage,
        /// In which words.
        reply: Reply,
    },
    /// TLS is required and the server does not offer it.
    #[error("the server does not offer STARTTLS, which is required")]
    TlsUnavailable,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] ClientError),
    /// There are credentials, and no mechanism to use them with, or a policy that does not demand TLS.
    #[error("there is no way to log in: {0}")]
    AuthUnavailable(#[from] ChooseError),
    /// The server broke off or faked a SASL exchange: it may not be the server that knows these credentials.
    #[error("the login cannot be trusted: {0}")]
    Sasl(#[from] ServerFault),
    /// The conversation broke off.
    #[error(transparent)]
    Conversation(#[from] ClientError),
}

/// A step on the way to the first transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The greeting.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
}

impl ConnectError {
    /// What the server said, when it refused.
    pub const fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. } => Some(reply),
            _ => None,
        }
    }

    /// Whether another attempt may fare better. A greeting of 554 is permanent for this host only: others may take the mail.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused { reply, .. } if reply.code().severity() == Severity::PermanentNegative)
    }
}

impl From<ApiMisuse> for ConnectError {
    fn from(error: ApiMisuse) -> Self {
        Self::Conversation(error.into())
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Greeting => "to talk to us",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
        })
    }
}
