//! From a server's name to where it is.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{net::lookup_host, time::timeout};

use crate::{ConnectError, HostName, Server};

/// The ports of mail.
pub mod port {
    /// Between relays (RFC 5321).
    pub const SMTP: u16 = 25;
    /// Submission with STARTTLS (RFC 6409).
    pub const SUBMISSION: u16 = 587;
    /// Submission with TLS from the first octet (RFC 8314).
    pub const SUBMISSIONS: u16 = 465;
}

/// A server's host and port. The host is a name, in A-labels or U-labels, or an IP address.
///
/// Make one from `"mx.example.net:25"`, `"192.0.2.25:25"`, `"[2001:db8::25]:25"`,
/// `("mx.example.net", 25)` or a [`SocketAddr`]. The server's certificate must be valid for the
/// host.
///
/// The Unix socket of a server on this machine is an endpoint too, made from
/// `"unix:/run/dovecot/lmtp"` or a [`Path`]. Its host is `localhost`, its port 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    /// The path of a Unix socket, and then no host counts.
    path: Option<Arc<Path>>,
}

/// Why a text is no host and port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text has no port.
    #[error("{0:?} has no port; add it after a colon, as in {shown}:25 or {shown}:587", shown = .0.escape_debug())]
    NoPort(String),
    /// The text after the last colon is no port.
    #[error("{0:?} has no port from 1 to 65535; write a number after the last colon, as in mx.example.net:25")]
    BadPort(String),
    /// The text has no host.
    #[error("{0:?} has no host; write a name or an address before the colon, as in mx.example.net:25")]
    NoHost(String),
    /// An IPv6 address is without brackets.
    #[error("{0:?} has an IPv6 address without brackets; write it as in [2001:db8::25]:25")]
    NoBrackets(String),
    /// The text is a URL.
    #[error("{0:?} is a URL; write the host and the port alone, as in mx.example.net:25")]
    Url(String),
    /// The path of a Unix socket does not begin with a slash, or has a NUL.
    #[error("{0:?} has no absolute path; write it as in unix:/run/dovecot/lmtp")]
    BadPath(String),
}

/// What the text of a Unix socket's path begins with.
const UNIX: &str = "unix:";

/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 16;

impl Endpoint {
    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Looks the host up at the system, for at most `bound`.
    ///
    /// # Errors
    /// [`ConnectError::Resolve`].
    pub(crate) async fn resolve(&self, bound: Duration) -> Result<Vec<Server>, ConnectError> {
        let found = timeout(bound, self.look_up()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        found.map_err(|error| ConnectError::Resolve { host: self.host.clone(), error })
    }

    /// Looks the host up at the system. The caller sets the timeout.
    pub(crate) async fn look_up(&self) -> io::Result<Vec<Server>> {
        if let Some(known) = self.known() {
            return Ok(vec![known]);
        }
        let name = self.name();
        let found = lookup_host((name.as_str(), self.port)).await?;
        Ok(found.take(MAX_ADDRESSES).map(Server::Address).collect())
    }

    /// The server, with its name if the host is one.
    pub(crate) fn unresolved(&self) -> Server {
        self.known().unwrap_or_else(|| Server::Name(self.name().into(), self.port))
    }

    /// The server, if no look-up is needed.
    fn known(&self) -> Option<Server> {
        let address = |address: IpAddr| Server::Address(SocketAddr::new(address, self.port));
        self.path.clone().map(Server::Path).or_else(|| self.host.parse().ok().map(address))
    }

    /// The host in A-labels. What is no host name stays as it is.
    fn name(&self) -> String {
        let name = HostName::parse(&self.host).ok().filter(HostName::is_plain);
        name.map_or_else(|| self.host.clone(), String::from)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let owned = || text.to_owned();
        if let Some(path) = text.strip_prefix(UNIX).filter(|rest| rest.parse::<u16>().is_err()) {
            let is_path = path.starts_with('/') && !path.contains('\0');
            return if is_path { Ok(Path::new(path).into()) } else { Err(EndpointError::BadPath(owned())) };
        }
        if text.contains("://") {
            return Err(EndpointError::Url(owned()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::NoBrackets(owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| EndpointError::NoPort(owned()))?;
        if host.is_empty() || host == "[]" || host.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(EndpointError::NoHost(owned()));
        }
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if literal.is_none() && host.contains(':') {
            let is_port_missing = text.starts_with('[') && text.ends_with(']');
            return Err(if is_port_missing {
                EndpointError::NoPort(owned())
            } else {
                EndpointError::NoBrackets(owned())
            });
        }
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| EndpointError::BadPort(owned()))?;
        Ok(Self { host: literal.unwrap_or(host).to_owned(), port, path: None })
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &str) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl<H: Into<String>> From<(H, u16)> for Endpoint {
    fn from((host, port): (H, u16)) -> Self {
        Self { host: host.into(), port, path: None }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port(), path: None }
    }
}

impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Self {
        Self { host: "localhost".to_owned(), port: 0, path: Some(path.into()) }
    }
}

impl From<PathBuf> for Endpoint {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

/// As it is parsed, with control characters escaped.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        if let Some(path) = path {
            return write!(f, "{UNIX}{}", path.to_string_lossy().escape_debug());
        }
        let host = host.escape_debug().to_string();
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
