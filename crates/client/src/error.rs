//! Why a connection could not be used.

use std::{convert::Infallible, io, time::Duration};

use posthaste_tokio::{
    ClientError, rustls,
    session::{
        client::ClientEof,
        sasl::{ChooseError, ServerFault},
    },
    tls::explain,
    wire::{Reply, Severity},
};
use thiserror::Error;

use crate::{EndpointError, Server};

/// Why a connection did not get as far as a first transaction. No mail was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is no host and port.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system finds no address for the host.
    #[error(
        "no address of {} is found: {error}; see that the name is right and that DNS works",
        host.escape_debug()
    )]
    Resolve {
        /// The host.
        host: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The list of addresses is empty.
    #[error("no address to connect to; see that the host has one")]
    NoAddress,
    /// There is no stream: TCP, a proxy or a Unix socket did not connect.
    #[error("no connection to {server}: {error}")]
    Tcp {
        /// The last server that was tried.
        server: Server,
        /// The reason: the system's, or the dialer's.
        error: io::Error,
    },
    /// The server refused a command with 4yz or 5yz, or greeted with it.
    #[error("the server refused {stage}: {reply}")]
    Refused {
        /// What it refused.
        stage: Stage,
        /// The server's reply.
        reply: Reply,
    },
    /// TLS is required, and the server does not offer STARTTLS.
    #[error("the server does not offer STARTTLS, which is required")]
    TlsUnavailable,
    /// TLS is required, and no certificate can be for this host name, such as one whose last label
    /// is a number.
    #[error("TLS is required, and no certificate can be for the name {0:?}; use the server's host name")]
    TlsName(String),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {}", handshake(.0))]
    Tls(#[source] ClientError),
    /// Opportunistic TLS failed between STARTTLS and the reply to EHLO within TLS; see
    /// [`suggests_clear`](Self::suggests_clear).
    #[error("TLS was tried and not required: {0}")]
    OpportunisticTls(#[source] Box<Self>),
    /// The credentials were not sent: the server offers no mechanism that may be used, or the
    /// options do not demand TLS.
    #[error("there is no way to log in: {0}")]
    AuthUnavailable(#[from] ChooseError),
    /// The server broke the rules of a SASL exchange. It may be an impostor.
    #[error("the login cannot be trusted: {0}")]
    Sasl(#[from] ServerFault),
    /// The function of [`Login::asked`](crate::Login::asked) gave no credentials.
    #[error("there are no credentials to log in with: {0}")]
    Credentials(crate::LoginError),
    /// The server was not ready in time, while other servers waited to be tried.
    #[error("{server} was not ready after {} s; another server was tried", waited.as_secs())]
    TooSlow {
        /// The server.
        server: Server,
        /// How long it was waited for.
        waited: Duration,
        /// How far it was.
        stage: Stage,
    },
    /// A function of `blocking` was called in a task of an async runtime. In `spawn_blocking` and
    /// `block_in_place` it works.
    #[error(
        "this thread belongs to an async runtime, which would stand still; use the async client, or spawn_blocking"
    )]
    Async,
    /// The system has no thread or descriptor for a runtime.
    #[error("no runtime for the blocking client: {0}")]
    Runtime(#[source] io::Error),
    /// The conversation broke off.
    #[error("{error}{}", hint(*stage, error))]
    Conversation {
        /// What was waited for.
        stage: Stage,
        /// Why it broke off.
        #[source]
        error: ClientError,
    },
}

/// A step on the way to the first transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The connection.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL, RCPT, DATA, or the message.
    Transaction,
}

impl ConnectError {
    /// The server's reply. `None`: the reason is not a refusal.
    pub const fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. } => Some(reply),
            Self::OpportunisticTls(error) => error.reply(),
            _ => None,
        }
    }

    /// Returns `true` if another connection without TLS may succeed and the options allow it.
    ///
    /// TLS was [`Tls::Opportunistic`](crate::Tls::Opportunistic), and the failure came between
    /// STARTTLS and the end of the reply to EHLO within TLS. The handshake failed, or the server
    /// closed, was silent, refused EHLO, or sent a 421 or octets that are no reply. Connect again
    /// with [`Tls::Off`](crate::Tls::Off), and remember the host for a while: broken TLS costs a
    /// connection each time, and a timeout where the server is silent.
    ///
    /// `false` for any other failure, and always where TLS is demanded. A connection that breaks
    /// later is no error of this type: [`Client::is_tls`](crate::Client::is_tls) of a client that
    /// failed at MAIL says that TLS may be the cause.
    pub const fn suggests_clear(&self) -> bool {
        matches!(self, Self::OpportunisticTls(_))
    }

    /// Returns `true` if another attempt would fail as well: the server refused with 5yz, or what
    /// the caller gave must change. That is a malformed host and port, an empty list of addresses,
    /// a host name that no certificate can be for, or a server that the [`Dial`](crate::Dial)
    /// cannot reach.
    ///
    /// A greeting of 554 is permanent for this host only: others may take the mail.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { reply, .. } => reply.code().severity() == Severity::PermanentNegative,
            Self::Endpoint(_) | Self::NoAddress | Self::TlsName(_) | Self::Async => true,
            // The options must change.
            Self::AuthUnavailable(ChooseError::Unprotected) => true,
            Self::Tcp { error, .. } => error.kind() == io::ErrorKind::InvalidInput && error.get_ref().is_some(),
            _ => false,
        }
    }

    /// How far the connection was.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Endpoint(_)
            | Self::Resolve { .. }
            | Self::NoAddress
            | Self::Tcp { .. }
            | Self::Async
            | Self::Runtime(_) => Stage::Connect,
            Self::Refused { stage, .. } | Self::Conversation { stage, .. } | Self::TooSlow { stage, .. } => *stage,
            Self::TlsUnavailable | Self::TlsName(_) | Self::Tls(_) => Stage::StartTls,
            Self::OpportunisticTls(error) => error.stage(),
            Self::AuthUnavailable(_) | Self::Sasl(_) | Self::Credentials(_) => Stage::Auth,
        }
    }

    /// Returns `true` if the server failed, and not what the options demand of it.
    pub(crate) fn is_servers(&self) -> bool {
        match self {
            Self::Tcp { error, .. } => {
                let is_dialers = matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::InvalidInput);
                !is_dialers || error.get_ref().is_none()
            }
            Self::Refused { stage, .. } => *stage != Stage::Auth,
            Self::Conversation { error, .. } => !matches!(error, ClientError::Misuse(_) | ClientError::Content(_)),
            Self::TooSlow { .. } | Self::Tls(_) | Self::TlsUnavailable => true,
            Self::OpportunisticTls(error) => error.is_servers(),
            Self::Endpoint(_)
            | Self::Resolve { .. }
            | Self::NoAddress
            | Self::Async
            | Self::Runtime(_)
            | Self::TlsName(_)
            | Self::AuthUnavailable(_)
            | Self::Credentials(_)
            | Self::Sasl(_) => false,
        }
    }

    /// Returns `true` if the login failed, and would fail at another address as well.
    pub(crate) fn is_refused_login(&self) -> bool {
        match self {
            Self::Refused { stage: Stage::Auth, .. } => self.is_permanent(),
            Self::Sasl(_) | Self::Credentials(_) | Self::AuthUnavailable(ChooseError::Unprotected) => true,
            _ => false,
        }
    }

    /// Returns `true` if another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        !self.is_permanent()
    }
}

/// What was waited for, if the error does not say it, and what may help a server that was silent.
fn hint(stage: Stage, error: &ClientError) -> String {
    match (stage, error) {
        (Stage::Greeting, ClientError::Timeout { awaited: Some(_) }) => {
            "; if its port has TLS from the first octet, as 465 has, use Tls::implicit()".to_owned()
        }
        (_, ClientError::Timeout { awaited: Some(_) } | ClientError::Eof(ClientEof { awaited: Some(_), .. })) => {
            String::new()
        }
        _ => format!(", while we waited for {stage}"),
    }
}

/// The reason of a handshake that failed, in words of our own: what the peer calls itself stays out
/// of logs and reports.
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

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "the connection",
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Transaction => "the transaction",
        })
    }
}
