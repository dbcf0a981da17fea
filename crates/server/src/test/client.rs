//! A client that says what a test tells it to.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Connect, Reply,
    connect::{self, Running},
    reply::CLOSED,
    transcript::Transcript,
};
use crate::{PeerAddress, Service};

/// A client of a server in memory. Every failure is a panic that shows the whole conversation.
///
/// A wait has a bound, after which the test fails: 1 minute, or 25 hours if time is
/// paused (`tokio::time::pause`), since the server's own timeouts are shorter than that.
#[derive(Debug)]
pub struct Client {
    pub(super) stream: Stream,
    /// What the server has sent and no reply has taken.
    input: Vec<u8>,
    transcript: Transcript,
    pub(super) running: Arc<Running>,
    greeting: Reply,
    /// The keywords of the last EHLO or LHLO. `None`: it has not been said since the connection or
    /// TLS began.
    pub(super) extensions: Option<Vec<String>>,
    /// The challenges of an exchange differ from run to run.
    pub(super) logging_in: bool,
}

#[derive(Debug)]
pub(super) enum Stream {
    Plain(DuplexStream),
    Tls(Box<TlsStream<DuplexStream>>),
    /// A handshake is under way or has failed.
    Gone,
}

/// The most octets of a reply. A server says a few hundred.
const REPLY: usize = 64 * 1_024;

impl Client {
    /// Starts a server for this service, connects, and reads the greeting. Say more about it before
    /// the `await`:
    ///
    /// ```
    /// # use posthaste_server::{accepted, handlers, test::Client};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// # let service = handlers::message(async |_, _, _| Ok(accepted!("250 2.0.0 Taken")));
    /// let mut client = Client::connect(service).starttls().peer("2001:db8::7").await;
    /// client.greeting().expect("220 mx.example.org");
    /// client.ehlo().await;
    /// client.starttls().await;
    /// # }
    /// ```
    ///
    /// The server runs as long as it has a client.
    pub fn connect<V: Service>(service: V) -> Connect<V> {
        Connect::new(service)
    }

    /// Another client of the same server, with the same address.
    pub async fn another(&self) -> Self {
        self.another_from("192.0.2.1").await
    }

    /// Another client of the same server, from [this address](Connect::peer).
    ///
    /// # Panics
    /// The text is no address.
    pub async fn another_from(&self, peer: &str) -> Self {
        Self::to(Arc::clone(&self.running), connect::peer(peer)).await
    }

    pub(super) async fn to(running: Arc<Running>, peer: PeerAddress) -> Self {
        let (stream, header) = running.connect(peer).await;
        let stream = Stream::Plain(stream);
        let transcript = Transcript::default();
        let greeting = Reply::new(String::new(), String::new(), transcript.clone());
        let input = Vec::new();
        let mut client = Self { stream, input, transcript, running, greeting, extensions: None, logging_in: false };
        if let Some(header) = header {
            client.write(header).await;
        }
        if client.running.implicit {
            client.handshake().await;
        }
        client.greeting = client.reply_to("the connection").await;
        client
    }

    /// The greeting, or what the server has said in its place.
    pub const fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// Says EHLO, or LHLO to an LMTP server, and returns the reply.
    ///
    /// # Panics
    /// The reply is not 250.
    pub async fn ehlo(&mut self) -> Reply {
        let verb = if self.running.lmtp { "LHLO" } else { "EHLO" };
        let reply = self.says(&format!("{verb} client.example.org")).await;
        reply.expect("250");
        reply
    }

    /// Sends a line and returns the reply.
    ///
    /// # Panics
    /// The line has a line break: [`pipeline`](Self::pipeline) sends several lines, and
    /// [`write`](Self::write) any octets.
    #[must_use = "check the reply with `expect`"]
    pub async fn says(&mut self, line: &str) -> Reply {
        self.ask_shown(line, line).await
    }

    /// Sends several lines at once, and returns the reply to each.
    ///
    /// # Panics
    /// As [`says`](Self::says).
    pub async fn pipeline<L: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = L>) -> Vec<Reply> {
        let lines: Vec<String> = lines.into_iter().map(|line| line.as_ref().to_owned()).collect();
        let mut octets = String::new();
        for line in &lines {
            self.check_line(line);
            octets.push_str(line);
            octets.push_str("\r\n");
        }
        self.write(octets).await;
        let mut replies = Vec::new();
        for line in &lines {
            let reply = self.reply_to(line).await;
            self.learn(line, &reply);
            replies.push(reply);
        }
        replies
    }

    /// Says STARTTLS and does the handshake.
    ///
    /// # Panics
    /// The server refuses it, or the handshake fails.
    pub async fn starttls(&mut self) {
        if self.running.client_tls.is_none() {
            self.fail("The server has no certificate: connect with `Client::connect(..).starttls()`.");
        }
        self.says("STARTTLS").await.expect("220");
        self.handshake().await;
        self.extensions = None;
    }

    async fn handshake(&mut self) {
        let Some((config, name)) = self.running.client_tls.clone() else { return };
        if !self.input.is_empty() {
            self.fail("The server has sent octets in clear before the handshake.");
        }
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            self.fail("A handshake is possible only once.")
        };
        let done = self.patient("the handshake", TlsConnector::from(config).connect(name, stream)).await;
        match done {
            Ok(stream) => {
                self.transcript.note("TLS");
                self.stream = Stream::Tls(Box::new(stream));
            }
            Err(error) => self.fail(&format!("The handshake failed: {error}.")),
        }
    }

    /// Sends octets as they are, and reads nothing. What a server has closed against is lost, as on
    /// a network.
    pub async fn write(&mut self, octets: impl AsRef<[u8]>) {
        let octets = octets.as_ref();
        self.transcript.client(octets);
        self.send_octets(octets).await;
    }

    /// The next reply: the one to what was [written](Self::write), or one that the server gives by
    /// itself, such as 421 after a timeout.
    #[must_use = "check the reply with `expect`"]
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("what was written").await
    }

    /// Lets time pass, and reads nothing meanwhile. Immediate if time is
    /// paused (`tokio::time::pause`): `#[tokio::test(start_paused = true)]`.
    pub async fn wait(&mut self, time: Duration) {
        self.transcript.note(&format!("{time:?} pass"));
        sleep(time).await;
    }

    /// Closes the client's side; the server can still say something. Under TLS a close_notify is
    /// sent. To close both sides at once, without a close_notify, drop the
    /// client. The handler of a message that has come whole goes on then.
    pub async fn close(&mut self) {
        self.transcript.note("the client closes its side");
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Gone => Ok(()),
        };
    }

    /// Waits until the server has closed the connection.
    ///
    /// # Panics
    /// It says something instead.
    pub async fn closed(&mut self) {
        let reply = self.reply_to("nothing").await;
        if !reply.is_closed() {
            self.fail(&format!("The server says {reply:?} where it should close."));
        }
    }

    /// Says QUIT, and waits until the server has closed the connection.
    ///
    /// # Panics
    /// The reply is not 221, or the server does not close.
    pub async fn quit(&mut self) {
        self.says("QUIT").await.expect("221");
        self.closed().await;
    }

    /// Begins a graceful shutdown of the server, as
    /// [`with_graceful_shutdown`](crate::Server::with_graceful_shutdown) does.
    pub fn drain(&mut self) {
        self.transcript.note("the server is told to shut down");
        self.running.drain.cancel();
    }

    /// Waits until the server has ended after a [`drain`](Self::drain), with all its sessions.
    pub async fn drained(&mut self) {
        let running = Arc::clone(&self.running);
        let ended = async {
            while !running.has_ended() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        self.patient("the server to end", ended).await;
    }

    /// The conversation so far: `C:` before a line of the client, `S:` before one of the server,
    /// `#` before what else has happened. `C-` is a line of the client without CRLF. Backslashes,
    /// control characters and what is not UTF-8 are escaped: `\\`, `\r`, `\xFF`.
    ///
    /// It is the same in each run, unless the service says something else: for snapshot tests. Long
    /// lines, long contents and what goes beyond 1 MiB are left out, and a note says so.
    pub fn transcript(&self) -> String {
        self.transcript.text()
    }

    /// Sends a line that is shown as something else.
    pub(super) async fn ask_shown(&mut self, line: &str, shown: &str) -> Reply {
        self.check_line(line);
        self.transcript.client_shown(shown);
        self.send_octets(format!("{line}\r\n").as_bytes()).await;
        let reply = self.reply_to(shown).await;
        self.learn(line, &reply);
        reply
    }

    fn check_line(&self, line: &str) {
        if line.contains(['\r', '\n']) {
            self.fail(&format!(
                "{line:?} has a line break: `says` sends one line, `pipeline` several, `write` any octets."
            ));
        }
    }

    /// Remembers what EHLO offers, and forgets it.
    fn learn(&mut self, line: &str, reply: &Reply) {
        let verb = line.get(..4).unwrap_or_default();
        let hello = ["EHLO", "LHLO", "HELO"].iter().any(|hello| verb.eq_ignore_ascii_case(hello));
        if hello && reply.as_str().starts_with("250") {
            self.extensions = Some(reply.lines().skip(1).map(str::to_owned).collect());
        }
        // A conversation of another client begins.
        if line.get(..7).is_some_and(|verb| verb.eq_ignore_ascii_case("XCLIENT")) && reply.as_str().starts_with("220") {
            self.extensions = None;
        }
    }

    async fn send_octets(&mut self, octets: &[u8]) {
        let transcript = self.transcript.clone();
        let written = async {
            match &mut self.stream {
                Stream::Plain(stream) => stream.write_all(octets).await,
                Stream::Tls(stream) => match stream.write_all(octets).await {
                    Ok(()) => stream.flush().await,
                    Err(error) => Err(error),
                },
                Stream::Gone => Ok(()),
            }
        };
        // The next reply tells that the server has closed.
        let _ = patient(&transcript, "the server to read", written).await;
    }

    /// The next reply.
    pub(super) async fn reply_to(&mut self, what: &str) -> Reply {
        let mut text = String::new();
        loop {
            let Some(line) = self.line(what).await else {
                self.transcript.server(CLOSED.as_bytes());
                if !text.is_empty() {
                    self.fail(&format!("The server has closed within the reply to {what}."));
                }
                return Reply::new(what.to_owned(), CLOSED.to_owned(), self.transcript.clone());
            };
            let hidden = self.logging_in && line.starts_with(b"334 ");
            self.transcript.server(if hidden { b"334 <challenge>" } else { &line });
            let line = String::from_utf8_lossy(&line);
            let code = line.get(..3).unwrap_or_default();
            let separator = line.as_bytes().get(3);
            if code.len() != 3
                || !code.bytes().all(|octet| octet.is_ascii_digit())
                || !matches!(separator, None | Some(b' ' | b'-'))
            {
                self.fail(&format!("The server says {line:?}, which is no line of a reply."));
            }
            let more = separator == Some(&b'-');
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&line);
            if text.len() > REPLY {
                self.fail(&format!("The reply to {what} has more than {REPLY} octets."));
            }
            if !more {
                return Reply::new(what.to_owned(), text, self.transcript.clone());
            }
        }
    }

    /// The next line without its CRLF. `None`: the server has closed.
    async fn line(&mut self, what: &str) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.input.iter().position(|octet| *octet == b'\n') {
                let rest = self.input.split_off(end + 1);
                let line = std::mem::replace(&mut self.input, rest);
                match line.strip_suffix(b"\r\n") {
                    Some(line) => return Some(line.to_vec()),
                    None => self.fail(&format!("The server ends a line with LF alone: {:?}.", line.escape_ascii())),
                }
            }
            if self.input.len() > REPLY {
                self.fail(&format!("A line of the server has more than {REPLY} octets."));
            }
            let mut piece = [0; 4_096];
            let transcript = self.transcript.clone();
            let read = async {
                match &mut self.stream {
                    Stream::Plain(stream) => stream.read(&mut piece).await,
                    Stream::Tls(stream) => stream.read(&mut piece).await,
                    Stream::Gone => Ok(0),
                }
            };
            match patient(&transcript, &format!("a reply to {what}"), read).await {
                Ok(0) if self.input.is_empty() => return None,
                Ok(0) => self.fail("The server has closed within a line."),
                Ok(octets) => self.input.extend_from_slice(&piece[..octets]),
                Err(_) => {
                    self.transcript.note("the server has cut TLS without close_notify");
                    return None;
                }
            }
        }
    }

    async fn patient<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        patient(&self.transcript, what, future).await
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        self.transcript.fail(what)
    }
}

/// How long a client waits in real time, in seconds. Tests that are slower than that hang.
const PATIENCE: u64 = 60;
/// How long it waits in virtual time, in hours: longer than a server's session.
const VIRTUAL_PATIENCE: u64 = 25;

/// Waits for something, and fails the test if it does not come.
async fn patient<T>(transcript: &Transcript, what: &str, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let (begun, second) = (Instant::now(), Duration::from_secs(1));
    if let Ok(come) = timeout(second, &mut future).await {
        return come;
    }
    // A paused clock jumps over the second.
    let paused = begun.elapsed() < second / 2;
    let left = if paused { VIRTUAL_PATIENCE * 3_600 } else { PATIENCE - 1 };
    match timeout(Duration::from_secs(left), future).await {
        Ok(come) => come,
        Err(_) => {
            let time =
                if paused { format!("{VIRTUAL_PATIENCE} hours of virtual time") } else { format!("{PATIENCE} s") };
            transcript.fail(&format!("The client has waited {time} for {what}."))
        }
    }
}
