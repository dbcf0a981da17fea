//! Why there is no connection to talk over.

use std::{io, net::SocketAddr};

use posthaste_tokio::{
    ClientError,
    rustls::{self, CertificateError},
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
    /// TLS is required and cannot be started, for a reason on this side.
    #[error("TLS is required and cannot be started: {0}")]
    TlsNotStarted(TlsFault),
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

/// Why TLS cannot be started, for a reason on this side.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// [`Tls::config`](crate::Tls::config) is missing.
    #[error("there is no TLS configuration")]
    NoConfiguration,
    /// No certificate can be for this name of a host, such as one whose last label is a number.
    #[error("no certificate can be for the name {0:?}")]
    Name(String),
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

    /// Returns `true` if a later attempt without TLS may fare better and the policy allows that.
    ///
    /// The policy was [`TlsPolicy::Opportunistic`](crate::TlsPolicy::Opportunistic), and what failed lies between STARTTLS
    /// and the end of the answer to EHLO within TLS: the server broke off, was silent, said 421 or what is no reply, or the
    /// handshake failed. Connect again with [`Tls::default`](crate::Tls), and remember the host for a while: whatever its
    /// TLS suffers from costs a connection each time, and a timeout where it is silent.
    ///
    /// `false` for any other failure, and always where the policy demands TLS. A connection that breaks later is not told
    /// apart here: [`Client::is_tls`](crate::Client::is_tls) of a client that failed at MAIL says that TLS may be the cause.
    pub const fn suggests_clear(&self) -> bool {
        matches!(self, Self::OpportunisticTls(_))
    }

    /// Whether another attempt may fare better. A greeting of 554 is permanent for this host only: others may take the mail.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused { reply, .. } if reply.code().severity() == Severity::PermanentNegative)
    }
}

/// What was wrong with a handshake, in words of our own: what the peer calls itself stays out of logs and reports.
fn handshake(error: &ClientError) -> String {
    let ClientError::Io(io) = error else { return error.to_string() };
    let Some(fault) = io.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    let words = match fault {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            CertificateError::UnknownIssuer => "the certificate is signed by no authority that is trusted here",
            CertificateError::BadSignature => {
                "the certificate is not signed by the authority that it names, or not the server's own"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the certificate is not for servers"
            }
            // What webpki finds, which rustls hands on as it is.
            CertificateError::Other(fault) => match format!("{:?}", fault.0).as_str() {
                "CaUsedAsEndEntity" => "the certificate is an authority's own and not a server's",
                fault => return format!("the certificate is not good ({fault})"),
            },
            _ => return format!("the certificate is not good ({fault:?})"),
        },
        rustls::Error::AlertReceived(alert) => return format!("the server refused it ({alert:?})"),
        rustls::Error::InvalidMessage(_) => "what the server says is no TLS",
        _ => return format!("{fault}"),
    };
    words.to_owned()
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
