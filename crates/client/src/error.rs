//! Why there is no connection to talk over.

use std::{convert::Infallible, io, net::SocketAddr};

use posthaste_tokio::{
    ClientError, rustls,
    session::{
        ApiMisuse,
        sasl::{ChooseError, ServerFault},
    },
    tls::explain,
    wire::{Reply, Severity},
};
use thiserror::Error;

use crate::EndpointError;

/// Why a connection did not get as far as a first transaction. No mail was named to the server then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server's host and port are not written as they have to be.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system finds no address for the host.
    #[error("no address of {host} is found: {error}; see that the name is right and that DNS works")]
    Resolve {
        /// The host.
        host: String,
        /// What the system said.
        error: io::Error,
    },
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
    /// TLS is required, and no certificate can be for this name of a host, such as one whose last
    /// label is a number.
    #[error("TLS is required, and no certificate can be for the name {0:?}; use a name that it can be for")]
    TlsName(String),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {}", handshake(.0))]
    Tls(#[source] ClientError),
    /// TLS was begun because the server offers it, not because it has to be, and this came of it. What failed lies between
    /// STARTTLS and the answer to EHLO within TLS: see [`suggests_clear`](Self::suggests_clear).
    #[error("TLS was tried and not required: {0}")]
    OpportunisticTls(#[source] Box<Self>),
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
            Self::OpportunisticTls(error) => error.reply(),
            _ => None,
        }
    }

    /// Returns `true` if another connection without TLS may fare better and the options allow it.
    ///
    /// TLS was [`Tls::Opportunistic`](crate::Tls::Opportunistic), and what failed lies between STARTTLS
    /// and the end of the answer to EHLO within TLS: the server broke off, was silent, said 421 or what is no reply, or the
    /// handshake failed. Connect again with [`Tls::Off`](crate::Tls::Off), and remember the host for a while: whatever its
    /// TLS suffers from costs a connection each time, and a timeout where it is silent.
    ///
    /// `false` for any other failure, and always where TLS is demanded. A connection that breaks later is not told
    /// apart here: [`Client::is_tls`](crate::Client::is_tls) of a client that failed at MAIL says that TLS may be the cause.
    pub const fn suggests_clear(&self) -> bool {
        matches!(self, Self::OpportunisticTls(_))
    }

    /// Returns `true` if another attempt would come to the same: the server refused with 5yz, or the
    /// host and port are not well-formed.
    ///
    /// A greeting of 554 is permanent for this host only: others may take the mail.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { reply, .. } => reply.code().severity() == Severity::PermanentNegative,
            Self::Endpoint(_) => true,
            _ => false,
        }
    }

    /// Returns `true` if another attempt may fare better.
    pub fn is_transient(&self) -> bool {
        !self.is_permanent()
    }
}

/// The reason of a handshake that failed, in words of our own: what the peer calls itself stays out of
/// logs and reports.
fn handshake(error: &ClientError) -> String {
    let ClientError::Io(io) = error else { return error.to_string() };
    match io.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(fault) => explain(fault),
        None => error.to_string(),
    }
}

/// An endpoint that needs no parsing.
impl From<Infallible> for ConnectError {
    fn from(never: Infallible) -> Self {
        match never {}
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
