//! SOCKS version 5 (RFC 1928).

use std::{io, time::Duration};

use tokio::net::TcpStream;
use tokio_socks::{Error, TargetAddr, tcp::Socks5Stream};

use super::{Proxy, ProxyError, check_server};
use crate::{Dial, Endpoint, Server, Tcp};

/// Dials through a SOCKS5 proxy, which looks the names of servers up.
///
/// The proxy sees the octets of the connection: demand TLS for the server. The way to the proxy
/// itself has no TLS, so a login is readable on it.
///
/// ```no_run
/// use posthaste_client::{Client, ClientOptions, Socks5};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ClientOptions::new("client.example.org".parse()?);
/// let proxy = Socks5::new("proxy.example.org:1080")?.with_login("me", "secret")?;
/// let client = Client::connect_by(&proxy, "mx.example.net:25", &options).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Socks5(Proxy);

impl Socks5 {
    /// A proxy at this host and port. The system looks up its name with each connection.
    ///
    /// # Errors
    /// [`ProxyError::Endpoint`], and [`ProxyError::Text`] for the path of a Unix socket.
    pub fn new<E>(proxy: E) -> Result<Self, ProxyError>
    where
        E: TryInto<Endpoint>,
        ProxyError: From<E::Error>,
    {
        Proxy::new(proxy).map(Self)
    }

    /// Logs in at the proxy if it asks for that (RFC 1929). Both texts are 1 to 255 octets of
    /// printable ASCII.
    ///
    /// # Errors
    /// [`ProxyError::Text`].
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Result<Self, ProxyError> {
        self.0.log_in(user, password)?;
        Ok(self)
    }

    /// Reaches the proxy from the source that these options name. Default: as the system routes it.
    #[must_use]
    pub fn over(mut self, tcp: Tcp) -> Self {
        self.0.tcp = tcp;
        self
    }

    async fn open(&self, server: &Server) -> Result<TcpStream, ProxyError> {
        check_server(server)?;
        let target = match server {
            Server::Name(name, port) => TargetAddr::Domain((&**name).into(), *port),
            Server::Address(address) => TargetAddr::Ip(*address),
            Server::Path(_) => return Err(self.0.refused("a path is no server of a proxy")),
        };
        let stream = self.0.reach().await?;
        let opened = match &self.0.login {
            None => Socks5Stream::connect_with_socket(stream, target).await,
            Some(login) => {
                let (user, password) = (login.user.as_str(), login.password.expose().as_str());
                Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
            }
        };
        opened.map(Socks5Stream::into_inner).map_err(|error| self.error(error))
    }

    fn error(&self, error: Error) -> ProxyError {
        match error {
            Error::Io(error) => self.0.lost(error),
            Error::NoAcceptableAuthMethods | Error::AuthorizationRequired | Error::PasswordAuthFailure(_) => {
                self.0.bad_login()
            }
            Error::ConnectionNotAllowedByRuleset | Error::CommandNotSupported | Error::AddressTypeNotSupported => {
                self.0.refused(error)
            }
            Error::GeneralSocksServerFailure
            | Error::NetworkUnreachable
            | Error::HostUnreachable
            | Error::ConnectionRefused
            | Error::TtlExpired => self.0.server_unreachable(error),
            _ => self.0.foreign("SOCKS5"),
        }
    }
}

impl Dial for Socks5 {
    type Stream = TcpStream;

    fn resolves_names(&self) -> bool {
        true
    }

    async fn dial(&self, server: &Server) -> io::Result<TcpStream> {
        self.open(server).await.map_err(ProxyError::into_io)
    }

    fn too_late(&self, waited: Duration) -> io::Error {
        self.0.silent(waited)
    }
}
