//! Servers that say what a closure says, right or wrong.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, DuplexStream},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Returns the reply to a line. A line is `<connect>`, a command, or `<end>` for the end of the
/// content.
///
/// A line of content comes as `<octets>` and its text, and so does a chunk, before its BDAT. What
/// the closure returns for these is not sent. For other lines:
///
/// - An empty text is silence, and `close` closes the connection.
/// - `after 10 text` is the text 10 milliseconds later.
/// - `<tls>` after a text does a handshake, `<garbage>` sends what is none, `<alert>` refuses one.
///   After a handshake at `<connect>` the script is asked again, for the greeting within TLS.
/// - `<hang>` after a text says nothing more, whatever comes, and `<close>` closes the connection.
pub trait Script: FnMut(Place, &str) -> String + Send + 'static {}

impl<F: FnMut(Place, &str) -> String + Send + 'static> Script for F {}

/// Where a line was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the connection, from 0.
    pub connection: usize,
    /// `true`: inside TLS.
    pub tls: bool,
}

/// What clients have said: what the script gets, and `<eof>` when a client has closed.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<(Place, String)>>>);

impl Heard {
    /// Everything, in order.
    pub fn all(&self) -> Vec<(Place, String)> {
        self.0.lock().unwrap().clone()
    }

    /// What was heard of these verbs.
    pub fn of(&self, verbs: &[&str]) -> Vec<(Place, String)> {
        self.all().into_iter().filter(|(_, line)| verbs.contains(&verb(line))).collect()
    }

    /// The lines of these verbs.
    pub fn lines(&self, verbs: &[&str]) -> Vec<String> {
        self.of(verbs).into_iter().map(|(_, line)| line).collect()
    }

    /// The number of lines that begin with this.
    pub fn count(&self, start: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, line)| line.starts_with(start)).count()
    }

    fn push(&self, place: Place, line: &str) {
        self.0.lock().unwrap().push((place, line.to_owned()));
    }
}

/// The word at the start of a line.
pub fn verb(line: &str) -> &str {
    line.split([' ', ':']).next().unwrap_or_default()
}

/// What a server says that takes everything and offers these extensions.
pub fn polite(line: &str, offers: &[&str]) -> String {
    match verb(line) {
        "<connect>" => "220 mx.test\r\n".to_owned(),
        "EHLO" | "LHLO" => {
            let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
            format!("250-mx.test\r\n{lines}250 HELP\r\n")
        }
        "DATA" => "354 go on\r\n".to_owned(),
        "STARTTLS" => "220 go\r\n<tls>".to_owned(),
        "AUTH" => "235 ok\r\n".to_owned(),
        "QUIT" => "221 bye\r\n".to_owned(),
        _ => "250 ok\r\n".to_owned(),
    }
}

/// A server on one end of a pipe. Returns the other end.
pub fn serve(script: impl Script, tls: Option<Arc<ServerConfig>>) -> (DuplexStream, Heard) {
    let (ours, theirs) = tokio::io::duplex(64 * 1_024);
    let heard = Heard::default();
    let script = Arc::new(Mutex::new(script));
    tokio::spawn(converse(Box::new(theirs), 0, script, tls, heard.clone()));
    (ours, heard)
}

/// A server on a port, for any number of connections.
#[derive(Debug)]
pub struct Scripted {
    /// The port that it listens on.
    pub port: u16,
    /// What its clients have said.
    pub heard: Heard,
}

impl Scripted {
    /// Starts a server on a port of 127.0.0.1.
    pub async fn start(script: impl Script) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), None, script).await
    }

    /// Starts a server that takes everything and offers no extension.
    pub async fn polite() -> Self {
        Self::start(|_, line| polite(line, &[])).await
    }

    /// Starts a server that does handshakes with this configuration.
    pub async fn with_tls(tls: Arc<ServerConfig>, script: impl Script) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), Some(tls), script).await
    }

    /// Starts a server at this address.
    pub async fn at(address: SocketAddr, tls: Option<Arc<ServerConfig>>, script: impl Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), heard: Heard::default() };
        let (heard, script) = (server.heard.clone(), Arc::new(Mutex::new(script)));
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                // Replies to pipelined commands are many small writes.
                stream.set_nodelay(true).unwrap();
                let (script, tls, heard) = (Arc::clone(&script), tls.clone(), heard.clone());
                tokio::spawn(converse(Box::new(stream), number, script, tls, heard));
            }
        });
        server
    }

    /// The number of lines that begin with this.
    pub fn count(&self, start: &str) -> usize {
        self.heard.count(start)
    }

    /// Waits for a line that begins with this.
    ///
    /// # Panics
    /// After a minute.
    pub async fn wait(&self, start: &str) {
        let begun = Instant::now();
        while self.count(start) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no {start:?} in {:?}", self.heard.all());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn converse(
    stream: Box<dyn Stream>,
    connection: usize,
    script: Arc<Mutex<impl Script>>,
    tls: Option<Arc<ServerConfig>>,
    heard: Heard,
) {
    let (mut stream, mut place) = (BufReader::new(stream), Place { connection, tls: false });
    let hear = |place, line: &str| {
        heard.push(place, line);
        script.lock().unwrap()(place, line)
    };
    let (mut line, mut content) = ("<connect>".to_owned(), false);
    loop {
        let mut said = hear(place, &line);
        if let Some((wait, text)) = said.strip_prefix("after ").and_then(|said| said.split_once(' ')) {
            tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
            said = text.to_owned();
        }
        if said == "close" {
            return;
        }
        let acts = ["<tls>", "<garbage>", "<alert>", "<hang>", "<close>"];
        let act = acts.into_iter().find(|act| said.ends_with(act)).unwrap_or_default();
        let text = &said[..said.len() - act.len()];
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match (act, &tls) {
            ("<tls>", Some(config)) => {
                let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream.into_inner()).await;
                let Ok(accepted) = accepted else { return };
                (stream, place.tls) = (BufReader::new(Box::new(accepted) as Box<dyn Stream>), true);
                if line == "<connect>" {
                    continue;
                }
            }
            ("<close>", _) => return,
            ("<garbage>", _) => {
                // What is no TLS record, once the client waits for one.
                tokio::task::yield_now().await;
                let _ = stream.write_all(b"250 AUTH PLAIN\r\n").await;
                return;
            }
            ("<hang>", _) => {
                while stream.read(&mut [0; 1_024]).await.is_ok_and(|octets| octets > 0) {}
                return heard.push(place, "<eof>");
            }
            ("<alert>", _) => {
                tokio::task::yield_now().await;
                // handshake_failure (RFC 8446 section 6).
                let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
                let _ = stream.read_line(&mut String::new()).await;
                return;
            }
            _ => {}
        }
        content |= text.starts_with("354");
        loop {
            let mut octets = Vec::new();
            if stream.read_until(b'\n', &mut octets).await.unwrap_or(0) == 0 {
                return heard.push(place, "<eof>");
            }
            line = String::from_utf8_lossy(&octets).into_owned();
            if !content {
                line.truncate(line.trim_end().len());
                if let Some(size) = line.strip_prefix("BDAT ").and_then(|rest| rest.split(' ').next()) {
                    let mut chunk = vec![0; size.parse().unwrap()];
                    if stream.read_exact(&mut chunk).await.is_err() {
                        return heard.push(place, "<eof>");
                    }
                    hear(place, &format!("<octets> {}", String::from_utf8_lossy(&chunk)));
                }
                break;
            }
            if line == ".\r\n" {
                (line, content) = ("<end>".to_owned(), false);
                break;
            }
            hear(place, &format!("<octets> {line}"));
        }
    }
}
