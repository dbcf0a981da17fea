//! Streams through a proxy, which looks names up itself.

mod http_connect;
#[cfg(feature = "socks5")]
mod socks5;

use std::{convert::Infallible, fmt, io, time::Duration};

use posthaste_tokio::wire::Secret;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

pub use http_connect::HttpConnect;
#[cfg(feature = "socks5")]
pub use socks5::Socks5;

use crate::{Dial, Endpoint, EndpointError, Server, Tcp};

/// Why a proxy gave no stream to the server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The text that names the proxy is no host and port.
    #[error("the proxy {0}")]
    Endpoint(#[from] EndpointError),
    /// A text cannot be sent to the proxy. Nothing was sent.
    #[error("the {field} {fault}")]
    Text {
        /// Which text: `proxy's address`, `user name`, `password` or `server's name`.
        field: &'static str,
        /// What is wrong with it, and the remedy.
        fault: &'static str,
    },
    /// The proxy cannot be reached.
    #[error("no connection to the proxy {proxy}: {error}; see that it runs there")]
    Unreachable {
        /// The proxy.
        proxy: Endpoint,
        /// The system's reason, of the address that was tried last.
        error: io::Error,
    },
    /// The connection to the proxy broke.
    #[error("the proxy {proxy} broke off before its answer: {error}")]
    Lost {
        /// The proxy.
        proxy: Endpoint,
        /// The system's reason.
        error: io::Error,
    },
    /// The time was over before the proxy gave a connection. It may be silent, or wait for the
    /// server.
    #[error(
        "the proxy {proxy} gave no connection within {} s; see that it runs there, and that it reaches the server",
        waited.as_secs()
    )]
    Silent {
        /// The proxy.
        proxy: Endpoint,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The proxy demands a login, and none was given.
    #[error("the proxy {proxy} demands a login; give a user name and a password")]
    LoginRequired {
        /// The proxy.
        proxy: Endpoint,
    },
    /// The proxy takes no such login.
    #[error("the proxy {proxy} refused the login; see that the user name and the password are right")]
    LoginRefused {
        /// The proxy.
        proxy: Endpoint,
    },
    /// The proxy does not want to connect to the server.
    #[error("the proxy {proxy} refused: {reason}; see that its rules allow this server and port")]
    Refused {
        /// The proxy.
        proxy: Endpoint,
        /// The proxy's reason.
        reason: String,
    },
    /// The proxy did not reach the server. The server counts as failed.
    #[error("the proxy {proxy} did not reach the server: {reason}")]
    ServerUnreachable {
        /// The proxy.
        proxy: Endpoint,
        /// The proxy's reason.
        reason: String,
    },
    /// The answer is not in the proxy's protocol.
    #[error("{proxy} answered as no {protocol} proxy does; see that it is one")]
    Protocol {
        /// What was taken for the proxy.
        proxy: Endpoint,
        /// The protocol.
        protocol: &'static str,
    },
}

impl ProxyError {
    /// Returns `true` if the caller has to change a text.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Endpoint(_) | Self::Text { .. })
    }

    /// As the error of a dialer. It is the server's only if the proxy did not reach it.
    fn into_io(self) -> io::Error {
        let kind = match self {
            Self::ServerUnreachable { .. } => io::ErrorKind::HostUnreachable,
            _ if self.is_permanent() => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// An endpoint that needs no parsing.
impl From<Infallible> for ProxyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A proxy, whatever its protocol.
#[derive(Debug, Clone)]
struct Proxy {
    endpoint: Endpoint,
    login: Option<Login>,
    tcp: Tcp,
}

#[derive(Debug, Clone)]
struct Login {
    user: String,
    password: Secret<String>,
}

/// How long one address of the proxy may take while others are left.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(5);
/// The most octets of a user name, a password or a name that SOCKS5 can send (RFC 1928 section 5,
/// RFC 1929 section 2).
const MOST: usize = 255;

impl Proxy {
    fn new<E>(proxy: E) -> Result<Self, ProxyError>
    where
        E: TryInto<Endpoint>,
        ProxyError: From<E::Error>,
    {
        let endpoint = proxy.try_into()?;
        if matches!(endpoint.unresolved(), Server::Path(_)) {
            let fault = "is the path of a Unix socket; give a host and a port";
            return Err(ProxyError::Text { field: "proxy's address", fault });
        }
        Ok(Self { endpoint, login: None, tcp: Tcp::default() })
    }

    fn log_in(&mut self, user: impl Into<String>, password: impl Into<String>) -> Result<(), ProxyError> {
        let (user, password) = (user.into(), password.into());
        check_login("user name", &user)?;
        check_login("password", &password)?;
        self.login = Some(Login { user, password: Secret::new(password) });
        Ok(())
    }

    /// Connects to the proxy itself: to the first of its addresses that accepts.
    async fn reach(&self) -> Result<TcpStream, ProxyError> {
        let unreachable = |error| ProxyError::Unreachable { proxy: self.endpoint.clone(), error };
        let mut addresses = self.endpoint.look_up().await.map_err(unreachable)?.into_iter();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        while let Some(address) = addresses.next() {
            let dialed = self.tcp.dial(&address);
            let dialed = match addresses.len() {
                0 => dialed.await,
                _ => timeout(ONE_OF_SEVERAL, dialed).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            };
            match dialed {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    fn silent(&self, waited: Duration) -> io::Error {
        ProxyError::Silent { proxy: self.endpoint.clone(), waited }.into_io()
    }

    fn lost(&self, error: io::Error) -> ProxyError {
        ProxyError::Lost { proxy: self.endpoint.clone(), error }
    }

    /// No login was given, or it is refused.
    fn bad_login(&self) -> ProxyError {
        let proxy = self.endpoint.clone();
        if self.login.is_some() { ProxyError::LoginRefused { proxy } } else { ProxyError::LoginRequired { proxy } }
    }

    fn refused(&self, reason: impl fmt::Display) -> ProxyError {
        ProxyError::Refused { proxy: self.endpoint.clone(), reason: reason.to_string() }
    }

    fn server_unreachable(&self, reason: impl fmt::Display) -> ProxyError {
        ProxyError::ServerUnreachable { proxy: self.endpoint.clone(), reason: reason.to_string() }
    }

    fn foreign(&self, protocol: &'static str) -> ProxyError {
        ProxyError::Protocol { proxy: self.endpoint.clone(), protocol }
    }
}

/// Checks that a proxy can be asked for the server. A name is letters, digits, `-`, `_` and `.`, so
/// it cannot end a line or mean something else.
fn check_server(server: &Server) -> Result<(), ProxyError> {
    let fault = match server {
        Server::Address(_) => return Ok(()),
        Server::Path(_) => "is the path of a Unix socket; give a host and a port, or use the dialer `Unix`",
        Server::Name(name, _) if name.is_empty() => "is empty; give the name of a host",
        Server::Name(name, _) if name.len() > MOST => "has more than 255 octets; no host has such a name",
        Server::Name(name, _) => {
            let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
            if name.bytes().all(is_plain) {
                return Ok(());
            }
            "has characters other than a-z, 0-9, `-`, `_` and `.`; write other scripts in A-labels"
        }
    };
    Err(ProxyError::Text { field: "server's name", fault })
}

fn check_login(field: &'static str, text: &str) -> Result<(), ProxyError> {
    let fault = match text {
        "" => "for the proxy is empty; give one, or no login",
        _ if text.len() > MOST => "for the proxy has more than 255 octets; no proxy has to take it",
        _ if !text.bytes().all(|octet| matches!(octet, b' '..=b'~')) => {
            "for the proxy has control characters or characters outside ASCII; proxies do not agree on them"
        }
        _ => return Ok(()),
    };
    Err(ProxyError::Text { field, fault })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_server_that_no_proxy_can_be_asked_for_is_named_with_a_remedy() {
        let name = |name: &str| Server::Name(name.into(), 25);
        for good in
            [name("mx.test"), name("_x-1.test."), name(&"a".repeat(255)), Server::Address(([127, 0, 0, 1], 25).into())]
        {
            check_server(&good).unwrap();
        }
        for (bad, words) in [
            (name(""), "the server's name is empty"),
            (name(&"a".repeat(256)), "more than 255 octets"),
            (name("mx.test\r\nX: y"), "characters other than"),
            (name("mx\0.test"), "characters other than"),
            (name("mx test"), "characters other than"),
            (name("mx.test:25"), "characters other than"),
            (name("b\u{fc}cher.test"), "in A-labels"),
            (Path::new("/run/lmtp").into(), "give a host and a port"),
        ] {
            let error = check_server(&bad).unwrap_err();
            assert!(error.to_string().contains(words) && error.is_permanent(), "{error}");
        }
    }
}
