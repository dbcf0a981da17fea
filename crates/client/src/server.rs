//! Where a stream leads.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A server as a [`Dial`](crate::Dial) reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// An address with a port.
    Address(SocketAddr),
    /// A host's name with a port. Only a dialer that [resolves
    /// names](crate::Dial::resolves_names), such as a proxy, gets it.
    Name(Arc<str>, u16),
    /// The path of a Unix socket.
    Path(Arc<Path>),
}

impl Server {
    /// The address and port. `None`: it is a name or a path.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) | Self::Path(_) => None,
        }
    }
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&Path> for Server {
    fn from(path: &Path) -> Self {
        Self::Path(path.into())
    }
}

impl From<PathBuf> for Server {
    fn from(path: PathBuf) -> Self {
        Self::Path(path.into())
    }
}

/// As [`Endpoint`](crate::Endpoint) reads it, with control characters escaped.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{}:{port}", name.escape_debug()),
            Self::Path(path) => write!(f, "unix:{}", path.to_string_lossy().escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_shown_as_its_endpoint_is_written() {
        for (server, text) in [
            (Server::from(SocketAddr::from(([192, 0, 2, 1], 25))), "192.0.2.1:25"),
            (Server::from(SocketAddr::from(([0; 8], 25))), "[::]:25"),
            (Server::Name("mx.test".into(), 25), "mx.test:25"),
            (Server::Name("mx\r\n.test".into(), 25), "mx\\r\\n.test:25"),
            (Server::from(Path::new("/run/lmtp")), "unix:/run/lmtp"),
            (Server::from(PathBuf::from("/run/l\nmtp")), "unix:/run/l\\nmtp"),
        ] {
            assert_eq!(server.to_string(), text);
            assert_eq!(server.address().is_some(), matches!(server, Server::Address(_)));
        }
    }
}
