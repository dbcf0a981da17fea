//! A client that sends any octets and reads replies.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, ToSocketAddrs},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A client that takes no octet from its stream after the end of a reply, so that the stream can be
/// used without it.
#[derive(Debug)]
pub struct Talk<S> {
    /// The connection.
    pub stream: S,
    /// What has come of the next reply.
    said: Vec<u8>,
}

/// The client's side of a handshake with `mx.test`.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(stream: S, config: &Arc<ClientConfig>) -> TlsStream<S> {
    TlsConnector::from(Arc::clone(config)).connect("mx.test".try_into().unwrap(), stream).await.unwrap()
}

impl Talk<TcpStream> {
    /// Connects, and reads nothing yet.
    pub async fn connect(address: impl ToSocketAddrs) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// A client on this stream, which is at the start of a reply.
    pub const fn new(stream: S) -> Self {
        Self { stream, said: Vec::new() }
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next reply without its last CRLF, or `<eof>`. May be dropped.
    pub async fn reply(&mut self) -> String {
        while !is_whole(&self.said) {
            match self.stream.read_u8().await {
                Ok(octet) => self.said.push(octet),
                Err(_) => return "<eof>".to_owned(),
            }
        }
        let mut text = String::from_utf8(std::mem::take(&mut self.said)).unwrap();
        text.truncate(text.len() - 2);
        text
    }

    /// Sends a line and returns the reply.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// Asks, and checks how the reply begins.
    pub async fn expect(&mut self, line: &str, reply: &str) {
        let said = self.ask(line).await;
        assert!(said.starts_with(reply), "{line:?}: {said:?} and not {reply:?}");
    }

    /// The same client after the greeting and EHLO.
    pub async fn greeted(mut self) -> Self {
        assert!(self.reply().await.starts_with("220 "));
        self.expect("EHLO c.test", "250").await;
        self
    }

    /// Sends a whole message and returns the reply to its end.
    pub async fn message(&mut self, from: &str, content: &str) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250").await;
        self.expect("RCPT TO:<a@d.test>", "250").await;
        self.expect("DATA", "354").await;
        self.ask(&format!("{content}\r\n.")).await
    }
}

/// The last line has no hyphen after its code.
fn is_whole(said: &[u8]) -> bool {
    let line = said.strip_suffix(b"\r\n").and_then(|said| said.rsplit(|octet| *octet == b'\n').next());
    line.is_some_and(|line| line.get(3) != Some(&b'-'))
}
