//! The method CONNECT of HTTP proxies (RFC 9110 section 9.3.6).

use std::{io, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Proxy, ProxyError, check_server};
use crate::{Dial, Endpoint, Server, Tcp};

/// What an answer begins with. The digit after it does not matter (RFC 9110 section 2.5).
const VERSION: &[u8] = b"HTTP/1.";
/// The most octets of the proxy's answer.
const ANSWER: usize = 16 * 1_024;
/// The most characters of the proxy's reason that an error shows.
const REASON: usize = 100;

/// Dials through an HTTP proxy, by CONNECT. The proxy looks the names of servers up.
///
/// Many proxies allow CONNECT to port 443 alone; let the proxy's rules name the ports of mail. The
/// proxy sees the octets of the connection: demand TLS for the server. The way to the proxy itself
/// has no TLS, so a login is readable on it.
///
/// ```no_run
/// use posthaste_client::{Client, ClientOptions, HttpConnect};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ClientOptions::new("client.example.org".parse()?);
/// let proxy = HttpConnect::new("proxy.example.org:3128")?.with_login("me", "secret")?;
/// let client = Client::connect_by(&proxy, "mx.example.net:25", &options).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct HttpConnect(Proxy);

impl HttpConnect {
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

    /// Logs in at the proxy, by the scheme Basic (RFC 7617). Both texts are 1 to 255 octets of
    /// printable ASCII, the user name without a colon.
    ///
    /// # Errors
    /// [`ProxyError::Text`].
    pub fn with_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Result<Self, ProxyError> {
        let user = user.into();
        if user.contains(':') {
            let fault = "for the proxy has a colon; HTTP takes what follows it for the password";
            return Err(ProxyError::Text { field: "user name", fault });
        }
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
        let mut stream = self.0.reach().await?;
        stream.write_all(self.request(server).as_bytes()).await.map_err(|error| self.0.lost(error))?;
        let mut left = ANSWER;
        loop {
            let answer = header(&mut stream, &mut left).await;
            let answer = answer.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => self.0.foreign("HTTP"),
                _ => self.0.lost(error),
            })?;
            let (code, reason) = status(&answer).ok_or_else(|| self.0.foreign("HTTP"))?;
            match code {
                // An interim answer (RFC 9110 section 15.2).
                100..=199 => {}
                200..=299 => return Ok(stream),
                // 401 is what some proxies say to a wrong login.
                401 | 407 => return Err(self.0.bad_login()),
                500..=599 => return Err(self.0.server_unreachable(reason)),
                _ => return Err(self.0.refused(reason)),
            }
        }
    }

    /// The request. Its parts are checked: none of them has CR, LF or NUL.
    fn request(&self, server: &Server) -> String {
        let to = match server {
            Server::Name(name, port) => format!("{name}:{port}"),
            // Without a scope, which means nothing to the proxy.
            Server::Address(address) if address.is_ipv6() => format!("[{}]:{}", address.ip(), address.port()),
            server => server.to_string(),
        };
        let login = self.0.login.as_ref().map(|login| {
            let basic = STANDARD.encode(format!("{}:{}", login.user, login.password.expose()));
            format!("Proxy-Authorization: Basic {basic}\r\n")
        });
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", login.unwrap_or_default())
    }
}

impl Dial for HttpConnect {
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

/// Reads to the end of the header and not beyond it: what follows is the server's. One octet a
/// read, which costs nothing beside the round trip.
async fn header(stream: &mut TcpStream, left: &mut usize) -> io::Result<Vec<u8>> {
    let (mut header, mut octet, mut line) = (Vec::new(), [0], 0_usize);
    loop {
        *left = left.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
        stream.read_exact(&mut octet).await?;
        header.extend_from_slice(&octet);
        match octet {
            // Lines may end in LF alone (RFC 9112 section 2.2).
            [b'\n'] if line == 0 => return Ok(header),
            // What is no HTTP may never have an empty line.
            [b'\n'] if !header.starts_with(VERSION) => return Err(io::ErrorKind::InvalidData.into()),
            [b'\n'] => line = 0,
            [b'\r'] => {}
            _ => line = line.saturating_add(1),
        }
    }
}

/// The code of the status line, and the code with its reason in harmless characters (RFC 9112
/// section 4).
fn status(header: &[u8]) -> Option<(u16, String)> {
    let line = header.split(|octet| *octet == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (_, status) = line.strip_prefix(VERSION)?.split_at_checked(2).filter(|(minor, _)| minor.ends_with(b" "))?;
    let (code, reason) = status.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) || !(reason.is_empty() || reason.starts_with(b" ")) {
        return None;
    }
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    Some((code, String::from_utf8_lossy(status).chars().take(REASON).flat_map(char::escape_debug).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_version_a_code_and_perhaps_a_reason() {
        for (line, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some((200, "200 Connection established"))),
            ("HTTP/1.0 200\n\n", Some((200, "200"))),
            ("HTTP/1.1 403 No\x1b[2J\r\n", Some((403, "403 No\\u{1b}[2J"))),
            ("HTTP/2 200 ok\r\n", None),
            ("HTTP/1.1200 ok\r\n", None),
            ("HTTP/1.1 2x0 ok\r\n", None),
            ("HTTP/1.1 2000\r\n", None),
            ("HTTP/1.1 20", None),
            ("220 mx.test ESMTP\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(line.as_bytes()), expected.map(|(code, text)| (code, text.to_owned())), "{line:?}");
        }
        let long = format!("HTTP/1.1 500 {}\r\n", "x".repeat(10_000));
        assert_eq!(status(long.as_bytes()).unwrap().1.len(), REASON);
    }

    #[test]
    fn a_request_names_the_server_and_hides_the_login_from_debug() {
        let proxy = HttpConnect::new("proxy.test:3128").unwrap();
        let address = Server::Address("[2001:db8::1]:25".parse().unwrap());
        assert_eq!(proxy.request(&address), "CONNECT [2001:db8::1]:25 HTTP/1.1\r\nHost: [2001:db8::1]:25\r\n\r\n");
        let proxy = proxy.with_login("Aladdin", "open sesame").unwrap();
        assert_eq!(
            proxy.request(&Server::Name("mx.test".into(), 587)),
            "CONNECT mx.test:587 HTTP/1.1\r\nHost: mx.test:587\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        assert!(!format!("{proxy:?}").contains("sesame"), "{proxy:?}");
    }
}
